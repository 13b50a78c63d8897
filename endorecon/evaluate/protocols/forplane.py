"""Renderings of EndoNeRF's clips as LerPlane and ForPlane print them: without the rows below 500."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._renderings import masked_images

ABOUT = "renderings as ForPlane: as endonerf, the upper 500 rows alone (below them lie a toolbar and a tool)"
SOURCE = "Yang et al., TMI 2024"
NEEDS = ("images",)


def measure(case: Case) -> Outcome:
    """See `masked_images`."""
    return masked_images(case, first=1, rows=500)
