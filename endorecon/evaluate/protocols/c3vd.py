"""Depth on C3VD as EndoDAC prints it: the middle of the image, up to 100 mm."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._depth import box, median_scaled
from video_io.errors import InputError

ABOUT = "depth on C3VD as EndoDAC: as af, cap 100 mm, rows 180 to 900 and columns 200 to 1150 only"
SOURCE = "Cui et al., MICCAI 2024, datasets/c3vd_dataset.py"
NEEDS = ("depth",)
ROWS, COLUMNS = (180, 900), (200, 1150)
SIZE = (1080, 1350)
HIGH_MM = 100.0


def measure(case: Case) -> Outcome:
    """The seven figures; see `median_scaled`. Corrected: the whole image and one scale for the sequence.

    The crop leaves out the border, where the fisheye bends most and errors are largest.

    Raises:
        InputError: truth of another size than C3VD's.
    """
    first = case.truth.depth(0)
    if first is None or first.shape != SIZE:
        found = "no depth" if first is None else f"{first.shape[1]} x {first.shape[0]}"
        raise InputError(f"the protocol c3vd crops images of 1350 x 1080, the truth {case.truth.name} has {found}")
    return median_scaled(case, 1e-3, HIGH_MM, box(*ROWS, *COLUMNS), whole=True)
