"""Round things between lens and tissue: painted, each from a mould of unit size, into maps of how light is bent, dimmed
and added."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.corruptions import Image

Float32 = NDArray[np.float32]

MOULD = 64  # pixels across a mould, whose circle leaves a margin of two


@dataclass(frozen=True)
class Layers:
    """What lies before the picture, (H, W) float32 each.

    Attributes:
        bend_x, bend_y: where a pixel's light comes from, px from the pixel.
        keep: share of the light that comes through.
        add: light added, display levels.
        cover: how much of the pixel is covered.
    """

    bend_x: Float32
    bend_y: Float32
    keep: Float32
    add: Float32
    cover: Float32

    @staticmethod
    def empty(height: int, width: int) -> Layers:
        """Nothing before the picture."""
        nothing = [np.zeros((height, width), np.float32) for _ in range(4)]
        return Layers(nothing[0], nothing[1], np.ones((height, width), np.float32), nothing[2], nothing[3])

    def over(self, rgb: Image, tone: Float32) -> Float32:
        """The picture seen through them, in display levels; `tone` (3,) colours the light that is added."""
        height, width = rgb.shape[:2]
        x = np.arange(width, dtype=np.float32)[None] + self.bend_x
        y = np.arange(height, dtype=np.float32)[:, None] + self.bend_y
        bent = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return bent * self.keep[..., None] + self.add[..., None] * tone


def disc() -> tuple[Float32, Float32, Float32]:
    """x, y in radii, and the distance from the centre, of a mould's pixels."""
    at = (np.arange(MOULD, dtype=np.float32) + np.float32(0.5) - MOULD / 2) / np.float32(MOULD / 2 - 2)
    x, y = np.meshgrid(at, at)
    return x, y, np.hypot(x, y)


def paint(layers: Layers, mould: Float32, x: float, y: float, radius: float) -> None:
    """Put a mould (MOULD, MOULD, 5: bend x, bend y in radii, keep, add, cover) at (x, y) px; later ones lie on top."""
    height, width = layers.keep.shape
    reach = int(np.ceil(radius)) + 2
    left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
    right, bottom = min(int(x) + reach + 1, width), min(int(y) + reach + 1, height)
    if right <= left or bottom <= top:
        return
    # Small ones are sampled from a mould that has been reduced, or they would twinkle.
    size = MOULD
    while size > 16 and size > 3 * radius:
        size //= 2
    source = mould if size == MOULD else cv2.resize(mould, (size, size), interpolation=cv2.INTER_AREA)
    scale = radius / (size / 2 - 2 * size / MOULD)
    # Pixel (0.5, 0.5) is the centre of the first pixel, which OpenCV calls (0, 0).
    shift_x = x - scale * (size / 2) - left + 0.5 * (scale - 1)
    shift_y = y - scale * (size / 2) - top + 0.5 * (scale - 1)
    put = np.array([[scale, 0, shift_x], [0, scale, shift_y]])
    parts = [
        cv2.warpAffine(np.ascontiguousarray(part), put, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        for part in (source[..., :4], source[..., 4])
    ]
    cover, at = parts[1], np.s_[top:bottom, left:right]
    # The first four were multiplied by the cover, so that the mould's edge blends as it should.
    rest = 1 - cover
    layers.bend_x[at] = layers.bend_x[at] * rest + radius * parts[0][..., 0]
    layers.bend_y[at] = layers.bend_y[at] * rest + radius * parts[0][..., 1]
    layers.keep[at] = layers.keep[at] * rest + parts[0][..., 2]
    layers.add[at] = layers.add[at] * rest + parts[0][..., 3]
    layers.cover[at] = np.maximum(layers.cover[at], cover)


def apart(place: NDArray[np.float64], radius: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Places (N, 2) px at which round things are mostly not nearer than `distance` sums of their radii. The earlier
    ones stay, so that more of them move none."""
    place = place.copy()
    for i in range(1, len(place)):
        for _ in range(3):
            off = place[i] - place[:i]
            length = np.hypot(off[:, 0], off[:, 1]) + 1e-6
            inside = distance * (radius[:i] + radius[i]) - length
            j = int(np.argmax(inside))
            if inside[j] <= 0:
                break
            place[i] += off[j] / length[j] * inside[j]
    return place


def mould(bend: Float32, keep: Float32, add: Float32, cover: Float32) -> Float32:
    """A mould from its parts (MOULD, MOULD); `bend` is the displacement as a factor on the place, both in radii."""
    x, y, _ = disc()
    return np.stack([x * bend * cover, y * bend * cover, keep * cover, add * cover, cover], -1).astype(np.float32)


def spot(x: float, y: float, wide: float, tall: float, angle: float) -> Float32:
    """A soft elongated spot on a mould, at a place in radii."""
    u, v, _ = disc()
    u, v = u - np.float32(x), v - np.float32(y)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.exp(-(((c * u + s * v) / wide) ** 2 + ((c * v - s * u) / tall) ** 2)).astype(np.float32)
