"""C3VDv2 (Golhar et al., 2025): C3VD's successor.

rgb/NNNN.png, depth/NNNN_depth.tiff (as C3VD's: uint16, mm = value / 65535 * 100, z; 0 and 65535 are invalid), pose.txt
(as C3VD's), camera_intrinsics.txt (Scaramuzza), coverage_mesh.obj. Clips v2 to v4 repeat v1's path with debris and
moving tissue, which the truth of v1 does not know.
"""

from __future__ import annotations

from pathlib import Path

from video_io.datasets.base import Truth, check_count, files_in, image_size
from video_io.datasets.c3vd import camera_of, depth_mm, read_poses, same_numbers


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "rgb").is_dir() and any(folder.glob("depth/*_depth.tiff"))


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    images, depths = files_in(folder / "rgb"), files_in(folder / "depth", "*_depth.tiff")
    check_count(folder, len(images), len(depths), "depth images")
    numbers = same_numbers(images, depths)
    trajectory = read_poses(folder / "pose.txt", numbers) if (folder / "pose.txt").is_file() else None
    known = any(folder.glob("*intrinsics*"))
    camera = camera_of(folder, image_size(images[0])) if known else None
    notes = () if known else ("camera: camera_intrinsics.txt is missing",)
    mesh = folder / "coverage_mesh.obj"
    return Truth(
        folder.resolve().name, "c3vdv2", camera, trajectory, images, len(images), mesh if mesh.is_file() else None,
        lambda index: depth_mm(depths[index]), notes=notes,
    )  # fmt: skip
