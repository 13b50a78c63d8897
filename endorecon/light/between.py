"""Light that surfaces throw at each other, at the places and times of the evidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endorecon.light.evidence import BLACK, WHITE, Evidence
from endorecon.light.model import Between
from endorecon.lighting import Lamp
from rendering.bounce import BOUNCES, Bounces
from rendering.mesh import Mesh

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

PLACES, PATHS = 300, 64  # traced in each frame, and paths from each
NEIGHBOURS = 6  # traced places that a point takes its value from
USUAL_ALBEDO, USUAL_SHARE = 0.6, 0.95
"""By convention, where the scale can't be told: this share of the surface is darker than this, in its palest colour."""


def over_mesh(mesh: Mesh, evidence: Evidence, albedo: Float) -> Float32:
    """(V, 3): albedo of the vertices, from that of the points (M, 3) around them that tell it."""
    from scipy.spatial import cKDTree

    plain = (evidence.value > BLACK) & (evidence.value < WHITE)
    often = [np.bincount(evidence.point, plain[:, c], len(albedo)) for c in range(3)]
    distance, near = cKDTree(evidence.points).query(mesh.vertices, k=min(8, len(albedo)))
    out = np.empty((len(mesh.vertices), 3), np.float32)
    for c in range(3):
        # A colour that is always clipped at a point says nothing there; its neighbours' stands in, or the usual one.
        told = often[c] > 0
        usual = float(np.median(albedo[told, c])) if told.any() else float(np.median(albedo[:, c]))
        weight = told[near] / (distance + 1e-3 * distance.mean() + 1e-12)
        faint = 1e-3 / (distance.mean() + 1e-12)
        out[:, c] = ((albedo[near, c] * weight).sum(1) + usual * faint) / (weight.sum(1) + faint)
    return out


def usual_scale(albedo: Float) -> float:
    """What albedos (M, 3) have to be multiplied by to be as usual."""
    return USUAL_ALBEDO / max(float(np.quantile(albedo.max(1), USUAL_SHARE)), 1e-9)


def traced(bounces: Bounces, evidence: Evidence, lamp: Lamp, seed: int = 0) -> Between:
    """Indirect irradiance at each observation."""
    rng = np.random.default_rng(seed)
    out = np.zeros((BOUNCES, len(evidence.point), 3), np.float32)
    begins = np.searchsorted(evidence.frame, np.arange(len(evidence.frames) + 1))
    for f, pose in enumerate(evidence.poses):
        rows = slice(begins[f], begins[f + 1])
        seen = evidence.point[rows]
        if len(seen):
            out[:, rows] = in_view(bounces, evidence.points[seen], evidence.normals[seen], lamp, pose, rng)
    return Between(out, bounces.walls)


def in_view(
    bounces: Bounces, points: Float, normals: Float, lamp: Lamp, world_from_cam: Float, rng: np.random.Generator
) -> Float32:  # fmt: skip
    """`Bounces.orders` (BOUNCES, N, 3) at points that a camera sees: traced at some and carried to the others."""
    from scipy.spatial import cKDTree

    some = rng.choice(len(points), min(PLACES, len(points)), replace=False)
    found = bounces.orders(points[some], normals[some], lamp.spots(), world_from_cam, rng, PATHS)
    # Where the normal differs, another part of the scene is in view: that is far away too.
    length = np.median(np.linalg.norm(points - world_from_cam[:3, 3], axis=1))
    place = np.hstack([points / length, 0.3 * normals])
    distance, near = cKDTree(place[some]).query(place, k=min(NEIGHBOURS, len(some)))
    distance, near = distance.reshape(len(points), -1), near.reshape(len(points), -1)
    weight = (1 / (distance + 0.02)).astype(np.float32)
    return (found[:, near] * weight[..., None]).sum(2) / weight.sum(1, keepdims=True)


def together(orders: Float32, scale: float, walls: Float32) -> Float32:
    """Indirect irradiance (N, 3) of albedos `scale` times those that `orders` (BOUNCES, N, 3) were traced with."""
    import torch

    from endorecon.light.model import summed

    return summed(torch.tensor(orders), torch.tensor(scale), torch.tensor(walls)).numpy()
