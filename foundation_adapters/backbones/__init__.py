"""A slot: one file a network, its name the one on the command line. Listing them imports nothing heavy.

Each file tells LICENCE, SIZE_MB, SOURCE and ABOUT, and has `accepts(model)`, is this name on the command line mine, and
`build(model)`. That gives a function of images (N, 3, H, W) in [0, 1] and unit rays (N, 3, H, W) which returns log
distance along the ray and the log of its standard deviation, (N, H, W) each, with attributes name, licence and source
for the run folder and `model` for an adapter to wrap. (`tiny` gives the whole `Network`.)
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Listing:
    """What a network is, before it is built."""

    name: str
    licence: str
    size_mb: float | None
    source: str
    about: str


def modules() -> dict[str, ModuleType]:
    """Every file of the slot, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def available() -> tuple[Listing, ...]:
    """Every network of the slot, by name."""
    return tuple(Listing(name, m.LICENCE, m.SIZE_MB, m.SOURCE, m.ABOUT) for name, m in modules().items())
