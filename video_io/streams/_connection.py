"""What every kind of running input gives: an open container with its video stream."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from video_io.errors import InputError
from video_io.streams._address import redacted, shown

_NOT_VIDEO = {"ansi", "bintext", "xbin", "idf"}  # FFmpeg offers to draw plain text as video.
# Enough to find the streams of a camera; FFmpeg's own five seconds would be five seconds of delay.
_QUICK = {"probesize": "1000000", "analyzeduration": "1500000"}


@dataclass(frozen=True)
class Connection:
    """An open input.

    Attributes:
        container, stream: PyAV's.
        ends: whether its end is the end of the input, and not of the connection.
        own_pace: whether frames have to be held back until their time has come, as of a file.
    """

    container: Any
    stream: Any
    ends: bool
    own_pace: bool = False

    def close(self) -> None:
        """Let go of the input."""
        import av

        with suppress(av.FFmpegError, OSError, ValueError):
            self.container.close()


def connected(
    source: str,
    file: Any,
    timeout_s: float,
    ends: bool | None,
    own_pace: bool = False,
    format: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Connection:
    """Open what PyAV opens and find its video.

    Args:
        source: as the person gave it, for messages.
        file: what PyAV is given: an address, a path or a file object.
        timeout_s: longest wait for the connection, and for each packet.
        ends: see `Connection`; None: only if the input tells its length, and then it has a pace of its own.
        own_pace: see `Connection`.
        format, options: for FFmpeg.

    Raises:
        InputError: nothing that can be read as video, in one sentence without secrets.
    """
    import av

    name = shown(source)
    try:
        waits = {} if hasattr(file, "read") else {"timeout": (timeout_s, timeout_s)}
        container = av.open(file, format=format, options={**_QUICK, **(options or {})}, **waits)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(_refusal(name, redacted(str(error), source), error, timeout_s)) from None
    try:
        stream = _video(container, name)
    except InputError:
        container.close()
        raise
    # Threads on parts of one frame only: those on several frames would hold each back by some frames.
    stream.thread_type = "SLICE"
    finite = container.duration is not None
    return Connection(container, stream, finite if ends is None else ends, finite if ends is None else own_pace)


def _video(container: Any, name: str) -> Any:
    streams = container.streams
    usable = [s for s in streams.video if s.codec_context is not None and s.codec_context.name not in _NOT_VIDEO]
    if usable:
        return usable[0]
    if streams.video:
        raise InputError(
            f"the video of '{name}' has a codec that this program does not know; have it sent as H.264, H.265 or MJPEG"
        )
    found = ", ".join(sorted({s.type or "unknown data" for s in streams})) or "nothing"
    raise InputError(f"'{name}' holds {found} but no video; give the stream of the camera's picture")


def _refusal(name: str, words: str, error: Exception, timeout_s: float) -> str:
    import av

    code = getattr(error, "errno", None)
    if isinstance(error, (av.error.ExitError, TimeoutError)) or code == errno.ETIMEDOUT:
        return f"'{name}' did not answer within {timeout_s:g} s; check that it sends, or give more time by --timeout"
    if isinstance(error, av.error.ProtocolNotFoundError):
        return f"'{name}' needs a protocol that this build of FFmpeg does not have; have it sent by RTSP or MPEG-TS"
    if code == errno.ECONNREFUSED:
        return f"nothing listens at '{name}' (connection refused); check address and port, and that it is sending"
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        return f"'{name}' wants a user and a password, or other ones; give them as user:password@ before the host"
    reason = getattr(error, "strerror", None) or words
    return f"'{name}' can't be opened as a stream of video ({reason}); check the address, and that it is sending"
