"""SCARED (Allan et al., 2021): porcine abdomen with structured light, as released and in three trees made of it.

As released, dataset_N/keyframe_M/: endoscope_calibration.yaml, Left_Image.png, left_depth_map.tiff (x, y, z), and
data/ with rgb.mp4 (left over right), frame_data.tar.gz (json: camera-calibration, and camera-pose = camera from world,
mm) and scene_points.tar.gz (TIFFs of x, y, z; left over right). The camera is the left one, as recorded, with its
distortion.

- EndoDAC: data/{left/frame_data%06d.png, scene_points/scene_points%06d.tiff, frame_data/frame_data%06d.json}.
- AF-SfMLearner: image_02/data/%010d.png, counted from 1, with image_02/data/groundtruth/scene_points%06d.tiff from 0.
- EndoSurf, EndoGaussian: data/{left_finalpass, disparity, reprojection_data, frame_data}: rectified images, a
  disparity in pixels and the matrix Q; the rectifying rotation is worked out again from the calibration.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.archive import Archive
from video_io.camera import Camera
from video_io.camera_files import opencv_matrices
from video_io.datasets.base import (
    Depth,
    Truth,
    files_in,
    frame_times,
    image_size,
    imread,
    read_picture,
    read_points_image,
    rigid,
)
from video_io.errors import InputError
from video_io.files import TEXT_MB, parse_json, read_bytes, read_text
from video_io.footage import Footage
from video_io.stereo import Pairs, Rig
from video_io.trajectory import Trajectory

FPS = 25.0  # of the trees of images
ROBOT = "poses: from the robot's joints, with errors of millimetres; only the key frame's depth was measured (SCARED-C)"
Numbered = dict[int, Path]


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    inside = ("frame_data", "frame_data.tar.gz", "scene_points", "scene_points.tar.gz")
    return (
        (folder / "left_depth_map.tiff").is_file()
        or any((place / name).exists() for place in (folder, folder / "data") for name in inside)
        or (folder / "image_02" / "data").is_dir()
    )


def open(folder: Path) -> Truth:
    """Open the folder of a key frame; see `open_truth`."""
    data = folder / "data" if (folder / "data").is_dir() else folder
    facts = _facts(data)
    pictures = _pictures(folder, data)
    if pictures is None:
        return _key_frame(folder)
    numbers = pictures.numbers or list(range(min(pictures.count, len(facts) or pictures.count)))
    recorded, rig = _calibration(folder, facts, pictures.full_size)
    if pictures.rectified:
        camera, turn, depth = _rectified(data, numbers, pictures.size, rig)
    else:
        camera, turn = (recorded.scaled(*pictures.size) if recorded else None), np.eye(4)
        depth = _points(folder, data, numbers, pictures.size)
    frames = len(numbers)
    trajectory, note = _trajectory(facts, numbers, pictures.rate, turn)
    notes = (note,) if camera else (note, "camera: neither frame_data nor endoscope_calibration.yaml is there")
    pairs = None
    if pictures.footage is not None and rig is not None:
        left, right = pictures.footage, pictures.footage.other()
        pairs = Pairs(rig, lambda i: (left.frame(numbers[i]), right.frame(numbers[i])))
    return Truth(
        folder.resolve().name, "scared", camera, trajectory, pictures.paths, frames, None, depth,
        footage=pictures.footage, frame_times_ns=frame_times(frames, pictures.rate), pairs=pairs, notes=notes,
    )  # fmt: skip


# -- pictures -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """Where the frames are: files or a video, and the numbers by which poses and depth are found."""

    paths: tuple[Path, ...]
    footage: Footage | None
    numbers: list[int]
    count: int
    size: tuple[int, int]
    full_size: tuple[int, int]
    rate: float
    rectified: bool = False


def _pictures(folder: Path, data: Path) -> Pictures | None:
    """The frames in whichever tree they are; None where there is only a key frame."""
    for place, shift in ((data / "left_finalpass", 0), (data / "left", 0), (folder / "image_02" / "data", -1)):
        if paths := files_in(place):
            numbers = [_number(p) + shift for p in paths]
            if min(numbers) < 0:
                raise InputError(f"'{paths[0]}' has the number 0; expected this tree's images to count from 1")
            size = image_size(paths[0])
            # Other sizes are reductions of the recording's.
            full = size if place.name == "left_finalpass" else (1280, 1024) if size[0] < 1280 else size
            return Pictures(paths, None, numbers, len(paths), size, full, FPS, place.name == "left_finalpass")
    if (data / "rgb.mp4").is_file():
        footage = Footage.open(data / "rgb.mp4", "upper")
        return Pictures((), footage, [], footage.count, footage.size, footage.size, footage.rate)
    if (folder / "Left_Image.png").is_file():
        return None
    raise InputError(
        f"'{folder}' holds no frames of SCARED; expected data/rgb.mp4, data/left/, data/left_finalpass/, "
        "image_02/data/ "
        "or Left_Image.png; complete the folder"
    )


def _number(path: Path) -> int:
    found = re.findall(r"\d+", path.stem)
    if not found:
        raise InputError(f"'{path}' has no number in its name; expected names as frame_data000000.png; rename it")
    return int(found[-1])


def _key_frame(folder: Path) -> Truth:
    """The one frame that was measured."""
    image = folder / "Left_Image.png"
    size = image_size(image)
    camera, rig = _calibration(folder, {}, size)
    right = folder / "Right_Image.png"
    pairs = None
    if rig is not None and right.is_file():
        pairs = Pairs(rig, lambda _: (read_picture(image), read_picture(right)))

    def depth(_: int) -> Depth:
        return read_points_image(folder / "left_depth_map.tiff")

    name = folder.resolve().name
    return Truth(name, "scared", camera, None, (image,), 1, None, depth, pairs=pairs)


# -- calibration and poses ----------------------------------------------------------------------------------------


def _facts(data: Path) -> dict[int, dict[str, Any]]:
    """What frame_data tells of each frame, by number."""
    found: dict[int, dict[str, Any]] = {}
    files = [(p.name, p) for p in (data / "frame_data").glob("*.json")]
    packed = Archive(data / "frame_data.tar.gz").members(".json") if (data / "frame_data.tar.gz").is_file() else ()
    entries = ((n, read_bytes(p, TEXT_MB)) for n, p in files) if files else packed
    for name, content in entries:
        try:
            values = parse_json(content.decode())
            if not isinstance(values, dict):
                raise TypeError("it is no object")
            pose = np.array(values["camera-pose"], float) if "camera-pose" in values else None
            if pose is not None and pose.shape != (4, 4):
                raise ValueError(f"camera-pose has the shape {pose.shape}")
        except (ValueError, TypeError) as error:
            raise InputError(
                f"'{name}' in '{data}' is no frame of SCARED ({error}); expected json with camera-calibration and "
                "camera-pose; fetch it again"
            ) from error
        found[_number(Path(name))] = values
    return found


def _calibration(
    folder: Path, facts: dict[int, dict[str, Any]], size: tuple[int, int]
) -> tuple[Camera | None, Rig | None]:
    """The left camera as recorded, and both, as far as frame_data or endoscope_calibration.yaml tell them."""
    calibrations = [c for v in facts.values() if isinstance(c := v.get("camera-calibration"), dict)]
    if calibrations:
        c = calibrations[0]
        values = {name: np.array(c[name], float) for name in ("KL", "KR", "DL", "DR", "R", "T") if name in c}
    else:
        values = _yaml(next((p for p in sorted(folder.glob("endoscope_calibration.y*ml"))), None))
    if "KL" not in values:
        return None, None
    try:
        left = Camera.from_opencv(*size, values["KL"], values.get("DL", ()))
        if not {"KR", "R", "T"} <= set(values):
            return left, None
        right = Camera.from_opencv(*size, values["KR"], values.get("DR", ()))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = values["R"].reshape(3, 3), values["T"].ravel()
        return left, Rig(left, right, pose)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the calibration in '{folder}' can't be used ({error}); fetch it again") from error


def _yaml(path: Path | None) -> dict[str, NDArray[np.float64]]:
    if path is None:
        return {}
    names = {"M1": "KL", "M2": "KR", "D1": "DL", "D2": "DR", "R": "R", "T": "T"}
    shapes = {"M1": (3, 3), "M2": (3, 3), "R": (3, 3), "T": (3, 1), "D1": (1, -1), "D2": (1, -1)}
    try:
        found = opencv_matrices(read_text(path), names)
        return {names[name]: matrix.reshape(shapes[name]) for name, matrix in found.items()}
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' can't be read ({error}); expected OpenCV's YAML with M1, D1, M2, D2, R, T; fetch it again"
        ) from error


def _trajectory(
    facts: dict[int, dict[str, Any]], numbers: list[int], rate: float, turn: NDArray[np.float64]
) -> tuple[Trajectory | None, str]:
    """Poses of the frames, and what to know of them; `turn` is rectified_from_camera."""
    missing = [n for n in numbers if "camera-pose" not in facts.get(n, {})]
    if missing:
        return None, f"poses: {len(missing)} of {len(numbers)} frames have none, so none are used"
    cam_from_world = np.array([facts[n]["camera-pose"] for n in numbers], float)
    poses = np.linalg.inv(turn @ rigid(cam_from_world, "SCARED's camera-pose"))
    return Trajectory(frame_times(len(numbers), rate), rigid(poses, "SCARED's camera-pose")), ROBOT


# -- depth --------------------------------------------------------------------------------------------------------


def _points(folder: Path, data: Path, numbers: list[int], size: tuple[int, int]) -> Callable[[int], Depth] | None:
    """Depth from the images of points, of which the left camera's stand above the right one's."""
    places = (data / "scene_points", folder / "image_02" / "data" / "groundtruth")
    place = next((p for p in places if p.is_dir()), None)
    packed = Archive(data / "scene_points.tar.gz") if (data / "scene_points.tar.gz").is_file() else None
    if place is None and packed is None:
        return None

    def depth(index: int) -> Depth:
        name = f"scene_points{numbers[index]:06d}.tiff"
        z = read_points_image(place / name) if place else read_points_image(Path(name), packed.read(name))  # type: ignore[union-attr]
        z = z[: z.shape[0] // 2] if z.shape[0] > 1.2 * z.shape[1] else z
        return z if z.shape == size[::-1] else cv2.resize(z, size, interpolation=cv2.INTER_NEAREST)

    return depth


def _rectified(
    data: Path, numbers: list[int], size: tuple[int, int], rig: Rig | None
) -> tuple[Camera, NDArray[np.float64], Callable[[int], Depth] | None]:
    """Camera of the rectified images, rectified_from_left, and depth from disparity."""
    matrices = {_number(p): p for p in (data / "reprojection_data").glob("*.json")}
    disparities = {_number(p): p for p in files_in(data / "disparity")}
    for name, there in (("reprojection_data", matrices), ("disparity", disparities)):
        if lacking := [n for n in numbers if n not in there]:
            raise InputError(
                f"'{data / name}' has nothing for frame {lacking[0]} ({len(lacking)} of {len(numbers)} are missing); "
                "expected a file for each image in left_finalpass; complete the folder"
            )
    q = _reprojection(matrices[numbers[0]])
    camera = Camera.from_opencv(*size, [[q[2, 3], 0, -q[0, 3]], [0, q[2, 3], -q[1, 3]], [0, 0, 1]])
    turn = np.eye(4)
    if rig is not None:
        (kl, dl), (kr, dr) = rig.left.to_opencv(), rig.right.to_opencv()
        turn[:3, :3] = cv2.stereoRectify(
            kl, dl, kr, dr, size, rig.right_from_left[:3, :3], rig.right_from_left[:3, 3:]
        )[0]

    def depth(index: int) -> Depth:
        number = numbers[index]
        matrix = _reprojection(matrices[number])
        disparity = imread(disparities[number])
        if disparity is None or disparity.ndim != 2:
            raise InputError(
                f"'{disparities[number]}' can't be read as a disparity; expected one channel; fetch it again"
            )
        scale = matrix[3, 2] * disparity.astype(np.float64) + matrix[3, 3]
        seen = (disparity > 0) & (scale > 0)
        return np.where(seen, matrix[2, 3] / np.where(seen, scale, 1), 0).astype(np.float32)

    return camera, turn, depth


def _reprojection(path: Path) -> NDArray[np.float64]:
    try:
        q = np.array(parse_json(read_text(path))["reprojection-matrix"], float)
        if q.shape != (4, 4) or not q[2, 3] > 0 or q[3, 2] == 0:
            raise ValueError("it is no 4 x 4 matrix with a focal length and a baseline")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{path}' can't be used ({error}); expected json with reprojection-matrix, OpenCV's Q; fetch it again"
        ) from error
    q[3, 2] = abs(q[3, 2])
    return q
