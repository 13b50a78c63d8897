"""Pinhole and fisheye projection of a point and of the small ellipsoid around it, for kernels.

The ellipsoid goes through the projection's slope at its centre, the local affine approximation of EWA splatting
(Zwicker et al., IEEE TVCG 2002). The fisheye is OpenCV's (Kannala and Brandt, TPAMI 2006): x = fx theta_d X / r + cx,
theta_d = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8), r = hypot(X, Y), theta = atan2(r, Z).
"""

from __future__ import annotations

import math

from numba import njit

# Nearer to the axis than this, r / z, the fisheye's slopes are taken from their series.
NEAR_AXIS = 1e-4
# A pinhole's slope is taken no farther outside the image than this share of its half width, as in gsplat.
MARGIN = 0.3


@njit(cache=True, inline="always")
def limits(k, width, height):  # type: ignore[no-untyped-def]
    """Range of x / z and y / z for a pinhole's slopes: least x, most x, least y, most y. `k` is fx, fy, cx, cy, ..."""
    x, y = MARGIN * 0.5 * width / k[0], MARGIN * 0.5 * height / k[1]
    return -k[2] / k[0] - x, (width - k[2]) / k[0] + x, -k[3] / k[1] - y, (height - k[3]) / k[1] + y


@njit(cache=True, inline="always")
def pinhole(k, limit, x, y, z):  # type: ignore[no-untyped-def]
    """Pixel, and slopes (2 x 3 without the two that are always 0): u, v, j00, j02, j11, j12."""
    inverse = 1.0 / z
    a = min(max(x * inverse, limit[0]), limit[1])
    b = min(max(y * inverse, limit[2]), limit[3])
    return (
        k[0] * x * inverse + k[2], k[1] * y * inverse + k[3],
        k[0] * inverse, -k[0] * a * inverse, k[1] * inverse, -k[1] * b * inverse,
    )  # fmt: skip


@njit(cache=True)
def pinhole_gradient(k, limit, x, y, z, gu, gv, g00, g02, g11, g12):  # type: ignore[no-untyped-def]
    """The gradient by x, y, z, given the gradient by what `pinhole` returns."""
    inverse = 1.0 / z
    square = inverse * inverse
    a, b = x * inverse, y * inverse
    gx, gy = gu * k[0] * inverse, gv * k[1] * inverse
    gz = -(gu * k[0] * x + gv * k[1] * y + g00 * k[0] + g11 * k[1]) * square
    ca, cb = min(max(a, limit[0]), limit[1]), min(max(b, limit[2]), limit[3])
    gz += (g02 * k[0] * ca + g12 * k[1] * cb) * square
    if limit[0] <= a <= limit[1]:
        gx -= g02 * k[0] * square
        gz += g02 * k[0] * a * square
    if limit[2] <= b <= limit[3]:
        gy -= g12 * k[1] * square
        gz += g12 * k[1] * b * square
    return gx, gy, gz


@njit(cache=True)
def fisheye_terms(k, x, y, z):  # type: ignore[no-untyped-def]
    """What the projection is made of: g = theta_d / r, h and e, and how they change with r^2 and z.

    The slopes are fx (g + x^2 h), fx x y h, -fx x e, and so on. Returns (g, h, e, dh/dr2, de/dr2, de/dz, growing);
    dg/dr2 is h / 2, dg/dz is -e, dh/dz is -2 de/dr2. `growing` is false beyond the polynomial's rising branch.
    """
    r2 = x * x + y * y
    r, d2 = math.sqrt(r2), r2 + z * z
    theta = math.atan2(r, z)
    t2 = theta * theta
    slope = 1.0 + t2 * (3.0 * k[4] + t2 * (5.0 * k[5] + t2 * (7.0 * k[6] + t2 * 9.0 * k[7])))
    bend = 6.0 * k[4] + t2 * (20.0 * k[5] + t2 * (42.0 * k[6] + t2 * 72.0 * k[7]))  # second derivative over theta
    e = slope / d2
    if r < NEAR_AXIS * z:
        g = (1.0 + (k[4] - 1.0 / 3.0) * r2 / (z * z)) / z
        h = (2.0 * k[4] - 2.0 / 3.0) / (z * z * z)
        over = 1.0 / z  # theta / r
    else:
        over = theta / r
        g = over * (1.0 + t2 * (k[4] + t2 * (k[5] + t2 * (k[6] + t2 * k[7]))))
        h = (e * z - g) / r2
    de_r2 = bend * over * z / (2.0 * d2 * d2) - slope / (d2 * d2)
    de_z = -bend * over * r2 / (d2 * d2) - 2.0 * z * slope / (d2 * d2)
    # Near the axis it is multiplied by r^3, which is nothing.
    dh_r2 = 0.0 if r < NEAR_AXIS * z else (z * de_r2 - 1.5 * h) / r2
    return g, h, e, dh_r2, de_r2, de_z, slope > 0.0


@njit(cache=True)
def fisheye(k, x, y, z):  # type: ignore[no-untyped-def]
    """Pixel and slopes: u, v, j00, j01, j02, j10, j11, j12, and whether the point is on the rising branch."""
    g, h, e, _, _, _, growing = fisheye_terms(k, x, y, z)
    return (
        k[0] * x * g + k[2], k[1] * y * g + k[3],
        k[0] * (g + x * x * h), k[0] * x * y * h, -k[0] * x * e,
        k[1] * x * y * h, k[1] * (g + y * y * h), -k[1] * y * e,
        growing,
    )  # fmt: skip


@njit(cache=True)
def fisheye_gradient(k, x, y, z, gu, gv, g00, g01, g02, g10, g11, g12):  # type: ignore[no-untyped-def]
    """The gradient by x, y, z, given the gradient by what `fisheye` returns."""
    g, h, e, dh_r2, de_r2, de_z, _ = fisheye_terms(k, x, y, z)
    fx, fy = k[0], k[1]
    cross = fx * g01 + fy * g10
    by_g = fx * (gu * x + g00) + fy * (gv * y + g11)
    by_h = fx * g00 * x * x + cross * x * y + fy * g11 * y * y
    by_e = -(fx * g02 * x + fy * g12 * y)
    by_r2 = by_g * 0.5 * h + by_h * dh_r2 + by_e * de_r2
    gx = fx * gu * g + 2.0 * fx * g00 * x * h + cross * y * h - fx * g02 * e + 2.0 * x * by_r2
    gy = fy * gv * g + 2.0 * fy * g11 * y * h + cross * x * h - fy * g12 * e + 2.0 * y * by_r2
    gz = -by_g * e - 2.0 * by_h * de_r2 + by_e * de_z
    return gx, gy, gz
