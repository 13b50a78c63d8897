"""Constants of the verdict, as `python tools/fit_verdict.py FOLDER --fit --write` has left them (docs/verdict.md).

39 runs of 13 phantom clips: --seed 700000 --count 16.
"""

from __future__ import annotations

# log(true path error in per cent) = OFFSET + the sum of WEIGHTS times the terms of `endorecon.tracking.clues`, with
# the standard deviation SPREAD.
OFFSET = 0.3199
WEIGHTS: dict[str, float] = {
    "halves_percent": 1.0538,
    "residual_px": 0.1596,
    "shared_px": 0.3987,
    "contrast": -0.4917,
}
SPREAD = 0.374
