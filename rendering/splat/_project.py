"""From Gaussians to ellipses in the image and the tiles they reach, and back: kernels over Gaussians.

The arithmetic is float64: a huge or a needle-like Gaussian loses the small axis of its covariance in float32, and on a
scalar it costs the same.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from rendering.splat._cameras import fisheye, limits, pinhole
from rendering.splat._composite import FAINTEST, HEAD, LOG2E, TILE
from rendering.splat._harmonics import bases


@njit(cache=True, inline="always")
def rotation(w, x, y, z):  # type: ignore[no-untyped-def]
    """The 3 x 3 matrix, row by row, of a unit quaternion."""
    return (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip


@njit(cache=True, inline="always")
def in_camera(view, means, g):  # type: ignore[no-untyped-def]
    """The centre of Gaussian `g` in the camera's frame."""
    mx, my, mz = means[g, 0], means[g, 1], means[g, 2]
    return (
        view[0, 0] * mx + view[0, 1] * my + view[0, 2] * mz + view[0, 3],
        view[1, 0] * mx + view[1, 1] * my + view[1, 2] * mz + view[1, 3],
        view[2, 0] * mx + view[2, 1] * my + view[2, 2] * mz + view[2, 3],
    )


@njit(cache=True, inline="always")
def shortest(scales, g):  # type: ignore[no-untyped-def]
    """Which of a Gaussian's axes is its normal."""
    axis = 0
    for i in (1, 2):
        if scales[g, i] < scales[g, axis]:
            axis = i
    return axis


@njit(cache=True)
def shape_in_image(k, limit, is_fisheye, view, quats, scales, g, x, y, z, slope, turned, unit, root):
    # type: ignore[no-untyped-def]
    """Pixel of the centre and the square root of the image covariance; writes what the gradient needs again.

    Args:
        x, y, z: the centre in the camera's frame.
        slope: (2, 3) written: the projection's slope J.
        turned: (2, 3) written: J times the view's rotation.
        unit: (3, 3) written: the Gaussian's rotation.
        root: (2, 3) written: U with image covariance U U^T.

    Returns:
        u, v, and whether the point is on the lens's valid branch.
    """
    good = True
    if is_fisheye:
        u, v, j00, j01, j02, j10, j11, j12, good = fisheye(k, x, y, z)
    else:
        u, v, j00, j02, j11, j12 = pinhole(k, limit, x, y, z)
        j01, j10 = 0.0, 0.0
    slope[0, 0], slope[0, 1], slope[0, 2] = j00, j01, j02
    slope[1, 0], slope[1, 1], slope[1, 2] = j10, j11, j12
    qw, qx, qy, qz = float(quats[g, 0]), float(quats[g, 1]), float(quats[g, 2]), float(quats[g, 3])
    scale = 1.0 / max(math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12)
    r = rotation(qw * scale, qx * scale, qy * scale, qz * scale)
    for i in range(3):
        for j in range(3):
            unit[i, j] = r[3 * i + j]
    for i in range(2):
        for j in range(3):
            turned[i, j] = slope[i, 0] * view[0, j] + slope[i, 1] * view[1, j] + slope[i, 2] * view[2, j]
        for j in range(3):
            along = turned[i, 0] * unit[0, j] + turned[i, 1] * unit[1, j] + turned[i, 2] * unit[2, j]
            root[i, j] = along * scales[g, j]
    return u, v, good


@njit(cache=True, inline="always")
def tile_span(xx, xy, yy, reach, wide, tall, first, last):  # type: ignore[no-untyped-def]
    """Leftmost and rightmost x of the ellipse between the heights `first` and `last`; empty where left > right.

    All from the ellipse's centre. `xx`, `xy`, `yy` is the image covariance; the ellipse is where sigma <= reach, `wide`
    and `tall` are its half sizes.
    """
    low, high = max(first, -tall), min(last, tall)
    if low > high:
        return 1.0, 0.0
    left, right = -wide, wide
    peak = wide * xy / xx  # the height of the rightmost point; the leftmost is opposite
    # Where that lies outside, the ellipse is widest at the nearer edge: at height d its middle is at d xy / yy.
    if not low <= peak <= high:
        d = low if peak < low else high
        right = d * xy / yy + math.sqrt(max(2 * reach - d * d / yy, 0.0) * max(xx - xy * xy / yy, 0.0))
    if not low <= -peak <= high:
        d = low if -peak < low else high
        left = d * xy / yy - math.sqrt(max(2 * reach - d * d / yy, 0.0) * max(xx - xy * xy / yy, 0.0))
    return left, right


@njit(nogil=True, cache=True, error_model="numpy")
def project(
    start, end, means, quats, scales, opacities, colors, harmonics, degree, view, k, is_fisheye, width, height,
    near, far, blur, features, colours, depth_at, normal_at, rows, depths, radii, counts, tiles,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Project the Gaussians `start` to `end`.

    Args:
        means (N, 3), quats (N, 4) wxyz, scales (N, 3), opacities (N,), float32.
        colors: (N, D), or harmonics: (N, K, 3) of which `degree` (>= 0) is used; -1 for colors.
        view: (4, 4) float64, camera from world. k: fx, fy, cx, cy, and four of the fisheye.
        blur: pixels^2 added to the image covariance.
        colours: channels of colour; depth_at, normal_at: the place of depth and normal among the features, or -1.
        rows: (N * (HEAD + features),) written where a Gaussian is seen. depths (N,), radii (N, 2) int32, counts (N,)
            tiles of each, written.
        tiles: int32, room for the tiles reached, one Gaussian after the other.

    Returns:
        Tiles written, and the array that holds them: `tiles`, or a larger one.
    """
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    limit = limits(k, width, height)
    slope, turned, root = np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3))
    unit, basis = np.empty((3, 3)), np.empty(16)
    # The camera's place in the world solves A c = -t.
    eye = -np.linalg.solve(np.ascontiguousarray(view[:3, :3]), np.ascontiguousarray(view[:3, 3]))
    number, stride = 0, HEAD + features
    for g in range(start, end):
        counts[g], radii[g, 0], radii[g, 1] = 0, 0, 0
        x, y, z = in_camera(view, means, g)
        depths[g] = z
        opacity = float(opacities[g])
        if not (near < z < far) or not opacity >= FAINTEST:
            continue
        u, v, good = shape_in_image(k, limit, is_fisheye, view, quats, scales, g, x, y, z, slope, turned, unit, root)
        xx = root[0, 0] ** 2 + root[0, 1] ** 2 + root[0, 2] ** 2 + blur
        yy = root[1, 0] ** 2 + root[1, 1] ** 2 + root[1, 2] ** 2 + blur
        xy = root[0, 0] * root[1, 0] + root[0, 1] * root[1, 1] + root[0, 2] * root[1, 2]
        det = xx * yy - xy * xy
        if not (good and det > 0.0 and math.isfinite(det) and math.isfinite(u + v)):
            continue
        # A whisker more than where it counts, against rounding in the compositing.
        reach = math.log(opacity / FAINTEST) + 1e-4
        wide, tall = math.sqrt(2 * reach * xx), math.sqrt(2 * reach * yy)
        if u + wide < 0.5 or u - wide > width - 0.5 or v + tall < 0.5 or v - tall > height - 0.5:
            continue
        row0 = max(math.ceil(v - tall - 0.5), 0) // TILE
        row1 = min(math.floor(v + tall - 0.5), height - 1) // TILE
        if number + (row1 - row0 + 1) * across > tiles.size:
            more = np.empty(2 * tiles.size + down * across, np.int32)
            more[:number] = tiles[:number]
            tiles = more
        begin = number
        for j in range(row0, row1 + 1):
            first, last = j * TILE + 0.5 - v, min((j + 1) * TILE, height) - 0.5 - v
            left, right = tile_span(xx, xy, yy, reach, wide, tall, first, last)
            if left > right:
                continue
            i0, i1 = max(math.ceil(u + left - 0.5), 0), min(math.floor(u + right - 0.5), width - 1)
            for i in range(i0 // TILE, i1 // TILE + 1):
                if i0 <= i1:
                    tiles[number] = j * across + i
                    number += 1
        if number == begin:
            continue
        counts[g] = number - begin
        radii[g, 0], radii[g, 1] = min(math.ceil(wide), 2.0e9), min(math.ceil(tall), 2.0e9)
        r = g * stride
        rows[r], rows[r + 1] = u, v
        rows[r + 2] = math.sqrt(0.5 * LOG2E * yy / det)
        rows[r + 3], rows[r + 4] = -xy * math.sqrt(0.5 * LOG2E / (det * yy)), math.sqrt(0.5 * LOG2E / yy)
        rows[r + 5], rows[r + 6], rows[r + 7] = opacity, min(wide, 1e9), min(tall, 1e9)
        r += HEAD
        if degree >= 0:
            dx, dy, dz = means[g, 0] - eye[0], means[g, 1] - eye[1], means[g, 2] - eye[2]
            away = 1.0 / max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
            bases(degree, dx * away, dy * away, dz * away, basis)
            for c in range(3):
                value = 0.5
                for b in range((degree + 1) ** 2):
                    value += basis[b] * harmonics[g, b, c]
                rows[r + c] = max(value, 0.0)
        else:
            for c in range(colours):
                rows[r + c] = colors[g, c]
        if depth_at >= 0:
            rows[r + depth_at] = z
        if normal_at >= 0:
            axis = shortest(scales, g)
            nx, ny, nz = turn(view, unit[0, axis], unit[1, axis], unit[2, axis])
            sign = 1.0 if nx * x + ny * y + nz * z <= 0.0 else -1.0
            rows[r + normal_at], rows[r + normal_at + 1], rows[r + normal_at + 2] = sign * nx, sign * ny, sign * nz
    return number, tiles


@njit(cache=True, inline="always")
def turn(view, x, y, z):  # type: ignore[no-untyped-def]
    """A direction of the world in the camera's frame."""
    return (
        view[0, 0] * x + view[0, 1] * y + view[0, 2] * z,
        view[1, 0] * x + view[1, 1] * y + view[1, 2] * z,
        view[2, 0] * x + view[2, 1] * y + view[2, 2] * z,
    )
