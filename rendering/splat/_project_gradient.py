"""The gradient of `_project`: from sums over pixels to a Gaussian's parameters and the camera's pose."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from rendering.splat._cameras import fisheye_gradient, limits, pinhole_gradient
from rendering.splat._composite import GRADIENT_HEAD, HEAD
from rendering.splat._harmonics import bases, gradient
from rendering.splat._project import in_camera, shape_in_image, shortest, turn


@njit(cache=True, inline="always")
def gathered(sums_, first, count, by):  # type: ignore[no-untyped-def]
    """Write the sum of a Gaussian's rows of gradients, as many as tiles show it, to `by`; whether any is not zero."""
    by[:] = 0.0
    some = False
    for s in range(first, first + count):
        for f in range(by.size):
            value = sums_[s * by.size + f]
            by[f] += value
            some = some or value != 0.0
    return some


@njit(cache=True)
def quaternion_gradient(quats, g, by, out):  # type: ignore[no-untyped-def]
    """Add to `out[g]` the gradient by the quaternion as stored, of any length, given (3, 3) `by` its matrix."""
    w, x, y, z = float(quats[g, 0]), float(quats[g, 1]), float(quats[g, 2]), float(quats[g, 3])
    scale = 1.0 / max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w * scale, x * scale, y * scale, z * scale
    gw = 2 * (x * (by[2, 1] - by[1, 2]) + y * (by[0, 2] - by[2, 0]) + z * (by[1, 0] - by[0, 1]))
    gx = 2 * (
        -2 * x * (by[1, 1] + by[2, 2])
        + y * (by[1, 0] + by[0, 1])
        + z * (by[2, 0] + by[0, 2])
        + w * (by[2, 1] - by[1, 2])
    )
    gy = 2 * (
        x * (by[1, 0] + by[0, 1])
        - 2 * y * (by[0, 0] + by[2, 2])
        + z * (by[2, 1] + by[1, 2])
        + w * (by[0, 2] - by[2, 0])
    )
    gz = 2 * (
        x * (by[2, 0] + by[0, 2])
        + y * (by[2, 1] + by[1, 2])
        - 2 * z * (by[0, 0] + by[1, 1])
        + w * (by[1, 0] - by[0, 1])
    )
    along = gw * w + gx * x + gy * y + gz * z
    out[g, 0] += (gw - along * w) * scale
    out[g, 1] += (gx - along * x) * scale
    out[g, 2] += (gy - along * y) * scale
    out[g, 3] += (gz - along * z) * scale


@njit(cache=True)
def colour_gradient(g, means, harmonics, degree, eye, row, by, basis, by_basis, g_harmonics, g_means):
    # type: ignore[no-untyped-def]
    """Gradient of a colour of harmonics: adds to `g_harmonics[g]` and `g_means[g]`, returns that by the direction.

    `row` holds the three colours as they were drawn, `by` the gradient by them.
    """
    dx, dy, dz = means[g, 0] - eye[0], means[g, 1] - eye[1], means[g, 2] - eye[2]
    away = 1.0 / max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
    dx, dy, dz = dx * away, dy * away, dz * away
    bases(degree, dx, dy, dz, basis)
    for b in range((degree + 1) ** 2):
        by_basis[b] = 0.0
        for c in range(3):
            if row[c] > 0.0:
                g_harmonics[g, b, c] += by[c] * basis[b]
                by_basis[b] += by[c] * harmonics[g, b, c]
    gx, gy, gz = gradient(degree, dx, dy, dz, by_basis)
    along = gx * dx + gy * dy + gz * dz
    gx, gy, gz = (gx - along * dx) * away, (gy - along * dy) * away, (gz - along * dz) * away
    g_means[g, 0] += gx
    g_means[g, 1] += gy
    g_means[g, 2] += gz
    return gx, gy, gz


@njit(nogil=True, cache=True, error_model="numpy")
def project_gradient(
    start, end, means, quats, scales, harmonics, degree, view, k, is_fisheye, width, height, blur, features,
    colours, depth_at, normal_at, rows, counts, firsts, sums_, g_depths, g_means, g_quats, g_scales, g_opacities,
    g_colors, g_harmonics, g_centres, g_view,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Gradients of the Gaussians `start` to `end`.

    Args:
        firsts: (N,) where a Gaussian's counts[g] rows of `sums_`, GRADIENT_HEAD + features wide, begin.
        g_depths: (N,) gradient by depth that is not among the features, or empty.
        g_means ... g_harmonics: like the inputs, zero, written. g_centres: (N, 2) written: by the centre in pixels.
        g_view: (4, 4) float64, added to.
        The rest as for `project`.
    """
    limit, stride, long = limits(k, width, height), HEAD + features, GRADIENT_HEAD + features
    slope, turned, root, unit = np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3)), np.empty((3, 3))
    by_root, by_turned, by_unit, by_slope = np.empty((2, 3)), np.empty((2, 3)), np.empty((3, 3)), np.empty((2, 3))
    basis, by_basis, by, by_eye = np.empty(16), np.empty(16), np.empty(long), np.zeros(3)
    rotation_ = np.ascontiguousarray(view[:3, :3])
    eye = -np.linalg.solve(rotation_, np.ascontiguousarray(view[:3, 3]))
    for g in range(start, end):
        some = gathered(sums_, firsts[g], counts[g], by)
        by_depth = 0.0
        if g_depths.size > 0 and counts[g] > 0:
            by_depth = g_depths[g]
            some = some or by_depth != 0.0
        if not some:
            continue
        x, y, z = in_camera(view, means, g)
        shape_in_image(k, limit, is_fisheye, view, quats, scales, g, x, y, z, slope, turned, unit, root)
        # The conic is the inverse of the covariance: G = -X V X, with V the gradient by X as a full matrix.
        r = g * stride
        xx = root[0, 0] ** 2 + root[0, 1] ** 2 + root[0, 2] ** 2 + blur
        yy = root[1, 0] ** 2 + root[1, 1] ** 2 + root[1, 2] ** 2 + blur
        xy = root[0, 0] * root[1, 0] + root[0, 1] * root[1, 1] + root[0, 2] * root[1, 2]
        det = xx * yy - xy * xy
        a, b, c = yy / det, -xy / det, xx / det
        va, vb, vc = by[2], 0.5 * by[3], by[4]
        p00, p01, p10, p11 = a * va + b * vb, a * vb + b * vc, b * va + c * vb, b * vb + c * vc
        g00, g01, g11 = -(p00 * a + p01 * b), -(p00 * b + p01 * c), -(p10 * b + p11 * c)
        for j in range(3):
            by_root[0, j] = 2 * (g00 * root[0, j] + g01 * root[1, j])
            by_root[1, j] = 2 * (g01 * root[0, j] + g11 * root[1, j])
        for j in range(3):
            along = 0.0
            for i in range(3):
                fold = turned[0, i] * by_root[0, j] + turned[1, i] * by_root[1, j]
                along += fold * unit[i, j]
                by_unit[i, j] = fold * scales[g, j]
            g_scales[g, j] = along
        for i in range(2):
            for j in range(3):
                by_turned[i, j] = (
                    by_root[i, 0] * unit[j, 0] * scales[g, 0]
                    + by_root[i, 1] * unit[j, 1] * scales[g, 1]
                    + by_root[i, 2] * unit[j, 2] * scales[g, 2]
                )
        for i in range(2):
            for j in range(3):
                by_slope[i, j] = (
                    by_turned[i, 0] * view[j, 0] + by_turned[i, 1] * view[j, 1] + by_turned[i, 2] * view[j, 2]
                )
        if normal_at >= 0:
            n = GRADIENT_HEAD + normal_at
            axis = shortest(scales, g)
            nx, ny, nz = unit[0, axis], unit[1, axis], unit[2, axis]
            cx, cy, cz = turn(view, nx, ny, nz)
            sign = 1.0 if cx * x + cy * y + cz * z <= 0.0 else -1.0
            for i in range(3):
                by_unit[i, axis] += sign * (view[0, i] * by[n] + view[1, i] * by[n + 1] + view[2, i] * by[n + 2])
                g_view[i, 0] += sign * by[n + i] * nx
                g_view[i, 1] += sign * by[n + i] * ny
                g_view[i, 2] += sign * by[n + i] * nz
        quaternion_gradient(quats, g, by_unit, g_quats)
        if is_fisheye:
            gx, gy, gz = fisheye_gradient(
                k, x, y, z, by[0], by[1], by_slope[0, 0], by_slope[0, 1], by_slope[0, 2],
                by_slope[1, 0], by_slope[1, 1], by_slope[1, 2],
            )  # fmt: skip
        else:
            gx, gy, gz = pinhole_gradient(
                k, limit, x, y, z, by[0], by[1], by_slope[0, 0], by_slope[0, 2], by_slope[1, 1], by_slope[1, 2]
            )
        gz += by_depth
        if depth_at >= 0:
            gz += by[GRADIENT_HEAD + depth_at]
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
        g_opacities[g], g_centres[g, 0], g_centres[g, 1] = by[5], by[0], by[1]
        if degree >= 0:
            ex, ey, ez = colour_gradient(
                g, means, harmonics, degree, eye, rows[r + HEAD : r + HEAD + 3], by[GRADIENT_HEAD:], basis, by_basis,
                g_harmonics, g_means,
            )  # fmt: skip
            by_eye[0] -= ex
            by_eye[1] -= ey
            by_eye[2] -= ez
        else:
            for f in range(colours):
                g_colors[g, f] = by[GRADIENT_HEAD + f]
    if degree >= 0:
        turned_eye = np.linalg.solve(np.ascontiguousarray(rotation_.T), by_eye)
        for i in range(3):
            for j in range(3):
                g_view[i, j] -= turned_eye[i] * eye[j]
            g_view[i, 3] -= turned_eye[i]
