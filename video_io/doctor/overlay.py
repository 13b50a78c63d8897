"""Text and graphics burnt into the picture."""

from __future__ import annotations

from video_io.case import Case
from video_io.doctor import stereo
from video_io.doctor.base import Finding
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.text import Box, find_overlays
from video_io.view import plan_view

QUICK = True


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
                0.9 if found.sure else 0.6,
                "`endorecon doctor INPUT --deidentify OUT` blanks it; nothing to do for reconstruct, which masks it",
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
    """The sample as it is searched, reduced: one half where the screen shows two pictures or two eyes."""
    probes, crop = case.small_probes, _half(case)
    scale = probes[0].width / case.probes[0].width
    if crop is None:
        return probes, (0, 0), scale
    return [frame.cropped(*crop) for frame in probes], (round(crop[0] / scale), round(crop[1] / scale)), scale


def _half(case: Case) -> Box | None:
    """The half to look at, pixels of the reduced pictures."""
    few = case.small_probes[::3]
    if found := stereo.check(case):
        side_by_side = found[0].evidence["layout"] == "side by side"
        w, h = few[0].width, few[0].height
        return (0, 0, w // 2, h) if side_by_side else (0, 0, w, h // 2)
    try:
        view = plan_view(few)
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
