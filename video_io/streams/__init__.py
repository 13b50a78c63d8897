"""A slot: one file a kind of running input. Each offers `accepts(source)`, `connect(source, timeout_s)` and what
becomes of it when it ends.

Files whose names begin with an underscore are what the kinds share.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from video_io.errors import InputError
from video_io.streams._address import shown

__all__ = ["kind_of", "kinds", "shown"]


def kinds() -> list[str]:
    """Names of the kinds of running input."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def kind_of(source: str) -> ModuleType:
    """The file of this slot that reads the source.

    Raises:
        InputError: none does.
    """
    for name in kinds():
        module = importlib.import_module(f"{__name__}.{name}")
        if module.accepts(source):
            return module
    raise InputError(
        f"'{shown(source)}' is no capture device, no address of a stream, no file and not -; give a device such as 0 "
        "or /dev/video0, an address such as rtsp://camera/stream, a video file, or - for standard input"
    )
