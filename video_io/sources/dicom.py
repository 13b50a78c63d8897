"""DICOM video: a multi-frame file (uncompressed, RLE, JPEG), one that holds MPEG-2, MPEG-4 or HEVC, or a folder of
slices.

Only pixels, their format and the frame rate are read. Nothing else of the header (names, dates, numbers of a patient,
an institution, a device) goes into frames, messages or what a run writes.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources.base import Source, Stills, selected_count
from video_io.sources.video import VideoFile

if TYPE_CHECKING:
    from pydicom import Dataset

# Transfer syntaxes whose pixel data is a video stream: MPEG-2, MPEG-4 AVC (H.264), HEVC.
_VIDEO = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (100, 101, 102, 103, 104, 105, 106, 107, 108)) + tuple(
    f"1.2.840.10008.1.2.4.{n}.1" for n in (100, 101, 102, 103, 104, 105, 106)
)
# All that is read of a header beside the pixels.
_WHOLE = ("Rows", "Columns", "NumberOfFrames", "BitsStored", "PixelRepresentation", "InstanceNumber")
_NUMBERS = (
    *_WHOLE, "WindowCenter", "WindowWidth", "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate",
)  # fmt: skip
_WORDS = ("PhotometricInterpretation", "SeriesInstanceUID")
_RATES = ("CineRate", "RecommendedDisplayFrameRate")
_READ = (*_NUMBERS, *_WORDS)
Offsets = tuple[list[int], list[int]]
_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}


def accepts(path: Path) -> bool:
    """Whether this file reads the input: told by the mark at byte 128, whatever the name."""
    if path.is_file():
        return _is_dicom(path)
    return path.is_dir() and any(p.suffix.lower() in _SUFFIXES and _is_dicom(p) for p in path.iterdir() if p.is_file())


def open(path: Path, every: int, max_frames: int | None, fps: float) -> Source:
    """Open a DICOM file or a folder of them; `fps` counts where the file does not tell the rate.

    Raises:
        InputError: no pixels, no frame that can be decoded, or slices that are no clip.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and _is_dicom(p))
        if len(files) > 1:
            return DicomSlices(path, files, every, max_frames, fps)
        path = files[0]
    facts = _facts(path)
    if facts["syntax"] in _VIDEO:
        return _video(path, every, max_frames, facts)
    return DicomFrames(path, facts, every, max_frames, fps)


def _video(path: Path, every: int, max_frames: int | None, facts: dict[str, Any]) -> VideoFile:
    """The video stream inside the file, read where it lies."""
    pieces = _fragments(path)
    found = VideoFile(path, every, max_frames, lambda: io.BufferedReader(_Pieces(path, pieces), 1 << 16))
    found.describe.update(kind="dicom", syntax=facts["syntax_name"])
    return found


class DicomFrames:
    """See `Source`. The frames of one file; times by its frame time or rate."""

    camera = None  # DICOM does not tell it

    def __init__(self, path: Path, facts: dict[str, Any], every: int, max_frames: int | None, fps: float) -> None:
        self.path, self.name, self._facts = path, path.stem, facts
        self.width, self.height = facts["Columns"], facts["Rows"]
        total = facts["NumberOfFrames"]
        self._chosen = list(range(0, total, every))[:max_frames]
        self.frame_count = len(self._chosen)
        self._times = _times(facts, total, fps)
        self._offsets = _offsets(path, facts)
        self.skipped: list[tuple[int, str]] = []
        rate = 1e9 / float(np.median(np.diff(self._times))) if total > 1 else fps
        self.describe: dict[str, Any] = {
            "kind": "dicom", "path": str(path), "syntax": facts["syntax_name"], "frames": total, "rate": rate,
            "width": self.width, "height": self.height, "every": every,
        }  # fmt: skip
        if not self.sample(1):
            raise InputError(
                f"not one frame of '{path}' can be decoded ({facts['syntax_name']}; {self._why(0)}); expected an "
                "intact "
                "file; export it again, as MPEG-4 or JPEG Baseline where you can choose"
            )

    def frames(self) -> Iterator[Frame]:
        """The frames in order; see `Source.frames`."""
        self.skipped = []
        yield from self._read(self._chosen, self.skipped)

    def sample(self, count: int) -> list[Frame]:
        """See `Source.sample`; indices and times are exact."""
        at = np.unique(np.linspace(0, len(self._chosen) - 1, count).round().astype(int))
        return list(self._read([self._chosen[i] for i in at], []))

    def _read(self, indices: list[int], skipped: list[tuple[int, str]]) -> Iterator[Frame]:
        for index in indices:
            try:
                rgb = _pixels(self.path, index, self._facts, self._offsets)
            except _errors() as error:
                skipped.append((index, f"damaged ({_plain(error)})"))
                continue
            if rgb.shape[:2] != (self.height, self.width):
                skipped.append((index, f"{rgb.shape[1]} x {rgb.shape[0]}, not {self.width} x {self.height}"))
                continue
            yield Frame.of(rgb, index, int(self._times[index]))

    def _why(self, index: int) -> str:
        try:
            _pixels(self.path, index, self._facts, self._offsets)
        except _errors() as error:
            return _plain(error)
        return "its size is another"


class DicomSlices(Stills):
    """See `Source`. A folder of files with one frame each, in the order of their instance numbers."""

    camera = None

    def __init__(self, path: Path, files: list[Path], every: int, max_frames: int | None, fps: float) -> None:
        facts = [_facts(file) for file in files]
        odd = [f for f, v in zip(files, facts, strict=True) if v["NumberOfFrames"] != 1 or v["syntax"] in _VIDEO]
        series = {v["SeriesInstanceUID"] for v in facts}
        if odd or len(series) > 1:
            what = f"'{odd[0].name}' holds a clip of its own" if odd else f"they belong to {len(series)} series"
            raise InputError(
                f"'{path}' holds {len(files)} DICOM files, and {what}; expected the frames of one series; give "
                "the file or the series that you mean"
            )
        order = np.argsort([v["InstanceNumber"] for v in facts], kind="stable")
        self.name = path.resolve().name
        self.files, self._facts = [files[i] for i in order], [facts[i] for i in order]
        self.width, self.height = self._facts[0]["Columns"], self._facts[0]["Rows"]
        self._chosen = list(range(0, len(files), every))[:max_frames]
        self.frame_count = selected_count(len(files), every, max_frames)
        self._times = _times(self._facts[0], len(files), fps)
        self.skipped: list[tuple[int, str]] = []
        self.describe: dict[str, Any] = {
            "kind": "dicom", "path": str(path), "syntax": self._facts[0]["syntax_name"], "frames": len(files),
            "fps": fps, "width": self.width, "height": self.height, "every": every,
        }  # fmt: skip

    def _read(self, index: int) -> Frame | str:
        try:
            rgb = _pixels(self.files[index], 0, self._facts[index])
        except _errors() as error:
            return f"{self.files[index].name}: damaged ({_plain(error)})"
        if rgb.shape[:2] != (self.height, self.width):
            return f"{self.files[index].name}: {rgb.shape[1]} x {rgb.shape[0]}, not {self.width} x {self.height}"
        return Frame.of(rgb, index, int(self._times[index]))


# -- the header ---------------------------------------------------------------------------------------------------


def _errors() -> tuple[type[Exception], ...]:
    """What pydicom and the decoders raise on files that are damaged or packed in a way that is not installed."""
    from pydicom.errors import BytesLengthException

    lookups = (AttributeError, LookupError, TypeError, ArithmeticError)
    return (ValueError, RuntimeError, OSError, EOFError, MemoryError, struct.error, BytesLengthException, *lookups)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """pydicom's warnings quote values of the header, so they are not let out."""
    import logging

    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _facts(path: Path) -> dict[str, Any]:
    """The few entries of the header that tell how to read the pixels.

    Raises:
        InputError: the file can't be read, or has no pixels.
    """
    import pydicom

    try:
        with _quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_READ))
            syntax = header.file_meta.TransferSyntaxUID
            values: dict[str, Any] = {
                "syntax": str(syntax), "packed": bool(getattr(syntax, "is_encapsulated", False)),
                "syntax_name": str(getattr(syntax, "name", syntax)),
                **{name: _numbers(header.get(name)) for name in _NUMBERS},
                **{name: str(header.get(name) or "") for name in _WORDS},
            }  # fmt: skip
    except _errors() as error:
        raise InputError(
            f"'{path}' can't be read as DICOM ({type(error).__name__}); expected an intact file; export it again"
        ) from None
    for name in _WHOLE:
        values[name] = int(values[name][0]) if values[name] else 0
    if values["Rows"] < 1 or values["Columns"] < 1:
        raise InputError(
            f"'{path}' is DICOM without pictures; expected a video or a multi-frame image; choose the file of the video"
        )
    values["NumberOfFrames"] = max(1, values["NumberOfFrames"])
    if values["NumberOfFrames"] > path.stat().st_size:
        raise InputError(
            f"'{path}' claims to hold {values['NumberOfFrames']} frames, more than it has bytes; expected an intact "
            "file; export it again"
        )
    return values


def _numbers(value: Any) -> list[float]:
    """The finite numbers of an entry, which may have one value, several or none."""
    if value is None or value == "":
        return []
    found = [float(v) for v in np.atleast_1d(value).tolist()]
    if not np.isfinite(found).all():
        raise ValueError("a number that is not finite")
    return found


def _times(facts: dict[str, Any], count: int, fps: float) -> NDArray[np.int64]:
    """Time of each frame, nanoseconds, by the header's steps, its frame time or its rate."""
    steps = facts["FrameTimeVector"]
    if len(steps) == count:
        times = np.cumsum(steps) * 1e6
        if (np.diff(times) > 0).all():
            return np.round(times - times[0]).astype(np.int64)
    told = [*facts["FrameTime"], *(1000 / r for n in _RATES for r in facts[n] if r > 0), 1000 / fps]
    step_ms = next(step for step in told if 0.1 < step < 60_000)
    return np.round(np.arange(count) * step_ms * 1e6).astype(np.int64)


def _plain(error: Exception) -> str:
    """What went wrong, without values of the header, which the text of pydicom's errors may quote."""
    if "plugin" in str(error) or "Unable to de" in str(error):
        return "it can't be decompressed here"
    return f"{type(error).__name__} while reading its pixels"


# -- the pixels ---------------------------------------------------------------------------------------------------


def _pixels(path: Path, index: int, facts: dict[str, Any], offsets: Offsets | None = None) -> NDArray[np.uint8]:
    """Frame `index` as (H, W, 3) uint8 RGB; with `offsets` the frames before it are not looked at."""
    from pydicom.pixels import pixel_array

    with _quiet():
        stored = pixel_array(path, index=index, **({"extended_offsets": offsets} if offsets else {}))
        if facts["PhotometricInterpretation"] == "PALETTE COLOR":
            return _by_palette(path, stored)
    if stored.ndim == 3:
        return np.ascontiguousarray(_to_eight_bits(stored, facts))
    grey = _to_eight_bits(stored, facts)
    if facts["PhotometricInterpretation"] == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=-1)


def _offsets(path: Path, facts: dict[str, Any]) -> Offsets | None:
    """Where each packed frame lies, from the first one, and its length; None unless each frame is one piece."""
    if not facts["packed"]:
        return None
    try:
        pieces = _fragments(path)
    except InputError:
        return None  # the reading of the frames will say which of them are damaged
    if len(pieces) != facts["NumberOfFrames"]:
        return None
    return [offset - pieces[0][0] for offset, _ in pieces], [length for _, length in pieces]


def _by_palette(path: Path, stored: NDArray[np.generic]) -> NDArray[np.uint8]:
    import pydicom
    from pydicom.pixels import apply_color_lut

    tables = [f"{c}PaletteColorLookupTable{what}" for c in ("Red", "Green", "Blue") for what in ("Descriptor", "Data")]
    header: Dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tables)
    rgb = apply_color_lut(stored, header)
    return (rgb >> 8).astype(np.uint8) if rgb.dtype == np.uint16 else rgb.astype(np.uint8)


def _to_eight_bits(stored: NDArray[np.generic], facts: dict[str, Any]) -> NDArray[np.uint8]:
    bits = facts["BitsStored"] if 0 < facts["BitsStored"] <= 32 else 8 * stored.dtype.itemsize
    if stored.dtype == np.uint8 and bits == 8:
        return stored
    low = -(2.0 ** (bits - 1)) if facts["PixelRepresentation"] else 0.0
    high = low + 2.0**bits - 1
    if facts["WindowCenter"] and facts["WindowWidth"] and stored.ndim == 2:
        centre, width = facts["WindowCenter"][0], facts["WindowWidth"][0]
        low, high = centre - width / 2, centre + width / 2
    scaled = (stored.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _fragments(path: Path) -> list[tuple[int, int]]:
    """Where the pieces of the encapsulated stream lie: offset and length in the file.

    Raises:
        InputError: there are no pixels, or the file is cut short.
    """
    import pydicom
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    try:
        with _quiet(), path.open("rb") as file:
            # What stands before the pixels is passed over.
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows"])
            start = file.tell()
            head = file.read(12)
            if head[:4] != b"\xe0\x7f\x10\x00" or head[8:12] != b"\xff\xff\xff\xff":
                raise ValueError("its pixels are not packed as its header says")
            start += 12
            parse_basic_offsets(file)
            first = file.tell()
            _, offsets = parse_fragments(file)
            size = path.stat().st_size
            pieces = []
            for offset in offsets:
                file.seek(offset + 4)
                length = int.from_bytes(file.read(4), "little")
                if offset < first or offset + 8 + length > size:
                    raise ValueError("it is cut short")
                pieces.append((offset + 8, length))
    except _errors() as error:
        raise InputError(
            f"the video in '{path}' can't be found ({type(error).__name__}); expected an intact DICOM file; "
            "export it again"
        ) from None
    if not pieces:
        raise InputError(f"'{path}' is DICOM with an empty video; expected pictures; export it again")
    return pieces


class _Pieces(io.RawIOBase):
    """Pieces of a file, one after the other, as a file that can be read and sought in."""

    def __init__(self, path: Path, pieces: list[tuple[int, int]]) -> None:
        self._file: IO[bytes] = path.open("rb")
        self._pieces = pieces
        self._starts = np.concatenate([[0], np.cumsum([length for _, length in pieces])])
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._at, 2: int(self._starts[-1])}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._at < self._starts[-1]:
            piece = int(np.searchsorted(self._starts, self._at, side="right")) - 1
            inside = self._at - int(self._starts[piece])
            offset, length = self._pieces[piece]
            self._file.seek(offset + inside)
            data = self._file.read(min(len(view) - done, length - inside))
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
            self._at += len(data)
        return done

    def close(self) -> None:
        self._file.close()
        super().close()
