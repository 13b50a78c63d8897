"""One recording that goes to a file and to a viewer at once."""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from endorecon.views.viewer import Hub

KEEP_FREE = 64 << 20  # bytes of the disk that the recording leaves: where none is left, it can't even be ended
Recording: TypeAlias = Any  # rerun's RecordingStream


class Streams:
    """The recording of a live run: the same goes to its file and to its viewer, neither of which holds it up. The file
    ends while there is room left on the disk; a viewer that does not keep up gets nothing until it does; one that has
    ended is started again, and gets what stays."""

    def __init__(
        self, file: Recording, folder: Path, hub: Hub | None, open_viewer: Callable[[str], Recording],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`open_viewer` makes a recording stream that goes to the viewer at an address; without a hub there is none."""
        self._file: Recording | None = file
        self._folder, self._hub, self._open_viewer, self._say = folder, hub, open_viewer, say
        self._stays: dict[str, tuple[Any, bool]] = {}  # what a new viewer has to get, by entity; whether it is static
        self._time: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}  # as it was set last
        self._blueprint: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._name = ""
        self._slow = False
        self._viewer: Recording | None = None if hub is None else open_viewer(hub.address)

    def _all(self) -> list[Recording]:
        viewer = [] if self._slow or self._viewer is None else [self._viewer]
        return viewer if self._file is None else [self._file, *viewer]

    def viewer_only(self) -> Streams:
        """The same without the file."""
        other = copy.copy(self)  # shares what stays
        other._file = None
        return other

    def log(self, entity: str, what: Any, static: bool = False, stays: bool = False) -> None:
        """As a recording's; `stays`: a viewer that is started later gets it too, as all that is static."""
        if static or stays:
            self._stays[entity] = what, static
        for rec in self._all():
            rec.log(entity, what, static=static)

    def set_time(self, timeline: str, *arguments: Any, **named: Any) -> None:
        self._time[timeline] = arguments, named
        for rec in self._all():
            rec.set_time(timeline, *arguments, **named)

    def send_columns(self, *arguments: Any, **named: Any) -> None:
        for rec in self._all():
            rec.send_columns(*arguments, **named)

    def send_recording_name(self, name: str) -> None:
        self._name = name
        for rec in self._all():
            rec.send_recording_name(name)

    def send_blueprint(self, *arguments: Any, **named: Any) -> None:
        self._blueprint = (arguments, named)
        for rec in self._all():
            rec.send_blueprint(*arguments, **named)

    def check(self) -> None:
        """Look after the disk and the viewer; to be called every second or so."""
        if self._file is not None and shutil.disk_usage(self._folder).free < KEEP_FREE:
            self._file.flush(timeout_sec=2.0)
            self._file.disconnect()
            self._file = None
            self._say("the recording for the viewer has ended, as the disk is nearly full; tracking goes on")
        if self._hub is None or self._viewer is None:
            return
        if not self._hub.alive:
            self._begin_again(self._hub)
            return
        try:
            self._viewer.flush(timeout_sec=0.2)
            self._slow = False
        except (RuntimeError, ValueError):
            self._slow = True  # what it has not taken yet waits in memory: no more until that is gone

    def _begin_again(self, old: Hub) -> None:
        hub = old.again()
        if hub is None:
            return
        self._hub, self._slow = hub, False
        self._viewer = self._open_viewer(hub.address)
        self._say("the viewer's server had ended; it was started again" + (f" at {hub.page}" if hub.page else ""))
        self._viewer.send_recording_name(self._name)
        for timeline, (arguments, named) in self._time.items():
            self._viewer.set_time(timeline, *arguments, **named)
        for entity, (what, static) in self._stays.items():
            self._viewer.log(entity, what, static=static)
        if self._blueprint is not None:
            self._viewer.send_blueprint(*self._blueprint[0], **self._blueprint[1])

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()
        if self._viewer is not None:
            with suppress(RuntimeError, ValueError):
                self._viewer.flush(timeout_sec=2.0)

    def disconnect(self) -> None:
        if self._file is not None:
            self._file.disconnect()
        # A viewer that hangs would hold up the end.
        if self._viewer is not None:
            threading.Thread(target=self._viewer.disconnect, name="disconnect", daemon=True).start()
