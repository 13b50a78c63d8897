"""A CT of the same patient: the similarity that registers the run's surface to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from endorecon.run import Run
from endorecon.scales.base import NotObservableError, ScaleEstimate, mean_of_frames, unit_mm
from video_io.errors import InputError
from video_io.trajectory import align

Float = NDArray[np.float64]

# Parts of the run's surface that are registered anew, each with a scale of its own.
PARTS, LEAST_POINTS, POINTS = 6, 300, 3000
LEAST_PARTNERS = 0.5  # share of the surface that has to have a partner in the CT
FLOOR_STD = 0.003
MOST_LOG_STD = 0.3


def measure(run: Run, ct: Path, landmarks: Path | None = None, seed: int = 0) -> ScaleEstimate:
    """From `evaluate.registration.register` with a free scale.

    How sure it is: parts of the surface, along its axis, are registered once more, each with a scale of its own; and
    places that fit about as well have scales of their own. Landmarks have a scale of their own too, with the error that
    their residual tells; both are weighed by how sure they are, and where they contradict each other the result is as
    unsure as they lie apart.

    Args:
        run: with a surface.
        ct: surface of the CT, mm: STL, PLY, OBJ.
        landmarks: points of both, as `evaluate.landmarks.read_landmarks` reads them; without, many starts are tried.
        seed: of the starts.

    Raises:
        InputError: no surface, a file that can't be used, or no shape from which a scale could be guessed.
        NotObservableError: the surface does not fit the CT, or fits at very different scales.
    """
    from endorecon.evaluate.icp import Surface, icp
    from endorecon.evaluate.landmarks import read_landmarks
    from endorecon.evaluate.registration import register
    from rendering.mesh import read_mesh

    mesh = read_mesh(run.mesh_path) if run.mesh_path is not None else None
    if mesh is None or len(mesh.faces) == 0:
        raise InputError(f"the run in '{run.path}' has no surface to compare with the CT; reconstruct again")
    surface = Surface(read_mesh(ct.expanduser()))
    known = read_landmarks(landmarks, run) if landmarks else None
    place = register(mesh, surface, True, (known.run, known.ct) if known else None, seed)
    if place.inlier_share < LEAST_PARTNERS:
        raise NotObservableError(
            f"the CT '{ct}' does not tell the scale: only {100 * place.inlier_share:.0f} % of the run's surface has a "
            "part of it near that faces the same way; give landmarks, or the CT of this patient"
        )
    points, faces = mesh.sample(POINTS, seed)
    normals = mesh.face_normals[faces]
    along = points @ (place.fit.rotation.T @ place.axis)
    order = np.argsort(along)
    size = max(len(order) // PARTS, LEAST_POINTS)
    blocks = [order[begin : begin + size] for begin in range(0, len(order) - size + 1, size)]
    fits = icp(points[np.stack(blocks)], normals[np.stack(blocks)], surface, [place.fit] * len(blocks), True, 25)
    _, spread = mean_of_frames(np.log([f.fit.scale for f in fits]))
    others = [abs(float(np.log(a.fit.scale / place.fit.scale))) for a in place.alternatives]
    log_scale, log_std = float(np.log(place.fit.scale)), float(np.hypot(spread, max(others, default=0.0)))
    if known is not None and place.landmark_fit is not None:
        picked = float(np.log(place.landmark_fit.scale)), landmark_std(known.run, known.ct)
        log_scale, log_std = picked if place.slid else weighed(picked, (log_scale, float(np.hypot(log_std, FLOOR_STD))))
    log_std = float(np.hypot(log_std, FLOOR_STD))
    if log_std > MOST_LOG_STD:
        raise NotObservableError(
            f"the CT '{ct}' does not tell the scale: places that fit about as well differ in it by up to "
            f"{100 * np.expm1(max(others, default=log_std)):.0f} %; give landmarks"
        )
    how = f"{len(known)} landmarks" if known else "without landmarks"
    doubt = ", its place ambiguous" if place.ambiguous else ""
    return ScaleEstimate(f"the CT '{ct}' ({how}{doubt})", float(np.exp(log_scale)) * (unit_mm(run) or 1.0), log_std)


def landmark_std(run: Float, ct: Float) -> float:
    """The standard deviation of the log scale of the similarity that lays landmarks (N, 3) over those of the CT.

    The scale is the slope of a regression: residual over spread. With few landmarks the residual is itself uncertain,
    which widens the 90 % interval as Student's t does.
    """
    from scipy.stats import norm, t

    fit = align(run, ct, True)
    free = 3 * len(run) - 7
    residual = np.sqrt(((fit.apply(run) - ct) ** 2).sum() / free)
    spread = np.sqrt(((ct - ct.mean(0)) ** 2).sum())
    return float(residual / spread * t.ppf(0.95, free) / norm.ppf(0.95))


def weighed(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Two values (value, standard deviation) as one, by inverse variance; less sure where they contradict each other
    (Birge, Phys. Rev. 1932)."""
    weights = np.array([a[1], b[1]]) ** -2.0
    ratio = abs(a[0] - b[0]) / float(np.hypot(a[1], b[1]))
    return float(weights @ [a[0], b[0]] / weights.sum()), float(weights.sum() ** -0.5) * max(1.0, ratio)
