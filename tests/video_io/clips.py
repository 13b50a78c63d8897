"""Pictures for clips that tests write."""

from __future__ import annotations

import cv2
import numpy as np


def picture(step: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A textured picture that moves one pixel a step; the same for the same step."""
    rng = np.random.default_rng(7)
    texture = cv2.GaussianBlur(rng.integers(40, 220, (height + 64, width + 64, 3), dtype=np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 40, 220, cv2.NORM_MINMAX)
    return np.ascontiguousarray(texture[step % 64 : step % 64 + height, :width])
