"""A slot: what a run can be written as, for other programs; one file a form, named as after `endorecon export --to`.

Each has `ABOUT`, one line, and `export(material, out)`, which fills the folder `out` and returns a sentence on how to
open it.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from video_io.errors import InputError


def exports() -> list[str]:
    """Names of the forms."""
    found = (m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))
    return sorted(name.replace("_", "-") for name in found)


def find_export(name: str) -> ModuleType:
    """The file of this form.

    Raises:
        InputError: there is none of this name.
    """
    if name not in exports():
        raise InputError(f"the form '{name}' is not known; choose one of {', '.join(exports())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
