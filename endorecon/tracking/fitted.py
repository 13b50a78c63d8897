"""Constants of the verdict, as `python tools/fit_verdict.py FOLDER --fit --write` has left them (docs/verdict.md).

94 runs of 32 phantom clips: --seed 700000 --count 200010.
"""

from __future__ import annotations

# log(true path error in per cent) = OFFSET + the sum of WEIGHTS times the terms of `endorecon.tracking.clues`, with
# the standard deviation SPREAD, or DOUBTED_SPREAD where there are doubts.
OFFSET = 0.3746
WEIGHTS: dict[str, float] = {
    "halves_percent": 1.0524,
    "residual_px": -0.0852,
    "shared_px": 0.5621,
    "contrast": -0.7056,
    "track_frames": -0.2986,
    "shine": 0.8421,
}
SPREAD, DOUBTED_SPREAD = 0.338, 0.748
