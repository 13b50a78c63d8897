"""An input as it lies there, for those who look for what is wrong with it: pictures, times, depth, masks, poses.

Everything is read leniently: what a reader would refuse (8-bit depth, poses that are no rotation, a missing image) is
kept, together with the reader's sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.datasets import open_truth
from video_io.datasets.base import imread
from video_io.datasets.phantom import DEPTH_SCALE
from video_io.errors import InputError
from video_io.files import parse_json, read_text
from video_io.frame import Frame
from video_io.sources import images, open_source
from video_io.sources.base import Source
from video_io.sources.images import SUFFIXES, natural_key
from video_io.survey import Survey, survey

PROBES, SMALL = 24, 640
_MASK_FOLDERS = ("masks", "mask", "use_mask", "tool_mask", "tool_masks")
_POSE_FILES = ("poses.txt", "pose.txt")
Float = NDArray[np.float64]


@dataclass(frozen=True)
class Poses:
    """Poses as a file has them, whatever they mean.

    Attributes:
        path: the file.
        form: `tum`, `rows` or `columns` (16 values of a 4 x 4 matrix).
        stamps: (N,) seconds; row numbers for the matrices.
        matrices: (N, 4, 4).
    """

    path: Path
    form: str
    stamps: Float
    matrices: Float


@dataclass(frozen=True)
class Case:
    """An input and what lies beside its pictures.

    Attributes:
        path: as given.
        source: the pictures.
        root: the folder of the data set; None for a single file.
        layout: name of the data set's layout, "" for plain pictures.
        images: the image files; empty for a video.
        depths, masks: their files, in natural order.
        depth_scale: stored steps a mm.
        poses: or None.
        camera: of the whole image, or None.
        refusal: the sentence with which the layout's own reader refuses it, "" where it reads it.
        depth_reader: reads frame i's z-depth in mm for layouts other than our own, or None.
        poses_unit: `mm` or `up to scale`.
    """

    path: Path
    source: Source
    root: Path | None = None
    layout: str = ""
    images: tuple[Path, ...] = ()
    depths: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    depth_scale: float = DEPTH_SCALE
    poses: Poses | None = None
    camera: Camera | None = None
    refusal: str = ""
    depth_reader: Callable[[int], NDArray[np.float32]] | None = None
    poses_unit: str = "mm"

    @cached_property
    def probes(self) -> list[Frame]:
        """A sample of frames spread over the clip."""
        return self.source.sample(PROBES)

    @cached_property
    def small_probes(self) -> list[Frame]:
        """The same sample, no wider than `SMALL` pixels."""
        return [_small(frame) for frame in self.probes]

    @cached_property
    def survey(self) -> Survey:
        """Figures of every frame: a pass over the whole clip."""
        return survey(self.source.frames())

    @cached_property
    def stamps(self) -> NDArray[np.float64] | None:
        """Time stamps of a video's pictures, seconds, rising, from its packets without decoding; None for images."""
        return packet_times(self.path) if self.path.is_file() else None

    @cached_property
    def has_depth(self) -> bool:
        return bool(self.depths) or self.depth_reader is not None

    def depth_row(self, index: int) -> int | None:
        """Which depth map belongs to frame `index`: by the number in the names, else by the order."""
        return _row(self.images, self.depths, index)

    def mask_row(self, index: int) -> int | None:
        """Which mask belongs to frame `index`."""
        return _row(self.images, self.masks, index)

    def pose_row(self, index: int) -> int | None:
        """Which pose belongs to frame `index`."""
        if self.poses is None:
            return None
        count = len(self.poses.matrices)
        numbers = numbered(self.images) if self.images and count != len(self.images) else None
        if numbers is not None:  # an image or a pose is missing: the numbers tell which
            theirs = numbered(self.depths) if len(self.depths) == count else None
            if theirs is not None:
                return theirs.index(numbers[index]) if numbers[index] in theirs else None
            step = _step(numbers)
            first = 0 if max(numbers) // step < count else min(numbers)
            index = (numbers[index] - first) // step
        return index if 0 <= index < count else None

    def depth(self, index: int) -> NDArray[np.float32] | None:
        """Stored depth of frame `index` divided by the scale, (H, W), 0 for none: mm if all is well; None for none."""
        if self.depth_reader is not None:
            try:
                return self.depth_reader(index)
            except InputError:
                return None
        row = self.depth_row(index)
        if row is None:
            return None
        stored = read_raw(self.depths[row])
        if stored is None:
            return None
        if self.layout == "c3vd":
            stored = np.where(stored == 65535, 0, stored)
        return stored.astype(np.float32) / np.float32(self.depth_scale)

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """The mask of frame `index`, True where it is white; None for none."""
        row = self.mask_row(index)
        stored = None if row is None else read_raw(self.masks[row])
        return None if stored is None else stored > (127 if stored.max() > 1 else 0)


def open_case(path: str | Path, fps: float = 30.0) -> Case:
    """Look at what lies at `path`.

    Raises:
        InputError: there are no pictures at all.
    """
    path = Path(path).expanduser()
    try:
        source = open_source(path, fps=fps)
    except InputError:
        # A data set that is not whole is what a doctor is for: its pictures are there.
        if not path.is_dir():
            raise
        source = images.open(path, 1, None, fps)
    return case_of(path, source)


def pictures_of(path: Path, source: Source, probes: list[Frame]) -> Case:
    """The pictures of a source alone, with frames of it that have been read already: for what has to be quick."""
    case = Case(Path(path).expanduser(), source, images=tuple(getattr(source, "files", ())))
    case.__dict__["probes"] = probes  # where `cached_property` keeps it
    return case


def case_of(path: Path, source: Source) -> Case:
    """The case of a source that is open already."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return Case(path, source)
    images = tuple(getattr(source, "files", ()))
    depth_folder = path / "depth"
    poses = next((p for name in _POSE_FILES if (p := path / name).is_file()), None)
    own = depth_folder.is_dir() or (path / "intrinsics.json").is_file() or (path / "rgb").is_dir()
    foreign = any(path.glob("*_depth.tiff")) or any(path.glob("Depth_*.png"))
    if own and not foreign:
        camera, scale = _own_camera(path)
        return Case(
            path, source, path, "phantom", images, _files(depth_folder), _masks(path), scale,
            read_poses(poses) if poses else None, camera, _refusal(path),
        )  # fmt: skip
    try:
        truth = open_truth(path)
    except InputError as error:
        refusal = "" if "no ground truth of a known layout" in str(error) else str(error)
        depths = tuple(sorted(path.glob("*_depth.tiff"), key=natural_key))
        return Case(
            path, source, path, "c3vd" if depths else "", images, depths, _masks(path), 655.35,
            read_poses(poses) if poses else None, _own_camera(path)[0], refusal,
        )  # fmt: skip
    found = None
    if truth.trajectory is not None:
        times = truth.trajectory.times_ns / 1e9
        found = Poses(poses or path, "tum", times, truth.trajectory.world_from_cam)
    depths = tuple(sorted([*path.glob("*_depth.tiff"), *path.glob("Depth_*.png")], key=natural_key))
    return Case(
        path, source, path, truth.layout, images, depths, _masks(path), poses=found, camera=truth.camera,
        depth_reader=truth.depth if truth.read_depth else None, poses_unit=truth.unit,
    )  # fmt: skip


def read_poses(path: Path) -> Poses | None:
    """8 numbers a line are TUM's, 16 a matrix by rows or by columns, told by where 0 0 0 1 stands; None for neither."""
    from scipy.spatial.transform import Rotation

    try:
        lines = read_text(path).splitlines()
        rows = [[float(v) for v in line.split("#")[0].replace(",", " ").split()] for line in lines]
    except (ValueError, UnicodeDecodeError):
        return None
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) not in (8, 16):
        return None
    values = np.array(rows, float)
    if not np.isfinite(values).all():
        return None
    if values.shape[1] == 8:
        if (np.linalg.norm(values[:, 4:], axis=1) < 1e-6).any():
            return None
        matrices = np.tile(np.eye(4), (len(values), 1, 1))
        matrices[:, :3, :3], matrices[:, :3, 3] = Rotation.from_quat(values[:, 4:]).as_matrix(), values[:, 1:4]
        return Poses(path, "tum", values[:, 0], matrices)
    matrices = values.reshape(-1, 4, 4)
    by_rows = np.abs(matrices[:, 3] - [0, 0, 0, 1]).max() < 1e-4
    return Poses(
        path, "rows" if by_rows else "columns", np.arange(len(rows), dtype=float),
        matrices if by_rows else matrices.transpose(0, 2, 1),
    )  # fmt: skip


def packet_times(path: Path) -> NDArray[np.float64] | None:
    """Presentation times of a video's packets, seconds, rising; None where the file has none or is no plain video."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            ticks = [p.pts for p in container.demux(stream) if p.pts is not None and p.size and not p.is_discard]
            return np.sort(np.array(ticks, float)) * float(stream.time_base) if ticks else None
    except (av.FFmpegError, OSError, IndexError):
        return None


def read_raw(path: Path) -> NDArray[Any] | None:
    """The stored values of an image, one channel, all bits kept; None where it can't be read."""
    image = imread(path)
    return image if image is None or image.ndim == 2 else np.ascontiguousarray(image[..., 0])


def numbered(files: tuple[Path, ...]) -> list[int] | None:
    """The number at the end of each name, or None unless all have one and no two the same."""
    found = [re.findall(r"\d+", path.stem) for path in files]
    numbers = [int(f[-1]) for f in found if f]
    return numbers if files and len(set(numbers)) == len(files) else None


def _small(frame: Frame) -> Frame:
    if frame.width <= SMALL:
        return frame
    size = SMALL, round(frame.height * SMALL / frame.width)
    return Frame.of(cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), frame.index, frame.time_ns)


def _step(numbers: list[int]) -> int:
    return max(1, int(np.median(np.diff(sorted(numbers))))) if len(numbers) > 1 else 1


def _row(images: tuple[Path, ...], others: tuple[Path, ...], index: int) -> int | None:
    if len(images) != len(others):
        mine, theirs = numbered(images), numbered(others)
        if mine is not None and theirs is not None and index < len(mine):
            return theirs.index(mine[index]) if mine[index] in theirs else None
    return index if 0 <= index < len(others) else None


def _own_camera(folder: Path) -> tuple[Camera | None, float]:
    file = folder / "intrinsics.json"
    try:
        scale = float(parse_json(read_text(file)).get("depth_scale", DEPTH_SCALE)) if file.is_file() else DEPTH_SCALE
        return (read_camera(file) if file.is_file() else None), scale if scale > 0 else DEPTH_SCALE
    except (InputError, ValueError, AttributeError):
        return None, DEPTH_SCALE


def _refusal(folder: Path) -> str:
    if not (folder / "intrinsics.json").is_file():
        return ""
    try:
        truth = open_truth(folder)
        if truth.read_depth is not None:
            truth.depth(0)
    except InputError as error:
        return str(error)
    return ""


def _masks(folder: Path) -> tuple[Path, ...]:
    return next((files for name in _MASK_FOLDERS if (files := _files(folder / name))), ())


def _files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=natural_key))
