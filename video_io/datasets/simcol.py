"""SimCol3D (Rau et al., 2023): a rendered colon.

FrameBuffer_%04d.png and Depth_%04d.png, whose 16 bits give cm = value / 256 / 255 * 20, z. The camera is the data set's
own: 475 x 475, the same for all sequences, with a principal point that is off-centre in x as published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.camera import Camera
from video_io.datasets.base import Depth, Truth, check_count, read_depth_image
from video_io.sources.images import natural_key

CAMERA = Camera.pinhole(475, 475, 227.604, 237.5, 227.604, 237.5)


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return any(folder.glob("Depth_*.png"))


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    images = tuple(sorted(folder.glob("FrameBuffer_*.png"), key=natural_key))
    depths = tuple(sorted(folder.glob("Depth_*.png"), key=natural_key))
    check_count(folder, len(images), len(depths), "depth images")

    def depth(index: int) -> Depth:
        stored = read_depth_image(depths[index])
        values = stored if stored.ndim == 2 else stored[..., 0]
        return (values.astype(np.float32) * np.float32(200 / (256 * 255))).astype(np.float32)

    return Truth(folder.resolve().name, "simcol", CAMERA, None, images, len(depths), None, depth)
