"""What a camera's path does not show, in words: one that stands, that only turns, or that only goes straight ahead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float = NDArray[np.float64]

STILL = 0.02  # extent of the path as a share of the scene's distance, up to which there is no parallax
TURN_RAD = float(np.radians(4))
AHEAD, AHEAD_SHARE = float(np.cos(np.radians(12))), 0.9
_STEPS = 12  # into which the path is cut, so that the shaking of single frames does not count


def poor_motion(world_from_cam: Float, distance: float) -> str:
    """What is missing in a camera's path; empty where nothing is.

    Args:
        world_from_cam: (N, 4, 4), in order.
        distance: median distance of what was seen, in the same unit.
    """
    if len(world_from_cam) < 2:
        return "only one frame was placed: depth and shape rest on the depth model alone"
    centres, rotation = world_from_cam[:, :3, 3], Rotation.from_matrix(world_from_cam[:, :3, :3])
    turn = float((rotation[0].inv() * rotation).magnitude().max())
    if np.linalg.norm(np.ptp(centres, axis=0)) < STILL * distance:
        rest = "depth and shape rest on the depth model alone, not on parallax"
        if turn > TURN_RAD:
            return f"the camera only turned, by up to {np.degrees(turn):.0f} degrees, and hardly moved: {rest}"
        return f"the camera hardly moved: {rest}"
    at = np.unique(np.linspace(0, len(centres) - 1, min(_STEPS + 1, len(centres))).astype(int))
    step = rotation[at[:-1]].inv().apply(np.diff(centres[at], axis=0))
    length = np.linalg.norm(step, axis=1)
    ahead = np.abs(step[:, 2]) > AHEAD * length
    if length[ahead].sum() > AHEAD_SHARE * length.sum():
        return (
            "the camera moved along its line of sight only: the middle of the picture has no parallax and rests on the "
            "depth model, and motion does not show the focal length well"
        )
    return ""
