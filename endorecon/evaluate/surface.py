"""Errors of a reconstructed surface: distances both ways, so that neither gaps nor inventions go unseen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rendering.mesh import Caster, Mesh, Nearest, nearest_on
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory

Float = NDArray[np.float64]
THRESHOLDS_MM = (1.0, 2.0, 5.0)
_SEEN_RELATIVE = 0.02
_SEEN_SIZE_PX = 320
_SEEN_FRAMES = 60


@dataclass(frozen=True)
class SurfaceErrors:
    """Distances between points spread over two surfaces, in the unit of the truth.

    Attributes:
        accuracy_median, accuracy_mean: from the run's surface to the true one.
        completeness_median, completeness_mean: from the part of the true surface that was in view to the run's.
        accuracy_percent, completeness_percent: the medians in % of the median depth of the clip.
        precision, recall, f_score: by threshold in the unit of the truth: share of the run's surface that near the
            true one, share of the true one in view that near the run's, and their harmonic mean.
        scale: factor from the run's unit to the truth's that was applied.
        seen_share: share of the whole true surface that was in view: the most that `coverage` can be.
        chamfer: mean of the two mean distances.
        hausdorff95: the larger of the two 95th percentiles.
        normal_median_rad: median angle between the normals of the run's surface and of the true one where it is
            nearest, in [0, pi / 2]: which side a surface faces does not count.
        normal_consistency: mean |cosine| of that angle, both ways (Mescheder et al., CVPR 2019).
        coverage: by threshold, share of the whole true surface that was in view and that the run's surface is near.
        ignored_share: share of the true surface that was told to be left out of all this.
    """

    accuracy_median: float
    accuracy_mean: float
    accuracy_percent: float
    completeness_median: float
    completeness_mean: float
    completeness_percent: float
    precision: dict[float, float]
    recall: dict[float, float]
    f_score: dict[float, float]
    scale: float
    seen_share: float
    chamfer: float = float("nan")
    hausdorff95: float = float("nan")
    normal_median_rad: float = float("nan")
    normal_consistency: float = float("nan")
    coverage: dict[float, float] = field(default_factory=dict)
    ignored_share: float = 0.0

    def to_dict(self) -> dict:
        """Plain values by name."""
        return asdict(self)


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances both ways, point by point; errors of normals are |cosines|.

    Attributes:
        accuracy: (N,) from points on the run's surface to the true one.
        completeness: (M,) from points on the part of the true surface that was in view to the run's.
        accuracy_cosine, completeness_cosine: |cosine| between the normals at the two ends; the latter is empty where
            the normals at the true points are not known.
    """

    accuracy: Float
    completeness: Float
    accuracy_cosine: Float
    completeness_cosine: Float


def surface_errors(
    mesh: Mesh,
    truth: Mesh,
    seen_points: Float,
    median_depth: float,
    scale: float = 1.0,
    seen_share: float = 1.0,
    thresholds: tuple[float, ...] = THRESHOLDS_MM,
    samples: int = 100_000,
    seen_faces: NDArray[np.int64] | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> SurfaceErrors:
    """Errors of `mesh`, already aligned with `truth`.

    Args:
        mesh: the run's surface in the truth's world.
        truth: the true surface.
        seen_points: (N, 3) points spread evenly over the part of the true surface that was in view.
        median_depth: median true depth of the clip.
        scale: factor that the alignment applied, for the record.
        seen_share: share of the true surface that was in view, for the record.
        thresholds: distances for precision, recall and F-score.
        samples: points on the run's surface.
        seen_faces: (N,) the true face of each of the seen points, for their normals.
        ignore: (F,) true faces that do not count: what lies nearest to them is left out of both directions.

    Raises:
        InputError: a mesh without faces or with a vertex that is not finite, or nothing in view.
    """
    d = surface_distances(mesh, truth, seen_points, samples, seen_faces, ignore)
    ignored = 0.0 if ignore is None else float(truth.face_areas[ignore].sum() / truth.face_areas.sum())
    return summed_up(d, median_depth, scale, seen_share, thresholds, ignored)


def surface_distances(
    mesh: Mesh,
    truth: Mesh,
    seen_points: Float,
    samples: int = 100_000,
    seen_faces: NDArray[np.int64] | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> SurfaceDistances:
    """Distances both ways between `mesh`, already aligned, and `truth`; arguments and errors as in `surface_errors`."""
    for name, m in (("run", mesh), ("truth", truth)):
        if len(m.faces) == 0:
            raise InputError(f"the mesh of the {name} is empty; expected a surface with at least one face")
        if not np.isfinite(m.vertices).all():
            raise InputError(f"the mesh of the {name} has vertices that are not finite; write it again")
    if ignore is not None and ignore.shape != (len(truth.faces),):
        raise InputError(
            f"the set to ignore tells of {len(ignore)} faces, the true mesh has {len(truth.faces)}; "
            "expected one entry a face of this very mesh"
        )
    if ignore is not None and seen_faces is not None:
        keep = ~ignore[seen_faces]
        seen_points, seen_faces = seen_points[keep], seen_faces[keep]
    if len(seen_points) == 0:
        raise InputError("the true cameras see nothing of the true mesh; are both in the same world and unit?")
    points, faces = mesh.sample(samples)
    there = nearest_on(truth, points)
    if ignore is not None:
        keep = ~ignore[there.face]
        if not keep.any():
            raise InputError("all of the run's surface lies nearest to what is to be ignored; check the set to ignore")
        there, faces = Nearest(*(part[keep] for part in there)), faces[keep]
    back = nearest_on(mesh, seen_points)
    reverse = np.zeros(0)
    if seen_faces is not None:
        reverse = _cosines(truth.face_normals[seen_faces], mesh.face_normals[back.face])
    cosine = _cosines(mesh.face_normals[faces], truth.face_normals[there.face])
    return SurfaceDistances(there.distance, back.distance, cosine, reverse)


def summed_up(
    d: SurfaceDistances,
    median_depth: float,
    scale: float = 1.0,
    seen_share: float = 1.0,
    thresholds: tuple[float, ...] = THRESHOLDS_MM,
    ignored_share: float = 0.0,
) -> SurfaceErrors:
    """The figures of distances; arguments as in `surface_errors`."""
    precision = {t: float(np.mean(d.accuracy < t)) for t in thresholds}
    recall = {t: float(np.mean(d.completeness < t)) for t in thresholds}
    cosines = [float(c.mean()) for c in (d.accuracy_cosine, d.completeness_cosine) if len(c)]
    return SurfaceErrors(
        accuracy_median=float(np.median(d.accuracy)),
        accuracy_mean=float(np.mean(d.accuracy)),
        accuracy_percent=100 * float(np.median(d.accuracy)) / median_depth,
        completeness_median=float(np.median(d.completeness)),
        completeness_mean=float(np.mean(d.completeness)),
        completeness_percent=100 * float(np.median(d.completeness)) / median_depth,
        precision=precision,
        recall=recall,
        f_score={t: f_score(precision[t], recall[t]) for t in thresholds},
        scale=scale,
        seen_share=seen_share,
        chamfer=chamfer(d.accuracy, d.completeness),
        hausdorff95=hausdorff(d.accuracy, d.completeness, 95),
        normal_median_rad=float(np.median(np.arccos(np.clip(d.accuracy_cosine, 0, 1)))),
        normal_consistency=float(np.mean(cosines)),
        coverage={t: recall[t] * seen_share for t in thresholds},
        ignored_share=ignored_share,
    )


def chamfer(accuracy: ArrayLike, completeness: ArrayLike) -> float:
    """The mean of the two mean distances (papers also print their sum, or squares: ask which)."""
    return float(np.mean(accuracy) + np.mean(completeness)) / 2


def hausdorff(accuracy: ArrayLike, completeness: ArrayLike, percentile: float = 95) -> float:
    """The larger of the two distances that `percentile` % of the points do not exceed; 100: Hausdorff's own."""
    return float(max(np.percentile(accuracy, percentile), np.percentile(completeness, percentile)))


def f_score(precision: float, recall: float) -> float:
    """The harmonic mean; 0 where both are."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _cosines(a: Float, b: Float) -> Float:
    return np.abs((a * b).sum(1))


def seen_points(mesh: Mesh, camera: Camera, path: Trajectory, samples: int = 100_000) -> tuple[Float, float, float]:
    """Points spread evenly over the part of a surface that the cameras saw.

    A point is seen when some frame (of 60 at most, evenly spaced) has it in the image at the depth of the first hit.

    Returns:
        points (N, 3), their share of all samples, and the median depth of all hits.
    """
    seen = seen_surface(mesh, camera, path, samples)
    return seen.points, seen.share, seen.median_depth


class Seen(NamedTuple):
    """The part of a surface that was in view."""

    points: Float  # (N, 3), spread evenly
    faces: NDArray[np.int64]  # (N,)
    share: float  # of the whole surface that counts
    median_depth: float  # of what the cameras saw


def seen_surface(
    mesh: Mesh, camera: Camera, path: Trajectory, samples: int = 100_000, ignore: NDArray[np.bool_] | None = None
) -> Seen:
    """As `seen_points`, with the faces; those in `ignore` (F,) do not count."""
    points, faces = mesh.sample(samples)
    if ignore is not None:
        points, faces = points[~ignore[faces]], faces[~ignore[faces]]
    factor = min(1.0, _SEEN_SIZE_PX / camera.width)
    camera = camera.scaled(max(round(camera.width * factor), 1), max(round(camera.height * factor), 1))
    caster, seen, medians = Caster(mesh), np.zeros(len(points), bool), []
    for i in np.unique(np.linspace(0, len(path) - 1, _SEEN_FRAMES).astype(int)).tolist():
        pose = path.world_from_cam[i]
        depth = caster.cast(camera, pose).depth
        if (depth > 0).any():
            medians.append(float(np.median(depth[depth > 0])))
        todo = np.flatnonzero(~seen)
        local = (points[todo] - pose[:3, 3]) @ pose[:3, :3]
        uv, inside = camera.project(local)
        todo, local, uv = todo[inside], local[inside], uv[inside]
        column = np.minimum(uv[:, 0].astype(int), camera.width - 1)
        row = np.minimum(uv[:, 1].astype(int), camera.height - 1)
        seen[todo] = np.abs(depth[row, column] - local[:, 2]) < _SEEN_RELATIVE * local[:, 2]
    share = float(seen.mean()) if len(seen) else 0.0
    return Seen(points[seen], faces[seen], share, float(np.median(medians)) if medians else 0.0)
