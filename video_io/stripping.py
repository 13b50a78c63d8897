"""Files without what they tell beside the picture: EXIF, comments, container tags, other tracks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError
from video_io.frame import Frame

_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT"}
_TICKS = 90000  # a second, of the times of a video that is written
# Supplemental units of a stream, in which recorders write what they like.
_FILTERS = {"h264": "filter_units=remove_types=6", "hevc": "filter_units=remove_types=39-40"}


def stripped_jpeg(data: bytes) -> tuple[bytes, list[str]]:
    """A JPEG file without application and comment segments (but JFIF's and Adobe's, which tell the colours), and what
    was taken out.

    Raises:
        ValueError: it is no JPEG file.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG file")
    out, gone, at = [data[:2]], [], 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("no JPEG file")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            # What follows the end of the picture is none of it: previews, a maker's appendix.
            end = _end_of_scan(data, at)
            if end < len(data):
                gone.append("data behind the picture")
            return b"".join([*out, data[at:end]]), gone
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        segment = data[at : at + 2 + length]
        names = {0xE1: "EXIF or XMP", 0xE2: "ICC profile or preview", 0xED: "IPTC", 0xFE: "comment"}
        if marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE):
            gone.append(names.get(marker, f"APP{marker - 0xE0}"))
        else:
            out.append(segment)
        at += 2 + length
    raise ValueError("no JPEG file")


def _end_of_scan(data: bytes, at: int) -> int:
    """Behind the end mark of the picture whose first scan begins at `at`; progressive files have several scans."""
    while True:
        at = data.find(b"\xff", at + 2)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker not in (0x00, 0xFF) and not 0xD0 <= marker <= 0xD7 and at + 4 <= len(data):
            at += struct.unpack(">H", data[at + 2 : at + 4])[0]


def stripped_png(data: bytes) -> tuple[bytes, list[str]]:
    """A PNG file with the chunks that the picture needs, and the names of the others.

    Raises:
        ValueError: it is no PNG file.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("no PNG file")
    out, gone, at = [data[:8]], [], 8
    while at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name in _PNG_KEPT:
            out.append(data[at : at + 12 + length])
        else:
            gone.append(name.decode("ascii", "replace"))
        at += 12 + length
        if name == b"IEND":
            break
    if at < len(data):
        gone.append("data behind the picture")
    return b"".join(out), gone


def orientation(path: Path) -> int:
    """EXIF's orientation of an image, 1 for upright or none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return int(image.getexif().get(0x0112, 1))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return 1


def told_by_container(path: Path) -> list[str]:
    """What a video file tells beside its pictures: names of tags, other tracks, chapters. No values.

    Raises:
        InputError: it can't be opened.
    """
    import av

    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            found = [f"container tag '{name}'" for name in container.metadata if name not in _HARMLESS]
            found += [f"track tag '{name}'" for name in video.metadata if name not in _HARMLESS]
            for stream in container.streams:
                if stream.index != video.index:
                    found.append(f"{stream.type} track")
                    found += [f"{stream.type} track tag '{name}'" for name in stream.metadata if name not in _HARMLESS]
            if getattr(container, "chapters", None) and container.chapters():
                found.append("chapters")
            return found
    except (av.FFmpegError, OSError, IndexError) as error:
        raise InputError(f"'{path}' can't be opened as a video; expected an intact file; export it again") from error


_HARMLESS = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "language", "DURATION", "vendor_id",
}  # fmt: skip


def copied_video(path: Path, out: Path) -> bool:
    """Write the pictures' stream as it is into a new container that tells nothing; False where that can't be done."""
    import av
    from av.bitstream import BitStreamFilterContext

    try:
        with av.open(str(path)) as source:
            stream = source.streams.video[0]
            name = stream.codec_context.name
            first = next(source.decode(stream))
            if name not in _FILTERS or int(first.rotation) % 360:
                return False
            source.seek(0)
            with av.open(str(out), "w", format="mp4", options={"fflags": "+bitexact"}) as target:
                copy = target.add_stream_from_template(stream)
                copy.metadata.clear()
                strip = BitStreamFilterContext(_FILTERS[name], stream)
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    for clean in strip.filter(packet):
                        clean.stream = copy
                        target.mux(clean)
                for clean in strip.filter(None):
                    clean.stream = copy
                    target.mux(clean)
        return True
    except (av.FFmpegError, OSError, ValueError, StopIteration):
        out.unlink(missing_ok=True)
        return False


def encoded_video(frames: Iterable[tuple[Frame, NDArray[np.uint8]]], out: Path, crf: int = 12) -> int:
    """Write pictures with their frames' times as H.264 in an MP4 file without tags; returns how many.

    Raises:
        InputError: there is no picture, or the file can't be written.
    """
    import av

    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise InputError("there is no picture to write; expected a video with pictures; give an intact one")
    height, width = first[1].shape[:2]
    count = 0
    try:
        with av.open(str(out), "w", format="mp4", options={"fflags": "+bitexact"}) as target:
            stream = target.add_stream("libx264", rate=30)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
            stream.options = {"crf": str(crf), "preset": "fast", "bf": "0"}
            stream.codec_context.time_base = Fraction(1, _TICKS)
            for frame, rgb in _chained(first, pictures):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
                picture.pts, picture.time_base = round(frame.time_ns * _TICKS / 1e9), Fraction(1, _TICKS)
                target.mux(stream.encode(picture))
                count += 1
            target.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"'{out}' can't be written ({error}); expected room on the disk; free some") from error
    return count


def _chained(
    first: tuple[Frame, NDArray[np.uint8]], rest: Iterator[tuple[Frame, NDArray[np.uint8]]]
) -> Iterator[tuple[Frame, NDArray[np.uint8]]]:
    yield first
    yield from rest
