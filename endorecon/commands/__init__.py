"""A slot: one file a command. Each has one dataclass, its arguments, and `run(command)`, which returns the exit code.

Everything heavy is imported inside `run`, so that --help is quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

# The order of a first day; what is not named here follows by name.
_FIRST = ("reconstruct", "view", "live", "adapt")


def names() -> list[str]:
    """Names of the commands, in the order in which the help lists them."""
    found = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")
    return sorted(found, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def arguments(name: str) -> type:
    """The dataclass of a command's arguments: the command's name, capitalised."""
    return getattr(importlib.import_module(f"{__name__}.{name}"), name.capitalize())


def runner(name: str) -> Callable[..., int]:
    """The function that runs a command, given its arguments."""
    return importlib.import_module(f"{__name__}.{name}").run
