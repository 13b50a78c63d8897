"""The anatomies, one file each with a function `build(rng) -> Anatomy`. A file's name is the anatomy's name.

Listing them is cheap: what they need is imported when one is built.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from rendering.phantom.scene import Anatomy


def names() -> tuple[str, ...]:
    """The anatomies there are."""
    return tuple(sorted(m.name for m in iter_modules(__path__)))


def build(name: str, rng: np.random.Generator) -> Anatomy:
    """A random anatomy of a kind.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in names():
        raise ValueError(f"anatomy '{name}' is not known; there are {', '.join(names())}")
    return import_module(f"{__name__}.{name}").build(rng)
