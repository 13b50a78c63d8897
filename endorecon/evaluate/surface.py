"""Errors of a reconstructed surface: distances both ways, so that neither gaps nor inventions go unseen."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rendering.mesh import Caster, Mesh, distances_to
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
        seen_share: share of the whole true surface that was in view.
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

    def to_dict(self) -> dict:
        """Plain values by name."""
        return asdict(self)


def surface_errors(
    mesh: Mesh,
    truth: Mesh,
    seen_points: Float,
    median_depth: float,
    scale: float = 1.0,
    seen_share: float = 1.0,
    thresholds: tuple[float, ...] = THRESHOLDS_MM,
    samples: int = 100_000,
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

    Raises:
        InputError: a mesh without faces or with a vertex that is not finite, or nothing in view.
    """
    for name, m in (("run", mesh), ("truth", truth)):
        if len(m.faces) == 0:
            raise InputError(f"the mesh of the {name} is empty; expected a surface with at least one face")
        if not np.isfinite(m.vertices).all():
            raise InputError(f"the mesh of the {name} has vertices that are not finite; write it again")
    if len(seen_points) == 0:
        raise InputError("the true cameras see nothing of the true mesh; are both in the same world and unit?")
    accuracy = distances_to(truth, mesh.sample(samples)[0])
    completeness = distances_to(mesh, seen_points)
    precision = {t: float(np.mean(accuracy < t)) for t in thresholds}
    recall = {t: float(np.mean(completeness < t)) for t in thresholds}
    return SurfaceErrors(
        accuracy_median=float(np.median(accuracy)),
        accuracy_mean=float(np.mean(accuracy)),
        accuracy_percent=100 * float(np.median(accuracy)) / median_depth,
        completeness_median=float(np.median(completeness)),
        completeness_mean=float(np.mean(completeness)),
        completeness_percent=100 * float(np.median(completeness)) / median_depth,
        precision=precision,
        recall=recall,
        f_score={t: 2 * p * r / (p + r) if (p := precision[t]) + (r := recall[t]) > 0 else 0.0 for t in thresholds},
        scale=scale,
        seen_share=seen_share,
    )


def seen_points(mesh: Mesh, camera: Camera, path: Trajectory, samples: int = 100_000) -> tuple[Float, float, float]:
    """Points spread evenly over the part of a surface that the cameras saw.

    A point is seen when some frame (of 60 at most, evenly spaced) has it in the image at the depth of the first hit.

    Returns:
        points (N, 3), their share of all samples, and the median depth of all hits.
    """
    points, _ = mesh.sample(samples)
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
    return points[seen], float(seen.mean()), float(np.median(medians)) if medians else 0.0
