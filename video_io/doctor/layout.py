"""What the reader of the data set's layout says where it refuses the folder."""

from __future__ import annotations

from video_io.case import Case
from video_io.doctor.base import Finding

QUICK = True


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    if not case.refusal:
        return []
    return [
        Finding(
            "unreadable_truth",
            f"depth, poses or camera can't be read as they are: {case.refusal}",
            {},
            0.9,
            "--fix writes a folder that can be read, where the other findings tell what is meant",
        )
    ]
