"""Frames are lost, one by one and in bursts; the times of the others are as they were."""

from __future__ import annotations

import numpy as np

from video_io.corruptions import Effect, Image

GROUP = "time"
ABOUT = "frames are lost, one by one and in bursts"

_SHARE = (0.1, 0.2, 0.35, 0.5, 0.7)
_BURST = 12  # frames in which bursts begin anew
_DRAWS = 4096


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    single = rng.random(_DRAWS)
    burst = np.repeat(rng.random(-(-_DRAWS // _BURST)), _BURST)[:_DRAWS]
    # Of two even draws 0.6 a + 0.4 b; its ranks are even again, so that the share is met.
    mixed = 0.6 * single + 0.4 * burst
    rank = np.argsort(np.argsort(mixed)) / _DRAWS
    seen = 0

    def effect(rgb: Image, time_s: float) -> Image | None:
        nonlocal seen
        number, seen = seen, seen + 1
        return None if number and rank[number % _DRAWS] < _SHARE[severity - 1] else rgb.copy()

    return effect
