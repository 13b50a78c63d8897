"""A stream from the network: RTSP, HTTP, UDP or TCP with MPEG-TS, SRT, RTMP, as far as PyAV's FFmpeg has it."""

from __future__ import annotations

from video_io.errors import InputError
from video_io.streams._address import shown
from video_io.streams._connection import Connection, connected

RECONNECTS = True

SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "tcp", "srt", "rtp", "rtmp", "rtmps")
_OPTIONS = {
    # Over TCP no packet is lost on the way; a camera that only has UDP is asked for that by FFmpeg itself.
    "rtsp": {"rtsp_transport": "tcp"},
    "rtsps": {"rtsp_transport": "tcp"},
    # More that comes in at once than fits is lost, and is no reason to end.
    "udp": {"overrun_nonfatal": "1", "fifo_size": "50000"},
}


def accepts(source: str) -> bool:
    """An address."""
    return "://" in source


def connect(source: str, timeout_s: float) -> Connection:
    """Connect to the stream. A file behind an address tells its length: its end is the end.

    Raises:
        InputError: an address that can't be read, or nothing there; after `timeout_s` at the latest.
    """
    scheme = source.split("://", 1)[0].lower()
    if scheme not in SCHEMES:
        raise InputError(f"'{shown(source)}' is no address of a stream; expected one of {', '.join(SCHEMES)}")
    return connected(source, source, timeout_s, ends=None, options=_OPTIONS.get(scheme))
