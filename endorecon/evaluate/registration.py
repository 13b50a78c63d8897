"""Where a reconstructed surface lies in a CT: by landmarks or by many starts, then ICP; and whether that is certain.

What a surface leaves open is asked twice: of the motions that hardly change the distances (Gelfand and Guibas, SGP
2004), and of turns about and slides along the axis of a tube; from each the ICP starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.icp import Fitted, Surface, across, check_mesh, exponential, icp, pairs, system
from rendering.mesh import Mesh, distances_to
from video_io.errors import InputError
from video_io.trajectory import Similarity, align

Float = NDArray[np.float64]
EQUAL = 1.15  # residuals within this factor can't be told apart
SLID = 2.0  # times their own residual that landmarks may be off after ICP
_HYPOTHESES = 12_000
_ANGLES_DEG = (30.0, 60.0, 90.0, 135.0, 180.0, -135.0, -90.0, -60.0, -30.0)
_STEPS = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Alternative:
    """Another place that fits about as well as the best one.

    Attributes:
        fit: the transform.
        residual: trimmed root mean square distance, mm.
        turn_rad: its turn about the axis of the surface, against the best place.
        slide: how far it lies along that axis, mm.
        moved: mean distance between the points in both places, mm.
    """

    fit: Similarity
    residual: float
    turn_rad: float
    slide: float
    moved: float


@dataclass(frozen=True)
class Registration:
    """The place of a run in the CT.

    Attributes:
        fit: from the run's world to the CT's, mm.
        method: `landmarks` or `multi-start`, then ICP.
        residual: trimmed root mean square distance of the run's points to the CT, mm.
        inlier_share: share of the points that have a partner with a normal that fits.
        starts: starts that went through ICP.
        landmark_rms: root mean square distance of the landmarks before ICP, mm; None without landmarks.
        landmark_fit: the transform of the landmarks alone, or None.
        slid: whether the surface alone would have left the landmarks, by another scale, so that theirs was kept.
        alternatives: places that fit about as well, the best first.
        axis: of the surface in the CT: the direction in which its normals have least part, (3,).
    """

    fit: Similarity
    method: str
    residual: float
    inlier_share: float
    starts: int
    landmark_rms: float | None
    landmark_fit: Similarity | None
    alternatives: tuple[Alternative, ...]
    axis: Float
    slid: bool = False

    @property
    def ambiguous(self) -> bool:
        """Whether the surface alone leaves its place open."""
        return bool(self.alternatives)

    def sentence(self) -> str:
        """In words, whether the place is certain."""
        if not self.alternatives:
            return "no other place fits about as well"
        parts, worst = [], max(a.moved for a in self.alternatives)
        turned = [np.degrees(a.turn_rad) for a in self.alternatives if abs(a.turn_rad) > np.radians(10)]
        slid = [a.slide for a in self.alternatives if abs(a.slide) > 0.3 * a.moved and abs(a.slide) > 2 * self.residual]
        if turned:
            parts.append(f"turned about its axis by {_range(turned)} degrees")
        if slid:
            parts.append(f"slid along its axis by {_range(slid)} mm")
        how = " or ".join(parts) or "placed elsewhere"
        residual = min(a.residual for a in self.alternatives)
        said = (
            f"ambiguous: {how} it fits about as well (residual {residual:.3g} against {self.residual:.3g} mm), and its "
            f"points move by up to {worst:.3g} mm; "
        )
        if self.method == "landmarks":
            return said + "only the landmarks decide"
        return said + "give landmarks to decide"


def register(
    mesh: Mesh,
    surface: Surface,
    with_scale: bool,
    landmarks: tuple[Float, Float] | None = None,
    seed: int = 0,
) -> Registration:
    """Find the place of a run's surface in the CT.

    Args:
        mesh: the run's surface, normals towards the camera.
        surface: the CT's.
        with_scale: whether a scale is found as well (similarity), or lengths are kept (rigid).
        landmarks: (N, 3) points of the run and the same in the CT, three or more; without them many starts are tried.
        seed: of the starts.

    Raises:
        InputError: an empty surface, landmarks that fix no transform, or a scale that can't be guessed.
    """
    check_mesh(mesh, "the run's surface")
    rng = np.random.default_rng(seed)
    points, faces = mesh.sample(4000, seed)
    normals = mesh.face_normals[faces]
    order = rng.permutation(len(points))
    points, normals = points[order], normals[order]
    known, rms = None, None
    if landmarks is not None:
        known = fit_landmarks(*landmarks, with_scale)
        rms = float(np.sqrt(((known.apply(landmarks[0]) - landmarks[1]) ** 2).sum(1).mean()))
        begun = [known]
    else:
        begun = _starts(points, normals, surface, _scales(mesh, surface, with_scale), rng)
        begun = _best(icp(points[:250], normals[:250], surface, begun, with_scale, 15, coarse=True), 16)
    few = points[:1000], normals[:1000], surface
    found = icp(*few, begun, with_scale, 30, coarse=True)
    best = min(icp(points, normals, surface, _best(found, 4), with_scale, 50), key=_merit)
    slid = False
    if landmarks is not None and known is not None and rms is not None and with_scale:
        # A sheet fits a sheet at any scale, the better the smaller it is: the landmarks know more.
        after = float(np.sqrt(((best.fit.apply(landmarks[0]) - landmarks[1]) ** 2).sum(1).mean()))
        if slid := after > SLID * max(rms, best.residual):
            with_scale = False
            best = icp(points, normals, surface, [known], with_scale, 50)[0]
    axis = tube_axis(normals @ best.fit.rotation.T)
    probes = icp(*few, _probes(points, normals, best.fit, surface, axis), with_scale, 25, coarse=True)
    others = icp(*few, _best([*probes, *(found if landmarks is None else [])], 24), with_scale, 8)
    alternatives = _alternatives(points[:1000], normals[:1000], surface, best.fit, others, with_scale, axis)
    method = "multi-start" if landmarks is None else "landmarks"
    return Registration(
        best.fit, method, best.residual, best.inlier_share, len(begun), rms, known, alternatives, axis, slid
    )


def fit_landmarks(run: Float, ct: Float, with_scale: bool) -> Similarity:
    """The least squares transform of landmarks (N, 3) to those of the CT (N, 3).

    Raises:
        InputError: fewer than three, or all on a line.
    """
    if len(run) < 3:
        raise InputError(f"{len(run)} landmarks fix no transform; expected 3 or more that are not on a line")
    for name, p in (("run", run), ("CT", ct)):
        spread = np.linalg.svd(p - p.mean(0), compute_uv=False)
        if not spread[1] > 0.02 * spread[0] > 0:
            raise InputError(f"the landmarks lie on a line in the {name}; add one that is off it")
    return align(run, ct, with_scale)


def _merit(end: Fitted) -> float:
    # Distances shrink with the scale, so they are compared at one size; points whose normals disagree count against.
    return end.residual / (end.fit.scale * max(end.inlier_share, 0.01) ** 2)


def _best(ends: list[Fitted], count: int) -> list[Similarity]:
    return [e.fit for e in sorted(ends, key=_merit)[:count]]


# -- starts -------------------------------------------------------------------------------------------------------


def _scales(mesh: Mesh, surface: Surface, with_scale: bool) -> list[float]:
    if not with_scale:
        return [1.0]
    width = across(mesh)[1]
    if width is None or surface.width is None:
        raise InputError(
            "the scale of the run can't be guessed from its shape, as no wall lies opposite another one; give 3 or "
            "more landmarks with --landmarks, or bring the run to millimetres with `endorecon scale`"
        )
    return [surface.width / width * factor for factor in (0.7, 0.85, 1.0, 1.2, 1.45)]


def _starts(
    points: Float, normals: Float, surface: Surface, scales: list[float], rng: np.random.Generator, keep: int = 64
) -> list[Similarity]:
    """The most promising of many places that lay one point of the run, with its normal, on one of the CT."""
    mine = rng.integers(len(points), size=_HYPOTHESES)
    theirs = rng.integers(len(surface.points), size=_HYPOTHESES)
    n = surface.normals[theirs]
    if not surface.signed:
        n = n * rng.choice([-1.0, 1.0], (len(n), 1))
    turn = _frames(n, rng) @ _frames(normals[mine], rng).transpose(0, 2, 1)
    scale = rng.choice(scales, _HYPOTHESES)
    shift = surface.points[theirs] - scale[:, None] * np.einsum("sij,sj->si", turn, points[mine])
    probe = rng.choice(len(points), 32, replace=False)
    score = np.empty(_HYPOTHESES)
    for begin in range(0, _HYPOTHESES, 2000):
        part = slice(begin, begin + 2000)
        placed = scale[part], turn[part], shift[part]
        _, distance, _, _ = pairs(points[probe], normals[probe], surface, *placed, True)
        cap = 0.5 * (surface.width or 0.2 * surface.size)
        score[part] = np.minimum(distance, cap).mean(1) / scale[part]
    chosen = np.argsort(score)[:keep]
    return [Similarity(float(scale[i]), turn[i], shift[i]) for i in chosen]


def _frames(axis: Float, rng: np.random.Generator) -> Float:
    """Rotations (N, 3, 3) whose third column is the axis (N, 3), at random angles about it."""
    first = np.cross(axis, rng.standard_normal(axis.shape))
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    return np.stack([first, np.cross(axis, first), axis], -1)


# -- ambiguity ----------------------------------------------------------------------------------------------------


def tube_axis(normals: Float) -> Float:
    """The direction (3,) in which normals (N, 3) have least part: the axis, where they are those of a tube."""
    return np.linalg.eigh(normals.T @ normals)[1][:, 0]


def _probes(points: Float, normals: Float, best: Similarity, surface: Surface, axis: Float) -> list[Similarity]:
    """Places away from the best one, to which a surface that leaves its place open would fit as well."""
    placed = best.apply(points)
    g = placed.mean(0)
    across = surface.width or float(np.sqrt(((placed - g) ** 2).sum(1).mean()))
    # the axis runs through the middle of the tube, which is where the normals meet
    _, n = placed, normals @ best.rotation.T
    middle = _meeting(placed, n, axis)
    motions = [_about(middle, np.radians(a) * axis, np.zeros(3)) for a in _ANGLES_DEG]
    motions += [_about(middle, np.zeros(3), s * across * axis) for s in _STEPS]
    radius = float(np.sqrt(((placed - g) ** 2).sum(1).mean()))
    h = system(placed[None], n[None], np.zeros((1, len(placed))), np.ones((1, len(placed))), False)[2][0, :6, :6]
    for twist in np.linalg.eigh(h)[1][:, :2].T:
        motions += [_about(g, s * across * twist[:3] / radius, s * across * twist[3:]) for s in _STEPS]
    return [Similarity(best.scale, r @ best.rotation, r @ best.translation + t) for r, t in motions]


def _meeting(points: Float, normals: Float, axis: Float) -> Float:
    """The point nearest to all lines through `points` along `normals`, in the plane across the axis; (3,)."""
    flat = normals - (normals @ axis)[:, None] * axis
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    across = np.eye(3) - flat[:, :, None] * flat[:, None, :]
    g = points.mean(0)
    a = across.mean(0) + 1e3 * np.outer(axis, axis)
    found = np.linalg.lstsq(a, np.einsum("nij,nj->i", across, points - g) / len(points), rcond=1e-6)[0]
    found -= (found @ axis) * axis
    reach = float(np.sqrt(((points - g) ** 2).sum(1).mean()))
    return g + found * min(1.0, reach / max(float(np.linalg.norm(found)), 1e-12))


def _about(centre: Float, turn: Float, shift: Float) -> tuple[Float, Float]:
    r = exponential(turn)
    return r, centre - r @ centre + shift


def _alternatives(
    points: Float, normals: Float, surface: Surface, best: Similarity, ends: list[Fitted], with_scale: bool, axis: Float
) -> tuple[Alternative, ...]:
    """Of these ends the places that differ from the best and fit about as well."""
    reference = icp(points, normals, surface, [best], with_scale, 10)[0]
    placed = reference.fit.apply(points)
    size = surface.width or float(np.sqrt(((placed - placed.mean(0)) ** 2).sum(1).mean()))
    # below half a per cent of the lumen the sampling of the surfaces decides, not their shape
    limit = EQUAL * max(_merit(reference), 0.005 * size / (reference.fit.scale * reference.inlier_share**2))
    apart = max(3 * reference.residual, 0.1 * size)
    found: list[Alternative] = []
    for end in ends:
        if _merit(end) > limit or end.inlier_share < 0.95 * reference.inlier_share:
            continue
        there = end.fit.apply(points)
        moved = float(np.linalg.norm(there - placed, axis=1).mean())
        if moved < apart:
            continue
        turn = end.fit.rotation @ reference.fit.rotation.T
        slide = float((there.mean(0) - placed.mean(0)) @ axis)
        # the twist about the axis of a general rotation (swing-twist decomposition)
        angle = 2 * np.arctan2(_quaternion(turn)[:3] @ axis, _quaternion(turn)[3])
        found.append(Alternative(end.fit, end.residual, float((angle + np.pi) % (2 * np.pi) - np.pi), slide, moved))
    return tuple(sorted(found, key=lambda a: a.residual / a.fit.scale))


def _quaternion(rotation: Float) -> Float:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation).as_quat()


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if high - low < 0.05 * max(abs(low), abs(high)) else f"{low:.3g} to {high:.3g}"


def surface_distances(mesh: Mesh, surface: Surface, fit: Similarity, samples: int = 50_000) -> Float:
    """Distances (N,) of points spread over the run's surface, brought into the CT, to the CT's surface, mm."""
    return distances_to(surface.mesh, fit.apply(mesh.sample(samples)[0]))
