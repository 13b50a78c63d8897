"""Smoke of the electric knife: wisps that drift and turn, lit by the endoscope's own lamp.

As single scattering tells it (Koschmieder): the tissue's light times t, and the lamp's times 1 - t, where t falls
exponentially with the smoke's density.
"""

from __future__ import annotations

import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image, _fields

GROUP = "scene"
ABOUT = "smoke of the electric knife drifts through the picture"

_DENSITY = (0.35, 0.7, 1.15, 1.75, 2.7)  # optical thickness where there is as much as on average


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    h, w = max(height // 2, 1), max(width // 2, 1)
    billows, wisps, turn = (_fields.torus(rng, slope, 1.5) for slope in (1.9, 1.35, 2.4))
    wind = rng.uniform(0, 2 * np.pi)
    drift = rng.uniform(14, 26) * np.array([np.cos(wind), np.sin(wind)])  # cells a second
    source = rng.uniform(-0.35, 0.35, 2).astype(np.float32)
    tone = np.array([0.9, 0.94, 1.0], np.float32) + rng.uniform(-0.03, 0.05, 3).astype(np.float32)
    x, y = _fields.grid(h, w, 46)
    across, down = _fields.centred(h, w)
    near = np.exp(-((across - source[0]) ** 2 + (down - source[1]) ** 2) / 0.13)
    lamp = 0.5 + 0.5 * np.exp(-(across**2 + down**2) / 0.16)

    def effect(rgb: Image, time_s: float) -> Image:
        dx, dy = drift * time_s
        bend = 7 * _fields.look(turn, x - dx / 2, y - dy / 2)
        coarse = _fields.look(billows, x - dx + bend, y - dy - bend)
        fine = _fields.look(wisps, 1.6 * (x - dx) + 1.7 * bend + 3 * coarse, 1.6 * (y - dy) - 1.4 * bend)
        density = np.clip(0.62 + 0.5 * coarse + 0.24 * fine, 0.04, None) * (0.45 + 1.5 * near)
        through = _fields.enlarge(np.exp(-_DENSITY[severity - 1] * density), height, width)[..., None]
        # Thick smoke shades itself a little; what it is lit by falls off as the tissue's light does.
        glow = _fields.enlarge(lamp * (0.93 + 0.05 * fine), height, width) * (0.75 + 0.5 * levels.lit(rgb, 0.2))
        veil = (235 * np.minimum(glow, 1))[..., None] * tone
        return levels.rounded(rgb * through + veil * (1 - through))

    return effect
