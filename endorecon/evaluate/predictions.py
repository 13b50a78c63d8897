"""What other programs predicted, from plain files: depth maps, a path, a mesh, rendered images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.trajectory import match
from rendering.mesh import Mesh, read_mesh
from video_io.datasets import Truth
from video_io.errors import InputError
from video_io.trajectory import Trajectory
from video_io.view import View

Box = tuple[int, int, int, int]
DEPTH_SUFFIXES = (".npy", ".npz", ".png", ".tif", ".tiff")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MESH_SUFFIXES = (".ply", ".obj", ".stl", ".off", ".glb")
PATH_SUFFIXES = (".tum", ".txt")
_DEPTH_FOLDERS = ("depth", "depths", "depth_maps")
_IMAGE_FOLDERS = ("images", "renders", "rgb", "color")


@dataclass(frozen=True)
class Files:
    """Where predictions lie, and how the depth maps are to be read.

    Attributes:
        depth: folder of depth maps: .npy, .npz (`depth`), 16-bit .png or .tif, or float .tif; 0 is no depth.
        path: camera-to-world poses as a TUM file.
        mesh: a surface, in the world of `path`, or in the truth's where there is no path.
        images: folder of rendered images.
        masks: folder of masks, white where a pixel does not count (EndoNeRF's: the tool).
        disparity: the stored values are inverse depth.
        depth_scale: what a stored value is multiplied with (before it is inverted, if it is).
        crop: x, y, width, height of the part of the truth's images that the depth maps show; None: all.
    """

    depth: Path | None = None
    path: Path | None = None
    mesh: Path | None = None
    images: Path | None = None
    masks: Path | None = None
    disparity: bool = False
    depth_scale: float = 1.0
    crop: Box | None = None


def find_files(place: Path, files: Files) -> Files:
    """What a folder or a file of predictions holds, under what `files` says explicitly.

    A file is a path (.tum, .txt) or a mesh. A folder holds depth maps, or images, or folders and files by name:
    depth/, images/, trajectory.tum, mesh.ply.

    Raises:
        InputError: nothing there that can be evaluated.
    """
    found: dict[str, Path] = {}
    if place.is_file():
        suffix = place.suffix.lower()
        kind = "path" if suffix in PATH_SUFFIXES else "mesh" if suffix in MESH_SUFFIXES else ""
        if not kind:
            raise InputError(
                f"'{place}' is neither a run nor a file that can be evaluated; expected poses (.tum, .txt) or a mesh "
                f"({', '.join(MESH_SUFFIXES)}), or give --depth, --path, --mesh or --images"
            )
        found[kind] = place
    elif place.is_dir():
        names = {p.name.lower(): p for p in sorted(place.iterdir())}
        for kind, folders in (("depth", _DEPTH_FOLDERS), ("images", _IMAGE_FOLDERS)):
            if folder := next((names[n] for n in folders if n in names and names[n].is_dir()), None):
                found[kind] = folder
        for kind, suffixes in (("path", PATH_SUFFIXES), ("mesh", MESH_SUFFIXES)):
            if one := [p for n, p in names.items() if p.is_file() and Path(n).suffix in suffixes]:
                found[kind] = one[0]
        if "depth" not in found and (maps := _listed(place, DEPTH_SUFFIXES)):
            found["images" if _is_picture(maps[0]) else "depth"] = place
        elif "images" not in found and "depth" not in found and _listed(place, IMAGE_SUFFIXES):
            found["images"] = place
    else:
        raise InputError(f"'{place}' does not exist; give a run folder, or a folder or file of predictions")
    given = {k: v for k in ("depth", "path", "mesh", "images", "masks") if (v := getattr(files, k)) is not None}
    if not found | given:
        raise InputError(
            f"'{place}' holds no run.yaml and nothing that can be evaluated; expected depth maps "
            f"({', '.join(DEPTH_SUFFIXES)}), trajectory.tum, mesh.ply or images/"
        )
    return Files(**(found | given), disparity=files.disparity, depth_scale=files.depth_scale, crop=files.crop)


def _is_picture(path: Path) -> bool:
    """Whether a file is an 8-bit colour image."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return image is not None and image.dtype == np.uint8 and image.ndim == 3


@dataclass
class Predictions:
    """Plain files as the evaluation sees them; made by `open_predictions`.

    Attributes:
        indices: numbers of the truth's frames that have a depth map.
        notes: what was taken for granted.
    """

    name: str
    view: View
    indices: Sequence[int]
    trajectory: Trajectory
    frames: int
    mesh_path: Path | None
    maps: dict[int, Path]
    files: Files
    segments: int = 1
    by_number: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def has_depth(self) -> bool:
        return bool(self.maps)

    @property
    def aligned(self) -> bool:
        """Whether the mesh lies in the truth's world, as there is no path to align it by."""
        return self.mesh_path is not None and not len(self.trajectory)

    def depth(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Depth of a frame of the truth, and 1 where there is one.

        Raises:
            InputError: a file that can't be read, NaN, or a value below 0.
        """
        path = self.maps[index]
        values = read_map(path) * self.files.depth_scale
        bad = int(np.count_nonzero(~np.isfinite(values) | (values < 0)))
        if bad:
            raise InputError(
                f"frame {index}: {bad} of {values.size} values in '{path}' are NaN, infinite or below 0; "
                "a prediction that fails must not be left out: write 0 where there is no depth"
            )
        valid = values > 0
        if self.files.disparity:
            values = np.where(valid, 1 / np.where(valid, values, 1), 0)
        return values.astype(np.float32), valid.astype(np.float32)

    def mesh(self) -> Mesh | None:
        """The surface, if there is one."""
        return read_mesh(self.mesh_path) if self.mesh_path else None


def open_predictions(name: str, files: Files, truth: Truth) -> Predictions:
    """Predictions beside the truth that they are for.

    Raises:
        InputError: files that can't be read, or that can't be told which frames they belong to.
    """
    maps: dict[int, Path] = {}
    notes: list[str] = []
    view = View(1, 1, (0, 0, 1, 1), 1, 1)
    if files.depth is not None:
        paths = _listed(files.depth, DEPTH_SUFFIXES)
        if not paths:
            raise InputError(f"'{files.depth}' holds no depth maps; expected files {', '.join(DEPTH_SUFFIXES)}")
        maps = by_frame(paths, truth, notes)
        if truth.read_depth is not None:
            view = _view(read_map(paths[0]).shape, truth, files.crop)
    trajectory = Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
    if files.path is not None:
        trajectory = _read_path(files.path, truth, notes)
    return Predictions(
        name, view, sorted(maps), trajectory, max(len(maps), len(trajectory)), files.mesh, maps, files, notes=notes
    )


def by_frame(paths: Sequence[Path], truth: Truth, notes: list[str]) -> dict[int, Path]:
    """Which frame of the truth each file belongs to: in order where there are as many, else by the number in its name.

    Raises:
        InputError: fewer files than frames, and names whose numbers are not those of the truth's images.
    """
    if len(paths) == truth.frame_count:
        return dict(enumerate(paths))
    known = {n: i for i, p in enumerate(truth.image_paths) if (n := _number(p)) is not None}
    if len(known) != truth.frame_count:
        known = {i: i for i in range(truth.frame_count)}
    found = {known[n]: p for p in paths if (n := _number(p)) in known and n is not None}
    if len(found) < len(paths):
        strange = next(p for p in paths if p not in found.values())
        raise InputError(
            f"{len(paths)} files for {truth.frame_count} frames of {truth.name}, and '{strange.name}' has no number "
            "of one of them; expected one file a frame, or the frame's number in each name"
        )
    notes.append(f"{len(found)} of the truth's {truth.frame_count} frames are there, by the numbers in their names")
    return found


def _number(path: Path) -> int | None:
    """The last number in a file's name, as in `frame_000012_depth.png`."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else None


def _listed(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    from video_io.sources.images import natural_key

    if not folder.is_dir():
        raise InputError(f"the folder '{folder}' does not exist; check the path")
    return sorted((p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in suffixes), key=natural_key)


def listed_images(folder: Path) -> list[Path]:
    """The pictures in a folder, in order."""
    found = _listed(folder, IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"'{folder}' holds no images; expected files {', '.join(IMAGE_SUFFIXES)}")
    return found


def read_map(path: Path) -> NDArray[np.float64]:
    """The stored values (H, W) of a depth map.

    Raises:
        InputError: a file that can't be read, holds no single map, or has 8 bits a pixel only.
    """
    from video_io.datasets.base import read_depth_image

    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                values = file["depth" if "depth" in file.files else file.files[0]]
        else:
            values = read_depth_image(path)
            if values.ndim == 3 and values.dtype == np.uint16:
                values = values[..., 0]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"depth map '{path}' can't be read ({error}); expected an array (H, W); write it again"
        ) from error
    if values.ndim > 2 and values.size == values.shape[-1] * values.shape[-2]:  # (1, H, W)
        values = values.reshape(values.shape[-2:])
    elif values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        raise InputError(f"depth map '{path}' has the shape {values.shape}; expected one map, (H, W)")
    return values.astype(np.float64)


def _view(shape: tuple[int, ...], truth: Truth, crop: Box | None) -> View:
    first = truth.depth(0)
    assert first is not None
    height, width = first.shape
    box = crop or (0, 0, width, height)
    if box[0] < 0 or box[1] < 0 or box[0] + box[2] > width or box[1] + box[3] > height or min(box[2:]) < 1:
        raise InputError(f"the part {box} (x, y, width, height) does not lie in the truth's {width} x {height} pixels")
    return View(width, height, box, int(shape[1]), int(shape[0]))


def _read_path(path: Path, truth: Truth, notes: list[str]) -> Trajectory:
    try:
        found = Trajectory.read_tum(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' can't be read as a path ({error}); expected lines of time_s tx ty tz qx qy qz qw, "
            "camera-to-world"
        ) from error
    # Frame numbers in place of times agree with some true times by chance, hence half of them at least.
    if truth.trajectory is None or 2 * len(match(found.times_ns, truth.trajectory.times_ns)[0]) >= len(found):
        return found
    if len(found) == len(truth.trajectory):
        notes.append("the times of the path are not the truth's: poses were taken in order, one for each true pose")
        return Trajectory(truth.trajectory.times_ns, found.world_from_cam)
    numbers = np.round(found.times_ns / 1e9)
    whole = np.abs(found.times_ns / 1e9 - numbers) < 1e-6
    if whole.all() and numbers.min() >= 0 and numbers.max() < len(truth.trajectory):
        notes.append("the times of the path are whole numbers: they were taken as the numbers of the truth's frames")
        return Trajectory(truth.trajectory.times_ns[numbers.astype(int)], found.world_from_cam)
    raise InputError(
        f"the times in '{path}' ({found.times_ns[0] / 1e9:g} to {found.times_ns[-1] / 1e9:g} s) are not those of "
        f"{truth.name} ({truth.trajectory.times_ns[0] / 1e9:g} to {truth.trajectory.times_ns[-1] / 1e9:g} s), and "
        f"there are {len(found)} poses for {len(truth.trajectory)}; expected the truth's times, or frame numbers"
    )
