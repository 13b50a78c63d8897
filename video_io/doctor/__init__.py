"""A slot: one file a check. Each offers `QUICK`, whether it does without a pass over the whole clip, and
`check(case) -> list[Finding]`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from video_io.case import Case
from video_io.doctor.base import Finding

__all__ = ["Finding", "checks", "examine"]


def checks() -> list[str]:
    """Names of the checks."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def examine(case: Case, quick: bool = False, only: Sequence[str] = ()) -> list[Finding]:
    """What is wrong with an input, the surest findings first.

    Args:
        case: the input.
        quick: leave out what needs every frame to be decoded.
        only: names of the checks; all of them if empty.
    """
    found: list[Finding] = []
    for name in only or checks():
        module = importlib.import_module(f"{__name__}.{name}")
        if module.QUICK or not quick:
            found += module.check(case)
    return sorted(found, key=lambda finding: -finding.sure)
