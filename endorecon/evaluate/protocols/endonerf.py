"""Renderings of EndoNeRF's clips as EndoNeRF prints them."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._renderings import masked_images

ABOUT = "renderings as EndoNeRF: frame 0 left out, masked pixels count as perfect, one PSNR over all images"
SOURCE = "Wang et al., MICCAI 2022, eval_rgb.py"
NEEDS = ("images",)


def measure(case: Case) -> Outcome:
    """See `masked_images`."""
    return masked_images(case, first=1)
