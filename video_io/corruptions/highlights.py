"""Glare of wet tissue: small, torn, clipped patches where the surface faces the lamp, each with a soft halo. They
tremble as the camera moves."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image, _fields

GROUP = "scene"
ABOUT = "wet tissue mirrors the lamp in small clipped patches with halos"

_LEVEL = (2.2, 1.9, 1.6, 1.3, 0.95)  # deviations of slope and relief above which a place shines


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    unit = width / 320
    fine, broad = _fields.torus(rng, 1.45, 5.0), _fields.torus(rng, 2.0, 2.0)
    heading = rng.uniform(0, 2 * np.pi)
    drift = 4 * np.array([np.cos(heading), np.sin(heading)])  # cells a second
    x, y = _fields.grid(height, width, 95)
    stretch = rng.uniform(0.55, 1.0)

    def effect(rgb: Image, time_s: float) -> Image:
        dx, dy = drift * time_s
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        # Relief shows as shading: what is brighter than its surroundings faces the lamp.
        smooth = cv2.GaussianBlur(grey, (0, 0), 1.5 * unit)
        relief = (smooth - cv2.GaussianBlur(grey, (0, 0), 9 * unit)) / (0.1 * smooth + 6)
        light = levels.lit(rgb, 0.08)
        # Two layers that pass each other: patches appear, change shape and go.
        turn = 3 * _fields.look(broad, x * 0.4 + dx, y * 0.4 - dy)
        patches = _fields.look(fine, x * stretch - dx + turn, y - dy)
        field = 0.75 * patches + 0.65 * _fields.look(broad, x * 0.6 + dx, y * 0.6)
        facing = field + 0.7 * np.clip(relief, -2, 2) + 1.5 * (light - 0.5) - _LEVEL[severity - 1]
        spot = _fields.smoothstep(facing, 0.0, 0.35)
        halo = cv2.GaussianBlur(spot, (0, 0), 2.6 * unit)
        glow = np.minimum(spot + 0.45 * halo, 1)[..., None]
        return levels.rounded(rgb * (1 - 0.9 * glow) + np.array([255, 252, 248], np.float32) * glow)

    return effect
