"""What every method of adaptation must keep, on a small Depth Anything and on the project's own network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foundation_adapters.adapter_files import fingerprint, load_adapter, merged, save_adapter
from foundation_adapters.adapters import (
    METHODS,
    adapter_config,
    adapter_tensors,
    default_targets,
    method_of,
    parameter_groups,
    phases,
    set_phase,
)
from foundation_adapters.network import Network
from video_io.errors import InputError

# Name of a tensor (its part in the path), and the phase in which it learns.
LEARNS = {
    "gdvlora": {
        "gdvlora_A": "pair",
        "gdvlora_B": "pair",
        "gdvlora_u": "vectors",
        "gdvlora_v": "vectors",
        "gdvlora_gate": "vectors",
    },
    "dvlora": {"gdvlora_A": "pair", "gdvlora_B": "pair", "gdvlora_u": "vectors", "gdvlora_v": "vectors"},
    "lora": {"lora_A": "pair", "lora_B": "pair"},
    "dora": {"lora_A": "pair", "lora_B": "pair", "lora_magnitude_vector": "pair"},
}


@dataclass(frozen=True)
class Case:
    """A base network and how to ask it everything it tells."""

    make: Callable[[], nn.Module]
    ask: Callable[[nn.Module], Tensor]
    head: str
    layers: int


def _ask_depth_anything(model: nn.Module) -> Tensor:
    image = torch.rand(2, 3, 56, 84, generator=torch.Generator().manual_seed(3))
    return model(pixel_values=image).predicted_depth.flatten()


def _ask_network(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    image, rays = torch.rand(2, 3, 64, 96, generator=generator), torch.rand(2, 3, 32, 48, generator=generator)
    found = model(image, rays)
    pose = model.relative_pose(found.description, found.description.flip(0), rays, found.log_distance)
    parts = (found.log_distance, found.log_std, found.focal, pose)
    return torch.cat([part.flatten() for part in parts])


@pytest.fixture(scope="module", params=["depth_anything", "network"])
def case(request: pytest.FixtureRequest, checkpoint: Path) -> Case:
    if request.param == "network":
        torch.manual_seed(0)
        network = Network().eval()
        # 54 pointwise convolutions and 12 linear layers, one of which is the head here.
        return Case(lambda: copy.deepcopy(network), _ask_network, "intrinsics.out", 65)
    from transformers import DepthAnythingForDepthEstimation

    model = DepthAnythingForDepthEstimation.from_pretrained(checkpoint).eval()
    # A fresh head is all but black; with this bias every part of it has a gradient.
    nn.init.constant_(model.head.conv3.bias, 1.0)
    # Two layers in each of four blocks.
    return Case(lambda: copy.deepcopy(model), _ask_depth_anything, "head.conv3", 8)


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def _adapted(case: Case, method: str, heads: tuple[str, ...] = (), seed: int = 1):
    from peft import get_peft_model

    network = case.make()
    torch.manual_seed(seed)
    return get_peft_model(network, adapter_config(method, default_targets(network), heads=heads)).eval()


def _stirred(model: nn.Module, seed: int = 2) -> nn.Module:
    """As if trained: every tensor of the adapter is moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return model


def _told(case: Case, model: nn.Module) -> Tensor:
    with torch.no_grad():
        return case.ask(model)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_at_the_start_nothing_changes(case: Case, method: str) -> None:
    model = _adapted(case, method, (case.head,))
    assert torch.equal(_told(case, model), _told(case, case.make()))
    assert len(adapter_tensors(model)) == case.layers * len(LEARNS[method]) + 2


def test_each_tensor_learns_in_its_phase_and_the_base_never(case: Case, method: str) -> None:
    model = _adapted(case, method, (case.head,))
    optimiser = torch.optim.AdamW(parameter_groups(model), lr=1e-2)
    before = _state(model)
    own = adapter_tensors(model)
    assert set(own) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for g in optimiser.param_groups for p in g["params"]} == {id(p) for p in own.values()}
    # A sum with random weights: nothing cancels, and it never converges.
    weight = torch.randn(_told(case, model).shape, generator=torch.Generator().manual_seed(4))
    for phase in phases(method):
        start = _state(model)
        set_phase(model, phase)
        for _ in range(3):
            optimiser.zero_grad()
            (weight * case.ask(model)).sum().backward()
            optimiser.step()
        now = model.state_dict()
        moved = {name for name in start if not torch.equal(start[name], now[name])}
        want = {n for n in own if any(f".{part}." in n for part, when in LEARNS[method].items() if when == phase)}
        assert moved == want | {n for n in own if ".modules_to_save." in n}
    base = before.keys() - own.keys()
    assert base and all(torch.equal(before[name], model.state_dict()[name]) for name in base)


def test_a_frozen_tensor_has_no_gradient_left(case: Case) -> None:
    """Otherwise the first step of the next phase would move it once more."""
    model = _adapted(case, "gdvlora")
    set_phase(model, "pair")
    case.ask(model).sum().backward()
    set_phase(model, "vectors")
    assert all(t.grad is None for t in adapter_tensors(model).values())


def test_a_phase_outlasts_disabling_and_switching(case: Case) -> None:
    model = _adapted(case, "gdvlora")
    model.add_adapter("other", adapter_config("gdvlora", default_targets(case.make())))
    set_phase(model, "vectors")
    with model.disable_adapter():
        pass
    model.set_adapter("other")
    model.set_adapter("default")
    learning = {name.split(".")[-2] for name, tensor in adapter_tensors(model).items() if tensor.requires_grad}
    assert learning == {"gdvlora_u", "gdvlora_v", "gdvlora_gate"}


def test_merged_equals_unmerged(case: Case, method: str) -> None:
    model = _stirred(_adapted(case, method, (case.head,)))
    told = _told(case, model)
    assert (told - _told(case, case.make())).abs().max() > 1e-3
    weights = fingerprint(model)
    model.merge_adapter()
    torch.testing.assert_close(_told(case, model), told, rtol=1e-5, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(_told(case, model), told, rtol=1e-5, atol=1e-5)
    if method in ("gdvlora", "dvlora"):
        assert fingerprint(model) == weights
    plain = merged(model, Path("here"))
    torch.testing.assert_close(_told(case, plain), told, rtol=1e-5, atol=1e-5)
    assert type(plain) is type(case.make())
    assert plain.state_dict().keys() == case.make().state_dict().keys()


def test_saved_equals_loaded(case: Case, method: str, tmp_path: Path) -> None:
    model = _stirred(_adapted(case, method, (case.head,)))
    told = _told(case, model)
    card = save_adapter(model, tmp_path / "mine", "base", "MIT", about="A test.")
    assert card.method == method == method_of(model.peft_config["default"])
    network = case.make()
    loaded = load_adapter(network, tmp_path / "mine", "base", adapter="another_name")
    assert torch.equal(_told(case, loaded), told)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "card.json",
    ]  # fmt: skip


def test_peft_alone_loads_what_was_saved(case: Case, method: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = _stirred(_adapted(case, method, (case.head,)))
    told = _told(case, model)
    save_adapter(model, tmp_path / "ours", "base", "MIT")
    model.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        loaded = PeftModel.from_pretrained(case.make(), tmp_path / folder).eval()
        assert torch.equal(_told(case, loaded), told)
    # And ours loads theirs, which has no card.
    assert torch.equal(_told(case, load_adapter(case.make(), tmp_path / "theirs", "base")), told)


def test_disabled_is_the_base(case: Case, method: str) -> None:
    model = _stirred(_adapted(case, method, (case.head,)))
    with model.disable_adapter():
        assert torch.equal(_told(case, model), _told(case, case.make()))
    assert not torch.equal(_told(case, model), _told(case, case.make()))


def test_adapters_of_two_tasks_share_one_base(case: Case, method: str) -> None:
    """Added, switched, deleted: each tells what it told alone, and the base has one copy."""
    alone = [_told(case, _stirred(_adapted(case, method), seed)) for seed in (5, 6)]
    model = _adapted(case, method)
    model.add_adapter("second", adapter_config(method, default_targets(case.make())))
    first = adapter_tensors(model, "default")
    # Both as they are alone: drawn by the same seed, stirred by another.
    states = [_stirred(_adapted(case, method), seed).state_dict() for seed in (5, 6)]
    with torch.no_grad():
        for name, tensor in first.items():
            tensor.copy_(states[0][name])
        for name, tensor in adapter_tensors(model, "second").items():
            tensor.copy_(states[1][name.replace(".second", ".default")])
    assert torch.equal(_told(case, model), alone[0])
    model.set_adapter("second")
    assert torch.equal(_told(case, model), alone[1])
    assert len(fingerprint(model)) == 16 and fingerprint(model) == fingerprint(case.make())
    model.delete_adapter("default")
    assert torch.equal(_told(case, model), alone[1])


def test_unknown_methods_and_phases_are_refused(case: Case) -> None:
    with pytest.raises(InputError, match="no adapter method 'qlora': give one of gdvlora, dvlora, lora, dora"):
        adapter_config("qlora", ["fc1"])
    with pytest.raises(InputError, match="rank of at least 1"):
        adapter_config("lora", ["fc1"], rank=0)
    with pytest.raises(InputError, match="name the layers"):
        adapter_config("lora", [])
    with pytest.raises(InputError, match="lora has no phase 'vectors': its phases are pair"):
        set_phase(_adapted(case, "lora"), "vectors")
