"""A capture device of Linux (V4L2): a frame grabber or a camera, by number or path."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from video_io.errors import InputError
from video_io.streams._connection import Connection, connected

RECONNECTS = True


def accepts(source: str) -> bool:
    """A number, or a path below /dev."""
    return source.isdecimal() or source.startswith("/dev/")


def connect(source: str, timeout_s: float) -> Connection:
    """Open the device.

    Raises:
        InputError: it is not there, may not be used, is in use, or gives no pictures.
    """
    path = Path(f"/dev/video{int(source)}" if source.isdecimal() else source)
    _check(path)
    return connected(source, str(path), timeout_s, ends=False, format="video4linux2,v4l2")


def _check(path: Path) -> None:
    """Raise InputError unless the device can be opened; FFmpeg's own words do not tell why."""
    try:
        if not stat.S_ISCHR(path.stat().st_mode):
            raise InputError(f"'{path}' is no device; give a capture device such as /dev/video0")
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except FileNotFoundError:
        there = ", ".join(str(p) for p in sorted(Path("/dev").glob("video*"))) or "none at all"
        raise InputError(f"there is no device '{path}' (found: {there}); plug it in, or give another one") from None
    except PermissionError:
        raise InputError(
            f"you may not use '{path}'; join the group that owns it (often: sudo usermod -aG video $USER, then log in "
            "again)"
        ) from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InputError(f"'{path}' is in use by another program; close that one") from None
        raise InputError(f"'{path}' can't be opened ({error.strerror}); give a capture device") from None
