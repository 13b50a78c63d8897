"""C3VD (Bobrow et al., Medical Image Analysis 2023): a colonoscope in a silicone phantom, registered to its model.

NNNN_color.png, NNNN_depth.tiff (uint16, mm = value / 65535 * 100, z; 0 and 65535 are invalid), pose.txt (row i,
counted from 0, = image with number i; 16 values by columns, camera-to-world, mm), intrinsics.json (OpenCV fisheye).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.camera_files import read_camera
from video_io.datasets.base import Depth, Truth, check_count, read_depth_image
from video_io.errors import InputError
from video_io.files import read_text
from video_io.sources.images import natural_key
from video_io.trajectory import Trajectory

FPS = 30.0  # the poses carry no times; a folder of images runs at this rate as well


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return any(folder.glob("*_depth.tiff"))


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    images = tuple(sorted(folder.glob("*_color.png"), key=natural_key))
    depths = tuple(sorted(folder.glob("*_depth.tiff"), key=natural_key))
    check_count(folder, len(images), len(depths), "depth images")
    camera = read_camera(folder / "intrinsics.json") if (folder / "intrinsics.json").is_file() else None
    trajectory = None
    if (folder / "pose.txt").is_file():
        trajectory = _read_poses(folder / "pose.txt", [int(natural_key(p)[1]) for p in depths])

    def depth(index: int) -> Depth:
        stored = read_depth_image(depths[index])
        valid = (stored > 0) & (stored < 65535)
        return np.where(valid, stored.astype(np.float32) * np.float32(100 / 65535), np.float32(0))

    meshes = sorted(folder.glob("*.obj")) + sorted(folder.glob("*.ply"))
    name = folder.resolve().name
    return Truth(name, "c3vd", camera, trajectory, images, len(depths), meshes[0] if meshes else None, depth)


def _read_poses(path: Path, numbers: list[int]) -> Trajectory:
    """The poses of the images with these numbers: extracts of a sequence keep their numbers and the whole file."""
    rows = [line.replace(",", " ").split() for line in read_text(path).splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != 16:
            raise InputError(
                f"{path}, line {number} has {len(row)} values; expected the 16 of a 4 x 4 matrix by columns"
            )
    if max(numbers) >= len(rows):
        raise InputError(f"{path} has {len(rows)} rows, but there is an image {max(numbers):04d}; complete the file")
    poses = np.array(rows, float).reshape(-1, 4, 4).transpose(0, 2, 1)[numbers]
    if not np.allclose(poses[:, 3], [0, 0, 0, 1], atol=1e-6):
        raise InputError(f"{path}: the matrices' last row is not 0 0 0 1; expected values by columns; transpose them")
    # Six decimals leave the rotations orthogonal to 1e-6 only.
    u, _, vt = np.linalg.svd(poses[:, :3, :3])
    poses[:, :3, :3] = u @ vt
    return Trajectory(np.round(np.arange(len(poses)) * 1e9 / FPS).astype(np.int64), poses)
