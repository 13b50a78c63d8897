"""Variable frame rate, and gaps in the time stamps of a video."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from video_io.case import Case
from video_io.doctor.base import Finding, in_words

QUICK = True

Evidence = dict[str, float | int | str]

_LEAST = 5  # intervals
_OFF = 0.25  # an interval that differs from the usual one by this share is another one; stamps are rounded to ms
_GAP = 1.6  # usual intervals
_IRREGULAR = 0.1  # share of such intervals from which on the rate is variable


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    stamps, where = case.stamps, "the time stamps"
    if stamps is None and case.poses is not None and case.poses.form == "tum":
        stamps, where = case.poses.stamps, f"the times in {case.poses.path.name}"
    if stamps is None or len(stamps) <= _LEAST:
        return []
    intervals = np.diff(np.sort(stamps))
    usual = float(np.median(intervals))
    if usual <= 0:
        return []
    off = np.abs(intervals / usual - 1) > _OFF
    evidence: Evidence = {
        "usual_interval_ms": round(1e3 * usual, 3),
        "shortest_ms": round(1e3 * float(intervals.min()), 3),
        "longest_ms": round(1e3 * float(intervals.max()), 3),
        "share_off": round(float(off.mean()), 4),
    }
    gaps = intervals > _GAP * usual
    if off.mean() > _IRREGULAR and off.sum() > max(2, 1.2 * gaps.sum()):
        return [_variable(evidence, where)]
    return [_gaps(intervals, usual, gaps, evidence, where)] if gaps.any() else []


def _variable(evidence: Evidence, where: str) -> Finding:
    share = float(evidence["share_off"])
    return Finding(
        "variable_rate",
        f"the frame rate varies: {100 * share:.0f} % of the intervals in {where} differ from the usual "
        f"{evidence['usual_interval_ms']} ms by more than {100 * _OFF:.0f} % ({evidence['shortest_ms']} to "
        f"{evidence['longest_ms']} ms)",
        evidence,
        0.95,
        "nothing to do: every frame keeps its own time; tools that count frames need --fix, which writes times.txt",
        repair={"times": True},
    )


def _gaps(
    intervals: NDArray[np.float64], usual: float, gaps: NDArray[np.bool_], evidence: Evidence, where: str
) -> Finding:
    lost = int(np.round(intervals[gaps] / usual - 1).sum())
    after = [(int(i), int(i)) for i in np.flatnonzero(gaps)]
    return Finding(
        "missing_frames",
        f"{lost} frame{'s are' if lost != 1 else ' is'} missing: {where} jump after {in_words(after)}",
        {**evidence, "missing": lost},
        0.9,
        "take the original recording; reconstruct goes on across the gap, with the frames' own times",
        tuple(after),
        {"times": True},
    )
