"""From surfels to their rows for `_surfel_composite` and the tiles they reach, and back: kernels over surfels.

Float64 as in `_project`. The lens is a pinhole, and its slope is exact: nothing is held near the image.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from rendering.splat._cameras import pinhole_gradient
from rendering.splat._composite import FAINTEST, LOG2E, TILE
from rendering.splat._harmonics import bases
from rendering.splat._project import in_camera, shape_in_image, tile_span, turn
from rendering.splat._project_gradient import colour_gradient, gathered, quaternion_gradient
from rendering.splat._surfel_composite import GRADIENT_HEAD, HEAD

THIN = 0.02  # pixels: of a surfel seen this edge-on only the pixel's filter is seen; float32 could not tell more
ROOT = math.sqrt(0.5 * LOG2E)
_ANYWHERE = (-1e300, 1e300, -1e300, 1e300)
FAR_OUT = 1e9


@njit(cache=True, inline="always")
def _solid(root):  # type: ignore[no-untyped-def]
    """Determinant of the map from the surfel to the image, and whether it is wide enough there: by its product and its
    sum of squares the smaller of two standard deviations is about this."""
    det = root[0, 0] * root[1, 1] - root[0, 1] * root[1, 0]
    square = root[0, 0] ** 2 + root[0, 1] ** 2 + root[1, 0] ** 2 + root[1, 1] ** 2
    return det, abs(det) >= THIN * math.sqrt(square) and det != 0.0


@njit(cache=True, inline="always")
def _colours(g, means, colors, harmonics, degree, eye, basis, colours, out):  # type: ignore[no-untyped-def]
    if degree >= 0:
        dx, dy, dz = means[g, 0] - eye[0], means[g, 1] - eye[1], means[g, 2] - eye[2]
        away = 1.0 / max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
        bases(degree, dx * away, dy * away, dz * away, basis)
        for c in range(3):
            value = 0.5
            for b in range((degree + 1) ** 2):
                value += basis[b] * harmonics[g, b, c]
            out[c] = max(value, 0.0)
    else:
        for c in range(colours):
            out[c] = colors[g, c]


@njit(cache=True)
def _outline(root, ax, ay, reach, box):  # type: ignore[no-untyped-def]
    """Where sigma is at most `reach` on the surfel's plane: the image of a circle, by its dual conic.

    Writes to `box` the centre and half size of the ellipse, x and y, and the off-diagonal of its covariance, in pixels
    from the surfel's centre. `ax`, `ay` are the depths of the surfel's two axes over that of its centre. False where
    the circle is not all before the camera: then it is no ellipse.
    """
    square = 2 * reach
    q = 1.0 - square * (ax * ax + ay * ay)
    if q < 1e-6:
        return False
    x, y = root[0, 0] * ax + root[0, 1] * ay, root[1, 0] * ax + root[1, 1] * ay
    ox, oy = -square * x / q, -square * y / q
    xx = ox * ox + square * (root[0, 0] ** 2 + root[0, 1] ** 2) / q
    yy = oy * oy + square * (root[1, 0] ** 2 + root[1, 1] ** 2) / q
    xy = ox * oy + square * (root[0, 0] * root[1, 0] + root[0, 1] * root[1, 1]) / q
    box[0], box[1], box[2], box[3], box[4] = ox, oy, math.sqrt(xx), math.sqrt(yy), xy / square
    return True


@njit(cache=True)
def _list_tiles(u, v, reach, disc, box, shape, width, height, number, tiles):  # type: ignore[no-untyped-def]
    """Append the tiles that the ellipse `box` or the disc around (u, v) reaches; all tiles if `shape` is 2, only the
    disc's if it is 0. Returns how many there are now, and the array that holds them."""
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    tall = FAR_OUT if shape == 2 else max(abs(box[1]) + box[3], disc) if shape == 1 else disc
    row0 = max(math.ceil(v - tall - 0.5), 0) // TILE
    row1 = min(math.floor(v + tall - 0.5), height - 1) // TILE
    if number + (row1 - row0 + 1) * across > tiles.size:
        more = np.empty(2 * tiles.size + down * across, np.int32)
        more[:number] = tiles[:number]
        tiles = more
    for j in range(row0, row1 + 1):
        first, last = j * TILE + 0.5 - v, min((j + 1) * TILE, height) - 0.5 - v
        left, right = FAR_OUT, -FAR_OUT
        if first <= disc and last >= -disc:
            left, right = -disc, disc
        if shape == 2:
            left, right = -FAR_OUT, FAR_OUT
        elif shape == 1:
            xx, yy = box[2] ** 2 / (2 * reach) + 1e-12, box[3] ** 2 / (2 * reach) + 1e-12
            low, high = tile_span(xx, box[4], yy, reach, box[2], box[3], first - box[1], last - box[1])
            if low <= high:
                left, right = min(left, low + box[0]), max(right, high + box[0])
        if left > right:
            continue
        i0, i1 = max(math.ceil(u + left - 0.5), 0), min(math.floor(u + right - 0.5), width - 1)
        for i in range(i0 // TILE, i1 // TILE + 1):
            if i0 <= i1:
                tiles[number] = j * across + i
                number += 1
    return number, tiles


@njit(nogil=True, cache=True, error_model="numpy")
def project(
    start, end, means, quats, scales, opacities, colors, harmonics, degree, view, k, width, height, near, far, colours,
    rows, depths, radii, counts, tiles,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Project the surfels `start` to `end`; arguments and result as for `_project.project`."""
    slope, turned, root, unit = np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3)), np.empty((3, 3))
    basis, box = np.empty(16), np.zeros(5)
    eye = -np.linalg.solve(np.ascontiguousarray(view[:3, :3]), np.ascontiguousarray(view[:3, 3]))
    number, stride = 0, HEAD + colours + 3
    for g in range(start, end):
        counts[g], radii[g, 0], radii[g, 1] = 0, 0, 0
        x, y, z = in_camera(view, means, g)
        depths[g] = z
        opacity = float(opacities[g])
        if not (near < z < far) or not opacity >= FAINTEST:
            continue
        u, v, _ = shape_in_image(k, _ANYWHERE, False, view, quats, scales, g, x, y, z, slope, turned, unit, root)
        det, solid = _solid(root)
        if not math.isfinite(det + u + v):
            continue
        reach = math.log(opacity / FAINTEST) + 1e-4
        disc, shape = math.sqrt(reach), 0
        if solid:
            depth0 = view[2, 0] * unit[0, 0] + view[2, 1] * unit[1, 0] + view[2, 2] * unit[2, 0]
            depth1 = view[2, 0] * unit[0, 1] + view[2, 1] * unit[1, 1] + view[2, 2] * unit[2, 1]
            shape = 1 if _outline(root, depth0 * scales[g, 0] / z, depth1 * scales[g, 1] / z, reach, box) else 2
        wide, tall = disc, disc
        if shape == 1:
            wide, tall = max(abs(box[0]) + box[2], disc), max(abs(box[1]) + box[3], disc)
        elif shape == 2:
            wide, tall = FAR_OUT, FAR_OUT
        if u + wide < 0.5 or u - wide > width - 0.5 or v + tall < 0.5 or v - tall > height - 0.5:
            continue
        begin = number
        number, tiles = _list_tiles(u, v, reach, disc, box, shape, width, height, number, tiles)
        if number == begin:
            continue
        counts[g] = number - begin
        radii[g, 0], radii[g, 1] = min(math.ceil(wide), 2.0e9), min(math.ceil(tall), 2.0e9)
        r = g * stride
        rows[r], rows[r + 1], rows[r + 6] = u, v, opacity
        rows[r + 7], rows[r + 8], rows[r + 11] = min(wide, 1e9), min(tall, 1e9), 1.0 / z
        nx, ny, nz = turn(view, unit[0, 2], unit[1, 2], unit[2, 2])
        along = nx * x + ny * y + nz * z
        if shape:
            rows[r + 2], rows[r + 3] = ROOT * root[1, 1] / det, -ROOT * root[0, 1] / det
            rows[r + 4], rows[r + 5] = -ROOT * root[1, 0] / det, ROOT * root[0, 0] / det
            rows[r + 9], rows[r + 10] = z * nx / (k[0] * along), z * ny / (k[1] * along)
        else:
            rows[r + 2], rows[r + 3], rows[r + 4], rows[r + 5] = FAR_OUT, 0.0, 0.0, FAR_OUT
            rows[r + 9], rows[r + 10] = 0.0, 0.0
        r += HEAD
        _colours(g, means, colors, harmonics, degree, eye, basis, colours, rows[r : r + colours])
        sign, r = 1.0 if along <= 0.0 else -1.0, r + colours
        rows[r], rows[r + 1], rows[r + 2] = sign * nx, sign * ny, sign * nz
    return number, tiles


@njit(cache=True)
def _root_gradient(root, by, turned, unit, view, scales, g, by_root, by_turned, by_unit, by_slope, g_scales):
    # type: ignore[no-untyped-def]
    """From the gradient by A (`by`, row by row) to that by the map's parts; all but `g_scales[g]` are overwritten."""
    det = root[0, 0] * root[1, 1] - root[0, 1] * root[1, 0]
    a00, a01, a10, a11 = root[1, 1] / det, -root[0, 1] / det, -root[1, 0] / det, root[0, 0] / det
    # A is the inverse of the map: G = -A^T V A^T, with V the gradient by A.
    p00, p01 = ROOT * (a00 * by[0] + a10 * by[2]), ROOT * (a00 * by[1] + a10 * by[3])
    p10, p11 = ROOT * (a01 * by[0] + a11 * by[2]), ROOT * (a01 * by[1] + a11 * by[3])
    by_root[0, 0], by_root[0, 1] = -(p00 * a00 + p01 * a01), -(p00 * a10 + p01 * a11)
    by_root[1, 0], by_root[1, 1] = -(p10 * a00 + p11 * a01), -(p10 * a10 + p11 * a11)
    for j in range(2):
        along = 0.0
        for i in range(3):
            fold = turned[0, i] * by_root[0, j] + turned[1, i] * by_root[1, j]
            along += fold * unit[i, j]
            by_unit[i, j] = fold * scales[g, j]
        g_scales[g, j] = along
    for i in range(2):
        for j in range(3):
            by_turned[i, j] = by_root[i, 0] * unit[j, 0] * scales[g, 0] + by_root[i, 1] * unit[j, 1] * scales[g, 1]
    for i in range(2):
        for j in range(3):
            by_slope[i, j] = by_turned[i, 0] * view[j, 0] + by_turned[i, 1] * view[j, 1] + by_turned[i, 2] * view[j, 2]


@njit(nogil=True, cache=True, error_model="numpy")
def project_gradient(
    start, end, means, quats, scales, harmonics, degree, view, k, colours, rows, counts, firsts, sums_, g_means,
    g_quats, g_scales, g_opacities, g_colors, g_harmonics, g_centres, g_view,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Gradients of the surfels `start` to `end`; arguments as for `_project_gradient.project_gradient`."""
    features = colours + 3
    stride, long = HEAD + features, GRADIENT_HEAD + features
    slope, turned, root, unit = np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3)), np.empty((3, 3))
    by_root, by_turned, by_unit, by_slope = np.zeros((2, 2)), np.empty((2, 3)), np.empty((3, 3)), np.empty((2, 3))
    basis, by_basis, by, by_eye = np.empty(16), np.empty(16), np.empty(long), np.zeros(3)
    rotation_ = np.ascontiguousarray(view[:3, :3])
    eye = -np.linalg.solve(rotation_, np.ascontiguousarray(view[:3, 3]))
    for g in range(start, end):
        some = gathered(sums_, firsts[g], counts[g], by)
        if not some:
            continue
        x, y, z = in_camera(view, means, g)
        shape_in_image(k, _ANYWHERE, False, view, quats, scales, g, x, y, z, slope, turned, unit, root)
        by_unit[:], by_turned[:], by_slope[:] = 0.0, 0.0, 0.0
        solid = _solid(root)[1]
        if solid:
            _root_gradient(
                root, by[2:6], turned, unit, view, scales, g, by_root, by_turned, by_unit, by_slope, g_scales
            )
        gx, gy, gz = pinhole_gradient(
            k, _ANYWHERE, x, y, z, by[0], by[1], by_slope[0, 0], by_slope[0, 2], by_slope[1, 1], by_slope[1, 2]
        )
        gz -= by[9] / (z * z)
        nx, ny, nz = turn(view, unit[0, 2], unit[1, 2], unit[2, 2])
        along, n = nx * x + ny * y + nz * z, GRADIENT_HEAD + colours
        sign = 1.0 if along <= 0.0 else -1.0
        bx, by_, bz = sign * by[n], sign * by[n + 1], sign * by[n + 2]
        if solid:
            # tilt = z n / (f n . p)
            ex, ey = z * nx / (k[0] * along), z * ny / (k[1] * along)
            both = by[7] * ex + by[8] * ey
            bx += by[7] * z / (k[0] * along) - both / along * x
            by_ += by[8] * z / (k[1] * along) - both / along * y
            bz -= both / along * z
            gx -= both / along * nx
            gy -= both / along * ny
            gz += both / z - both / along * nz
        for i in range(3):
            by_unit[i, 2] = view[0, i] * bx + view[1, i] * by_ + view[2, i] * bz
            g_view[0, i] += bx * unit[i, 2]
            g_view[1, i] += by_ * unit[i, 2]
            g_view[2, i] += bz * unit[i, 2]
        quaternion_gradient(quats, g, by_unit, g_quats)
        for i in range(3):
            g_means[g, i] = view[0, i] * gx + view[1, i] * gy + view[2, i] * gz
        for j in range(3):
            for i in range(3):
                g_view[i, j] += slope[0, i] * by_turned[0, j] + slope[1, i] * by_turned[1, j]
            g_view[0, j] += gx * means[g, j]
            g_view[1, j] += gy * means[g, j]
            g_view[2, j] += gz * means[g, j]
        g_view[0, 3] += gx
        g_view[1, 3] += gy
        g_view[2, 3] += gz
        g_opacities[g], g_centres[g, 0], g_centres[g, 1] = by[6], by[0], by[1]
        if degree >= 0:
            r = g * stride + HEAD
            dx, dy, dz = colour_gradient(
                g, means, harmonics, degree, eye, rows[r : r + 3], by[GRADIENT_HEAD:], basis, by_basis, g_harmonics,
                g_means,
            )  # fmt: skip
            by_eye[0] -= dx
            by_eye[1] -= dy
            by_eye[2] -= dz
        else:
            for f in range(colours):
                g_colors[g, f] = by[GRADIENT_HEAD + f]
    if degree >= 0:
        turned_eye = np.linalg.solve(np.ascontiguousarray(rotation_.T), by_eye)
        for i in range(3):
            for j in range(3):
                g_view[i, j] -= turned_eye[i] * eye[j]
            g_view[i, 3] -= turned_eye[i]
