"""Out of focus: each point becomes a disc, bright ones visibly; the focus hunts."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image

GROUP = "camera"
ABOUT = "out of focus: every point is a disc, and the focus hunts"

_RADIUS = (1.3, 2.2, 3.4, 5.0, 7.5)  # px of an image 320 wide


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    rate, most = rng.uniform(0.2, 0.5), _RADIUS[severity - 1] * rng.uniform(0.93, 1.07)

    def effect(rgb: Image, time_s: float) -> Image:
        radius = most * rgb.shape[1] / 320 * (0.85 + 0.15 * np.cos(2 * np.pi * rate * time_s))
        light, disc = levels.linear(rgb), _disc(float(radius))
        return levels.display(cv2.filter2D(light, -1, disc, borderType=cv2.BORDER_REFLECT_101))

    return effect


def _disc(radius: float) -> np.ndarray:
    """A disc with a soft edge, of unit sum."""
    reach = int(np.ceil(radius))
    at = np.arange(-reach, reach + 1)
    kernel = np.clip(radius + 0.5 - np.hypot(at[:, None], at[None]), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)
