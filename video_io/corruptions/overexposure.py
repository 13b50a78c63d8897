"""Too much light: what is near burns out, and bleeds into its surroundings. The automatic exposure pumps about it."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image

GROUP = "light"
ABOUT = "too much light: near parts burn out and bleed"

_STOPS = (0.6, 1.1, 1.65, 2.25, 2.9)  # doublings of the light


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    small = max(width // 4, 1), max(height // 4, 1)
    rate, most = rng.uniform(0.25, 0.6), _STOPS[severity - 1] * rng.uniform(0.93, 1.07)  # rate: pumps a second

    def effect(rgb: Image, time_s: float) -> Image:
        stops = most * (0.82 + 0.18 * np.cos(2 * np.pi * rate * time_s))
        light = levels.linear(rgb) * np.float32(2**stops)
        over = cv2.resize(np.clip(light - 1, 0, 3), small, interpolation=cv2.INTER_AREA)
        bloom = cv2.resize(cv2.GaussianBlur(over, (0, 0), 0.02 * width / 4), (width, height))
        return levels.display(light + 0.2 * bloom)

    return effect
