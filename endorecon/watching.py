"""The stage beside tracking in a live run that shows it: slow or broken views hold up nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from endorecon.tracking.observation import Observation, Posed, Refused
from rendering.mesh import Mesh
from video_io.inbox import Inbox

PICTURE_S = 0.1  # pictures are shown no more often
_WAITING = 6


class Watching:
    """Calls views on a thread of its own, with what is newest.

    Args:
        views: their methods are called by name; one that a view does not have is left out.
        say: takes a sentence for the person.
    """

    def __init__(self, views: list[Any], say: Callable[[str], None]) -> None:
        self._views, self._say = list(views), say
        self.inbox: Inbox[tuple[str, tuple[Any, ...]]] = Inbox(_WAITING)
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._picture_at = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def placed(self, placed: Observation | Posed | Refused, now: float) -> None:
        """A frame was placed or refused at time `now`; it is shown unless one was a moment ago."""
        if now - self._picture_at < PICTURE_S:
            return
        self._picture_at = now
        name = {Observation: "observed", Posed: "posed", Refused: "refused"}[type(placed)]
        self.inbox.put((name, (placed,)))

    def mesh(self, mesh: Mesh) -> None:
        """The surface as it is known now."""
        self.inbox.put(("mesh", (mesh,)))

    def gauges(self, index: int, time_ns: int, figures: Mapping[str, float], state: str) -> None:
        """How the run fares."""
        self.inbox.put(("gauges", (index, time_ns, figures, state)))

    def finish(self, wait_s: float = 10.0) -> bool:
        """Show what waits, and end; False where a view hangs."""
        self.inbox.close()
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self.inbox.closed:
            if (told := self.inbox.take(0.2)) is None:
                continue
            name, arguments = told
            for view in list(self._views):
                try:
                    if (method := getattr(view, name, None)) is not None:
                        method(*arguments)
                except Exception as error:  # noqa: BLE001 - a view only watches
                    self._views.remove(view)
                    self._say(f"a view has failed ({error}); tracking goes on")
