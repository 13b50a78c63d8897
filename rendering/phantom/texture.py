"""Kernels that evaluate a packed `Material` at a point: colour, shading normal, gloss."""

from __future__ import annotations

import math

from numba import njit
from numpy.typing import NDArray

from rendering.phantom.noise import noise, noise_gradient

# Columns of material.pack_materials.
BASE, MOTTLE, VESSEL, POOL = 0, 3, 6, 9
MOTTLE_FREQUENCY, MOTTLE_SHARE, VESSEL_FREQUENCY, VESSEL_WIDTH, VESSEL_SHARE = 12, 13, 14, 15, 16
POOL_FREQUENCY, POOL_LEVEL, SPECKLE_FREQUENCY, SPECKLE_SHARE = 17, 18, 19, 20
BUMP_FREQUENCY, BUMP_SLOPE, FINE_FREQUENCY, FINE_SLOPE = 21, 22, 23, 24
ROUGHNESS, F0, FILM = 25, 26, 27


@njit(cache=True, fastmath=True, inline="always")
def _fade(frequency: float, footprint_mm: float) -> float:
    """Weight of a detail under a pixel's footprint, so that what is finer than the pixels averages out."""
    t = 2.0 * frequency * footprint_mm
    return 1.0 / (1.0 + t * t * t * t)


@njit(cache=True, fastmath=True)
def _vessels(m: NDArray, x: float, y: float, z: float, footprint_mm: float, seed: int) -> float:
    """Share of vessel colour: a tree-like net of two calibres along the zero lines of warped noises."""
    f = m[VESSEL_FREQUENCY]
    wx = 0.35 * noise(2.1 * f * x, 2.1 * f * y, 2.1 * f * z, seed + 21)
    wy = 0.35 * noise(2.1 * f * y, 2.1 * f * z, 2.1 * f * x, seed + 22)
    present = min(max(0.65 + 1.3 * noise(0.7 * f * x + 5, 0.7 * f * y, 0.7 * f * z, seed + 23), 0.0), 1.0)
    total = 0.0
    for calibre in range(2):
        g = f * (1.0 + 1.9 * calibre)
        soft = g * footprint_mm
        width = m[VESSEL_WIDTH] * (1.0 - 0.25 * calibre)
        n = abs(noise(g * x + wx, g * y + wy, g * z + wx - wy, seed + 24 + calibre))
        line = 1.0 - min(max((n - 0.5 * width) / (width + soft), 0.0), 1.0)
        # A line thinner than a pixel covers only part of it.
        line *= width / (width + soft)
        total = max(total, line * (1.0 - 0.4 * calibre) * (present if calibre == 0 else 1.0 - 0.5 * present))
    return total * m[VESSEL_SHARE]


@njit(cache=True, fastmath=True)
def albedo_at(
    m: NDArray, x: float, y: float, z: float, footprint_mm: float, seed: int
) -> tuple[float, float, float, float]:
    """Linear albedo rgb at a point, and the share of the point that a pool covers."""
    f = m[MOTTLE_FREQUENCY]
    n = 0.65 * noise(f * x, f * y, f * z, seed) + 0.35 * noise(2.7 * f * x, 2.7 * f * y, 2.7 * f * z, seed + 1)
    t = min(max(0.5 + 1.1 * n, 0.0), 1.0) * m[MOTTLE_SHARE]
    r = m[BASE] + t * (m[MOTTLE] - m[BASE])
    g = m[BASE + 1] + t * (m[MOTTLE + 1] - m[BASE + 1])
    b = m[BASE + 2] + t * (m[MOTTLE + 2] - m[BASE + 2])
    if m[VESSEL_SHARE] > 0.0:
        v = _vessels(m, x, y, z, footprint_mm, seed)
        r, g, b = r + v * (m[VESSEL] - r), g + v * (m[VESSEL + 1] - g), b + v * (m[VESSEL + 2] - b)
    pool = 0.0
    if m[POOL_LEVEL] < 1.5:
        f = m[POOL_FREQUENCY]
        n = noise(f * x, f * y, f * z, seed + 3) + 0.25 * noise(4 * f * x, 4 * f * y, 4 * f * z, seed + 4)
        pool = min(max((n - m[POOL_LEVEL]) * 8.0, 0.0), 1.0)
        p = 0.9 * pool
        r, g, b = r + p * (m[POOL] - r), g + p * (m[POOL + 1] - g), b + p * (m[POOL + 2] - b)
    f = m[SPECKLE_FREQUENCY]
    s = 1.0 + m[SPECKLE_SHARE] * _fade(f, footprint_mm) * noise(f * x, f * y, f * z, seed + 5)
    return min(r * s, 1.0), min(g * s, 1.0), min(b * s, 1.0), pool


@njit(cache=True, fastmath=True)
def bumped(
    m: NDArray,
    x: float,
    y: float,
    z: float,
    nx: float,
    ny: float,
    nz: float,
    footprint_mm: float,
    seed: int,
    flat: float,
) -> tuple[float, float, float]:
    """The shading normal: the surface normal tilted by the relief's slope. `flat` is the share that a pool levels."""
    gx, gy, gz = 0.0, 0.0, 0.0
    for level in range(2):
        f = m[BUMP_FREQUENCY] if level == 0 else m[FINE_FREQUENCY]
        slope = (m[BUMP_SLOPE] if level == 0 else m[FINE_SLOPE]) * _fade(f, footprint_mm) * (1.0 - 0.8 * flat)
        if slope > 1e-4:
            _, ax, ay, az = noise_gradient(f * x, f * y, f * z, seed + 11 + level)
            gx, gy, gz = gx + slope * ax, gy + slope * ay, gz + slope * az
    along = gx * nx + gy * ny + gz * nz
    nx, ny, nz = nx - gx + along * nx, ny - gy + along * ny, nz - gz + along * nz
    inverse = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz)
    return nx * inverse, ny * inverse, nz * inverse
