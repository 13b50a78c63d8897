"""Depth Anything checkpoints, by a small random one in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation_adapters.backbones import depth_anything
from foundation_adapters.estimator import load_estimator
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame


def _copy(checkpoint: Path, to: Path) -> Path:
    to.mkdir()
    for path in checkpoint.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_folder_gives_an_estimator(checkpoint: Path, own_weights: None) -> None:
    estimator = load_estimator(str(checkpoint))
    camera = Camera.from_fov(96, 64, 1.2)
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8)
    found = estimator.estimate([Frame.of(rgb, i, 0, camera) for i, rgb in enumerate(images)])
    assert found.depth.shape == (2, 64, 96)
    assert (found.depth > 0).all() and np.isfinite(found.depth).all()
    assert np.isfinite(found.previous_from_cam[1]).all()
    assert estimator.name == str(checkpoint)
    assert "model card" in estimator.licence


def test_disparity_becomes_depth(checkpoint: Path) -> None:
    model = depth_anything.build(str(checkpoint))
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    rays = torch.zeros(1, 3, 64, 96)
    rays[:, 2] = 0.5

    class Told(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor):
            assert pixel_values.shape[-2:] == (56, 84)
            disparity = torch.ones(1, 56, 84)
            disparity[:, :, :20] = 4.0
            return type("Output", (), {"predicted_depth": disparity})

    model.model = Told()
    with torch.inference_mode():
        log_distance, _ = model(image, rays)
    # Median disparity 1: depth 1 and, where disparity is 4, a quarter; distance is depth / 0.5.
    assert log_distance[0, 30, 80].exp().item() == pytest.approx(2.0, rel=1e-4)
    assert log_distance[0, 30, 5].exp().item() == pytest.approx(0.5, rel=1e-4)


def test_incomplete_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(checkpoint, tmp_path / "part")
    state = load_file(str(folder / "model.safetensors"))
    state.pop("head.conv1.weight")
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks parts of the network \(first: head\.conv1\.weight\)"):
        depth_anything.build(str(folder))


def test_other_architecture_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(checkpoint, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="type 'bert'"):
        depth_anything.build(str(folder))


def test_pickled_weights_are_not_read(checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(checkpoint, tmp_path / "pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"expected config\.json and model\.safetensors"):
        depth_anything.build(str(folder))


def test_broken_file_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(checkpoint, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(InputError, match="can't be read"):
        depth_anything.build(str(folder))


def test_without_network_it_says_what_it_tried_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as raised:
        load_estimator("depth-anything/No-Such-Checkpoint-hf")
    said = str(raised.value)
    assert "cache" in said and "hf download depth-anything/No-Such-Checkpoint-hf" in said and "--model tiny" in said
