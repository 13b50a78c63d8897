"""Text and graphics burnt into the picture."""

from __future__ import annotations

import cv2

from video_io.case import Case
from video_io.doctor import stereo
from video_io.doctor.base import Finding
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.text import Box, find_overlays
from video_io.view import plan_view

QUICK = True

_WIDE = 640  # pixels


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    if len({frame.rgb.shape for frame in case.probes}) != 1:
        return []
    probes, (dx, dy), scale = _seen(case)
    found = find_overlays(probes)
    text, graphics = ([_back(box, dx, dy, scale) for box in boxes] for boxes in (found.text, found.graphics))
    size = case.source.width * case.source.height
    out = []
    if text:
        out.append(
            Finding(
                "overlay_text",
                f"text is burnt into the picture: {len(text)} line{'s' * (len(text) != 1)} at {_in_words(text)}",
                _evidence(text, size),
                0.9 if found.moving else 0.6,
                "--deidentify blanks it; nothing to do for reconstruct, which masks what stays put",
                repair={"exclude": [list(box) for box in text]},
            )
        )
    if graphics:
        out.append(
            Finding(
                "overlay",
                f"something that stays put lies over the picture, at {_in_words(graphics)}",
                _evidence(graphics, size),
                0.8,
                "nothing to do: reconstruct masks it; --fix leaves it out in the masks",
                repair={"exclude": [list(box) for box in graphics]},
            )
        )
    return out


def _seen(case: Case) -> tuple[list[Frame], tuple[int, int], float]:
    """The sample as it is searched: one half where the screen shows two pictures or two eyes, and not too wide."""
    probes, (dx, dy) = case.probes, (0, 0)
    if crop := _half(case):
        probes, (dx, dy) = [frame.cropped(*crop) for frame in probes], crop[:2]
    scale = min(1.0, _WIDE / probes[0].width)
    if scale < 1:
        size = round(probes[0].width * scale), round(probes[0].height * scale)
        probes = [Frame.of(cv2.resize(f.rgb, size, interpolation=cv2.INTER_AREA), f.index, f.time_ns) for f in probes]
    return probes, (dx, dy), scale


def _half(case: Case) -> Box | None:
    for finding in stereo.check(case):
        x, y, w, h = finding.repair["crop"]
        return x, y, w, h
    try:
        view = plan_view(case.probes)
    except InputError:
        return None
    return view.crop if any("two pictures" in note for note in view.notes) else None


def _back(box: Box, dx: int, dy: int, scale: float) -> Box:
    x, y, w, h = (round(v / scale) for v in box)
    return x + dx, y + dy, w, h


def _in_words(boxes: list[Box], most: int = 3) -> str:
    shown = "; ".join(f"{w} x {h} pixels at ({x}, {y})" for x, y, w, h in boxes[:most])
    return shown + (f" and {len(boxes) - most} more" if len(boxes) > most else "")


def _evidence(boxes: list[Box], size: int) -> dict[str, float | int | str]:
    return {"boxes": len(boxes), "share_of_picture": round(sum(w * h for _, _, w, h in boxes) / size, 4)}
