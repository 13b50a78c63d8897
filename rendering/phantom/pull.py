"""Tissue that moves by itself, put into a clip's pictures: it is pulled, or it beats, whatever the camera does."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

PLACES = 3  # where it is pulled


def pulled(pictures: Sequence[Image], most_px: float, fps: float, rng: np.random.Generator) -> list[Image]:
    """The pictures bent smoothly by up to `most_px` (of an image 320 wide), in a few places, each to and fro in a time
    of its own of 1 to 3 s; none at the first picture.

    Args:
        pictures: (H, W, 3) uint8, all of one size.
    """
    height, width = pictures[0].shape[:2]
    unit = width / 320
    column, row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    place = rng.uniform(0.2, 0.8, (PLACES, 2)) * [width, height]
    reach, angle = rng.uniform(35, 80, PLACES) * unit, rng.uniform(0, 2 * np.pi, PLACES)
    period_s, much = rng.uniform(1, 3, PLACES), most_px * unit * rng.uniform(0.6, 1, PLACES)
    bumps = [
        np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * r * r)).astype(np.float32)
        for (x, y), r in zip(place, reach, strict=True)
    ]
    out = []
    for number, picture in enumerate(pictures):
        swing = much * (1 - np.cos(2 * np.pi * number / fps / period_s)) / 2
        dx = sum(s * np.cos(a) * b for s, a, b in zip(swing, angle, bumps, strict=True))
        dy = sum(s * np.sin(a) * b for s, a, b in zip(swing, angle, bumps, strict=True))
        at = (column - dx).astype(np.float32), (row - dy).astype(np.float32)
        out.append(cv2.remap(picture, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return out
