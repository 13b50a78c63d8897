"""Real spherical harmonics up to degree 3 and their slopes, for kernels (Sloan, JCGT 2(2), 2013; signs as in 3DGS)."""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def bases(degree, x, y, z, out):  # type: ignore[no-untyped-def]
    """Write the (degree + 1)^2 basis values of the unit direction (x, y, z) to `out`."""
    out[0] = 0.2820947917738781
    if degree < 1:
        return
    out[1], out[2], out[3] = -0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x
    if degree < 2:
        return
    c, s = x * x - y * y, 2.0 * x * y
    b = -1.092548430592079 * z
    out[4], out[5], out[7], out[8] = 0.5462742152960395 * s, b * y, b * x, 0.5462742152960395 * c
    out[6] = 0.9461746957575601 * z * z - 0.3153915652525201
    if degree < 3:
        return
    t = -2.285228997322329 * z * z + 0.4570457994644658
    out[9], out[15] = -0.5900435899266435 * (x * s + y * c), -0.5900435899266435 * (x * c - y * s)
    out[10], out[14] = 1.445305721320277 * z * s, 1.445305721320277 * z * c
    out[11], out[13] = t * y, t * x
    out[12] = z * (1.865881662950577 * z * z - 1.119528997770346)


@njit(cache=True)
def gradient(degree, x, y, z, by):  # type: ignore[no-untyped-def]
    """The gradient by x, y, z (of the polynomials, off the sphere too), given the gradient `by` the basis values."""
    gx, gy, gz = 0.0, 0.0, 0.0
    if degree >= 1:
        gy -= 0.48860251190292 * by[1]
        gz += 0.48860251190292 * by[2]
        gx -= 0.48860251190292 * by[3]
    if degree >= 2:
        p, q = 0.5462742152960395, -1.092548430592079
        gx += p * 2.0 * (by[4] * y + by[8] * x) + q * z * by[7]
        gy += p * 2.0 * (by[4] * x - by[8] * y) + q * z * by[5]
        gz += q * (y * by[5] + x * by[7]) + 2.0 * 0.9461746957575601 * z * by[6]
    if degree >= 3:
        c, s = x * x - y * y, 2.0 * x * y
        t, dt = -2.285228997322329 * z * z + 0.4570457994644658, -4.570457994644658 * z
        p, q = -0.5900435899266435, 1.445305721320277
        gx += p * 3.0 * (by[9] * s + by[15] * c) + q * z * 2.0 * (by[10] * y + by[14] * x) + t * by[13]
        gy += p * 3.0 * (by[9] * c - by[15] * s) + q * z * 2.0 * (by[10] * x - by[14] * y) + t * by[11]
        gz += q * (by[10] * s + by[14] * c) + dt * (by[11] * y + by[13] * x)
        gz += by[12] * (3.0 * 1.865881662950577 * z * z - 1.119528997770346)
    return gx, gy, gz
