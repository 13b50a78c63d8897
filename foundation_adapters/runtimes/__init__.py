"""A slot: one file a way to run the shipped network's inference. Listing them imports nothing heavy.

Each file tells NEEDS, the package behind it, and ABOUT, and has `build(network)`, which gives a function of images
(N, 3, H, W) in [0, 1] and half-size unit rays (N, 3, H/2, W/2; NaN where there is none) that returns a `Prediction`.

The fastest one that is installed is taken: see ORDER. On the truth at hand each loses less than 1 % of AbsRel against
single precision (docs/training.md, `tools/bench.py --runtimes`).
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from video_io.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from foundation_adapters.network import Network, Prediction

Runtime = Callable[["Tensor", "Tensor"], "Prediction"]
ORDER = ("openvino", "onnx", "pytorch")
"""From the fastest to the one that is always there."""


def names() -> tuple[str, ...]:
    """The runtimes there are, installed or not."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def module(name: str) -> ModuleType:
    """A file of the slot.

    Raises:
        InputError: there is none of that name.
    """
    if name not in names():
        raise InputError(f"runtime '{name}' is not known; there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def installed(name: str) -> bool:
    """Whether the packages behind a runtime can be found; none is imported."""
    return all(importlib.util.find_spec(package) is not None for package in module(name).NEEDS)


def build(network: Network, name: str | None = None) -> Runtime:
    """The network, ready to be run; without a name by the fastest runtime that is installed.

    Args:
        network: for inference (`network.fused`).
        name: of a file of the slot.

    Raises:
        InputError: an unknown runtime, or one whose package is missing.
    """
    name = name or next(n for n in ORDER if installed(n))
    if not installed(name):
        needs = " and ".join(f"'{package}'" for package in module(name).NEEDS)
        raise InputError(f"foundation_adapters.runtimes.{name} needs {needs}: pip install 'endorecon[onnx]'")
    return module(name).build(network)
