"""Constants of the verdict, as `python tools/fit_verdict.py FOLDER --fit --write` has left them (docs/verdict.md)."""

from __future__ import annotations

# log(true path error in per cent) = OFFSET + the sum of WEIGHTS times the terms of `endorecon.tracking.clues`, with the
# standard deviation SPREAD.
OFFSET = 0.526
WEIGHTS: dict[str, float] = {
    "halves_percent": 0.971,
    "residual_px": 0.211,
}
SPREAD = 0.31
