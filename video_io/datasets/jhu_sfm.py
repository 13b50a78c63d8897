"""Sinus endoscopy with structure from motion (Liu et al., IEEE TMI 2020: one folder a segment), up to scale.

NNNNNNNN.jpg (undistorted, numbered by frame), motion.yaml (poses[k]: camera-to-world, position and quaternion xyzw, of
the k-th number in visible_view_indexes), camera_intrinsics_per_view (fx, fy, cx, cy, one a line), structure.ply (its
points, world), view_indexes_per_point (for each point -1, then the numbers of the frames that saw it). Depth is sparse:
at the pixels of the points that a frame saw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.camera import Camera
from video_io.datasets.base import Depth, Truth, check_count, image_size
from video_io.errors import InputError
from video_io.files import parse_yaml, read_text
from video_io.trajectory import Trajectory

FPS = 30.0  # the poses carry no times; a folder of images runs at this rate as well


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "motion.yaml").is_file() and (folder / "view_indexes_per_point").is_file()


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    images = tuple(sorted(p for p in folder.glob("*.jpg") if p.stem.isdigit()))
    numbers = _integers(folder / "visible_view_indexes")
    check_count(folder, len(images), len(numbers), "numbers in visible_view_indexes")
    if [int(p.stem) for p in images] != numbers:
        raise InputError(f"'{folder}': the images' numbers are not those of visible_view_indexes; complete the folder")
    poses = _poses(folder / "motion.yaml", len(numbers))
    width, height = image_size(images[0])
    fx, fy, cx, cy = _floats(folder / "camera_intrinsics_per_view", 4)
    camera = Camera.pinhole(width, height, fx, fy, cx, cy)
    points = _points(folder / "structure.ply")
    seen = _seen(folder / "view_indexes_per_point", len(points))

    def depth(index: int) -> Depth:
        mine = points[[numbers[index] in frames for frames in seen]]
        pose = poses[index]
        local = (mine - pose[:3, 3]) @ pose[:3, :3]
        local = local[local[:, 2] > 0]
        pixel = np.floor(camera.project(local)[0]).astype(int)
        inside = ((pixel >= 0) & (pixel < [width, height])).all(1)
        out = np.zeros((height, width), np.float32)
        out[pixel[inside, 1], pixel[inside, 0]] = local[inside, 2]
        return out

    times = np.round(np.arange(len(numbers)) * 1e9 / FPS).astype(np.int64)
    name = folder.resolve().name
    return Truth(
        name, "jhu_sfm", camera, Trajectory(times, poses), images, len(images), None, depth, unit="up to scale"
    )


def _integers(path: Path) -> list[int]:
    return [int(v) for v in _words(path)]


def _floats(path: Path, least: int) -> list[float]:
    found = [float(v) for v in _words(path)]
    if len(found) < least:
        raise InputError(f"'{path}' has {len(found)} numbers; expected at least {least}; fetch it again")
    return found[:least]


def _words(path: Path) -> list[str]:
    try:
        return read_text(path).split()
    except OSError as error:
        raise InputError(f"'{path}' can't be read ({error.strerror}); complete the folder") from error


def _poses(path: Path, count: int) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    try:
        told = parse_yaml(read_text(path))["poses[]"]
        rows = [told[f"poses[{k}]"] for k in range(count)]
        position = np.array([[float(r["position"][a]) for a in "xyz"] for r in rows])
        quaternion = np.array([[float(r["orientation"][a]) for a in "xyzw"] for r in rows])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"'{path}' does not hold the {count} poses poses[0], poses[1], ... that visible_view_indexes tells of "
            f"({error}); complete the folder"
        ) from error
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = Rotation.from_quat(quaternion).as_matrix(), position
    return poses


def _points(path: Path) -> np.ndarray:
    lines = read_text(path).splitlines() if path.is_file() else []
    try:
        count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
        body = lines[lines.index("end_header") + 1 :][:count]
        return np.array([[float(v) for v in line.split()[:3]] for line in body]).reshape(count, 3)
    except (StopIteration, ValueError, IndexError) as error:
        raise InputError(f"'{path}' is no PLY file of points in text; expected it intact; fetch it again") from error


def _seen(path: Path, count: int) -> list[frozenset[int]]:
    """For each point the numbers of the frames that saw it."""
    groups: list[set[int]] = []
    for number in _integers(path):
        if number == -1:
            groups.append(set())
        elif groups:
            groups[-1].add(number)
    if len(groups) != count:
        raise InputError(f"'{path}' tells of {len(groups)} points, structure.ply of {count}; fetch them again")
    return [frozenset(g) for g in groups]
