"""Two fields woven into one picture."""

from __future__ import annotations

import numpy as np

from video_io.case import Case
from video_io.doctor.base import Finding
from video_io.survey import comb

QUICK = True

# Medians over the sample of `survey.comb`: clean phantom clips have up to .57 and 1.1, woven ones that move by half a
# pixel a frame .75 and 1.9; half-way in the logarithm.
_LINES, _RELATIVE = 0.65, 1.45
_PROBES = 8


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    probes = case.probes[:: max(1, len(case.probes) // _PROBES)]
    if not probes or min(probes[0].height, probes[0].width) < 16:
        return []
    figures = np.array([comb(frame.rgb) for frame in probes])
    lines, relative = (float(v) for v in np.median(figures, axis=0))
    if lines < _LINES or relative < _RELATIVE:
        return []
    return [
        Finding(
            "interlaced",
            "the video is interlaced: neighbouring lines differ more than lines of one field do, as a comb",
            {
                "line_to_field_ratio": round(lines, 2),
                "relative_to_columns": round(relative, 2),
                "frames_looked_at": len(probes),
            },
            float(np.clip(0.5 + 0.5 * np.log(relative / _RELATIVE) / np.log(2), 0.6, 0.98)),
            "--fix keeps one field and fills the other's lines; or: ffmpeg -i IN -vf bwdif=mode=send_frame OUT",
            repair={"deinterlace": True},
        )
    ]
