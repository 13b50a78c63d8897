"""COLMAP's poses (Schönberger and Frahm, CVPR 2016): SIFT on the working images, incremental mapping, and where that
leaves frames out, global mapping (GLOMAP, Pan et al., ECCV 2024).

Global mapping places frames whatever holds them: of a model, the part is taken whose frames share enough points.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from endorecon.poses.base import SCALE_UNKNOWN, PoseSource, Progress
from endorecon.tracking.given import GivenPoses
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.errors import InputError
from video_io.sources.base import Source

Float = NDArray[np.float64]

STAGE = "COLMAP"
KEPT = "colmap.npz"
MISSING = "COLMAP did not place it"
LEAST_SHARED = 20  # points that hold two frames together; with 15 parts of a traced clip could still turn by degrees


def accepts(choice: str) -> bool:
    """Whether this file is what stands after --poses."""
    return choice == "colmap"


def open(choice: str, unit: str | None, source: Source) -> PoseSource:
    """See `open_poses`."""
    return Colmap()


class Colmap:
    """See `PoseSource`."""

    def find(
        self, clip: Clip, camera: Camera, focal_free: bool, folder: Path, progress: Progress
    ) -> tuple[GivenPoses, Camera]:
        """The poses of the largest model; its world is the first placed frame's camera, its unit means nothing.

        A focal length that is only estimated is refined by COLMAP.

        Raises:
            InputError: COLMAP makes no model of the clip, or does not know the camera's model.
        """
        if not (folder / KEPT).is_file():
            self._map(clip.with_camera(camera), camera, focal_free, folder, progress)
        with np.load(folder / KEPT) as kept:
            poses = dict(zip(kept["index"].tolist(), kept["pose"], strict=True))
            note, focal_scale = str(kept["note"]), float(kept["focal_scale"])
        if focal_free:
            camera = camera.with_focal_scale(focal_scale)
        found = GivenPoses(
            lambda index, time_ns: poses.get(index), np.stack(list(poses.values())), note, SCALE_UNKNOWN, MISSING,
            free_unit=True,
        )  # fmt: skip
        return found, camera

    def _map(self, clip: Clip, camera: Camera, focal_free: bool, folder: Path, progress: Progress) -> None:
        """Make the model, and keep what is needed of it: it takes long, and is not the same on every call."""
        with tempfile.TemporaryDirectory(prefix="colmap-", dir=folder, ignore_cleanup_errors=True) as scratch:
            work = Path(scratch)
            numbers = _write_images(clip, work)
            how, model, poses = _map(work, camera, focal_free, len(numbers), progress)
            if not poses:
                raise InputError(
                    f"COLMAP placed none of the {len(numbers)} frames; it needs texture and parallax; take --poses auto"
                )
            first = np.linalg.inv(poses[min(poses)])
            refined = next(iter(model.cameras.values()))
            np.savez(
                work / KEPT,
                index=np.array(sorted(poses)),
                pose=np.stack([first @ poses[index] for index in sorted(poses)]),
                note=f"colmap: SIFT and {how} placed {len(poses)} of {len(numbers)} frames",
                focal_scale=float(refined.mean_focal_length() / np.mean(_parameters(camera)[1][:2])),
            )
            os.replace(work / KEPT, folder / KEPT)


def _write_images(clip: Clip, work: Path) -> list[int]:
    """Write the working images, named by index, and masks of where features may lie; returns the indices."""
    (work / "images").mkdir()
    (work / "masks").mkdir()
    numbers = []
    for frame in clip.frames():
        name = f"{frame.index:06d}.png"
        usable = np.where(frame.use_mask & ~frame.specular_mask, 255, 0).astype(np.uint8)
        _write(work / "images" / name, cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))
        _write(work / "masks" / f"{name}.png", usable)
        numbers.append(frame.index)
    return numbers


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), picture):
        raise InputError(f"can't write '{path}' for COLMAP; free some space or choose another folder with --out")


def _parameters(camera: Camera) -> tuple[str, tuple[float, ...]]:
    """COLMAP's name of the camera's model, and its parameters; both count pixels in the same way."""
    if camera.model == "pinhole":
        return "PINHOLE", camera.params
    if camera.model == "brown":
        return "FULL_OPENCV", (*camera.params, 0.0, 0.0, 0.0)
    if camera.model == "fisheye":
        return "OPENCV_FISHEYE", camera.params
    raise InputError(
        f"COLMAP has no {camera.model} camera; expected pinhole, brown or fisheye; give another --camera, or take "
        "--poses auto"
    )


def _map(
    work: Path, camera: Camera, focal_free: bool, frames: int, progress: Progress
) -> tuple[str, Any, dict[int, Float]]:
    """How the largest model was made, the model, and world_from_cam by index of the frame; empty if there is none."""
    import pycolmap

    pycolmap.logging.minloglevel = 3  # what goes wrong is said in a sentence
    model, params = _parameters(camera)
    database, images = work / "database.db", work / "images"
    reader = pycolmap.ImageReaderOptions(
        camera_model=model, camera_params=",".join(map(str, params)), mask_path=work / "masks"
    )
    progress(STAGE, 0, frames)
    pycolmap.extract_features(
        database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader, device=pycolmap.Device.cpu
    )
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    pycolmap.match_sequential(database, verification_options=verification, device=pycolmap.Device.cpu)
    placed = 0

    def one_more() -> None:
        nonlocal placed
        placed += 1
        progress(STAGE, min(placed, frames), frames)

    steps = pycolmap.IncrementalPipelineOptions(random_seed=0)
    steps.ba_refine_focal_length = steps.mapper.abs_pose_refine_focal_length = focal_free
    steps.ba_refine_extra_params = steps.mapper.abs_pose_refine_extra_params = False
    models = pycolmap.incremental_mapping(database, images, work, steps, next_image_callback=one_more)
    found = _largest("incremental mapping", models)
    if len(found[2]) < frames and hasattr(pycolmap, "global_mapping"):
        whole = pycolmap.GlobalPipelineOptions(random_seed=0)
        bundle = whole.mapper.bundle_adjustment
        bundle.refine_focal_length, bundle.refine_extra_params = focal_free, False
        bundle.ceres.use_gpu = whole.mapper.global_positioning.use_gpu = False
        other = _largest("global mapping", pycolmap.global_mapping(database, images, work, whole))
        found = max(found, other, key=lambda made: len(made[2]))
    progress(STAGE, frames, frames)
    return found


def _largest(how: str, models: dict[int, Any]) -> tuple[str, Any, dict[int, Float]]:
    made = [(how, model, _poses(model)) for model in models.values()]
    return max(made, key=lambda one: len(one[2]), default=(how, None, {}))


def _poses(model: Any) -> dict[int, Float]:
    """world_from_cam by index of the frame, of the largest set of frames that hang together."""
    images = [image for image in model.images.values() if image.has_pose]
    if not images:
        return {}
    point = {number: column for column, number in enumerate(model.points3D)}
    seen = np.zeros((len(images), len(point)), np.float32)
    for row, image in zip(seen, images, strict=True):
        row[[point[p.point3D_id] for p in image.points2D if p.has_point3D()]] = 1
    _, part = connected_components(csr_matrix(seen @ seen.T >= LEAST_SHARED))
    largest = np.bincount(part).argmax()
    return {
        int(Path(image.name).stem): np.vstack([image.cam_from_world().inverse().matrix(), [0, 0, 0, 1]])
        for image, number in zip(images, part, strict=True)
        if number == largest
    }
