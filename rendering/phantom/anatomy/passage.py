"""Narrow passages: a branching airway tree, or a nasal cavity with a septum, turbinates and openings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from rendering.phantom.paths import TubePath
from rendering.phantom.scene import Anatomy
from rendering.phantom.surfaces import cavity, random_curve

Float = NDArray[np.float64]


def _chain(points: Float, radii: Float, air: float) -> Float:
    return np.column_stack([points[:-1], points[1:], radii[:-1], radii[1:], np.full(len(points) - 1, air)])


def _airways(rng: np.random.Generator, points: Float, frames: Float, radius: float) -> list[Float]:
    """A main airway that narrows, and side branches at random angles, some of which fork."""
    radii = radius * np.linspace(1, rng.uniform(0.5, 1.0), len(points)) * rng.uniform(0.8, 1.2, len(points))
    rows = [_chain(points, radii, 1.0)]
    for _ in range(rng.integers(0, 5)):
        at = rng.integers(2, len(points) - 1)
        turn, open_angle = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.3)
        side = np.cos(turn) * frames[at][:, 0] + np.sin(turn) * frames[at][:, 1]
        way = np.cos(open_angle) * frames[at][:, 2] + np.sin(open_angle) * side
        r = radii[at] * rng.uniform(0.35, 0.85)
        far = points[at] + way * radius * rng.uniform(2.5, 5)
        end = far + (way + rng.normal(0, 0.5, 3)) * radius * rng.uniform(1, 2.5)
        rows.append(_chain(np.stack([points[at], far, end]), r * np.array([1, 0.9, rng.uniform(0.5, 0.9)]), 1.0))
    return rows


def _nasal(rng: np.random.Generator, points: Float, frames: Float, radius: float) -> list[Float]:
    """A cavity with turbinates as solid ridges, a septum, and side chambers."""
    radii = radius * rng.uniform(0.7, 1.25, len(points))
    rows = [_chain(points, radii, 1.0)]
    for _ in range(rng.integers(0, 3)):
        at = rng.integers(2, len(points) - 1)
        away = rng.standard_normal(3)
        away *= radius * rng.uniform(1.0, 1.8) / np.linalg.norm(away)
        size = radius * rng.uniform(0.5, 1.2)
        rows.append(_chain(np.stack([points[at] + away, points[at] + 1.3 * away]), np.array([size, size]), 1.0))
    for _ in range(rng.integers(1, 5)):
        first = rng.integers(0, len(points) - 4)
        last = min(first + rng.integers(3, 9), len(points) - 1)
        turn = rng.uniform(0, 2 * np.pi)
        side = np.cos(turn) * frames[first : last + 1, :, 0] + np.sin(turn) * frames[first : last + 1, :, 1]
        size = radius * rng.uniform(0.25, 0.6)
        offset = side * radius * rng.uniform(0.75, 1.1)
        sizes = size * np.sin(np.linspace(0.5, np.pi - 0.3, last - first + 1)) + 1e-3
        rows.append(_chain(points[first : last + 1] + offset, sizes, -1.0))
    return rows


def build(rng: np.random.Generator) -> Anatomy:
    """A closed passage of radius 3 to 10 mm and 9 to 15 radii length."""
    radius = float(np.exp(rng.uniform(np.log(3), np.log(10))))
    length = radius * rng.uniform(9, 15)
    bend, reach = rng.uniform(0.03, 0.25), rng.uniform(2, 5)
    if rng.random() < 0.35:
        bend, reach = rng.uniform(0.25, 0.5), rng.uniform(1.5, 2.5)
    points, frames = random_curve(rng, length, 18, bend / radius, radius * reach)
    nasal = rng.random() < 0.6
    rows = (_nasal if nasal else _airways)(rng, points, frames, radius)
    flat = rng.uniform(0.5, 1.6, 3) if nasal else rng.uniform(0.85, 1.15, 3)
    flat[2] = 1.0
    wall = cavity(
        np.concatenate(rows), flat, radius * rng.uniform(0.1, 0.6), radius * rng.uniform(0, 0.16),
        rng.uniform(0.5, 2.5) / radius, ("mucosa", "mucosa", "any", "livid", "pale"), rng,
    )  # fmt: skip
    fine, knots = np.linspace(0, 17, 240), np.arange(18)
    way = CubicSpline(knots, points * flat)(fine)
    turned = CubicSpline(knots, frames)(fine)
    path = TubePath(way, turned, radius * 0.4 * min(flat.min(), 1.0), 0.05, 0.7)
    return Anatomy.of("passage", [wall], path, radius, 0.8)
