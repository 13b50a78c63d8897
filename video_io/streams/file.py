"""A video file at its own pace, as if it were filmed now."""

from __future__ import annotations

from pathlib import Path

from video_io.errors import InputError
from video_io.streams._connection import Connection, connected

RECONNECTS = False


def accepts(source: str) -> bool:
    """Whatever looks like a path, except below /dev."""
    return source != "-" and "://" not in source and not source.isdecimal() and not source.startswith("/dev/")


def connect(source: str, timeout_s: float) -> Connection:
    """Open the file.

    Raises:
        InputError: it is not there, is a folder, or is no video.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"'{source}' does not exist; give a device, an address, a video file, or - for standard input")
    if path.is_dir():
        raise InputError(f"'{source}' is a folder; give a video file here, or the folder to `endorecon reconstruct`")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"'{source}' is empty (0 bytes); expected a video file; copy or export it again")
    return connected(source, str(path), timeout_s, ends=True, own_pace=path.is_file())
