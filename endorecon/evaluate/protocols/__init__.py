"""A slot: one file a protocol, by which papers measure; its file name is its name on the command line.

Each offers `ABOUT` (one line), `SOURCE` (paper or code), `NEEDS` (any of `depth`, `path`, `surface`, `images`; the
protocol needs one of them at least) and `measure(case) -> Outcome`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from video_io.errors import InputError

STANDARD = "standard"


def names() -> list[str]:
    """Names of the protocols, our own first."""
    found = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return [STANDARD, *(name for name in found if name != STANDARD)]


def protocol(name: str) -> ModuleType:
    """The protocol of that name.

    Raises:
        InputError: there is none.
    """
    if name not in names():
        raise InputError(
            f"there is no protocol '{name}'; there are {', '.join(names())}; `--protocol list` tells what they are"
        )
    return importlib.import_module(f"{__name__}.{name}")


def listing() -> str:
    """What each protocol is, a line each."""
    return "\n".join(f"{name:<12} {protocol(name).ABOUT}" for name in names())
