"""What the protocols for the Hamlyn sequences share."""

from __future__ import annotations

import re

from endorecon.evaluate.case import Case
from endorecon.evaluate.protocols._depth import Region, box

CROPPED_FROM = 14
COLUMNS = (180, 590)


def region(case: Case) -> Region | None:
    """Columns 180 to 590 of the sequences after the 13th (`rectified14` on), all of the others."""
    number = re.search(r"(\d+)$", case.truth.name)
    if number and int(number.group(1)) >= CROPPED_FROM:
        return box(0, 10**6, *COLUMNS)
    return None
