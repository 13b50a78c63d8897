"""The white balance locks anew: from one frame to the next all colours are others, and after a while again others."""

from __future__ import annotations

import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image

GROUP = "camera"
ABOUT = "the white balance jumps: all colours change at once, again and again"

_STRENGTH = (0.12, 0.24, 0.38, 0.55, 0.78)  # of log gain, between red and blue
_HOLD_S = 0.8


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    warm = -1.0 if rng.random() < 0.6 else 1.0  # towards blue, as after white steel; or towards red
    first = np.array([warm, rng.uniform(-0.3, 0.3), -warm])
    # One state after the other, the usual one among them.
    states = [first, np.zeros(3), -0.6 * first, 0.8 * first[[2, 1, 0]] + [0, 0.4, 0], np.zeros(3), 0.9 * first]
    offset = rng.uniform(0, 0.5 * _HOLD_S)

    def effect(rgb: Image, time_s: float) -> Image:
        state = states[int((time_s + offset) / _HOLD_S) % len(states)]
        gain = np.exp(_STRENGTH[severity - 1] * state)
        gain /= gain @ [0.3, 0.59, 0.11]  # the exposure keeps the brightness
        return np.stack([levels.gained(rgb[..., c], float(g) ** 1.6) for c, g in enumerate(gain)], -1)

    return effect
