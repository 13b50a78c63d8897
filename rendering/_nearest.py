"""Exact nearest points on a triangle mesh, by a tree of boxes over triangles in Morton order."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Float = NDArray[np.float64]
_LEAF = 4


def build(triangles: Float) -> tuple[NDArray[np.int64], Float, Float]:
    """The tree of `triangles` (F, 3, 3): their order, padded with -1 to leaves of four, and each node's box.

    Node i has the children 2 i + 1 and 2 i + 2; the last nodes are the leaves, in the triangles' order. A node
    without triangles has a box at infinity.
    """
    centres = triangles.mean(1)
    low = centres.min(0)
    cells = ((centres - low) / max(float((centres.max(0) - low).max()), 1e-300) * (2**20 - 1)).astype(np.uint64)
    code = _spread(cells[:, 0]) | _spread(cells[:, 1]) << np.uint64(1) | _spread(cells[:, 2]) << np.uint64(2)
    leaves = 1 << max(0, int(np.ceil(np.log2(max(len(triangles) / _LEAF, 1)))))
    order = np.full(leaves * _LEAF, -1, np.int64)
    order[: len(triangles)] = np.argsort(code, kind="stable")
    lows, highs = np.full((2 * leaves - 1, 3), np.inf), np.full((2 * leaves - 1, 3), -np.inf)
    corners = triangles[order]
    absent = (order < 0)[:, None]
    lows[leaves - 1 :] = np.where(absent, np.inf, corners.min(1)).reshape(leaves, _LEAF, 3).min(1)
    highs[leaves - 1 :] = np.where(absent, -np.inf, corners.max(1)).reshape(leaves, _LEAF, 3).max(1)
    level = leaves // 2
    while level >= 1:
        nodes = np.arange(level - 1, 2 * level - 1)
        lows[nodes] = np.minimum(lows[2 * nodes + 1], lows[2 * nodes + 2])
        highs[nodes] = np.maximum(highs[2 * nodes + 1], highs[2 * nodes + 2])
        level //= 2
    return order, lows, highs


def _spread(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The bits of 21-bit numbers, two zeros between any two."""
    v = values.copy()
    steps = (
        (32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F), (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    )  # fmt: skip
    for shift, mask in steps:
        v = (v | v << np.uint64(shift)) & np.uint64(mask)
    return v


@njit(cache=True, inline="always")
def _segment(px, py, pz, ax, ay, az, bx, by, bz):
    """The point of a segment that is nearest to p, and its squared distance."""
    ux, uy, uz = bx - ax, by - ay, bz - az
    length = ux * ux + uy * uy + uz * uz
    share = ((px - ax) * ux + (py - ay) * uy + (pz - az) * uz) / length if length > 0 else 0.0
    share = min(max(share, 0.0), 1.0)
    qx, qy, qz = ax + share * ux, ay + share * uy, az + share * uz
    return (qx - px) ** 2 + (qy - py) ** 2 + (qz - pz) ** 2, qx, qy, qz


@njit(cache=True, inline="always")
def _side(nx, ny, nz, ax, ay, az, bx, by, bz, qx, qy, qz):
    """Positive where q, in the plane with normal n, lies to the left of the edge from a to b."""
    ux, uy, uz = bx - ax, by - ay, bz - az
    vx, vy, vz = qx - ax, qy - ay, qz - az
    return (uy * vz - uz * vy) * nx + (uz * vx - ux * vz) * ny + (ux * vy - uy * vx) * nz


@njit(cache=True)
def _on_triangle(px, py, pz, t):
    """The point of a triangle (3, 3) that is nearest to p, and its squared distance; a triangle without area is fine.

    Scalars, as numba allocates every small array.
    """
    ax, ay, az, bx, by, bz, cx, cy, cz = t[0, 0], t[0, 1], t[0, 2], t[1, 0], t[1, 1], t[1, 2], t[2, 0], t[2, 1], t[2, 2]
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    area = nx * nx + ny * ny + nz * nz
    if area > 0:
        k = ((px - ax) * nx + (py - ay) * ny + (pz - az) * nz) / area
        qx, qy, qz = px - k * nx, py - k * ny, pz - k * nz
        if (
            _side(nx, ny, nz, ax, ay, az, bx, by, bz, qx, qy, qz) >= 0
            and _side(nx, ny, nz, bx, by, bz, cx, cy, cz, qx, qy, qz) >= 0
            and _side(nx, ny, nz, cx, cy, cz, ax, ay, az, qx, qy, qz) >= 0
        ):
            return (qx - px) ** 2 + (qy - py) ** 2 + (qz - pz) ** 2, qx, qy, qz
    best = _segment(px, py, pz, ax, ay, az, bx, by, bz)
    other = _segment(px, py, pz, bx, by, bz, cx, cy, cz)
    if other[0] < best[0]:
        best = other
    other = _segment(px, py, pz, cx, cy, cz, ax, ay, az)
    if other[0] < best[0]:
        best = other
    return best


@njit(cache=True, inline="always")
def _outside(p, low, high):
    """Squared distance of a point to a box; inf to an empty one."""
    if low[0] > high[0]:
        return np.inf
    total = 0.0
    for k in range(3):
        gap = max(low[k] - p[k], p[k] - high[k], 0.0)
        total += gap * gap
    return total


@njit(cache=True, parallel=True)
def query(points, triangles, order, lows, highs):
    """The nearest point on the triangles of each point (N, 3): the triangle (N,) and the point (N, 3)."""
    count, leaves = len(points), (len(lows) + 1) // 2
    face, foot = np.empty(count, np.int64), np.empty((count, 3))
    for i in prange(count):
        p, best = points[i], np.inf
        stack = np.empty(128, np.int64)
        stack[0] = 0
        filled = 1
        while filled:
            filled -= 1
            node = stack[filled]
            if _outside(p, lows[node], highs[node]) >= best:
                continue
            if node < leaves - 1:
                left, right = 2 * node + 1, 2 * node + 2
                # the nearer child goes on top
                if _outside(p, lows[left], highs[left]) < _outside(p, lows[right], highs[right]):
                    left, right = right, left
                stack[filled], stack[filled + 1] = left, right
                filled += 2
                continue
            for k in range((node - leaves + 1) * _LEAF, (node - leaves + 2) * _LEAF):
                t = order[k]
                if t < 0:
                    continue
                d, x, y, z = _on_triangle(p[0], p[1], p[2], triangles[t])
                if d < best:
                    best = d
                    face[i] = t
                    foot[i, 0], foot[i, 1], foot[i, 2] = x, y, z
    return face, foot
