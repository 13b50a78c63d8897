"""A small RTSP camera for tests (RFC 2326): H.264 over RTP (RFC 6184) in the connection itself, behind a password."""

from __future__ import annotations

import base64
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress

import av
import numpy as np
from stream_server import Server

_LARGEST = 1200  # bytes of a NAL unit that go into one packet
_START = b"\0\0\0\1"


def nal_units(pictures: Iterable[np.ndarray], rate: int = 30) -> list[list[bytes]]:
    """H.264 of each picture, as NAL units without start codes."""
    found, codec = [], None
    for number, picture in enumerate(pictures):
        if codec is None:
            codec = av.CodecContext.create("libx264", "w")
            codec.height, codec.width = picture.shape[:2]
            codec.pix_fmt, codec.framerate = "yuv420p", rate
            codec.time_base = 1 / codec.framerate
            codec.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10", "x264-params": "annexb=1"}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = number
        for packet in codec.encode(frame):
            data = bytes(packet).replace(b"\0\0\0\1", b"\0\0\1")
            found.append([unit for unit in data.split(b"\0\0\1") if unit])
    return found


class RtspServer(Server):
    """Sends pictures to one client at a time who knows the password, from the beginning.

    Args:
        pictures: their NAL units; the first ones begin with the stream's parameters.
        password: as "user:password".
    """

    def __init__(self, pictures: list[list[bytes]], password: str, rate: float = 30.0) -> None:
        super().__init__()
        self._pictures, self._rate = pictures, rate
        self._allowed = "Basic " + base64.b64encode(password.encode()).decode()

    def _send(self, client: socket.socket) -> None:
        with client.makefile("rb") as requests, suppress(OSError):
            if self._agree(client, requests):
                self._play(client)

    def _agree(self, client: socket.socket, requests) -> bool:  # type: ignore[no-untyped-def]
        """Answer up to PLAY; False where the client goes."""
        while not self._stop.is_set():
            lines = []
            while (line := requests.readline().decode().strip()) or not lines:
                if not line:
                    return False
                lines.append(line)
            method = lines[0].split()[0]
            fields = dict(line.split(": ", 1) for line in lines[1:])
            more, body = "", ""
            status = "200 OK"
            if method != "OPTIONS" and fields.get("Authorization") != self._allowed:
                status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
            elif method == "DESCRIBE":
                body = self._description()
                more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            elif method == "OPTIONS":
                more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            answer = f"RTSP/1.0 {status}\r\nCSeq: {fields['CSeq']}\r\nSession: 1\r\n{more}\r\n{body}"
            client.sendall(answer.encode())
            if method == "PLAY" and status == "200 OK":
                return True
        return False

    def _description(self) -> str:
        parameters = ",".join(base64.b64encode(unit).decode() for unit in self._pictures[0] if unit[0] & 31 in (7, 8))
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            "a=rtpmap:96 H264/90000\r\n"
            f"a=fmtp:96 packetization-mode=1; sprop-parameter-sets={parameters}\r\na=control:track1\r\n"
        )

    def _play(self, client: socket.socket) -> None:
        begun, sequence = time.monotonic(), 0
        for number, units in enumerate(self._pictures):
            if self._stop.wait(max(0.0, begun + number / self._rate - time.monotonic())):
                return
            payloads = [part for unit in units for part in _parts(unit)]
            for k, payload in enumerate(payloads):
                last = 0x80 if k == len(payloads) - 1 else 0
                head = struct.pack(">BBHII", 0x80, 96 | last, sequence & 0xFFFF, round(number * 90_000 / self._rate), 1)
                packet = head + payload
                client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                sequence += 1


def _parts(unit: bytes) -> list[bytes]:
    """A NAL unit in payloads of RTP: itself, or fragments (FU-A)."""
    if len(unit) <= _LARGEST:
        return [unit]
    head, body = unit[0], unit[1:]
    pieces = [body[at : at + _LARGEST] for at in range(0, len(body), _LARGEST)]
    found = []
    for k, piece in enumerate(pieces):
        edge = 0x80 if k == 0 else 0x40 if k == len(pieces) - 1 else 0
        found.append(bytes([head & 0xE0 | 28, edge | head & 31]) + piece)
    return found
