"""A small folder of training scenes, made by formula: a bowl seen by a pinhole and by a fisheye camera."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from video_io.camera import Camera


def write_scene(folder: Path, number: int, camera: Camera, frames: int = 4) -> None:
    """Frames that step back by 1 mm each; brightness falls with the square of the distance."""
    x, y = np.meshgrid(np.linspace(-1, 1, camera.width), np.linspace(-1, 1, camera.height))
    distance = (30 + 10 * x * x + 5 * y + number + np.arange(frames)[:, None, None]).astype(np.float16)
    rgb = np.clip(255 * (25 / distance.astype(float)[..., None]) ** 2 * [1, 0.6, 0.5], 0, 255).astype(np.uint8)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = -np.arange(frames)
    base = folder / f"scene_{number:05d}"
    np.save(f"{base}.rgb.npy", rgb)
    np.save(f"{base}.distance.npy", distance)
    told = {
        "camera": camera.to_dict(),
        "world_from_cam": poses.reshape(frames, 16).tolist(),
        "anatomy": "bowl",
        "seed": number,
        "pairs": [[0, 1], [2, 3]],
    }
    Path(f"{base}.json").write_text(json.dumps(told))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scene(folder, 0, Camera.pinhole(160, 128, 90.0, 92.0, 85.0, 60.0))
    write_scene(folder, 1, Camera("fisheye", 160, 128, (90.0, 90.0, 80.0, 64.0, -0.18, 0.0, 0.03, -0.01)))
    return folder
