"""A video file, decoded by PyAV: exact time stamps, variable frame rate, rotation flags, damaged packets."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources.base import Source, selected_count

if TYPE_CHECKING:
    import av

_STILL_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
_ARCHIVE_SUFFIXES = {".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"}
_NOT_VIDEO = {"ansi", "bintext", "xbin", "idf"}  # FFmpeg offers to draw plain text as video.
_LONGEST_WALK = 3000  # frames decoded for one sample at most, in files with few key frames


def accepts(path: Path) -> bool:
    """Whether this file reads the input."""
    return path.is_file()


def open(path: Path, every: int, max_frames: int | None, fps: float) -> Source:
    """Open a video file; `fps` is not used, because the file has time stamps.

    Raises:
        InputError: the file is empty, is no video, or not one frame of it can be decoded.
    """
    if path.stat().st_size == 0:
        raise InputError(f"'{path}' is empty (0 bytes); expected a video file; copy or export it again")
    if path.suffix.lower() in _STILL_SUFFIXES:
        raise InputError(
            f"'{path}' is a single image; expected a video file or a folder of images; give its folder '{path.parent}'"
        )
    if path.suffix.lower() in _ARCHIVE_SUFFIXES:
        raise InputError(
            f"'{path}' is an archive; expected a video file or a folder; unpack it and give the folder of one sequence"
        )
    return VideoFile(path, every, max_frames)


class VideoFile:
    """See `Source`. A frame's time counts from the start of the video stream.

    Args:
        path: the file.
        every, max_frames: which frames.
        content: opens the video where it is only a part of that file.
    """

    camera = None  # a video does not tell it

    def __init__(
        self, path: Path, every: int, max_frames: int | None, content: Callable[[], IO[bytes]] | None = None
    ) -> None:
        self.path, self.name, self._content = path, path.stem, content
        self._every, self._max_frames = every, max_frames
        self.skipped: list[tuple[int, str]] = []
        with _opened(path, content) as (container, stream):
            first = _first_frame(path, container, stream)
            rgb = _upright(first)
            self.height, self.width = rgb.shape[:2]
            self._rate = float(stream.average_rate or stream.guessed_rate or 30)
            self._start = stream.start_time if stream.start_time is not None else (first.pts or 0)
            self._total = _frame_total(container, stream, self._rate)
            self.describe: dict[str, Any] = {
                "kind": "video",
                "path": str(path),
                "codec": stream.codec_context.name,
                "rate": self._rate,
                "frames": self._total,
                "rotation_deg": int(first.rotation),
                "width": self.width,
                "height": self.height,
                "every": every,
            }
        self.frame_count = selected_count(self._total, every, max_frames)

    def frames(self) -> Iterator[Frame]:
        """The frames in order of presentation; see `Source.frames`.

        A packet from which no whole frame came is listed in `skipped` with the position that it would have had. So
        are the frames built on it, up to the next key frame or for two seconds: the decoder hides the damage in them.
        """
        self.skipped = []
        given = 0
        with _opened(self.path, self._content) as (container, stream):
            for position, frame in self._trusted(container, stream, self.skipped):
                if position % self._every:
                    continue
                rgb = _upright(frame)
                if rgb.shape[:2] != (self.height, self.width):
                    size = f"{rgb.shape[1]} x {rgb.shape[0]}"
                    self.skipped.append((position, f"{size}, the video began with {self.width} x {self.height}"))
                    continue
                yield Frame.of(rgb, position, self._time_ns(frame.pts, position, stream.time_base))
                given += 1
                if given == self._max_frames:
                    return

    def _trusted(
        self, container: Any, stream: Any, skipped: list[tuple[int, str]]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Undamaged frames and their positions; the others go to `skipped`."""
        index = distrusted_until = 0
        end_s = longest_gap_s = 0.0
        memory = round(2 * self._rate)
        decoding = _Decoding(container, stream)
        for frame in decoding.frames():
            for lost_pts in decoding.lost_before(frame.pts):
                skipped.append((index, f"damaged at {self._seconds(lost_pts, stream):.3f} s"))
                index += 1
                distrusted_until = index + memory
            position, index = index, index + 1
            time_s = self._seconds(frame.pts, stream)
            end_s, longest_gap_s = time_s, max(longest_gap_s, time_s - end_s)
            if frame.is_corrupt:
                skipped.append((position, f"damaged at {time_s:.3f} s"))
                distrusted_until = index + memory
                continue
            if frame.key_frame:
                distrusted_until = 0
            if position < distrusted_until:
                skipped.append((position, f"built on a damaged frame, at {time_s:.3f} s"))
            else:
                yield position, frame
        for lost_pts in decoding.lost_before(None):
            skipped.append((index, f"damaged at {self._seconds(lost_pts, stream):.3f} s"))
            index += 1
        announced_s = _length_s(container, stream)
        if announced_s is not None and announced_s - end_s > max(0.02 * announced_s, 3 * longest_gap_s, 3 / self._rate):
            skipped.append((index, f"the file ends early: {end_s:.2f} s of {announced_s:.2f} s"))

    def sample(self, count: int) -> list[Frame]:
        """See `Source.sample`. Seeks where key frames allow, otherwise decodes forward once."""
        used = self._total if self._max_frames is None else self._max_frames * self._every
        if self._total is not None and used is not None:
            used = min(used, self._total)
        if used is None:  # a stream without a length: take its beginning
            used = count * self._every
        targets = np.unique(np.linspace(0, max(used - 1, 0), count).round().astype(int))
        chosen: list[Frame] = []
        with _opened(self.path, self._content) as (container, stream):
            base = stream.time_base
            per_frame = 1 / (self._rate * float(base))
            decoder = _Decoding(container, stream).frames()
            keys = np.array(sorted(e.timestamp for e in stream.index_entries if e.is_keyframe), np.int64)
            seekable, last = True, -per_frame
            for target in targets * per_frame:
                if seekable and target - last > 30 * per_frame:
                    seekable, decoder = self._seek(container, stream, keys, target, last)
                frame = _walk(decoder, self._start + max(target, last + per_frame) - 0.4 * per_frame)
                if frame is None:
                    break
                last = float((frame.pts or 0) - self._start)
                rgb = _upright(frame)
                if rgb.shape[:2] == (self.height, self.width):
                    position = round(last / per_frame)
                    chosen.append(Frame.of(rgb, position, self._time_ns(frame.pts, position, base)))
        return chosen

    def _seek(
        self, container: Any, stream: Any, keys: NDArray[np.int64], target: float, last: float
    ) -> tuple[bool, Iterator[av.VideoFrame]]:
        """Jump to the key frame before `target`; False where that lies behind, so that jumping is of no use."""
        container.seek(int(self._start + target), backward=True, stream=stream)
        decoder = _Decoding(container, stream).frames()
        before = keys[keys <= self._start + target]
        return not len(keys) or (len(before) > 0 and before[-1] > self._start + last), decoder

    def _seconds(self, pts: int | None, stream: Any) -> float:
        return float(((pts or 0) - self._start) * stream.time_base)

    def _time_ns(self, pts: int | None, position: int, base: Any) -> int:
        if pts is None:
            return round(position * 1e9 / self._rate)
        return round((pts - self._start) * base * 1_000_000_000)


@contextmanager
def _opened(path: Path, content: Callable[[], IO[bytes]] | None = None) -> Iterator[tuple[Any, Any]]:
    import av

    try:
        # Titles and comments may be in any encoding; they are not used.
        container = av.open(content() if content else str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"'{path}' can't be opened as a video ({_plain(error)}); expected a whole MP4, AVI, MKV or MOV file; it is "
            "cut short or no video: copy or export it again"
        ) from error
    with container:
        streams = container.streams.video
        if not streams or streams[0].codec_context is None or streams[0].codec_context.name in _NOT_VIDEO:
            found = container.format.long_name
            raise InputError(f"'{path}' holds no video ({found}); expected a video file; give the recording itself")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


class _Decoding:
    """Decodes a stream past its damaged packets and knows which packets gave no frame."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._waiting: list[int] = []  # heap of time stamps of packets whose frame has not come out yet
        self._errors = 0

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes, in order of presentation."""
        import av

        demuxer = self._container.demux(self._stream)
        while True:
            try:
                packet = next(demuxer, None)
            except av.FFmpegError:
                packet = None  # the container itself breaks off here
            if packet is None:
                return
            if packet.pts is not None and packet.size and not packet.is_discard:
                heapq.heappush(self._waiting, packet.pts)
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self._errors += 1

    def lost_before(self, pts: int | None) -> list[int]:
        """Time stamps of packets that failed, earlier than the frame at `pts` (None: to the end).

        A packet may rightly give no frame (the second field of a picture, a hidden reference), so no more are
        reported than failed to decode.
        """
        lost = []
        while self._waiting and (pts is None or self._waiting[0] <= pts):
            stamp = heapq.heappop(self._waiting)
            if stamp != pts and self._errors:
                self._errors -= 1
                lost.append(stamp)
        return lost


def _walk(decoder: Iterator[av.VideoFrame], pts: float) -> av.VideoFrame | None:
    """The first intact frame at or after `pts`, or the last one before the stream ends."""
    last = None
    for steps, frame in enumerate(decoder):
        if frame.is_corrupt:
            continue
        last = frame
        if frame.pts is None or frame.pts >= pts or steps >= _LONGEST_WALK:
            return frame
    return last


def _first_frame(path: Path, container: Any, stream: Any) -> av.VideoFrame:
    for frame in _Decoding(container, stream).frames():
        return frame
    raise InputError(
        f"not one frame of '{path}' can be decoded ({stream.codec_context.name}); expected an intact video; "
        "it is cut short or damaged: copy or export it again"
    )


def _frame_total(container: Any, stream: Any, rate: float) -> int | None:
    if stream.frames:
        return int(stream.frames)
    if stream.duration:
        return max(1, round(float(stream.duration * stream.time_base) * rate))
    if container.duration:
        return max(1, round(container.duration / 1e6 * rate))
    return None


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The frame as displayed, (H, W, 3) RGB: the container's rotation flag counts counter-clockwise."""
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _length_s(container: Any, stream: Any) -> float | None:
    """Length of the video as its header tells it, seconds."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6
    return None


def _plain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
