"""Text burnt into pictures, as recorders do it: names, numbers, dates and clocks, of many sizes, colours and places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Box = tuple[int, int, int, int]

_WORDS = (
    "DOE JANE", "Mueller, Hans", "ID 4711-0815", "1961-03-12", "ST. MARY HOSPITAL", "Dr. A. Petrov", "SMITH^ROBERT",
    "MRN 00932817", "F 58Y", "Garcia Lopez M.", "Acc 20260714-3", "Klinikum Nord",
)  # fmt: skip
_COLOURS = (
    (255, 255, 255), (235, 235, 60), (70, 230, 90), (90, 220, 235), (200, 200, 200), (15, 15, 15), (250, 140, 40),
    (240, 60, 60),
)  # fmt: skip
_PLACES = ("top left", "top right", "bottom left", "bottom right", "middle", "low middle")


@dataclass(frozen=True)
class Burnt:
    """What is written into a clip.

    Attributes:
        lines: the text, a line each; `{clock}` is replaced by a time that runs.
        place: one of six.
        height_px: of the capitals.
        colour: RGB.
        font: `stroke` (Hershey) or `face` (the one that comes with Pillow).
        opacity: 1 for opaque.
        shown: share of the clip, first and last, during which it is there.
    """

    lines: tuple[str, ...]
    place: str
    height_px: int
    colour: tuple[int, int, int]
    font: str
    opacity: float
    shown: tuple[float, float] = (0.0, 1.0)


def some_text(number: int, height: int) -> Burnt:
    """The text of clip `number`: places, sizes, colours and fonts in turn, words at random, the same every time."""
    rng = np.random.default_rng((77, number))
    count = int(rng.integers(1, 4))
    words = [str(w) for w in rng.choice(_WORDS, count, replace=False)]
    if number % 3 == 0:
        words[-1] = "{clock}"
    if number % 3 == 1:
        words[0] = words[0] + "  {clock}"
    size = (0.026, 0.035, 0.05, 0.08)[number % 4]
    return Burnt(
        tuple(words), _PLACES[number % len(_PLACES)], max(11, round(size * height)), _COLOURS[number % len(_COLOURS)],
        "face" if number % 2 else "stroke", 1.0 if number % 5 else 0.8, (0.0, 1.0) if number % 7 else (0.3, 0.8),
    )  # fmt: skip


def burn(images: Sequence[Image], text: Burnt, fps: float = 30.0) -> tuple[list[Image], list[Box]]:
    """The pictures with the text, and a box around each line (over all frames)."""
    out, boxes = [], [None] * len(text.lines)
    first, last = (share * len(images) for share in text.shown)
    for number, image in enumerate(images):
        if not first <= number < last:
            out.append(image)
            continue
        shown = image.astype(np.float32)
        for row, line in enumerate(text.lines):
            seconds = 45296 + number / fps
            clock = f"{int(seconds // 3600):02d}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d}"
            cover = _drawn(line.replace("{clock}", clock), text)
            x, y = _at(image.shape[:2], cover.shape, text, row)
            cover = cover[: image.shape[0] - y, : image.shape[1] - x]
            h, w = cover.shape
            part = shown[y : y + h, x : x + w]
            share = text.opacity * cover[..., None]
            part[:] = part * (1 - share) + share * np.array(text.colour, np.float32)
            boxes[row] = _joined(boxes[row], (x, y, w, h))
        out.append(np.clip(shown + 0.5, 0, 255).astype(np.uint8))
    return out, [box for box in boxes if box is not None]


def _joined(a: Box | None, b: Box) -> Box:
    if a is None:
        return b
    x, y = min(a[0], b[0]), min(a[1], b[1])
    return x, y, max(a[0] + a[2], b[0] + b[2]) - x, max(a[1] + a[3], b[1] + b[3]) - y


def _drawn(line: str, text: Burnt) -> NDArray[np.float32]:
    """How much of each pixel the line covers, (H, W) in [0, 1], cut to its ink."""
    if text.font == "stroke":
        thick = max(1, round(text.height_px / 10))
        size = text.height_px / 21
        (w, h), base = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        canvas = np.zeros((h + base + 2 * thick + 4, w + 2 * thick + 4), np.uint8)
        cv2.putText(canvas, line, (thick + 2, h + thick + 2), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick, cv2.LINE_AA)
    else:
        from PIL import Image as Pictures
        from PIL import ImageDraw, ImageFont

        face = ImageFont.load_default(size=round(1.38 * text.height_px))
        left, top, right, bottom = face.getbbox(line)
        page = Pictures.new("L", (int(right - left) + 4, int(bottom - top) + 4))
        ImageDraw.Draw(page).text((2 - left, 2 - top), line, fill=255, font=face)
        canvas = np.array(page)
    rows, columns = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255


def _at(shape: tuple[int, ...], size: tuple[int, ...], text: Burnt, row: int) -> tuple[int, int]:
    height, width = shape
    step = round(1.9 * text.height_px)
    margin = max(4, round(0.012 * width))
    x = {"left": margin, "right": width - margin - size[1]}.get(text.place.split()[-1], (width - size[1]) // 2)
    top = {"top": margin, "middle": height // 2, "low": round(0.7 * height)}.get(text.place.split()[0])
    y = height - margin - (len(text.lines) - row) * step if top is None else top + row * step
    return max(0, x), max(0, min(y, height - size[0] - 1))
