"""Kernels over the vertices that a view sees; `Lamp.shade`, `views.sample` and numpy say the same more slowly."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True, fastmath=True)
def look(
    at: NDArray, points: NDArray, normals: NDArray, across: NDArray, uv: NDArray, moves: NDArray, inside: NDArray,
    image: NDArray, lamp: NDArray, least_cosine: float, texture: bool, shading: bool,
    residual: NDArray, change: NDArray, weight: NDArray,
) -> None:  # fmt: skip
    """What a view says of N vertices.

    `points`, `normals` (N, 3) and `across` (N, 2, 3) are in the camera frame, `uv` (N, 2) where they are in the image
    and `moves` (N, 2) how that changes with the height; `image` (H, W, 4) is from `View.image`, `lamp` from
    `Lamp.packed`. `texture` and `shading` say whether the picture's contrast and the lamp's share count in `change`.
    `residual` (N,), `change` (N, 3) and `weight` (N,) are written.
    """
    height, width = image.shape[:2]
    for n in range(at.size):
        residual[n], weight[n] = 0.0, 0.0
        change[n, 0], change[n, 1], change[n, 2] = 0.0, 0.0, 0.0
        if not inside[n]:
            continue
        u, v = min(max(uv[n, 0] - 0.5, 0.0), width - 1.001), min(max(uv[n, 1] - 0.5, 0.0), height - 1.001)
        column, row = int(u), int(v)
        a, b = u - column, v - row
        w00, w01, w10, w11 = (1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b
        weight[n] = (
            w00 * image[row, column, 3] + w01 * image[row, column + 1, 3]
            + w10 * image[row + 1, column, 3] + w11 * image[row + 1, column + 1, 3]
        )  # fmt: skip
        if weight[n] <= 0.0:
            continue
        seen = 0.0
        for k in range(3):
            value = (
                w00 * image[row, column, k] + w01 * image[row, column + 1, k]
                + w10 * image[row + 1, column, k] + w11 * image[row + 1, column + 1, k]
            )  # fmt: skip
            if k == 0:
                seen = value
            elif texture:
                change[n, 0] += moves[n, k - 1] * value
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        lx, ly, lz = lamp[6] - x, lamp[7] - y, lamp[8] - z
        d = math.sqrt(lx * lx + ly * ly + lz * lz)
        lx, ly, lz = lx / d, ly / d, lz / d
        along = lx * normals[n, 0] + ly * normals[n, 1] + lz * normals[n, 2]
        cosine = max(along, least_cosine)
        r = math.sqrt(x * x + y * y + z * z)
        side = 1.0 - z / r
        profile = side * (lamp[2] + side * lamp[3]) + (x * lamp[4] + y * lamp[5]) / r
        residual[n] = seen - (lamp[0] * math.log(cosine) - lamp[1] * math.log(d) + profile)
        if not shading:
            continue
        change[n, 0] -= (lamp[1] * cosine - lamp[0] * (1.0 - cosine * cosine) / cosine) / d
        for k in range(2):
            change[n, 1 + k] = (
                lamp[0] / cosine * (lx * across[n, k, 0] + ly * across[n, k, 1] + lz * across[n, k, 2])
            )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=True)
def accumulate(
    at: NDArray, residual: NDArray, change: NDArray, weight: NDArray, albedo: NDArray, most_error: float,
    total: NDArray, views: NDArray, mean: NDArray, mean_change: NDArray, curvature: NDArray, slope: NDArray,
) -> None:  # fmt: skip
    """Add a view's sightings to the sums of its vertices, with Huber's weights about the `albedo` (V,)."""
    for n in range(at.size):
        if weight[n] <= 0.0:
            continue
        v = at[n]
        error = abs(residual[n] - albedo[v]) * math.sqrt(weight[n])
        w = weight[n] * min(1.0, most_error / max(error, 1e-9))
        total[v] += w
        views[v] += 1.0
        mean[v] += w * residual[n]
        for k in range(3):
            mean_change[v, k] += w * change[n, k]
            slope[v, k] += w * change[n, k] * residual[n]
            for j in range(3):
                curvature[v, k, j] += w * change[n, k] * change[n, j]


@njit(cache=True, nogil=True)
def add_mean(at: NDArray, residual: NDArray, weight: NDArray, total: NDArray, sums: NDArray, views: NDArray) -> None:
    """Add a view's residuals to the weighted sums of its vertices."""
    for n in range(at.size):
        if weight[n] > 0.0:
            total[at[n]] += weight[n]
            sums[at[n]] += weight[n] * residual[n]
            views[at[n]] += 1.0


def empty(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Room for what `look` writes of `count` vertices."""
    return np.empty(count), np.empty((count, 3)), np.empty(count)
