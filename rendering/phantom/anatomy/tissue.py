"""An open field of gently undulating tissue with vessels, seen obliquely."""

from __future__ import annotations

import numpy as np

from rendering.phantom.noise import fbm
from rendering.phantom.paths import OrbitPath
from rendering.phantom.scene import Anatomy
from rendering.phantom.surfaces import ellipsoid, height_field

_GRID = 360


def build(rng: np.random.Generator) -> Anatomy:
    """An undulating floor under a dome, with a few ridges or mounds."""
    scale = rng.uniform(45, 130)
    size = scale * 8
    x = np.linspace(-size / 2, size / 2, _GRID)
    points = np.stack([*np.meshgrid(x, x, indexing="ij"), np.zeros((_GRID, _GRID))], -1)
    height = scale * rng.uniform(0.02, 0.35) * fbm(points, rng.uniform(0.5, 1.6) / scale, 2, int(rng.integers(1 << 30)))
    height += scale * rng.uniform(0, 0.03) * fbm(points, rng.uniform(3, 10) / scale, 3, int(rng.integers(1 << 30)))
    if rng.random() < 0.4:
        ridge = fbm(points, rng.uniform(0.6, 1.5) / scale, 2, int(rng.integers(1 << 30)))
        height += scale * rng.uniform(0.05, 0.3) * np.exp(-((ridge / rng.uniform(0.1, 0.3)) ** 2))
    dome = ellipsoid(
        (0, 0, 0),
        np.diag([3.5, 3.5, rng.uniform(1.5, 2.6)]) * scale,
        ("peritoneum", "mucosa", "any"),
        rng,
        0.06,
        1.5,
        96,
        inside=True,
    )
    floor = height_field(height, size, ("mucosa", "peritoneum", "pale", "liver", "any"))
    path = OrbitPath(
        np.array([0, 0, float(height[_GRID // 2, _GRID // 2])]), scale * 0.35, (scale * 0.4, scale * 1.4), (0.25, 1.45)
    )
    return Anatomy.of("tissue", [floor, dome], path, scale, 8.0)
