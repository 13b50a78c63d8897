"""Smooth random fields that never end: drawn once on a torus, then looked at through a window that moves."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

TILE = 128


@lru_cache(maxsize=8)
def _frequency(size: int) -> Float32:
    y, x = np.fft.fftfreq(size)[:, None] * size, np.fft.rfftfreq(size)[None] * size
    frequency = np.hypot(x, y)
    frequency[0, 0] = 1
    return frequency.astype(np.float32)


def torus(rng: np.random.Generator, slope: float, lowest: float = 1.0, size: int = TILE) -> Float32:
    """(size, size), periodic both ways, zero mean, unit deviation. Its amplitude falls with frequency^-slope: 1 is
    rough, 2 smooth, 3 a few soft hills. Below `lowest` periods a tile it is flat, so structures are size / lowest wide
    at most."""
    frequency = _frequency(size)
    filtered = np.fft.rfft2(rng.standard_normal((size, size), np.float32))
    filtered *= np.maximum(frequency, lowest) ** -slope
    filtered[0, 0] = 0
    field = np.fft.irfft2(filtered, (size, size))
    return (field / field.std()).astype(np.float32)


def grid(height: int, width: int, cells: float) -> tuple[Float32, Float32]:
    """Tile coordinates x, y (height, width) of a window `cells` of the tile's cells wide."""
    step = cells / width
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) * np.float32(step)
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) * np.float32(step)
    return np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))


def look(tile: Float32, x: Float32, y: Float32) -> Float32:
    """The field at tile coordinates, which wrap."""
    height, width = tile.shape
    # remap itself wraps once at most.
    return cv2.remap(tile, _wrapped(x, width), _wrapped(y, height), cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)


def _wrapped(at: NDArray[np.floating], length: int) -> Float32:
    return (at - length * np.floor(at * (1 / length))).astype(np.float32)


def enlarge(field: Float32, height: int, width: int) -> Float32:
    """A smooth field at the size of the image."""
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)


def smoothstep(field: Float32, low: float, high: float) -> Float32:
    """0 below `low`, 1 above `high`, smooth between."""
    u = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return u * u * (3 - 2 * u)


def centred(height: int, width: int) -> tuple[Float32, Float32]:
    """x, y (height, width) from the middle of the image, in widths."""
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / np.float32(width) - np.float32(0.5)
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5) - np.float32(height / 2)) / np.float32(width)
    return np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))


def gradient(field: Float32) -> tuple[Float32, Float32]:
    """d/dx and d/dy, a pixel, by Scharr's filter."""
    return cv2.Scharr(field, cv2.CV_32F, 1, 0, scale=1 / 32), cv2.Scharr(field, cv2.CV_32F, 0, 1, scale=1 / 32)
