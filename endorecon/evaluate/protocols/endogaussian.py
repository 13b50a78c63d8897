"""Renderings of EndoNeRF's clips as EndoGaussian prints them."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._renderings import masked_images

ABOUT = "renderings as EndoGaussian: frames 1, 9, 17, ..., PSNR of each image over its unmasked pixels"
SOURCE = "Liu et al. 2024, metrics.py and scene/endo_loader.py"
NEEDS = ("images",)


def measure(case: Case) -> Outcome:
    """See `masked_images`."""
    return masked_images(case, first=1, every=8, normalised=True, each=True)
