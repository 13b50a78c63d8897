"""A slot: one file a network, its name the one on the command line. Listing them imports nothing heavy.

Each file tells LICENCE, SIZE_MB, SOURCE and ABOUT, and has `build`.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Listing:
    """What a network is, before it is built."""

    name: str
    licence: str
    size_mb: float | None
    source: str
    about: str


def available() -> tuple[Listing, ...]:
    """Every network of the slot, by name."""
    listings = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        told = importlib.import_module(f"{__name__}.{module.name}")
        listings.append(Listing(module.name, told.LICENCE, told.SIZE_MB, told.SOURCE, told.ABOUT))
    return tuple(listings)
