"""The focal length of a clip without calibration, from how its first frames move.

A focal length that is far off bends every depth and every turn, so it is sought before the clip is tracked: its first
frames are tracked with a guess, then refined with the focal length free; more of them as long as the motion has not
shown it. The refinement of the whole clip has the last word. It comes to the same within half a per cent where the clip
was tracked with a focal length that is 7 % off, so that a rough one is enough to begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from endorecon.ahead import ahead
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.refine import FocalPrior, adjust_keyframes, is_surer
from endorecon.tracking.tracker import Tracker, TrackerSettings
from video_io.camera import Camera
from video_io.frame import Frame

# Every second frame serves: twice the motion for the same work.
STRIDE, FRAMES = 2, (16, 32, 64)
ROUGH_STD, SURE_STD = 0.08, 0.04  # of the log focal length, with which tracking can begin; and where it stays as it is
# Half as many landmarks tell nearly as much, since they err alike, and cost half as much.
SETTINGS = TrackerSettings(landmarks=250, spacing_px=11.0, look=0)
LEAST_FRAMES, LEAST_KEYFRAMES = 8, 3

Estimates = Callable[[Sequence[Frame]], Iterator[tuple[Frame, NetworkDepth]]]


@dataclass(frozen=True)
class Calibration:
    """The working camera found, the standard deviation of its log focal length, and whether the motion showed it."""

    camera: Camera
    log_focal_std: float
    observable: bool


def calibrate(
    frames: Iterator[Frame], estimates: Estimates, camera: Camera, prior: FocalPrior, closely: bool = False
) -> Calibration:
    """Find the focal length.

    Args:
        frames: from the clip's beginning, at the working size.
        estimates: gives each of some consecutive frames, which carry their camera, with what the network says of it.
        camera: where to start.
        prior: what is known of its focal length beforehand.
        closely: go on until it is known well, as depth that is shown while the clip runs needs it.

    Returns:
        The start itself, and not observable, where the frames can't be tracked, the camera does not move, or the
        result is hardly surer than what was known.
    """
    tracker, found, read = Tracker(camera, SETTINGS), Calibration(camera, prior.log_std, False), 0
    frames = islice(frames, 0, None, STRIDE)
    for count in FRAMES:
        more = [replace(frame, camera=tracker.camera) for frame in islice(frames, count - read)]
        if not more:
            break
        read += len(more)
        for frame, net in ahead(estimates(more), 4):
            tracker.place(frame, net)
        scene = max(tracker.segments, key=len, default=None)
        if scene is None or len(scene) < LEAST_FRAMES or len(scene.keyframes) < LEAST_KEYFRAMES:
            continue
        for _ in range(2):
            spread = adjust_keyframes(scene, prior)
        if is_surer(spread, prior):
            found = Calibration(scene.camera, spread, True)
        if spread < (SURE_STD if closely else ROUGH_STD):
            break
        if scene is tracker.segments[-1]:
            tracker.camera = scene.camera
    return found
