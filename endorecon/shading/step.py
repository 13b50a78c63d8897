"""One Gauss-Newton step of a surface's vertices along their normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endorecon.shading import system
from endorecon.shading.lamp import Lamp
from endorecon.shading.operators import gradient, rings, tangents, unit, vertex_normals
from endorecon.shading.problem import LEAST_SIGHTINGS, Problem, evened, sightings

Float = NDArray[np.float64]
BLUR_PX = 1.0


@dataclass(frozen=True)
class Settings:
    """What is weighed how; each part can be left out.

    Attributes:
        texture: whether the picture's fine contrast counts: it is met elsewhere when the surface moves.
        shading: whether the brightness counts: the lamp comes nearer, and the light falls flatter.
        lamp: whether a lamp is sought at all; without one the brightness is that of the albedo and the exposure.
        correlated: how many observations say no more than one, as the errors of neighbours and frames are alike.
        height_std: of the fused surface, as a share of the distance.
        tilt_std_rad: of the surface's normals around their smoothed ones; infinite: no smoothing.
        extents: one a step, how far the normals are smoothed (standard deviation), as a share of the distance; the
            steps add up, each goes on from the surface of the one before.
        step_std: of what a vertex moves beside the mean of its neighbours, as a share of the distance.
        wide: what is wider than this share of the distance (standard deviation) in what all steps together move is
            taken back, as noise is narrow; infinite: nothing.
        most_step, most_move: bounds of a step and of all, as shares of the distance.
    """

    texture: bool = True
    shading: bool = True
    lamp: bool = True
    correlated: float = 30.0
    height_std: float = 0.0015
    tilt_std_rad: float = 0.03
    extents: tuple[float, ...] = (0.012, 0.016, 0.022, 0.03)
    step_std: float = 0.005
    wide: float = 0.04
    most_step: float = 0.02
    most_move: float = 0.003
    blur_px: float = BLUR_PX


def step(problem: Problem, x: Float, lamp: Lamp, extent: float, settings: Settings) -> Float:
    """One step of all vertices; `extent` is one of the settings'."""
    from scipy.sparse import eye_array

    mesh, count = problem.mesh, len(x)
    seen = sightings(
        problem, problem.views, problem.sight, x, lamp, settings.blur_px, settings.texture, settings.shading
    )
    seen, albedo = evened(seen, problem.camera, count)
    told = system.summed(seen, albedo, LEAST_SIGHTINGS)
    curvature, slope = told.curvature / settings.correlated, told.slope / settings.correlated
    normals = vertex_normals(x, mesh.faces)
    across = tangents(normals)
    mean, middle = problem.mean, float(np.median(problem.distance))
    edge = mesh.vertices[problem.pairs[:, 0]] - mesh.vertices[problem.pairs[:, 1]]
    edge_square = float((edge**2).sum(1).mean())
    parts = gradient(x, mesh.faces, across)
    if np.isfinite(settings.tilt_std_rad):
        smooth = normals
        for _ in range(rings(extent * middle, edge_square)):
            smooth = unit(smooth + mean @ smooth)
        wanted = -np.einsum("ni,nki->nk", smooth, across)
        weight = settings.tilt_std_rad**-2
        for k in (1, 2):
            curvature[:, k, k] += weight
            slope[:, k] -= weight * wanted[:, k - 1]
    moved = ((x - mesh.vertices) * normals).sum(1)
    prior = 1 / (settings.height_std * problem.distance) ** 2
    curvature[:, 0, 0] += prior
    slope[:, 0] += prior * moved
    beside = (eye_array(count) - mean).tocsr()
    height = system.minimum(parts, curvature, slope, beside, 1 / (settings.step_std * problem.distance) ** 2)
    step_bound, bound = settings.most_step * problem.distance, settings.most_move * problem.distance
    whole = moved + np.clip(height, -step_bound, step_bound)
    if np.isfinite(settings.wide):
        wide = whole
        for _ in range(rings(settings.wide * middle, edge_square)):
            wide = (wide + mean @ wide) / 2
        whole = whole - wide
    height = np.clip(whole, -bound, bound) - moved
    return x + height[:, None] * normals
