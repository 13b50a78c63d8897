"""The Hamlyn recordings (Imperial College) as Recasens et al. (RA-L 2021) rectified them, and the silicone heart.

- rectifiedXX/: image01/%010d.jpg (left), image02/ (right), depth01/%010d.png (16 bit, mm, matched by LIBELAS),
  intrinsics.txt (3 x 3, or 3 x 4) here or in ../calibration/XX/, and extrinsics.txt (right from left, or the baseline).
- The tracking set of the same authors: color/, depth/, intrinsics.txt; cropped, so with another camera.
- The heart: *_L_*.png, *_R_*.png, calib.left.intrinsic.txt, calib.left.distortion.txt, calib.l2r.4x4 (right from left).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from video_io.camera import Camera
from video_io.datasets.base import (
    Depth,
    Truth,
    check_count,
    check_size,
    files_in,
    image_size,
    matrix_in,
    numbers_in,
    read_depth_image,
    read_picture,
)
from video_io.errors import InputError
from video_io.sources.images import common_size
from video_io.stereo import Pairs, Rig

LIBELAS = "depth: matched in the stereo pairs (LIBELAS), not measured"
MATCHED = "depth: matched in the stereo pairs by our own semi-global matching, not measured"


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (
        (folder / "image01").is_dir()
        or (folder / "calib.l2r.4x4").is_file()
        or ((folder / "color").is_dir() and (folder / "depth").is_dir() and (folder / "intrinsics.txt").is_file())
    )


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    if (folder / "calib.l2r.4x4").is_file():
        return _heart(folder)
    colour, depth_name = ("image01", "depth01") if (folder / "image01").is_dir() else ("color", "depth")
    images, depths = files_in(folder / colour), files_in(folder / depth_name)
    if not images:
        raise InputError(f"'{folder / colour}' holds no images; expected %010d.jpg; complete the folder")
    size = common_size(list(images))  # cropping tools round: some sequences mix 419 x 288 with 418 x 288
    camera = _camera(folder, size)
    pairs = _pairs(folder, images, camera)
    notes = [] if camera else ["camera: intrinsics.txt is missing, here and in ../calibration/"]
    reader: Callable[[int], Depth] | None = None
    if depths:
        by_name = {p.stem: p for p in depths}
        if lacking := [p for p in images if p.stem not in by_name]:
            raise InputError(
                f"'{folder / depth_name}' has no depth of {lacking[0].name} ({len(lacking)} of {len(images)} are "
                "missing); "
                "expected one for each image; complete the folder"
            )

        def stored(index: int) -> Depth:
            path = by_name[images[index].stem]
            values = read_depth_image(path)
            check_size(path, values.shape[1::-1], image_size(images[index]))
            return values[: size[1], : size[0]].astype(np.float32)

        reader = stored
        notes.append(LIBELAS)
    elif pairs is not None:
        reader = pairs.depth
        notes.append(MATCHED)
    return Truth(
        folder.resolve().name, "hamlyn", camera, None, images, len(images), None, reader, pairs=pairs,
        notes=tuple(notes),
    )  # fmt: skip


def _beside(folder: Path, name: str) -> Path | None:
    """A calibration file in the folder, or in the calibration folder of the data set."""
    number = "".join(re.findall(r"\d+", folder.resolve().name))
    above = folder.resolve().parents
    places = [folder, *(p / "calibration" / number for p in above[:2] if number)]
    return next((p / name for p in places if (p / name).is_file()), None)


def _camera(folder: Path, size: tuple[int, int]) -> Camera | None:
    path = _beside(folder, "intrinsics.txt")
    return Camera.from_opencv(*size, matrix_in(path)) if path else None


def _pairs(folder: Path, left: tuple[Path, ...], camera: Camera | None) -> Pairs | None:
    """The rectified pairs, where the right images and the baseline are there."""
    right, path = files_in(folder / "image02"), _beside(folder, "extrinsics.txt")
    if not right or path is None or camera is None:
        return None
    check_count(folder, len(left), len(right), "right images")
    values = [v for _, row in numbers_in(path, "a 3 x 4 matrix, right from left, mm") for v in row]
    if len(values) not in (1, 12, 16):
        raise InputError(f"'{path}' holds {len(values)} numbers; expected a 3 x 4 matrix; fetch it again")
    # The images are rectified, so only the length of the shift is left of it.
    baseline = values[0] if len(values) == 1 else float(np.linalg.norm(np.reshape(values, (-1, 4))[:3, 3]))
    shift = np.eye(4)
    shift[0, 3] = -abs(baseline)
    return Pairs(Rig(camera, camera, shift), lambda i: (read_picture(left[i]), read_picture(right[i])))


def _heart(folder: Path) -> Truth:
    left = [p for p in files_in(folder) if re.search(r"_L(_|\.)", p.name)]
    right = [p for p in files_in(folder) if re.search(r"_R(_|\.)", p.name)]
    check_count(folder, len(left), len(right), "right images")
    if not left:
        raise InputError(f"'{folder}' holds no pair *_L_*.png, *_R_*.png; expected one at least; complete the folder")
    size = image_size(left[0])
    cameras = []
    for side in ("left", "right"):
        matrix = matrix_in(folder / f"calib.{side}.intrinsic.txt")
        path = folder / f"calib.{side}.distortion.txt"
        distortion = [v for _, row in numbers_in(path, "5 numbers") for v in row] if path.is_file() else []
        cameras.append(Camera.from_opencv(*size, matrix, distortion))
    rows = [row for _, row in numbers_in(folder / "calib.l2r.4x4", "a 4 x 4 matrix, right from left, mm")]
    if [len(r) for r in rows] != [4, 4, 4, 4]:
        raise InputError(f"'{folder / 'calib.l2r.4x4'}' is no 4 x 4 matrix; expected right from left; fetch it again")
    pairs = Pairs(Rig(*cameras, np.array(rows)), lambda i: (read_picture(left[i]), read_picture(right[i])))
    return Truth(
        folder.resolve().name, "hamlyn", cameras[0], None, tuple(left), len(left), None, pairs.depth, pairs=pairs,
        notes=(MATCHED,),
    )  # fmt: skip
