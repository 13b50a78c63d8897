"""What the model predicts of every observation, and its derivatives: the loop that the fit spends its time in.

The same as `model.lit` and `CameraResponse.displayed`, which stand beside it as the reference (`solver.reference`).
Light and film do not depend on the colour channel, so they and their derivatives by place, beam, fall-off and roughness
(central differences, float64) are worked out once for all three. All else is differentiated by hand.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Rows of the unknowns, in the order of `model.NAMES`.
LOG_GAMMA, SHOULDER, VIGNETTE, FALLOFF, EXPONENT, TILT_X, TILT_Y = range(7)
X, Y, Z, HALF_X, HALF_Y, LOG_SCALE, LOG_FILM, ROUGH = range(7, 15)
STEP = 1e-5  # of the central differences; the unknowns are of the order of 1
BRIGHTEST = 4.0  # as `rendering.physics.BRIGHTEST`
F0 = 0.04  # as `endorecon.lighting.F0`


@njit(cache=True, error_model="numpy")
def arriving(
    t: NDArray, sources: int, wet: bool, x: float, y: float, z: float, nx: float, ny: float, nz: float
) -> tuple[float, float]:
    """Irradiance, and radiance by a film of strength 1, of white sources with a beam of 90 degrees at a point.

    `t` (15,) are the unknowns; point and unit normal are in the camera's frame, in the unit of the sources' places.
    """
    long = 1.0 / math.sqrt(t[TILT_X] * t[TILT_X] + t[TILT_Y] * t[TILT_Y] + 1.0)
    far = 1.0 / math.sqrt(max(x * x + y * y + z * z, 1e-6))
    vx, vy, vz = -x * far, -y * far, -z * far
    even, mirrored = 0.0, 0.0
    for s in range(sources):
        side = 0.0 if sources == 1 else (1.0 if s == 0 else -1.0)
        lx, ly, lz = t[X] + side * t[HALF_X] - x, t[Y] + side * t[HALF_Y] - y, t[Z] - z
        square = max(lx * lx + ly * ly + lz * lz, 1e-6)
        inverse = 1.0 / math.sqrt(square)
        lx, ly, lz = lx * inverse, ly * inverse, lz * inverse
        cos_light = lx * nx + ly * ny + lz * nz
        beam = -(lx * t[TILT_X] + ly * t[TILT_Y] + lz) * long
        if cos_light <= 0.0 or beam <= 0.0:
            continue
        log = t[EXPONENT] * math.log(max(beam, 1e-6)) - 0.5 * t[FALLOFF] * math.log(square)
        e = cos_light * math.exp(log) / sources
        even += e
        if wet:
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            h = 1.0 / math.sqrt(max(hx * hx + hy * hy + hz * hz, 1e-12))
            cos_half = min(max((nx * hx + ny * hy + nz * hz) * h, 0.0), 1.0)
            cos_view_half = min(max((vx * hx + vy * hy + vz * hz) * h, 0.0), 1.0)
            view = max(nx * vx + ny * vy + nz * vz, 1e-3)
            a2 = math.exp(4.0 * t[ROUGH])
            q = cos_half * cos_half * (a2 - 1.0) + 1.0
            shadowing = cos_light * math.sqrt(view * view * (1.0 - a2) + a2)
            masking = view * math.sqrt(cos_light * cos_light * (1.0 - a2) + a2)
            m = 1.0 - cos_view_half
            fresnel = F0 + (1.0 - F0) * m * m * m * m * m
            mirrored += e * a2 / (math.pi * q * q) * fresnel * 0.5 / max(shadowing + masking, 1e-9)
    return even, mirrored


@njit(cache=True, error_model="numpy", nogil=True)
def predict(
    t: NDArray, sources: int, wet: bool, free: NDArray, points: NDArray, normals: NDArray, uv: NDArray,
    indirect: NDArray, by_scale: NDArray, point: NDArray, frame: NDArray, rho: NDArray, gain: NDArray,
    shown: NDArray, by_albedo: NDArray, by_gain: NDArray, by_free: NDArray,
) -> None:  # fmt: skip
    """Displayed values, not clipped, and their derivatives, of K observations.

    Args:
        t: (15,) unknowns.
        sources: 1, or 2 to both sides of a middle.
        wet: whether the film is part of the model.
        free: (P,) rows of the unknowns to differentiate by; empty leaves all derivatives out.
        points, normals: (K, 3), camera frame. uv: (K, 2).
        indirect, by_scale: (K, 3) irradiance between surfaces and its derivative by the log of albedo's scale, or
            (0, 3) where that is no part of the model.
        point, frame: (K,). rho, gain: (M, 3) and (F, 3) logs.
        shown, by_albedo, by_gain: (K, 3), by_free: (K, 3, P), written; the last three by logs.
    """
    p, bounced = free.size, len(indirect) > 0
    moved, slope_e, slope_m = t.copy(), np.zeros(t.size), np.zeros(t.size)
    power, s = math.exp(-t[LOG_GAMMA]), t[SHOULDER]
    film = math.exp(t[LOG_FILM]) if wet else 0.0
    for k in range(point.size):
        x, y, z = float(points[k, 0]), float(points[k, 1]), float(points[k, 2])
        nx, ny, nz = float(normals[k, 0]), float(normals[k, 1]), float(normals[k, 2])
        even, mirrored = arriving(t, sources, wet, x, y, z, nx, ny, nz)
        for q in range(p):
            name = free[q]
            if FALLOFF <= name <= HALF_Y or (name == ROUGH and wet):
                moved[name] = t[name] + STEP
                e1, m1 = arriving(moved, sources, wet, x, y, z, nx, ny, nz)
                moved[name] = t[name] - STEP
                e0, m0 = arriving(moved, sources, wet, x, y, z, nx, ny, nz)
                moved[name] = t[name]
                slope_e[name], slope_m[name] = (e1 - e0) / (2 * STEP), (m1 - m0) / (2 * STEP)
        square = 0.5 * (uv[k, 0] * uv[k, 0] + uv[k, 1] * uv[k, 1])
        shade = 1.0 - t[VIGNETTE] * square
        for c in range(3):
            albedo = math.exp(rho[point[k], c]) / math.pi
            diffuse = albedo * (even + (indirect[k, c] if bounced else 0.0))
            g = math.exp(gain[frame[k], c])
            before = (diffuse + film * mirrored) * g
            rises = 1.0 if before < BRIGHTEST else 0.0
            u = min(before, BRIGHTEST) * shade
            drop = math.exp(-u)
            w = (1.0 - s) * u + s * (1.0 - drop)
            value = math.exp(power * math.log(max(w, 1e-6)))
            shown[k, c] = value
            if p == 0 and by_gain.size == 0:
                continue
            by_w = power * value / w if w > 1e-6 else 0.0
            by_u = by_w * (1.0 - s + s * drop)
            by_linear = by_u * shade * g * rises
            by_albedo[k, c] = by_linear * diffuse
            by_gain[k, c] = by_linear * (diffuse + film * mirrored)
            for q in range(p):
                name = free[q]
                if name == LOG_GAMMA:
                    d = -power * value * math.log(max(w, 1e-6))
                elif name == SHOULDER:
                    d = by_w * (1.0 - drop - u)
                elif name == VIGNETTE:
                    d = -by_u * min(before, BRIGHTEST) * square
                elif name == LOG_SCALE:
                    d = by_linear * albedo * by_scale[k, c] if bounced else 0.0
                elif name == LOG_FILM:
                    d = by_linear * film * mirrored
                elif name == ROUGH:
                    d = by_linear * film * slope_m[name] if wet else 0.0
                else:
                    d = by_linear * (albedo * slope_e[name] + film * slope_m[name])
                by_free[k, c, q] = d


@njit(cache=True, error_model="numpy", nogil=True)
def summed_up(
    r: NDArray, weight: NDArray, a: NDArray, g: NDArray, j: NDArray, point: NDArray, frame: NDArray, matrix: NDArray,
    gradient: NDArray, back: NDArray, own: NDArray, pull: NDArray, each: NDArray,
) -> None:  # fmt: skip
    """Add K observations to the normal equations over [P unknowns, 3 F gains], with each albedo's part apart.

    Args:
        r, weight, a, g: (K, 3) residuals, weights, derivatives by albedo and gain; j: (K, 3, P); all over sigma.
        matrix, gradient: (N, N), of which the upper triangle is written, and (N,).
        back, own, pull: (3 M, N), (3 M,), (3 M,): w a J, w a a and w a r of each albedo.
        each: (M, N), each point's own gradient.
    """
    p = j.shape[2]
    for k in range(point.size):
        for c in range(3):
            w = weight[k, c]
            if w <= 0.0:
                continue
            cell, at, m = point[k] * 3 + c, p + frame[k] * 3 + c, point[k]
            wr, wg, wa = w * r[k, c], w * g[k, c], w * a[k, c]
            for q in range(p):
                one = j[k, c, q]
                for o in range(q, p):
                    matrix[q, o] += w * one * j[k, c, o]
                matrix[q, at] += wg * one
                gradient[q] += wr * one
                back[cell, q] += wa * one
                each[m, q] += wr * one
            matrix[at, at] += wg * g[k, c]
            gradient[at] += wr * g[k, c]
            back[cell, at] += wa * g[k, c]
            each[m, at] += wr * g[k, c]
            own[cell] += wa * a[k, c]
            pull[cell] += wa * r[k, c]
