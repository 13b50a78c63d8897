"""A slot: one file a layout of a data set. Each offers `accepts(folder)` and `open(folder)`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from video_io.datasets.base import Truth
from video_io.errors import InputError

__all__ = ["Truth", "clip_folders", "layout_of", "layouts", "open_truth"]


def layouts() -> list[str]:
    """Names of the layouts that can be read."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


def layout_of(folder: Path) -> str | None:
    """Name of the layout that a folder has, told by the files in it; None where it is none that we know."""
    for layout in layouts():
        if importlib.import_module(f"{__name__}.{layout}").accepts(folder):
            return layout
    return None


def open_truth(folder: str | Path) -> Truth:
    """Open a data set's folder, one sequence of it; its layout is told by the files in it.

    Raises:
        InputError: no such folder, no known layout, or a layout that is incomplete.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"the folder of ground truth '{folder}' does not exist; give the folder of a clip")
    layout = layout_of(folder)
    if layout is None:
        raise InputError(
            f"'{folder}' holds no ground truth of a known layout; expected one of {', '.join(layouts())} "
            f"(docs/datasets.md); {_below(folder) or 'give the folder of one sequence'}"
        )
    try:
        return importlib.import_module(f"{__name__}.{layout}").open(folder)
    except InputError:
        raise
    # What a loader did not foresee in a file is still the file's fault.
    except (ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"the ground truth in '{folder}' can't be used: {error}") from error


def clip_folders(folder: str | Path) -> list[Path]:
    """The folder itself, where it holds truth; else those in it that do.

    Raises:
        InputError: there is none.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"the folder of ground truth '{folder}' does not exist; give the folder of a clip")
    if layout_of(folder) is not None:
        return [folder]
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and layout_of(path) is not None]
    if not found:
        raise InputError(f"neither '{folder}' nor a folder in it holds ground truth; give the folder of a clip")
    return found


def _below(folder: Path) -> str:
    """A hint at a folder below this one that is a sequence."""
    level = [folder]
    for _ in range(3):
        level = [d for parent in level for d in sorted(parent.iterdir())[:200] if d.is_dir()][:200]
        for below in level:
            if layout := layout_of(below):
                return f"'{below}' is one ({layout}): give that"
    return ""
