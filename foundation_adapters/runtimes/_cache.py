"""Exported and compiled networks, kept between runs in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def folder() -> Path:
    """$XDG_CACHE_HOME/endorecon, by default ~/.cache/endorecon."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "endorecon"


def fingerprint(network: nn.Module) -> str:
    """Of all weights: networks that differ in one bit have others."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """The bytes kept under a name; made, and kept if the folder can be written to, where there are none."""
    path = folder() / name
    with suppress(OSError):
        return path.read_bytes()
    made = make()
    # What can't be kept is made again next time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(made)
        Path(file.name).replace(path)
    return made


def forget(name: str) -> None:
    """Drop what is kept under a name."""
    with suppress(OSError):
        (folder() / name).unlink()
