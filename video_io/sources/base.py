"""What every kind of input offers, however it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import read_bytes
from video_io.frame import Frame

_MOST_MB = 1000  # of an image file


@runtime_checkable
class Source(Protocol):
    """A clip that can be read any number of times.

    Attributes:
        name: short name, for a run's folder and for messages.
        width, height: size of the frames as displayed, pixels.
        frame_count: how many frames `frames` will give, None when the input does not tell; an estimate, because a
            container's header may be wrong.
        describe: plain values that say what the input is (kind, path, rate, codec, ...).
        camera: of the whole frame, where the input tells it.
        skipped: (index, reason) of each frame that could not be read; complete after an iteration to the end.
    """

    name: str
    width: int
    height: int
    frame_count: int | None
    describe: dict[str, Any]
    camera: Camera | None
    skipped: list[tuple[int, str]]

    def frames(self) -> Iterator[Frame]:
        """The frames in order, each time from the start: whole size, upright, masks open, no camera.

        `Frame.index` counts every frame of the input, the skipped ones and those that `every` leaves out too.
        """
        ...

    def sample(self, count: int) -> list[Frame]:
        """Up to `count` frames spread over the clip, in order, by random access where the input allows.

        Their times are exact; the index of a video's sample is worked out from its time and the mean frame rate.
        """
        ...


class Stills:
    """The part of a `Source` that is alike for all whose frames are files or pieces that can be read in any order."""

    _chosen: list[int]
    skipped: list[tuple[int, str]]

    def frames(self) -> Iterator[Frame]:
        """The frames in order; see `Source.frames`."""
        self.skipped = skipped = []
        for index in self._chosen:
            frame = self._read(index)
            if isinstance(frame, str):
                skipped.append((index, frame))
            else:
                yield frame

    def sample(self, count: int) -> list[Frame]:
        """See `Source.sample`; the indices are exact."""
        at = np.unique(np.linspace(0, len(self._chosen) - 1, count).round().astype(int))
        read = [self._read(self._chosen[i]) for i in at]
        return [frame for frame in read if not isinstance(frame, str)]

    def _read(self, index: int) -> Frame | str:
        """A frame, or why it can't be read."""
        raise NotImplementedError


def check_selection(every: int, max_frames: int | None, fps: float) -> None:
    """Raise InputError unless the choice of frames makes sense."""
    if every < 1:
        raise InputError(f"every is {every}, but it must be 1 (all frames) or more; give --every 1 or leave it out")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max-frames is {max_frames}, but at least one frame is needed; give a larger --max-frames")
    if not fps > 0:
        raise InputError(f"the frame rate is {fps}, but it must be positive; give frames a second, such as 30")


def selected_count(total: int | None, every: int, max_frames: int | None) -> int | None:
    """How many of `total` frames the choice leaves."""
    if total is None:
        return None
    count = -(-total // every)
    return count if max_frames is None else min(count, max_frames)


def decode_image(path: Path) -> NDArray[np.uint8]:
    """The image file as (H, W, 3) uint8 RGB, EXIF rotation applied.

    Raises:
        ValueError: with the reason, when the file is empty, cut short, not an image, or holds depth.
    """
    data = read_bytes(path, _MOST_MB)
    if not data:
        raise ValueError("the file is empty")
    # Decoders fill what is missing with grey and say nothing, so the end marks are looked for here.
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:]:
        raise ValueError("the JPEG file is cut short")
    if data[:4] == b"\x89PNG" and b"IEND" not in data[-4096:]:
        raise ValueError("the PNG file is cut short")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:  # more pixels than memory, by what its header says
        raise ValueError("the file can't be decoded as an image") from error
    if image is None:
        raise ValueError("the file can't be decoded as an image")
    if image.dtype == np.uint16:
        if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]):
            raise ValueError("it is a 16-bit grey image, which looks like depth")
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(f"its pixels are {image.dtype}, which looks like depth")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
