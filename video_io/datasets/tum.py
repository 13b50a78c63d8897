"""TUM RGB-D (Sturm et al., IROS 2012), a layout that many recordings are converted to.

rgb.txt and depth.txt (time in seconds, path of the image), groundtruth.txt (time tx ty tz qx qy qz qw,
camera-to-world, metres); depth images of 16 bits, metres = value / 5000, z, 0 = none. Depth belongs to the image
nearest in time, within 20 ms; poses are interpolated at the images' times. The camera is in a calibration file beside
them, or the one that the benchmark publishes for the folder's name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.datasets.base import (
    Depth,
    Truth,
    check_size,
    from_quaternions,
    image_size,
    matrix_in,
    read_depth_image,
    table_in,
    text_in,
)
from video_io.errors import InputError
from video_io.files import is_inside
from video_io.trajectory import Trajectory

FACTOR = 5000.0
NEAR_S = 0.02
GAP_S = 0.1  # between two poses, for one to be told in between
# OpenCV's matrix and distortion of the benchmark's cameras, 640 x 480.
PUBLISHED = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}
_CALIBRATIONS = ("camera.json", "intrinsics.json", "calibration.yaml", "calibration.yml", "camera.yaml", "cameras.txt")


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "rgb.txt").is_file()


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    seconds, images = _listed(folder, "rgb.txt")
    keep = np.ones(len(images), bool)
    poses = None
    if (folder / "groundtruth.txt").is_file():
        poses, keep = _poses(folder / "groundtruth.txt", seconds)
    chosen = np.flatnonzero(keep)
    images = [images[i] for i in chosen]
    size = image_size(images[0])
    times = np.round((seconds[chosen] - seconds[0]) * 1e9).astype(np.int64)
    notes = [] if keep.all() else [f"poses: {int((~keep).sum())} images have none and are left out"]
    camera = _camera(folder, size)
    if camera is None:
        notes.append(f"camera: no calibration ({', '.join(_CALIBRATIONS[:3])}, ...) lies beside rgb.txt")
    reader = None
    if (folder / "depth.txt").is_file():
        depth_seconds, depths = _listed(folder, "depth.txt")
        nearest = np.abs(depth_seconds[None] - seconds[chosen][:, None]).argmin(1)
        gap = np.abs(depth_seconds[nearest] - seconds[chosen])

        def depth(index: int) -> Depth:
            if gap[index] > NEAR_S:
                return np.zeros(size[::-1], np.float32)
            path = depths[nearest[index]]
            stored = read_depth_image(path)
            check_size(path, stored.shape[1::-1], size)
            return (stored.astype(np.float32) * np.float32(1000 / FACTOR)).astype(np.float32)

        reader = depth
    trajectory = Trajectory(times, poses) if poses is not None else None
    return Truth(
        folder.resolve().name, "tum", camera, trajectory, tuple(images), len(images), None, reader,
        frame_times_ns=times, notes=tuple(notes),
    )  # fmt: skip


def _listed(folder: Path, name: str) -> tuple[NDArray[np.float64], list[Path]]:
    """Times and paths of a list of images."""
    seconds, paths = [], []
    for number, line in enumerate(text_in(folder / name).splitlines(), 1):
        words = line.split("#")[0].split(maxsplit=1)
        if not words:
            continue
        path = folder / words[-1].strip()
        try:
            seconds.append(float(words[0]))
        except ValueError:
            words = []
        if len(words) != 2:
            raise InputError(f"'{folder / name}', line {number} is '{line[:50]}'; expected a time and a path")
        if not is_inside(path, folder):
            raise InputError(
                f"'{folder / name}', line {number} names '{words[1][:60]}', outside the folder; move it in"
            )
        if not path.is_file():
            raise InputError(f"'{path}', which {name} names, is missing; expected every image; complete the folder")
        paths.append(path)
    if not paths:
        raise InputError(f"'{folder / name}' names no image; expected a time and a path a line; complete it")
    order = np.array(seconds)
    if (np.diff(order) <= 0).any():
        at = int(np.argmax(np.diff(order) <= 0)) + 1
        raise InputError(
            f"'{folder / name}': the times do not rise at '{paths[at].name}'; expected them in order; sort it"
        )
    return order, paths


def _poses(path: Path, seconds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Poses at the images' times, mm, and which of the images have one."""
    from scipy.spatial.transform import Rotation, Slerp

    rows = table_in(path, 8, "time tx ty tz qx qy qz qw")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    rows = rows[np.r_[True, np.diff(rows[:, 0]) > 0]]
    known = from_quaternions(1000 * rows[:, 1:4], rows[:, 4:], str(path))
    after = np.clip(np.searchsorted(rows[:, 0], seconds), 1, max(len(rows) - 1, 1)).clip(max=len(rows) - 1)
    before = np.maximum(after - 1, 0)
    inside = (seconds >= rows[0, 0] - NEAR_S) & (seconds <= rows[-1, 0] + NEAR_S)
    nearest = np.minimum(np.abs(rows[after, 0] - seconds), np.abs(rows[before, 0] - seconds))
    keep = inside & ((rows[after, 0] - rows[before, 0] <= GAP_S) | (nearest <= NEAR_S))
    if not keep.any():
        raise InputError(
            f"'{path}' reaches from {rows[0, 0]:.3f} to {rows[-1, 0]:.3f} s, the images from {seconds[0]:.3f} to "
            f"{seconds[-1]:.3f} s; expected poses at the images' times; give the poses of this clip"
        )
    at = seconds[keep].clip(rows[0, 0], rows[-1, 0])
    poses = np.tile(np.eye(4), (len(at), 1, 1))
    if len(rows) == 1:
        poses[:] = known[0]
    else:
        poses[:, :3, :3] = Slerp(rows[:, 0], Rotation.from_matrix(known[:, :3, :3]))(at).as_matrix()
        poses[:, :3, 3] = np.stack([np.interp(at, rows[:, 0], known[:, a, 3]) for a in range(3)], -1)
    return poses, keep


def _camera(folder: Path, size: tuple[int, int]) -> Camera | None:
    for name in _CALIBRATIONS:
        if (folder / name).is_file():
            camera = read_camera(folder / name)
            check_size(folder / name, (camera.width, camera.height), size)
            return camera
    if (folder / "intrinsics.txt").is_file():
        return Camera.from_opencv(*size, matrix_in(folder / "intrinsics.txt"))
    found = next((c for name, c in PUBLISHED.items() if name in folder.resolve().name), None)
    if found is None or size != (640, 480):
        return None
    (fx, fy, cx, cy), distortion = found
    return Camera.from_opencv(*size, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], distortion)
