"""Depth on the rectified Hamlyn sequences with the range of Endo-Depth-and-Motion."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._depth import median_scaled

ABOUT = "depth on Hamlyn as Endo-Depth-and-Motion: a median scale for each image, 1 to 300 mm, no crop"
SOURCE = "Recasens et al., RA-L 2021"
NEEDS = ("depth",)


def measure(case: Case) -> Outcome:
    """The seven figures; see `median_scaled`."""
    return median_scaled(case, 1.0, 300.0)
