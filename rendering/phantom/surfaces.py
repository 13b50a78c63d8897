"""Building blocks of the phantom's anatomy: tubes, ellipsoids, height fields and implicit cavities as triangle meshes.

The normals of every part point into the air that the camera moves in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rendering.phantom.noise import fbm

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A surface of one material.

    Attributes:
        vertices: (V, 3) float64, mm, world.
        faces: (F, 3) int32, counter-clockwise when seen from the air.
        kinds: names of `material.PALETTE` from which its material is drawn.
    """

    vertices: Float
    faces: NDArray[np.int32]
    kinds: tuple[str, ...]


def grid_faces(rows: int, columns: int, wrap: bool) -> NDArray[np.int32]:
    """Triangles of a grid of vertices (rows x columns, row-major); `wrap` joins the last column to the first."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij")
    nxt = (c + 1) % columns
    a, b, d, e = r * columns + c, r * columns + nxt, (r + 1) * columns + c, (r + 1) * columns + nxt
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([b, e, d], -1).reshape(-1, 3)]).astype(
        np.int32
    )


def vertex_normals(vertices: Float, faces: NDArray[np.int32]) -> Float:
    """Unit normals (V, 3), weighted by the area of the faces around a vertex."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normal = np.cross(b - a, c - a)
    index = faces.T.ravel()
    total = np.stack([np.bincount(index, np.tile(face_normal[:, k], 3), len(vertices)) for k in range(3)], -1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def random_curve(rng: np.random.Generator, length: float, steps: int, bend: float, reach: float) -> tuple[Float, Float]:
    """A smooth random curve: points (steps, 3) and frames (steps, 3, 3) whose columns are two normals and the tangent.

    `bend` is the largest curvature (1 / mm), `reach` the length (mm) over which the curvature changes. The frames do
    not turn about the tangent.
    """
    step = length / (steps - 1)
    rate = gaussian_filter1d(rng.standard_normal((steps, 2)), reach / step, axis=0, mode="reflect")
    rate *= bend / max(np.linalg.norm(rate, axis=1).max(), 1e-12)
    frame, point = np.eye(3), np.zeros(3)
    points, frames = np.empty((steps, 3)), np.empty((steps, 3, 3))
    for i in range(steps):
        points[i], frames[i] = point, frame
        tangent = frame[:, 2] + step * (frame[:, 0] * rate[i, 0] + frame[:, 1] * rate[i, 1])
        tangent /= np.linalg.norm(tangent)
        point = point + step * tangent
        x = frame[:, 0] - tangent * (tangent @ frame[:, 0])
        x /= np.linalg.norm(x)
        frame = np.stack([x, np.cross(tangent, x), tangent], 1)
    return points, frames


def tube(points: Float, frames: Float, radius: Float, kinds: tuple[str, ...], inside: bool = True) -> Part:
    """A tube of `radius` (S, T), mm, around a curve of S points, closed by rounded ends.

    The air is inside the tube, or around it where `inside` is False.
    """
    rows, columns = radius.shape
    angle = np.arange(columns) * (2 * np.pi / columns)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(columns)], -1)
    arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    end = np.minimum(radius.mean(), arc[-1] / 3)
    from_end = np.clip(np.minimum(arc, arc[-1] - arc) / end, 0, 1)
    closed = radius * np.sqrt(np.maximum(1 - (1 - from_end) ** 2, 0))[:, None]
    vertices = points[:, None] + np.einsum("sij,tj->sti", frames, ring) * closed[..., None]
    faces = grid_faces(rows, columns, wrap=True)
    # With the tangent as z, ring direction then tangent is the outward turn.
    return Part(vertices.reshape(-1, 3), faces[:, ::-1].copy() if inside else faces, kinds)


def ellipsoid(
    centre: ArrayLike, axes: Float, kinds: tuple[str, ...], rng: np.random.Generator, rough: float = 0.1,
    frequency: float = 1.0, resolution: int = 64, inside: bool = False,
) -> Part:  # fmt: skip
    """A displaced ellipsoid. `axes` (3, 3) has its half axes as columns, mm; `rough` is the relief's share of them."""
    polar = np.linspace(0, np.pi, resolution)
    azimuth = np.arange(2 * resolution) * (np.pi / resolution)
    s = np.sin(polar)[:, None]
    unit = np.stack([s * np.cos(azimuth), s * np.sin(azimuth), np.cos(polar)[:, None] * np.ones_like(azimuth)], -1)
    offset = rng.uniform(-50, 50, 3)
    relief = 1 + rough * fbm(unit + offset / frequency, frequency, 3, int(rng.integers(1 << 30)))
    relief[0], relief[-1] = relief[0].mean(), relief[-1].mean()
    vertices = (unit * relief[..., None]).reshape(-1, 3) @ np.asarray(axes).T + np.asarray(centre)
    faces = grid_faces(resolution, 2 * resolution, wrap=True)
    mirrored = np.linalg.det(axes) < 0
    return Part(vertices, faces if inside != mirrored else faces[:, ::-1].copy(), kinds)


def height_field(height: Float, size: float, kinds: tuple[str, ...]) -> Part:
    """The graph of `height` (R, R), mm, over a square of side `size` about the origin; the air is above (+z)."""
    n = len(height)
    x = np.linspace(-size / 2, size / 2, n)
    vertices = np.stack([*np.meshgrid(x, x, indexing="ij"), height], -1).reshape(-1, 3)
    return Part(vertices, grid_faces(n, n, wrap=False)[:, ::-1].copy(), kinds)


@njit(cache=True, fastmath=True)
def _cavity_field(xs: NDArray, ys: NDArray, zs: NDArray, capsules: NDArray, blend: float, out: NDArray) -> None:
    for i in range(xs.size):
        for j in range(ys.size):
            for k in range(zs.size):
                air, solid = 1e3, 1e3
                for c in range(capsules.shape[0]):
                    p = capsules[c]
                    dx, dy, dz = p[3] - p[0], p[4] - p[1], p[5] - p[2]
                    qx, qy, qz = xs[i] - p[0], ys[j] - p[1], zs[k] - p[2]
                    t = (qx * dx + qy * dy + qz * dz) / max(dx * dx + dy * dy + dz * dz, 1e-9)
                    t = min(max(t, 0.0), 1.0)
                    ex, ey, ez = qx - t * dx, qy - t * dy, qz - t * dz
                    d = np.sqrt(ex * ex + ey * ey + ez * ez) - (p[6] + t * (p[7] - p[6]))
                    if p[8] > 0:
                        h = max(blend - abs(air - d), 0.0) / blend
                        air = min(air, d) - h * h * blend * 0.25
                    else:
                        h = max(blend - abs(solid - d), 0.0) / blend
                        solid = min(solid, d) - h * h * blend * 0.25
                h = max(blend - abs(air + solid), 0.0) / blend
                out[i, j, k] = max(air, -solid) + h * h * blend * 0.25


def cavity(
    capsules: Float, stretch: Float, blend: float, rough: float, frequency: float, kinds: tuple[str, ...],
    rng: np.random.Generator, cells: int = 1_100_000,
) -> Part:  # fmt: skip
    """The wall of an air space made of tapered capsules, blended smoothly, less the solid ones.

    Args:
        capsules: (C, 9): ends (3 + 3), mm, radii there (2), and +1 for air or -1 for solid.
        stretch: (3,) by which space is stretched afterwards, so that round sections become flat ones.
        blend: width, mm, over which capsules run into each other.
        rough: height, mm, of the wall's relief, of the given `frequency` (1 / mm).
    """
    from skimage.measure import marching_cubes

    radius = np.maximum(capsules[:, 6], capsules[:, 7])[:, None]
    is_air = capsules[:, 8] > 0
    low = np.minimum(capsules[:, :3], capsules[:, 3:6])[is_air] - radius[is_air]
    high = np.maximum(capsules[:, :3], capsules[:, 3:6])[is_air] + radius[is_air]
    margin = 2 * rough + blend
    low, high = low.min(0) - margin, high.max(0) + margin
    step = float(np.cbrt(np.prod(high - low) / cells))
    axes = [np.arange(a, b + 2 * step, step) for a, b in zip(low - step, high, strict=True)]
    field = np.empty([len(a) for a in axes])
    _cavity_field(*axes, np.ascontiguousarray(capsules, np.float64), blend, field)
    near = np.abs(field) < margin + 2 * step
    points = np.stack(np.nonzero(near), -1) * step + (low - step)
    field[near] += rough * fbm(points, frequency, 3, int(rng.integers(1 << 30)))
    # Nothing may be open at the border of the grid.
    for axis in range(3):
        ends = np.moveaxis(field, axis, 0)
        ends[0], ends[-1] = np.maximum(ends[0], step), np.maximum(ends[-1], step)
    vertices, faces, _, _ = marching_cubes(field.astype(np.float32), 0.0)
    vertices = (vertices * step + (low - step)) * stretch
    return Part(vertices.astype(np.float64), _attached(faces[:, ::-1].astype(np.int32), len(vertices)), kinds)


def _attached(faces: NDArray[np.int32], vertices: int) -> NDArray[np.int32]:
    """The faces without the crumbs that a relief leaves floating: parts of less than 2 % of all faces."""
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(ends), np.int8), ends.T), (vertices, vertices))
    part = connected_components(graph, directed=False)[1][faces[:, 0]]
    return np.ascontiguousarray(faces[np.bincount(part)[part] > 0.02 * len(faces)])
