"""Light that surfaces throw at each other, at the places and times of the evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from endorecon.light.evidence import BLACK, WHITE, Evidence
from endorecon.light.model import NAMES, Between, Estimate, Parts, Seen, lit, summed
from endorecon.lighting import Lamp
from rendering.bounce import BOUNCES, Bounces
from rendering.mesh import Mesh

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

PLACES, PATHS = 300, 64  # of a view that are traced, and paths from each
WEB_PLACES, WEB_PATHS = 600, 256  # of the surface, for all frames; with 64, noise was read as less light between walls
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


class Web:
    """Paths from places all over the surface, the same for every frame, lamp and albedo.

    What they miss of the light at a point is much the same wherever the camera is, so the point's albedo takes it;
    paths drawn anew in each frame err anew, which the fit reads as less light between surfaces than there is.
    """

    def __init__(self, bounces: Bounces, evidence: Evidence, places: int = WEB_PLACES, paths: int = WEB_PATHS) -> None:
        rng = np.random.default_rng(0)
        self._bounces, self._evidence = bounces, evidence
        some = rng.choice(len(evidence.points), min(places, len(evidence.points)), replace=False)
        self._paths = bounces.paths(evidence.points[some], evidence.normals[some], rng, paths)
        length = float(np.median(evidence.distance))
        self._near, self._weight = _carried(evidence.points, evidence.normals, some, length)

    def traced(self, lamp: Lamp) -> Between:
        """Indirect irradiance at each observation."""
        seen, out = self._evidence, np.zeros((BOUNCES, len(self._evidence.point), 3), np.float32)
        begins = np.searchsorted(seen.frame, np.arange(len(seen.frames) + 1))
        for f, pose in enumerate(seen.poses):
            rows = slice(begins[f], begins[f + 1])
            near, weight = self._near[seen.point[rows]], self._weight[seen.point[rows]]
            if not len(near):
                continue
            needed, row = np.unique(near, return_inverse=True)
            found = self._bounces.orders_by(self._paths.of(needed), lamp.spots(), pose)
            out[:, rows] = (found[:, row.reshape(near.shape)] * weight[..., None]).sum(2)
        return Between(out, self._bounces.walls)


class Walls:
    """The surface's albedo for the light between its parts, and that light.

    Attributes:
        tracer: holds the albedo.
        log: (M, 3) log albedo of the evidence's points, but for its scale.
        scale: absolute albedo over exp(log).
    """

    def __init__(self, mesh: Mesh, evidence: Evidence, log_albedo: Float) -> None:
        self._mesh, self._evidence = mesh, evidence
        self.log, self.scale = log_albedo, usual_scale(np.exp(log_albedo))
        self.tracer = Bounces(mesh, np.zeros((len(mesh.vertices), 3)))
        self._web = Web(self.tracer, evidence)

    def traced(self, lamp: Lamp) -> Between:
        """What the surface throws at itself, with its albedo as it is now."""
        self.tracer.paint(over_mesh(self._mesh, self._evidence, self.scale * np.exp(self.log)))
        return self._web.traced(lamp)

    def agree(self, seen: Seen, at: Estimate) -> None:
        """Take the albedo of an estimate that was made with the light traced by the walls as they are, `seen`.

        A pale wall that is taken to be paler throws more light, by which it is found darker, and more so than it was
        too pale: to put in what has come out swings to and fro. So the albedo of each colour is brought to where what
        is put in and what comes out are the same: walls q times as pale throw q, q^2, ... times the light.
        """
        assert seen.indirect is not None
        theta = torch.tensor([at.values[n] for n in NAMES], dtype=torch.float32)
        straight = lit(theta, replace(seen, indirect=None), torch.ones_like(seen.indirect[0]), Parts())[0] * np.pi
        scale = torch.exp(theta[NAMES.index("log_scale")])
        gap = at.log_albedo - self.log
        mean = np.median(gap, 0)

        def bright(log_q: Tensor) -> Tensor:
            q = torch.exp(log_q)
            orders = torch.stack([seen.indirect[k] * q**k for k in range(BOUNCES)])  # type: ignore[index]
            return torch.log(straight + summed(q * orders, scale, q * seen.walls)).median(0).values

        now, least, most = bright(torch.zeros(3)), torch.full((3,), -3.0), torch.full((3,), 3.0)
        for _ in range(25):
            half = 0.5 * (least + most)
            high = half + bright(half) - now > torch.tensor(mean, dtype=torch.float32)
            least, most = torch.where(high, least, half), torch.where(high, half, most)
        self.log = self.log + half.numpy().astype(float) + 0.5 * (gap - mean)


def _carried(
    points: Float, normals: Float, some: NDArray[np.int64], length: float
) -> tuple[NDArray[np.int64], Float32]:
    """For each point, the traced places near it, (N, NEIGHBOURS) numbers within `some`, and their shares."""
    from scipy.spatial import cKDTree

    # Where the normal differs, another part of the scene is in view: that is far away too.
    place = np.hstack([points / length, 0.3 * normals])
    distance, near = cKDTree(place[some]).query(place, k=min(NEIGHBOURS, len(some)))
    distance, near = distance.reshape(len(points), -1), near.reshape(len(points), -1)
    weight = (1 / (distance + 0.02)).astype(np.float32)
    return near, weight / weight.sum(1, keepdims=True)


def in_view(
    bounces: Bounces, points: Float, normals: Float, lamp: Lamp, world_from_cam: Float, rng: np.random.Generator
) -> Float32:  # fmt: skip
    """`Bounces.orders` (BOUNCES, N, 3) at points that a camera sees: traced at some and carried to the others."""
    some = rng.choice(len(points), min(PLACES, len(points)), replace=False)
    found = bounces.orders(points[some], normals[some], lamp.spots(), world_from_cam, rng, PATHS)
    length = float(np.median(np.linalg.norm(points - world_from_cam[:3, 3], axis=1)))
    near, weight = _carried(points, normals, some, length)
    return (found[:, near] * weight[..., None]).sum(2)


def together(orders: Float32, scale: float, walls: Float32) -> Float32:
    """Indirect irradiance (N, 3) of albedos `scale` times those that `orders` (BOUNCES, N, 3) were traced with."""
    return summed(torch.tensor(orders), torch.tensor(scale), torch.tensor(walls)).numpy()
