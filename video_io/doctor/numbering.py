"""Images that are missing in a numbered folder; depth maps, masks and poses that are not one a frame."""

from __future__ import annotations

import numpy as np

from video_io.case import Case, numbered
from video_io.doctor.base import Finding, spans

QUICK = True

_REGULAR = 0.8  # share of the steps between numbers that must be alike before a larger one is a gap


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    found = []
    numbers = numbered(case.images)
    if numbers is not None and len(numbers) > 3:
        found += _gaps(numbers)
    if not found:
        found += _counts(case)
    return found


def _gaps(numbers: list[int]) -> list[Finding]:
    steps = np.diff(numbers)
    step = int(np.median(steps))
    gaps = steps > step
    if step < 1 or not gaps.any() or np.mean(steps == step) < _REGULAR or (steps % step).any():
        return []
    lost = int((steps[gaps] // step - 1).sum())
    after = spans(gaps.tolist())
    missing = [n for a, s in zip(numbers, steps.tolist(), strict=False) for n in range(a + step, a + s, step)]
    return [
        Finding(
            "missing_frames",
            f"{lost} image{'s are' if lost != 1 else ' is'} missing: the numbers in the names jump at "
            f"{', '.join(map(str, missing[:6]))}{', ...' if lost > 6 else ''}",
            {"images": len(numbers), "expected": len(numbers) + lost, "step": step, "missing": lost},
            0.9,
            "complete the folder; --fix writes a copy in which depth, masks and poses are those of the images there",
            tuple((a, a) for a, _ in after),
            {"match": True},
        )
    ]


def _counts(case: Case) -> list[Finding]:
    frames = len(case.images)
    there = {"depth maps": len(case.depths), "masks": len(case.masks)}
    if case.poses is not None and case.layout in ("phantom", ""):
        there["poses"] = len(case.poses.matrices)
    off = {name: count for name, count in there.items() if frames and count and count != frames}
    if not off:
        return []
    words = " and ".join(f"{count} {name}" for name, count in off.items())
    return [
        Finding(
            "missing_frames",
            f"there are {frames} images but {words}; expected one for each",
            {"images": frames, **{name.replace(" ", "_"): count for name, count in off.items()}},
            0.9,
            "complete the folder; --fix writes a copy of the frames that have everything",
            (),
            {"match": True},
        )
    ]
