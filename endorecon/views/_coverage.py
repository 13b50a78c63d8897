"""What of a surface was seen, and how well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rendering.mesh import Mesh

# Weight of a vertex (1: one sure pixel, square-on, at the reference depth) from which on it counts as well seen.
WELL = 3.0
_SELDOM, _OFTEN = np.array([239, 83, 80], float), np.array([102, 187, 106], float)


def painted(mesh: Mesh) -> Mesh:
    """The mesh in colours from red, seen once from afar, to green, well seen."""
    if mesh.weight is None or not len(mesh.vertices):
        return mesh
    share = np.clip(np.log1p(mesh.weight) / np.log1p(WELL), 0, 1)[:, None]
    return replace(mesh, colors=np.round(_SELDOM + share * (_OFTEN - _SELDOM)).astype(np.uint8))


def well_seen(mesh: Mesh) -> float:
    """Share of the surface, by area, whose corners are well seen; 0 for an empty one."""
    if mesh.weight is None or not len(mesh.faces):
        return 0.0
    good = (mesh.weight[mesh.faces] >= WELL).all(1)
    return float(mesh.face_areas[good].sum() / max(float(mesh.face_areas.sum()), 1e-12))


def rim(mesh: Mesh) -> NDArray[np.float32]:
    """(E, 2, 3) the edges at which the surface ends: beyond them nothing was seen."""
    if not len(mesh.faces):
        return np.zeros((0, 2, 3), np.float32)
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64), axis=1)
    key = edges[:, 0] * len(mesh.vertices) + edges[:, 1]
    _, first, count = np.unique(key, return_index=True, return_counts=True)
    return mesh.vertices[edges[first[count == 1]]]
