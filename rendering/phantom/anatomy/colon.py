"""The colon: a bent tube with haustral folds, a triangular lumen and polyps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rendering.phantom.noise import fbm
from rendering.phantom.paths import TubePath
from rendering.phantom.scene import Anatomy
from rendering.phantom.surfaces import Part, ellipsoid, random_curve, tube

_ROWS, _COLUMNS = 640, 208


def folds(
    rng: np.random.Generator, arc: NDArray[np.float64], angle: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Height of the haustral folds as a share of the radius, (S, T), at positions along (mm) and around (rad)."""
    height = np.zeros((len(arc), len(angle)))
    depth, width = rng.uniform(0.05, 0.5), rng.uniform(0.04, 0.28)
    sharp = rng.uniform(1.0, 2.4)
    phase, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.02, 0.02)
    at = 0.0
    while at < arc[-1]:
        at += radius * rng.uniform(0.5, 1.7)
        slant = radius * rng.normal(0, 0.12) * np.cos(angle - rng.uniform(0, 2 * np.pi))
        slant = slant + radius * rng.normal(0, 0.06) * np.cos(2 * angle - rng.uniform(0, 2 * np.pi))
        x = np.abs(arc[:, None] - at - slant) / (radius * width * rng.uniform(0.6, 1.6))
        profile = np.exp(-(x**sharp))
        segments = rng.choice([1, 2, 3, 3, 3, 4])
        share = rng.uniform(0.0, 0.8)
        around = 1 - share * (0.5 + 0.5 * np.cos(segments * (angle - phase) + turn * at + rng.normal(0, 0.5)))
        height = np.maximum(height, depth * rng.uniform(0.35, 1.3) * profile * around)
    return np.minimum(height, 0.62)


def polyps(
    rng: np.random.Generator, wall: NDArray[np.float64], points: NDArray[np.float64], radius: float
) -> list[Part]:
    """Rounded growths on the wall, from flat to stalked."""
    found = []
    for _ in range(rng.poisson(2.0) if rng.random() < 0.6 else 0):
        row, column = rng.integers(len(points) // 8, 7 * len(points) // 8), rng.integers(wall.shape[1])
        inward = points[row] - wall[row, column]
        inward /= np.linalg.norm(inward)
        side = np.cross(inward, rng.standard_normal(3))
        side /= np.linalg.norm(side)
        size = radius * rng.uniform(0.05, 0.28)
        axes = (
            np.stack([side, np.cross(inward, side), inward], 1) * size * rng.uniform([0.8, 0.8, 0.4], [1.4, 1.4, 1.2])
        )
        centre = wall[row, column] + inward * size * rng.uniform(-0.1, 0.7)
        found.append(ellipsoid(centre, axes, ("mucosa", "any", "pale"), rng, rng.uniform(0, 0.2), 2.5, 32))
    return found


def build(rng: np.random.Generator) -> Anatomy:
    """A closed piece of colon of 10 to 20 radii, bent so that its end is out of sight in most views; in a third of them
    as sharply as at a flexure, so that the wall of the bend closes the view."""
    radius = rng.uniform(14, 35)
    length = radius * rng.uniform(10, 20)
    bend, reach = rng.uniform(0.12, 0.5), rng.uniform(1.2, 3.5)
    if rng.random() < 0.35:
        bend, reach = rng.uniform(0.45, 0.85), rng.uniform(1.0, 2.0)
    points, frames = random_curve(rng, length, _ROWS, bend / radius, radius * reach)
    arc, angle = np.linspace(0, length, _ROWS), np.arange(_COLUMNS) * (2 * np.pi / _COLUMNS)
    calibre = 1 + rng.uniform(0, 0.3) * fbm(
        np.stack([arc, 0 * arc, 0 * arc], -1), 0.4 / radius, 2, int(rng.integers(1 << 30))
    )
    triangle = rng.uniform(0, 0.28) * np.cos(
        3 * angle[None] + 0.8 * np.sin(arc[:, None] / radius * rng.uniform(0, 0.6))
    )
    relative = calibre[:, None] * (1 - triangle) * (1 - folds(rng, arc, angle, radius))
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(_COLUMNS)], -1)
    cylinder = points[:, None] + np.einsum("sij,tj->sti", frames, ring) * radius
    relative += rng.uniform(0, 0.12) * fbm(cylinder, rng.uniform(0.8, 2.5) / radius, 3, int(rng.integers(1 << 30)))
    if rng.random() < 0.6:
        relative += rng.uniform(0, 0.03) * fbm(cylinder, rng.uniform(4, 12) / radius, 2, int(rng.integers(1 << 30)))
    relative = np.maximum(relative, 0.18)
    wall = tube(points, frames, radius * relative, ("mucosa", "mucosa", "any", "peritoneum"))
    grid = wall.vertices.reshape(_ROWS, _COLUMNS, 3)
    clearance = radius * 0.45
    return Anatomy.of(
        "colon", [wall, *polyps(rng, grid, points, radius)], TubePath(points, frames, clearance), radius, 2.5
    )
