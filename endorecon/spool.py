"""Where frames and what the network says of them wait between the two passes: on disk, so that memory does not grow
with the video, a source is read once, and a run that is killed finds again what it had paid for."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import zlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.appearance import Appearance
from endorecon.tracking.densify import NetworkDepth
from video_io.errors import InputError
from video_io.frame import Frame

Float = NDArray[np.float64]

# Mark, index, time_ns, height, width, CRC-32 of what stands before it and of what follows.
_HEAD = struct.Struct("<4sqqIII")
_MARK = b"ERF1"
_PUNCH_HOLE_KEEP_SIZE = 3  # of linux/falloc.h
_LOOK_BYTES = 4 * 3 + 128  # of a feature


class Spool:
    """A file to which frames are added, about 0.8 MB each at 320 x 256; what is there when it is opened counts.

    Each record is whole or not there: one that was cut short or is damaged is taken off, with all that follows it.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            InputError: it can't be made.
        """
        self.path = path
        try:
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
            self._at, self._number = _whole(path)
            self._file.truncate(self._at[-1])
            self._gone: set[int] = set()
        except OSError as error:
            raise _full(path, error) from error

    def __len__(self) -> int:
        return len(self._at) - 1 - len(self._gone)

    def __contains__(self, index: int) -> bool:
        """Whether the frame with this source index was kept."""
        return index in self._number

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def keep(self, frame: Frame, net: NetworkDepth, guess: Float) -> None:
        """Add a frame (but for its camera), what the network says of its depth, and of its motion: (4, 4).

        Raises:
            InputError: the disk is full.
        """
        masks = np.packbits(np.stack([frame.use_mask, frame.specular_mask]))
        # The wider numbers first, so that all are aligned.
        arrays = (guess.astype(np.float64), net.distance, net.log_std.astype(np.float16), frame.rgb, masks)
        body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        facts = (_MARK, frame.index, frame.time_ns, frame.height, frame.width)
        record = _HEAD.pack(*facts, _checksum(facts, body)) + body
        try:
            if self._file.write(record) != len(record):
                raise OSError("the disk is full")
        except OSError as error:
            raise _full(self.path, error) from error
        self._number[frame.index] = len(self._at) - 1
        self._at.append(self._at[-1] + len(record))

    def drop(self, index: int) -> None:
        """Let go of the frame with this source index, if it was kept, and of its room on the disk where that can be; it
        is not for files that are to be opened again, of which what follows is lost."""
        if (number := self._number.pop(index, None)) is not None:
            self._gone.add(number)
            _punch(self._file.fileno(), self._at[number], self._at[number + 1] - self._at[number])

    def at(self, index: int) -> tuple[Frame, NetworkDepth]:
        """One frame that was kept, by its source index."""
        frame, net, _ = next(self.read(self._number[index]))
        return frame, net

    def read(self, first: int = 0) -> Iterator[tuple[Frame, NetworkDepth, Float]]:
        """What was kept, in the order in which it came, from number `first` on."""
        end = len(self._at) - 1
        with open(self.path, "rb") as file:
            for number in range(first, end):
                if number in self._gone:
                    continue
                file.seek(self._at[number])
                _, index, time_ns, height, width, _ = _HEAD.unpack(file.read(_HEAD.size))
                body = bytearray(self._at[number + 1] - self._at[number] - _HEAD.size)
                file.readinto(body)
                yield _unpacked(index, time_ns, (height, width), body)


class Shelf:
    """A file in which arrays are put down, to be taken up again in the same order."""

    def __init__(self, path: Path) -> None:
        """Make the file.

        Raises:
            InputError: it can't be made.
        """
        self.path = path
        try:
            self._file = open(path, "wb")  # noqa: SIM115 - closed by `all`
        except OSError as error:
            raise _full(path, error) from error

    def put(self, array: NDArray[Any]) -> None:
        """Add one.

        Raises:
            InputError: the disk is full.
        """
        try:
            np.save(self._file, array, allow_pickle=False)
        except OSError as error:
            raise _full(self.path, error) from error

    def all(self) -> Iterator[NDArray[Any]]:
        """All of them; nothing can be added any more."""
        try:
            self._file.close()
        except OSError as error:
            raise _full(self.path, error) from error
        with open(self.path, "rb") as file:
            end = self.path.stat().st_size
            while file.tell() < end:
                yield np.load(file, allow_pickle=False)


class LookFile:
    """A file for what key frames look like: 20 kB each, which would lie in memory for hours, to be read once in the
    end. One thread adds."""

    def __init__(self, path: Path) -> None:
        """Make the file.

        Raises:
            InputError: it can't be made.
        """
        self.path, self._end = path, 0
        try:
            self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - closed when it is let go of
        except OSError as error:
            raise _full(path, error) from error

    def read(self, at: int, count: int) -> Appearance:
        """The look of so many features that begins there."""
        data = os.pread(self._file.fileno(), count * _LOOK_BYTES, at)
        pixels = np.frombuffer(data, np.float32, 2 * count).reshape(count, 2)
        log_net = np.frombuffer(data, np.float32, count, 8 * count)
        return Appearance(pixels, np.frombuffer(data, np.uint8, offset=12 * count).reshape(count, 128), log_net)

    def add(self, look: Appearance) -> int:
        """Add a look; returns where it begins.

        Raises:
            InputError: the disk is full.
        """
        arrays = (look.pixels, look.log_net, look.descriptor)
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        try:
            if os.pwrite(self._file.fileno(), data, self._end) != len(data):
                raise OSError("the disk is full")
        except OSError as error:
            raise _full(self.path, error) from error
        self._end += len(data)
        return self._end - len(data)


class Looks(MutableMapping[int, Appearance]):
    """What the key frames of one map look like, by their numbers, in a file that maps share."""

    def __init__(self, file: LookFile) -> None:
        self._file = file
        self._at: dict[int, tuple[int, int]] = {}  # where a look begins, and how many features it has

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._at))

    def clear(self) -> None:
        self._at.clear()

    def __contains__(self, number: object) -> bool:
        return number in self._at

    def __getitem__(self, number: int) -> Appearance:
        return self._file.read(*self._at[number])

    def __setitem__(self, number: int, look: Appearance) -> None:
        self._at[number] = self._file.add(look), len(look)

    def __delitem__(self, number: int) -> None:
        del self._at[number]


def _whole(path: Path) -> tuple[list[int], dict[int, int]]:
    """Where each whole record begins, and where the last one ends; numbers of the records by source index."""
    at, number = [0], {}
    with open(path, "rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            *facts, crc = _HEAD.unpack(head)
            if facts[0] != _MARK:
                break
            body = file.read(_size(facts[3], facts[4]))
            if len(body) < _size(facts[3], facts[4]) or _checksum(tuple(facts), body) != crc:
                break
            number[facts[1]] = len(at) - 1
            at.append(at[-1] + _HEAD.size + len(body))
    return at, number


def _punch(file: int, at: int, length: int) -> None:
    """Give a part of a file back to the disk; nothing happens where the system or the disk can't do that."""
    if sys.platform.startswith("linux"):
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate(file, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(at), ctypes.c_int64(length))


def _checksum(facts: tuple[object, ...], body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(repr(facts).encode()))


def _size(height: int, width: int) -> int:
    pixels = height * width
    return 16 * 8 + pixels * (4 + 2 + 3) + -(-2 * pixels // 8)


def _unpacked(index: int, time_ns: int, shape: tuple[int, int], body: bytearray) -> tuple[Frame, NetworkDepth, Float]:
    at, pixels = 0, shape[0] * shape[1]

    def take(kind: type, count: int) -> NDArray[Any]:
        nonlocal at
        array = np.frombuffer(body, kind, count, at)
        at += array.nbytes
        return array

    guess, distance = take(np.float64, 16).reshape(4, 4), take(np.float32, pixels).reshape(shape)
    log_std, rgb = take(np.float16, pixels).reshape(shape), take(np.uint8, 3 * pixels).reshape(*shape, 3)
    masks = np.unpackbits(take(np.uint8, len(body) - at), count=2 * pixels).astype(bool)
    use, specular = masks.reshape(2, *shape)
    return Frame(index, time_ns, rgb, use, specular), NetworkDepth(distance, log_std.astype(np.float32)), guess


def _full(path: Path, error: OSError) -> InputError:
    return InputError(
        f"can't keep intermediate results in '{path.parent}' ({error.strerror or 'the disk is full'}); "
        "free some space or choose another folder with --out"
    )
