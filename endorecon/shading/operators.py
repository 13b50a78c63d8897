"""Linear operators on the vertices of a triangle mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Float = NDArray[np.float64]
Faces = NDArray[np.int32]


def vertex_normals(vertices: Float, faces: Faces) -> Float:
    """(V, 3) unit normals, the mean of the adjacent faces by area; zero on a vertex without a face."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    crosses = np.cross(b - a, c - a)
    sums = np.stack([
        sum(np.bincount(faces[:, corner], crosses[:, axis], len(vertices)) for corner in range(3)) for axis in range(3)
    ], -1)  # fmt: skip
    return unit(sums)


def tangents(normals: Float) -> Float:
    """(V, 2, 3): two unit vectors across each normal, without a singular direction (Duff et al., JCGT 2017)."""
    x, y, z = normals.T
    sign = np.where(z >= 0, 1.0, -1.0)
    a = -1 / (sign + z)
    b = x * y * a
    return np.stack([np.stack([1 + sign * x * x * a, sign * b, -sign * x], -1),
                     np.stack([b, sign + y * y * a, -y], -1)], 1)  # fmt: skip


def gradient(vertices: Float, faces: Faces, across: Float) -> tuple[csr_array, csr_array]:
    """The slope of a function on the surface along the two tangents `across` (V, 2, 3) of each vertex, (V, V) each.

    It is the mean of the gradients on the adjacent faces by area, so that slivers, whose own is ill defined, hardly
    count.
    """
    from scipy.sparse import csr_array

    count = len(vertices)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1) / 2
    normal = unit(cross)
    # area times the gradient of the hat function of each corner: N x (the edge opposite) / 2
    hats = [np.cross(normal, edge) / 2 for edge in (c - b, a - c, b - a)]
    around = sum(np.bincount(faces[:, k], area, count) for k in range(3))
    found = []
    for k in range(2):
        rows, columns, values = [], [], []
        for at in range(3):
            row = faces[:, at]
            share = across[row, k] / np.maximum(around[row], 1e-30)[:, None]
            for corner in range(3):
                rows.append(row)
                columns.append(faces[:, corner])
                values.append((share * hats[corner]).sum(1))
        at = (np.concatenate(rows), np.concatenate(columns))
        found.append(csr_array((np.concatenate(values), at), (count, count)))
    return found[0], found[1]


def edges(faces: Faces) -> NDArray[np.int64]:
    """(E, 2) each edge once."""
    both = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64), 1)
    top = int(both.max(initial=0)) + 1
    keys = np.unique(both[:, 0] * top + both[:, 1])
    return np.stack([keys // top, keys % top], -1)


def neighbours(pairs: NDArray[np.int64], count: int) -> csr_array:
    """(V, V): the mean over the neighbours of a vertex along the edges (E, 2)."""
    from scipy.sparse import csr_array, diags_array

    both = np.concatenate([pairs, pairs[:, ::-1]])
    joined = csr_array((np.ones(len(both)), (both[:, 0], both[:, 1])), (count, count))
    return diags_array(1 / np.maximum(joined.sum(1), 1)) @ joined


def rings(std: float, edge_square: float) -> int:
    """How often half of every value has to be taken from the neighbours to smooth with a standard deviation `std`.

    A neighbour at the distance e lies at e^2 / 2 along each axis in the mean, and it has half a say.
    """
    return max(1, round(4 * std**2 / max(edge_square, 1e-30)))


def graph_laplacian(pairs: NDArray[np.int64], weights: Float, count: int) -> csr_array:
    """(V, V) L with x' L x = the sum over the edges of weight (x_i - x_j)^2."""
    from scipy.sparse import csr_array, diags_array

    both = np.concatenate([pairs, pairs[:, ::-1]])
    joined = csr_array((np.tile(weights, 2), (both[:, 0], both[:, 1])), (count, count))
    return (diags_array(joined.sum(1)) - joined).tocsr()


def unit(v: Float) -> Float:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-30)
