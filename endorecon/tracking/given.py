"""Poses that something else than tracking has found, and how landmarks fit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.map import Map
from endorecon.tracking.pose import INLIER_PX, Pose

Float = NDArray[np.float64]

FRESH_STD = 0.2  # of the log distance of a landmark that only the network has told
SCALE_STD = 0.3  # of the network's log scale from one window of key frames to the next, before the images are asked


@dataclass(frozen=True)
class GivenPoses:
    """The camera's pose in frames of a clip, from elsewhere.

    Attributes:
        at: (index, time_ns) of a source's frame -> world_from_cam (4, 4), or None where there is no pose for it.
        path: (N, 4, 4) all of the poses, in order of time.
        note: where they come from, for run.yaml.
        scale: where their unit comes from, for run.yaml: begins with "mm", or says "up to scale".
        missing: why a frame without a pose is refused.
        rigid: whether the tissue stands still in the world, so that the followed landmarks must fit the poses.
        free_unit: whether their unit means nothing, so that it may become the network's.
        log_scale: log of the poses' unit over the network's.
        fit_px: median residual of landmarks that fit them, in pixels.
        warnings: sentences for the person who reads the report.
    """

    at: Callable[[int, int], Float | None]
    path: Float
    note: str
    scale: str
    missing: str
    rigid: bool = True
    free_unit: bool = False
    log_scale: float = 0.0
    fit_px: float = 0.0
    warnings: tuple[str, ...] = ()

    def scaled(self, factor: float) -> GivenPoses:
        """The same poses with lengths times `factor`."""

        def grown(pose: Float) -> Float:
            pose = pose.copy()
            pose[..., :3, 3] *= factor
            return pose

        def at(index: int, time_ns: int) -> Float | None:
            pose = self.at(index, time_ns)
            return None if pose is None else grown(pose)

        return replace(self, at=at, path=grown(self.path), log_scale=self.log_scale + float(np.log(factor)))


def measure(scene: Map, landmark: NDArray[np.int64], pixels: NDArray[np.float32], pose: Float, fit_px: float) -> Pose:
    """How well a known pose fits landmarks seen at `pixels` (N, 2).

    What the uncertain distance of a landmark explains is no residual: r^T (I + s^2 j j^T)^-1 r, with the distance's log
    deviation s and the pixel's slope j.
    """
    points, camera = scene.points(landmark), scene.camera
    host = scene.centre[scene.host[landmark]]
    seen, valid = camera.project((points - pose[:3, 3]) @ pose[:3, :3])
    farther, _ = camera.project((host + (points - host) * np.exp(0.01) - pose[:3, 3]) @ pose[:3, :3])
    off, slope = seen - pixels, (farther - seen) / 0.01
    variance = 1 / (scene.information[landmark] + 1 / FRESH_STD**2)
    along, steep = (off * slope).sum(1), (slope**2).sum(1)
    squared = (off**2).sum(1) - variance * along**2 / (1 + variance * steep)
    good = valid & np.isfinite(squared)
    residual = np.where(good, np.sqrt(np.maximum(np.where(good, squared, 0), 0)), 100.0)
    most = max(INLIER_PX, 2.5 * fit_px)
    return Pose(pose, residual < most, residual, float(np.minimum(residual, most).sum()))
