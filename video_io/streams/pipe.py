"""Video on standard input: a container that can be read from its beginning on, such as MPEG-TS or Matroska."""

from __future__ import annotations

import os
import select

from video_io.streams._connection import Connection, connected

RECONNECTS = False


def accepts(source: str) -> bool:
    """A dash."""
    return source == "-"


def connect(source: str, timeout_s: float) -> Connection:
    """Begin to read. The writer may pause as long as it likes; the input ends when it closes its end.

    Raises:
        InputError: what comes in is no video.
    """
    return connected("standard input", _Pipe(0), timeout_s, ends=True)


class _Pipe:
    """A file descriptor as PyAV reads it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        while not select.select([self._descriptor], [], [], 0.2)[0]:
            pass  # waiting in short steps leaves room for the interpreter to end
        return os.read(self._descriptor, size)
