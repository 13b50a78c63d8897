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
_EDGE, _EDGE_NEAR = 15.0, 9.0  # grey levels a pixel of the mean gradient, and of what is connected with it
# Deviation of the gradient over time as a share of its mean: a burnt-in edge has .05 to .2, over tissue that goes from
# black to white up to .6; tissue that hardly moves in a short clip has .3 and more.
_STEADY, _STEADY_NEAR = 0.2, 0.6
_APART = 0.7  # deviation that nearly all of the picture's own edges exceed where something else can be told from them
_SEEDS = 0.08  # share of an edge's pixels that have to be steadier than the first
_STROKE = 10.0  # grey levels by which a stroke stands out from what is around it
_BUSY = 0.8  # changes of light and dark along a line, for each height of it
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
        sure: whether its own edges move so much that nothing of it can be meant.
    """

    text: tuple[Box, ...]
    graphics: tuple[Box, ...]
    moving: bool
    sure: bool = False


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
    lines = [line for line in _lines(_glyphs(strokes, edges), not moving) if _busy(middle, line) > _BUSY]
    boxes = [_grown(line, usual) for line in lines]
    text = _merged([_padded(box, edges.shape) for box in boxes])
    told = moving and _apart(deviation, usual, edges, inside)
    graphics = _graphics(edges & ~_rim(inside, 0.04), text) if told else []
    return Overlays(tuple(text), tuple(graphics), moving, told)


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
    near = (level > _EDGE_NEAR) & (deviation < _STEADY_NEAR)
    count, labels = cv2.connectedComponents(near.astype(np.uint8), connectivity=8)
    share = np.bincount(labels[seeds], minlength=count) / np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    keep = share > _SEEDS
    keep[0] = False
    return keep[labels]


def _moves(stack: NDArray[np.uint8], inside: Mask) -> bool:
    grey = stack[..., 1].astype(np.float32)
    deviation = grey.std(0)
    return bool(inside.any() and np.median(deviation[inside]) > _STILL)


def _apart(deviation: Float32, usual: Float32, steady: Mask, inside: Mask) -> bool:
    """Whether the picture's own edges move so much that what is steady is another thing, not the slowest of them."""
    near = cv2.dilate(steady.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    own = (usual > _EDGE) & inside & ~near & ~_rim(inside)
    return not own.any() or float(np.percentile(deviation[own], 20)) > _APART


def _rim(inside: Mask, reach: float = 0.012) -> Mask:
    """The border of the picture, a static edge that is no overlay, to this share of the image's long side on either
    side: flare runs along it as well."""
    out = np.zeros(inside.shape, np.uint8)
    side = round(0.2 * min(inside.shape)) | 1
    # Without text beside the picture, which is lit as well.
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    framed = cv2.copyMakeBorder(inside.astype(np.uint8), side, side, side, side, cv2.BORDER_REPLICATE)
    picture = cv2.morphologyEx(framed, cv2.MORPH_OPEN, kernel)[side:-side, side:-side]
    contours, _ = cv2.findContours(np.ascontiguousarray(picture), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if contours and not inside.all():
        outline = cv2.convexHull(np.concatenate([c.reshape(-1, 1, 2) for c in contours])).reshape(-1, 1, 2)
        thickness = max(5, 2 * round(reach * max(inside.shape)) + 1)
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
            if u > x + w + 3.3 * max(h, t):
                continue
            overlap = min(y + h, v + t) - max(y, v)
            near, like = u - (x + w) < 1.3 * max(h, t), max(h, t) < 2.6 * min(h, t)
            # In a moving picture two things that stay put in one row and are of one height are no chance.
            same = not strict and overlap > 0.8 * max(h, t) and u - (x + w) < 3.2 * max(h, t)
            if (overlap > 0.45 * min(h, t) and like and near) or same:
                group[root(int(j))] = root(int(i))
    found = []
    for r in {root(i) for i in range(len(glyphs))}:
        part = glyphs[[i for i in range(len(glyphs)) if root(i) == r]]
        left, top = part[:, :2].min(0)
        right, bottom = (part[:, :2] + part[:, 2:]).max(0)
        width, height = right - left, bottom - top
        wide = width > 1.8 * height
        enough = len(part) >= (4 if strict else 2)
        if (enough and wide) or (len(part) < 4 and width > 2.5 * height):
            found.append((int(left), int(top), int(width), int(height)))
    return _joined(found)


def _busy(rgb: NDArray[np.uint8], line: Box) -> float:
    """How often light and dark change along a line, for each height of it: three times a character or so."""
    x, y, w, h = line
    slope = cv2.Sobel(rgb[y : y + h, x : x + w].astype(np.float32), cv2.CV_32F, 1, 0, scale=0.25)
    channel = np.abs(slope).mean((0, 1)).argmax()
    sign = np.where(slope[..., channel] > _EDGE_NEAR, 1, np.where(slope[..., channel] < -_EDGE_NEAR, -1, 0))
    turns = 0
    for row in sign:
        kept = row[row != 0]
        turns += int((np.diff(kept) != 0).sum())
    return turns / max(h, 1) / max(w / h, 1.0)


def _joined(lines: list[Box]) -> list[Box]:
    """Lines of one row with no more than a word between them become one."""
    lines = sorted(lines)
    at = 0
    while at < len(lines):
        x, y, w, h = lines[at]
        for n, (u, v, s, t) in enumerate(lines):
            overlap = min(y + h, v + t) - max(y, v)
            if n != at and overlap > 0.6 * min(h, t) and max(x, u) - min(x + w, u + s) < 3 * max(h, t):
                left, top = min(x, u), min(y, v)
                lines[at] = left, top, max(x + w, u + s) - left, max(y + h, v + t) - top
                del lines[n]
                at = -1
                break
        at += 1
    return lines


def _grown(line: Box, usual: Float32) -> Box:
    """The line with characters beside it that change, such as a clock's: as rich in edges as the line is, and richer
    than what is above and below."""
    x, y, w, h = line
    density = usual[y : y + h].mean(0)
    above, below = usual[max(0, y - h) : max(1, y - 2)], usual[y + h + 2 : y + 2 * h + 2]
    around = np.concatenate([above, below]).mean(0) if len(above) + len(below) else np.zeros(len(density))
    enough = np.maximum(0.6 * float(density[x : x + w].mean()), 1.6 * around)
    left, right, step = x, x + w, max(3, h // 2)
    while left - step >= 0 and (density - enough)[left - step : left].mean() > 0 and x - left < 6 * h:
        left -= step
    end = min(len(density), x + w + 6 * h)
    while right + step <= end and (density - enough)[right : right + step].mean() > 0:
        right += step
    return left, y, right - left, h


def _padded(box: Box, shape: tuple[int, ...]) -> Box:
    x, y, w, h = box
    pad = max(2, round(0.3 * h))
    x0, y0 = max(0, x - pad), max(0, y - pad)
    return x0, y0, min(shape[1], x + w + pad) - x0, min(shape[0], y + h + pad) - y0


def _merged(boxes: list[Box]) -> list[Box]:
    """The boxes without those that lie in another one."""

    def inside(a: Box, b: Box) -> bool:
        (x, y, w, h), (u, v, s, t) = a, b
        return u <= x and v <= y and x + w <= u + s and y + h <= v + t

    distinct = sorted(set(boxes), key=lambda box: -box[2] * box[3])
    return [box for n, box in enumerate(distinct) if not any(inside(box, other) for other in distinct[:n])]


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
