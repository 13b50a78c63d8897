"""How steady depth is over time: TAE, the temporal alignment error of Video Depth Anything (Chen et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.case import Case
from video_io.camera import Camera

Float = NDArray[np.float64]


def temporal_errors(case: Case, align: Callable[[Float], Float]) -> tuple[Float, Float]:
    """The error of each pair of neighbouring frames, of the prediction and of the truth itself, (N - 1,) each.

    Each frame's depth is carried into its neighbour by the true poses, to the nearest pixel, and compared with the
    depth there: mean |carried - there| / there, the mean of both directions.

    Args:
        align: brings predicted depths to the truth's unit.
    """
    camera, path = case.truth.camera, case.truth.trajectory
    assert camera is not None and path is not None
    rays = _rays(camera)
    before: tuple[Float, Float, Float] | None = None
    ours, own = [], []
    for frame in case.depth_frames():
        prediction, valid = frame.prediction_by_disparity()
        aligned = np.where(valid, align(np.where(valid, prediction, 1)), 0.0)
        now = aligned, frame.truth.astype(np.float64), path.world_from_cam[frame.number]
        if before is not None:
            forth = np.linalg.inv(now[2]) @ before[2]
            back = np.linalg.inv(forth)
            for which, errors in ((0, ours), (1, own)):
                a, b = before[which], now[which]
                errors.append((carried(a, b, forth, camera, rays) + carried(b, a, back, camera, rays)) / 2)
        before = now
    return np.array(ours), np.array(own)


def carried(depth: Float, there: Float, there_from_here: Float, camera: Camera, rays: Float) -> float:
    """Mean relative difference between `depth` (H, W), carried over, and the depth `there`; 0 where nothing meets.

    As in the published code, the last of several points that fall on a pixel is kept, not the nearest; points behind
    the camera are left out here.
    """
    known = (depth > 0).reshape(-1) & np.isfinite(rays[:, 0])
    points = rays[known] * depth.reshape(-1, 1)[known]
    points = points @ there_from_here[:3, :3].T + there_from_here[:3, 3]
    uv, inside = camera.project(points)
    x, y = np.floor(uv[inside]).astype(int).T
    z = points[inside, 2]
    keep = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    image = np.zeros(there.shape)
    image[y[keep], x[keep]] = z[keep]
    both = (image > 0) & (there > 0)
    return float(np.mean(np.abs(image[both] - there[both]) / there[both])) if both.any() else 0.0


def _rays(camera: Camera) -> Float:
    """Rays (H W, 3) with z = 1."""
    rays = camera.ray_map().reshape(-1, 3).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(rays[:, 2:] > 1e-6, rays / rays[:, 2:], np.nan)
