"""The error budget of a run against a CT: registration, surface and target errors, and where they come from.

A surface that fits after ICP says little about where a target is: in the sinus study (arXiv 2310.14364) the mean
distance was 0.91 mm and the target registration error 6.58 mm. So both are told, with the registration's own doubt.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.icp import Surface, icp
from endorecon.evaluate.landmarks import Landmarks, read_landmarks
from endorecon.evaluate.protocol import RunRecord
from endorecon.evaluate.registration import Registration, register, surface_distances
from endorecon.evaluate.swap import Distances, Swap, swap
from endorecon.evaluate.trajectory import match
from rendering.mesh import Mesh, distances_to, read_mesh
from video_io.datasets import Truth, open_truth
from video_io.errors import InputError
from video_io.trajectory import Similarity

if TYPE_CHECKING:
    from endorecon.run import Run

Float = NDArray[np.float64]
Align = Literal["auto", "rigid", "similarity"]
_FRAMES = 64  # along the path, evenly spaced
_POINTS = 200  # of each
_WINDOW_POINTS = 600
_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class TargetErrors:
    """Target registration errors, mm: distances at points that took no part in the registration.

    Attributes:
        names: of the targets.
        errors: of each, after ICP.
        mean, median, rms, worst: of these.
        landmarks_mean: mean with the transform of the landmarks alone; None without landmarks.
        doubt: largest distance by which a target moves between the places that fit about as well; 0 for one place.
    """

    names: tuple[str, ...]
    errors: tuple[float, ...]
    mean: float
    median: float
    rms: float
    worst: float
    landmarks_mean: float | None
    doubt: float


@dataclass(frozen=True)
class LengthError:
    """What pieces of the path of one length give, each registered by itself.

    Attributes:
        share: length as a share of the whole path.
        length: mean length of the pieces, mm.
        pieces: how many, half of each overlapping the next.
        fitted: mean distance of their points to the CT after a registration of their own, mm.
        placed: the same with the registration of the whole.
        camera: root mean square distance of the cameras from the true ones after a registration of their own, mm; None
            without true poses.
    """

    share: float
    length: float
    pieces: int
    fitted: float
    placed: float
    camera: float | None


@dataclass(frozen=True)
class PathPoint:
    """A frame: its index, the path before it (mm), mean distance of its points to the CT and of its camera to the true
    one (mm; None without true poses), all with the registration of the whole."""

    frame: int
    path: float
    surface: float
    camera: float | None


@dataclass(frozen=True)
class Budget:
    """The error budget of a run; lengths in mm.

    Attributes:
        run, ct: names.
        align: `rigid` or `similarity`.
        registration: where the run lies, and whether that is certain.
        surface: distances of the run's surface to the CT.
        targets: errors at targets, or None.
        lengths: error against path length.
        path: error along the path.
        swap: what is due to poses and what to depth; None without truth.
        notes: what the reader should know, a sentence each.
    """

    run: str
    ct: str
    align: str
    registration: Registration
    surface: Distances
    targets: TargetErrors | None
    lengths: tuple[LengthError, ...]
    path: tuple[PathPoint, ...]
    swap: Swap | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        r = self.registration
        return {
            "run": self.run,
            "ct": self.ct,
            "align": self.align,
            "unit": "mm",
            "registration": {
                "method": r.method,
                "scale": r.fit.scale,
                "ct_from_run": r.fit.matrix.tolist(),
                "residual": r.residual,
                "inlier_share": r.inlier_share,
                "landmark_rms": r.landmark_rms,
                "ambiguous": r.ambiguous,
                "ambiguity": r.sentence(),
                "alternatives": [
                    {"residual": a.residual, "turn_rad": a.turn_rad, "slide": a.slide, "moved": a.moved}
                    for a in r.alternatives
                ],
            },
            "surface": asdict(self.surface),
            "targets": asdict(self.targets) if self.targets else None,
            "lengths": [asdict(e) for e in self.lengths],
            "path": [asdict(p) for p in self.path],
            "swap": self.swap.to_dict() if self.swap else None,
            "notes": list(self.notes),
        }


def evaluate_budget(
    run_dir: str | Path,
    ct: str | Path,
    truth: str | Path | None = None,
    landmarks: str | Path | None = None,
    targets: str | Path | None = None,
    align: Align = "auto",
    seed: int = 0,
) -> Budget:
    """The error budget of a run folder.

    Args:
        run_dir: a run with a surface.
        ct: surface of the CT, mm: STL, PLY, OBJ.
        truth: a folder with true poses (and depth) in the CT's coordinates.
        landmarks, targets: files of points, see `read_landmarks`.
        align: `rigid` keeps the run's millimetres, `similarity` finds a scale as well; `auto` does what suits the run.
        seed: of the registration's starts.

    Raises:
        InputError: a file that can't be used, a run without a surface, or things that do not belong together.
    """
    from endorecon.run import read_run

    run = read_run(run_dir)
    record = RunRecord(run)
    mesh = record.mesh()
    if mesh is None or len(mesh.faces) == 0:
        raise InputError(f"the run in '{run.path}' has no surface to compare with the CT; reconstruct again")
    if align == "rigid" and run.unit != "mm":
        raise InputError(
            f"the run in '{run.path}' is up to scale, so a rigid registration can't fit; give --align similarity, or "
            "bring the run to millimetres with `endorecon scale`"
        )
    with_scale = align == "similarity" or (align == "auto" and run.unit != "mm")
    surface = Surface(read_mesh(Path(ct).expanduser()))
    known = read_landmarks(landmarks, run) if landmarks else None
    aims = read_landmarks(targets, run) if targets else None
    _check_apart(known, aims)
    opened = open_truth(truth) if truth else None
    place = register(mesh, surface, with_scale, (known.run, known.ct) if known else None, seed)
    pieces = _Pieces(run, record, mesh, opened, seed)
    return Budget(
        run=run.name,
        ct=Path(ct).name,
        align="similarity" if with_scale else "rigid",
        registration=place,
        surface=Distances.of(surface_distances(mesh, surface, place.fit)),
        targets=_target_errors(aims, place) if aims else None,
        lengths=pieces.lengths(surface, place.fit, with_scale),
        path=pieces.along(surface, place.fit),
        swap=swap(run, opened, surface.mesh, with_scale, place.fit) if opened else None,
        notes=_notes(place, with_scale, opened, pieces),
    )


def _check_apart(landmarks: Landmarks | None, targets: Landmarks | None) -> None:
    if landmarks is None or targets is None:
        return
    both = [n for n, p in zip(targets.names, targets.ct, strict=True) if (landmarks.ct == p).all(1).any()]
    if both:
        raise InputError(
            f"target '{both[0]}' is also a landmark; a target that takes part in the registration shows no error: give "
            "points that are in one of the files only"
        )


def _target_errors(targets: Landmarks, place: Registration) -> TargetErrors:
    after = place.fit.apply(targets.run)
    errors = np.linalg.norm(after - targets.ct, axis=1)
    before = None
    if place.landmark_fit is not None:
        before = float(np.linalg.norm(place.landmark_fit.apply(targets.run) - targets.ct, axis=1).mean())
    moved = [np.linalg.norm(a.fit.apply(targets.run) - after, axis=1).max() for a in place.alternatives]
    return TargetErrors(
        targets.names,
        tuple(errors.tolist()),
        float(errors.mean()),
        float(np.median(errors)),
        float(np.sqrt((errors**2).mean())),
        float(errors.max()),
        before,
        float(max(moved, default=0.0)),
    )


def _notes(place: Registration, with_scale: bool, truth: Truth | None, pieces: _Pieces) -> tuple[str, ...]:
    notes = []
    if place.inlier_share < 0.7:
        notes.append(
            f"only {100 * place.inlier_share:.0f} % of the run's surface has a part of the CT near it that faces the "
            "same way; the registration may have failed, or the CT lacks what was filmed"
        )
    if not with_scale and place.residual > 0.1 * pieces.depth:
        notes.append(
            f"the surfaces stay {place.residual:.3g} mm apart, more than a tenth of the run's depth; are run and CT "
            "both in mm? --align similarity finds a scale as well"
        )
    if place.slid:
        notes.append("the surface alone would leave the landmarks: it is too flat to tell the scale, theirs is used")
    if place.ambiguous:
        notes.append("the registration is ambiguous, so errors at targets can be larger than the surface shows")
    if truth is None:
        notes.append("without true poses (--truth) the error is not split into that of poses and that of depth")
    return tuple(notes)


class _Pieces:
    """Points that single frames saw, in the run's world, and the path on which they were seen."""

    def __init__(self, run: Run, record: RunRecord, mesh: Mesh, truth: Truth | None, seed: int) -> None:
        if run.camera is None:
            raise InputError(f"the run in '{run.path}' has no camera.json; reconstruct again")
        rng, rays = np.random.default_rng(seed), run.camera.ray_map().reshape(-1, 3).astype(np.float64)
        path = record.trajectory
        chosen = np.unique(np.linspace(0, len(path) - 1, min(_FRAMES, len(path))).astype(int))
        steps = np.linalg.norm(np.diff(path.centres, axis=0), axis=1)
        walked = np.concatenate([[0.0], np.cumsum(steps)])
        points, kept, depths = [], [], []
        for i in chosen.tolist():
            depth, confidence = record.depth(record.indices[i])
            if depth.size != len(rays):
                raise InputError(f"the depth of frame {record.indices[i]} and camera.json differ in size")
            good = (confidence.ravel() > 0.2) & (depth.ravel() > 0) & np.isfinite(depth.ravel())
            pixels = np.flatnonzero(good & (rays[:, 2] > 0.05))
            if len(pixels) < 10:
                continue
            pixels = rng.choice(pixels, _POINTS)
            local = rays[pixels] * (depth.ravel()[pixels] / rays[pixels, 2])[:, None]
            pose = path.world_from_cam[i]
            points.append(local @ pose[:3, :3].T + pose[:3, 3])
            depths.append(np.median(local[:, 2]))
            kept.append(i)
        if not kept:
            raise InputError(f"the run in '{run.path}' has no depth that is sure enough to compare; reconstruct again")
        self.points, self.frames = np.stack(points), [record.indices[i] for i in kept]
        self.depth = float(np.median(depths))
        self.normals = _normals_near(mesh, self.points)
        self.walked, self.centres = walked[kept], path.centres[kept]
        self.rng, self.true = rng, np.full((len(kept), 3), np.nan)
        if truth is not None and truth.trajectory is not None:
            ours, theirs = match(path.times_ns[kept], truth.trajectory.times_ns)
            self.true[ours] = truth.trajectory.centres[theirs]

    def along(self, surface: Surface, fit: Similarity) -> tuple[PathPoint, ...]:
        """The error along the path."""
        distance = self._distances(surface, fit.apply(self.points)).mean(1)
        camera = np.linalg.norm(fit.apply(self.centres) - self.true, axis=1)
        return tuple(
            PathPoint(f, float(fit.scale * w), float(d), None if np.isnan(c) else float(c))
            for f, w, d, c in zip(self.frames, self.walked, distance, camera, strict=True)
        )

    def lengths(self, surface: Surface, fit: Similarity, with_scale: bool) -> tuple[LengthError, ...]:
        """The error against the length of the path."""
        placed = self._distances(surface, fit.apply(self.points)).mean(1)
        found = []
        for share in _SHARES:
            windows = _windows(self.walked, share)
            if not windows or any(e.pieces == len(windows) for e in found):
                continue
            picked = [self._pick(w) for w in windows]
            points, normals = (np.stack([p[k] for p in picked]) for k in (0, 1))
            fits = [e.fit for e in icp(points, normals, surface, [fit] * len(windows), with_scale, 25)]
            fitted = self._distances(surface, np.stack([f.apply(p) for f, p in zip(fits, points, strict=True)]))
            gaps = [((f.apply(self.centres[w]) - self.true[w]) ** 2).sum(1) for f, w in zip(fits, windows, strict=True)]
            camera = float(np.sqrt(np.nanmean(np.concatenate(gaps)))) if np.isfinite(self.true).any() else None
            length = float(np.mean([fit.scale * np.ptp(self.walked[w]) for w in windows]))
            whole = float(np.mean([placed[w].mean() for w in windows]))
            found.append(LengthError(share, length, len(windows), float(fitted.mean()), whole, camera))
        return tuple(found)

    def _pick(self, window: NDArray[np.intp]) -> tuple[Float, Float]:
        points, normals = self.points[window].reshape(-1, 3), self.normals[window].reshape(-1, 3)
        at = self.rng.choice(len(points), _WINDOW_POINTS)
        return points[at], normals[at]

    @staticmethod
    def _distances(surface: Surface, points: Float) -> Float:
        return distances_to(surface.mesh, points.reshape(-1, 3)).reshape(points.shape[:-1])


def _windows(walked: Float, share: float) -> list[NDArray[np.intp]]:
    """Pieces of this share of the path, each with three frames or more, half overlapping."""
    whole = float(walked[-1] - walked[0])
    if whole <= 0:
        return [np.arange(len(walked))] if share == 1 else []
    length, windows = share * whole, []
    for start in np.arange(0, whole - length + 1e-9 * whole, length / 2):
        inside = (walked - walked[0] >= start - 1e-9 * whole) & (walked - walked[0] <= start + length + 1e-9 * whole)
        if inside.sum() >= 3:
            windows.append(np.flatnonzero(inside))
    return windows


def _normals_near(mesh: Mesh, points: Float) -> Float:
    from scipy.spatial import cKDTree

    spread, faces = mesh.sample(50_000)
    return mesh.face_normals[faces[cKDTree(spread).query(points)[1]]]


def table(budget: Budget) -> str:
    """The figures as text, one line each."""
    r, s = budget.registration, budget.surface
    how = {"landmarks": "landmarks, then ICP", "multi-start": f"{r.starts} starts, then ICP"}[r.method]
    lines = [f"run {budget.run} against {budget.ct}: {how} ({budget.align}, scale {r.fit.scale:.5g})"]
    lines.append(
        f"  residual {r.residual:.3g} mm (nearest 85 %), {100 * r.inlier_share:.1f} % of the surface has a partner"
    )
    if r.landmark_rms is not None:
        lines.append(f"  landmarks {r.landmark_rms:.3g} mm, root mean square, before ICP")
    lines += [f"  {r.sentence()}", ""]
    lines.append(f"surface to CT  mean {s.mean:.3f}, median {s.median:.3f}, p95 {s.p95:.3f}, RMSE {s.rmse:.3f} mm")
    if (t := budget.targets) is not None:
        lines.append(
            f"targets        mean {t.mean:.3f}, median {t.median:.3f}, RMS {t.rms:.3f}, worst {t.worst:.3f} mm "
            f"({len(t.names)} points)"
        )
        if t.landmarks_mean is not None:
            lines.append(f"               mean {t.landmarks_mean:.3f} mm by the landmarks alone")
        if t.doubt:
            lines.append(f"               they move by up to {t.doubt:.3g} mm between places that fit about as well")
    lines += ["", f"{'path length':>12}{'pieces':>8}{'own fit':>10}{'whole fit':>11}{'cameras':>10}   mm"]
    for e in budget.lengths:
        camera = "" if e.camera is None else f"{e.camera:.3f}"
        lines.append(f"{e.length:12.2f}{e.pieces:8d}{e.fitted:10.3f}{e.placed:11.3f}{camera:>10}")
    if budget.swap is not None:
        lines += ["", *_swap_lines(budget.swap)]
    lines += ["", *(f"note: {n}" for n in budget.notes)] if budget.notes else []
    return "\n".join(lines)


def _swap_lines(s: Swap) -> list[str]:
    lines = [f"where the error comes from, {s.frames} frames (true depth: {s.true_depth})"]
    lines.append(
        f"  {'estimated':<18}{'points move':>12}{'median':>9}{'share':>8}   {'fused: mean':>11}{'RMSE':>8}   mm"
    )
    for name, moved, share, key in (
        ("poses", s.pose, s.pose_share, "estimated/true"),
        ("depth", s.depth, s.depth_share, "true/estimated"),
        ("poses and depth", s.both, None, "estimated/estimated"),
        ("nothing", None, None, "true/true"),
    ):
        rms, median = ("", "") if moved is None else (f"{moved.rms:.3f}", f"{moved.median:.3f}")
        part = "" if share is None else f"{100 * share:.0f} %"
        fused = s.surfaces.get(key)
        mean, rmse = ("", "") if fused is None else (f"{fused.mean:.3f}", f"{fused.rmse:.3f}")
        lines.append(f"  {name:<18}{rms:>12}{median:>9}{part:>8}   {mean:>11}{rmse:>8}")
    kind = "add up" if s.shared > 0 else "cancel"
    lines.append(f"  the two {kind}: their joint mean square differs from the sum by {100 * s.shared:+.0f} %")
    if s.scale_gap:
        lines.append(
            f"  the depth's scale exceeds the path's by {100 * s.scale_gap:+.2f} %; whose error that is stays open"
        )
    if s.registration is not None:
        lines.append(
            f"  the registration puts the points {s.registration.rms:.3f} mm (RMS) from where the poses put them"
        )
    return lines
