"""A camera on the network for tests: MPEG-TS over TCP, made by PyAV from pictures, that can be made to fail."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import av
import numpy as np

Picture = np.ndarray


def chunks(pictures: Iterable[Picture], rate: int = 30, codec: str = "libx264") -> Iterator[bytes]:
    """MPEG-TS, in pieces of one picture each; the encoder begins anew where the size changes."""
    sink, at, container, stream, size = io.BytesIO(), 0, None, None, None
    for number, picture in enumerate(pictures):
        if picture.shape != size:
            container = av.open(sink, "w", format="mpegts")
            stream, size = container.add_stream(codec, rate=rate), picture.shape
            stream.height, stream.width = picture.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10", "crf": "14"}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = number
        container.mux(stream.encode(frame))
        yield sink.getvalue()[at:]
        at = sink.tell()
    container.mux(stream.encode(None))
    container.close()
    yield sink.getvalue()[at:]


class Server:
    """Serves one client at a time on this machine, until it is killed.

    Args:
        port: to listen on; 0 for any.
    """

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it with all its connections, as when a cable is pulled."""
        self._stop.set()
        self._server.close()
        self._thread.join()

    def _run(self) -> None:
        self._server.settimeout(0.1)
        while not self._stop.is_set():
            try:
                client, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with client:
                self._send(client)

    def _send(self, client: socket.socket) -> None:
        raise NotImplementedError


class StreamServer(Server):
    """Sends pieces at `rate` a second to one client at a time; each client gets them from the beginning.

    Args:
        pieces: what is sent, again and again if `loop`.
        before: called with the number of each piece before it is sent; may wait, or give other bytes.
    """

    def __init__(
        self,
        pieces: list[bytes],
        rate: float = 30.0,
        loop: bool = False,
        before: Callable[[int, bytes], bytes] | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self._pieces, self._rate, self._loop, self._before = pieces, rate, loop, before
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.sent = 0

    def _send(self, client: socket.socket) -> None:
        begun, number = time.monotonic(), 0
        while not self._stop.is_set():
            if number == len(self._pieces):
                if not self._loop:
                    return
                begun, number = time.monotonic(), 0
            piece = self._pieces[number]
            if self._before is not None:
                piece = self._before(number, piece)
            if self._stop.wait(max(0.0, begun + number / self._rate - time.monotonic())):
                return
            try:
                client.sendall(piece)
            except OSError:
                return
            self.sent += 1
            number += 1
