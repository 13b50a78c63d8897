"""Whether white in the masks is what can be used, or what has to be left out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.case import Case
from video_io.doctor.base import Finding
from video_io.masks import field_of_view
from video_io.survey import colours

QUICK = True

_PROBES = 8
_BORDER = 0.03  # share of the picture that is dark border, from which on it can be told from a mask
_BORDER_SIDE = 0.6  # share of the border in one side of a mask, from which on that side is meant to be the border
_WARM = 0.15  # how much more of one side has the colours of tissue
Mask = NDArray[np.bool_]


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    if not case.masks:
        return []
    name = case.masks[0].parent.name
    means_tool = "tool" in name
    votes = [vote for frame in case.probes[:: max(1, len(case.probes) // _PROBES)]
             if (mask := case.mask(_number(case, frame.index))) is not None
             and (vote := _white_is_use(frame.rgb, mask)) is not None]  # fmt: skip
    if not votes:
        return []
    score, why = float(np.median([v for v, _ in votes])), votes[0][1]
    if abs(score) < 0.15 or (score > 0) != means_tool:
        return []
    share = float(np.mean([m.mean() for i in range(0, len(case.masks), max(1, len(case.masks) // 8))
                           if (m := case.mask(i)) is not None]))  # fmt: skip
    is_white = "what can be used" if means_tool else "what has to be left out"
    expected = "the tools" if means_tool else "what can be used"
    return [
        Finding(
            "mask_polarity",
            f"white in '{name}' is {is_white}, and {expected} is expected: {why}",
            {"score": round(score, 3), "white_share": round(share, 3), "frames_looked_at": len(votes)},
            float(np.clip(0.6 + 0.4 * abs(score), 0, 0.98)),
            "--fix writes them the other way round",
            repair={"invert_masks": True},
        )
    ]


def _number(case: Case, index: int) -> int:
    return index if case.images else min(index, max(len(case.masks) - 1, 0))


def _white_is_use(rgb: NDArray[np.uint8], mask: Mask) -> tuple[float, str] | None:
    """1 for white that is what can be used, -1 for the opposite, and why; None where the picture does not tell."""
    if mask.shape != rgb.shape[:2]:
        mask = cv2.resize(mask.astype(np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    if mask.all() or not mask.any():
        return None
    inside = field_of_view(rgb)
    border = 1 - inside.mean()
    if border > _BORDER:
        in_white, in_black = float((~inside)[mask].mean()), float((~inside)[~mask].mean())
        if max(in_white, in_black) > _BORDER_SIDE and min(in_white, in_black) < 0.5 * max(in_white, in_black):
            words = "the dark border of the picture is white" if in_white > in_black else "the dark border is black"
            return float(np.clip(in_black - in_white, -1, 1)), words
    white, black = inside & mask, inside & ~mask
    if min(white.sum(), black.sum()) < 0.002 * mask.size:
        return None
    warm = [colours(np.where(part[..., None], rgb, 0).astype(np.uint8))[0] for part in (white, black)]
    if abs(warm[0] - warm[1]) < _WARM:
        return None
    words = f"{100 * warm[0]:.0f} % of it has the colours of tissue, and {100 * warm[1]:.0f} % of the black part"
    return float(np.clip(warm[0] - warm[1], -1, 1)), words
