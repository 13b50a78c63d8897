"""Our own layout, which `simulate` writes.

rgb/%04d.png or .jpg, depth/%04d.png (16 bit, z, mm = value / depth_scale, which is 400 unless intrinsics.json says
otherwise, 0 = none), mask/%04d.png (white where there is a surface; not in every clip), poses.txt (TUM,
camera-to-world, mm), intrinsics.json, mesh.ply (mm), video.mp4. Lengths are up to scale where intrinsics.json has that
as their `unit`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.camera_files import read_camera
from video_io.datasets.base import MM, UP_TO_SCALE, Depth, Mask, Truth, check_count, read_depth_image, read_mask_image
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
    told = parse_json(read_text(folder / "intrinsics.json"))
    scale, unit = told.get("depth_scale", DEPTH_SCALE), told.get("unit", MM)
    if not (isinstance(scale, (int, float)) and scale > 0):
        raise InputError(
            f"'{folder / 'intrinsics.json'}' has depth_scale {scale}; expected stored steps a mm, such as 400"
        )
    if unit not in (MM, UP_TO_SCALE):
        raise InputError(
            f"'{folder / 'intrinsics.json'}' has the unit '{unit}'; expected '{MM}' or '{UP_TO_SCALE}'; write either"
        )
    images = _files(folder / "rgb")
    depths = _files(folder / "depth")
    masks = _files(folder / "mask")
    trajectory = Trajectory.read_tum(folder / "poses.txt") if (folder / "poses.txt").is_file() else None
    count = len(depths) or len(images) or (len(trajectory) if trajectory else 0)
    if images and depths:
        check_count(folder, len(images), len(depths), "depth images")
    if masks:
        check_count(folder, count, len(masks), "masks")
    if trajectory is not None:
        check_count(folder, count, len(trajectory), "poses")

    def depth(index: int) -> Depth:
        return (read_depth_image(depths[index]).astype(np.float32) / np.float32(scale)).astype(np.float32)

    def mask(index: int) -> Mask:
        return read_mask_image(masks[index], (camera.width, camera.height))

    mesh = folder / "mesh.ply"
    return Truth(
        folder.resolve().name, "phantom", camera, trajectory, images, count,
        mesh if mesh.is_file() else None, depth if depths else None, unit, read_mask=mask if masks else None,
    )  # fmt: skip


def _files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=natural_key))
