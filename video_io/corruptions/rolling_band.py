"""The lamp flickers and the shutter rolls: bright and dark bands wander through the picture."""

from __future__ import annotations

import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image

GROUP = "camera"
ABOUT = "bright and dark bands of a flickering lamp roll through the picture"

_DEPTH = (0.12, 0.25, 0.42, 0.62, 0.85)  # share of the light that the dark bands lack


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height = rgb.shape[0]
    bands, speed, phase = rng.uniform(1.2, 3.2), rng.uniform(0.3, 0.9), rng.uniform(0, 1)
    duty, tint = rng.uniform(0.35, 0.6), np.array([1.0, rng.uniform(0.94, 1.0), rng.uniform(0.86, 1.0)], np.float32)
    row = (np.arange(height) + 0.5) / height

    def effect(rgb: Image, time_s: float) -> Image:
        wave = np.cos(2 * np.pi * (bands * row - speed * time_s + phase))
        # A lamp that is switched, seen through a shutter that is open for a while: an oblong with soft flanks.
        lack = _DEPTH[severity - 1] / (1 + np.exp(-5 * (wave[:, None] - np.cos(np.pi * duty))))
        light = (1 - lack) * (1 - 0.5 * lack * (1 - tint))
        return levels.rounded(rgb * light[:, None, :].astype(np.float32) ** np.float32(1 / levels.GAMMA))

    return effect
