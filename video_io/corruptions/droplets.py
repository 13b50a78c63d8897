"""Drops of water on the lens: each a small lens itself, that shows the scene upside down, blurred, with a dark and a
bright edge. They stay where they are, and creep down a little."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image, _drops

GROUP = "lens"
ABOUT = "drops of water stay on the lens and turn the scene upside down"

_COUNT = (2, 5, 9, 15, 24)


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    most = _COUNT[-1]
    place = rng.uniform(0.04, 0.96, (most, 2)) * (width, height)
    place[0] = rng.uniform(0.25, 0.75, 2) * (width, height)
    radius = width * np.clip(np.exp(rng.normal(np.log(0.055), 0.45, most)), 0.02, 0.13)
    creep = 0.01 * width * rng.exponential(1, most)  # px a second
    moulds, kind = [_mould(rng) for _ in range(3)], rng.integers(0, 3, most)
    count = _COUNT[severity - 1]
    place = _drops.apart(place[:count], radius[:count], 1.0)
    tone = np.array([1.0, 0.98, 0.96], np.float32)
    near = 2.0 * width / 320

    def effect(rgb: Image, time_s: float) -> Image:
        layers = _drops.Layers.empty(height, width)
        for i in range(count):
            x, y = place[i]
            _drops.paint(layers, moulds[kind[i]], float(x), float(y + creep[i] * time_s), float(radius[i]))
        layers.add[:] *= np.minimum(0.3 + 0.8 * levels.lit(rgb, 0.15), 1)
        # So near to the lens nothing is in focus, their own edges neither.
        cover = cv2.GaussianBlur(layers.cover, (0, 0), near)[..., None]
        through = cv2.GaussianBlur(layers.over(rgb, tone), (0, 0), near)
        return levels.rounded(rgb * (1 - cover) + through * cover)

    return effect


def _mould(rng: np.random.Generator) -> np.ndarray:
    x, y, _ = _drops.disc()
    # No circle: wetting holds the edge here and there.
    angle, waves = np.arctan2(y, x), rng.uniform(0, 2 * np.pi, 3)
    shape = 1 + sum(0.07 / k * np.cos(k * angle + wave) for k, wave in zip((2, 3, 5), waves, strict=True))
    r = np.hypot(x, y) * shape.astype(np.float32) * 1.1
    inside = np.clip((1 - r) * 8, 0, 1)
    bend = -2.6 * np.sqrt(np.clip(1 - 0.75 * r**2, 0, 1))
    down = np.clip(y / np.maximum(r, 0.1), -1, 1)
    edge = np.exp(-(((r - 0.93) / 0.12) ** 2))
    keep = 0.96 - edge * np.clip(0.2 - 0.5 * down, 0, 0.7)
    add = 55 * edge * np.clip(down, 0, 1) + 170 * _drops.spot(-0.25, -0.5, 0.1, 0.2, 0.6)
    return _drops.mould(bend.astype(np.float32), keep.astype(np.float32), add.astype(np.float32), inside)
