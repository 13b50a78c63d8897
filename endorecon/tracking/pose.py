"""The pose of one frame from landmarks that it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera

Float = NDArray[np.float64]

ROBUST_PX = 1.5
INLIER_PX = 3.0
_ITERATIONS = 12


@dataclass(frozen=True)
class Pose:
    """world_from_cam (4, 4), which landmarks fit it, their residuals (N,) in pixels, and the robust cost."""

    world_from_cam: Float
    inliers: NDArray[np.bool_]
    residual_px: Float
    cost: float


def solve(
    points: Float, camera: Camera, pixels: NDArray[Any], guesses: Sequence[Float], robust_px: float = ROBUST_PX
) -> Pose:
    """The pose from which world `points` (N, 3) are seen at `pixels` (N, 2).

    Each guess (4, 4, world_from_cam) is where a robust Gauss-Newton descent starts; the lowest cost wins. If fewer
    than six in ten points fit it, a random-sample consensus (P3P) is tried as one more guess.
    """
    seen = camera.rays(pixels), np.ascontiguousarray(camera.jacobian(pixels))
    poses = [_descend(points, *seen, guess, robust_px) for guess in guesses]
    best = min(poses, key=lambda p: p.cost)
    if best.inliers.mean() < 0.6:
        sampled = sample_consensus(points, seen[0], camera.focal_px)
        if sampled is not None:
            best = min(best, _descend(points, *seen, sampled, robust_px), key=lambda p: p.cost)
    return best


def _descend(points: Float, seen: Float, jacobian: Float, guess: Float, robust_px: float) -> Pose:
    from endorecon.tracking.kernels import solve_pose

    rotation, centre = guess[:3, :3].copy(), guess[:3, 3].copy()
    residual, weight = np.zeros(len(points)), np.ones(len(points))
    cost, _ = solve_pose(rotation, centre, points, seen, jacobian, weight, robust_px, _ITERATIONS, residual)
    pose = np.eye(4)
    # Products of many small turns drift off the rotations; the nearest one is taken.
    u, _, vt = np.linalg.svd(rotation)
    pose[:3, :3], pose[:3, 3] = u @ vt, centre
    return Pose(pose, residual < INLIER_PX, residual, cost)


def sample_consensus(points: Float, seen: Float, focal_px: float, trials: int = 200) -> Float | None:
    """world_from_cam (4, 4) that most of the world `points` (N, 3) agree on, seen along the unit rays `seen` (N, 3)."""
    ahead = seen[:, 2] > 0.15
    if ahead.sum() < 8:
        return None
    plane = seen[ahead, :2] / seen[ahead, 2:]
    cv2.setRNGSeed(0)
    found, turn, shift, _ = cv2.solvePnPRansac(
        points[ahead], plane, np.eye(3), None, iterationsCount=trials, reprojectionError=INLIER_PX / focal_px,
        flags=cv2.SOLVEPNP_P3P,
    )  # fmt: skip
    if not found:
        return None
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3], cam_from_world[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
    return np.linalg.inv(cam_from_world)
