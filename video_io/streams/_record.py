"""What comes in, kept as it came: the packets of the video, not decoded and not encoded again, in Matroska files.

Matroska holds nearly every codec, and a file that was not ended plays up to where it breaks off.
"""

from __future__ import annotations

import errno
import io
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# Left free, so that the run can still be written where the recording has filled the disk.
KEEP_FREE_BYTES = 64 << 20
_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENODEV}
_OPTIONS = {"cluster_time_limit": "1000"}  # what is lost where the program is killed: a second
_LEAST_S = 1.0  # between two files: one that can't be written to is not tried for each packet
_CHECK_EVERY = 32  # writes, between two looks at the room that is left


class Recorder:
    """Writes `stream.mkv` into a folder; a new file (`stream_2.mkv`, ...) for each connection, and where the packets'
    times break off. A full disk ends it, with a sentence; it never raises.

    Args:
        folder: where.
        say: takes a sentence for the person.
        keep_free: bytes of the disk that are left to others.

    Attributes:
        files: those that were written.
        ended: why it has ended before the stream; empty for not.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], keep_free: int = KEEP_FREE_BYTES) -> None:
        self._folder, self._say, self._keep_free = folder, say, keep_free
        self._output: Any = None
        self._stream: Any = None
        self._begun = -_LEAST_S
        self._dts: int | None = None
        self.files: list[Path] = []
        self.ended = ""

    def packet(self, packet: Any, source: Any) -> None:
        """Add a packet of the input's stream `source`; its times may be changed."""
        if self.ended or not packet.size:
            return
        try:
            if self._output is None and not self._begin(source):
                return
            second = round(1 / packet.time_base)
            at = packet.dts if packet.dts is not None else packet.pts
            if self._dts is not None and at is not None and at < self._dts - second:
                self._close()  # the times begin anew
                if not self._begin(source):
                    return
            self._order(packet, second)
            packet.stream = self._stream
            self._output.mux(packet)
        except Exception as error:  # noqa: BLE001 - whatever a muxer objects to, tracking goes on
            self._failed(error)

    def new_connection(self) -> None:
        """The next packet begins a new file."""
        self._close()

    def close(self) -> None:
        """End the file."""
        self._close()

    def _order(self, packet: Any, second: int) -> None:
        """Give a packet that has none a time to be decoded at; such times have to rise."""
        if packet.dts is None:
            first = (packet.pts or 0) - second  # early enough for pictures that are shown before they are decoded
            packet.dts = first if self._dts is None else self._dts + 1
        elif self._dts is not None:
            packet.dts = max(packet.dts, self._dts + 1)
        packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self._dts = packet.dts

    def _begin(self, source: Any) -> bool:
        import av

        if time.monotonic() - self._begun < _LEAST_S:
            return False
        self._begun = time.monotonic()
        number = len(self.files) + 1
        path = self._folder / ("stream.mkv" if number == 1 else f"stream_{number}.mkv")
        self.files.append(path)
        output = av.open(_File(path, self._keep_free), "w", format="matroska", options=_OPTIONS)
        self._stream, self._output, self._dts = output.add_stream_from_template(source), output, None
        return True

    def _close(self) -> None:
        output, self._output, self._stream, self._dts = self._output, None, None, None
        if output is not None:
            with suppress(Exception):  # the end of the file is of use, and not needed
                output.close()

    def _failed(self, error: Exception) -> None:
        self._close()
        code = getattr(error, "errno", None)
        if code in _DISK or isinstance(error, MemoryError):
            reason = getattr(error, "strerror", None) or str(error)
            self.ended = f"the recording has ended ({reason}); tracking goes on"
            self._say(self.ended)


class _File(io.RawIOBase):
    """A file as PyAV writes it, which leaves some of the disk free."""

    def __init__(self, path: Path, keep_free: int) -> None:
        super().__init__()
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed with this
        self._path, self._keep_free, self._writes = path, keep_free, 0
        self.name = str(path)

    def write(self, data: Any) -> int:
        if self._writes % _CHECK_EVERY == 0 and shutil.disk_usage(self._path.parent).free < self._keep_free:
            raise OSError(errno.ENOSPC, "the disk is nearly full")
        self._writes += 1
        view, written = memoryview(data), 0
        while written < len(view):
            written += self._file.write(view[written:]) or 0
        return written

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
