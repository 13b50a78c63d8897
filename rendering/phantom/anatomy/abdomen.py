"""The abdomen under gas: organs of very different colours on a floor of tissue, fat, a wall around, instruments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rendering.phantom.noise import fbm
from rendering.phantom.paths import OrbitPath
from rendering.phantom.scene import Anatomy
from rendering.phantom.surfaces import Part, ellipsoid, height_field, random_curve, tube

_GRID = 260
Float = NDArray[np.float64]


def _organ(rng: np.random.Generator, scale: float, height: Float, size: float) -> Part:
    """A liver, a gall bladder, a stomach: a displaced ellipsoid that sits in the floor."""
    axes = (
        Rotation.random(random_state=rng).as_matrix()
        * scale
        * np.exp(rng.uniform(np.log(0.12), np.log(0.8)))
        * rng.uniform(0.35, 1.3, 3)
    )
    at = rng.normal(0, 0.55 * scale, 2)
    base = _height(height, size, at)
    centre = np.r_[at, base + scale * rng.uniform(-0.15, 0.3)]
    kinds = [("liver",), ("pale",), ("fat",), ("mucosa",), ("peritoneum",), ("livid", "any")][rng.integers(6)]
    return ellipsoid(centre, axes, kinds, rng, rng.uniform(0.02, 0.3), rng.uniform(0.8, 3), 72)


def _bowel(rng: np.random.Generator, scale: float, height: Float, size: float) -> Part:
    """A loop of bowel that lies on the floor."""
    radius = scale * rng.uniform(0.08, 0.22)
    points, frames = random_curve(rng, scale * rng.uniform(1.2, 3), 160, 0.5 / radius, radius * rng.uniform(2, 4))
    points = (points - points.mean(0)) @ Rotation.random(random_state=rng).as_matrix().T
    points[:, 2] *= 0.3
    points += np.r_[rng.normal(0, 0.6 * scale, 2), 0]
    points[:, 2] += _height(height, size, points[0, :2]) + radius * rng.uniform(0.2, 0.9)
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, [0.0, 0.0, 1.0])
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-6)
    frames = np.stack([side, np.cross(tangent, side), tangent], -1)
    swell = 1 + rng.uniform(0, 0.2) * fbm(points, 0.8 / radius, 2, int(rng.integers(1 << 30)))
    return tube(points, frames, radius * np.repeat(swell[:, None], 64, 1), ("mucosa", "pale", "any"), inside=False)


def _fat(rng: np.random.Generator, scale: float, height: Float, size: float) -> list[Part]:
    """A cluster of lobules."""
    middle, spread = rng.normal(0, 0.6 * scale, 2), scale * rng.uniform(0.1, 0.35)
    lobules = []
    for _ in range(rng.integers(8, 40)):
        at = middle + rng.normal(0, spread, 2)
        r = scale * rng.uniform(0.03, 0.12)
        axes = Rotation.random(random_state=rng).as_matrix() * r * rng.uniform(0.6, 1.3, 3)
        centre = np.r_[at, _height(height, size, at) + r * rng.uniform(-0.2, 0.8)]
        lobules.append(ellipsoid(centre, axes, ("fat",), rng, 0.1, 1.5, 28))
    return lobules


def _instrument(rng: np.random.Generator, scale: float, height: Float, size: float) -> list[Part]:
    """A shaft from a port in the wall to the field, with two jaws."""
    at = rng.normal(0, 0.4 * scale, 2)
    tip = np.r_[at, _height(height, size, at) + scale * rng.uniform(0.05, 0.5)]
    elevation, azimuth = rng.uniform(0.2, 1.2), rng.uniform(0, 2 * np.pi)
    way = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    radius = rng.uniform(1.5, 4.5)
    kinds = ("metal",) if rng.random() < 0.4 else ("plastic",)
    parts = [_rod(tip, tip + way * scale * 1.6, radius, kinds)]
    for _ in range(2):
        jaw = -way + rng.normal(0, 0.25, 3)
        parts.append(_rod(tip, tip + jaw / np.linalg.norm(jaw) * radius * rng.uniform(3, 6), radius * 0.4, ("metal",)))
    return parts


def _rod(start: Float, stop: Float, radius: float, kinds: tuple[str, ...]) -> Part:
    points = np.linspace(start, stop, 40)
    z = (stop - start) / np.linalg.norm(stop - start)
    x = np.cross(z, [0.3, 0.5, 0.8])
    x /= np.linalg.norm(x)
    frames = np.repeat(np.stack([x, np.cross(z, x), z], 1)[None], len(points), 0)
    return tube(points, frames, np.full((len(points), 32), radius), kinds, inside=False)


def _height(height: Float, size: float, at: Float) -> float:
    i, j = np.clip(((at / size + 0.5) * (_GRID - 1)).astype(int), 0, _GRID - 1)
    return float(height[i, j])


def build(rng: np.random.Generator) -> Anatomy:
    """Organs, bowel, fat and up to three instruments under a dome."""
    scale = rng.uniform(45, 130)
    size = scale * 6
    x = np.linspace(-size / 2, size / 2, _GRID)
    points = np.stack([*np.meshgrid(x, x, indexing="ij"), np.zeros((_GRID, _GRID))], -1)
    height = scale * rng.uniform(0.1, 0.5) * fbm(points, rng.uniform(0.5, 1.5) / scale, 3, int(rng.integers(1 << 30)))
    floor = height_field(height, size, ("peritoneum", "mucosa", "fat", "liver", "any"))
    dome_axes = np.diag([2.7, 2.7, rng.uniform(1.4, 2.2)]) * scale
    dome = ellipsoid((0, 0, 0), dome_axes, ("peritoneum", "livid", "any"), rng, 0.08, 2, 96, inside=True)
    parts = [floor, dome]
    parts += [_organ(rng, scale, height, size) for _ in range(rng.integers(2, 8))]
    parts += [_bowel(rng, scale, height, size) for _ in range(rng.integers(0, 3))]
    for _ in range(rng.integers(0, 4)):
        parts += _fat(rng, scale, height, size)
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 4)):
            parts += _instrument(rng, scale, height, size)
    target = np.array([0, 0, float(np.median(height)) + 0.1 * scale])
    path = OrbitPath(target, scale * 0.3, (scale * 0.35, scale * 1.3), (0.25, 1.4))
    return Anatomy.of("abdomen", parts, path, scale, 8.0)
