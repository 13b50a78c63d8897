"""Marching cubes over the blocks of a TSDF: the surface where the signed distance is zero.

Vertices belong to voxel edges, which neighbouring cells and blocks share, so the mesh is closed across block borders
without any merging. The 256-case table is derived here instead of copied: on each face of the cell the cut runs
around each run of inside corners, a rule that depends on the face alone, so that neighbouring cells always agree.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from endorecon.scenes._tsdf_kernels import COLOR_UNIT, SIDE, VOXELS, find

# corner c sits at (c & 1, c >> 1 & 1, c >> 2); faces list their corners counter-clockwise as seen from outside
_FACES = ((0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6))
# edge = axis * 4 + number; its lower corner, so that the edge belongs to that corner's voxel
EDGE_CORNER = np.array([0, 2, 4, 6, 0, 1, 4, 5, 0, 1, 2, 3])
EDGE_AXIS = np.repeat([0, 1, 2], 4)
# neighbouring tsdf values that differ by more than this are two surfaces back to back, not a crossing: on a surface
# they differ by a voxel over the truncation
MAX_STEP = 1.0


def _edge(a: int, b: int) -> int:
    axis = {1: 0, 2: 1, 4: 2}[a ^ b]
    return next(e for e in range(12) if EDGE_AXIS[e] == axis and EDGE_CORNER[e] == min(a, b))


_EDGE_FACES = [{f for f in range(6) for i in range(4) if _edge(_FACES[f][i - 1], _FACES[f][i]) == e} for e in range(12)]


def _loops(case: int) -> list[list[int]]:
    """The closed polygons, as lists of edges, that part the inside corners (bits of `case`) from the others."""
    follows: dict[int, int] = {}
    for face in _FACES:
        inside = [bool(case >> c & 1) for c in face]
        for i in range(4):
            if inside[i] and not inside[i - 1]:
                j = i
                while inside[(j + 1) % 4]:
                    j += 1
                entering = _edge(face[i - 1], face[i])
                follows[entering] = _edge(face[j % 4], face[(j + 1) % 4])
    loops = []
    while follows:
        loop = [next(iter(follows))]
        while loop[-1] in follows:
            loop.append(follows.pop(loop[-1]))
        loops.append(loop[:-1])
    return loops


def _fan_start(loop: list[int]) -> list[int]:
    """The loop turned so that its fan's diagonals keep off the cell's faces, where the next cell's edges may lie."""

    def on_faces(start: int) -> int:
        turned = loop[start:] + loop[:start]
        return sum(bool(_EDGE_FACES[turned[0]] & _EDGE_FACES[e]) for e in turned[2:-1])

    best = min(range(len(loop)), key=on_faces)
    return loop[best:] + loop[:best]


@lru_cache(maxsize=1)
def case_table() -> NDArray[np.int8]:
    """(256, 16): edges of each case's triangles, three a triangle, ended by -1; bit c means that corner c is inside."""
    table = np.full((256, 16), -1, np.int8)
    for case in range(256):
        loops = [_fan_start(loop) for loop in _loops(case)]
        edges = [e for loop in loops for k in range(1, len(loop) - 1) for e in (loop[0], loop[k], loop[k + 1])]
        table[case, : len(edges)] = edges
    return table


@njit(nogil=True, parallel=True, cache=True)
def neighbours(coordinates, keys, rows):
    """(N, 8): the rows of the blocks at +(0 or 1) along x, y, z; corner numbering; -1 where there is none."""
    found = np.empty((coordinates.shape[0], 8), np.int32)
    for n in prange(coordinates.shape[0]):
        for c in range(8):
            found[n, c] = find(
                keys, rows, coordinates[n, 0] + (c & 1), coordinates[n, 1] + (c >> 1 & 1), coordinates[n, 2] + (c >> 2)
            )
    return found


@njit(nogil=True, cache=True)
def _at(block_neighbours, i, j, k):
    """Row and number of voxel (i, j, k), 0 to 8, seen from a block; row -1 where there is no block."""
    row = block_neighbours[(i >> 3) | (j >> 3) << 1 | (k >> 3) << 2]
    return row, ((k & 7) * SIDE + (j & 7)) * SIDE + (i & 7)


@njit(nogil=True, parallel=True, cache=True)
def _count_vertices(tsdf, weights, near, min_weight, index):
    """Number the crossed edges of each block from 0 in `index` (N, 512, 3), -1 elsewhere; returns counts a block.

    The numbers stay those within the block, in 16 bits: at full size the index would outgrow the field itself.
    """
    counts = np.zeros(near.shape[0], np.int64)
    for n in prange(near.shape[0]):
        number = 0
        for at in range(VOXELS):
            i, j, k = at & 7, at >> 3 & 7, at >> 6
            here, known = tsdf[n, at], weights[n, at] >= min_weight
            for axis in range(3):
                index[n, at, axis] = -1
                if not known:
                    continue
                row, to = _at(near[n], i + (axis == 0), j + (axis == 1), k + (axis == 2))
                if row < 0 or weights[row, to] < min_weight:
                    continue
                there = tsdf[row, to]
                if (here < 0) != (there < 0) and abs(here - there) <= MAX_STEP:
                    index[n, at, axis] = number
                    number += 1
        counts[n] = number
    return counts


@njit(nogil=True, parallel=True, cache=True)
def _place_vertices(coordinates, tsdf, weights, colors, near, voxel, index, starts, points, tints, trust):
    for n in prange(near.shape[0]):
        for at in range(VOXELS):
            i, j, k = at & 7, at >> 3 & 7, at >> 6
            for axis in range(3):
                if index[n, at, axis] < 0:
                    continue
                number = starts[n] + index[n, at, axis]
                row, to = _at(near[n], i + (axis == 0), j + (axis == 1), k + (axis == 2))
                share = tsdf[n, at] / (tsdf[n, at] - tsdf[row, to])
                points[number, 0] = (coordinates[n, 0] * SIDE + i + 0.5 + share * (axis == 0)) * voxel
                points[number, 1] = (coordinates[n, 1] * SIDE + j + 0.5 + share * (axis == 1)) * voxel
                points[number, 2] = (coordinates[n, 2] * SIDE + k + 0.5 + share * (axis == 2)) * voxel
                trust[number] = weights[n, at] * (1 - share) + weights[row, to] * share
                for c in range(3):
                    mean = colors[n, at, c] * (1 - share) + colors[row, to, c] * share
                    tints[number, c] = np.uint8(min(mean / COLOR_UNIT + 0.5, 255.0))


@njit(nogil=True, cache=True)
def _cell(tsdf, weights, near, i, j, k, min_weight):
    """The case of a cell, or 0 (nothing to draw) where a corner is not known."""
    case = 0
    for c in range(8):
        row, to = _at(near, i + (c & 1), j + (c >> 1 & 1), k + (c >> 2))
        if row < 0 or weights[row, to] < min_weight:
            return 0
        if tsdf[row, to] < 0:
            case |= 1 << c
    return case


@njit(nogil=True, parallel=True, cache=True)
def _triangles(tsdf, weights, near, min_weight, index, first, table, edge_corner, edge_axis, starts, faces):
    """Count each block's triangles where `faces` is empty, else write them from `starts` on.

    `first` (N,) is the number of each block's first vertex.
    """
    counts = np.zeros(near.shape[0], np.int64)
    for n in prange(near.shape[0]):
        number = 0
        corner = np.empty(3, np.int64)
        for at in range(VOXELS):
            i, j, k = at & 7, at >> 3 & 7, at >> 6
            case = _cell(tsdf, weights, near[n], i, j, k, min_weight)
            for t in range(0, 15, 3):
                if table[case, t] < 0:
                    break
                for v in range(3):
                    edge = table[case, t + v]
                    c = edge_corner[edge]
                    row, to = _at(near[n], i + (c & 1), j + (c >> 1 & 1), k + (c >> 2))
                    local = index[row, to, edge_axis[edge]]
                    corner[v] = first[row] + local if local >= 0 else -1
                if min(corner) < 0:
                    continue
                if faces.shape[0] > 0:
                    for v in range(3):
                        faces[starts[n] + number, v] = corner[v]
                number += 1
        counts[n] = number
    return counts


def extract(coordinates, tsdf, weights, colors, keys, rows, voxel: float, min_weight: float):
    """Points (V, 3) float32, faces (F, 3) int32 facing the free side, colours (V, 3) uint8 and weights (V,) float32."""
    near = neighbours(coordinates, keys, rows)
    index = np.empty((len(near), VOXELS, 3), np.int16)
    counts = _count_vertices(tsdf, weights, near, min_weight, index)
    total, first = int(counts.sum()), np.cumsum(counts) - counts
    points, tints = np.empty((total, 3), np.float32), np.empty((total, 3), np.uint8)
    trust = np.empty(total, np.float32)
    _place_vertices(coordinates, tsdf, weights, colors, near, voxel, index, first, points, tints, trust)
    arguments = (tsdf, weights, near, min_weight, index, first, case_table(), EDGE_CORNER, EDGE_AXIS)
    counts = _triangles(*arguments, counts, np.empty((0, 3), np.int32))
    faces = np.empty((int(counts.sum()), 3), np.int32)
    if len(faces):
        _triangles(*arguments, np.cumsum(counts) - counts, faces)
    return points, faces, tints, trust
