"""Depth as AF-SfMLearner, EndoDAC, DARES, EndoMUST and others print it for SCARED."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._depth import median_scaled

ABOUT = "depth on SCARED as AF-SfMLearner and EndoDAC: a median scale for each image, cap 150 mm"
SOURCE = "Shao et al., Medical Image Analysis 2022, evaluate_depth.py; Cui et al., MICCAI 2024"
NEEDS = ("depth",)
LOW_MM, HIGH_MM = 1e-3, 150.0


def measure(case: Case) -> Outcome:
    """The seven figures; see `median_scaled`. The published code drops frames that are NaN; here it is an error."""
    return median_scaled(case, LOW_MM, HIGH_MM)
