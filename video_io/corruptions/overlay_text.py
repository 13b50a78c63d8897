"""What processor and recorder write over the picture: date, a running clock, names, a scale, a small picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from video_io.corruptions import Effect, Image

GROUP = "recording"
ABOUT = "date, running clock, name, scale and a small picture stand in the picture"

# The size of the letters, px of an image 320 wide; how many items there are.
_SIZE = (7, 8, 10, 12, 15)
_NAMES = ("SAMPLE A", "TEST PATIENT", "DEMO 0042", "ANON 17")
_COLOURS = ((255, 255, 255), (255, 230, 60), (90, 255, 120), (240, 240, 240))


@dataclass(frozen=True)
class _Line:
    text: str  # with {clock} where it runs
    x: float  # of the left edge, widths
    row: int  # counted from the top, or from -1 at the bottom upwards
    boxed: bool = False


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    colour = _COLOURS[rng.integers(len(_COLOURS))]
    start, box = int(rng.integers(8 * 3600, 17 * 3600)), bool(rng.random() < 0.5)
    day, name, number = int(rng.integers(1, 29)), _NAMES[rng.integers(len(_NAMES))], int(rng.integers(1000, 9999))
    side = 0.02 if rng.random() < 0.5 else 0.62
    lines = [
        _Line(f"2024-03-{day:02d}" + " {clock}", 0.02, 0),
        _Line(f"ID {number}  {name}", 0.02, -1, box),
        _Line("REC  GAIN 3  IRIS AUTO", side, 1),
        _Line("DR. EXAMPLE   ROOM 4", 0.02, -2, box),
        _Line("CH1 1080i  ENH:A3  NBI OFF  Z x1.2", 0.02, 2, box),
        _Line("PRESS MENU TO EXIT", 0.24, 7, True),
    ][: severity + 1]
    pixels = _SIZE[severity - 1] * width / 320
    frozen = cv2.resize(rgb, (max(width // 5, 1), max(height // 5, 1)), interpolation=cv2.INTER_AREA)

    def effect(rgb: Image, time_s: float) -> Image:
        out = rgb.copy()
        if severity >= 3:
            _scale(out, colour, severity)
        if severity >= 4:  # the last still, as processors show it
            top, left = height - frozen.shape[0] - 3, width - frozen.shape[1] - 3
            out[top : top + frozen.shape[0], left : left + frozen.shape[1]] = frozen
            cv2.rectangle(out, (left - 1, top - 1), (width - 3, height - 3), colour, 1)
        now = start + int(time_s)
        clock = f"{now // 3600:02d}:{now // 60 % 60:02d}:{now % 60:02d}.{int(100 * time_s) % 100:02d}"
        for line in lines:
            _write(out, line, line.text.replace("{clock}", clock), pixels, colour)
        return out

    return effect


def _write(out: Image, line: _Line, text: str, pixels: float, colour: tuple[int, int, int]) -> None:
    height, width = out.shape[:2]
    scale, bold = pixels / 21, max(1, round(pixels / 10))
    (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, bold)
    x = int(np.clip(line.x * width, 1, max(width - w - 2, 1)))
    line_height = round(1.3 * (h + below))
    y = 2 + h + line.row * line_height if line.row >= 0 else height - 2 - below + (line.row + 1) * line_height
    if line.boxed:
        cv2.rectangle(out, (x - 2, y - h - 2), (x + w + 2, y + below), (16, 16, 20), -1)
    else:
        cv2.putText(out, text, (x + 1, y + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), bold, cv2.LINE_AA)
    cv2.putText(out, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, bold, cv2.LINE_AA)


def _scale(out: Image, colour: tuple[int, int, int], severity: int) -> None:
    """A ruler at the right edge, and at the highest severity a cross in the middle."""
    height, width = out.shape[:2]
    x, thick = int(0.965 * width), max(1, width // 320)
    cv2.line(out, (x, int(0.2 * height)), (x, int(0.7 * height)), colour, thick, cv2.LINE_AA)
    for k in range(11):
        y, long = int((0.2 + 0.05 * k) * height), (0.025 if k % 5 == 0 else 0.012) * width
        cv2.line(out, (int(x - long), y), (x, y), colour, thick, cv2.LINE_AA)
    if severity == 5:
        cv2.drawMarker(out, (width // 2, height // 2), colour, cv2.MARKER_CROSS, max(width // 8, 4), thick, cv2.LINE_AA)
