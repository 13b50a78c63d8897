"""Frames that show nothing of use: black, frozen, doubled, outside the body; and cuts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from video_io.case import Case
from video_io.doctor.base import Finding, Span, in_words, spans
from video_io.survey import Survey

QUICK = False

_BLACK = 16.0  # grey level, as in `curate`
_SAME, _SAME_SHARE = 0.12, 0.1  # change of a repeated frame, grey levels, and as a share of the usual change around it
_AROUND = 15  # frames on either side
_STILL_FRAMES, _STILL_S = 8, 0.25  # repetitions from which on a picture stands still
_OUTSIDE, _TISSUE = 0.2, 0.4  # share of warm pixels: of the clip's own usual one, and what a clip of tissue has
_OUTSIDE_FRAMES = 3
Flags = NDArray[np.bool_]


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    look = case.survey
    if len(look) < 3:
        return []
    black = look.bright < _BLACK
    repeated = _repeated(look) & ~black
    still, doubled = _split(repeated, _still_frames(look))
    outside = _long(_outside(look, black), _OUTSIDE_FRAMES)
    found = []
    if black.any():
        found.append(_stretch("black", "the picture is black", spans(black), len(look), 0.98))
    if still.any():
        found.append(_stretch("still", "the picture stands still", spans(still), len(look), 0.95))
    if doubled.any():
        found.append(_doubled(doubled, look))
    if outside.any():
        found.append(_out_of_body(outside, look))
    # Where the picture goes black or leaves the body another scene begins too, and that is told already.
    other = black | outside
    edge = other | np.r_[False, other[:-1]]
    cuts = look.cut & ~edge
    if cuts.any():
        found.append(_cuts(cuts, other))
    return found


def _usual_change(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median change of the frames around each, those that repeat the frame before left out."""
    moving = np.where(change > 0.02, change, np.nan)
    out = np.full(len(change), np.nan)
    for i in range(len(change)):
        part = moving[max(0, i - _AROUND) : i + _AROUND + 1]
        part = part[np.isfinite(part)]
        # The upper half: where every second frame is doubled and encoded anew, half of the changes are small.
        out[i] = np.percentile(part, 75) if len(part) else np.nan
    whole = np.nanmedian(moving) if np.isfinite(moving).any() else 0.0
    return np.where(np.isfinite(out), out, whole)


def _repeated(look: Survey) -> Flags:
    change = np.nan_to_num(look.change, nan=np.inf)
    limit = np.minimum(_SAME, _SAME_SHARE * _usual_change(look.change))
    return change <= np.maximum(limit, 0.005)


def _still_frames(look: Survey) -> int:
    interval = float(np.median(np.diff(look.time_ns))) / 1e9
    return max(_STILL_FRAMES, round(_STILL_S / interval)) if interval > 0 else _STILL_FRAMES


def _split(repeated: Flags, least: int) -> tuple[Flags, Flags]:
    """Repetitions that make a still stretch, and the others."""
    still = _long(repeated, least)
    return still, repeated & ~still


def _long(flags: Flags, least: int) -> Flags:
    out = np.zeros(len(flags), bool)
    for first, last in spans(flags.tolist(), least):
        out[first : last + 1] = True
    return out


def _outside(look: Survey, black: Flags) -> Flags:
    lit = ~black
    usual = float(np.percentile(look.warm[lit], 80)) if lit.any() else 0.0
    return lit & (look.warm < _OUTSIDE * usual) if usual > _TISSUE else np.zeros(len(look), bool)


def _drop(stretches: tuple[Span, ...]) -> dict[str, object]:
    return {"drop": [list(span) for span in stretches]}


def _stretch(kind: str, words: str, where: tuple[Span, ...], total: int, sure: float) -> Finding:
    count = sum(b - a + 1 for a, b in where)
    return Finding(
        kind,
        f"{words} in {in_words(where)} ({count} of {total} frames)",
        {"frames": count, "of": total, "stretches": len(where)},
        sure,
        "nothing to do: reconstruct refuses such frames; --fix leaves them out",
        where,
        _drop(where),
    )


def _doubled(doubled: Flags, look: Survey) -> Finding:
    where = spans(doubled)
    count = int(doubled.sum())
    at = np.flatnonzero(doubled)
    period = np.diff(at)
    regular = len(at) > 3 and np.mean(period == np.median(period)) > 0.8
    how = f", every {int(np.median(period))} frames, as when a rate is converted" if regular else ""
    usual = float(np.nanmedian(look.change[~doubled]))
    return Finding(
        "doubled_frames",
        f"{count} of {len(look)} frames repeat the one before{how}: {in_words(where)}",
        {
            "doubled": count,
            "of": len(look),
            "change_of_doubled": round(float(np.nanmedian(look.change[doubled])), 4),
            "usual_change": round(usual, 4),
        },
        0.95,
        "nothing to do: reconstruct leaves them out; --fix writes each frame once",
        where,
        _drop(where),
    )


def _out_of_body(outside: Flags, look: Survey) -> Finding:
    where, warm = spans(outside), float(np.median(look.warm[outside]))
    pale = float(np.median(look.pale[outside])) > 0.7
    what = "is outside of the body, or a tool fills the view" if pale else "is outside of the body"
    count = int(outside.sum())
    return Finding(
        "out_of_body",
        f"the camera {what} in {in_words(where)}: {100 * warm:.0f} % of the picture has the colours of tissue, "
        f"{100 * float(np.median(look.warm[~outside])):.0f} % elsewhere",
        {"frames": count, "warm_share": round(warm, 3), "elsewhere": round(float(np.median(look.warm[~outside])), 3)},
        0.65 if pale else 0.85,
        "cut them off; --fix leaves them out",
        where,
        _drop(where),
    )


def _cuts(cuts: Flags, other: Flags) -> Finding:
    at = np.flatnonzero(cuts).tolist()
    bounds = [0, *at, len(cuts)]
    shots = [(a, b - 1) for a, b in pairwise(bounds)]
    longest = max(shots, key=lambda s: s[1] - s[0] - int(other[s[0] : s[1] + 1].sum()))
    return Finding(
        "cut",
        f"the clip is cut before {in_words([(i, i) for i in at])}: it shows {len(shots)} scenes",
        {"cuts": len(at), "scenes": len(shots), "longest_first": longest[0], "longest_last": longest[1]},
        0.9,
        "give the scenes one by one; --fix keeps the longest",
        tuple((i, i) for i in at),
        {"keep": list(longest)},
    )
