"""Blood that runs over the tissue: dark red where it is thick (Beer and Lambert's law), with a wet, shining surface."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image, _fields

GROUP = "scene"
ABOUT = "blood runs over the tissue, dark red and glossy"

_COVER = (0.07, 0.15, 0.26, 0.42, 0.64)  # share of the picture, at the beginning
_ABSORBS = np.array([1.25, 3.6, 3.3], np.float32)


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    h, w = max(height // 2, 1), max(width // 2, 1)
    pools, edge, ripples = (_fields.torus(rng, *kind) for kind in ((2.3, 2.0), (1.5, 4.0), (1.6, 5.0)))
    angle = rng.normal(0, 0.5)  # of the way down, from the picture's own
    speed, venous = rng.uniform(3, 7), rng.uniform(0, 1)
    own = (1 - venous) * np.array([92, 5, 8], np.float32) + venous * np.array([58, 3, 7], np.float32)
    x, y = _fields.grid(h, w, 44)
    along = x * np.float32(np.sin(angle)) + y * np.float32(np.cos(angle))
    across = x * np.float32(np.cos(angle)) - y * np.float32(np.sin(angle))
    view_x, view_y = _fields.centred(h, w)

    def height_of(time_s: float) -> _fields.Float32:
        flow = speed * time_s
        wander = 2.5 * _fields.look(edge, across * 0.5, along * 0.4 - flow * 0.3)
        # Drawn out along the way down: streaks and tongues.
        wide = _fields.look(pools, across + wander, 0.45 * along - 0.45 * flow)
        return wide + 0.22 * _fields.look(edge, across, 0.5 * along - flow)

    first = height_of(0.0)
    least, spread = float(np.quantile(first, 1 - _COVER[severity - 1])), float(first.std()) + 1e-6

    def effect(rgb: Image, time_s: float) -> Image:
        level = (height_of(time_s) - least) / spread
        # Surface tension: a steep rim, then a flat top.
        rim = np.clip(level * 5, 0, 1)
        thick = rim * (0.5 + 0.75 * np.clip(level, 0, 1.6))
        wave = _fields.look(ripples, 1.3 * across, 0.8 * along - 1.5 * speed * time_s)
        gx, gy = _fields.gradient(cv2.GaussianBlur(rim + 0.25 * thick, (0, 0), 1.0) + 0.2 * wave)
        # The lamp is at the lens: a surface shines where it faces the lens.
        bend = w / 40
        off = (bend * gx - 0.55 * view_x - 0.07) ** 2 + (bend * gy - 0.55 * view_y - 0.05) ** 2
        shine = np.exp(-off / 0.0014) * _fields.smoothstep(rim, 0.25, 0.7)
        thick, shine = (_fields.enlarge(part, height, width)[..., None] for part in (thick, shine))
        light = levels.lit(rgb, 0.06)[..., None]
        body = own * (0.25 + 1.0 * light) * (np.exp(-0.45 * thick) - np.exp(-2.6 * thick)) * 1.6
        seen = rgb * np.exp(-thick * _ABSORBS) + body
        return levels.rounded(seen + 210 * shine * np.minimum(0.2 + light, 1))

    return effect
