"""The other eye of a stereo endoscope: the same clip from a place beside it, with the same lamps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rendering.phantom.clip import Clip

Image = NDArray[np.uint8]


def right_eye(clip: Clip, baseline_mm: float) -> Clip:
    """The clip as a second camera sees it, `baseline_mm` to the right of the first; the lamps stay where they were."""
    poses = clip.poses.copy()
    poses[:, :3, 3] += baseline_mm * poses[:, :3, 0]
    lamps = tuple(
        replace(light, position_mm=(light.position_mm[0] - baseline_mm, *light.position_mm[1:]))
        for light in clip.look.lights
    )
    return replace(clip, poses=poses, look=replace(clip.look, lights=lamps))


def both_eyes(clip: Clip, baseline_mm: float) -> Iterator[Image]:
    """Pictures (H, 2 W, 3) of both eyes side by side, the left one first."""
    for left, right in zip(clip.frames(), right_eye(clip, baseline_mm).frames(), strict=True):
        yield np.concatenate([left.rgb, right.rgb], axis=1)
