"""C3VD (Bobrow et al., Medical Image Analysis 2023): a colonoscope in a silicone phantom, registered to its model.

NNNN_color.png and NNNN_depth.tiff (some sequences unpadded, 0_color.png; uint16, mm = value / 65535 * 100, z; 0 and
65535 are invalid), pose.txt (row i, counted from 0, = image with number i; 16 values by columns, camera-to-world, mm),
and a mesh. The camera is in intrinsics.json, or else the published one of all sequences (Scaramuzza).

EndoGSLAM's preparation of it is read too: color/, depth/ (8 bits, mm = value / 2.55, undistorted to a pinhole, reduced
to 675 x 540) and pose.txt (row i = i-th image).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from video_io.calibrations import scaramuzza_camera
from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.datasets.base import (
    Depth,
    Truth,
    check_count,
    check_size,
    files_in,
    frame_times,
    image_size,
    numbers_in,
    read_depth_image,
    rigid,
)
from video_io.errors import InputError
from video_io.files import read_text
from video_io.sources.images import natural_key
from video_io.trajectory import Trajectory

SIZE = (1350, 1080)
# As published with the data set, for images of 1350 x 1080. Where the centre counts from is not published: from the
# centre of the first pixel, depth and poses agree to 0.7 micrometres; half a pixel beside it, to 1.5.
PUBLISHED = (678.544839, 542.975888, 769.243600, -8.12770624e-4, 6.25674244e-7, -1.19662182e-9)
AFFINE = (0.99998688, 0.00288273830, -0.00296316513, 1.0)
# The pinhole and its two radial terms by which EndoGSLAM undistorts, of images of 1350 x 1080.
ENDOGSLAM = (802.319, 801.885, 668.286, 547.733)
_ROW = "the 16 of a 4 x 4 matrix by columns"


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return any(any(folder.glob(p)) for p in ("*_depth.tiff", "*_color.png")) or _is_endogslam(folder)


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    if _is_endogslam(folder):
        return _endogslam(folder)
    images, depths = files_in(folder, "*_color.png"), files_in(folder, "*_depth.tiff")
    if depths or not images:
        check_count(folder, len(images), len(depths), "depth images")
    # The screening sequences have no depth.
    numbers = same_numbers(images, depths or images)
    camera = camera_of(folder, image_size(images[0]))
    trajectory = read_poses(folder / "pose.txt", numbers) if (folder / "pose.txt").is_file() else None
    meshes = sorted(folder.glob("*.obj")) + sorted(folder.glob("*.ply"))
    name = folder.resolve().name
    return Truth(
        name, "c3vd", camera, trajectory, images, len(images), meshes[0] if meshes else None,
        (lambda index: depth_mm(depths[index])) if depths else None,
    )  # fmt: skip


def camera_of(folder: Path, size: tuple[int, int]) -> Camera | None:
    """The camera of a sequence: of its file, or the published one where the images have their published size.

    Raises:
        InputError: a file that can't be used, or of another size.
    """
    path = folder / "intrinsics.json"
    if path.is_file():
        camera = read_camera(path)
        check_size(path, (camera.width, camera.height), size)
        return camera
    for path in sorted(folder.glob("*intrinsics*.txt")) + sorted(folder.glob("cam*.txt")):
        try:
            return scaramuzza_camera(read_text(path), *size)
        except (ValueError, OSError) as error:
            raise InputError(
                f"'{path}' can't be used as a camera ({error}); expected cx, cy, a0, a2, a3, a4 by name; fetch it again"
            ) from error
    return published_camera() if size == SIZE else None


def published_camera() -> Camera:
    """The colonoscope of C3VD."""
    cx, cy, *a = PUBLISHED
    return Camera("omnidirectional", *SIZE, (cx + 0.5, cy + 0.5, *a, *AFFINE))


def depth_mm(path: Path) -> Depth:
    """z-depth of a file of 16 bits, mm, 0 where there is none.

    Raises:
        InputError: it can't be read.
    """
    stored = read_depth_image(path)
    valid = (stored > 0) & (stored < 65535)
    return np.where(valid, stored.astype(np.float32) * np.float32(100 / 65535), np.float32(0))


def same_numbers(images: Sequence[Path], depths: Sequence[Path]) -> list[int]:
    """The number in the name of each image, which its depth image must have as well.

    Raises:
        InputError: another number, or none.
    """
    try:
        pairs = [(int(natural_key(a)[1]), int(natural_key(b)[1])) for a, b in zip(images, depths, strict=True)]
    except (IndexError, ValueError) as error:
        raise InputError(
            f"an image in '{images[0].parent}' has no number in its name; expected names as 0001_color.png"
        ) from error
    for (number, other), image, depth in zip(pairs, images, depths, strict=True):
        if number != other:
            raise InputError(
                f"'{image.name}' stands beside '{depth.name}' in '{image.parent}'; expected depth for each image; "
                "complete the folder"
            )
    return [number for number, _ in pairs]


def read_poses(path: Path, numbers: list[int], by_number: bool = True) -> Trajectory:
    """The poses of the images with these numbers: extracts of a sequence keep their numbers and the whole file.

    Raises:
        InputError: the file does not hold such poses, or too few.
    """
    rows = list(numbers_in(path, _ROW))
    for line, row in rows:
        if len(row) != 16:
            raise InputError(f"{path}, line {line} has {len(row)} values; expected {_ROW}; fetch it again")
    wanted = numbers if by_number else list(range(len(numbers)))
    if max(wanted) >= len(rows):
        raise InputError(f"{path} has {len(rows)} rows, but there is an image {max(wanted):04d}; complete the file")
    matrices = np.array([row for _, row in rows], float).reshape(-1, 4, 4)
    last = [0, 0, 0, 1]
    if np.allclose(matrices[:, :, 3], last, atol=1e-6):  # by columns, as published
        matrices = matrices.transpose(0, 2, 1)
    elif not np.allclose(matrices[:, 3], last, atol=1e-6):
        raise InputError(
            f"{path}: neither last row nor last column of the matrices is 0 0 0 1; expected camera-to-world matrices "
            "by columns; fetch the file again"
        )
    # Six decimals leave the rotations orthogonal to 1e-6 only.
    poses = rigid(matrices[wanted], str(path))
    return Trajectory(frame_times(len(poses)), poses)


def _is_endogslam(folder: Path) -> bool:
    return (folder / "color").is_dir() and (folder / "pose.txt").is_file() and any(folder.glob("depth/*.tiff"))


def _endogslam(folder: Path) -> Truth:
    images, depths = files_in(folder / "color"), files_in(folder / "depth", "*.tiff")
    check_count(folder, len(images), len(depths), "depth images")
    numbers = same_numbers(images, depths)
    width, height = image_size(images[0])
    fx, fy, cx, cy = ENDOGSLAM
    camera = Camera.from_opencv(*SIZE, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]).scaled(width, height)
    trajectory = read_poses(folder / "pose.txt", numbers, by_number=False)

    def depth(index: int) -> Depth:
        stored = read_depth_image(depths[index], least_bits=8)
        if stored.dtype != np.uint8:
            return depth_mm(depths[index])
        return np.where(stored < 255, stored.astype(np.float32) / np.float32(2.55), np.float32(0))

    coarse = read_depth_image(depths[0], least_bits=8).dtype == np.uint8
    notes = ("depth: 8 bits, in steps of 0.4 mm",) if coarse else ()
    return Truth(folder.resolve().name, "c3vd", camera, trajectory, images, len(images), None, depth, notes=notes)
