"""Ground truth of a clip, however a data set stores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory

Depth = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """What is known of a clip beside its images.

    Attributes:
        name: the folder's name.
        layout: which file of this slot read it.
        camera: of the whole image, or None.
        trajectory: one camera-to-world pose a frame, mm; or None.
        image_paths: the colour images, one a frame; empty where there is only a video.
        frame_count: number of frames with truth.
        mesh_path: the true surface, mm; or None.
        read_depth: reads frame i's depth, or None where there is none.
        unit: of poses and depth, `mm` or `up to scale`.
    """

    name: str
    layout: str
    camera: Camera | None
    trajectory: Trajectory | None
    image_paths: tuple[Path, ...]
    frame_count: int
    mesh_path: Path | None
    read_depth: Callable[[int], Depth] | None
    unit: str = "mm"

    def depth(self, index: int) -> Depth | None:
        """z-depth of frame `index`, (H, W) float32 mm, 0 where there is none; None for a data set without depth.

        Raises:
            InputError: no such frame, or its file can't be read.
        """
        if self.read_depth is None:
            return None
        if not 0 <= index < self.frame_count:
            raise InputError(f"{self.name} has truth for {self.frame_count} frames, but frame {index} was asked for")
        return self.read_depth(index)


def read_depth_image(path: Path) -> NDArray[np.generic]:
    """The stored values of a depth image, all bits kept.

    Raises:
        InputError: the file can't be read, or has 8 bits, which is too coarse to be depth.
    """
    image = _imread(path)
    if image is None:
        raise InputError(f"depth image '{path}' can't be read; expected an intact 16-bit PNG or TIFF; fetch it again")
    if image.dtype == np.uint8:
        raise InputError(
            f"depth image '{path}' has 8 bits a pixel; expected 16 bits; export the depth with full precision"
        )
    return image


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file.

    Raises:
        InputError: it can't be read.
    """
    image = _imread(path)
    if image is None:
        raise InputError(f"image '{path}' can't be read; expected an intact picture; fetch it again")
    return image.shape[1], image.shape[0]


def _imread(path: Path) -> NDArray[np.generic] | None:
    # a pipe would block for ever; a header may claim more pixels than memory
    try:
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    except cv2.error:
        return None


def check_count(folder: Path, images: int, other: int, what: str) -> None:
    """Raise InputError unless there are as many `what` as images."""
    if images != other:
        raise InputError(
            f"'{folder}' holds {images} images but {other} {what}; expected one for each; complete the folder"
        )
