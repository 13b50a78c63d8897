"""One camera's part of a video: stereo recordings hold both eyes in one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources.video import VideoFile

PARTS = ("whole", "upper", "lower", "left", "right")


@dataclass
class Footage:
    """A video's frames by number, cut to one part.

    Attributes:
        path: the video.
        part: one of `PARTS`.
        video: its reader.
    """

    path: Path
    part: str
    video: VideoFile
    _frames: Iterator[Frame] | None = field(default=None, repr=False)
    _last: Frame | None = field(default=None, repr=False)

    @staticmethod
    def open(path: Path, part: str = "whole") -> Footage:
        """Open the video.

        Raises:
            InputError: it is missing or no video, or can't be halved.
        """
        from video_io.sources.video import open as open_video

        if not path.is_file():
            raise InputError(f"the video '{path}' is missing; expected it beside the other files; complete the folder")
        video = open_video(path, 1, None, 30.0)
        assert isinstance(video, VideoFile)
        side = video.height if part in ("upper", "lower") else video.width
        if part != "whole" and side % 2:
            raise InputError(
                f"'{path}' is {video.width} x {video.height}; expected two pictures of the same size in one; "
                "take the video as it was released"
            )
        return Footage(path, part, video)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the part."""
        _, _, w, h = self.box
        return w, h

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the part in the video's picture."""
        w, h = self.video.width, self.video.height
        if self.part in ("upper", "lower"):
            return 0, h // 2 if self.part == "lower" else 0, w, h // 2
        if self.part in ("left", "right"):
            return w // 2 if self.part == "right" else 0, 0, w // 2, h
        return 0, 0, w, h

    @property
    def rate(self) -> float:
        """Frames a second, as the file tells it."""
        return float(self.video.describe["rate"])

    @property
    def count(self) -> int:
        """How many frames the file says that it holds, 0 where it does not tell."""
        return int(self.video.describe["frames"] or 0)

    def other(self) -> Footage:
        """The same video's other half."""
        names = {"upper": "lower", "lower": "upper", "left": "right", "right": "left", "whole": "whole"}
        return Footage(self.path, names[self.part], self.video)

    def cut(self, frame: Frame) -> Frame:
        """The part of a whole frame of this video."""
        return frame if self.part == "whole" else frame.cropped(*self.box)

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Frame `number`, (H, W, 3) uint8 RGB. Fast in rising order; going back reads from the start.

        Raises:
            InputError: the video has no such frame, or it is damaged.
        """
        if self._last is None or self._last.index > number:
            self._frames, self._last = self.video.frames(), None
        while self._last is None or self._last.index < number:
            self._last = next(self._frames, None) if self._frames is not None else None
            if self._last is None:
                break
        if self._last is None or self._last.index != number:
            raise InputError(
                f"'{self.path}' has no frame {number} that can be read; expected {self.count} frames; fetch it again"
            )
        return self.cut(self._last).rgb

    def describe(self) -> dict[str, Any]:
        """Plain values: the video's, and which part."""
        return {**self.video.describe, "part": self.part}
