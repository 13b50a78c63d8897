"""EndoSLAM (Ozyoruk et al., Medical Image Analysis 2021): ex-vivo organs before real capsules, and a simulated capsule.

- UnityCam/{Colon,Stomach,Small Intestine}/: Frames/image_%04d.png, Pixelwise Depths/aov_image_%04d.png (8 bits, the
  red channel is z in cm), Poses/*.csv (tX, tY, tZ in metres, rX, rY, rZ, rW, time; Unity's left-handed axes), and
  ../Calibration/cam.txt (9 numbers). As users found, colour and depth are not aligned to the pixel, and the depth of
  some releases is normalised: take its figures as rough.
- Cameras/*/*/TumorfreeTrajectory_i/: Frames/*.jpg. Poses/ are of the robot's hand and not read; Calibration/ holds the
  calibration.
"""

from __future__ import annotations

import re
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
    text_in,
)
from video_io.errors import InputError
from video_io.trajectory import Trajectory

COARSE = "depth: 8 bits, in steps of 10 mm, and not aligned to the pixel with the images"
ROBOT = "poses: those in Poses/ are of the robot's hand, not of the camera, and are not read"
FLIP = np.diag([1.0, -1.0, 1.0, 1.0])
_DEPTHS = ("Pixelwise Depths", "Pixelwise_Depths", "Depths")


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "Frames").is_dir() and any((folder / n).is_dir() for n in (*_DEPTHS, "Poses"))


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    images = files_in(folder / "Frames")
    if not images:
        raise InputError(f"'{folder / 'Frames'}' holds no images; expected image_%04d.png; complete the folder")
    place = next((folder / n for n in _DEPTHS if (folder / n).is_dir()), None)
    depths = files_in(place) if place else ()
    if depths:
        check_count(folder, len(images), len(depths), "depth images")
    simulated = place is not None
    size = image_size(images[0])
    camera = _camera(folder, size)
    notes = [COARSE] if depths else []
    trajectory = None
    if simulated:
        trajectory = _poses(folder, images)
    elif any((folder / "Poses").glob("*")):
        notes.append(ROBOT)
    if camera is None:
        notes.append("camera: no Calibration/cam.txt with 9 numbers was found; give one with --camera")

    def depth(index: int) -> Depth:
        stored = read_depth_image(depths[index], least_bits=8)
        # Four channels: OpenCV has red third.
        values = stored if stored.ndim == 2 else stored[..., 2]
        return values.astype(np.float32) * np.float32(10 if stored.dtype == np.uint8 else 10 / 257)

    return Truth(
        folder.resolve().name, "endoslam", camera, trajectory, images, len(images), None, depth if depths else None,
        notes=tuple(notes),
    )  # fmt: skip


def _camera(folder: Path, size: tuple[int, int]) -> Camera | None:
    for above in (folder, *folder.resolve().parents[:3]):
        path = above / "Calibration" / "cam.txt"
        if path.is_file():
            return Camera.from_opencv(*size, matrix_in(path))
    return None


def _poses(folder: Path, images: tuple[Path, ...]) -> Trajectory | None:
    """The poses of the images, in order."""
    files = sorted((folder / "Poses").glob("*.csv"))
    if not files:
        return None
    lines = [line for line in text_in(files[0]).splitlines() if line.strip()]
    if lines and re.search("[A-Za-z]{2}", lines[0]):
        lines = lines[1:]
    try:
        rows = np.array([[float(v) for v in re.split(r"[;,\s]+", line.strip())[:7]] for line in lines]).reshape(-1, 7)
    except ValueError as error:
        raise InputError(
            f"'{files[0]}' can't be read ({error}); expected tX, tY, tZ, rX, rY, rZ, rW, time a line; fetch it again"
        ) from error
    check_count(folder, len(images), len(rows), "poses")
    poses = FLIP @ from_quaternions(1000 * rows[:, :3], rows[:, 3:], str(files[0])) @ FLIP
    return Trajectory(frame_times(len(rows)), rigid(poses, str(files[0])))
