"""Adapters on disk: what is refused, in which words, and that a refusal leaves all as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from foundation_adapters import GDVLoraConfig
from foundation_adapters.adapter_files import (
    Card,
    adapter_sets,
    fingerprint,
    load_adapter,
    merged,
    read_card,
    save_adapter,
)
from foundation_adapters.adapters import METHODS, adapter_config, adapter_name, adapter_tensors, default_targets
from foundation_adapters.backbones import check_licence, tiny
from foundation_adapters.estimator import load_estimator
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame


def _net(width: int = 6, seed: int = 0, layers: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)), nn.BatchNorm1d(width))


def _model(seed: int = 0, method: str = "gdvlora", name: str = "default"):
    net = _net()
    model = get_peft_model(net, adapter_config(method, ["0", "1"], rank=2), name)
    return _stirred(model, seed)


def _stirred(model: nn.Module, seed: int = 0, by: float = 0.1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            tensor.add_(by * torch.randn(tensor.shape, generator=generator))
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_adapter(_model(), tmp_path / "mine", "small", "CC-BY-4.0", about="A net for tests.", training={"steps": 3})
    return tmp_path / "mine"


def _weights(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def _nan(tensors: dict) -> None:
    tensors["base_model.model.0.gdvlora_A"][0, 0] = float("nan")


def _longer(tensors: dict) -> None:
    tensors["base_model.model.0.gdvlora_u"] = torch.ones(3)


def _change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))



BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"no tensors"), "is broken .*copy the adapter"),
    "cut": (
        lambda f: (f / "adapter_model.safetensors").write_bytes((f / "adapter_model.safetensors").read_bytes()[:-9]),
        "is broken .*copy the adapter",
    ),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors in"),
    "not finite": (lambda f: _weights(f, _nan), r"no numbers \(in base_model.model.0.gdvlora_A\)"),
    "missing": (
        lambda f: _weights(f, lambda t: t.pop("base_model.model.1.gdvlora_B")),
        r"1 tensors missing, 0 foreign, 0 of another shape, first: base_model.model.1.gdvlora_B",
    ),
    "foreign": (lambda f: _weights(f, lambda t: t.update(x=torch.ones(1))), "0 tensors missing, 1 foreign"),
    "shape": (lambda f: _weights(f, _longer), "0 foreign, 1 of another shape, first: base_model.model.0.gdvlora_u"),
    "config": (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json is no configuration"),
    "method": (
        lambda f: (f / "adapter_config.json").write_text('{"peft_type": "QUANTUM"}'),
        "adapter_config.json is no configuration of an adapter",
    ),
    "card": (lambda f: (f / "card.json").write_text("{}"), "card.json is no card"),
    "tasks": (
        lambda f: (f / "card.json").write_text((f / "card.json").read_text().replace("pose", "sound")),
        r"names the tasks \['depth', 'sound'\]",
    ),
    "no tasks": (lambda f: _change(f / "card.json", tasks=True), "its tasks are True"),
    "odd tasks": (lambda f: _change(f / "card.json", tasks=[{"depth": 1}]), "its tasks are"),
    # peft would import whatever module is named.
    "megatron": (
        lambda f: _change(f / "adapter_config.json", peft_type="LORA", megatron_config={"a": 1}), "asks for Megatron"
    ),
    "huge": (lambda f: os.truncate(f / "adapter_model.safetensors", 6_000_000_000), "it has 6000 MB"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_broken_folders_are_refused_and_the_network_is_as_before(folder: Path, case: str) -> None:
    spoil, message = BROKEN[case]
    network = _net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_adapter(_model(), folder.parent / "good", "small", "MIT")
    spoil(folder)
    with pytest.raises(InputError, match=message) as raised:
        load_adapter(network, folder, "small")
    assert "\n" not in str(raised.value)
    after = network.state_dict()
    assert list(after) == list(before) and all(torch.equal(before[k], after[k]) for k in before)
    assert fingerprint(load_adapter(network, folder.parent / "good", "small")) == fingerprint(_net())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: _net(width=8), "for 'small', does not fit 'other' .* 6 of another shape"),
        (lambda: _net(layers=3), "another version of 'small'"),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()), "can't be adapted"),
        (lambda: nn.Sequential(nn.Sequential(nn.ReLU())), "for 'small', does not fit 'other'"),
        (lambda: _net(seed=1), "another version of 'small' .*train the adapter again"),
    ],
)
def test_other_networks_are_refused(folder: Path, network: Callable[[], nn.Module], message: str) -> None:
    base = network()
    names = [name for name, _ in base.named_modules()]
    with pytest.raises(InputError, match=message):
        load_adapter(base, folder, "other")
    assert [name for name, _ in base.named_modules()] == names and not hasattr(base, "peft_config")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_base_that_differs_in_one_bit_is_refused(tmp_path: Path, method: str) -> None:
    save_adapter(_model(method=method), tmp_path / "mine", "small", "MIT")
    base = _net()
    base[2].running_mean[3] += 1e-7
    with pytest.raises(InputError, match="another version of 'small'"):
        load_adapter(base, tmp_path / "mine", "small")


def test_the_card_tells_what_it_is(folder: Path) -> None:
    assert read_card(folder) == Card(
        base="small", fingerprint=fingerprint(_net()), licence="CC-BY-4.0", tasks=("depth", "pose"),
        method="gdvlora", about="A net for tests.", training={"steps": 3},
    )  # fmt: skip
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "small"
    assert "A net for tests." in (folder / "README.md").read_text()


def test_an_adapter_of_peft_alone_has_no_card_and_loads(tmp_path: Path) -> None:
    model = _stirred(get_peft_model(_net(), LoraConfig(r=2, target_modules=["0"])))
    model.save_pretrained(tmp_path)
    assert read_card(tmp_path) == Card()
    x = torch.rand(5, 6)
    assert torch.equal(load_adapter(_net(), tmp_path, "small")(x), model(x))


def test_sets_of_two_tasks_lie_side_by_side(tmp_path: Path) -> None:
    model = _model(name=adapter_name("depth"))
    model.add_adapter(adapter_name("pose"), GDVLoraConfig(r=3, target_modules=["1"]))
    _stirred(model)
    for task in ("depth", "pose"):
        save_adapter(model, tmp_path / "mine" / task, "small", "MIT", adapter_name(task), (task,))
    assert adapter_sets(tmp_path / "mine") == {("depth",): tmp_path / "mine/depth", ("pose",): tmp_path / "mine/pose"}
    assert len(load_file(tmp_path / "mine/depth/adapter_model.safetensors")) == 10
    assert len(load_file(tmp_path / "mine/pose/adapter_model.safetensors")) == 5
    x = torch.rand(5, 6)
    model.set_adapter(adapter_name("pose"))
    assert torch.equal(load_adapter(_net(), tmp_path / "mine/pose", "small")(x), model.eval()(x))


@pytest.mark.parametrize(("made", "message"), [(False, "no such folder"), (True, r"\(notes.txt\)")])
def test_folders_without_an_adapter_are_refused(tmp_path: Path, made: bool, message: str) -> None:
    if made:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(InputError, match=f"mine is no adapter .*{message}.*expected a folder with adapter_config.json"):
        adapter_sets(tmp_path / "mine")


def test_what_can_not_be_saved_says_why(tmp_path: Path) -> None:
    model = _model()
    with pytest.raises(InputError, match="no adapter 'pose' to save: the model has default"):
        save_adapter(model, tmp_path / "a", "small", "MIT", "pose")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no adapter can be written to"):
        save_adapter(model, tmp_path / "file" / "a", "small", "MIT")
    model.merge_adapter()
    with pytest.raises(InputError, match="unmerge_adapter first"):
        save_adapter(model, tmp_path / "a", "small", "MIT")
    # peft would leave out the tensors of every module that is called as another adapter.
    with pytest.raises(InputError, match=r"'1' can't be saved, as the network has a module .*: call it 1_task"):
        save_adapter(_model(name="1"), tmp_path / "a", "small", "MIT", "1")
    assert not (tmp_path / "a").exists() and len(list(tmp_path.iterdir())) == 1


def test_a_save_that_fails_leaves_the_last_one_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_adapter(_model(seed=9), folder, "small", "MIT")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_a_disk_that_fills_up_leaves_the_last_one_whole(folder: Path, full_disk) -> None:  # type: ignore[no-untyped-def]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with full_disk(64), pytest.raises(InputError, match=r"no adapter can be written to .*free space"):
        save_adapter(_model(seed=9), folder, "small", "MIT")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_saving_again_replaces_it(folder: Path) -> None:
    model = _model(seed=9)
    save_adapter(model, folder, "small", "MIT")
    x = torch.rand(5, 6)
    assert torch.equal(load_adapter(_net(), folder, "small")(x), model(x)) and read_card(folder).licence == "MIT"


def test_a_merge_that_is_not_finite_is_refused(folder: Path) -> None:
    model = load_adapter(_net(), folder, "small")
    with torch.no_grad():
        next(iter(adapter_tensors(model).values())).fill_(float("inf"))
    with pytest.raises(InputError, match="can't be merged"):
        merged(model, folder)


CAMERA = Camera.from_fov(96, 64, 1.2)
FRAMES = [
    Frame.of(rgb, i, i, CAMERA)
    for i, rgb in enumerate(np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8))
]


def _tiny_adapter(out: Path, task: str | None, licence: str = "MIT") -> Path:
    """An adapter of the shipped network that is far from doing nothing."""
    network = tiny.base()
    name = adapter_name(task or "all")
    torch.manual_seed(1)
    model = get_peft_model(network, adapter_config("gdvlora", default_targets(network, task)), name)
    _stirred(model, 1, 0.2)
    save_adapter(model, out, "tiny", licence, name, (task,) if task else ("depth", "pose"))
    return out


def test_an_estimator_takes_an_adapter_for_both_tasks(own_weights: None, tmp_path: Path) -> None:
    plain = load_estimator().estimate(FRAMES)
    estimator = load_estimator("tiny", _tiny_adapter(tmp_path / "my_scope", None, "CC-BY-4.0"))
    found = estimator.estimate(FRAMES)
    assert np.abs(np.log(found.depth / plain.depth)).mean() > 0.01
    assert not np.allclose(found.previous_from_cam[1], plain.previous_from_cam[1], atol=1e-6)
    assert estimator.name == "tiny with adapter my_scope"
    assert estimator.licence == "Apache-2.0; adapter: CC-BY-4.0"


def test_an_estimator_takes_a_set_a_task(own_weights: None, tmp_path: Path) -> None:
    """The depth of one, the poses of the other; each task without a set is the base's."""
    plain = load_estimator().estimate(FRAMES)
    _tiny_adapter(tmp_path / "mine/depth", "depth")
    depth_only = load_estimator("tiny", tmp_path / "mine").estimate(FRAMES)
    assert np.abs(np.log(depth_only.depth / plain.depth)).mean() > 0.01
    assert np.array_equal(depth_only.state, plain.state)
    _tiny_adapter(tmp_path / "mine/pose", "pose")
    both = load_estimator("tiny", tmp_path / "mine").estimate(FRAMES)
    assert np.array_equal(both.depth, depth_only.depth)
    assert not np.allclose(both.state, plain.state, atol=1e-4)
    alone = load_estimator("tiny", tmp_path / "mine/depth")
    assert np.array_equal(alone.estimate(FRAMES).depth, both.depth)


def test_an_estimator_takes_an_adapter_for_depth_anything(own_weights: None, checkpoint: Path, tmp_path: Path) -> None:
    from transformers import DepthAnythingForDepthEstimation

    network = DepthAnythingForDepthEstimation.from_pretrained(checkpoint)
    model = _stirred(get_peft_model(network, adapter_config("dvlora", default_targets(network))), by=1.0)
    # Named as it lay where it was trained; it is told by its weights.
    save_adapter(model, tmp_path / "mine", "elsewhere/checkpoint", "MIT")
    plain = load_estimator(str(checkpoint)).estimate(FRAMES)
    estimator = load_estimator(str(checkpoint), tmp_path / "mine")
    assert not np.allclose(estimator.estimate(FRAMES).depth, plain.depth, rtol=1e-3)
    assert estimator.name == f"{checkpoint} with adapter mine"
    with pytest.raises(InputError, match="for 'elsewhere/checkpoint', does not fit 'tiny'"):
        load_estimator("tiny", tmp_path / "mine")
    with pytest.raises(InputError, match="for 'tiny', does not fit"):
        load_estimator(str(checkpoint), _tiny_adapter(tmp_path / "other", None))


def test_an_adapter_that_forbids_commercial_use_needs_consent(own_weights: None, tmp_path: Path) -> None:
    _tiny_adapter(tmp_path / "mine", None, "CC-BY-NC-4.0")
    with pytest.raises(InputError, match=r"adapter mine are licensed CC-BY-NC-4\.0, .* --accept-licence"):
        load_estimator("tiny", tmp_path / "mine")
    assert load_estimator("tiny", tmp_path / "mine", accept_licence=True).licence.endswith("CC-BY-NC-4.0")


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("Apache-2.0", True), ("CC-BY-4.0", True), ("cc-by-nc-sa-4.0", False), ("Non-commercial research", False),
        ("FAIR Noncommercial Research License", False), ("NCSA", True), ("not recorded", True),
    ],
)  # fmt: skip
def test_non_commercial_licences_are_known_by_their_names(licence: str, free: bool) -> None:
    if free:
        check_licence("x", licence, False)
    else:
        with pytest.raises(InputError, match="--accept-licence"):
            check_licence("x", licence, False)
