"""A running input made ready to work on: as `Clip`, but its frames come when they come, and only once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from video_io.camera import Camera
from video_io.clip import PROBES, Clip
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.inbox import Inbox
from video_io.masks import overlay, with_masks
from video_io.sources import open_source
from video_io.streams import kind_of, shown
from video_io.streams._convert import Converter, Stereo
from video_io.streams._reader import Arrived, Reader
from video_io.streams._record import Recorder
from video_io.view import View, plan_view

INBOX = 2  # pictures that may wait
PROBE_S = 0.06  # between two of the pictures that are looked at first
ALIKE = 0.02  # shapes whose logs of width / height differ by less are the same


class RunningSource:
    """See `Source`; `frames` gives what comes from now on, and `sample` the pictures that came first. Of a file both
    look ahead as long as it is not played.

    Attributes:
        reader: the thread that reads.
        inbox: where its pictures wait.
    """

    def __init__(
        self, source: str, stereo: Stereo = "none", timeout_s: float = 10.0,
        say: Callable[[str], None] = lambda _: None, stop: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """Connect.

        Args:
            source: a device, an address, a file, or -.
            stereo: how two views share the picture; the left or upper one is used.
            timeout_s: longest wait for a connection, and longest silence of it.
            say: takes a sentence for the person.
            stop: ends what waits for pictures.

        Raises:
            InputError: nothing there that could be read.
        """
        kind = kind_of(source)
        connection = kind.connect(source, timeout_s)
        self.name, self.camera = name_of(source), None
        self.inbox: Inbox[Arrived] = Inbox(INBOX)
        self.reader = Reader(source, kind, connection, self.inbox, timeout_s, say)
        self.begun, self._stereo, self._stop = False, stereo, stop or threading.Event()
        self._say, self._converter = say, Converter(stereo)
        self._timeout_s, self._shown = timeout_s, shown(source)
        self._probes: list[Frame] = []
        self._ahead = open_source(source) if connection.own_pace and Path(source).is_file() else None
        context = connection.stream.codec_context
        self.width, self.height, self.frame_count = 0, 0, None
        self.skipped: list[tuple[int, str]] = []
        self.describe: dict[str, Any] = {
            "kind": f"live, {kind.__name__.rsplit('.', 1)[-1]}",
            "path": self._shown,
            "codec": context.name,
            "rate": float(connection.stream.average_rate or connection.stream.guessed_rate or 0),
            "width": context.width,
            "height": context.height,
            "stereo": stereo,
        }

    def begin(self) -> None:
        """Begin to read: at once, or of a file when it is to be played. A second call changes nothing."""
        if not self.begun:
            self.begun = True
            self.reader.start()

    @property
    def is_file(self) -> bool:
        """Whether it can be looked at before it is played."""
        return self._ahead is not None

    @property
    def recorder(self) -> Recorder | None:
        """What keeps the packets as they come."""
        return self.reader.recorder

    def record(self, folder: Path) -> None:
        """Keep what comes from now on in this folder."""
        self.reader.recorder = Recorder(folder, self._say)

    def frames(self) -> Iterator[Frame]:
        """Whole pictures, upright, of one eye, as they come."""
        if self._ahead is not None and not self.begun:
            yield from map(self._one_eye, self._ahead.frames())
            return
        for arrived in self.arrivals():
            yield self._whole(arrived)

    def arrivals(self) -> Iterator[Arrived]:
        """Pictures as they come, until the input ends or is stopped."""
        while not (self.inbox.closed or self._stop.is_set()):
            arrived = self.inbox.take(0.2)
            if arrived is not None:
                yield arrived

    def sample(self, count: int) -> list[Frame]:
        """Some of the first pictures, spread over them; waits for as many of them as are looked at first.

        Raises:
            InputError: none came.
        """
        if self._ahead is not None and not self._probes:
            self._probes = [self._one_eye(frame) for frame in self._ahead.sample(PROBES)]
            self.height, self.width = self._probes[0].rgb.shape[:2]
        while self._ahead is None and len(self._probes) < PROBES and not self.inbox.closed:
            if self._stop.is_set():
                raise KeyboardInterrupt
            arrived = self.inbox.take(0.2)
            if arrived is not None and (
                not self._probes or arrived.time_ns - self._probes[-1].time_ns >= PROBE_S * 1e9
            ):
                self._probes.append(self._whole(arrived))
                self._probes = [f for f in self._probes if f.rgb.shape == self._probes[-1].rgb.shape]
                self.height, self.width = self._probes[-1].rgb.shape[:2]
            if not self._probes and time.monotonic() - self.reader.last_s > self._timeout_s:
                break
        if not self._probes:
            raise InputError(
                f"not one picture of '{self._shown}' could be decoded within {self._timeout_s:g} s "
                f"({self.describe['codec']}); check what is sent, or give more time by --timeout"
            )
        step = max(1, len(self._probes) // count)
        return self._probes[::step][:count]

    def forget(self) -> None:
        """Let go of the first pictures."""
        self._probes = []

    def picture(self, arrived: Arrived, view: View) -> Frame | str:
        """A picture cropped and scaled as `view` says; where its size has changed, the same part of it. A sentence
        where it can't be, as the picture has another shape."""
        width, height = self._converter.size(arrived.picture)
        if (width, height) == (view.source_width, view.source_height):
            box = view.crop
        else:
            sx, sy = width / view.source_width, height / view.source_height
            if not 1 - ALIKE < sx / sy < 1 + ALIKE:
                return (
                    f"the picture has changed its shape from {view.source_width} x {view.source_height} to "
                    f"{width} x {height}"
                )
            x, y, w, h = view.crop
            left, top = round(x * sx), round(y * sy)
            box = left, top, min(round(w * sx), width - left), min(round(h * sy), height - top)
        rgb = self._converter.rgb(arrived.picture, box, (view.width, view.height))
        return Frame.of(rgb, arrived.index, arrived.time_ns)

    def _one_eye(self, frame: Frame) -> Frame:
        width, height = frame.width // (1 + (self._stereo == "sbs")), frame.height // (1 + (self._stereo == "tb"))
        return frame.cropped(0, 0, width, height)

    def _whole(self, arrived: Arrived) -> Frame:
        return Frame.of(self._converter.rgb(arrived.picture), arrived.index, arrived.time_ns)


@dataclass(frozen=True)
class RunningClip(Clip):
    """A `Clip` whose source runs; `frames` gives what comes from now on.

    Attributes:
        source: the input.
    """

    source: RunningSource = field()  # type: ignore[assignment]

    @staticmethod
    def look(
        source: RunningSource,
        camera: Camera | None,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> RunningClip | None:
        """Look at the first pictures and decide how to work on them. Waits while they show nothing that could be
        worked on, such as a black screen, and says so; None if it was stopped before.

        Raises:
            InputError: no picture comes, the input ends before it shows anything, or the camera is for another size.
        """
        told = False
        while not stop.is_set():
            probes = source.sample(PROBES)
            try:
                check_running(probes)
                view = plan_view(probes)
            except InputError as error:
                if source.inbox.closed or source.is_file:
                    raise
                if not told:
                    say(f"waiting for a picture of tissue: so far {error}")
                told = True
                source.forget()
                continue
            working = [view.apply(f) for f in probes]
            return RunningClip(source, view, overlay(working), view.camera(camera) if camera else None)
        return None

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Working frames as they come; those whose picture has another shape are left out."""
        if self.source.is_file and not self.source.begun:
            yield from super().frames(first)
            return
        for arrived in self.source.arrivals():
            frame = self.ready(arrived)
            if isinstance(frame, Frame):
                yield frame

    def ready(self, arrived: Arrived) -> Frame | str:
        """The working frame of a picture, or why there is none."""
        frame = self.source.picture(arrived, self.view)
        if isinstance(frame, str):
            return frame
        return with_masks(replace(frame, camera=self.camera), self.overlay_mask)


def check_running(frames: list[Frame]) -> None:
    """Raise InputError where some pictures are all black or of one colour; a still picture may begin to move."""
    from video_io.curate import check_clip

    try:
        check_clip(frames)
    except InputError as error:
        if "same picture" not in str(error):
            raise


def name_of(source: str) -> str:
    """A short name without secrets, for the run's folder."""
    if source == "-":
        return "stdin"
    plain = shown(source).split("?", 1)[0].split("#", 1)[0]
    if "://" in plain:
        plain = plain.split("://", 1)[1].rsplit("@", 1)[-1]
        return "".join(c if c.isalnum() or c in "-." else "_" for c in plain).strip("_.") or "stream"
    return f"video{int(plain)}" if plain.isdecimal() else Path(plain).stem
