"""Small sequences for the protocols: predictions in plain files beside a truth that is worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.open import open_predictions
from endorecon.evaluate.predictions import Files
from endorecon.evaluate.protocols import protocol
from video_io.camera import Camera
from video_io.datasets import Truth
from video_io.trajectory import Trajectory

STEP_NS = 100_000_000


def trajectory(centres, rotations=None) -> Trajectory:
    """Poses at ten frames a second."""
    poses = np.tile(np.eye(4), (len(centres), 1, 1))
    poses[:, :3, 3] = centres
    if rotations is not None:
        poses[:, :3, :3] = rotations
    return Trajectory(np.arange(len(poses)) * STEP_NS, poses)


def truth_of(
    depths: Sequence[np.ndarray] = (),
    path: Trajectory | None = None,
    camera: Camera | None = None,
    images: Sequence[Path] = (),
    name: str = "made",
    unit: str = "mm",
) -> Truth:
    """A truth that holds these depth maps (H, W), poses and images."""
    count = max(len(depths), len(images), len(path) if path else 0)
    maps = [np.asarray(d, np.float32) for d in depths]
    return Truth(name, "made", camera, path, tuple(images), count, None, maps.__getitem__ if maps else None, unit)


def case_of(
    folder: Path,
    truth: Truth,
    depths: Sequence[np.ndarray] = (),
    path: Trajectory | None = None,
    images: Sequence[np.ndarray] = (),
    masks: Sequence[np.ndarray] = (),
    **more,
) -> Case:
    """Predictions written to `folder` and read as another program's."""
    if len(depths):
        (folder / "depth").mkdir(exist_ok=True)
        for i, depth in enumerate(depths):
            np.save(folder / "depth" / f"{i:04d}.npy", np.asarray(depth, np.float32))
        more["depth"] = folder / "depth"
    if path is not None:
        path.write_tum(folder / "path.tum")
        more["path"] = folder / "path.tum"
    run = open_predictions("made", Files(**more), truth)
    rendered = dict(enumerate(write_images(folder / "images", images)))
    return Case(run, truth, rendered, dict(enumerate(write_images(folder / "masks", masks))))


def write_images(folder: Path, images: Sequence[np.ndarray]) -> list[Path]:
    """uint8 images as PNG."""
    folder.mkdir(exist_ok=True, parents=True)
    paths = [folder / f"{i:04d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return paths


def figures(outcome: Outcome) -> dict[str, tuple[float | None, float | None]]:
    """(published, corrected) by name."""
    return {
        f.name: (f.published.value if f.published else None, f.corrected.value if f.corrected else None)
        for f in outcome.figures
    }


def measured(name: str, case: Case) -> dict[str, tuple[float | None, float | None]]:
    """What a protocol finds."""
    return figures(protocol(name).measure(case))
