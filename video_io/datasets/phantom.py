"""Our own layout, which `simulate` writes.

rgb/%04d.png or .jpg, depth/%04d.png (16 bit, z, mm = value / depth_scale, which is 400 unless intrinsics.json says
otherwise, 0 = none), poses.txt (TUM, camera-to-world, mm), intrinsics.json, mesh.ply (mm), video.mp4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.camera_files import read_camera
from video_io.datasets.base import Depth, Truth, check_count, read_depth_image
from video_io.errors import InputError
from video_io.files import parse_json, read_text
from video_io.sources.images import SUFFIXES, natural_key
from video_io.trajectory import Trajectory

DEPTH_SCALE = 400.0


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "intrinsics.json").is_file() and ((folder / "depth").is_dir() or (folder / "poses.txt").is_file())


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    camera = read_camera(folder / "intrinsics.json")
    scale = parse_json(read_text(folder / "intrinsics.json")).get("depth_scale", DEPTH_SCALE)
    if not (isinstance(scale, (int, float)) and scale > 0):
        raise InputError(
            f"'{folder / 'intrinsics.json'}' has depth_scale {scale}; expected stored steps a mm, such as 400"
        )
    images = _files(folder / "rgb")
    depths = _files(folder / "depth")
    trajectory = Trajectory.read_tum(folder / "poses.txt") if (folder / "poses.txt").is_file() else None
    count = len(depths) or len(images) or (len(trajectory) if trajectory else 0)
    if images and depths:
        check_count(folder, len(images), len(depths), "depth images")
    if trajectory is not None:
        check_count(folder, count, len(trajectory), "poses")

    def depth(index: int) -> Depth:
        return (read_depth_image(depths[index]).astype(np.float32) / np.float32(scale)).astype(np.float32)

    mesh = folder / "mesh.ply"
    return Truth(
        folder.resolve().name, "phantom", camera, trajectory, images, count,
        mesh if mesh.is_file() else None, depth if depths else None,
    )  # fmt: skip


def _files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=natural_key))
