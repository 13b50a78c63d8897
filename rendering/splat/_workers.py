"""Threads for kernels that release the interpreter's lock.

Not numba's own: its layers can't be called from two threads at once, or break after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
_number = [0]


def set_threads(number: int) -> None:
    """How many threads the CPU rasteriser uses; 0 for as many as numba was told, or else as there are cores.

    Raises:
        ValueError: a negative number.
    """
    if number < 0:
        raise ValueError(f"a number of threads is at least 1 (or 0 for all cores), found {number}")
    _number[0] = number


def threads() -> int:
    """How many threads the CPU rasteriser uses."""
    if _number[0]:
        return _number[0]
    told = os.environ.get("NUMBA_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) > 0 else max(1, len(os.sched_getaffinity(0)))


@lru_cache
def _pool(process: int, number: int) -> ThreadPoolExecutor:
    # By process: the threads of a pool do not survive a fork.
    return ThreadPoolExecutor(number, thread_name_prefix="splat")


def share(work: Callable[[int, int], T], number: int) -> list[T]:
    """work(0, number) ... work(number - 1, number), at once; their results in order."""
    if number == 1:
        return [work(0, 1)]
    pool = _pool(os.getpid(), number - 1)
    others = [pool.submit(work, i, number) for i in range(1, number)]
    return [work(0, number)] + [other.result() for other in others]
