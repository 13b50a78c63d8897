"""The two eyes of a stereo endoscope in one picture, side by side or one above the other."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.case import Case
from video_io.doctor.base import Finding
from video_io.frame import Frame

QUICK = True

_SIZE = (96, 80)  # of a half, pixels
_SHIFT_X, _SHIFT_Y = 16, 3  # largest displacement between the eyes at that size
_ALIKE, _MORE = 0.5, 0.2  # correlation of the halves, and how much more than halves of different times have
_PROBES = 12


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    probes = case.probes[:: max(1, len(case.probes) // _PROBES)]
    if not probes or min(probes[0].width, probes[0].height) < 32:
        return []
    small = case.small_probes[:: max(1, len(case.probes) // _PROBES)]
    found = [_look(small, axis) for axis in (1, 0)]
    axis, (alike, apart) = max(zip((1, 0), found, strict=True), key=lambda item: item[1][0])
    if alike < _ALIKE or alike - apart < _MORE:
        return []
    w, h = probes[0].width, probes[0].height
    box = [0, 0, w // 2, h] if axis == 1 else [0, 0, w, h // 2]
    how, which = ("side by side", "left") if axis == 1 else ("one above the other", "upper")
    return [
        Finding(
            "stacked_stereo",
            f"the picture holds the two eyes of a stereo endoscope {how} (halves correlate by {alike:.2f}, "
            f"halves of different times by {apart:.2f})",
            {"layout": how, "correlation": round(alike, 3), "of_other_times": round(apart, 3), "width": w, "height": h},
            float(np.clip(alike + 0.2, 0, 0.98)),
            f"nothing to do: reconstruct takes one half; --fix writes the {which} one",
            repair={"crop": box},
        )
    ]


def _look(probes: list[Frame], axis: int) -> tuple[float, float]:
    """Median correlation of the halves at the same time, and at different times."""
    pairs = [_halves(frame.rgb, axis) for frame in probes]
    same = [_correlation(a, b) for a, b in pairs]
    if len(pairs) < 2:
        return float(same[0]), 0.0
    apart = [_correlation(pairs[i][0], pairs[i - len(pairs) // 2][1]) for i in range(len(pairs))]
    return float(np.median(same)), float(np.median(apart))


def _halves(rgb: NDArray[np.uint8], axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    middle = grey.shape[axis] // 2
    first, second = (grey[:, :middle], grey[:, -middle:]) if axis == 1 else (grey[:middle], grey[-middle:])
    small = [cv2.resize(np.ascontiguousarray(part), _SIZE, interpolation=cv2.INTER_AREA) for part in (first, second)]
    # Without what varies slowly, such as the light's fall-off and the shape of the field of view.
    floats = [part.astype(np.float32) for part in small]
    a, b = (part - cv2.GaussianBlur(part, (0, 0), 6) for part in floats)
    return np.clip(a, -25, 25), np.clip(b, -25, 25)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    core = b[_SHIFT_Y:-_SHIFT_Y, _SHIFT_X:-_SHIFT_X]
    if core.std() < 0.3 or a.std() < 0.3:
        return 0.0
    return float(cv2.matchTemplate(a, core, cv2.TM_CCOEFF_NORMED).max())
