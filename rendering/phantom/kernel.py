"""Kernels over all rays of a view: from ray hits to surface points, and from there to radiance."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rendering.brdf import lambert
from rendering.light import arriving
from rendering.phantom.texture import F0, FILM, ROUGHNESS, albedo_at, bumped
from rendering.shade import direct

# How steeply a smooth normal must face away before the surface counts as seen from behind: at a grazing angle it may.
_BEHIND = 0.3


@njit(cache=True, fastmath=True)
def surface_points(
    primitive: NDArray, u: NDArray, v: NDArray, distance: NDArray, origin: NDArray, rays: NDArray, faces: NDArray,
    vertex_normals: NDArray, face_part: NDArray, points: NDArray, normals: NDArray, parts: NDArray,
) -> int:  # fmt: skip
    """Points, smooth normals (turned to the ray's side) and parts of ray hits.

    `primitive` (N,) is the face that each ray met, negative for none, `u` and `v` the place on it. `points` and
    `normals` (N, 3) and `parts` (N,) are written. Returns how many hits were seen from behind.
    """
    behind = 0
    for i in range(primitive.size):
        f = primitive[i]
        if f < 0:
            parts[i] = -1
            continue
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        w = 1.0 - u[i] - v[i]
        nx = w * vertex_normals[a, 0] + u[i] * vertex_normals[b, 0] + v[i] * vertex_normals[c, 0]
        ny = w * vertex_normals[a, 1] + u[i] * vertex_normals[b, 1] + v[i] * vertex_normals[c, 1]
        nz = w * vertex_normals[a, 2] + u[i] * vertex_normals[b, 2] + v[i] * vertex_normals[c, 2]
        along = nx * rays[i, 0] + ny * rays[i, 1] + nz * rays[i, 2]
        if along > 0.0:
            if along > _BEHIND:
                behind += 1
            nx, ny, nz = nx - 1.02 * along * rays[i, 0], ny - 1.02 * along * rays[i, 1], nz - 1.02 * along * rays[i, 2]
        length = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
        normals[i, 0], normals[i, 1], normals[i, 2] = nx / length, ny / length, nz / length
        for k in range(3):
            points[i, k] = origin[k] + distance[i] * rays[i, k]
        parts[i] = face_part[f]
    return behind


@njit(cache=True)
def mean_irradiance(points: NDArray, normals: NDArray, parts: NDArray, lights: NDArray, stride: int) -> float:
    """Mean green irradiance of every `stride`-th point by the lights."""
    total, count = 0.0, 0
    for i in range(0, points.shape[0], stride):
        if parts[i] < 0:
            continue
        for j in range(lights.shape[0]):
            lx, ly, lz, factor = arriving(lights[j], points[i, 0], points[i, 1], points[i, 2])
            cosine = lx * normals[i, 0] + ly * normals[i, 1] + lz * normals[i, 2]
            total += factor * max(cosine, 0.0) * lights[j, 9]
        count += 1
    return total / max(count, 1)


@njit(cache=True, fastmath=True)
def shade(
    points: NDArray, rest: NDArray, normals: NDArray, parts: NDArray, eye: NDArray, materials: NDArray, seed: int,
    lights: NDArray, shadow: NDArray, indirect: NDArray, pixel_rad: float, out: NDArray,
    out_albedo: NDArray,
) -> None:  # fmt: skip
    """Linear radiance towards the eye at surface points.

    Args:
        points, normals: (N, 3) float32, world; the normals point to the eye's side.
        rest: (N, 3) float32, where the points are while the tissue is at rest: its texture moves with it.
        parts: (N,) rows of `materials` (from pack_materials); negative where the ray met nothing.
        lights: (L, 11) from pack_lights. `shadow` (N, L): share of each light that arrives; (N, 0) for no shadows.
        indirect: (N, 3) irradiance that arrives by way of other surfaces.
        pixel_rad: angle of a pixel, for the width of details.
        out, out_albedo: (N, 3) float32, written.
    """
    for i in range(points.shape[0]):
        if parts[i] < 0:
            continue
        m = materials[parts[i]]
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        vx, vy, vz = eye[0] - x, eye[1] - y, eye[2] - z
        d = math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx / d, vy / d, vz / d
        gx, gy, gz = normals[i, 0], normals[i, 1], normals[i, 2]
        footprint = d * pixel_rad / math.sqrt(max(gx * vx + gy * vy + gz * vz, 0.15))
        rx, ry, rz = rest[i, 0], rest[i, 1], rest[i, 2]
        r, g, b, pool = albedo_at(m, rx, ry, rz, footprint, seed)
        out_albedo[i, 0], out_albedo[i, 1], out_albedo[i, 2] = r, g, b
        nx, ny, nz = bumped(m, rx, ry, rz, gx, gy, gz, footprint, seed, pool)
        # A pool is smoother than the tissue under it.
        roughness = m[ROUGHNESS] * (1.0 - 0.5 * pool)
        er, eg, eb, sr, sg, sb = direct(
            lights, shadow[i], x, y, z, nx, ny, nz, vx, vy, vz, roughness, m[F0], m[FILM]
        )  # fmt: skip
        out[i, 0] = r * lambert() * (er + indirect[i, 0]) + sr
        out[i, 1] = g * lambert() * (eg + indirect[i, 1]) + sg
        out[i, 2] = b * lambert() * (eb + indirect[i, 2]) + sb
