"""Every runtime gives what the network gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation_adapters import runtimes
from foundation_adapters.backbones import tiny
from foundation_adapters.runtimes import _cache
from video_io.camera import Camera
from video_io.errors import InputError

CAMERA = Camera.from_fov(96, 64, 1.4)


@pytest.fixture(scope="module")
def network():
    return tiny.build()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    """One cache for the module, empty at first, so that nothing of another version is found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random pictures, and rays of which one corner has none."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 12, generator=generator)
    rays = torch.from_numpy(CAMERA.scaled(48, 32).ray_map().copy()).permute(2, 0, 1)
    rays[:, :3, :4] = np.nan
    return torch.nn.functional.interpolate(coarse, (64, 96), mode="bilinear"), rays.expand(count, -1, -1, -1)


def test_listing_the_slot_is_cheap() -> None:
    code = (
        "import sys; from foundation_adapters import runtimes; print(runtimes.names(), runtimes.installed('onnx'));"
        "assert not {'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_every_file_of_the_slot_has_its_place() -> None:
    assert set(runtimes.ORDER) == set(runtimes.names()) == {"onnx", "openvino", "pytorch"}
    with pytest.raises(InputError, match="runtime 'abacus' is not known; there are onnx, openvino, pytorch"):
        runtimes.module("abacus")


@pytest.mark.parametrize("name", runtimes.names())
@pytest.mark.parametrize("count", [2, 1])
def test_a_runtime_gives_what_the_network_gives(name: str, count: int, network) -> None:
    if not runtimes.installed(name):
        pytest.skip(f"{name} is not installed: pip install 'endorecon[onnx]'")
    image, rays = images(count)
    with torch.inference_mode():
        expected, found = network(image, rays), runtimes.build(network, name)(image, rays)
    for field in ("log_distance", "log_std", "focal", "description"):
        a, b = getattr(found, field), getattr(expected, field)
        assert a.shape == b.shape and a.dtype == torch.float32
        # bfloat16 has 8 bits; where it is not used they agree to 1e-5
        assert float((a - b).abs().mean()) < 0.05 * float(b.abs().mean())
    tell = getattr(runtimes.build(network, name), "focal", network.focal)
    with torch.inference_mode():
        assert float((tell(image) / expected.focal).log().abs().max()) < 0.05
    # Without steps: the last layer is in single precision.
    assert len(torch.unique(found.log_distance)) > 0.9 * found.log_distance.numel() / 2


@pytest.mark.parametrize("name", ["openvino", "pytorch"])
def test_single_precision_on_request(name: str, network) -> None:
    if not runtimes.installed(name):
        pytest.skip(f"{name} is not installed: pip install 'endorecon[onnx]'")
    image, rays = images(1)
    with torch.inference_mode():
        expected = network(image, rays).log_distance
        found = runtimes.module(name).build(network, half_precision=False)(image, rays).log_distance
    assert float((found - expected).abs().max()) < 1e-4


def test_what_is_kept_is_used_again_and_made_again_if_damaged(network, tmp_path, monkeypatch) -> None:
    if not runtimes.installed("openvino"):
        pytest.skip("openvino is not installed: pip install 'endorecon[onnx]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image, rays = images(1)
    with torch.inference_mode():
        first = runtimes.build(network, "openvino")(image, rays).log_distance
        (blob,) = (tmp_path / "endorecon").glob("*-1x64x96-*.blob")
        written = blob.stat().st_mtime_ns
        again = runtimes.build(network, "openvino")(image, rays).log_distance
        assert blob.stat().st_mtime_ns == written and torch.equal(first, again)
        blob.write_bytes(b"damaged")
        assert torch.equal(first, runtimes.build(network, "openvino")(image, rays).log_distance)
    assert blob.stat().st_size > 100_000


def test_a_cache_that_can_not_be_written_to_is_done_without(monkeypatch, tmp_path) -> None:
    (tmp_path / "endorecon").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache.kept("a", lambda: b"made") == b"made"


def test_weights_that_differ_in_one_bit_have_other_fingerprints(network) -> None:
    before = _cache.fingerprint(network)
    other = tiny.build()
    assert _cache.fingerprint(other) == before
    with torch.no_grad():
        next(other.parameters()).mul_(1.000001)
    assert _cache.fingerprint(other) != before
