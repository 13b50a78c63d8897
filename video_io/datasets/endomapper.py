"""EndoMapper (Azagra et al., Scientific Data 2023): whole colonoscopies, and simulated sequences with truth.

- Sequences/Seq_XXX/: the video Seq_XXX.mov; the camera is in
  ../../Calibrations/Endoscope_XX/Endoscope_XX_geometrical.xml (calibu's XML). There is no truth.
- Simulated: rgb/image_%04d.png, depth/aov_image_%04d.exr, trajectory.csv (tX;tY;tZ;rX;rY;rZ;rW;time). The EXR holds a
  z-buffer v of Unity: 1 / z = (1 / far - 1 / near) (1 - v) + 1 / near with near .01 and far 4. Poses are taken as
  Unity's, left-handed with y up; no published text says so, nor in which unit both are.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.datasets.base import (
    UP_TO_SCALE,
    Depth,
    Truth,
    check_count,
    check_size,
    files_in,
    frame_times,
    from_quaternions,
    image_size,
    rigid,
    text_in,
)
from video_io.errors import InputError
from video_io.files import check_file, read_text
from video_io.footage import Footage
from video_io.trajectory import Trajectory

NEAR, FAR = 0.01, 4.0
EXR_MB = 200.0
FLIP = np.diag([1.0, -1.0, 1.0, 1.0])
UNIT = "lengths: the data set does not tell the unit of its poses and depth (thought to be decimetres)"


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return _is_simulated(folder) or (folder.is_dir() and _video(folder) is not None)


def open(folder: Path) -> Truth:
    """Open the folder of a sequence; see `open_truth`."""
    if _is_simulated(folder):
        return _simulated(folder)
    video = _video(folder)
    assert video is not None
    footage = Footage.open(video)
    camera, notes = _camera(folder, footage.size)
    times = frame_times(footage.count, footage.rate)
    return Truth(
        folder.resolve().name, "endomapper", camera, None, (), footage.count, None, None, footage=footage,
        frame_times_ns=times, notes=notes,
    )  # fmt: skip


def _is_simulated(folder: Path) -> bool:
    return (folder / "rgb").is_dir() and (folder / "trajectory.csv").is_file()


def _video(folder: Path) -> Path | None:
    """The sequence's video: named Seq_XXX, or the only one beside a geometrical calibration."""
    videos = [p for p in sorted(folder.glob("*.mov")) + sorted(folder.glob("*.mp4")) if p.is_file()]
    named = [p for p in videos if re.fullmatch(r"Seq_\d+.*", p.stem)]
    if named:
        return named[0]
    return videos[0] if len(videos) == 1 and any(folder.glob("*_geometrical.xml")) else None


def _camera(folder: Path, size: tuple[int, int]) -> tuple[Camera | None, tuple[str, ...]]:
    """The camera of a calibration beside the video or in the data set's Calibrations, and what to say of it."""
    found = sorted(folder.glob("*_geometrical.xml"))
    for above in folder.resolve().parents[:3]:
        found = found or sorted((above / "Calibrations").glob("Endoscope_*/*_geometrical.xml"))
    if len(found) > 1:
        told = " ".join(_said(p) for p in sorted(folder.glob("*.json")) + sorted(folder.glob("*.txt")))
        named = set(re.findall(r"Endoscope_\d+", told))
        found = [p for p in found if any(p.name.startswith(f"{name}_") for name in named)] if len(named) == 1 else found
    if len(found) != 1:
        what = "is missing" if not found else f"is one of {len(found)} in Calibrations/, and nothing here says which"
        return None, (f"camera: the endoscope's *_geometrical.xml {what}; give it with --camera",)
    camera = read_camera(found[0])
    if (camera.width, camera.height) != size:
        if abs(camera.width * size[1] - camera.height * size[0]) > max(size):
            check_size(found[0], (camera.width, camera.height), size)
        camera = camera.scaled(*size)
    return camera, ()


def _said(path: Path) -> str:
    """What a text file says; nothing where it can't be read, as it only helps to choose."""
    try:
        return read_text(path)
    except (OSError, ValueError):
        return ""


def _simulated(folder: Path) -> Truth:
    images, depths = files_in(folder / "rgb"), tuple(sorted((folder / "depth").glob("*.exr")))
    if not images:
        raise InputError(f"'{folder / 'rgb'}' holds no images; expected image_%04d.png; complete the folder")
    if depths:
        check_count(folder, len(images), len(depths), "depth images")
    size = image_size(images[0])
    camera, notes = _camera(folder, size)
    trajectory = _poses(folder / "trajectory.csv", images)

    def depth(index: int) -> Depth:
        stored = _read_exr(depths[index])
        check_size(depths[index], stored.shape[1::-1], size)
        seen = (stored > 0) & (stored <= 1)
        inverse = (1 / FAR - 1 / NEAR) * (1 - np.where(seen, stored, 1)) + 1 / NEAR
        return np.where(seen, 1 / inverse, 0).astype(np.float32)

    return Truth(
        folder.resolve().name, "endomapper", camera, trajectory, images, len(images), None, depth if depths else None,
        UP_TO_SCALE, notes=(UNIT, *notes),
    )  # fmt: skip


def _poses(path: Path, images: tuple[Path, ...]) -> Trajectory:
    """The poses of the images, by number, of `path`'s rows, which count from 0."""
    lines = [line for line in text_in(path).splitlines() if line.strip()]
    try:
        rows = np.array([[float(v) for v in line.replace(",", ";").split(";")[:7]] for line in lines[1:]]).reshape(
            -1, 7
        )
    except ValueError as error:
        raise InputError(
            f"'{path}' can't be read ({error}); expected a head and then tX;tY;tZ;rX;rY;rZ;rW;time; fetch it again"
        ) from error
    numbers = [int(re.findall(r"\d+", p.stem)[-1]) for p in images]
    if max(numbers) >= len(rows):
        if len(rows) != len(images):
            raise InputError(
                f"'{path}' has {len(rows)} poses, but there is an image {max(numbers):04d}; expected one for each "
                "image; "
                "complete the file"
            )
        numbers = list(range(len(images)))
    chosen = rows[numbers]
    poses = FLIP @ from_quaternions(chosen[:, :3], chosen[:, 3:], str(path)) @ FLIP
    return Trajectory(frame_times(len(images)), rigid(poses, str(path)))


def _read_exr(path: Path) -> NDArray[np.float32]:
    """The first channel of an EXR image, (H, W) float32."""
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            "depth in EXR needs the package OpenEXR, which is not there; expected it installed; type "
            "`pip install 'endorecon[eval]'`"
        ) from error
    try:
        check_file(path, EXR_MB)
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            name = next((n for n in ("R", "Y", "Z") if n in channels), next(iter(channels)))
            return np.asarray(channels[name].pixels, np.float32)
    except (RuntimeError, StopIteration, ValueError, OSError, TypeError) as error:
        raise InputError(
            f"depth image '{path}' can't be read ({error}); expected an intact EXR; fetch it again"
        ) from error
