"""A fogged lens: fine water that scatters light from everywhere, so that the picture pales and softens and bright parts
glow. It sits on the lens; from its edge it clears and comes again."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image, _fields

GROUP = "lens"
ABOUT = "the lens is fogged: pale, soft, glowing"

_COVER = (0.3, 0.48, 0.64, 0.79, 0.92)  # of the light that is scattered, where the fog is thickest
_REACH = (1.6, 2.4, 3.4, 4.8, 6.8)  # of the near blur, px of an image 320 wide


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    unit, h, w = width / 320, max(height // 4, 1), max(width // 4, 1)
    patches, grain = _fields.torus(rng, 2.2, 1.5), _fields.torus(rng, 0.3, 1.0)
    clear = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
    breath, phase = rng.uniform(0.15, 0.3), rng.uniform(0, 2 * np.pi)
    x, y = _fields.grid(h, w, 40)
    across, down = _fields.centred(h, w)
    from_clear = np.hypot(across - clear[0], down - clear[1])
    field = from_clear * 1.6 + 0.14 * _fields.look(patches, x, y)
    sparkle = _fields.look(grain, *_fields.grid(height, width, 110))

    def effect(rgb: Image, time_s: float) -> Image:
        edge = 0.12 + 0.08 * np.sin(breath * 2 * np.pi * time_s + phase)
        share = 0.55 + 0.45 * _fields.smoothstep(field, edge, edge + 0.75)
        cover = _COVER[severity - 1] * _fields.enlarge(share, height, width)[..., None]
        small = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
        far = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 0.11 * w)
        far = cv2.resize(far, (width, height), interpolation=cv2.INTER_LINEAR)
        near = cv2.GaussianBlur(rgb, (0, 0), _REACH[severity - 1] * unit)
        grey = far.mean(2, keepdims=True)
        # Many scatterings wash out colour; water adds none.
        veil = 0.55 * far + 0.45 * grey + 26 + 2.2 * sparkle[..., None]
        return levels.rounded(near * (1 - cover) + veil * cover)

    return effect
