"""A slot: one file a layout of ground truth. Each offers `accepts(folder)` and `open(folder)`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from video_io.datasets.base import Truth
from video_io.errors import InputError

__all__ = ["Truth", "layouts", "open_truth"]


def layouts() -> list[str]:
    """Names of the layouts that can be read."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def open_truth(folder: str | Path) -> Truth:
    """Open the ground truth in a folder; its layout is told by the files in it.

    Raises:
        InputError: no such folder, no known layout, or a layout that is incomplete.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"the folder of ground truth '{folder}' does not exist; give a folder as {_expected()}")
    for layout in layouts():
        module = importlib.import_module(f"{__name__}.{layout}")
        if module.accepts(folder):
            try:
                return module.open(folder)
            except InputError:
                raise
            except ValueError as error:
                raise InputError(f"the ground truth in '{folder}' can't be used: {error}") from error
    raise InputError(f"'{folder}' holds no ground truth of a known layout; expected {_expected()}; give such a folder")


def _expected() -> str:
    return (
        "our phantom's (depth/, poses.txt, intrinsics.json), C3VD's (*_depth.tiff, pose.txt), SimCol's (Depth_*.png) "
        "or the sinus data's with structure from motion (motion.yaml, view_indexes_per_point)"
    )
