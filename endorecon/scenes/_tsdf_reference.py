"""The TSDF update, slow and obvious: what `_tsdf_kernels.py` must agree with. Tests alone use it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endorecon.scenes._tsdf_kernels import FREE_WEIGHT, MAX_BEND, MIN_COSINE, STENCIL_PX
from video_io.camera import Camera

Float = NDArray[np.float64]


def surfels(
    depth: Float, confidence: Float, camera: Camera, reference_depth: float, far: float, tau: Float
) -> tuple[Float, Float, Float, Float]:
    """Point (H, W, 3), normal towards the camera (H, W, 3), weight (H, W) and truncation (H, W) of every pixel."""
    rays = camera.rays(camera.pixels())
    points = rays * (depth / rays[..., 2])[..., None]
    usable = (depth > 0) & (confidence > 0)
    normals, weight = np.zeros_like(points), np.zeros(depth.shape)
    for y, x in np.argwhere(usable & (depth < far)):
        tangents, bent = [], False
        for axis in (0, 1):
            ends = []
            for reach in (-STENCIL_PX, STENCIL_PX):
                at = [int(y), int(x)]
                at[axis] = min(max(at[axis] + reach, 0), depth.shape[axis] - 1)
                ends.append(tuple(at) if usable[tuple(at)] else (int(y), int(x)))
            low, high = ends
            if low != (y, x) and high != (y, x):
                bent |= abs(depth[y, x] / depth[low] + depth[y, x] / depth[high] - 2) > MAX_BEND
            tangents.append(points[high] - points[low])
        normal = np.cross(tangents[0], tangents[1])
        length = np.linalg.norm(normal)
        if bent or length == 0:
            continue
        cosine = -(normal / length) @ rays[y, x]
        if cosine > MIN_COSINE:
            normals[y, x] = normal / length
            weight[y, x] = cosine * confidence[y, x] * np.clip((reference_depth / depth[y, x]) ** 2, 0.05, 4)
    return points, normals, weight, tau


def update(
    voxels: Float, tsdf: Float, weights: Float, measured: tuple[Float, Float, Float, Float], camera: Camera, pose: Float
) -> tuple[Float, Float]:
    """Signed distances and weights of voxel centres (N, 3) in the world, after one more image."""
    points, normals, pixel_weight, tau = measured
    tsdf, weights = tsdf.copy(), weights.copy()
    local = (voxels - pose[:3, 3]) @ pose[:3, :3]
    pixels, seen = camera.project(local)
    for i in np.flatnonzero(seen):
        column, row = (int(np.floor(v)) for v in pixels[i])
        if column >= camera.width or row >= camera.height or pixel_weight[row, column] == 0:
            continue
        point, limit, weight = points[row, column], tau[row, column], pixel_weight[row, column]
        value = normals[row, column] @ (local[i] - point) / limit
        if value <= -1 or np.linalg.norm(local[i]) - np.linalg.norm(point) > 3 * limit:
            continue
        weight *= FREE_WEIGHT if value >= 1 else min(1 + value, 1)
        tsdf[i] += weight / (weights[i] + weight) * (min(value, 1) - tsdf[i])
        weights[i] += weight
    return tsdf, weights
