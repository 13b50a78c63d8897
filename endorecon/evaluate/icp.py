"""Point-to-plane ICP (Chen and Medioni, IVC 1992), trimmed (Chetverikov et al., IVC 2005), rigid or with a scale.

Many starts go through it at once, as arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rendering.mesh import Caster, Mesh
from video_io.errors import InputError
from video_io.trajectory import Similarity

Float = NDArray[np.float64]
TRIM = 0.85  # share of the run's points that count: the rest may be floaters, or tissue that the CT lacks
_SCALE_RANGE = 1.4  # an ICP may change the scale it began with by this factor, so that nothing shrinks to a point
_STILL = 2e-6  # an ICP stands still when it moves by less, as a share of the CT's size
_COMPATIBLE = 0.3  # least cosine between the normals of points that may correspond
_COARSE = 30_000  # points of the CT while places are looked for


class Surface:
    """A CT surface, prepared for nearest points.

    Attributes:
        mesh: the surface, mm.
        points, normals: (N, 3) spread over it, and the unit normals there.
        signed: whether the normals were found to point into the lumen (they are turned so where they do not).
        width: median distance across the lumen, mm; None where nothing lies opposite.
        size: diagonal of the bounding box.
    """

    def __init__(self, mesh: Mesh, samples: int = 200_000) -> None:
        from scipy.spatial import cKDTree

        check_mesh(mesh, "the CT surface")
        self.mesh = mesh
        self.points, faces = mesh.sample(samples)
        sign, self.width = across(mesh)
        self.signed = sign != 0
        self.normals = mesh.face_normals[faces] * (sign or 1)
        self.size = float(np.linalg.norm(np.ptp(self.points, axis=0)))
        # the samples come face by face, so every n-th lie evenly too
        self._steps = {False: 1, True: max(samples // _COARSE, 1)}
        self._trees = {coarse: cKDTree(self.points[::step]) for coarse, step in self._steps.items()}

    def nearest(self, points: Float, coarse: bool = False) -> tuple[Float, Float, Float]:
        """Distances (...), nearest points and their normals (..., 3) of points (..., 3); `coarse` has fewer points."""
        distance, at = self._trees[coarse].query(points, workers=-1)
        at = at * self._steps[coarse]
        return distance, self.points[at], self.normals[at]


@dataclass(frozen=True)
class Fitted:
    """Where an ICP ended: transform, trimmed root mean square distance (mm), share of points with a partner."""

    fit: Similarity
    residual: float
    inlier_share: float


def icp(
    points: Float,
    normals: Float,
    surface: Surface,
    starts: list[Similarity],
    with_scale: bool,
    iterations: int = 40,
    trim: float = TRIM,
    coarse: bool = False,
) -> list[Fitted]:
    """Trimmed point-to-plane ICP from each start, all at once; in the order of the starts.

    Args:
        points, normals: (N, 3) of the run, or (S, N, 3) for each start its own.
        surface: to which they are brought.
        starts: S transforms.
        with_scale: whether the scale is free.
        trim: share of the points, the nearest, that count.
        coarse: whether fewer points of the surface will do.
    """
    scale = np.array([f.scale for f in starts])
    turn = np.stack([f.rotation for f in starts])
    shift = np.stack([f.translation for f in starts])
    low, high = scale / _SCALE_RANGE, scale * _SCALE_RANGE
    points, normals = (np.broadcast_to(a, (len(starts), *a.shape[-2:])) for a in (points, normals))
    todo = np.arange(len(starts))
    for _ in range(iterations):
        q, distance, plane, n = pairs(
            points[todo], normals[todo], surface, scale[todo], turn[todo], shift[todo], coarse
        )
        step, g, moved = _step(q, n, plane, _counted(distance, trim), with_scale)
        change = exponential(step[:, :3])
        factor = np.clip(np.exp(step[:, 6]), low[todo] / scale[todo], high[todo] / scale[todo])
        shift[todo] = factor[:, None] * np.einsum("sij,sj->si", change, shift[todo] - g) + g + step[:, 3:6]
        turn[todo], scale[todo] = change @ turn[todo], scale[todo] * factor
        todo = todo[moved > _STILL * surface.size]
        if not len(todo):
            break
    q, distance, plane, _ = pairs(points, normals, surface, scale, turn, shift, coarse)
    count = max(int(trim * distance.shape[1]), 1)
    share = np.isfinite(distance).mean(1)
    # The planes of the samples are nearer than the samples; where normals disagree the plane is another wall's.
    distance = np.where(np.isfinite(distance), np.minimum(np.abs(plane), distance), surface.nearest(q, coarse)[0])
    residual = np.sqrt((np.sort(distance, 1)[:, :count] ** 2).mean(1))
    return [
        Fitted(Similarity(float(s), r, t), float(e), float(i))
        for s, r, t, e, i in zip(scale, turn, shift, residual, share, strict=True)
    ]


def pairs(
    points: Float, normals: Float, surface: Surface, scale: Float, turn: Float, shift: Float, coarse: bool
) -> tuple[Float, Float, Float, Float]:
    """Moved points (S, N, 3); distances, infinite where normals disagree; distances to the planes; their normals."""
    q = scale[:, None, None] * (points @ turn.transpose(0, 2, 1)) + shift[:, None]
    distance, c, n = surface.nearest(q, coarse)
    cosine = ((normals @ turn.transpose(0, 2, 1)) * n).sum(-1)
    cosine = cosine if surface.signed else np.abs(cosine)
    return q, np.where(cosine > _COMPATIBLE, distance, np.inf), ((q - c) * n).sum(-1), n


def _counted(distance: Float, trim: float) -> Float:
    """Weights (S, N): 1 for the nearest share of the points, 0 for the others and for those without a partner."""
    count = max(int(trim * distance.shape[1]), 6)
    limit = np.partition(distance, count - 1, axis=1)[:, count - 1 : count]
    return ((distance <= limit) & np.isfinite(distance)).astype(float)


def _step(q: Float, n: Float, plane: Float, weight: Float, with_scale: bool) -> tuple[Float, Float, Float]:
    """Gauss-Newton steps (S, 7: turn, shift, log scale), the point they turn about (S, 3), and how far they move."""
    g, radius, h, gradient = system(q, n, plane, weight, with_scale)
    damping = 1e-4 * weight.sum(1)[:, None, None] * np.eye(7) + 1e-12 * np.eye(7)
    step = -np.linalg.solve(h + damping, gradient[..., None])[..., 0]
    moved = np.linalg.norm(step, axis=1)
    # at most a fifth of the surface's own size at once
    step *= np.minimum(1, 0.2 * radius / np.maximum(moved, 1e-30))[:, None]
    step[:, :3] /= radius[:, None]
    step[:, 6] /= radius
    return step, g, moved


def system(q: Float, n: Float, plane: Float, weight: Float, with_scale: bool) -> tuple[Float, Float, Float, Float]:
    """Centres (S, 3), radii (S,), and the normal equations, in which turn and scale are lengths at that radius."""
    g = q.mean(1)
    local = q - g[:, None]
    radius = np.maximum(np.sqrt((local**2).sum(-1).mean(1)), 1e-12)
    local = local / radius[:, None, None]
    growth = (local * n).sum(-1, keepdims=True) * float(with_scale)
    j = np.concatenate([np.cross(local, n), n, growth], -1)
    h = np.einsum("sna,sn,snb->sab", j, weight, j, optimize=True)
    if not with_scale:
        h[:, 6, 6] = 1
    return g, radius, h, np.einsum("sna,sn->sa", j, weight * plane)


def exponential(turn: Float) -> Float:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(turn).as_matrix()


def across(mesh: Mesh, rays: int = 4000) -> tuple[int, float | None]:
    """The side of the faces on which the lumen lies (1, -1, or 0: not told) and the median distance across it."""
    points, faces = mesh.sample(rays)
    normals = mesh.face_normals[faces]
    caster, reach = Caster(mesh), float(np.linalg.norm(np.ptp(points, axis=0)))
    found = {}
    for side in (1, -1):
        start = points + side * 1e-3 * reach * normals
        found[side] = caster.along(start, side * normals)[0] + 1e-3 * reach
    share = {side: float(np.isfinite(d).mean()) for side, d in found.items()}
    side = 1 if share[1] >= share[-1] else -1
    told = share[side] > 0.2
    width = float(np.median(found[side][np.isfinite(found[side])])) if told else None
    return (side if share[side] > share[-side] + 0.1 else 0), width


def check_mesh(mesh: Mesh, what: str) -> None:
    """Raise InputError unless the mesh has an area and finite vertices."""
    if not np.isfinite(mesh.vertices).all():
        raise InputError(f"{what} has vertices that are not finite; export it again")
    if len(mesh.faces) == 0 or not mesh.face_areas.sum() > 0:
        raise InputError(f"{what} has no faces with an area; expected a triangle mesh")
