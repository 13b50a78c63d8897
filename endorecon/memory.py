"""Memory that is free within the process goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any


def trim() -> None:
    """Give back what the C library holds of freed memory, where it is glibc; elsewhere nothing happens.

    Pictures come and go in several threads, and each leaves holes in its own heap. In a run of hours they add up to
    some hundred megabytes. Takes a few milliseconds.
    """
    if (call := _malloc_trim()) is not None:
        call(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
