"""Bubbles: dark rims, a bright ring within, the lamp mirrored in front and once more, inverted, at the back; they come
in clusters, drift together, and bend what is seen through them."""

from __future__ import annotations

import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image, _drops

GROUP = "scene"
ABOUT = "clusters of bubbles with dark rims and highlights"

_COUNT = (8, 18, 36, 64, 105)
_CLUSTERS = 5


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    most = _COUNT[-1]
    # The first cluster is in view for certain, and the earliest bubbles are in it.
    centre = rng.uniform(-0.05, 1.05, (_CLUSTERS, 2)) * (width, height)
    centre[0] = rng.uniform(0.25, 0.75, 2) * (width, height)
    cluster = np.minimum(rng.geometric(0.42, most) - 1, _CLUSTERS - 1)
    radius = width * np.clip(np.exp(rng.normal(np.log(0.022), 0.5, most)), 0.008, 0.075)
    place = centre[cluster] + rng.normal(0, 1, (most, 2)) * width * rng.uniform(0.03, 0.13, _CLUSTERS)[cluster, None]
    kind, phase = rng.integers(0, 3, most), rng.uniform(0, 2 * np.pi, most)
    drift = rng.normal(0, 0.035 * width, (_CLUSTERS, 2))  # px a second
    moulds = [_mould(rng) for _ in range(3)]
    count = _COUNT[severity - 1]
    place = _drops.apart(place[:count], radius[:count], 0.93)
    tone = np.array([1.0, 0.97, 0.93], np.float32)

    def effect(rgb: Image, time_s: float) -> Image:
        layers = _drops.Layers.empty(height, width)
        wobble = 0.004 * width * np.stack([np.sin(2.1 * time_s + phase), np.cos(1.7 * time_s + phase)], -1)
        now = place + drift[cluster[:count]] * time_s + wobble[:count]
        for (x, y), r, k in zip(now.tolist(), radius[:count].tolist(), kind[:count].tolist(), strict=True):
            _drops.paint(layers, moulds[k], x, y, r)
        light = 0.35 + 0.75 * levels.lit(rgb, 0.08)
        layers.add[:] *= np.minimum(light, 1)
        return levels.rounded(layers.over(rgb, tone))

    return effect


def _mould(rng: np.random.Generator) -> np.ndarray:
    _, _, r = _drops.disc()
    inside = np.clip((1 - r) * 14, 0, 1)
    # A film, not a ball: little is bent in the middle, much at the rim.
    bend = -0.75 * np.clip(r, 0, 1) ** 5
    rim = np.exp(-(((r - 0.95) / 0.075) ** 2))
    keep = (0.97 - 0.06 * r) * (1 - 0.62 * rim)
    angle = rng.uniform(-2.4, -1.6)  # the lamp is mirrored up and to the left of the middle, mostly
    front = 0.52 * np.array([np.cos(angle), np.sin(angle)])
    ring = np.exp(-(((r - 0.83) / 0.05) ** 2))
    x, y, _ = _drops.disc()
    facing = (x * front[0] + y * front[1]) / (0.52 * np.maximum(r, 0.05))
    add = 65 * ring * np.clip(-facing, 0.1, 1) + 35 * ring * np.clip(facing, 0, 1)
    add += 250 * _drops.spot(*front.tolist(), 0.1, 0.17, angle)
    add += 120 * _drops.spot(*(-1.3 * front).tolist(), 0.07, 0.2, angle)
    return _drops.mould(bend, keep, add, inside)
