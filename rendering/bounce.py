"""Light that arrives by way of other surfaces: path traced from points on a mesh, carried over an image.

Inside a cavity much of the light has met a wall before: without it the far is too dark and the folds too deep. The
irradiance between surfaces is smooth, so a few hundred paths around a place are enough, wherever the surface is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rendering.light import LIGHT_COLUMNS, SpotLight, arriving, pack_lights

if TYPE_CHECKING:
    from embreex.rtcore_scene import EmbreeScene

    from rendering.mesh import Mesh

Float32 = NDArray[np.float32]

SPACING = 10
"""Pixels between the places of an image from which paths are traced."""
PATHS, BOUNCES = 32, 3
# Coarse neighbours to each side that a pixel takes from, and how far (share of the distance) one may lie off its plane.
REACH = 2
OFF_PLANE = 0.12
BRIGHTEST = 0.9
"""Largest albedo of a path's surfaces: the geometric series of its further bounces has to end."""


@dataclass(frozen=True)
class Paths:
    """Paths from places of a surface, which stay what they are while the lamp moves and albedo changes.

    Attributes:
        at, normal: (BOUNCES, N * P, 3) float32, where each path met a surface, lifted off it; from the mesh's centre.
        face: (BOUNCES, N * P) int32, the face there; negative where the path has ended before.
        each: P, paths from each of the N places.
    """

    at: Float32
    normal: Float32
    face: NDArray[np.int32]
    each: int

    def of(self, places: NDArray[np.int64]) -> Paths:
        """The paths from some of the places only."""
        b, p = len(self.face), self.each
        at, normal = (v.reshape(b, -1, p, 3)[:, places].reshape(b, -1, 3) for v in (self.at, self.normal))
        return Paths(at, normal, self.face.reshape(b, -1, p)[:, places].reshape(b, -1), p)


class Bounces:
    """A mesh with an albedo per vertex, prepared for tracing what its surfaces throw at each other.

    Args:
        mesh: the surface.
        albedo: (V, 3) linear.
    """

    def __init__(self, mesh: Mesh, albedo: Float32) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        # Embree works in float32: about the mesh's own centre little is lost to rounding. It reads in place.
        self._centre = mesh.vertices.mean(0).astype(np.float64)
        self._vertices = np.ascontiguousarray(mesh.vertices - self._centre, np.float32)
        self._faces = mesh.faces
        self._lift = np.float32(1e-4 * np.ptp(self._vertices, axis=0).max())
        self._scene = EmbreeScene()
        self._kept = TriangleMesh(self._scene, self._vertices, self._faces)
        self.paint(albedo)

    def paint(self, albedo: Float32) -> None:
        """Give the mesh another albedo (V, 3)."""
        self._albedo = np.clip(albedo[self._faces].mean(1), 0, BRIGHTEST).astype(np.float32)

    @property
    def walls(self) -> Float32:
        """(3,): mean albedo of the faces."""
        return self._albedo.mean(0)

    @cached_property
    def _parts(self) -> NDArray[np.int32]:
        return np.arange(len(self._faces), dtype=np.int32)

    def orders(
        self, points: NDArray, normals: NDArray, spots: tuple[SpotLight, ...], world_from_cam: NDArray[np.float64],
        rng: np.random.Generator, paths: int = PATHS,
    ) -> Float32:  # fmt: skip
        """Irradiance rgb (BOUNCES, N, 3) after one, two, ... bounces at points with normals (N, 3), world.

        All albedos s times as high bring s, s^2, ... times that.
        """
        lights = pack_lights(spots, self._moved(world_from_cam))
        where = np.ascontiguousarray(points - self._centre, np.float32)
        return traced_orders(
            self._scene, self._vertices, self._faces, self._parts, self._lift, where,
            np.ascontiguousarray(normals, np.float32), lights, self._albedo, rng, paths, series=False,
        )  # fmt: skip

    def paths(self, points: NDArray, normals: NDArray, rng: np.random.Generator, each: int = PATHS) -> Paths:
        """Paths from points with normals (N, 3), world; `orders_by` says what they bring."""
        where, facing = (np.ascontiguousarray(v, np.float32) for v in (points - self._centre, normals))
        return traced_paths(self._scene, self._vertices, self._faces, self._lift, where, facing, rng, each)

    def orders_by(self, paths: Paths, spots: tuple[SpotLight, ...], world_from_cam: NDArray[np.float64]) -> Float32:
        """`orders` (BOUNCES, N, 3) by way of given paths: their noise is alike for all lamps and poses."""
        lights = pack_lights(spots, self._moved(world_from_cam))
        weight, orders = np.ones_like(paths.at[0]), np.zeros((BOUNCES, len(paths.at[0]) // paths.each, 3), np.float32)
        arrived, to_light = np.empty_like(weight), np.empty_like(weight)
        reach = np.empty(len(weight), np.float32)
        for b in range(BOUNCES):
            lamp_at(
                paths.at[b], paths.normal[b], paths.face[b], self._albedo, lights, weight, to_light, reach, arrived
            )  # fmt: skip
            lit = np.flatnonzero(arrived.any(1))
            shadow = self._scene.run(paths.at[b][lit], to_light[lit], reach[lit], query="OCCLUDED")
            arrived[lit[np.asarray(shadow, np.int32) >= 0]] = 0
            orders[b] = arrived.reshape(-1, paths.each, 3).mean(1)
        return orders

    def image(
        self, shape: tuple[int, int], at: NDArray[np.int64], points: NDArray, normals: NDArray,
        spots: tuple[SpotLight, ...], world_from_cam: NDArray[np.float64], seed: int = 0,
    ) -> Float32:  # fmt: skip
        """Irradiance rgb (N, 3) at the points of an image's pixels, traced at a coarse grid and carried to all.

        Args:
            shape: (H, W).
            at: (N,) numbers of the pixels that see the mesh, row by row.
            points, normals: (N, 3) there, world.
        """
        height, width = shape
        parts = np.full(height * width, -1, np.int32)
        parts[at] = 0
        where, facing = np.zeros((height * width, 3), np.float32), np.zeros((height * width, 3), np.float32)
        where[at], facing[at] = points - self._centre, normals
        pose = self._moved(world_from_cam)
        lights = pack_lights(spots, pose)

        def traced(p: Float32, n: Float32) -> Float32:
            return traced_irradiance(
                self._scene, self._vertices, self._faces, self._parts, self._lift, p, n, lights, self._albedo,
                np.random.default_rng(seed), PATHS,
            )  # fmt: skip

        return over_image(shape, where, facing, parts, pose[:3, 3], traced)[at]

    def _moved(self, world_from_cam: NDArray[np.float64]) -> NDArray[np.float64]:
        pose = np.array(world_from_cam, float)
        pose[:3, 3] -= self._centre
        return pose


def over_image(
    shape: tuple[int, int], points: Float32, normals: Float32, parts: NDArray[np.int32], eye: NDArray[np.float64],
    trace: Callable[[Float32, Float32], Float32],
) -> Float32:  # fmt: skip
    """What `trace` finds at points with normals (M, 3) of a coarse grid, carried to all pixels: (H * W, 3).

    Args:
        shape: (H, W) of the image whose rows `points`, `normals` (H * W, 3) and `parts` (H * W,; -1 for none) are.
        eye: (3,), in the points' frame.
    """
    height, width = shape
    rows, columns = np.arange(SPACING // 2, height, SPACING), np.arange(SPACING // 2, width, SPACING)
    places = (rows[:, None] * width + columns[None]).ravel()
    at = places[parts[places] >= 0]
    found = np.zeros((len(places), 3), np.float32)
    if len(at):
        found[parts[places] >= 0] = trace(points[at], normals[at])
    out = np.zeros((height * width, 3), np.float32)
    carry(points, normals, parts, eye, width, places, len(columns), found, out)
    return out


def traced_irradiance(
    scene: EmbreeScene, vertices: Float32, faces: NDArray[np.int32], face_part: NDArray[np.int32], lift: np.float32,
    points: Float32, normals: Float32, lights: Float32, albedo: Float32, rng: np.random.Generator, paths: int = PATHS,
) -> Float32:  # fmt: skip
    """Irradiance (N, 3) of all orders of diffuse reflection (Kajiya, 1986), mean of cosine-weighted paths.

    The last of three bounces stands for all further ones, as if they saw the same albedo: the sum of the geometric
    series.

    Args:
        scene: of the triangles.
        face_part: (F,) row of `albedo` (P, 3) for each face.
        lift: how far paths start off the surface.
        points, normals: (N, 3).
        lights: from pack_lights.
        paths: from each point.
    """
    parts = traced_orders(
        scene, vertices, faces, face_part, lift, points, normals, lights, albedo, rng, paths, series=True
    )
    return parts.sum(0)


def traced_orders(
    scene: EmbreeScene, vertices: Float32, faces: NDArray[np.int32], face_part: NDArray[np.int32], lift: np.float32,
    points: Float32, normals: Float32, lights: Float32, albedo: Float32, rng: np.random.Generator, paths: int,
    series: bool,
) -> Float32:  # fmt: skip
    """The same by the number of bounces, (BOUNCES, N, 3); `series`: the last stands for all further ones."""
    n = len(points)
    draws = _spread_draws(n, paths, rng)
    origin, normal = np.repeat(points + lift * normals, paths, 0), np.repeat(normals, paths, 0)
    weight, orders = np.ones((n * paths, 3), np.float32), np.zeros((BOUNCES, n, 3), np.float32)
    way, to_light = np.empty_like(origin), np.empty_like(origin)
    reach, arrived = np.empty(len(origin), np.float32), np.empty((len(origin), 3), np.float32)
    for bounce in range(BOUNCES):
        cosine_directions(normal, draws, way)
        met = np.asarray(scene.run(origin, way), np.int32)
        advance(
            met, way, vertices, faces, face_part, albedo, lights, lift, series and bounce == BOUNCES - 1,
            origin, normal, weight, to_light, reach, arrived,
        )  # fmt: skip
        dark = np.asarray(scene.run(origin, to_light, reach, query="OCCLUDED"), np.int32) >= 0
        arrived[dark] = 0
        orders[bounce] = arrived.reshape(n, paths, 3).mean(1)
        draws = rng.random((len(origin), 2), np.float32)
    return orders


def traced_paths(
    scene: EmbreeScene, vertices: Float32, faces: NDArray[np.int32], lift: np.float32, points: Float32,
    normals: Float32, rng: np.random.Generator, paths: int,
) -> Paths:  # fmt: skip
    """The ways that `traced_orders` goes, for any lamp and albedo."""
    draws = _spread_draws(len(points), paths, rng)
    origin, normal = np.repeat(points + lift * normals, paths, 0), np.repeat(normals, paths, 0)
    weight, way, to_light, arrived = np.ones_like(origin), *(np.empty_like(origin) for _ in range(3))
    reach, part = np.empty(len(origin), np.float32), np.zeros(len(faces), np.int32)
    white, dark = np.ones((1, 3), np.float32), np.zeros((1, LIGHT_COLUMNS), np.float32)
    at, facing = (np.empty((BOUNCES, *origin.shape), np.float32) for _ in range(2))
    face = np.empty((BOUNCES, len(origin)), np.int32)
    for b in range(BOUNCES):
        cosine_directions(normal, draws, way)
        met = np.asarray(scene.run(origin, way), np.int32)
        advance(
            met, way, vertices, faces, part, white, dark, lift, False, origin, normal, weight, to_light, reach, arrived
        )  # fmt: skip
        at[b], facing[b], face[b] = origin, normal, np.where(weight[:, 0] > 0, met, -1)
        draws = rng.random((len(origin), 2), np.float32)
    return Paths(at, facing, face, paths)


def _spread_draws(places: int, paths: int, rng: np.random.Generator) -> Float32:
    """(places * paths, 2) in [0, 1): one well spread set for each place, shifted at random (Cranley and Patterson,
    1976)."""
    i = np.arange(paths)
    spread = np.stack([(i + 0.5) / paths, (i * 0.6180339887) % 1.0], -1)[None]
    return ((spread + rng.random((places, 1, 2))) % 1.0).reshape(-1, 2).astype(np.float32)


@njit(cache=True, fastmath=True)
def lamp_at(
    at: NDArray, normal: NDArray, face: NDArray, albedo: NDArray, lights: NDArray, weight: NDArray, to_light: NDArray,
    reach: NDArray, arrived: NDArray,
) -> None:  # fmt: skip
    """What the lights send to where paths have met a surface, as they bring it back, without shadows.

    `weight` (N, 3) is multiplied by the albedo (F, 3) of the `face` (N,) there; `to_light` (N, 3) and `reach` (N,) are
    a shadow ray to the first light, `arrived` (N, 3) is what the path brings back if that is free.
    """
    for i in range(face.size):
        f = face[i]
        for k in range(3):
            arrived[i, k] = 0.0
            weight[i, k] *= albedo[f, k] if f >= 0 else 0.0
        if f < 0:
            continue
        x, y, z = at[i, 0], at[i, 1], at[i, 2]
        lx, ly, lz = lights[0, 0] - x, lights[0, 1] - y, lights[0, 2] - z
        far = max(math.sqrt(lx * lx + ly * ly + lz * lz), 1e-6)
        to_light[i, 0], to_light[i, 1], to_light[i, 2], reach[i] = lx / far, ly / far, lz / far, 0.999 * far
        for j in range(lights.shape[0]):
            dx, dy, dz, factor = arriving(lights[j], x, y, z)
            e = factor * max(dx * normal[i, 0] + dy * normal[i, 1] + dz * normal[i, 2], 0.0)
            for k in range(3):
                arrived[i, k] += weight[i, k] * e * lights[j, 8 + k]


@njit(cache=True, fastmath=True)
def cosine_directions(normals: NDArray, draws: NDArray, out: NDArray) -> None:
    """Directions about the normals with density cos / pi, from uniform draws (N, 2) in [0, 1)."""
    for i in range(normals.shape[0]):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        # A tangent frame without a singular direction (Duff et al., JCGT 2017).
        sign = 1.0 if nz >= 0.0 else -1.0
        a = -1.0 / (sign + nz)
        b = nx * ny * a
        tx, ty, tz = 1.0 + sign * nx * nx * a, sign * b, -sign * nx
        sx, sy, sz = b, sign + ny * ny * a, -ny
        turn, radius = 2.0 * math.pi * draws[i, 1], math.sqrt(draws[i, 0])
        x, y, z = radius * math.cos(turn), radius * math.sin(turn), math.sqrt(max(1.0 - draws[i, 0], 1e-6))
        out[i, 0] = x * tx + y * sx + z * nx
        out[i, 1] = x * ty + y * sy + z * ny
        out[i, 2] = x * tz + y * sz + z * nz


@njit(cache=True, fastmath=True)
def advance(
    met: NDArray, way: NDArray, vertices: NDArray, faces: NDArray, face_part: NDArray, albedo: NDArray, lights: NDArray,
    lift: float, last: bool, origin: NDArray, normal: NDArray, weight: NDArray, to_light: NDArray, reach: NDArray,
    arrived: NDArray,
) -> None:  # fmt: skip
    """Move path ends to the faces that they met, and the light that arrives there without shadows.

    `origin`, `normal`, `weight` (N, 3) are changed; `to_light` (N, 3) and `reach` (N,) are a shadow ray to the first
    light, `arrived` (N, 3) is what the path brings back if that is free. A path that met nothing ends.
    """
    for i in range(met.size):
        f = met[i]
        arrived[i] = 0.0
        if f < 0:
            weight[i] = 0.0
            to_light[i, 0], to_light[i, 1], to_light[i, 2], reach[i] = way[i, 0], way[i, 1], way[i, 2], 0.0
            continue
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
        vx, vy, vz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        along = (nx * way[i, 0] + ny * way[i, 1] + nz * way[i, 2]) / max(length, 1e-20)
        if length < 1e-20 or abs(along) < 1e-6:
            weight[i] = 0.0
            to_light[i, 0], to_light[i, 1], to_light[i, 2], reach[i] = way[i, 0], way[i, 1], way[i, 2], 0.0
            continue
        side = -1.0 if along > 0.0 else 1.0
        nx, ny, nz = side * nx / length, side * ny / length, side * nz / length
        t = (nx * (ax - origin[i, 0]) + ny * (ay - origin[i, 1]) + nz * (az - origin[i, 2])) / (side * along)
        x, y, z = origin[i, 0] + t * way[i, 0], origin[i, 1] + t * way[i, 1], origin[i, 2] + t * way[i, 2]
        p = face_part[f]
        origin[i, 0], origin[i, 1], origin[i, 2] = x + lift * nx, y + lift * ny, z + lift * nz
        normal[i, 0], normal[i, 1], normal[i, 2] = nx, ny, nz
        lx, ly, lz = lights[0, 0] - origin[i, 0], lights[0, 1] - origin[i, 1], lights[0, 2] - origin[i, 2]
        far = max(math.sqrt(lx * lx + ly * ly + lz * lz), 1e-6)
        to_light[i, 0], to_light[i, 1], to_light[i, 2], reach[i] = lx / far, ly / far, lz / far, 0.999 * far
        for k in range(3):
            weight[i, k] *= albedo[p, k]
        for j in range(lights.shape[0]):
            dx, dy, dz, factor = arriving(lights[j], x, y, z)
            e = factor * max(dx * nx + dy * ny + dz * nz, 0.0)
            for k in range(3):
                arrived[i, k] += weight[i, k] * e * lights[j, 8 + k]
        if last:
            for k in range(3):
                arrived[i, k] /= 1.0 - albedo[p, k]


@njit(cache=True, fastmath=True)
def carry(
    points: NDArray, normals: NDArray, parts: NDArray, eye: NDArray, width: int, places: NDArray, columns: int,
    found: NDArray, out: NDArray,
) -> None:  # fmt: skip
    """Fill `out` (N, 3) by what was `found` (C, 3) at the coarse `places`, from those on the same surface.

    A neighbour counts by its distance in the image, by how its normal agrees and by how far it lies off the pixel's
    tangent plane.
    """
    rows = places.size // columns
    for i in range(points.shape[0]):
        if parts[i] < 0:
            continue
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        dx, dy, dz = px - eye[0], py - eye[1], pz - eye[2]
        thin = 1.0 / (OFF_PLANE * OFF_PLANE * (dx * dx + dy * dy + dz * dz))
        v, u = i // width, i % width
        row, column = int(v / SPACING), int(u / SPACING)
        total, r, g, b = 0.0, 0.0, 0.0, 0.0
        for y in range(max(row - REACH, 0), min(row + REACH + 1, rows)):
            for x in range(max(column - REACH, 0), min(column + REACH + 1, columns)):
                c = y * columns + x
                q = places[c]
                if parts[q] < 0:
                    continue
                dv = (v - y * SPACING - SPACING // 2) / SPACING
                du = (u - x * SPACING - SPACING // 2) / SPACING
                near = max(1.0 - (dv * dv + du * du) / ((REACH + 0.5) * (REACH + 0.5)), 0.0)
                agree = max(nx * normals[q, 0] + ny * normals[q, 1] + nz * normals[q, 2], 0.0)
                off = nx * (points[q, 0] - px) + ny * (points[q, 1] - py) + nz * (points[q, 2] - pz)
                w = near * near * (agree * agree * agree * agree / (1.0 + off * off * thin * off * off * thin) + 1e-4)
                total += w
                r, g, b = r + w * found[c, 0], g + w * found[c, 1], b + w * found[c, 2]
        if total > 0.0:
            out[i, 0], out[i, 1], out[i, 2] = r / total, g / total, b / total
