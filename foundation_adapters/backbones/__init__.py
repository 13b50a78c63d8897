"""A slot: one file a network, its name the one on the command line. Listing them imports nothing heavy.

Each file tells LICENCE, SIZE_MB, SOURCE and ABOUT, and has `accepts(model)`, is this name on the command line mine, and
`build(model)`; where the weights are not shipped also `licence(model)`, theirs. What is built is one of four:

- a function of images (N, 3, H, W) in [0, 1] and unit rays (N, 3, H, W) which returns log distance along the ray and
  the log of its standard deviation, (N, H, W) each, with attributes name, licence and source for the run folder and
  `model` for an adapter to wrap;
- the whole network (`tiny`);
- with NEEDS_ADAPTER a whole network whose heads have learnt nothing: they come with the adapter;
- with MULTI_VIEW a network that sees a window of frames at once: a `multi_view.ViewNetwork`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass
from types import ModuleType

from video_io.errors import InputError

# CC-BY-NC-4.0 and its kind, and licences that say it in words.
_NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)


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


def check_licence(name: str, licence: str, accepted: bool) -> None:
    """Let weights that are not for every use through only where the person has said so.

    Raises:
        InputError: a non-commercial licence that was not accepted.
    """
    if not accepted and _NON_COMMERCIAL.search(licence):
        raise InputError(
            f"the weights of {name} are licensed {licence}, which forbids commercial use: add --accept-licence if "
            "your use is allowed, or take --model tiny (Apache-2.0)"
        )
