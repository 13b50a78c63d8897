"""Two stages side by side: one makes what the other will need next."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], count: int = 2) -> Iterator[T]:
    """The items, in order, made by a thread that is up to `count` items ahead.

    An exception in the making is raised here, after the items made before it. Closing the iterator stops the thread.
    """
    ready: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(count)
    stop = threading.Event()

    def put(item: object, error: BaseException | None = None) -> bool:
        while not stop.is_set():
            try:
                ready.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # noqa: BLE001 - handed on to the consumer, whatever it is
            put(_END, error)

    maker = threading.Thread(target=make, name="ahead", daemon=True)
    maker.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        maker.join()
