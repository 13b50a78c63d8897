"""A slot: one file a source of camera poses. Each offers `accepts(choice)` and `open(choice, unit, source)`."""

from __future__ import annotations

import importlib
import pkgutil

from endorecon.poses.base import UNITS_MM, PoseSource
from video_io.errors import InputError
from video_io.sources.base import Source

__all__ = ["PoseSource", "kinds", "open_poses"]


def kinds() -> list[str]:
    """Names of the sources of poses."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def open_poses(choice: str, unit: str | None, source: Source) -> PoseSource:
    """The source of poses that a person means.

    Args:
        choice: the name of a source, or the path of a file of poses.
        unit: of the lengths in that file, one of `UNITS_MM`; None: not known.
        source: the clip that the poses are for.

    Raises:
        InputError: no such source and no such file, a file that is not one of poses or not of this clip, an unknown
            unit, or a unit for poses that bring their own.
    """
    if unit is not None and unit not in UNITS_MM:
        raise InputError(f"the unit of poses '{unit}' is not known; expected {', '.join(UNITS_MM)}; give one of them")
    for kind in kinds():
        module = importlib.import_module(f"{__name__}.{kind}")
        if module.accepts(choice):
            if unit is not None and kind != "file":
                raise InputError(
                    f"--poses-unit {unit} was given with --poses {choice}; expected a unit only with a file of poses; "
                    "leave it out"
                )
            return module.open(choice, unit, source)
    names = ", ".join(kind for kind in kinds() if kind != "file")
    raise InputError(
        f"'--poses {choice}' is neither a file that exists nor a source of poses; expected {names}, or a trajectory "
        "(TUM), C3VD's pose.txt or COLMAP's images.txt; give one of them"
    )
