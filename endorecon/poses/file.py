"""Poses in a file, of a tracker, a robot or another program: a TUM trajectory, C3VD's pose.txt, COLMAP's images.txt.

The kind is told by the first line that is no comment: 8 numbers are TUM's `time tx ty tz qx qy qz qw`, camera-to-world,
where time is seconds from the clip's start or a frame number; 16 are C3VD's camera-to-world matrix by columns, a line a
frame; COLMAP's lines, camera-from-world, end with the name of an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from endorecon.poses.base import UNITS_MM, PoseSource, Progress
from endorecon.tracking.given import GivenPoses
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.errors import InputError
from video_io.files import read_text
from video_io.sources.base import Source
from video_io.sources.images import ImageFolder

Float = NDArray[np.float64]
Lookup = Callable[[int, int], Float | None]

KNOWN = (
    "a TUM trajectory (time tx ty tz qx qy qz qw, camera-to-world), C3VD's pose.txt (16 values a frame) or COLMAP's "
    "images.txt"
)
PROBES = 24
MOST_MB = 500  # COLMAP's images.txt lists every feature
LEAST_SHARE = 0.5  # of the clip's frames that have a pose; fewer mean poses of another clip
NEAR = 0.1  # a pose this near in time, in frame intervals, is the frame's; between two others it is interpolated,
MOST_GAP = 3.5  # if those lie no further apart than this many frame intervals and
MOST_GAP_POSES = 1.5  # this many times the poses' usual interval
ROTATION_TOLERANCE = 0.01


def accepts(choice: str) -> bool:
    """Whether this file is what stands after --poses."""
    return Path(choice).expanduser().is_file()


def open(choice: str, unit: str | None, source: Source) -> PoseSource:
    """Read the file and find out which of its poses belongs to which frame of the clip.

    Raises:
        InputError: not a file of poses, a matrix that is no rotation, or poses that do not fit the clip's frames.
    """
    path = Path(choice).expanduser()
    rows = _rows(path)
    first = rows[0][1]
    if len(first) >= 10 and _numbers(first[:9]) and not _numbers(first[9:10]):
        found, path_poses, kind = _from_colmap(path, rows, source)
    elif len(first) == 16 and _numbers(first):
        found, path_poses, kind = _from_c3vd(path, rows, source)
    elif len(first) == 8 and _numbers(first):
        found, path_poses, kind = _from_tum(path, rows, source)
    else:
        raise _bad(path, f"its first line is '{' '.join(first)[:50]}'")
    scale = f"mm: the poses of '{path}' are in {unit}" if unit else f"up to scale: the unit is that of '{path}'"
    note = f"file: '{path}', {len(path_poses)} poses, {kind}"
    given = GivenPoses(found, path_poses, note, scale, f"'{path.name}' has no pose for it")
    return PoseFile(given.scaled(UNITS_MM[unit]) if unit else given)


class PoseFile:
    """See `PoseSource`."""

    def __init__(self, given: GivenPoses) -> None:
        self.given = given

    def find(
        self, clip: Clip, camera: Camera, focal_free: bool, folder: Path, progress: Progress
    ) -> tuple[GivenPoses, Camera]:
        """The poses as they were read."""
        return self.given, camera


def _bad(path: Path, what: str) -> InputError:
    return InputError(f"'{path}' can't be used as poses: {what}; expected {KNOWN}; give such a file to --poses")


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The values of each line that has some, with the line's number."""
    try:
        text = read_text(path, MOST_MB)
    except (ValueError, OSError) as error:
        raise _bad(path, f"it can't be read as text ({error})") from error
    split = [(n, line.split("#")[0].replace(",", " ").split()) for n, line in enumerate(text.splitlines(), 1)]
    if not (rows := [(n, values) for n, values in split if values]):
        raise _bad(path, "it is empty")
    return rows


def _numbers(values: list[str]) -> bool:
    try:
        return bool(np.isfinite(np.array(values, float)).all())
    except ValueError:
        return False


def _table(path: Path, rows: list[tuple[int, list[str]]], width: int) -> Float:
    for number, values in rows:
        if len(values) != width or not _numbers(values):
            raise _bad(path, f"line {number} is '{' '.join(values)[:50]}', and the first one has {width} numbers")
    return np.array([values for _, values in rows], float)


def _rigid(path: Path, rotation: Float, centre: Float, lines: list[int]) -> Float:
    """Poses (N, 4, 4) from rotations that are right but for rounding, and centres."""
    determinant = np.linalg.det(rotation)
    size = np.cbrt(np.abs(determinant))
    skew = np.abs(rotation @ rotation.transpose(0, 2, 1) - size[:, None, None] ** 2 * np.eye(3)).max((1, 2))
    wrong = (determinant <= 0) | (np.abs(size - 1) > ROTATION_TOLERANCE) | (skew > ROTATION_TOLERANCE)
    if wrong.any():
        at = int(np.argmax(wrong))
        what = "its axes are not at right angles"
        if determinant[at] < -1e-6:
            what = "it mirrors (its determinant is negative)"
        elif skew[at] <= ROTATION_TOLERANCE * max(size[at], 1):
            what = f"it scales by {size[at]:.3g}"
        raise InputError(
            f"'{path}', line {lines[at]}: the matrix is no rotation, {what}; expected a rigid camera-to-world pose; "
            "take scale and reflection out of it"
        )
    u, _, vt = np.linalg.svd(rotation)
    poses = np.tile(np.eye(4), (len(rotation), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = u @ vt, centre
    return poses


def _rotations(path: Path, quaternions: Float, lines: list[int]) -> Float:
    """Rotations (N, 3, 3) of quaternions x y z w, which must have length one."""
    length = np.linalg.norm(quaternions, axis=1)
    wrong = np.abs(length - 1) > ROTATION_TOLERANCE
    if wrong.any():
        at = int(np.argmax(wrong))
        raise _bad(path, f"the quaternion in line {lines[at]} has length {length[at]:.3g} and not 1")
    return Rotation.from_quat(quaternions).as_matrix()


# -- the kinds ----------------------------------------------------------------------------------------------------


def _from_c3vd(path: Path, rows: list[tuple[int, list[str]]], source: Source) -> tuple[Lookup, Float, str]:
    """A line a frame; where a folder's images are some of a sequence, the line is told by the number of the image."""
    values, lines = _table(path, rows, 16), [number for number, _ in rows]
    matrices = values.reshape(-1, 4, 4).transpose(0, 2, 1)
    off = np.abs(matrices[:, 3] - [0, 0, 0, 1]).max(1) > 1e-4
    if off.any():
        by_rows = np.abs(matrices[:, :, 3] - [0, 0, 0, 1]).max() < 1e-4
        what = "the matrices are transposed: they are stored by rows" if by_rows else "the last column is not 0 0 0 1"
        at = lines[int(np.argmax(off))]
        raise InputError(
            f"'{path}', line {at}: {what}; expected 4 x 4 camera-to-world matrices by columns, as C3VD has them, which "
            "end with tx ty tz 1; transpose them"
        )
    poses = _rigid(path, matrices[:, :3, :3], matrices[:, :3, 3], lines)
    total = _total(source)
    line_of: dict[int, int] = {}
    if isinstance(source, ImageFolder) and total != len(poses):
        numbers = [_number(file.name) for file in source.files]
        line_of = {index: n for index, n in enumerate(numbers) if n is not None and n < len(poses)}
        if len(line_of) < len(source.files) or len(poses) < total:
            raise _count(path, len(poses), total)
    elif total is not None and abs(total - len(poses)) > 0.02 * total:
        # A video's header may be wrong by a few frames.
        raise _count(path, len(poses), total)

    def at(index: int, time_ns: int) -> Float | None:
        line = line_of.get(index, index)
        return poses[line].copy() if line < len(poses) else None

    return at, poses, "a line a frame"


def _from_colmap(path: Path, rows: list[tuple[int, list[str]]], source: Source) -> tuple[Lookup, Float, str]:
    """Poses by name of the image, which is that of a file of the folder, or ends with the number of the frame."""
    named = [(n, v) for n, v in rows if len(v) >= 10 and _numbers(v[:9]) and not _numbers(v[9:10])]
    lines = [number for number, _ in named]
    values = np.array([v[1:8] for _, v in named], float)
    turn = _rotations(path, values[:, [1, 2, 3, 0]], lines).transpose(0, 2, 1)  # COLMAP has w first, world to camera
    poses = _rigid(path, turn, -np.einsum("nij,nj->ni", turn, values[:, 4:]), lines)
    names = [Path(" ".join(v[9:])).name for _, v in named]
    files = {file.name: i for i, file in enumerate(source.files)} if isinstance(source, ImageFolder) else {}
    found = {files[name]: i for i, name in enumerate(names) if name in files}
    total, kind = _total(source), "by image name"
    if not found:
        numbers = {n: i for i, name in enumerate(names) if (n := _number(name)) is not None}
        # Programs that take videos apart count from 1: then the last one carries the number of frames.
        begin = 1 if numbers and total is not None and 0 not in numbers and max(numbers) == total else 0
        found, kind = {n - begin: i for n, i in numbers.items()}, f"by the number in the image's name, from {begin}"
    inside = [index for index in found if total is None or 0 <= index < total]
    if len(inside) < LEAST_SHARE * min(total or len(found), len(poses)):
        raise _count(path, len(poses), total, f", whose names ({names[0]}, ...) are not those of the clip's")
    order = np.array([found[index] for index in sorted(found)])

    def at(index: int, time_ns: int) -> Float | None:
        return poses[found[index]].copy() if index in found else None

    return at, poses[order], kind


def _from_tum(path: Path, rows: list[tuple[int, list[str]]], source: Source) -> tuple[Lookup, Float, str]:
    """Poses by time or by frame number, whichever fits the clip."""
    values, lines = _table(path, rows, 8), [number for number, _ in rows]
    stamps = values[:, 0]
    if (np.diff(stamps) <= 0).any():
        at = lines[int(np.argmax(np.diff(stamps) <= 0)) + 1]
        raise _bad(path, f"the times do not rise (line {at})")
    poses = _rigid(path, _rotations(path, values[:, 4:], lines), values[:, 1:4], lines)
    rate = float(source.describe.get("rate") or source.describe.get("fps") or 30.0)
    probes = source.sample(PROBES)

    by_time, by_number = _timed(stamps, poses, 1 / rate), _numbered(stamps, poses)
    timed, numbered = (
        np.mean([find(frame.index, frame.time_ns) is not None for frame in probes]) if probes else 0.0
        for find in (by_time, by_number)
    )
    if max(timed, numbered) < LEAST_SHARE:
        end = probes[-1] if probes else None
        clip = f"{end.time_ns / 1e9:.3f} s, or frame {end.index}" if end else "nothing"
        raise InputError(
            f"'{path}' holds {len(poses)} poses from {stamps[0]:g} to {stamps[-1]:g}, but the clip reaches from 0 to "
            f"{clip}: fewer than half of its frames have a pose; expected times in seconds from the clip's start, or "
            "frame numbers; shift the times, or give the poses of this clip"
        )
    return (by_number, poses, "by frame number") if numbered >= timed else (by_time, poses, "by time")


def _numbered(stamps: Float, poses: Float) -> Lookup:
    if not np.array_equal(stamps, np.round(stamps)):
        return lambda index, time_ns: None
    position = {int(stamp): i for i, stamp in enumerate(stamps)}
    return lambda index, time_ns: poses[position[index]].copy() if index in position else None


def _timed(stamps: Float, poses: Float, interval_s: float) -> Lookup:
    usual = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
    most = min(MOST_GAP * interval_s, MOST_GAP_POSES * usual)
    rotations = Rotation.from_matrix(poses[:, :3, :3])

    def at(index: int, time_ns: int) -> Float | None:
        time = time_ns / 1e9
        after = int(np.searchsorted(stamps, time))
        nearest = min((i for i in (after - 1, after) if 0 <= i < len(stamps)), key=lambda i: abs(stamps[i] - time))
        if abs(stamps[nearest] - time) <= NEAR * interval_s:
            return poses[nearest].copy()
        if not 0 < after < len(stamps) or stamps[after] - stamps[after - 1] > most:
            return None
        pair = [after - 1, after]
        share = (time - stamps[after - 1]) / (stamps[after] - stamps[after - 1])
        pose = np.eye(4)
        pose[:3, :3] = Slerp([0, 1], rotations[pair])(share).as_matrix()
        pose[:3, 3] = (1 - share) * poses[pair[0], :3, 3] + share * poses[pair[1], :3, 3]
        return pose

    return at


def _number(name: str) -> int | None:
    """The last number in a file's name."""
    found = re.findall(r"\d+", Path(name).stem)
    return int(found[-1]) if found and len(found[-1]) < 20 else None


def _total(source: Source) -> int | None:
    total = source.describe.get("frames")
    return int(total) if total else None


def _count(path: Path, poses: int, frames: int | None, more: str = "") -> InputError:
    return InputError(
        f"'{path}' holds {poses} poses{more}, but the clip has {frames} frames; expected a pose for each; give the "
        "poses of this clip"
    )
