"""A slot: one file a kind of input. Each offers `accepts(path)` and `open(path, every, max_frames, fps)`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from video_io.errors import InputError
from video_io.sources.base import Source, check_selection

__all__ = ["Source", "kinds", "open_source"]


def kinds() -> list[str]:
    """Names of the kinds of input that can be read."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


def open_source(path: str | Path, every: int = 1, max_frames: int | None = None, fps: float = 30.0) -> Source:
    """Open a video file, a DICOM file, a folder of images or the folder of a data set.

    Args:
        path: the input.
        every: take each n-th frame of the input, beginning with the first.
        max_frames: stop after this many taken frames.
        fps: frames a second for inputs that have no time stamps (images).

    Raises:
        InputError: nothing there, nothing that can be read, or images of different sizes.
    """
    path = Path(path).expanduser()
    check_selection(every, max_frames, fps)
    if not path.exists():
        raise InputError(
            f"'{path}' does not exist; give the path of a video file, a folder of images, a data set or a DICOM file"
        )
    for kind in kinds():
        module = importlib.import_module(f"{__name__}.{kind}")
        if module.accepts(path):
            return module.open(path, every, max_frames, fps)
    raise InputError(f"'{path}' is neither a file nor a folder; give a video file or a folder of images")
