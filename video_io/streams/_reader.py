"""The thread that reads a running input: packets in, pictures out, whatever becomes of the connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from video_io.errors import InputError
from video_io.inbox import Inbox
from video_io.streams._address import redacted, shown
from video_io.streams._connection import Connection
from video_io.streams._record import Recorder

BACK_OFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # waits between tries to connect again; the last one from then on
# Pictures that were built on damaged ones are not shown: up to the next key frame, or for so long.
DISTRUST_S = 2.0
MOST_JUMP_S, MOST_BACK_S = 10.0, 1.0  # in the time stamps, on and back; beyond that they have begun anew
# Decoding is behind where, for so long, packets hardly had to be waited for; or a file is so late.
BEHIND_S, LEAST_WAIT = 1.0, 0.03
_MOST_STAMPS = 256  # packets whose picture has not come out yet


@dataclass(frozen=True)
class Arrived:
    """A decoded picture that waits.

    Attributes:
        index: how many pictures came before it.
        time_ns: in the input; rises from picture to picture, over lost connections too.
        arrived_s: `time.monotonic()` when its packet came in; of a file, when its time had come.
        picture: PyAV's VideoFrame.
    """

    index: int
    time_ns: int
    arrived_s: float
    picture: Any


class Reader:
    """Reads on a thread of its own until the input ends or `stop` is called.

    Args:
        source: what the person gave.
        kind: the file of the slot that connects to it.
        connection: the first one.
        inbox: takes the pictures.
        timeout_s: longest silence of a connection.
        say: takes a sentence for the person.

    Attributes:
        received, damaged, reconnected: how many pictures came in, were left out as damaged, and connections were made
            again.
        passed_over: pictures that were not decoded, as decoding was behind; up to the next key frame of the stream.
        last_s: `time.monotonic()` of the last picture.
        lost: whether there is no connection now.
        recorder: keeps the packets; None: nobody does.
    """

    def __init__(
        self, source: str, kind: ModuleType, connection: Connection, inbox: Inbox[Arrived], timeout_s: float,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._source, self._kind, self._connection, self._timeout_s = source, kind, connection, timeout_s
        self._inbox, self._say = inbox, say
        self.recorder: Recorder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read", daemon=True)
        self._stamps: dict[int, float] = {}  # when the packet with this time stamp came in
        self._clock = _StreamClock()
        self._distrust_until = 0.0
        self.received = self.damaged = self.reconnected = self.passed_over = 0
        self._waited_s, self._window_s, self._passing_over = 0.0, time.monotonic(), False
        self.last_s = time.monotonic()
        self.lost = False

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, wait_s: float = 2.0) -> None:
        """End; a read that hangs is left to itself after `wait_s`."""
        self._stop.set()
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
        if self.recorder is not None:
            self.recorder.close()

    def _run(self) -> None:
        connection: Connection | None = self._connection
        try:
            while connection is not None:
                why = self._read(connection)
                connection.close()
                if self._stop.is_set() or connection.ends or not self._kind.RECONNECTS:
                    return
                self._say(f"'{shown(self._source)}' has stopped ({why}); trying to get it back")
                connection = self._again()
        finally:
            if self.recorder is not None:
                self.recorder.close()
            self._inbox.close()

    def _read(self, connection: Connection) -> str:
        """Read to the end of a connection; returns why it ended."""
        import av

        packets = connection.container.demux(connection.stream)
        self._stamps.clear()
        self._clock.new_connection()
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return "it ended"
            except (av.error.ExitError, TimeoutError):
                return f"nothing came for {self._timeout_s:g} s"
            except (av.FFmpegError, OSError) as error:
                return redacted(getattr(error, "strerror", None) or str(error), self._source)
            waited = time.monotonic() - begun
            self._look_behind(waited)
            if self._passes_over(packet, connection):
                if self.recorder is not None:
                    self.recorder.packet(packet, connection.stream)
            else:
                self._take(packet, connection)
        return "it was asked to"

    def _look_behind(self, waited_s: float) -> None:
        """Begin to pass over pictures where packets have come faster than they can be decoded for a while."""
        now = time.monotonic()
        self._waited_s += waited_s
        if now - self._window_s < BEHIND_S:
            return
        if self._waited_s < LEAST_WAIT * (now - self._window_s):
            self._passing_over = True
        self._waited_s, self._window_s = 0.0, now

    def _passes_over(self, packet: Any, connection: Connection) -> bool:
        """Whether a packet is not decoded; the first one that is again, is a key frame (of a file: one that is not late
        itself)."""
        if not self._passing_over or not packet.size:
            return False
        late = connection.own_pace and self._clock.late_s(packet.pts, packet.time_base) > BEHIND_S / 4
        if packet.is_keyframe and not late:
            self._passing_over = False
            return False
        self.received += 1
        self.passed_over += 1
        return True

    def _take(self, packet: Any, connection: Connection) -> None:
        """Decode one packet, hand its pictures on, and have it recorded."""
        import av

        now = time.monotonic()
        if packet.pts is not None:
            if len(self._stamps) >= _MOST_STAMPS:
                self._stamps.clear()
            self._stamps[packet.pts] = now
        flawed = packet.is_corrupt
        try:
            pictures = packet.decode()
        except av.FFmpegError:
            pictures, flawed = [], True
        if flawed:
            self.damaged += not pictures
            self._distrust_until = now + DISTRUST_S
        for picture in pictures:
            self._give(picture, connection, now, flawed)
            if self._stop.is_set():
                break
        if self.recorder is not None:
            self.recorder.packet(packet, connection.stream)

    def _give(self, picture: Any, connection: Connection, now: float, flawed: bool) -> None:
        arrived = self._stamps.pop(picture.pts, now) if picture.pts is not None else now
        if picture.key_frame and not (flawed or picture.is_corrupt):
            self._distrust_until = 0.0
        base = picture.time_base or connection.stream.time_base
        seconds = None if picture.pts is None else float(picture.pts * base)
        time_ns = self._clock.time_ns(seconds, arrived)
        if connection.own_pace:
            arrived = self._clock.begun_s + time_ns / 1e9
            if (early := arrived - time.monotonic()) > 0:
                self._waited_s += early
                self._stop.wait(early)
        index, self.received, self.last_s = self.received, self.received + 1, time.monotonic()
        if picture.is_corrupt or now < self._distrust_until:
            self.damaged += 1
            return
        self._inbox.put(Arrived(index, time_ns, arrived, picture))

    def _again(self) -> Connection | None:
        """Connect again, with growing pauses; None when asked to stop."""
        self.lost, since, told, tries = True, time.monotonic(), "", 0
        if self.recorder is not None:
            self.recorder.new_connection()
        while not self._stop.wait(BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)]):
            tries += 1
            try:
                connection = self._kind.connect(self._source, self._timeout_s)
            except InputError as error:
                if str(error) != told:
                    told = str(error)
                    self._say(f"still trying: {told}")
                continue
            self.lost, self.reconnected = False, self.reconnected + 1
            self._say(f"'{shown(self._source)}' is back after {time.monotonic() - since:.0f} s")
            return connection
        return None


class _StreamClock:
    """Time stamps of one connection after the other, as one time that rises."""

    def __init__(self) -> None:
        self.begun_s = 0.0  # monotonic time of the first picture
        self._offset_s: float | None = None
        self._last_ns = -1
        self._last_s = 0.0

    def new_connection(self) -> None:
        self._offset_s = None

    def late_s(self, pts: int | None, base: Any) -> float:
        """How long ago the time of a picture with this time stamp has come, of an input with a pace of its own."""
        if pts is None or self._offset_s is None:
            return 0.0
        return time.monotonic() - (self.begun_s + float(pts * base) + self._offset_s)

    def time_ns(self, seconds: float | None, arrived_s: float) -> int:
        """The time of a picture with this time stamp, which came in at `arrived_s`."""
        if self._last_ns < 0:
            self.begun_s = arrived_s
        if seconds is None:
            seconds = arrived_s
        if self._offset_s is None or not -MOST_BACK_S <= seconds - self._last_s <= MOST_JUMP_S:
            self._offset_s = (arrived_s - self.begun_s) - seconds
        self._last_s = seconds
        self._last_ns = max(round((seconds + self._offset_s) * 1e9), self._last_ns + 1)
        return self._last_ns
