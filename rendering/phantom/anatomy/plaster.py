"""A cast model of a colon: a smooth tube of one colour with concentric ridges, as training phantoms have."""

from __future__ import annotations

import numpy as np

from rendering.phantom.anatomy.colon import folds
from rendering.phantom.noise import fbm
from rendering.phantom.paths import TubePath
from rendering.phantom.scene import Anatomy
from rendering.phantom.surfaces import random_curve, tube

_ROWS, _COLUMNS = 640, 160


def build(rng: np.random.Generator) -> Anatomy:
    """A closed smooth tube with ridges, of 8 to 18 radii."""
    radius = rng.uniform(14, 32)
    length = radius * rng.uniform(8, 18)
    points, frames = random_curve(rng, length, _ROWS, rng.uniform(0.05, 0.45) / radius, radius * rng.uniform(1.5, 4))
    arc, angle = np.linspace(0, length, _ROWS), np.arange(_COLUMNS) * (2 * np.pi / _COLUMNS)
    lobes = rng.choice([2, 3, 3])
    lumen = 1 - rng.uniform(0, 0.25) * np.cos(lobes * angle + rng.uniform(0, 6))
    ripple = rng.uniform(0, 0.05) * np.sin(arc / radius * rng.uniform(4, 16) + rng.uniform(0, 6))[:, None]
    relative = lumen[None] * (1 - folds(rng, arc, angle, radius)) + ripple
    cylinder = points[:, None] + radius * np.einsum(
        "sij,tj->sti", frames, np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    )
    relative += rng.uniform(0, 0.12) * fbm(cylinder, rng.uniform(0.5, 1.5) / radius, 2, int(rng.integers(1 << 30)))
    wall = tube(points, frames, radius * np.maximum(relative, 0.2), ("plaster",))
    return Anatomy.of("plaster", [wall], TubePath(points, frames, radius * 0.45), radius, 3.0)
