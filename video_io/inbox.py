"""A bounded queue whose newest items are never late: where there is no room, the oldest goes, and is counted."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Takes items from one thread for another.

    Attributes:
        dropped: items that had to go.
        longest: most items that ever waited.
    """

    def __init__(self, room: int) -> None:
        self._items: deque[T] = deque()
        self._room, self._closed = room, False
        self._changed = threading.Condition()
        self.dropped = self.longest = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether no more will come, and nothing is left."""
        return self._closed and not self._items

    def put(self, item: T) -> None:
        """Add an item; never waits. After `close` nothing is added."""
        with self._changed:
            if self._closed:
                return
            if len(self._items) >= self._room:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self.longest = max(self.longest, len(self._items))
            self._changed.notify()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until an item can be put without dropping one; False where that takes too long, or after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._room, timeout_s)
            return not self._closed and len(self._items) < self._room

    def take(self, timeout_s: float) -> T | None:
        """The item that waits longest; None where none comes in time, or `closed`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """No more will come; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
