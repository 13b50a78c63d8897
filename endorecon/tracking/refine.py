"""The last word on a segment: joint refinement of all its key frames, then every frame's pose and depth against it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.adjust import Problem, adjust
from endorecon.tracking.densify import Correction, fit_correction
from endorecon.tracking.map import Map, Sight
from endorecon.tracking.pose import solve
from video_io.camera import Camera

Float = NDArray[np.float64]

OUTLIER_PX = 3.0
PIXEL_STD = 0.5  # of one followed point: about the residuals seen on path-traced clips
NETWORK_STD = 0.15  # of the log distance that a landmark has from the network alone
ITERATIONS = 20
# Long segments are refined in overlapping chunks of key frames, so that memory and time a frame stay the same.
CHUNK, OVERLAP = 150, 50
# Landmarks and frames err alike, which least squares does not know: it takes the focal length for ten times
# surer than it is (true over stated errors on three path-traced clips; to be measured on more).
OVERCONFIDENCE = 10.0
# A focal length that moves further than this, in standard deviations of what was known before, is not believed.
MOST_FOCAL_STD = 2.5


@dataclass(frozen=True)
class Refined:
    """A segment after joint refinement.

    Attributes:
        camera: the working camera, its focal length refined where it was only estimated.
        world_from_cam: (F, 4, 4) by the number of the frame in the map.
        corrections: what turns each frame's network distance into the run's.
        residual_px: (F,) median residual of each frame's landmarks.
        log_focal_std: standard deviation of the log focal length; infinite where the camera was given.
    """

    camera: Camera
    world_from_cam: Float
    corrections: list[Correction]
    residual_px: Float
    log_focal_std: float


def refine(scene: Map, focal_std: float = 0.0) -> Refined:
    """Refine a segment's map in place and say what came of it.

    Args:
        scene: the map as tracked.
        focal_std: how uncertain the log focal length is; 0 for a given camera, which is never changed.
    """
    spread, before = np.inf, [scene.pose(number) for number in range(len(scene))]
    if len(scene.keyframes) >= 2:
        # Twice: the first pass finds the outliers (and the focal length), the second does without them.
        start = scene.camera.focal_px
        for _ in range(2):
            spread = adjust_keyframes(scene, focal_std, float(np.log(scene.camera.focal_px / start)))
    poses, corrections, residuals = [], [], []
    for number in range(len(scene)):
        pose, residual = _place(scene, number, before)
        poses.append(pose)
        residuals.append(residual)
        corrections.append(_correct(scene, number, pose))
    return Refined(scene.camera, np.stack(poses), corrections, np.array(residuals), spread)


def adjust_keyframes(scene: Map, focal_std: float, log_focal: float = 0.0) -> float:
    """Refine all key frames together, forget what contradicts them, and bring the camera up to date.

    Args:
        scene: the map, changed in place.
        focal_std: standard deviation of the prior on the log focal length; 0 keeps it.
        log_focal: how far the log focal length already is from the prior's mean.

    Returns:
        The standard deviation of the log focal length; infinite where it was kept.
    """
    keys, spread = scene.keyframes, np.inf
    for first in range(0, max(len(keys) - OVERLAP, 1), CHUNK - OVERLAP):
        part, fixed = keys[first : first + CHUNK], OVERLAP if first else 1
        # The focal length is that of the first chunk, which the others then share.
        prior = 0.0 if first else focal_std / OVERCONFIDENCE
        problem, members, numbers = scene.problem(part, fixed, prior)
        adjusted = adjust(replace(problem, log_focal=0.0 if first else log_focal), ITERATIONS)
        if prior and abs(adjusted.problem.log_focal) > MOST_FOCAL_STD * focal_std:
            # No lens: the motion does not show the focal length, and something else has pulled at it.
            prior, adjusted = 0.0, adjust(replace(problem, log_focal_std=0.0), ITERATIONS)
        _drop_outliers(scene, adjusted.problem, adjusted.residual_px, members, numbers)
        scene.take(adjusted, members, numbers)
        if prior:
            spread = adjusted.log_focal_std * OVERCONFIDENCE
            scene.camera = scene.camera.with_focal_scale(float(np.exp(adjusted.problem.log_focal - log_focal)))
    return spread


def _drop_outliers(
    scene: Map, problem: Problem, residual_px: Float, members: NDArray[np.int64], numbers: NDArray[np.int64]
) -> None:
    """Forget sightings that the refined map contradicts."""
    wrong = residual_px > OUTLIER_PX
    landmark = np.repeat(numbers, np.diff(problem.start))[wrong]
    frame = members[problem.frame[wrong]]
    for number in np.unique(frame):
        sight = scene.sights[number]
        keep = ~np.isin(sight.landmark, landmark[frame == number])
        scene.sights[number] = Sight(sight.landmark[keep], sight.pixels[keep], sight.log_net[keep])


def _place(scene: Map, number: int, before: list[Float]) -> tuple[Float, float]:
    """A frame's pose against the refined landmarks, and its median residual. Key frames have their pose already.

    `before` holds the poses as tracked: a frame starts from where it was, moved as its last key frame has moved.
    """
    sight, pose = scene.sights[number], scene.pose(number)
    key = max(k for k in scene.keyframes if k <= number)
    if key != number:
        pose = scene.pose(key) @ np.linalg.inv(before[key]) @ before[number]
    if len(sight.landmark) < 6:
        return pose, float("nan")
    seen, points = scene.camera.rays(sight.pixels), scene.points(sight.landmark)
    if key != number:
        pose = solve(points, seen, scene.camera.focal_px, [pose]).world_from_cam
        found = solve(points, seen, scene.camera.focal_px, [pose], robust_px=1.0)
        return found.world_from_cam, float(np.median(found.residual_px))
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    off = np.linalg.norm(local / np.linalg.norm(local, axis=1, keepdims=True) - seen, axis=1)
    foreign = scene.host[sight.landmark] != number
    return pose, float(np.median(off[foreign])) * scene.camera.focal_px if foreign.any() else 0.0


def _correct(scene: Map, number: int, pose: Float) -> Correction:
    sight = scene.sights[number]
    far = np.linalg.norm(scene.points(sight.landmark) - pose[:3, 3], axis=1)
    log_ratio = np.log(np.maximum(far, 1e-9)) - sight.log_net
    variance = 1 / (scene.information[sight.landmark] / PIXEL_STD**2 + 1 / NETWORK_STD**2)
    return fit_correction(
        sight.pixels.astype(float), log_ratio.astype(float), variance, scene.camera.width, scene.camera.height
    )
