"""The focal length of a clip without calibration, from how its first frames move.

A wrong focal length bends every depth and every turn, so it is sought before the clip is tracked: a stretch of frames
is tracked and jointly refined with the focal length free, and tracked again with what came out, until it settles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.refine import FocalPrior, adjust_keyframes
from endorecon.tracking.tracker import Tracker
from video_io.camera import Camera
from video_io.frame import Frame

ROUNDS = 4
SETTLED = 0.01
LEAST_FRAMES = 8
# What was known before has to be at least this much surer afterwards.
SURER = 0.8


@dataclass(frozen=True)
class Calibration:
    """The working camera found, the standard deviation of its log focal length, and whether the motion showed it."""

    camera: Camera
    log_focal_std: float
    observable: bool


def calibrate(
    frames: Sequence[Frame], nets: Sequence[NetworkDepth], camera: Camera, prior: FocalPrior
) -> Calibration:
    """Find the focal length.

    Args:
        frames: consecutive frames at the working size.
        nets: what the network says of each.
        camera: where to start.
        prior: what is known of its focal length beforehand.

    Returns:
        The start itself, and not observable, where the frames can't be tracked, the camera does not move, or the
        result is hardly surer than what was known.
    """
    found, spread = camera, np.inf
    for _ in range(ROUNDS):
        tracker = Tracker(found)
        for frame, net in zip(frames, nets, strict=True):
            tracker.place(replace(frame, camera=found), net)
        if not tracker.segments:
            break
        scene = max(tracker.segments, key=len)
        if len(scene) < LEAST_FRAMES or len(scene.keyframes) < 3:
            break
        before = found.focal_px
        for _ in range(2):
            spread = adjust_keyframes(scene, prior)
        found = scene.camera
        if abs(np.log(found.focal_px / before)) < SETTLED:
            break
    if spread > SURER * prior.log_std:
        return Calibration(camera, prior.log_std, False)
    return Calibration(found, spread, True)
