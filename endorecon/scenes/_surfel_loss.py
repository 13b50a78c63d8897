"""What holds surfels to one surface: depth distortion and normal consistency, with their gradients.

Huang et al., "2D Gaussian Splatting for Geometrically Accurate Radiance Fields", SIGGRAPH 2024, section 5. Distortion
is taken in disparity times the scene's usual depth, so that it has no unit; the paper has the near plane in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from video_io.camera import Camera

Floats = NDArray[np.float32]
SHOWN = 0.5  # alpha from which a pixel has a surface


@dataclass(frozen=True)
class SurfelWeights:
    """How much each part counts, and from which share of the training on."""

    distortion: float = 1.0
    normals: float = 0.05
    distortion_from: float = 0.1
    normals_from: float = 0.2


@dataclass(frozen=True)
class Surface:
    """Both parts of a frame, a mean over its pixels each, and the gradients of their weighted sum."""

    distortion: float
    normals: float
    g_depth: Floats
    g_normals: Floats
    g_distortion: Floats


@njit(nogil=True, cache=True)
def normal_consistency(depth, alpha, normals, use, rays, weight, g_depth, g_normals):  # type: ignore[no-untyped-def]
    """Sum over pixels of alpha - n . N, with N the normal of the depth map by central differences; equation 14.

    Args:
        depth, alpha: (H, W); normals: (H, W, 3) sums of weighted normals, camera frame. use: (H, W).
        rays: (H, W, 3), z = 1. weight: of a pixel. g_depth: added to; g_normals: written. Alpha is held, as in the
            paper's code: to show less is no way to lie flat.
    """
    total, p, q = 0.0, np.empty(3), np.empty(3)
    g_normals[:] = 0.0
    for v in range(1, depth.shape[0] - 1):
        for u in range(1, depth.shape[1] - 1):
            if not (use[v, u] and alpha[v, u] > SHOWN):
                continue
            if min(alpha[v, u - 1], alpha[v, u + 1], alpha[v - 1, u], alpha[v + 1, u]) <= SHOWN:
                continue
            for i in range(3):
                p[i] = depth[v, u + 1] * rays[v, u + 1, i] - depth[v, u - 1] * rays[v, u - 1, i]
                q[i] = depth[v + 1, u] * rays[v + 1, u, i] - depth[v - 1, u] * rays[v - 1, u, i]
            # q x p looks at the camera
            x, y, z = q[1] * p[2] - q[2] * p[1], q[2] * p[0] - q[0] * p[2], q[0] * p[1] - q[1] * p[0]
            long = np.sqrt(x * x + y * y + z * z)
            if not long > 0.0:
                continue
            x, y, z = x / long, y / long, z / long
            a, b, c = normals[v, u, 0], normals[v, u, 1], normals[v, u, 2]
            along = a * x + b * y + c * z
            total += alpha[v, u] - along
            g_normals[v, u, 0], g_normals[v, u, 1], g_normals[v, u, 2] = -weight * x, -weight * y, -weight * z
            s = -weight / long
            x, y, z = s * (a - along * x), s * (b - along * y), s * (c - along * z)
            px, py, pz = y * q[2] - z * q[1], z * q[0] - x * q[2], x * q[1] - y * q[0]
            qx, qy, qz = p[1] * z - p[2] * y, p[2] * x - p[0] * z, p[0] * y - p[1] * x
            g_depth[v, u + 1] += px * rays[v, u + 1, 0] + py * rays[v, u + 1, 1] + pz * rays[v, u + 1, 2]
            g_depth[v, u - 1] -= px * rays[v, u - 1, 0] + py * rays[v, u - 1, 1] + pz * rays[v, u - 1, 2]
            g_depth[v + 1, u] += qx * rays[v + 1, u, 0] + qy * rays[v + 1, u, 1] + qz * rays[v + 1, u, 2]
            g_depth[v - 1, u] -= qx * rays[v - 1, u, 0] + qy * rays[v - 1, u, 1] + qz * rays[v - 1, u, 2]
    return total


def surface_loss(
    alpha: Floats, depth: Floats, normals: Floats, distortion: Floats, use: NDArray[np.bool_], camera: Camera,
    usual: float, weights: SurfelWeights, share: float = 1.0,
) -> Surface:  # fmt: skip
    """Both parts for one rendered frame.

    Args:
        alpha, depth, distortion: (H, W), normals: (H, W, 3), as rendered of surfels. use: (H, W) pixels that count.
        usual: depth of the scene, which distortion is measured by. share: of the training that is done.
    """
    number = max(int(use.sum()), 1)
    each = weights.distortion * usual**2 / number if share >= weights.distortion_from else 0.0
    bend = weights.normals / number if share >= weights.normals_from else 0.0
    g_depth, g_normals = np.zeros_like(depth), np.zeros_like(normals)
    rays = camera.ray_map()
    rays = np.ascontiguousarray(rays / rays[..., 2:], np.float32)
    total = normal_consistency(depth, alpha, normals, use, rays, bend, g_depth, g_normals) if bend else 0.0
    apart = float(distortion[use].sum()) * usual**2 / number
    return Surface(apart, total / number, g_depth, g_normals, np.float32(each) * use)
