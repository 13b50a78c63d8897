"""The last word on a segment: joint refinement of all its key frames, then every frame's pose and depth against it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.adjust import Problem, adjust, focal_std
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
MOST_BESIDE = 150  # key frames outside a chunk that show its places, and take part with poses that stay
LEAST_MEMBERS = 16
# Landmarks err alike, which least squares does not know: with 1 px of noise, which is twice the truth, it still takes
# the focal length for somewhat surer than it is (true over stated errors on six phantom clips, 24 to 100 frames each).
OVERCONFIDENCE = 4.0
# Where landmarks miss by more than usual (a light that moves with the camera moves what it paints on a plain wall), the
# focal length is less sure by as much.
USUAL_PX = 0.4
# A focal length that moves further than this, in standard deviations of what was known before, is believed only where
# the images are this sure of it, and not beyond any lens.
MOST_FOCAL_STD, SURE_STD, MOST_LOG_FOCAL = 2.5, 0.08, 1.2
# Deviation of a focal length over what it was before: at most this where the motion has shown it, and where what little
# the motion says is worth taking.
SHOWN, SURER = 0.5, 0.8


@dataclass(frozen=True)
class FocalPrior:
    """What is known of a focal length before the motion is looked at: working pixels, and its log's deviation."""

    focal_px: float
    log_std: float


def is_shown(log_std: float, prior: FocalPrior) -> bool:
    """Whether the motion has shown the focal length, known to `log_std` now and as `prior` before."""
    return log_std < SHOWN * prior.log_std


def is_surer(log_std: float, prior: FocalPrior) -> bool:
    """Whether the focal length is known somewhat better than before, so that it is a better place to begin."""
    return log_std < SURER * prior.log_std


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


def refine(scene: Map, prior: FocalPrior | None = None) -> Refined:
    """Refine a segment's map in place and say what came of it.

    Args:
        scene: the map as tracked.
        prior: of the focal length; None for a given camera, which is never changed.
    """
    spread, before = np.inf, [scene.pose(number) for number in range(len(scene))]
    if len(scene.keyframes) >= 2:
        # Twice: the first pass finds the outliers (and the focal length), the second does without them.
        for _ in range(2):
            spread = adjust_keyframes(scene, prior)
    poses, corrections, residuals = [], [], []
    for number in range(len(scene)):
        pose, residual = place_frame(scene, number, before)
        poses.append(pose)
        residuals.append(residual)
        corrections.append(_correct(scene, number, pose))
    return Refined(scene.camera, np.stack(poses), corrections, np.array(residuals), spread)


def adjust_keyframes(scene: Map, focal: FocalPrior | None) -> float:
    """Refine all key frames together (and more frames where those are few), forget what contradicts them, and bring the
    camera up to date.

    Args:
        scene: the map, changed in place.
        focal: what is known of the focal length; None keeps it.

    Returns:
        The standard deviation of the log focal length; infinite where it was kept.
    """
    keys, spread = _members(scene), np.inf
    for first in range(0, max(len(keys) - OVERLAP, 1), CHUNK - OVERLAP):
        part, fixed = keys[first : first + CHUNK], OVERLAP if first else 1
        # The focal length is that of the first chunk, which the others then share.
        free = focal if not first else None
        problem, members, numbers = scene.problem(
            part, fixed, free.log_std / OVERCONFIDENCE if free else 0.0, scene.revisited(part, MOST_BESIDE)
        )
        if not len(numbers):
            continue
        if free:
            problem = replace(problem, log_focal=float(np.log(scene.camera.focal_px / free.focal_px)))
        adjusted = adjust(problem, ITERATIONS)
        if free:
            spread = _focal_spread(adjusted.problem, adjusted.residual_px)
            far = abs(adjusted.problem.log_focal)
            if far > MOST_LOG_FOCAL or (far > MOST_FOCAL_STD * free.log_std and spread > SURE_STD):
                # No lens: the motion does not show the focal length, and something else has pulled at it.
                free, spread, adjusted = None, np.inf, adjust(replace(problem, log_focal_std=0.0), ITERATIONS)
            elif far > free.log_std and spread < SURE_STD:
                # An unusual lens, and the images are sure of it: what is usual must not pull at it.
                adjusted = adjust(replace(adjusted.problem, log_focal_std=MOST_LOG_FOCAL), ITERATIONS)
                spread = _focal_spread(adjusted.problem, adjusted.residual_px)
        _drop_outliers(scene, adjusted.problem, adjusted.residual_px, members, numbers)
        scene.take(adjusted, members, numbers)
        if free:
            scene.camera = adjusted.problem.sight.camera
    return spread


def refocus(scene: Map, prior: FocalPrior) -> float:
    """Refine a map that still grows with its focal length free; frames that take no part move with the one before them.

    Returns:
        The standard deviation of the log focal length; infinite where the motion does not show it.
    """
    members = _members(scene)
    before = {member: scene.pose(member) for member in members}
    spread = adjust_keyframes(scene, prior)
    for member, following in pairwise([*members, len(scene)]):
        scene.move(scene.pose(member) @ np.linalg.inv(before[member]), member + 1, following)
    return spread


def _focal_spread(problem: Problem, residual_px: Float) -> float:
    """Standard deviation of the log focal length, with what least squares does not know."""
    seen = residual_px[residual_px > 0]
    rough = float(np.median(seen)) / USUAL_PX if len(seen) else 1.0
    return focal_std(problem) * OVERCONFIDENCE * max(1.0, rough)


def _members(scene: Map) -> list[int]:
    """The frames that are refined together: the key frames, and others spread evenly where those are few."""
    keys = scene.keyframes
    if len(keys) >= LEAST_MEMBERS:
        return keys
    spread = np.linspace(0, len(scene) - 1, min(LEAST_MEMBERS, len(scene))).astype(int).tolist()
    return sorted({*keys, *(number for number in spread if len(scene.sights[number].landmark))})


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


def place_frame(scene: Map, number: int, before: list[Float]) -> tuple[Float, float]:
    """A frame's pose against the refined landmarks, and its median residual. Key frames have their pose already, and so
    has every frame where the poses are given.

    `before` holds the poses as tracked: a frame starts from where it was, moved as its last key frame has moved.
    """
    sight, pose = scene.sights[number], scene.pose(number)
    key = number if scene.poses_stay or scene.keyframe[number] else scene.key_before(number)
    if key != number:
        pose = scene.pose(key) @ np.linalg.inv(before[key]) @ before[number]
    if len(sight.landmark) < 6:
        return pose, float("nan")
    points = scene.points(sight.landmark)
    if key != number:
        pose = solve(points, scene.camera, sight.pixels, [pose]).world_from_cam
        found = solve(points, scene.camera, sight.pixels, [pose], robust_px=1.0)
        return found.world_from_cam, float(np.median(found.residual_px))
    expected, _ = scene.camera.project((points - pose[:3, 3]) @ pose[:3, :3])
    off = np.linalg.norm(expected - sight.pixels, axis=1)
    foreign = scene.host[sight.landmark] != number
    return pose, float(np.median(off[foreign])) if foreign.any() else 0.0


def evidence(scene: Map, number: int, pose: Float) -> tuple[Float, Float, Float]:
    """What the landmarks that a frame sees tell of its network depth: their pixels (N, 2), log(true / network distance)
    and its variance (N,), as `fit_correction` takes them."""
    sight = scene.sights[number]
    far = np.linalg.norm(scene.points(sight.landmark) - pose[:3, 3], axis=1)
    log_ratio = np.log(np.maximum(far, 1e-9)) - sight.log_net
    variance = 1 / (scene.information[sight.landmark] / PIXEL_STD**2 + 1 / NETWORK_STD**2)
    return sight.pixels.astype(float), log_ratio.astype(float), variance


@lru_cache(maxsize=16)
def _flat(alpha: float) -> Correction:
    """Of a frame that sees no landmark: the scale that it was tracked with; one for many frames in a row."""
    return Correction.constant(alpha)


def _correct(scene: Map, number: int, pose: Float) -> Correction:
    if not len(scene.sights[number].landmark):
        return _flat(float(scene.alpha[number]))
    return fit_correction(*evidence(scene, number, pose), scene.camera.width, scene.camera.height)
