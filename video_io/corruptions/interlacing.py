"""Interlaced video shown as frames: every other line is half a frame older, and moving edges look like combs."""

from __future__ import annotations

import cv2
import numpy as np

from video_io.corruptions import Effect, Image

GROUP = "recording"
ABOUT = "every other line is of an earlier moment: moving edges are combs"

_SHIFT = (1.2, 2.4, 4.2, 7.0, 11.0)  # px of an image 320 wide that the camera's jerks add between two fields


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    reach = _SHIFT[severity - 1] * width / 320
    side, rate, phase = (1 if rng.random() < 0.5 else -1), rng.uniform(0.6, 1.4), rng.uniform(0, 2 * np.pi)
    before: list[Image] = []

    def effect(rgb: Image, time_s: float) -> Image:
        across = side * reach * (0.7 + 0.3 * np.cos(2 * np.pi * rate * time_s))
        down = 0.25 * reach * np.sin(2 * np.pi * 0.7 * rate * time_s + phase)
        older = before.pop() if before else rgb
        put = np.array([[1, 0, across], [0, 1, down]])
        older = cv2.warpAffine(older, put, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        before.append(rgb)
        out = rgb.copy()
        out[1::2] = older[1::2]
        return out

    return effect
