"""A surface, the frames that see it, and what they say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.shading import system
from endorecon.shading.lamp import LEAST_COSINE, PROFILE, Lamp, features, fit_lamp
from endorecon.shading.operators import edges, neighbours, tangents, unit, vertex_normals
from endorecon.shading.system import Sighting
from endorecon.shading.views import Sight, View, in_camera, movement, sample
from rendering.mesh import Mesh
from video_io.camera import Camera

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Float = NDArray[np.float64]
Index = NDArray[np.int64]

HELD_OUT = 8  # every 8th view judges
LEAST_SIGHTINGS = 4  # of a vertex, to say something
SCORE_BLUR_PX = 1.0
MOST_ERROR = 0.2  # of the log brightness: more is something else that came between
LAMP_PLACES = 3000
CELL_PX = 8  # of the images in which surfaces are compared
FIELD_PX = 24  # the mesh of what is smooth over an image
_ROUNDS = 2
_MEDIAN_OF = 5000


@dataclass
class Problem:
    """A surface and the views of it.

    Attributes:
        mesh: as given.
        camera: of all views.
        views, held: that the surface is fitted to, and that judge it.
        sight, held_sight: the vertices that each of them sees.
        distance: (V,) mean distance of each vertex from the views that see it.
        pairs: (E, 2) edges; mean: (V, V) over the neighbours of a vertex.
    """

    mesh: Mesh
    camera: Camera
    views: list[View]
    held: list[View]
    sight: list[Index]
    held_sight: list[Index]
    distance: Float
    pairs: Index
    mean: csr_array

    @staticmethod
    def of(mesh: Mesh, camera: Camera, views: Sequence[View]) -> Problem:
        held = [view for number, view in enumerate(views) if number % HELD_OUT == HELD_OUT // 2]
        kept = [view for number, view in enumerate(views) if number % HELD_OUT != HELD_OUT // 2]
        sight = Sight(mesh, camera)
        x = mesh.vertices.astype(np.float64)
        normals = vertex_normals(x, mesh.faces)
        seen, held_seen = ([sight.of(view, x, normals) for view in part] for part in (kept, held))
        total, count = np.zeros(len(x)), np.zeros(len(x))
        for view, at in zip(kept, seen, strict=True):
            total[at] += np.linalg.norm(x[at] - view.world_from_cam[:3, 3], axis=1)
            count[at] += 1
        known = count > 0
        distance = np.full(len(x), total[known].sum() / max(count[known].sum(), 1) if known.any() else 1.0)
        distance[known] = total[known] / count[known]
        pairs = edges(mesh.faces)
        return Problem(mesh, camera, kept, held, seen, held_seen, distance, pairs, neighbours(pairs, len(x)))


def find_lamp(problem: Problem, x: Float) -> Lamp:
    """The lamp that fits the views best on a surface with vertices x (V, 3)."""
    mesh = problem.mesh
    normals = vertex_normals(x, mesh.faces)
    smooth = unit(problem.mean @ (problem.mean @ normals))  # noise of the normals would make the cosine count for less
    counts = np.bincount(np.concatenate(problem.sight), minlength=len(x))
    places = np.flatnonzero(counts >= LEAST_SIGHTINGS)
    places = places[np.linspace(0, len(places) - 1, min(LAMP_PLACES, len(places))).astype(int)]
    number = np.full(len(x), -1)
    number[places] = np.arange(len(places))
    shape = (len(problem.views), len(places))
    brightness, weights = np.zeros(shape), np.zeros(shape)
    terms = np.zeros((*shape, PROFILE + 2))
    for k, (view, at) in enumerate(zip(problem.views, problem.sight, strict=True)):
        at = at[number[at] >= 0]
        points, towards = in_camera(view.world_from_cam, x[at], smooth[at])
        uv, inside = problem.camera.project(points)
        seen = sample(view.image(SCORE_BLUR_PX), np.where(inside[:, None], uv, 0))
        brightness[k, number[at]], weights[k, number[at]] = seen[:, 0], seen[:, 3] * inside
        terms[k, number[at]] = features(points, towards, np.zeros(3))
    return fit_lamp(brightness, terms, weights)


def sightings(
    problem: Problem, views: Sequence[View], sight: Sequence[Index], x: Float, lamp: Lamp, blur: float,
    texture: bool = False, shading: bool = False,
) -> list[Sighting]:  # fmt: skip
    """What views say of the surface with vertices x (V, 3), and how that changes with the picture's contrast, with the
    lamp's share, or with both."""
    from endorecon.shading import kernels

    normals = vertex_normals(x, problem.mesh.faces)
    across = tangents(normals)
    found, packed = [], lamp.packed()
    for view, at in zip(views, sight, strict=True):
        points, towards = in_camera(view.world_from_cam, x[at], normals[at])
        if texture:
            uv, moves, inside = movement(problem.camera, points, towards)
        else:
            (uv, inside), moves = problem.camera.project(points), np.zeros((len(at), 2))
        uv = np.where(inside[:, None], uv, 0)
        out = kernels.empty(len(at))
        kernels.look(
            at, points, towards, across[at] @ view.world_from_cam[:3, :3], uv, moves, inside, view.image(blur), packed,
            LEAST_COSINE, texture, shading, *out,
        )  # fmt: skip
        found.append(Sighting(at, *out, uv))
    return found


def evened(found: list[Sighting], camera: Camera, count: int) -> tuple[list[Sighting], Float]:
    """Sightings without each frame's exposure and what else is smooth over its image, and the albedo (V,) of all.

    The lamp of the model is a point and the walls do not shine on each other; what that leaves is smooth.
    """
    albedo, _, _ = system.albedos(found, count)
    for _ in range(_ROUNDS):
        found = [without_field(s, albedo, camera) for s in found]
        albedo, _, _ = system.albedos(found, count)
    return found, albedo


def without_field(s: Sighting, albedo: Float, camera: Camera) -> Sighting:
    """A frame's sightings less the smooth field of their differences from the albedos (V,)."""
    level = s.residual - exposure(s, albedo)
    difference = level - albedo[s.at]
    shape = camera.height // FIELD_PX + 1, camera.width // FIELD_PX + 1
    at = s.uv / FIELD_PX
    column = np.clip(at[:, 0], 0, shape[1] - 1).astype(np.int64)
    row = np.clip(at[:, 1], 0, shape[0] - 1).astype(np.int64)
    values = s.weight * np.clip(difference, -MOST_ERROR, MOST_ERROR)
    sums, weights = (
        np.bincount(row * shape[1] + column, v, shape[0] * shape[1]).reshape(shape) for v in (values, s.weight)
    )
    sums, weights = (cv2.GaussianBlur(v, (0, 0), 0.8) for v in (sums, weights))
    field = (sums / np.maximum(weights, 1e-9)).astype(np.float32)
    return replace(s, residual=level - sample(field[..., None], at)[:, 0])


def exposure(s: Sighting, albedo: Float) -> float:
    """By how much a frame is brighter than the albedos (V,) tell; log, the median."""
    some = np.flatnonzero(s.weight > 0)
    some = some[:: max(len(some) // _MEDIAN_OF, 1)]
    return float(np.median(s.residual[some] - albedo[s.at[some]])) if len(some) else 0.0


def exposures(problem: Problem, x: Float, lamp: Lamp) -> list[float]:
    """The log exposure of each view, up to a constant for all."""
    found = sightings(problem, problem.views, problem.sight, x, lamp, SCORE_BLUR_PX)
    total = [0.0] * len(found)
    for _ in range(_ROUNDS):
        albedo, _, _ = system.albedos(found, len(x))
        shifts = [exposure(s, albedo) for s in found]
        found = [replace(s, residual=s.residual - shift) for s, shift in zip(found, shifts, strict=True)]
        total = [before + shift for before, shift in zip(total, shifts, strict=True)]
    return total


def lit_share(problem: Problem) -> float:
    """Share of the vertices that enough views show neither too dark nor clipped."""
    x = problem.mesh.vertices.astype(np.float64)
    seen = sightings(problem, problem.views, problem.sight, x, Lamp(), SCORE_BLUR_PX)
    _, _, count = system.albedos(seen, len(x))
    return float((count >= LEAST_SIGHTINGS).mean())


@dataclass(frozen=True)
class Errors:
    """How far the frames that were held out are from what the others say of the albedo.

    Attributes:
        sums, weights: (F, R, C) over the cells of their images: weighted differences of the logarithms, no more than
            `MOST_ERROR` each, and their weights.
    """

    sums: Float
    weights: Float

    @property
    def mean(self) -> float:
        return float(self.sums.sum()) / max(float(self.weights.sum()), 1e-30)

    def compared(self, other: Errors) -> float:
        """By what factor these are larger than others, where the images see both surfaces."""
        shared = np.minimum(self.weights, other.weights)
        own, theirs = (float((e.sums / np.maximum(e.weights, 1e-30) * shared).sum()) for e in (self, other))
        return own / max(theirs, 1e-30)


def held_errors(problem: Problem, x: Float, lamp: Lamp) -> Errors:
    """Of a surface with vertices x (V, 3)."""
    count, camera = len(x), problem.camera
    seen = sightings(problem, problem.views, problem.sight, x, lamp, SCORE_BLUR_PX)
    seen, albedo = evened(seen, camera, count)
    _, _, views = system.albedos(seen, count)
    shape = camera.height // CELL_PX + 1, camera.width // CELL_PX + 1
    found = []
    for s in sightings(problem, problem.held, problem.held_sight, x, lamp, SCORE_BLUR_PX):
        s = without_field(replace(s, weight=s.weight * (views[s.at] >= LEAST_SIGHTINGS)), albedo, camera)
        error = s.weight * np.minimum(np.abs(s.residual - albedo[s.at]), MOST_ERROR)
        column, row = np.clip(s.uv / CELL_PX, 0, np.array(shape[::-1]) - 1).astype(np.int64).T
        at = row * shape[1] + column
        found.append([np.bincount(at, v, shape[0] * shape[1]).reshape(shape) for v in (error, s.weight)])
    sums, weights = np.array(found).reshape(-1, 2, *shape).swapaxes(0, 1)
    return Errors(sums, weights)
