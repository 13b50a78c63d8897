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
MAX_STEPS = 16
# the part of the ramp for which blocks are made; the rest only counts where there are blocks anyway
TOUCHED_BEHIND, TOUCHED_BEFORE = 0.75, 0.75
HIGHLIGHT_WEIGHT = 0.1
COLOR_UNIT = 256.0


@njit(nogil=True, parallel=True, cache=True, error_model="numpy")
def measure_surfels(depth, confidence, log_std, rays, reference_depth, far, tau_min, tau_max, surfels):
    """Turn each pixel into a small plane with a weight; weight 0 where the pixel must not be used."""
    h, w = depth.shape
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
            spread = 2.0 * log_std[y, x] * distance
            if not spread >= 0:
                continue
            tau = min(max(spread, tau_min), tau_max)
            near = reference_depth / z
            surfels[y, x, 0], surfels[y, x, 1], surfels[y, x, 2] = nx, ny, nz
            surfels[y, x, 3] = facing * distance
            surfels[y, x, 4] = -facing * confidence[y, x] * min(max(near * near, 0.05), 4.0)
            surfels[y, x, 5] = 1.0 / tau
            surfels[y, x, 6] = distance


@njit(nogil=True, cache=True, error_model="numpy")
def _stencil(depth, confidence, rays, at):
    """The neighbours to either side at the stencil's reach, or the pixel itself where there is none to use."""
    low, high = max(at - STENCIL_PX, 0), min(at + STENCIL_PX, depth.shape[0] - 1)
    if not (depth[low] > 0 and confidence[low] > 0 and rays[low, 2] > 1e-3):
        low = at
    if not (depth[high] > 0 and confidence[high] > 0 and rays[high, 2] > 1e-3):
        high = at
    return low, high


@njit(nogil=True, cache=True, error_model="numpy")
def _bends(depth, low, at, high):
    """Whether depth jumps: on a plane, inverse depth is linear in the image, however steep the plane.

    With a neighbour on one side only nothing can be said; a jump there makes the pixel look edge-on.
    """
    if low == at or high == at:
        return False
    return abs(depth[at] / depth[low] + depth[at] / depth[high] - 2) > MAX_BEND


@njit(nogil=True, cache=True)
def _slot(keys, key):
    """Where `key` is in the table, or the empty place where it belongs."""
    mask = keys.shape[0] - 1
    at = ((key * np.int64(-7046029254386353131)) >> np.int64(24)) & mask
    while keys[at] != EMPTY and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(nogil=True, cache=True)
def pack(bx, by, bz):
    """A block coordinate as one integer; -1 outside what can be stored."""
    x, y, z = np.int64(bx) + OFFSET, np.int64(by) + OFFSET, np.int64(bz) + OFFSET
    if min(x, y, z) < 0 or max(x, y, z) >= 2 * OFFSET:
        return EMPTY
    return (x << 42) | (y << 21) | z


@njit(nogil=True, cache=True)
def find(keys, rows, bx, by, bz):
    """The row of a block, or -1."""
    key = pack(bx, by, bz)
    if key == EMPTY:
        return -1
    at = _slot(keys, key)
    return rows[at] if keys[at] == key else -1


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True, error_model="numpy")
def touch(surfels, rays, pose, side, pixel, keys, rows, coordinates, count, stamps, stamp, touched):
    """Find or make the blocks near the measured surface.

    `pixel` is the angle between neighbouring pixels, `side` a block's edge length. Returns (blocks in use, blocks
    touched); touched -1 when there was no room for a new block.
    """
    number = 0
    last = np.full(MAX_STEPS + 1, EMPTY)
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
            behind, before = TOUCHED_BEHIND / surfels[y, x, 5], TOUCHED_BEFORE / surfels[y, x, 5]
            steps = min(int(np.ceil((behind + before) / (0.4 * side))), MAX_STEPS)
            for step in range(steps + 1):
                along = (behind + before) * step / steps - behind
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


@njit(nogil=True, cache=True, error_model="numpy")
def _pinhole_pixels(corner, steps, pinhole, width, height, points, pixels):
    """Camera-frame positions (512, 3) of a block's voxels and the flat number of their pixel, -1 outside the image.

    `corner` is the first voxel in the camera frame, rows of `steps` lead to the next along x, y, z. Single precision
    and branch-free inside, so that the compiler can do eight voxels at once.
    """
    fx, fy, cx, cy = pinhole[0], pinhole[1], pinhole[2], pinhole[3]
    for line in range(VOXELS // SIDE):
        j, k = np.float32(line & 7), np.float32(line >> 3)
        ox = corner[0] + j * steps[1, 0] + k * steps[2, 0]
        oy = corner[1] + j * steps[1, 1] + k * steps[2, 1]
        oz = corner[2] + j * steps[1, 2] + k * steps[2, 2]
        for i in range(SIDE):
            at = line * SIDE + i
            step = np.float32(i)
            x, y, z = ox + step * steps[0, 0], oy + step * steps[0, 1], oz + step * steps[0, 2]
            points[0, at], points[1, at], points[2, at] = x, y, z
            inverse = np.float32(1) / z
            u, v = fx * x * inverse + cx, fy * y * inverse + cy
            seen = (z > 0) & (u >= 0) & (v >= 0) & (u < width) & (v < height)
            pixels[at] = np.int32(v) * width + np.int32(u) if seen else -1


@njit(nogil=True, cache=True, error_model="numpy")
def _lookup_pixels(corner, steps, lookup, lookup_scale, width, height, points, pixels):
    """As `_pinhole_pixels` for any lens, by bilinear look-up in the plane (x, y) / (r + z)."""
    half, last = np.float32((lookup.shape[0] - 1) / 2), np.float32(lookup.shape[0] - 1)
    one, tiny = np.float32(1), np.float32(1e-3)
    places = np.empty((2, VOXELS), np.float32)
    for line in range(VOXELS // SIDE):
        j, k = np.float32(line & 7), np.float32(line >> 3)
        ox = corner[0] + j * steps[1, 0] + k * steps[2, 0]
        oy = corner[1] + j * steps[1, 1] + k * steps[2, 1]
        oz = corner[2] + j * steps[1, 2] + k * steps[2, 2]
        for i in range(SIDE):
            at = line * SIDE + i
            step = np.float32(i)
            x, y, z = ox + step * steps[0, 0], oy + step * steps[0, 1], oz + step * steps[0, 2]
            points[0, at], points[1, at], points[2, at] = x, y, z
            r = np.sqrt(x * x + y * y + z * z)
            scale = lookup_scale / max(r + z, tiny * r)
            places[0, at], places[1, at] = x * scale + half, y * scale + half
    for at in range(VOXELS):
        pixels[at] = -1
        a, b = places[0, at], places[1, at]
        if not (a >= 0 and b >= 0 and a < last and b < last):
            continue
        i, j = np.int32(a), np.int32(b)
        a, b = a - np.float32(i), b - np.float32(j)
        u = (lookup[j, i, 0] * (one - a) + lookup[j, i + 1, 0] * a) * (one - b)
        u += (lookup[j + 1, i, 0] * (one - a) + lookup[j + 1, i + 1, 0] * a) * b
        v = (lookup[j, i, 1] * (one - a) + lookup[j, i + 1, 1] * a) * (one - b)
        v += (lookup[j + 1, i, 1] * (one - a) + lookup[j + 1, i + 1, 1] * a) * b
        if u >= 0 and v >= 0 and u < width and v < height:
            pixels[at] = np.int32(v) * width + np.int32(u)


@njit(nogil=True, parallel=True, cache=True, error_model="numpy")
def integrate(
    touched, coordinates, tsdf, weights, colors, surfels, rgb, highlights, cam, voxel, pinhole, lookup, lookup_scale
):
    """Update every voxel of the touched blocks from the surfel of the pixel that it projects to.

    `cam` is cam_from_world (4, 4). Distance is to the pixel's plane, so that nearest-pixel sampling is exact on planes
    and oblique views do not overstate it.
    """
    height, width = np.int32(surfels.shape[0]), np.int32(surfels.shape[1])
    flat, tints, bright = surfels.reshape(-1, SURFEL), rgb.reshape(-1, 3), highlights.reshape(-1)
    steps = (cam[:3, :3].T * voxel).astype(np.float32)
    one = np.float32(1)
    for n in prange(touched.shape[0]):
        row = touched[n]
        points, pixels = np.empty((3, VOXELS), np.float32), np.empty(VOXELS, np.int32)
        corner = np.empty(3, np.float32)
        for c in range(3):
            corner[c] = cam[c, 3]
            for d in range(3):
                corner[c] += cam[c, d] * (coordinates[row, d] * SIDE + 0.5) * voxel
        if lookup.shape[0] == 0:
            _pinhole_pixels(corner, steps, pinhole, width, height, points, pixels)
        else:
            _lookup_pixels(corner, steps, lookup, lookup_scale, width, height, points, pixels)
        for at in range(VOXELS):
            pixel = pixels[at]
            if pixel < 0:
                continue
            w = flat[pixel, 4]
            if w <= 0:
                continue
            x, y, z, slope = points[0, at], points[1, at], points[2, at], flat[pixel, 5]
            value = (flat[pixel, 0] * x + flat[pixel, 1] * y + flat[pixel, 2] * z - flat[pixel, 3]) * slope
            # a plane seen edge-on says nothing about what lies far behind it
            reach = flat[pixel, 6] * slope + np.float32(3)
            if value <= -one or (x * x + y * y + z * z) * slope * slope > reach * reach:
                continue
            free = value >= one
            if free:
                value = one
                w *= np.float32(FREE_WEIGHT)
            elif value < 0:
                w *= one + value
            total = weights[row, at] + w
            share = w / total
            tsdf[row, at] += share * (value - tsdf[row, at])
            weights[row, at] = total
            if not free:
                _blend(colors[row, at], tints[pixel], share * np.float32(HIGHLIGHT_WEIGHT) if bright[pixel] else share)


@njit(cache=True, error_model="numpy", inline="always")
def _blend(color, tint, share):
    """Move a colour towards a pixel's; the first one is taken as it is."""
    if color[0] == 0 and color[1] == 0 and color[2] == 0:
        share = np.float32(1)
    for c in range(3):
        mean = np.float32(color[c])
        color[c] = np.uint16(mean + share * (np.float32(tint[c]) * np.float32(COLOR_UNIT) - mean) + np.float32(0.5))


@njit(nogil=True, cache=True)
def coarsen(old_coordinates, count, old_tsdf, old_weights, old_colors, keys, rows, coordinates, tsdf, weights, colors):
    """Merge 2 x 2 x 2 voxels into one of twice the size; returns the number of blocks then in use.

    Distances are stored relative to the truncation, which doubles with the voxel: values are halved.
    """
    used = 0
    sums = np.zeros((VOXELS, 6))
    for row in range(count):
        bx, by, bz = old_coordinates[row, 0], old_coordinates[row, 1], old_coordinates[row, 2]
        new, used = insert(keys, rows, coordinates, used, bx >> 1, by >> 1, bz >> 1)
        corner = ((bz & 1) * 4 * SIDE + (by & 1) * 4) * SIDE + (bx & 1) * 4
        sums[:] = 0
        for at in range(VOXELS):
            w = old_weights[row, at]
            to = corner + ((at >> 7) * SIDE + ((at >> 4) & 3)) * SIDE + ((at >> 1) & 3)
            sums[to, 0] += w
            sums[to, 1] += w > 0
            # each distance counts alike: their plain mean is exact on a plane
            sums[to, 2] += old_tsdf[row, at] * (w > 0)
            for c in range(3):
                sums[to, 3 + c] += w * old_colors[row, at, c]
        for to in range(VOXELS):
            w = sums[to, 0]
            if w > 0:
                tsdf[new, to] = 0.5 * sums[to, 2] / sums[to, 1]
                weights[new, to] = w / 8
                for c in range(3):
                    colors[new, to, c] = np.uint16(sums[to, 3 + c] / w + 0.5)
    return used
