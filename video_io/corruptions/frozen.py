"""The picture freezes: for a while the last one stays, though the camera moves on."""

from __future__ import annotations

import numpy as np

from video_io.corruptions import Effect, Image

GROUP = "time"
ABOUT = "the picture freezes again and again while the camera moves on"

_SHARE = (0.1, 0.2, 0.33, 0.5, 0.7)  # of the time
_PERIOD_S = 0.8  # between the beginnings of two freezes, about


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    late = rng.uniform(0.2, 1, 512)  # in which part of its period a freeze begins
    kept: list[Image] = []

    def effect(rgb: Image, time_s: float) -> Image:
        number, since = divmod(time_s, _PERIOD_S)
        share = _SHARE[severity - 1]
        begun = (1 - share) * late[int(number) % len(late)] * _PERIOD_S
        if kept and begun <= since < begun + share * _PERIOD_S:
            return kept[0].copy()
        kept[:] = [rgb.copy()]
        return rgb.copy()

    return effect
