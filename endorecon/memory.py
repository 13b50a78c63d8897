"""How the C library keeps memory that has been freed."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of malloc.h
_LARGE = 1 << 20


def return_large_blocks() -> None:
    """From now on what is larger than a megabyte goes back to the system as soon as it is freed, and threads share two
    heaps. Where the C library is not glibc nothing changes.

    Pictures come and go in several threads. Left to itself, glibc takes ever larger blocks from its heaps, one for each
    thread, and the holes between them add up: to 250 of 1500 MB in a live run of five minutes, and growing.
    """
    if sys.platform.startswith("linux") and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 2)
