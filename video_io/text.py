"""Text and graphics burnt into a clip: where they are, told from edges that stay put and strokes that form lines.

No learned model: a burnt-in stroke is sharp, has the same gradient in every frame, and stands in a row with others of
its height. What moves (tissue, highlights, tools) has gradients that cancel over time. Where the picture itself stands
still only the strokes are left to tell, and they are looked at more strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.frame import Frame
from video_io.masks import field_of_view

Box = tuple[int, int, int, int]  # x, y, width, height
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

_LEAST_FRAMES = 6
_MOST_FRAMES = 16
_EDGE = 20.0  # grey levels a pixel of the mean gradient
# Deviation of the gradient over time as a share of its mean: a burnt-in edge has .05 to .2, over tissue that goes from
# black to white up to .6; tissue that hardly moves in a short clip has .3 and more.
_STEADY, _STEADY_NEAR = 0.2, 0.6
_SEEDS = 0.08  # share of an edge's pixels that have to be steadier than the first
_STROKE = 16.0  # grey levels by which a stroke stands out from what is around it
_STILL = 3.0  # median deviation over time of the picture, grey levels, below which nothing can be told from motion
_STILL_EDGE, _STILL_STROKE = 40.0, 45.0
_HEIGHTS = (5, 0.14)  # of a glyph: pixels, and share of the picture's height


@dataclass(frozen=True)
class Overlays:
    """What was found.

    Attributes:
        text: a box around each line of text.
        graphics: a box around each other thing that stays put.
        moving: whether the picture moves, so that time could tell.
    """

    text: tuple[Box, ...]
    graphics: tuple[Box, ...]
    moving: bool


def find_overlays(frames: Sequence[Frame]) -> Overlays:
    """Look for burnt-in text and graphics in a sample of a clip, all of one size.

    A clock's changing digits are found as part of the line that they stand in.
    """
    if not frames:
        return Overlays((), (), False)
    frames = frames[:: max(1, -(-len(frames) // _MOST_FRAMES))]
    stack = np.stack([frame.rgb for frame in frames])
    deviation, usual, level = _gradients(stack)
    inside = np.logical_or.reduce([field_of_view(frame.rgb) for frame in frames])
    moving = len(frames) >= _LEAST_FRAMES and _moves(stack, inside)
    edges = (_steady_edges(deviation, level) if moving else level > _STILL_EDGE) & ~_rim(inside)
    middle = np.median(stack, axis=0).astype(np.uint8) if len(frames) > 2 else frames[0].rgb
    strokes = _strokes(middle, edges, _STROKE if moving else _STILL_STROKE)
    glyphs = _glyphs(strokes, edges)
    lines = _lines(glyphs, strict=not moving)
    boxes = [_grown(line, usual, level) for line in lines]
    text = _merged([_padded(box, edges.shape) for box in boxes])
    graphics = _graphics(edges, text) if moving else []
    return Overlays(tuple(text), tuple(graphics), moving)


def _gradients(stack: NDArray[np.uint8]) -> tuple[Float32, Float32, Float32]:
    """Deviation of the gradient over time relative to its mean, its mean length, and the length of its mean; of the
    channel with most."""
    total = np.zeros((2, *stack.shape[1:]), np.float32)
    lengths, squares = (np.zeros(stack.shape[1:], np.float32) for _ in range(2))
    for rgb in stack:
        smooth = rgb.astype(np.float32)
        gx, gy = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=0.25) for order in ((1, 0), (0, 1)))
        total += np.stack([gx, gy])
        square = gx * gx + gy * gy
        squares += square
        lengths += np.sqrt(square)
    level = np.hypot(total[0], total[1]) / len(stack)
    channel = level.argmax(-1)[..., None]
    level, lengths, squares = (np.take_along_axis(a, channel, -1)[..., 0] for a in (level, lengths, squares))
    variance = np.maximum(squares / len(stack) - level * level, 0)
    return np.sqrt(variance) / np.maximum(level, 1e-3), lengths / len(stack), level


def _steady_edges(deviation: Float32, level: Float32) -> Mask:
    """Edges that stay put: those that are very steady, and what is connected with them and fairly so."""
    seeds = (level > _EDGE) & (deviation < _STEADY)
    near = (level > _EDGE) & (deviation < _STEADY_NEAR)
    count, labels = cv2.connectedComponents(near.astype(np.uint8), connectivity=8)
    share = np.bincount(labels[seeds], minlength=count) / np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    keep = share > _SEEDS
    keep[0] = False
    return keep[labels]


def _moves(stack: NDArray[np.uint8], inside: Mask) -> bool:
    grey = stack[..., 1].astype(np.float32)
    deviation = grey.std(0)
    return bool(inside.any() and np.median(deviation[inside]) > _STILL)


def _rim(inside: Mask) -> Mask:
    """The border of the picture, a static edge that is no overlay."""
    out = np.zeros(inside.shape, np.uint8)
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if contours and not inside.all():
        outline = cv2.convexHull(np.concatenate([c.reshape(-1, 1, 2) for c in contours])).reshape(-1, 1, 2)
        thickness = max(5, 2 * round(0.012 * max(inside.shape)) + 1)
        cv2.polylines(out, [outline], True, 1, thickness)
    return out > 0


def _strokes(rgb: NDArray[np.uint8], edges: Mask, least: float) -> Mask:
    """Pixels brighter or darker than what is around them, next to steady edges, in any channel."""
    side = max(7, round(0.05 * rgb.shape[0])) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (side, side))
    bright = cv2.morphologyEx(rgb, cv2.MORPH_TOPHAT, kernel).max(-1)
    dark = cv2.morphologyEx(rgb, cv2.MORPH_BLACKHAT, kernel).max(-1)
    near = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return (np.maximum(bright, dark) > least) & near


def _glyphs(strokes: Mask, edges: Mask) -> NDArray[np.int64]:
    """Boxes (N, 4) of the components that may be characters, or several that touch."""
    height = strokes.shape[0]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(strokes.astype(np.uint8), connectivity=8)
    if count < 2:
        return np.zeros((0, 4), np.int64)
    x, y, w, h, area = stats.T
    steady = np.bincount(labels[edges], minlength=count)
    fill = area / np.maximum(w * h, 1)
    good = (h >= _HEIGHTS[0]) & (h <= _HEIGHTS[1] * height + 6) & (w <= 14 * h) & (fill > 0.1) & (fill < 0.97)
    good &= (steady > 0.25 * area) & (area >= 6)
    good[0] = False
    return np.stack([x, y, w, h], 1)[good].astype(np.int64)


def _lines(glyphs: NDArray[np.int64], strict: bool) -> list[Box]:
    """Boxes of glyphs that stand in a row: of like heights, overlapping in height, near each other."""
    order = np.argsort(glyphs[:, 0]) if len(glyphs) else []
    group = list(range(len(glyphs)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = i = group[group[i]]
        return i

    for a_at, i in enumerate(order):
        x, y, w, h = glyphs[i]
        for j in order[a_at + 1 :]:
            u, v, _, t = glyphs[j]
            if u > x + w + 1.6 * max(h, t):
                continue
            overlap = min(y + h, v + t) - max(y, v)
            if overlap > 0.45 * min(h, t) and max(h, t) < 2.6 * min(h, t) and u - (x + w) < 1.3 * max(h, t):
                group[root(int(j))] = root(int(i))
    found = []
    for r in {root(i) for i in range(len(glyphs))}:
        part = glyphs[[i for i in range(len(glyphs)) if root(i) == r]]
        left, top = part[:, :2].min(0)
        right, bottom = (part[:, :2] + part[:, 2:]).max(0)
        width, height = right - left, bottom - top
        wide = width > 1.8 * height
        enough = len(part) >= (4 if strict else 2)
        if (enough and wide) or (len(part) == 1 and not strict and width > 2.5 * height):
            found.append((int(left), int(top), int(width), int(height)))
    return found


def _grown(line: Box, usual: Float32, level: Float32) -> Box:
    """The line with characters beside it that change, such as a clock's: as rich in edges as the line is."""
    x, y, w, h = line
    rows = slice(y, y + h)
    density = usual[rows].mean(0)
    here = float(density[x : x + w].mean())
    left, right, step = x, x + w, max(3, h // 2)
    while left - step >= 0 and density[left - step : left].mean() > 0.6 * here and x - left < 6 * h:
        left -= step
    while right + step <= len(density) and density[right : right + step].mean() > 0.6 * here and right - x - w < 6 * h:
        right += step
    return left, y, right - left, h


def _padded(box: Box, shape: tuple[int, ...]) -> Box:
    x, y, w, h = box
    pad = max(2, round(0.3 * h))
    x0, y0 = max(0, x - pad), max(0, y - pad)
    return x0, y0, min(shape[1], x + w + pad) - x0, min(shape[0], y + h + pad) - y0


def _merged(boxes: list[Box]) -> list[Box]:
    """Boxes that overlap become one, as long as it is not much larger than they are."""
    boxes = list(boxes)
    changed = True
    while changed:
        changed = False
        for i in range(len(boxes)):
            for j in range(i + 1, len(boxes)):
                (x, y, w, h), (u, v, s, t) = boxes[i], boxes[j]
                if x < u + s and u < x + w and y < v + t and v < y + h:
                    left, top = min(x, u), min(y, v)
                    right, bottom = max(x + w, u + s), max(y + h, v + t)
                    if (right - left) * (bottom - top) < 1.6 * (w * h + s * t):
                        boxes[i] = (left, top, right - left, bottom - top)
                        del boxes[j]
                        changed = True
                        break
            if changed:
                break
    return boxes


def _graphics(edges: Mask, text: list[Box]) -> list[Box]:
    """Boxes of steady edges that are no text."""
    rest = edges.copy()
    for x, y, w, h in text:
        rest[y : y + h, x : x + w] = False
    joined = cv2.morphologyEx(rest.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    steady = np.bincount(labels[rest], minlength=count)
    least = max(40, 0.0004 * edges.size)
    return [
        _padded((int(x), int(y), int(w), int(h)), edges.shape)
        for n, (x, y, w, h, _) in enumerate(stats)
        if n and steady[n] > least
    ]
