"""StereoMIS (Hayoz et al., 2023): da Vinci recordings of breathing, moving tissue, with poses from the robot's joints.

P1/: a video (left over right) or video_frames/%06d{l,r}.png, StereoCalibration.ini (mm), groundtruth.txt (frame
number, then position in metres and quaternion x y z w, camera-to-world), masks/%06dl.png (not black = tissue),
train_split.csv or test_split.csv (which frames are meant to be used). There is no depth: it is matched in the stereo
pairs.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from video_io.calibrations import stereo_ini
from video_io.datasets.base import (
    Mask,
    Truth,
    check_count,
    check_size,
    files_in,
    frame_times,
    from_quaternions,
    image_size,
    read_mask_image,
    read_picture,
    table_in,
    text_in,
)
from video_io.errors import InputError
from video_io.footage import Footage
from video_io.stereo import Pairs
from video_io.trajectory import Trajectory

MATCHED = "depth: matched in the stereo pairs by our own semi-global matching, not measured"
ROBOT = "poses: from the robot's joints; the tissue moves, so they do not explain the images alone"
_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")
_NEAR = 2  # masks are missing for some frames; that of a frame this near is taken


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "StereoCalibration.ini").is_file()


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    rig = stereo_ini(folder / "StereoCalibration.ini")
    size = rig.left.width, rig.left.height
    left, right = files_in(folder / "video_frames", "*l.png"), files_in(folder / "video_frames", "*r.png")
    footage = None
    if left:
        check_count(folder, len(left), len(right), "right images")
        numbers = [int(re.findall(r"\d+", p.stem)[-1]) for p in left]
        found, where, rate = image_size(left[0]), left[0], 30.0
    else:
        videos = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in _SUFFIXES]
        if len(videos) != 1:
            raise InputError(
                f"'{folder}' holds {len(videos)} videos; expected one, left over right, or video_frames/; keep the one"
            )
        footage = Footage.open(videos[0], "upper")
        numbers, rate = list(range(footage.count)), footage.rate
        found, where = footage.size, footage.path
    if found != size:
        # The recordings are offered at half the calibration's size as well.
        if abs(found[0] * size[1] - found[1] * size[0]) > max(size):
            check_size(where, found, size)
        rig = type(rig)(rig.left.scaled(*found), rig.right.scaled(*found), rig.right_from_left)
    trajectory = _poses(folder / "groundtruth.txt", numbers, rate)
    if footage is not None:
        other = footage.other()
        pairs = Pairs(rig, lambda i: (footage.frame(i), other.frame(i)))
    else:
        pairs = Pairs(rig, lambda i: (read_picture(left[i]), read_picture(right[i])))
    masks = {int(re.findall(r"\d+", p.stem)[-1]): p for p in files_in(folder / "masks", "*l.png")}

    def mask(index: int) -> Mask:
        near = min(masks, key=lambda n: abs(n - numbers[index]))
        if abs(near - numbers[index]) > _NEAR:
            return np.ones((found[1], found[0]), bool)
        return read_mask_image(masks[near], found)

    notes = [MATCHED] + ([ROBOT] if trajectory else []) + _split(folder)
    return Truth(
        folder.resolve().name, "stereomis", rig.left, trajectory, left, len(numbers), None, pairs.depth,
        footage=footage, frame_times_ns=_times(numbers, rate), read_mask=mask if masks else None, pairs=pairs,
        notes=tuple(notes),
    )  # fmt: skip


def _times(numbers: list[int], rate: float) -> np.ndarray:
    return frame_times(max(numbers) + 1, rate)[numbers]


def _poses(path: Path, numbers: list[int], rate: float) -> Trajectory | None:
    if not path.is_file():
        return None
    rows = table_in(path, 8, "frame tx ty tz qx qy qz qw, metres")
    row_of = {round(number): i for i, number in enumerate(rows[:, 0])}
    if missing := [n for n in numbers if n not in row_of]:
        raise InputError(
            f"'{path}' has no pose of frame {missing[0]} ({len(missing)} of {len(numbers)} frames lack one); expected "
            "one for each frame, by its number; complete the file"
        )
    chosen = rows[[row_of[n] for n in numbers]]
    poses = from_quaternions(1000 * chosen[:, 1:4], chosen[:, 4:], str(path))
    return Trajectory(_times(numbers, rate), poses)


def _split(folder: Path) -> list[str]:
    """What the data set says about which frames to use."""
    notes = []
    for path in sorted(folder.glob("*_split.csv")):
        rows = [line.split(",") for line in text_in(path).splitlines()]
        ranges = [f"{a.strip()} to {b.strip()}" for a, b in (r[:2] for r in rows if len(r) >= 2) if a.strip().isdigit()]
        if ranges:
            notes.append(f"{path.name}: frames {', '.join(ranges)} are meant to be used")
    return notes
