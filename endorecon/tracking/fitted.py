"""Constants of the verdict, as `python tools/fit_verdict.py FOLDER --fit --write` has left them (docs/verdict.md).

88 runs of 30 phantom clips: --seed 700000 --count 200010.
"""

from __future__ import annotations

# log(true path error in per cent) = OFFSET + the sum of WEIGHTS times the terms of `endorecon.tracking.clues`, with
# the standard deviation SPREAD, or DOUBTED_SPREAD where there are doubts.
OFFSET = 1.7117
WEIGHTS: dict[str, float] = {
    "halves_percent": 1.0968,
    "residual_px": 0.2438,
    "shared_px": 0.4911,
    "veil": 0.8720,
}
SPREAD, DOUBTED_SPREAD = 0.272, 0.683
