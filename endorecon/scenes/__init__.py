"""What a reconstruction is kept in; each public file here is one kind of scene, with a function `make`.

An underscore in the file's name is a hyphen in the scene's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.scenes.base import Scene, Setting


def scenes() -> list[str]:
    """Names of the kinds of scene."""
    files = (p.stem for p in Path(__file__).parent.glob("*.py"))
    return sorted(stem.replace("_", "-") for stem in files if not stem.startswith("_") and stem != "base")


def find_scene(name: str) -> Callable[[float, Setting], Scene]:
    """The function that makes an empty scene of this kind, for a clip with this median depth.

    Raises:
        InputError: there is none of this name.
    """
    if name not in scenes():
        raise InputError(f"scene '{name}' is not known; choose one of {', '.join(scenes())}")
    make: Callable[[float, Setting], Scene] = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").make
    return make
