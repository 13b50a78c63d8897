"""Constants of the verdict, as `python tools/fit_verdict.py FOLDER --fit --write` has left them (docs/verdict.md).

30 runs of 10 phantom clips: --seed 700000 --count 16.
"""

from __future__ import annotations

# log(true path error in per cent) = OFFSET + the sum of WEIGHTS times the terms of `endorecon.tracking.clues`, with
# the standard deviation SPREAD.
OFFSET = 2.2701
WEIGHTS: dict[str, float] = {
    "halves_percent": 0.8119,
    "residual_px": 0.2299,
    "shared_px": 0.4943,
    "network_percent": 0.2920,
}
SPREAD = 0.381
