"""Frames, camera and ground truth of a clip, however a data set stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import read_bytes, read_text
from video_io.footage import Footage
from video_io.sources.images import SUFFIXES, natural_key
from video_io.stereo import Pairs
from video_io.trajectory import Trajectory

Depth = NDArray[np.float32]
Mask = NDArray[np.bool_]

FPS = 30.0  # of data sets whose frames carry no times; a folder of images runs at this rate as well
MM, UP_TO_SCALE = "mm", "up to scale"


@dataclass(frozen=True)
class Truth:
    """What is known of a clip: its frames, its camera, and what was measured beside them.

    Attributes:
        name: the folder's name.
        layout: which file of this slot read it.
        camera: of the whole image, or None.
        trajectory: one camera-to-world pose a frame, mm; or None.
        image_paths: the colour images, one a frame; empty where there is only a video.
        frame_count: number of frames with truth.
        mesh_path: the true surface, mm; or None.
        read_depth: reads frame i's depth, or None where there is none.
        unit: of poses and depth, `mm` or `up to scale`.
        footage: the video that holds the frames, where they are no images; frame i is its i-th.
        frame_times_ns: (N,) int64, times of the frames; None: those of the trajectory, or `FPS` frames a second.
        read_mask: reads frame i's mask, True where there is tissue, not a tool; or None where there is none.
        pairs: the stereo pairs, or None.
        notes: what one has to know about this truth, a sentence each.
    """

    name: str
    layout: str
    camera: Camera | None
    trajectory: Trajectory | None
    image_paths: tuple[Path, ...]
    frame_count: int
    mesh_path: Path | None
    read_depth: Callable[[int], Depth] | None
    unit: str = MM
    footage: Footage | None = None
    frame_times_ns: NDArray[np.int64] | None = None
    read_mask: Callable[[int], Mask] | None = None
    pairs: Pairs | None = None
    notes: tuple[str, ...] = ()

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """Time of each frame, (N,) int64; the clip's source gives the same."""
        if self.frame_times_ns is not None:
            return self.frame_times_ns
        return self.trajectory.times_ns if self.trajectory is not None else frame_times(self.frame_count)

    def depth(self, index: int) -> Depth | None:
        """z-depth of frame `index`, (H, W) float32 mm, 0 where there is none; None for a data set without depth.

        Raises:
            InputError: no such frame, or its file can't be read.
        """
        if self.read_depth is None:
            return None
        self._check(index)
        return self.read_depth(index)

    def mask(self, index: int) -> Mask | None:
        """(H, W) bool, True where frame `index` shows tissue; None for a data set without masks.

        Raises:
            InputError: no such frame, or its file can't be read.
        """
        if self.read_mask is None:
            return None
        self._check(index)
        return self.read_mask(index)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture of frame `index`, (H, W, 3) uint8 RGB.

        Raises:
            InputError: no such frame, no pictures at all, or one that can't be read.
        """
        self._check(index)
        if self.image_paths:
            return read_picture(self.image_paths[index])
        if self.footage is None:
            raise InputError(f"'{self.name}' holds no pictures; expected its images or its video; complete the folder")
        return self.footage.frame(index)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.frame_count:
            raise InputError(f"{self.name} has truth for {self.frame_count} frames, but frame {index} was asked for")


def frame_times(count: int, fps: float = FPS) -> NDArray[np.int64]:
    """Times of `count` frames at an even rate, nanoseconds."""
    return np.round(np.arange(count) * 1e9 / fps).astype(np.int64)


# -- files --------------------------------------------------------------------------------------------------------


def read_depth_image(path: Path, least_bits: int = 16) -> NDArray[np.generic]:
    """The stored values of a depth image, all bits kept.

    Raises:
        InputError: the file can't be read, or has 8 bits where 16 are expected, which is too coarse to be depth.
    """
    image = imread(path)
    if image is None:
        raise InputError(f"depth image '{path}' can't be read; expected an intact 16-bit PNG or TIFF; fetch it again")
    if image.dtype == np.uint8 and least_bits > 8:
        raise InputError(
            f"depth image '{path}' has 8 bits a pixel; expected 16 bits; export the depth with full precision"
        )
    return image


def read_points_image(path: Path, data: bytes | None = None) -> NDArray[np.float32]:
    """z of an image of points x, y, z, (H, W) float32, 0 where there is none.

    Args:
        path: the TIFF, for messages and where `data` is None.
        data: its content.

    Raises:
        InputError: it can't be read, or has not three channels.
    """
    if data is None and not path.is_file():
        raise InputError(f"'{path}' is missing; expected a TIFF of points x, y, z; complete the folder")
    try:
        raw = np.frombuffer(read_bytes(path, 1000) if data is None else data, np.uint8)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' can't be read ({error}); expected a TIFF of points; fetch it again") from error
    image = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED) if raw.size else None
    if image is None or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"'{path}' can't be read as an image of points; expected a TIFF of x, y, z; fetch it again")
    z = image[..., 0].astype(np.float32)  # OpenCV turns the order of the channels round
    return np.where(np.isfinite(z) & (z > 0), z, np.float32(0))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A colour image as (H, W, 3) uint8 RGB.

    Raises:
        InputError: it can't be read.
    """
    from video_io.sources.base import decode_image

    try:
        return decode_image(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"image '{path}' can't be read ({error}); expected an intact picture; fetch it again"
        ) from error


def read_mask_image(path: Path, size: tuple[int, int]) -> Mask:
    """A mask image as bool, True where it is not black, brought to `size` (width, height).

    Raises:
        InputError: it can't be read.
    """
    image = imread(path, cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(f"mask '{path}' can't be read; expected an intact picture; fetch it again")
    if image.shape != (size[1], size[0]):
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return image > 127 if image.max() > 1 else image > 0


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file.

    Raises:
        InputError: it can't be read.
    """
    image = imread(path)
    if image is None:
        raise InputError(f"image '{path}' can't be read; expected an intact picture; fetch it again")
    return image.shape[1], image.shape[0]


def files_in(folder: Path, pattern: str = "*") -> tuple[Path, ...]:
    """The image files of a folder in natural order; empty where it does not exist."""
    if not folder.is_dir():
        return ()
    found = (p for p in folder.glob(pattern) if p.suffix.lower() in SUFFIXES and p.is_file())
    return tuple(sorted((p for p in found if not p.name.startswith(".")), key=natural_key))


def text_in(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it is missing, too large, or no text.
    """
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"'{path}' can't be read ({reason}); expected a text file; complete the folder") from error


def numbers_in(path: Path, expected: str) -> Iterator[tuple[int, list[float]]]:
    """The numbers of each line of a text file that has some, with the line's number; commas count as blanks.

    Raises:
        InputError: the file is missing, or a line has something else on it.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"'{path}' can't be read ({reason}); expected {expected}; complete the folder") from error
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise InputError(
                f"'{path}', line {number} is '{line[:50]}'; expected {expected}; fetch it again"
            ) from error
        if not np.isfinite(values).all():
            raise InputError(f"'{path}', line {number} is not finite; expected {expected}; leave such frames out")
        yield number, values


def table_in(path: Path, width: int, expected: str) -> NDArray[np.float64]:
    """A text file of `width` numbers a line, (N, width).

    Raises:
        InputError: the file is missing, empty, or a line has another number of numbers.
    """
    rows = []
    for number, values in numbers_in(path, expected):
        if len(values) != width:
            raise InputError(f"{path}, line {number} has {len(values)} values; expected {expected}; fetch it again")
        rows.append(values)
    if not rows:
        raise InputError(f"'{path}' is empty; expected {expected}; complete the folder")
    return np.array(rows, float)


def matrix_in(path: Path) -> NDArray[np.float64]:
    """The 3 x 3 camera matrix of a text file, which may have a fourth column.

    Raises:
        InputError: the file is missing or holds no such matrix.
    """
    expected = "a 3 x 3 camera matrix"
    values = np.array([v for _, row in numbers_in(path, expected) for v in row])
    if values.size not in (9, 12, 16):
        raise InputError(f"'{path}' holds {values.size} numbers; expected {expected}; complete the folder")
    matrix = values.reshape(3, 3) if values.size == 9 else values.reshape(-1, 4)[:3, :3]
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and abs(matrix[2, 2] - 1) < 1e-6):
        raise InputError(f"'{path}' holds {matrix.ravel().tolist()}; expected {expected} fx 0 cx, 0 fy cy, 0 0 1")
    return matrix


def imread(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[np.generic] | None:
    """An image file's stored values, or None where it can't be read."""
    # a pipe would block for ever; a header may claim more pixels than memory
    try:
        return cv2.imread(str(path), flags) if path.is_file() else None
    except cv2.error:
        return None


def check_count(folder: Path, images: int, other: int, what: str) -> None:
    """Raise InputError unless there are as many `what` as images."""
    if images != other:
        raise InputError(
            f"'{folder}' holds {images} images but {other} {what}; expected one for each; complete the folder"
        )


def check_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raise InputError unless the file's size is that of the images; both as (width, height)."""
    if found != expected:
        raise InputError(
            f"'{path}' is {found[0]} x {found[1]}, the images are {expected[0]} x {expected[1]}; expected the "
            "same size; "
            "take both from the same release"
        )


def rigid(poses: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Poses (N, 4, 4) whose rotations are orthogonal to the last digit: files hold few decimals.

    Raises:
        InputError: a matrix that is no rotation.
    """
    poses = np.array(poses, float).reshape(-1, 4, 4)
    rotation = poses[:, :3, :3]
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    bad = ~(np.isfinite(off) & (off < 0.01) & (np.linalg.det(np.nan_to_num(rotation)) > 0))
    if bad.any():
        raise InputError(
            f"{what}: pose {int(np.argmax(bad))} is no rotation with a translation; expected rigid 4 x 4 matrices; "
            "fetch the file again"
        )
    u, _, vt = np.linalg.svd(rotation)
    poses[:, :3, :3] = u @ vt
    poses[:, 3] = [0, 0, 0, 1]
    return poses


def from_quaternions(positions: NDArray[np.float64], xyzw: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Poses (N, 4, 4) from positions (N, 3) and quaternions x y z w (N, 4).

    Raises:
        InputError: a quaternion of length zero.
    """
    from scipy.spatial.transform import Rotation

    short = np.linalg.norm(xyzw, axis=1) < 1e-6
    if short.any():
        raise InputError(f"{what}: pose {int(np.argmax(short))} has a quaternion of length zero; fetch the file again")
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = Rotation.from_quat(xyzw).as_matrix(), positions
    return poses
