"""Depth on the rectified Hamlyn sequences with the cap of EndoDAC's code."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._depth import median_scaled
from endorecon.evaluate.protocols._hamlyn import region

ABOUT = "depth on Hamlyn as EndoDAC: as af, cap 150 mm, columns 180 to 590 from rectified14 on"
SOURCE = "Cui et al., MICCAI 2024, evaluate_depth.py and datasets/hamlyn_dataset.py"
NEEDS = ("depth",)


def measure(case: Case) -> Outcome:
    """The seven figures; see `median_scaled`."""
    return median_scaled(case, 1e-3, 150.0, region(case))
