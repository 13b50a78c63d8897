"""Too little light: depth sinks into black, and the sensor's noise, amplified, is left."""

from __future__ import annotations

import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image

GROUP = "light"
ABOUT = "too little light: far parts sink into noise"

_STOPS = (0.9, 1.7, 2.5, 3.3, 4.2)  # halvings of the light
_NOISE = (1.2, 1.6, 2.0, 2.5, 3.0)  # times the usual


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    rate, most = rng.uniform(0.25, 0.6), _STOPS[severity - 1] * rng.uniform(0.93, 1.07)

    def effect(rgb: Image, time_s: float) -> Image:
        stops = most * (0.88 + 0.12 * np.cos(2 * np.pi * rate * time_s))
        dark = levels.gained(rgb, 2**-stops)
        return levels.noisy(dark, rng, _NOISE[severity - 1])

    return effect
