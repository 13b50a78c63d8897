"""Depth on SERV-CT as EndoGeDE print it."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._depth import median_scaled

ABOUT = "depth on SERV-CT as EndoGeDE: as af, cap 200 mm"
SOURCE = "SERV-CT: Edwards et al., Medical Image Analysis 2022; the cap by the papers' tables"
NEEDS = ("depth",)


def measure(case: Case) -> Outcome:
    """The seven figures; see `median_scaled`."""
    return median_scaled(case, 1e-3, 200.0)
