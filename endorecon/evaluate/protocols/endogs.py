"""Renderings of EndoNeRF's clips as EndoGS prints them."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._renderings import masked_images

ABOUT = "renderings as EndoGS: frame 0 left out, upper 500 rows, error over the unmasked pixels of all images"
SOURCE = "Zhu et al. 2024, eval_rgb.py"
NEEDS = ("images",)


def measure(case: Case) -> Outcome:
    """See `masked_images`."""
    return masked_images(case, first=1, rows=500, normalised=True)
