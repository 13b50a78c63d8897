"""Places seen before: found by their look, and believed only when geometry and the images themselves agree.

Haustral folds look alike, so that a look alone proves nothing. A candidate has to pass three tests, each stricter: its
features agree on a rigid pose; under that pose the landmarks of the first key frame are found in the second image by
their patches, and those of the second in the first; and the two poses that come of it, which share no measurement, are
one and the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.appearance import Appearance, match, signatures
from endorecon.tracking.densify import NetworkDepth, fit_correction
from endorecon.tracking.features import FeatureImage, feature_image, sample
from endorecon.tracking.map import Map, Sight
from endorecon.tracking.patches import align, cut, plane_warp
from endorecon.tracking.pose import sample_consensus, solve
from video_io.frame import Frame

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# A key frame is compared with this many others, the most alike, of which no two lie within APART of each other, until
# one is found to show the same place; then the next key frame is passed over.
CANDIDATES, APART = 4, 3
# A place is seen again when at least so many key frames of the same segment lie between.
LEAST_BETWEEN = 12
# Features that match, and that agree on a rigid pose, before images are looked at.
LEAST_MATCHES, LEAST_CONSENSUS, TRIALS = 12, 10, 400
# What a loop has to show, both ways, of the landmarks that are looked up: how many are found, and their share of those
# that should be seen; and by how much the two ways may differ: in the turn, in the shift as a share of the distance,
# and in the log of the unit.
MOST_LOOKED_UP = 200
LEAST_FOUND, LEAST_SHARE = 30, 0.4
MOST_TURN_RAD, MOST_SHIFT, MOST_LOG_UNIT = 0.021, 0.04, 0.1
INLIER_PX = 1.5


@dataclass(frozen=True)
class Keyframe:
    """A key frame, wherever it lies: its segment's map, its number there, and what it looks like."""

    scene: Map
    number: int
    look: Appearance


@dataclass(frozen=True)
class Picture:
    """A key frame's image made ready for flow, the network's log distance (H, W), and the log of what turns that into
    the segment's unit (H, W)."""

    image: FeatureImage
    log_net: NDArray[np.float32]
    log_scale: NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """Landmarks of one key frame, found again in another's image.

    Attributes:
        sight: which, where, and what the network says of their distance there.
        first_from_second: (4, 4) the other camera in the first one's frame, in the unit of the first.
        log_unit: log of the first's unit over the second's.
        share: of the landmarks that should be seen, how many were found and agree.
        distance: the median distance of the landmarks from the first camera, in its unit.
    """

    sight: Sight
    first_from_second: Float
    log_unit: float
    share: float
    distance: float


def picture(key: Keyframe, frame: Frame, net: NetworkDepth) -> Picture:
    """What loop detection needs of a key frame's image."""
    log_net = np.log(net.distance)
    scene, sight = key.scene, key.scene.sights[key.number]
    far = np.linalg.norm(scene.points(sight.landmark) - scene.centre[key.number], axis=1)
    log_ratio = np.log(np.maximum(far, 1e-9)) - sight.log_net
    variance = np.full(len(far), 0.05**2)
    height, width = log_net.shape
    grid = fit_correction(sight.pixels.astype(float), log_ratio, variance, width, height).mean
    return Picture(feature_image(frame), log_net, cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))


def guess(first: Keyframe, second: Keyframe, pairs: tuple[Int, Int], seen: Picture) -> Float | None:
    """The second camera in the first one's frame, by `pairs` of features; None where too few of them agree.

    `seen` is the first one's picture.
    """
    (a, b), camera = pairs, first.scene.camera
    pixels = first.look.pixels[a]
    far = np.exp(first.look.log_net[a] + sample(seen.log_scale, pixels))
    points, target = camera.rays(pixels) * far[:, None], second.look.pixels[b]
    start = sample_consensus(points, camera.rays(target), camera.focal_px, TRIALS)
    if start is None:
        return None
    pose = solve(points, camera, target, [start])
    return pose.world_from_cam if pose.inliers.sum() >= LEAST_CONSENSUS else None


def look_up(first: Keyframe, second: Keyframe, seen: Picture, target: Picture, pose: Float) -> Found | None:
    """Find the first key frame's landmarks in the second's image, starting from the second's `pose` (4, 4) in the first
    one's frame."""
    scene, camera = first.scene, first.scene.camera
    sight = _some(scene.sights[first.number], MOST_LOOKED_UP)
    here = scene.pose(first.number)
    points = (scene.points(sight.landmark) - here[:3, 3]) @ here[:3, :3]
    patches = cut(seen.image.grey, seen.log_net, sight.pixels)
    log_d = np.log(np.maximum(np.linalg.norm(points, axis=1), 1e-9))
    eye, zero = np.tile(np.eye(3), (len(points), 1, 1)), np.zeros((len(points), 3))
    height, width = target.image.usable.shape
    for _ in range(3):
        expected, valid = camera.project((points - pose[:3, 3]) @ pose[:3, :3])
        column = np.clip(expected[:, 0].astype(int), 0, width - 1)
        row = np.clip(expected[:, 1].astype(int), 0, height - 1)
        should = np.flatnonzero(valid & (target.image.usable[row, column] > 0))
        if len(should) < LEAST_CONSENSUS:
            return None
        warp = plane_warp(
            camera, sight.pixels[should], log_d[should], patches.slope[should], eye[should], zero[should], pose
        )
        pixels, good = align(target.image.grey, patches[should], warp, expected[should].astype(np.float32))
        if good.sum() < LEAST_CONSENSUS:
            return None
        which = should[good]
        solved = solve(points[which], camera, pixels[good], [pose], robust_px=1.0)
        pose = solved.world_from_cam
    near = solved.residual_px < INLIER_PX
    if not near.any():
        return None
    which, pixels = which[near], pixels[good][near]
    log_net = sample(target.log_net, pixels)
    there = log_net + sample(target.log_scale, pixels)
    log_unit = np.log(np.linalg.norm(points[which] - pose[:3, 3], axis=1)) - there
    return Found(
        Sight(sight.landmark[which], pixels, log_net), pose, float(np.median(log_unit)), len(which) / len(should),
        float(np.exp(np.median(log_d[which]))),
    )  # fmt: skip


def _some(sight: Sight, most: int) -> Sight:
    """At most so many of a frame's landmarks, evenly chosen."""
    which = np.unique(np.linspace(0, max(len(sight.landmark) - 1, 0), min(most, len(sight.landmark))).astype(int))
    return Sight(sight.landmark[which], sight.pixels[which], sight.log_net[which])


@dataclass(frozen=True)
class Loop:
    """Two key frames that show the same place.

    Attributes:
        first, second: their positions in the list that was searched.
        forth: the first one's landmarks in the second's image; back: the second's in the first's.
    """

    first: int
    second: int
    forth: Found
    back: Found

    @property
    def matches(self) -> int:
        """Landmarks that tie the two together, counted the way that has fewer."""
        return min(len(self.forth.sight.landmark), len(self.back.sight.landmark))


def verify(
    first: Keyframe, second: Keyframe, pairs: tuple[Int, Int], one: Picture, other: Picture
) -> tuple[Found, Found] | None:
    """Look the landmarks of each key frame up in the other's image; None where that does not prove one place.

    Args:
        first, second: the key frames.
        pairs: features of theirs that match.
        one, other: their pictures.
    """
    pose = guess(first, second, pairs, one)
    if pose is None:
        return None
    forth = look_up(first, second, one, other, pose)
    if forth is None or not _is_enough(forth):
        return None
    # The way back starts from the features too, so that the two share no measurement.
    back = look_up(second, first, other, one, _rescaled(np.linalg.inv(pose), -forth.log_unit))
    if back is None or not _is_enough(back):
        return None
    return (forth, back) if _agree(forth, back) else None


def _is_enough(found: Found) -> bool:
    return len(found.sight.landmark) >= LEAST_FOUND and found.share >= LEAST_SHARE


def _agree(forth: Found, back: Found) -> bool:
    if abs(forth.log_unit + back.log_unit) > MOST_LOG_UNIT:
        return False
    unit = (forth.log_unit - back.log_unit) / 2
    apart = forth.first_from_second @ _rescaled(back.first_from_second, unit)
    turn = np.linalg.norm(cv2.Rodrigues(apart[:3, :3])[0])
    return bool(turn < MOST_TURN_RAD and np.linalg.norm(apart[:3, 3]) < MOST_SHIFT * forth.distance)


def _rescaled(pose: Float, log_scale: float) -> Float:
    scaled = pose.copy()
    scaled[:3, 3] *= np.exp(log_scale)
    return scaled


def find_loops(keys: Sequence[Keyframe], read: Callable[[int], tuple[Frame, NetworkDepth]]) -> list[Loop]:
    """The places that were seen more than once.

    Args:
        keys: key frames in order of time.
        read: gives the image of one of them, by its position in `keys`, and what the network says of it. Only those are
            read whose features agree with another's.
    """
    if len(keys) < 2:
        return []

    @lru_cache(maxsize=8)
    def view(at: int) -> Picture:
        return picture(keys[at], *read(at))

    signature, loops = signatures([key.look for key in keys]), []
    segment = np.array([id(key.scene) for key in keys])
    number = np.array([key.number for key in keys])
    second = 0
    while (second := second + 1) < len(keys):
        alike = signature[:second] @ signature[second]
        own = segment[:second] == segment[second]
        alike[own & (number[:second] >= _in_sight_since(keys[second], number[:second][own]))] = -1
        for _ in range(CANDIDATES):
            first = int(alike.argmax())
            if alike[first] <= 0:
                break
            alike[max(first - APART + 1, 0) : first + APART] = -1
            pairs = match(keys[first].look, keys[second].look)
            if len(pairs[0]) < LEAST_MATCHES:
                continue
            ways = verify(keys[first], keys[second], pairs, view(first), view(second))
            if ways is not None:
                loops.append(Loop(first, second, *ways))
                second += 1
                break
    return loops


def _in_sight_since(key: Keyframe, earlier: Int) -> int:
    """The first frame of a key frame's own segment that is too near in time to be a place seen before; `earlier` are
    the key frames before it."""
    if len(earlier) < LEAST_BETWEEN:
        return 0
    # A landmark is seen without a break: what was seen before most of the present ones were new is out of sight.
    hosts = key.scene.host[key.scene.sights[key.number].landmark]
    oldest = int(np.percentile(hosts, 5)) if len(hosts) else key.number
    return min(int(earlier[-LEAST_BETWEEN]) + 1, oldest)
