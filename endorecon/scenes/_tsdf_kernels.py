"""Compiled loops of the TSDF; `_tsdf_reference.py` says the same slowly.

A block is 8 x 8 x 8 voxels, stored flat with x fastest: voxel (i, j, k) is number (k * 8 + j) * 8 + i. Blocks are
found through an open-addressing hash table from a packed block coordinate to the block's row.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

SIDE = 8
VOXELS = SIDE**3
OFFSET = 1 << 20  # block coordinates are stored as 21 bits each
EMPTY = np.int64(-1)
# columns of a surfel map: plane normal (3) and offset in the camera frame, weight, slope 1/tau, distance along the ray
SURFEL = 7
STENCIL_PX = 2
MIN_COSINE = 0.087  # 85 degrees: beyond it the surface is seen edge-on and its depth means little
MAX_BEND = 0.02  # relative second difference of inverse depth: 0 on a plane, large at an occlusion edge
FREE_WEIGHT = 0.3
HIGHLIGHT_WEIGHT = 0.1
COLOR_UNIT = 256.0


@njit(parallel=True, cache=True, error_model="numpy")
def measure_surfels(depth, confidence, log_std, rays, reference_depth, far, tau_min, tau_max, surfels):
    """Turn each pixel into a small plane with a weight; weight 0 where the pixel must not be used."""
    h, w = depth.shape
    graded = log_std.size > 0
    for line in prange(h):
        y = np.int64(line)  # the parallel index is unsigned, and y - 2 would wrap
        for x in range(w):
            surfels[y, x, 4] = 0.0
            z = depth[y, x]
            if not (z > 0 and z < far and confidence[y, x] > 0 and rays[y, x, 2] > 1e-3):
                continue
            x0, x1 = _stencil(depth[y], confidence[y], rays[y], x)
            y0, y1 = _stencil(depth[:, x], confidence[:, x], rays[:, x], y)
            if x0 == x1 or y0 == y1 or _bends(depth[y], x0, x, x1) or _bends(depth[:, x], y0, y, y1):
                continue
            fu, bu = depth[y, x1] / rays[y, x1, 2], depth[y, x0] / rays[y, x0, 2]
            fv, bv = depth[y1, x] / rays[y1, x, 2], depth[y0, x] / rays[y0, x, 2]
            ux = rays[y, x1, 0] * fu - rays[y, x0, 0] * bu
            uy = rays[y, x1, 1] * fu - rays[y, x0, 1] * bu
            uz = depth[y, x1] - depth[y, x0]
            vx = rays[y1, x, 0] * fv - rays[y0, x, 0] * bv
            vy = rays[y1, x, 1] * fv - rays[y0, x, 1] * bv
            vz = depth[y1, x] - depth[y0, x]
            # v x u points at the camera, since image y runs down
            nx, ny, nz = vy * uz - vz * uy, vz * ux - vx * uz, vx * uy - vy * ux
            length = np.sqrt(nx * nx + ny * ny + nz * nz)
            if not length > 0:
                continue
            nx, ny, nz = nx / length, ny / length, nz / length
            facing = nx * rays[y, x, 0] + ny * rays[y, x, 1] + nz * rays[y, x, 2]
            if not -facing > MIN_COSINE:
                continue
            distance = z / rays[y, x, 2]
            tau = tau_max
            if graded:
                tau = min(max(2.0 * log_std[y, x] * distance, tau_min), tau_max)
            near = reference_depth / z
            surfels[y, x, 0], surfels[y, x, 1], surfels[y, x, 2] = nx, ny, nz
            surfels[y, x, 3] = facing * distance
            surfels[y, x, 4] = -facing * confidence[y, x] * min(max(near * near, 0.05), 4.0)
            surfels[y, x, 5] = 1.0 / tau
            surfels[y, x, 6] = distance


@njit(cache=True, error_model="numpy")
def _stencil(depth, confidence, rays, at):
    """The neighbours to either side at the stencil's reach, or the pixel itself where there is none to use."""
    low, high = max(at - STENCIL_PX, 0), min(at + STENCIL_PX, depth.shape[0] - 1)
    if not (depth[low] > 0 and confidence[low] > 0 and rays[low, 2] > 1e-3):
        low = at
    if not (depth[high] > 0 and confidence[high] > 0 and rays[high, 2] > 1e-3):
        high = at
    return low, high


@njit(cache=True, error_model="numpy")
def _bends(depth, low, at, high):
    """Whether depth jumps: on a plane, inverse depth is linear in the image, however steep the plane.

    With a neighbour on one side only nothing can be said; a jump there makes the pixel look edge-on.
    """
    if low == at or high == at:
        return False
    return abs(depth[at] / depth[low] + depth[at] / depth[high] - 2) > MAX_BEND


@njit(cache=True)
def _slot(keys, key):
    """Where `key` is in the table, or the empty place where it belongs."""
    mask = keys.shape[0] - 1
    at = ((key * np.int64(-7046029254386353131)) >> np.int64(24)) & mask
    while keys[at] != EMPTY and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(cache=True)
def pack(bx, by, bz):
    """A block coordinate as one integer; -1 outside what can be stored."""
    x, y, z = np.int64(bx) + OFFSET, np.int64(by) + OFFSET, np.int64(bz) + OFFSET
    if min(x, y, z) < 0 or max(x, y, z) >= 2 * OFFSET:
        return EMPTY
    return (x << 42) | (y << 21) | z


@njit(cache=True)
def find(keys, rows, bx, by, bz):
    """The row of a block, or -1."""
    key = pack(bx, by, bz)
    if key == EMPTY:
        return -1
    at = _slot(keys, key)
    return rows[at] if keys[at] == key else -1


@njit(cache=True)
def insert(keys, rows, coordinates, count, bx, by, bz):
    """The row of a block, new if need be, and how many blocks there are then; row -1 when there is no room."""
    key = pack(bx, by, bz)
    if key == EMPTY:
        return -2, count
    at = _slot(keys, key)
    if keys[at] == key:
        return rows[at], count
    if count == coordinates.shape[0]:
        return -1, count
    keys[at], rows[at] = key, count
    coordinates[count, 0], coordinates[count, 1], coordinates[count, 2] = bx, by, bz
    return count, count + 1


@njit(cache=True, error_model="numpy")
def touch(surfels, rays, pose, side, band, pixel, keys, rows, coordinates, count, stamps, stamp, touched):
    """Find or make the blocks near the measured surface.

    `pixel` is the angle between neighbouring pixels, `side` a block's edge length. Returns (blocks in use, blocks
    touched); touched -1 when there was no room for a new block.
    """
    number = 0
    last = np.full(3, EMPTY)
    for y in range(surfels.shape[0]):
        for x in range(surfels.shape[1]):
            weight, distance = surfels[y, x, 4], surfels[y, x, 6]
            if weight <= 0:
                continue
            # every second pixel will do where pixels are much smaller than blocks; oblique and far ones are all needed
            cosine = -surfels[y, x, 3] / distance
            if (x | y) & 1 and 4 * distance * pixel < side * cosine:
                continue
            px, py, pz = rays[y, x, 0] * distance, rays[y, x, 1] * distance, rays[y, x, 2] * distance
            for step in range(3):
                along = (step - 1) * band
                qx = px + along * surfels[y, x, 0]
                qy = py + along * surfels[y, x, 1]
                qz = pz + along * surfels[y, x, 2]
                bx = int(np.floor((pose[0, 0] * qx + pose[0, 1] * qy + pose[0, 2] * qz + pose[0, 3]) / side))
                by = int(np.floor((pose[1, 0] * qx + pose[1, 1] * qy + pose[1, 2] * qz + pose[1, 3]) / side))
                bz = int(np.floor((pose[2, 0] * qx + pose[2, 1] * qy + pose[2, 2] * qz + pose[2, 3]) / side))
                key = pack(bx, by, bz)
                if key == last[step]:
                    continue
                last[step] = key
                row, count = insert(keys, rows, coordinates, count, bx, by, bz)
                if row == -1:
                    return count, -1
                if row >= 0 and stamps[row] != stamp:
                    stamps[row] = stamp
                    touched[number] = row
                    number += 1
    return count, number


@njit(cache=True, error_model="numpy")
def _project(x, y, z, r, pinhole, lookup, lookup_scale):
    """Pixel position of a point in the camera frame; NaN where it is not seen.

    Without a pinhole, by bilinear look-up in the stereographic plane (x, y) / (r + z), which is smooth for any lens.
    """
    if lookup.shape[0] == 0:
        if z <= 1e-9:
            return np.nan, np.nan
        return pinhole[0] * x / z + pinhole[2], pinhole[1] * y / z + pinhole[3]
    if r + z <= 1e-3 * r:
        return np.nan, np.nan
    half = (lookup.shape[0] - 1) / 2
    a = x / (r + z) * lookup_scale + half
    b = y / (r + z) * lookup_scale + half
    if not (a >= 0 and b >= 0 and a < lookup.shape[0] - 1 and b < lookup.shape[0] - 1):
        return np.nan, np.nan
    i, j = int(a), int(b)
    a, b = a - i, b - j
    u = (lookup[j, i, 0] * (1 - a) + lookup[j, i + 1, 0] * a) * (1 - b)
    u += (lookup[j + 1, i, 0] * (1 - a) + lookup[j + 1, i + 1, 0] * a) * b
    v = (lookup[j, i, 1] * (1 - a) + lookup[j, i + 1, 1] * a) * (1 - b)
    v += (lookup[j + 1, i, 1] * (1 - a) + lookup[j + 1, i + 1, 1] * a) * b
    return u, v


@njit(parallel=True, cache=True, error_model="numpy")
def integrate(
    touched, coordinates, tsdf, weights, colors, surfels, rgb, highlights, cam, voxel, pinhole, lookup, lookup_scale
):
    """Update every voxel of the touched blocks from the surfel of the pixel that it projects to.

    `cam` is cam_from_world (4, 4). Distance is to the pixel's plane, so that nearest-pixel sampling is exact on planes
    and oblique views do not overstate it.
    """
    height, width = surfels.shape[:2]
    for n in prange(touched.shape[0]):
        row = touched[n]
        wx = (coordinates[row, 0] * SIDE + 0.5) * voxel
        wy = (coordinates[row, 1] * SIDE + 0.5) * voxel
        wz = (coordinates[row, 2] * SIDE + 0.5) * voxel
        for at in range(VOXELS):
            vx, vy, vz = wx + (at & 7) * voxel, wy + ((at >> 3) & 7) * voxel, wz + (at >> 6) * voxel
            x = cam[0, 0] * vx + cam[0, 1] * vy + cam[0, 2] * vz + cam[0, 3]
            y = cam[1, 0] * vx + cam[1, 1] * vy + cam[1, 2] * vz + cam[1, 3]
            z = cam[2, 0] * vx + cam[2, 1] * vy + cam[2, 2] * vz + cam[2, 3]
            r = np.sqrt(x * x + y * y + z * z)
            u, v = _project(x, y, z, r, pinhole, lookup, lookup_scale)
            if not (u >= 0 and v >= 0 and u < width and v < height):
                continue
            s = surfels[int(v), int(u)]
            w = s[4]
            if w <= 0:
                continue
            value = (s[0] * x + s[1] * y + s[2] * z - s[3]) * s[5]
            # a plane seen edge-on says nothing about what lies far behind it
            if value <= -1 or (r - s[6]) * s[5] > 3:
                continue
            free = value >= 1
            if free:
                value = 1.0
                w *= FREE_WEIGHT
            elif value < 0:
                w *= 1 + value
            old = weights[row, at]
            share = w / (old + w)
            tsdf[row, at] += np.float32(share * (value - tsdf[row, at]))
            weights[row, at] = old + w
            if free:
                continue
            first = colors[row, at, 0] == 0 and colors[row, at, 1] == 0 and colors[row, at, 2] == 0
            if first:
                share = 1.0
            elif highlights[int(v), int(u)]:
                share *= HIGHLIGHT_WEIGHT
            for c in range(3):
                mean = colors[row, at, c] + share * (rgb[int(v), int(u), c] * COLOR_UNIT - colors[row, at, c])
                colors[row, at, c] = np.uint16(mean + 0.5)


@njit(cache=True)
def coarsen(old_coordinates, count, old_tsdf, old_weights, old_colors, keys, rows, coordinates, tsdf, weights, colors):
    """Merge 2 x 2 x 2 voxels into one of twice the size; returns the number of blocks then in use.

    Distances are stored relative to the truncation, which doubles with the voxel: values are halved.
    """
    used = 0
    sums = np.zeros((VOXELS, 5))
    for row in range(count):
        bx, by, bz = old_coordinates[row, 0], old_coordinates[row, 1], old_coordinates[row, 2]
        new, used = insert(keys, rows, coordinates, used, bx >> 1, by >> 1, bz >> 1)
        corner = ((bz & 1) * 4 * SIDE + (by & 1) * 4) * SIDE + (bx & 1) * 4
        sums[:] = 0
        for at in range(VOXELS):
            w = old_weights[row, at]
            to = corner + ((at >> 7) * SIDE + ((at >> 4) & 3)) * SIDE + ((at >> 1) & 3)
            sums[to, 0] += w
            sums[to, 1] += w * old_tsdf[row, at]
            for c in range(3):
                sums[to, 2 + c] += w * old_colors[row, at, c]
        for to in range(VOXELS):
            w = sums[to, 0]
            if w > 0:
                tsdf[new, to] = 0.5 * sums[to, 1] / w
                weights[new, to] = w / 8
                for c in range(3):
                    colors[new, to, c] = np.uint16(sums[to, 2 + c] / w + 0.5)
    return used
