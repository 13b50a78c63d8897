"""Between levels as displayed and light, and the sensor's noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]

GAMMA = 2.2
READ_NOISE, SHOT_NOISE = 0.005, 0.008  # of a clean recording, as shares of full scale
_TO_LINEAR = ((np.arange(256) / 255) ** GAMMA).astype(np.float32)
# Of the square root of light, which is near enough to the display's levels to need no more steps than this.
_TO_DISPLAY = np.round(255 * (np.arange(4096) / 4095) ** (2 / GAMMA)).astype(np.uint8)


def linear(rgb: Image) -> Float32:
    """Light in [0, 1]."""
    return cv2.LUT(rgb, _TO_LINEAR)


def display(light: Float32) -> Image:
    """Levels of light, clipped to [0, 1]."""
    return np.take(_TO_DISPLAY, (cv2.sqrt(np.clip(light, 0, 1)) * 4095).astype(np.uint16))


def gained(rgb: Image, gain: float) -> Image:
    """With `gain` times as much light, clipped."""
    table = np.clip(255 * ((np.arange(256) / 255) ** GAMMA * gain) ** (1 / GAMMA) + 0.5, 0, 255).astype(np.uint8)
    return cv2.LUT(rgb, table)


def noisy(picture: NDArray[np.generic], rng: np.random.Generator, factor: float = 1.0) -> Image:
    """As the sensor records it (H, W, 3), in display levels 0 to 255, with `factor` times the usual noise."""
    level = np.clip(picture / 255, 0, 1).astype(np.float32)
    level += rng.standard_normal(level.shape, np.float32) * (factor * (READ_NOISE + SHOT_NOISE * np.sqrt(level)))
    return rounded(level * 255)


def rounded(levels: Float32) -> Image:
    """Display levels as uint8, clipped."""
    return (np.clip(levels, 0, 255) + np.float32(0.5)).astype(np.uint8)


def lit(rgb: Image, reach: float = 0.12) -> Float32:
    """How brightly each part of the picture is lit, (H, W) in [0, 1]: the red channel, which tissue reflects best,
    smoothed over `reach` widths."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (max(width // 8, 8), max(height // 8, 8)), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small[..., 0].astype(np.float32) / 255, (0, 0), reach * width / 8)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
