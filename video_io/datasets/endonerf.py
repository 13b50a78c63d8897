"""EndoNeRF (Wang et al., MICCAI 2022): a still da Vinci camera before moving tissue, in LLFF's layout.

images/, depth/ (as matched, in the data set's own unit), masks/ (white = tool), and poses_bounds.npy, N x 17: a 3 x 5
matrix [R | t | height, width, focal length] with axes down, right, backwards, then the nearest and farthest depth.
gt_masks/ says what is never seen and is not read.

Clips made of StereoMIS by Deform3DGS's script have white tissue in the masks, [cy, cx, f] as last column, and names as
frame-000000.color.png. Which of both a folder is, is told by the values.
"""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.datasets.base import (
    UP_TO_SCALE,
    Depth,
    Mask,
    Truth,
    check_count,
    check_size,
    files_in,
    frame_times,
    image_size,
    read_depth_image,
    read_mask_image,
    read_picture,
    rigid,
)
from video_io.errors import InputError
from video_io.trajectory import Trajectory

_PROBES = 8
_REDDER = 6.0  # grey levels by which tissue is redder than tools; less says nothing


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "poses_bounds.npy").is_file()


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    images = _pictures(folder / "images", "color")
    if not images:
        raise InputError(f"'{folder / 'images'}' holds no images; expected one a frame; complete the folder")
    depths, masks = _pictures(folder / "depth", "depth"), _pictures(folder / "masks", "mask")
    for files, what in ((depths, "depth images"), (masks, "masks")):
        if files:
            check_count(folder, len(images), len(files), what)
    size = image_size(images[0])
    poses, camera = _poses(folder / "poses_bounds.npy", len(images), size)
    notes = ["lengths: in the unit in which the data set's depth was matched"]
    white_is_tissue = bool(masks) and tissue_is_white(images, masks)
    if masks:
        notes.append(f"masks: white is {'tissue' if white_is_tissue else 'a tool'}, as their colours show")

    def depth(index: int) -> Depth:
        stored = read_depth_image(depths[index], least_bits=8)
        check_size(depths[index], stored.shape[1::-1], size)
        return (stored if stored.ndim == 2 else stored[..., 0]).astype(np.float32)

    def mask(index: int) -> Mask:
        white = read_mask_image(masks[index], size)
        return white if white_is_tissue else ~white

    if depths and read_depth_image(depths[0], least_bits=8).dtype == np.uint8:
        notes.append("depth: 8 bits, so in 255 steps")
    return Truth(
        folder.resolve().name, "endonerf", camera, Trajectory(frame_times(len(images)), poses), images, len(images),
        None, depth if depths else None, UP_TO_SCALE, read_mask=mask if masks else None, notes=tuple(notes),
    )  # fmt: skip


def tissue_is_white(images: tuple[Path, ...], masks: tuple[Path, ...]) -> bool:
    """Whether the white part of the masks is tissue: it is the redder part; where both are alike, the larger one."""
    redness, share = [], []
    for at in np.unique(np.linspace(0, len(images) - 1, _PROBES).round().astype(int)):
        rgb = read_picture(images[at]).astype(np.float32)
        white = read_mask_image(masks[at], (rgb.shape[1], rgb.shape[0]))
        share.append(white.mean())
        lit = rgb.max(-1) > 30
        red = rgb[..., 0] - rgb[..., 1:].mean(-1)
        if (white & lit).sum() > 50 and (~white & lit).sum() > 50:
            redness.append(np.median(red[white & lit]) - np.median(red[~white & lit]))
    if redness and abs(difference := float(np.median(redness))) > _REDDER:
        return difference > 0
    return float(np.mean(share)) > 0.5


def _pictures(folder: Path, kind: str) -> tuple[Path, ...]:
    """The images of a folder; where names tell kinds apart (frame-000000.color.png), those of this kind."""
    files = files_in(folder)
    named = tuple(p for p in files if p.stem.endswith(f".{kind}"))
    return named or files


def _poses(path: Path, count: int, size: tuple[int, int]) -> tuple[NDArray[np.float64], Camera]:
    try:
        table = np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # mapped, it can't claim more than is there
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        raise InputError(f"'{path}' can't be read; expected numpy's N x 17 numbers; fetch it again") from error
    if table.ndim != 2 or table.shape[1] != 17 or not np.issubdtype(table.dtype, np.number):
        raise InputError(f"'{path}' has the shape {table.shape}; expected N x 17 numbers; fetch it again")
    check_count(path.parent, count, len(table), "poses")
    matrices = table[:, :15].astype(float).reshape(-1, 3, 5)
    first, second, focal = matrices[0, :, 4]
    width, height = size
    if abs(first - height) < 2 and abs(second - width) < 2:
        camera = Camera.pinhole(width, height, focal, focal, width / 2, height / 2)
    elif 0.2 < first / height < 0.8 and 0.2 < second / width < 0.8:
        camera = Camera.from_opencv(width, height, [[focal, 0, second], [0, focal, first], [0, 0, 1]])
    else:
        raise InputError(
            f"'{path}' tells of images of {second:g} x {first:g}, but those in images/ are {width} x {height}; "
            "expected "
            "the same size; scale height, width and focal length in it"
        )
    poses = np.tile(np.eye(4), (count, 1, 1))
    down, right, back, centre = (matrices[:, :, i] for i in range(4))
    poses[:, :3] = np.stack([right, down, -back, centre], -1)
    if np.allclose(matrices[:, :, :3], np.eye(3)):
        # A still camera is often written as the identity, which in LLFF's axes would mirror.
        poses = np.tile(np.eye(4), (count, 1, 1))
        poses[:, :3, 3] = centre
    return rigid(poses, str(path)), camera
