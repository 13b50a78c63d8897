"""A model of COLMAP (Schönberger and Frahm, CVPR 2016), in text or binary, with its images.

cameras, images and points3D (.txt or .bin) in the folder, in sparse/, sparse/0/, colmap/sparse/0/ or model/; the
images in images/ beside them. Poses are camera-from-world with w first; the pixel convention is ours; the unit means
nothing. Depth is sparse: at the pixels where an image saw a point. Images that COLMAP did not place are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_io.calibrations import COLMAP_MODELS, colmap_camera
from video_io.camera import Camera
from video_io.datasets.base import (
    UP_TO_SCALE,
    Depth,
    Truth,
    check_size,
    frame_times,
    from_quaternions,
    image_size,
    text_in,
)
from video_io.errors import InputError
from video_io.files import is_inside, read_bytes
from video_io.sources.images import natural_key
from video_io.trajectory import Trajectory

PLACES = (".", "sparse/0", "sparse", "colmap/sparse/0", "model")
# COLMAP's numbers of its models.
MODEL_IDS = dict(
    enumerate(
        ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV",
         "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE")
    )
)  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """An image that COLMAP placed: camera's number, cam_from_world, and the pixels (N, 2) of points by number (N,)."""

    name: str
    camera: int
    quaternion: NDArray[np.float64]
    translation: NDArray[np.float64]
    pixels: NDArray[np.float64]
    points: NDArray[np.int64]


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    other = any((folder / name).is_file() for name in ("transforms.json", "poses_bounds.npy"))
    return not other and _model(folder) is not None


def open(folder: Path) -> Truth:
    """Open the folder; see `open_truth`."""
    found = _model(folder)
    assert found is not None
    place, suffix = found
    try:
        cameras = dict((_text_cameras if suffix == ".txt" else _binary_cameras)(place / f"cameras{suffix}"))
        placed = list((_text_images if suffix == ".txt" else _binary_images)(place / f"images{suffix}"))
        path = place / f"points3D{suffix}"
        points = (_text_points if suffix == ".txt" else _binary_points)(path) if path.is_file() else {}
    except InputError:
        raise
    except (OSError, ValueError, struct.error, IndexError, OverflowError) as error:
        raise InputError(
            f"the COLMAP model in '{place}' can't be read ({error}); expected it as COLMAP wrote it; export it again"
        ) from error
    if not placed:
        raise InputError(f"the COLMAP model in '{place}' has no image; expected placed images; map it again")
    placed.sort(key=lambda image: natural_key(Path(image.name)))
    camera = _one_camera(place, cameras, placed)
    files = [_file(folder, place, image.name) for image in placed]
    check_size(files[0], image_size(files[0]), (camera.width, camera.height))
    turned = np.array([image.quaternion for image in placed])[:, [1, 2, 3, 0]]
    cam_from_world = from_quaternions(np.array([image.translation for image in placed]), turned, str(place))
    poses = np.linalg.inv(cam_from_world)

    def depth(index: int) -> Depth:
        out = np.zeros((camera.height, camera.width), np.float32)
        image = placed[index]
        known = np.array([p in points for p in image.points.tolist()], bool)
        if not known.any():
            return out
        world = np.array([points[p] for p in image.points[known].tolist()])
        z = world @ cam_from_world[index, 2, :3] + cam_from_world[index, 2, 3]
        at = np.floor(image.pixels[known]).astype(int)
        inside = ((at >= 0) & (at < [camera.width, camera.height])).all(1) & (z > 0)
        out[at[inside, 1], at[inside, 0]] = z[inside]
        return out

    times = frame_times(len(placed))
    return Truth(
        folder.resolve().name, "colmap", camera, Trajectory(times, poses), tuple(files), len(files), None,
        depth if points else None, UP_TO_SCALE,
    )  # fmt: skip


def _model(folder: Path) -> tuple[Path, str] | None:
    for name in PLACES:
        for suffix in (".bin", ".txt"):
            if all((folder / name / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return folder / name, suffix
    return None


def _one_camera(place: Path, cameras: dict[int, Camera], placed: list[Placed]) -> Camera:
    used = {image.camera for image in placed}
    if missing := used - set(cameras):
        raise InputError(f"the COLMAP model in '{place}' lacks camera {min(missing)}; export the whole model again")
    different = {cameras[number] for number in used}
    if len(different) > 1:
        raise InputError(
            f"the COLMAP model in '{place}' has {len(different)} different cameras; expected one endoscope; map "
            "the images "
            "with a single camera"
        )
    return different.pop()


def _file(folder: Path, place: Path, name: str) -> Path:
    """The image's file, which must lie below the folder that is given or two above the model."""
    roots = (folder / "images", folder, place.parent / "images", place.parent.parent / "images")
    for root in roots:
        path = root / name
        if path.is_file() and is_inside(path, root):
            return path
    raise InputError(
        f"the image '{name}' of the COLMAP model in '{place}' is missing; expected it in '{folder / 'images'}'; "
        "complete the folder"
    )


# -- text ---------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[str]:
    return (line for line in text_in(path).splitlines() if not line.startswith("#"))


def _text_cameras(path: Path) -> Iterator[tuple[int, Camera]]:
    for line in _lines(path):
        if words := line.split():
            yield int(words[0]), colmap_camera(words[1], int(words[2]), int(words[3]), [float(w) for w in words[4:]])


def _text_images(path: Path) -> Iterator[Placed]:
    lines = list(_lines(path))
    while lines and not lines[-1].strip() and len(lines) % 2:
        lines.pop()
    # Two lines an image; the second one, of its points, may be empty.
    for head, body in zip(lines[::2], [*lines[1::2], ""], strict=False):
        words = head.split(maxsplit=9)
        if len(words) != 10:
            raise ValueError(f"the line '{head[:40]}' of images.txt has {len(words)} entries, not 10")
        numbers = np.array(words[1:8], float)
        seen = np.array(body.split(), float).reshape(-1, 3)
        seen = seen[seen[:, 2] >= 0]
        yield Placed(words[9], int(words[8]), numbers[:4], numbers[4:], seen[:, :2], seen[:, 2].astype(np.int64))


def _text_points(path: Path) -> dict[int, NDArray[np.float64]]:
    points = {}
    for line in _lines(path):
        if words := line.split(maxsplit=4):
            if len(words) < 4:
                raise ValueError(f"the line '{line[:40]}' of points3D.txt has {len(words)} entries")
            points[int(words[0])] = np.array(words[1:4], float)
    return points


# -- binary -------------------------------------------------------------------------------------------------------


MOST_MB = 4000  # of points and their tracks


class _Bytes:
    """A binary file that is read piece by piece and never beyond its end."""

    def __init__(self, path: Path) -> None:
        self.at = 0
        try:
            self.data = read_bytes(path, MOST_MB)
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' can't be read ({error}); expected a COLMAP model; fetch it again") from error

    def take(self, form: str) -> tuple:  # type: ignore[type-arg]
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def array(self, dtype: list[tuple[str, str]], count: int) -> NDArray[np.void]:
        size = np.dtype(dtype).itemsize * count
        if count < 0 or self.at + size > len(self.data):
            raise ValueError("it is cut short")
        self.at += size
        return np.frombuffer(self.data, dtype, count, self.at - size)

    def name(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text


def _binary_cameras(path: Path) -> Iterator[tuple[int, Camera]]:
    file = _Bytes(path)
    for _ in range(file.take("Q")[0]):
        number, model, width, height = file.take("iiQQ")
        name = MODEL_IDS.get(model, str(model))
        if name not in COLMAP_MODELS:
            raise ValueError(f"COLMAP's model {name} is not supported (supported: {', '.join(COLMAP_MODELS)})")
        yield number, colmap_camera(name, width, height, file.take(f"{COLMAP_MODELS[name]}d"))


def _binary_images(path: Path) -> Iterator[Placed]:
    file = _Bytes(path)
    for _ in range(file.take("Q")[0]):
        file.take("i")
        numbers = np.array(file.take("7d"))
        camera = file.take("i")[0]
        name = file.name()
        seen = file.array([("x", "<f8"), ("y", "<f8"), ("point", "<i8")], file.take("Q")[0])
        seen = seen[seen["point"] >= 0]
        pixels = np.stack([seen["x"], seen["y"]], -1)
        yield Placed(name, camera, numbers[:4], numbers[4:], pixels, seen["point"].astype(np.int64))


def _binary_points(path: Path) -> dict[int, NDArray[np.float64]]:
    file, points = _Bytes(path), {}
    for _ in range(file.take("Q")[0]):
        number, x, y, z = file.take("Qddd")
        file.take("BBBd")
        file.array([("image", "<i4"), ("point", "<i4")], file.take("Q")[0])
        points[int(number)] = np.array([x, y, z])
    return points
