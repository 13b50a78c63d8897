"""Mucus on the lens: a film of uneven thickness that bends light along its slopes, blurs where it is thick, and dulls
and yellows a little; strings run through it. It creeps."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image, _fields

GROUP = "lens"
ABOUT = "a film of mucus on the lens bends and blurs the picture"

_COVER = (0.2, 0.34, 0.5, 0.68, 0.88)  # share of the picture, at the beginning
_BEND = (5.0, 6.5, 8.0, 10.0, 12.5)  # px of an image 320 wide, a unit of slope
_BLUR = (2.0, 2.6, 3.3, 4.2, 5.4)


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    unit, h, w = width / 320, max(height // 2, 1), max(width // 2, 1)
    lumps, strings = _fields.torus(rng, 2.4, 2.0), _fields.torus(rng, 1.7, 3.0)
    speed = rng.uniform(1.0, 3.0)  # cells a second, down
    tint = np.array([0.97, rng.uniform(0.92, 0.96), rng.uniform(0.74, 0.86)], np.float32)
    x, y = _fields.grid(h, w, 44)
    column = np.arange(width, dtype=np.float32)[None]
    row = np.arange(height, dtype=np.float32)[:, None]

    def film(time_s: float) -> tuple[_fields.Float32, _fields.Float32]:
        lump = _fields.look(lumps, x, 0.8 * y - speed * time_s)
        # Where a rough field passes through zero there are threads.
        thread = np.exp(-((_fields.look(strings, 1.3 * x, 0.6 * y - speed * time_s) / 0.3) ** 2))
        return lump, thread

    start = film(0.0)[0]
    least, spread = float(np.quantile(start, 1 - _COVER[severity - 1])), float(start.std()) + 1e-6

    def effect(rgb: Image, time_s: float) -> Image:
        lump, thread = film(time_s)
        above = (lump - least) / spread
        body = _fields.smoothstep(above, 0.0, 0.9)
        thick = cv2.GaussianBlur(body * (0.75 + 0.3 * thread) + 0.25 * np.clip(above, 0, 1.5), (0, 0), 2.0)
        gx, gy = (_fields.enlarge(part, height, width) for part in _fields.gradient(thick))
        cover, mass, string = (_fields.enlarge(part, height, width)[..., None] for part in (body, thick, thread * body))
        bend = np.float32(_BEND[severity - 1] * unit * w / 16)
        soft = cv2.GaussianBlur(rgb, (0, 0), _BLUR[severity - 1] * unit)
        bent = cv2.remap(soft, column + bend * gx, row + bend * gy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        # Slopes towards the lamp gather light, those away from it lose some.
        shade = np.clip(1 + 0.11 * w / 16 * (gx + 1.3 * gy), 0.55, 1.5)[..., None]
        light = levels.lit(rgb, 0.15)[..., None]
        milk = (np.array([228, 222, 200], np.float32) * (0.4 + 0.7 * light)) * (0.09 * mass + 0.26 * string)
        seen = bent * tint * shade * (1 - 0.09 * mass - 0.2 * string) + milk
        return levels.rounded(rgb * (1 - cover) + seen * cover)

    return effect
