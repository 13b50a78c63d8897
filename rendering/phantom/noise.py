"""Smooth random functions of space: value noise with its gradient, and sums of octaves.

Deterministic in (position, seed) on every machine: the lattice values come from an integer hash.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

_MASK = 0xFFFFFFFF


@njit(cache=True, inline="always")
def _lattice(i: int, j: int, k: int, seed: int) -> float:
    h = (i * 374761393 + j * 668265263 + k * 2147483647 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 3266489917) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    return h * (2.0 / 4294967295.0) - 1.0


@njit(cache=True, fastmath=True)
def noise_gradient(x: float, y: float, z: float, seed: int) -> tuple[float, float, float, float]:
    """Value noise in [-1, 1] with lattice spacing 1, and its gradient (value, d/dx, d/dy, d/dz)."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    i, j, k = int(fx), int(fy), int(fz)
    x, y, z = x - fx, y - fy, z - fz
    u, v, w = (
        x * x * x * (x * (x * 6 - 15) + 10),
        y * y * y * (y * (y * 6 - 15) + 10),
        z * z * z * (z * (z * 6 - 15) + 10),
    )
    du, dv, dw = 30 * x * x * (x * (x - 2) + 1), 30 * y * y * (y * (y - 2) + 1), 30 * z * z * (z * (z - 2) + 1)
    a, b = _lattice(i, j, k, seed), _lattice(i + 1, j, k, seed)
    c, d = _lattice(i, j + 1, k, seed), _lattice(i + 1, j + 1, k, seed)
    e, f = _lattice(i, j, k + 1, seed), _lattice(i + 1, j, k + 1, seed)
    g, h = _lattice(i, j + 1, k + 1, seed), _lattice(i + 1, j + 1, k + 1, seed)
    k1, k2, k3 = b - a, c - a, e - a
    k4, k5, k6 = a - b - c + d, a - c - e + g, a - b - e + f
    k7 = -a + b + c - d + e - f - g + h
    value = a + k1 * u + k2 * v + k3 * w + k4 * u * v + k5 * v * w + k6 * w * u + k7 * u * v * w
    return (
        value,
        du * (k1 + k4 * v + k6 * w + k7 * v * w),
        dv * (k2 + k5 * w + k4 * u + k7 * w * u),
        dw * (k3 + k6 * u + k5 * v + k7 * u * v),
    )


@njit(cache=True, fastmath=True)
def noise(x: float, y: float, z: float, seed: int) -> float:
    """Value noise in [-1, 1] with lattice spacing 1."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    i, j, k = int(fx), int(fy), int(fz)
    x, y, z = x - fx, y - fy, z - fz
    u, v, w = x * x * (3 - 2 * x), y * y * (3 - 2 * y), z * z * (3 - 2 * z)
    a, b = _lattice(i, j, k, seed), _lattice(i + 1, j, k, seed)
    c, d = _lattice(i, j + 1, k, seed), _lattice(i + 1, j + 1, k, seed)
    e, f = _lattice(i, j, k + 1, seed), _lattice(i + 1, j, k + 1, seed)
    g, h = _lattice(i, j + 1, k + 1, seed), _lattice(i + 1, j + 1, k + 1, seed)
    ab, cd, ef, gh = a + (b - a) * u, c + (d - c) * u, e + (f - e) * u, g + (h - g) * u
    lower, upper = ab + (cd - ab) * v, ef + (gh - ef) * v
    return lower + (upper - lower) * w


@njit(cache=True, fastmath=True)
def _fbm(points: NDArray, frequency: float, octaves: int, seed: int, out: NDArray) -> None:
    for n in range(points.shape[0]):
        total, amplitude, f = 0.0, 1.0, frequency
        for o in range(octaves):
            total += amplitude * noise_gradient(points[n, 0] * f, points[n, 1] * f, points[n, 2] * f, seed + o)[0]
            amplitude *= 0.5
            f *= 2.03
        out[n] = total


def fbm(points: NDArray, frequency: float, octaves: int, seed: int) -> NDArray[np.float64]:
    """Sum of `octaves` noises at points (..., 3), each at twice the frequency and half the height of the last."""
    flat = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
    out = np.empty(len(flat))
    _fbm(flat, frequency, octaves, seed, out)
    return out.reshape(points.shape[:-1])
