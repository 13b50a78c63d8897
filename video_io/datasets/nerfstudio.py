"""nerfstudio's transforms.json, with images and, where there are, depth and masks.

fl_x, fl_y, cx, cy, w, h, k1 to k4, p1, p2 and camera_model for all frames; for each frame file_path, transform_matrix
(camera-to-world, axes right, up, backwards), depth_file_path (16 bit or .npy, z, value * depth_unit_scale_factor =
metres, .001 unless it says otherwise) and mask_path (black = not to be used). With depth, lengths are metres, unless an
export of a run (endorecon/exports/nerfstudio.py) says that they are up to scale; without, the unit means nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.datasets.base import (
    MM,
    UP_TO_SCALE,
    Depth,
    Mask,
    Truth,
    check_size,
    frame_times,
    image_size,
    read_depth_image,
    read_mask_image,
    rigid,
)
from video_io.errors import InputError
from video_io.files import parse_json, read_npy, read_text
from video_io.sources.images import SUFFIXES, natural_key
from video_io.trajectory import Trajectory

MOST_MB = 400  # of an array of depth
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
_SHARED = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1", "p2", "camera_model", "camera_angle_x")
_FISHEYE = ("OPENCV_FISHEYE",)
_PLAIN = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL")


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "transforms.json").is_file()


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    path = folder / "transforms.json"
    try:
        told = parse_json(read_text(path))
        frames = sorted(told["frames"], key=lambda f: natural_key(Path(str(f["file_path"]))))
        matrices = np.array([f["transform_matrix"] for f in frames], float).reshape(-1, 4, 4)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' can't be used ({error!r:.80}); expected frames with file_path and a 4 x 4 transform_matrix; "
            "export it again"
        ) from error
    if not frames:
        raise InputError(f"'{path}' has no frames; expected one at least; export it again")
    images = tuple(_file(folder, str(f["file_path"]), path) for f in frames)
    size = image_size(images[0])
    camera = _camera(path, told, frames, size)
    depths = [_file(folder, str(f["depth_file_path"]), path) for f in frames if f.get("depth_file_path")]
    masks = [_file(folder, str(f["mask_path"]), path) for f in frames if f.get("mask_path")]
    for files, what in ((depths, "depth_file_path"), (masks, "mask_path")):
        if files and len(files) != len(frames):
            raise InputError(
                f"'{path}' gives {what} for {len(files)} of {len(frames)} frames; expected it for each or none"
            )
    scaled = depths and (told.get("endorecon") or {}).get("unit") != UP_TO_SCALE
    factor = float(told.get("depth_unit_scale_factor", 1e-3))
    scale = 1000.0 if depths else 1.0
    poses = rigid(matrices @ FLIP, str(path))
    poses[:, :3, 3] *= scale

    def depth(index: int) -> Depth:
        stored = _stored_depth(depths[index])
        check_size(depths[index], stored.shape[1::-1], size)
        return (stored.astype(np.float32) * np.float32(1000 * factor)).astype(np.float32)

    def mask(index: int) -> Mask:
        return read_mask_image(masks[index], size)

    return Truth(
        folder.resolve().name, "nerfstudio", camera, Trajectory(frame_times(len(frames)), poses), images, len(images),
        None, depth if depths else None, MM if scaled else UP_TO_SCALE, read_mask=mask if masks else None,
    )  # fmt: skip


def _stored_depth(path: Path) -> NDArray[np.generic]:
    if path.suffix != ".npy":
        return read_depth_image(path)
    try:
        return read_npy(path, MOST_MB)
    except (OSError, ValueError) as error:
        raise InputError(f"depth '{path}' can't be read ({error}); expected an array; export it again") from error


def _file(folder: Path, name: str, where: Path) -> Path:
    path = folder / name
    # Not `resolve`, which fails for links in a circle.
    if not os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
        raise InputError(f"'{where}' names '{name[:80]}', outside its folder; expected files inside it; move them in")
    # The layout's older form leaves the suffix out.
    found = next((p for p in (path, *(path.with_name(path.name + s) for s in sorted(SUFFIXES))) if p.is_file()), None)
    if found is None:
        raise InputError(f"'{path}', which transforms.json names, is missing; expected every file; complete the folder")
    return found


def _camera(path: Path, told: dict[str, Any], frames: list[dict[str, Any]], size: tuple[int, int]) -> Camera:
    """The one camera of all frames."""
    rows = [{n: f.get(n, told.get(n)) for n in _SHARED} for f in frames]
    if any(row != rows[0] for row in rows):
        raise InputError(f"'{path}' has frames with different cameras; expected one endoscope; export them one by one")
    v = rows[0]
    width, height = int(v["w"] or size[0]), int(v["h"] or size[1])
    try:
        if v["fl_x"] is None:
            if v["camera_angle_x"] is None:
                raise ValueError("neither fl_x nor camera_angle_x is there")
            v["fl_x"] = width / 2 / np.tan(float(v["camera_angle_x"]) / 2)
        fx = float(v["fl_x"])
        fy = float(v["fl_y"] or fx)
        cx = float(width / 2 if v["cx"] is None else v["cx"])
        cy = float(height / 2 if v["cy"] is None else v["cy"])
        k1, k2, k3, k4, p1, p2 = (float(v[n] or 0) for n in ("k1", "k2", "k3", "k4", "p1", "p2"))
        model = v["camera_model"] or "OPENCV"
        if model in _FISHEYE:
            camera = Camera("fisheye", width, height, (fx, fy, cx, cy, k1, k2, k3, k4))
        elif model not in _PLAIN:
            raise ValueError(f"camera_model {model} is not supported")
        elif k4:
            raise ValueError("k4 is supported with OPENCV_FISHEYE only")
        elif any((k1, k2, k3, p1, p2)):
            camera = Camera("brown", width, height, (fx, fy, cx, cy, k1, k2, p1, p2, k3))
        else:
            camera = Camera.pinhole(width, height, fx, fy, cx, cy)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"the camera in '{path}' can't be used ({error}); expected fl_x, fl_y, cx, cy, w, h"
        ) from error
    if (width, height) == size:
        return camera
    if abs(width * size[1] - height * size[0]) > max(size):
        check_size(path, (width, height), size)
    return camera.scaled(*size)
