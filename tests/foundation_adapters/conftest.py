"""A small folder of training scenes, made by formula, a small checkpoint in a published layout, and own weights."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from video_io.camera import Camera


def write_scene(folder: Path, number: int, camera: Camera, frames: int = 4) -> None:
    """A bowl, seen in frames that step back by 1 mm each; brightness falls with the square of the distance."""
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


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Depth Anything, as published but for its sizes."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    vit = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        patch_size=14,
        image_size=56,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=vit,
        patch_size=14,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    return folder


@pytest.fixture
def own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights for `tiny`, so that no test of its users needs the shipped ones."""
    import torch

    from foundation_adapters.backbones import tiny
    from foundation_adapters.network import Network, save_weights

    torch.manual_seed(0)
    save_weights(Network(), tmp_path / "tiny.safetensors", {})
    real = tiny.base
    monkeypatch.setattr(tiny, "base", lambda path=None: real(tmp_path / "tiny.safetensors"))


@pytest.fixture
def full_disk() -> Callable:
    """`with full_disk(size):` no file can grow beyond so many bytes, which fails as a full disk does."""

    @contextmanager
    def full(size: int = 4096) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full
