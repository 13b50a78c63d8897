"""One sequence of a data set: its frames in order, with the data set's times and camera, and its masks of tissue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from video_io.errors import InputError
from video_io.footage import Footage
from video_io.frame import Frame
from video_io.sources.base import Source, selected_count
from video_io.sources.images import ImageFolder, check_readable, common_size

if TYPE_CHECKING:
    from video_io.datasets import Truth


def accepts(path: Path) -> bool:
    """Whether this file reads the input."""
    from video_io.datasets import layout_of

    return path.is_dir() and layout_of(path) is not None


def open(path: Path, every: int, max_frames: int | None, fps: float) -> Source:
    """Open the frames of a data set; `fps` is not used, because the data set has its own times.

    Raises:
        InputError: the folder is incomplete, or holds no picture.
    """
    from video_io.datasets import open_truth

    truth = open_truth(path)
    if truth.image_paths:
        return DatasetImages(path, truth, every, max_frames)
    if truth.footage is not None:
        return DatasetVideo(path, truth, truth.footage, every, max_frames)
    video = next((p for p in sorted(path.glob("*.mp4"))), None)
    hint = f"give the video '{video}'" if video else "complete the folder"
    raise InputError(f"'{path}' ({truth.layout}) holds no pictures; expected its images or its video; {hint}")


class DatasetImages(ImageFolder):
    """See `Source`. Frames are those that the data set has truth for, at its times."""

    def __init__(self, path: Path, truth: Truth, every: int, max_frames: int | None) -> None:
        files = list(truth.image_paths)
        width, height = common_size(files)
        check_readable(files)
        times = truth.times_ns
        rate = 1e9 / float(np.median(np.diff(times))) if len(times) > 1 else 30.0
        super().__init__(path, files, width, height, every, max_frames, rate)
        self.camera = truth.camera
        if self.camera is not None and (self.camera.width, self.camera.height) != (width, height):
            # Images of one or two pixels more lose the last ones.
            self.camera = self.camera.cropped(0, 0, width, height)
        self._truth, self._times = truth, times
        self.describe.update(_told(truth))

    def _read(self, index: int) -> Frame | str:
        frame = super()._read(index)
        if isinstance(frame, str):
            return frame
        return _masked(replace(frame, time_ns=int(self._times[index])), self._truth)


class DatasetVideo:
    """See `Source`. The part of the data set's video that shows one camera."""

    def __init__(self, path: Path, truth: Truth, footage: Footage, every: int, max_frames: int | None) -> None:
        self.name = path.resolve().name
        self.width, self.height = footage.size
        self.camera = truth.camera
        self._truth, self._footage, self._every, self._max_frames = truth, footage, every, max_frames
        self.frame_count = selected_count(footage.count or None, every, max_frames)
        self.describe: dict[str, Any] = {
            **footage.describe(), **_told(truth), "width": self.width, "height": self.height, "every": every,
        }  # fmt: skip
        self.skipped: list[tuple[int, str]] = []

    def frames(self) -> Iterator[Frame]:
        """The frames in order of presentation; see `Source.frames`."""
        given = 0
        self.skipped = []
        for frame in self._footage.video.frames():
            if frame.index % self._every == 0:
                yield self._ready(frame)
                given += 1
                if given == self._max_frames:
                    break
        self.skipped = list(self._footage.video.skipped)

    def sample(self, count: int) -> list[Frame]:
        """See `Source.sample`."""
        from video_io.sources.video import VideoFile

        video = VideoFile(self._footage.path, self._every, self._max_frames)
        return [self._ready(frame) for frame in video.sample(count)]

    def _ready(self, frame: Frame) -> Frame:
        return _masked(self._footage.cut(frame), self._truth)


def _told(truth: Truth) -> dict[str, Any]:
    return {"kind": "dataset", "layout": truth.layout, "notes": list(truth.notes)}


def _masked(frame: Frame, truth: Truth) -> Frame:
    mask = truth.mask(frame.index) if frame.index < truth.frame_count else None
    if mask is None:
        return frame
    return replace(frame, use_mask=frame.use_mask & mask[: frame.height, : frame.width])
