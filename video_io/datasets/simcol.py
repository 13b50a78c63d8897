"""SimCol3D (Rau et al., 2023): a rendered colon.

SyntheticColon_I/Frames_S5/FrameBuffer_%04d.png and Depth_%04d.png, whose 16 bits give cm = value / 256 / 255 * 20, z.
Beside the frames' folder lie SavedPosition_S5.txt (cm), SavedRotationQuaternion_S5.txt (x y z w), both camera-to-world
in Unity's left-handed axes, and cam.txt. The camera is the same for all sequences: 475 x 475, with a principal point
that is off-centre in x as published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.camera import Camera
from video_io.datasets.base import (
    Depth,
    Truth,
    check_count,
    files_in,
    frame_times,
    from_quaternions,
    image_size,
    matrix_in,
    read_depth_image,
    rigid,
    table_in,
)
from video_io.errors import InputError
from video_io.trajectory import Trajectory

CAMERA = Camera.pinhole(475, 475, 227.604, 237.5, 227.604, 237.5)
# Unity's y axis points up; turned round in the world and in the camera, left-handed becomes right-handed.
FLIP = np.diag([1.0, -1.0, 1.0, 1.0])


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return any(folder.glob("Depth_*.png"))


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    images, depths = files_in(folder, "FrameBuffer_*.png"), files_in(folder, "Depth_*.png")
    check_count(folder, len(images), len(depths), "depth images")
    size = image_size(images[0])
    camera = CAMERA if size == (475, 475) else None
    if (path := folder.resolve().parent / "cam.txt").is_file():
        k = matrix_in(path)
        camera = Camera.pinhole(*size, k[0, 0], k[1, 1], k[0, 2], k[1, 2])

    def depth(index: int) -> Depth:
        stored = read_depth_image(depths[index])
        values = stored if stored.ndim == 2 else stored[..., 0]
        return (values.astype(np.float32) * np.float32(200 / (256 * 255))).astype(np.float32)

    first = int(images[0].stem.split("_")[-1])
    return Truth(
        folder.resolve().name, "simcol", camera, _poses(folder, len(images), first), images, len(images), None, depth
    )


def _poses(folder: Path, count: int, first: int) -> Trajectory | None:
    """The poses of the images, whose first has the number `first`; None where there are no files of them."""
    name = folder.resolve().name.removeprefix("Frames")
    for place in (folder, folder.resolve().parent):
        position = place / f"SavedPosition{name}.txt"
        rotation = place / f"SavedRotationQuaternion{name}.txt"
        if position.is_file() or rotation.is_file():
            break
    else:
        return None
    centres = 10 * table_in(position, 3, "3 numbers x y z, cm, for each image")
    turns = table_in(rotation, 4, "a quaternion x y z w for each image")
    if len(centres) != len(turns):
        raise InputError(
            f"'{position}' has {len(centres)} positions, '{rotation.name}' {len(turns)} rotations; expected the same "
            "number of both; fetch them again"
        )
    if first + count > len(centres):
        raise InputError(
            f"'{position}' has {len(centres)} poses, but there is an image {first + count - 1:04d}; expected one for "
            "each; complete the file"
        )
    poses = FLIP @ from_quaternions(centres, turns, str(rotation)) @ FLIP
    return Trajectory(frame_times(count), rigid(poses[first : first + count], str(rotation)))
