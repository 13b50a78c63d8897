"""GDV-LoRA itself: its equation, what it adapts, its adapters together, and its place in peft."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model
from torch import Tensor, nn

from foundation_adapters import GDVLoraConfig
from foundation_adapters.adapters import adapter_config, adapter_tensors, set_phase
from foundation_adapters.gdv_lora import GDVLoraLinear, GDVLoraPointwise


class Net(nn.Module):
    """A pointwise convolution with a stride, a mean over its places, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1, stride=2)
        self.wide = nn.Conv2d(5, 5, 3, padding=1)
        self.grouped = nn.Conv2d(5, 5, 1, groups=5)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.grouped(self.wide(self.conv(x))).mean((2, 3)))


def _net() -> Net:
    torch.manual_seed(0)
    return Net()


def _model(**more) -> PeftModel:
    torch.manual_seed(1)
    return get_peft_model(_net(), GDVLoraConfig(r=2, target_modules=["conv", "out"], **more)).eval()


def _stirred(model: PeftModel, seed: int) -> PeftModel:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            tensor.add_(torch.randn(tensor.shape, generator=generator))
    return model


X = torch.rand(4, 3, 8, 6, generator=torch.Generator().manual_seed(2))


def test_the_equation_by_hand() -> None:
    base = nn.Linear(2, 2, bias=False)
    base.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    layer = GDVLoraLinear(base, "a", GDVLoraConfig(r=1, target_modules=["x"]), 1)
    layer.gdvlora_A["a"].data = torch.tensor([[1.0, 2.0]])
    layer.gdvlora_B["a"].data = torch.tensor([[3.0], [4.0]])
    layer.gdvlora_u["a"].data = torch.tensor([0.5])
    layer.gdvlora_v["a"].data = torch.tensor([1.0, -1.0])
    layer.gdvlora_gate["a"].data = torch.tensor([2.0])
    # A x = 1 * 1 + 2 * 1 = 3; Lu: 1.5; B: (4.5, 6); Lv: (4.5, -6); g: (9, -12); plus W x = (1, 1).
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [10.0, -11.0]
    # g Lv B Lu A = 2 * (3, -4) * 0.5 * (1, 2).
    assert layer.get_delta_weight("a").tolist() == [[3.0, 6.0], [-4.0, -8.0]]


def test_a_convolution_is_the_linear_layer_at_every_place() -> None:
    torch.manual_seed(0)
    linear, conv = nn.Linear(3, 5), nn.Conv2d(3, 5, 1)
    conv.weight.data, conv.bias.data = linear.weight.data[:, :, None, None], linear.bias.data
    config = GDVLoraConfig(r=2, target_modules=["x"])
    one, other = GDVLoraLinear(linear, "a", config, 2), GDVLoraPointwise(conv, "a", config, 2)
    for name in one.adapter_layer_names:
        value = torch.randn_like(getattr(one, name)["a"])
        getattr(one, name)["a"].data = getattr(other, name)["a"].data = value
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(other(x), one(x.movedim(1, -1)).movedim(-1, 1))


def test_the_start_is_neutral_and_the_pair_is_as_published() -> None:
    tensors = {name.split(".")[-2]: t for name, t in adapter_tensors(_model()).items() if ".out." in name}
    # Kaiming uniform with a = sqrt(5): within 1 / sqrt(inputs).
    assert 0 < tensors["gdvlora_A"].abs().max() <= 5**-0.5
    assert (tensors["gdvlora_B"] == 0).all()
    assert all((tensors[f"gdvlora_{name}"] == 1).all() for name in ("u", "v", "gate"))
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "gdvlora_A": (2, 5), "gdvlora_B": (2, 2), "gdvlora_u": (2,), "gdvlora_v": (2,), "gdvlora_gate": (1,),
    }  # fmt: skip
    published = [t for name, t in adapter_tensors(_model(init_vectors="kaiming")).items() if "_v" in name]
    assert all((v != 1).all() and (v.abs() <= 1).all() for v in published)


def test_without_a_gate_it_is_dv_lora() -> None:
    assert not any("gate" in name for name in adapter_tensors(_model(gated=False)))


def test_several_active_adapters_add_up() -> None:
    model = _model()
    model.add_adapter("b", GDVLoraConfig(r=3, target_modules=["conv", "out"], gated=False))
    _stirred(model, 3)
    layer = model.base_model.model.out
    x = torch.rand(4, 5)
    model.base_model.set_adapter(["default", "b"])
    want = layer.base_layer(x) + x @ (layer.get_delta_weight("default") + layer.get_delta_weight("b")).T
    torch.testing.assert_close(layer(x), want)
    told = model(X)
    model.merge_adapter()
    torch.testing.assert_close(model(X), told, rtol=1e-5, atol=1e-5)


def test_each_row_of_a_batch_may_have_its_own_adapter() -> None:
    """Both tasks in one pass: the same numbers as in a pass each, and the same gradients."""
    model = _model()
    model.add_adapter("pose_task", GDVLoraConfig(r=3, target_modules=["out"]))
    _stirred(model, 3)
    model.base_model.set_adapter(["default", "pose_task"])
    names = ["default", "pose_task", "__base__", "pose_task"]
    mixed = model(X, adapter_names=names)
    mixed.sum().backward()
    found = {name: t.grad.clone() for name, t in adapter_tensors(model).items() if t.grad is not None}
    assert len(found) == 15
    model.zero_grad()
    for name in ("default", "pose_task"):
        model.set_adapter(name)
        rows = torch.tensor([n == name for n in names])
        torch.testing.assert_close(mixed[rows], model(X[rows]))
        model(X[rows]).sum().backward()
        for full, tensor in adapter_tensors(model, name).items():
            torch.testing.assert_close(tensor.grad, found[full])
    with model.disable_adapter():
        torch.testing.assert_close(mixed[2], model(X)[2])
    # Nothing of it stays.
    assert not torch.allclose(model(X)[0], mixed[0])


def test_rows_are_checked() -> None:
    model = _model()
    with pytest.raises(ValueError, match="no adapter 'nobody': there are default and __base__"):
        model(X, adapter_names=["nobody"] * 4)
    with pytest.raises(ValueError, match="3 names for a batch of 4"):
        model(X, adapter_names=["default"] * 3)
    model.base_model.model.conv.gradient_checkpointing = True
    with pytest.raises(ValueError, match="gradient checkpointing"):
        model.train()(X, adapter_names=["default"] * 4)
    model.eval().merge_adapter()
    with pytest.raises(ValueError, match="unmerge_adapter first"):
        model(X, adapter_names=["default"] * 4)


def test_a_merge_that_is_not_finite_leaves_the_base_alone() -> None:
    model = _stirred(_model(), 3)
    before = model.base_model.model.out.base_layer.weight.clone()
    with torch.no_grad():
        adapter_tensors(model)["base_model.model.out.gdvlora_gate.default"].fill_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        model.merge_adapter(safe_merge=True)
    assert torch.equal(model.base_model.model.out.base_layer.weight, before)


def test_heads_of_several_layers_can_be_unloaded() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    torch.manual_seed(0)
    model = _stirred(get_peft_model(Deep(), GDVLoraConfig(target_modules=["body"], modules_to_save=["head"])), 3)
    x = torch.rand(5, 3)
    told = model(x)
    plain = model.merge_and_unload()
    torch.testing.assert_close(plain(x), told, rtol=1e-5, atol=1e-5)
    assert type(plain.head) is nn.Sequential and type(plain.body) is nn.Linear


@pytest.mark.parametrize(("name", "kind"), [("wide", "Conv2d"), ("grouped", "Conv2d")])
def test_other_layers_are_refused(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' \({kind}\) can't be adapted"):
        get_peft_model(_net(), GDVLoraConfig(target_modules=[name]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"r": 0}, "at least 1; found 0"),
        ({"init_vectors": "zeros"}, "'ones' or 'kaiming', found 'zeros'"),
        ({"target_modules": "a|b", "layers_to_transform": [1]}, "regular expression"),
        ({"layers_pattern": "layer"}, "needs layers_to_transform"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GDVLoraConfig(**more)


def test_ranks_and_layers_can_be_chosen() -> None:
    model = get_peft_model(_net(), GDVLoraConfig(r=2, target_modules=["conv", "out"], rank_pattern={"out": 3}))
    ranks = {name.split(".")[2]: len(t) for name, t in adapter_tensors(model).items() if "gdvlora_A" in name}
    assert ranks == {"conv": 2, "out": 3}


def test_half_precision_bases_are_adapted_in_theirs() -> None:
    model = get_peft_model(_net().bfloat16(), GDVLoraConfig(target_modules=["conv", "out"]))
    told = model(X.bfloat16())
    assert told.dtype == torch.bfloat16 and torch.isfinite(told).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert _stirred(_model(), 3)(X).dtype == torch.bfloat16


def test_a_transformer_that_is_known_needs_no_targets(checkpoint: Path) -> None:
    from transformers import DepthAnythingForDepthEstimation

    model = get_peft_model(DepthAnythingForDepthEstimation.from_pretrained(checkpoint), GDVLoraConfig())
    layers = {name.rsplit(".", 2)[0] for name in adapter_tensors(model)}
    assert len(layers) == 8 and all(name.endswith(("fc1", "fc2")) for name in layers)


def test_only_what_is_in_the_phase_counts_as_trainable() -> None:
    """ViT-B: rank 4 on both layers of the perceptron of 12 blocks. 12 * 2 * 4 * (768 + 3072) = 368,640 numbers in the
    pairs; the vectors are 24 * 4 + 12 * (768 + 3072) and the gates 24."""
    from transformers import Dinov2Config, Dinov2Model

    with torch.device("meta"):
        base = Dinov2Model(Dinov2Config(hidden_size=768, num_hidden_layers=12, num_attention_heads=12))
        model = get_peft_model(base, adapter_config("gdvlora", ["fc1", "fc2"]))
    set_phase(model, "pair")
    assert model.get_nb_trainable_parameters()[0] == 368_640
    set_phase(model, "vectors")
    assert model.get_nb_trainable_parameters()[0] == 96 + 46_080 + 24


def test_the_new_member_of_the_enumeration_is_like_the_others() -> None:
    member = PeftType("GDVLORA")
    assert member is PeftType.GDVLORA is PeftType["GDVLORA"]
    assert member == "GDVLORA" and member in list(PeftType) and len(PeftType("LORA")) == 4
    assert json.dumps(member) == '"GDVLORA"'
    assert pickle.loads(pickle.dumps(member)) is member


def test_its_files_are_those_of_peft(tmp_path: Path) -> None:
    model = _stirred(_model(), 3)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "GDVLORA"
    config = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(config, GDVLoraConfig) and (config.r, config.gated) == (2, True)
    assert torch.equal(PeftModel.from_pretrained(_net(), tmp_path).eval()(X), model(X))


def test_peft_loads_it_without_drawing_it_first(tmp_path: Path) -> None:
    model = _stirred(_model(), 3)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(_net(), tmp_path, low_cpu_mem_usage=True).eval()
    assert torch.equal(loaded(X), model(X))
    assert all(t.device.type == "cpu" for t in adapter_tensors(loaded).values())


def test_peft_tells_its_status_and_turns_it_into_a_lora() -> None:
    """What is learnt is a low-rank update: the singular values of one of rank 2 give it back as a plain LoRA."""
    from peft import convert_to_lora, set_peft_model_state_dict
    from peft.utils.save_and_load import get_peft_model_state_dict

    model = _stirred(get_peft_model(_net(), GDVLoraConfig(r=2, target_modules=["out"])), 3).eval()
    status = model.get_model_status()
    assert (status.adapter_model_type, status.num_adapter_layers, status.trainable_params) == ("GDVLoraModel", 1, 19)
    told = model(X)
    config, tensors = convert_to_lora(model, rank=2)
    plain = get_peft_model(_net(), config).eval()
    set_peft_model_state_dict(plain, tensors)
    assert get_peft_model_state_dict(plain).keys() == tensors.keys()
    torch.testing.assert_close(plain(X), told, rtol=1e-4, atol=1e-5)


def test_peft_itself_refuses_a_file_that_lacks_tensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _model().save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop("base_model.model.out.gdvlora_B")
    save_file(tensors, path)
    with pytest.raises(ValueError, match="lacks 1 tensors of this model and has 0 others"):
        PeftModel.from_pretrained(_net(), tmp_path)


def test_one_import_is_all_that_a_user_of_peft_needs(tmp_path: Path) -> None:
    """In a fresh process: peft does not know the method, and after the import it does."""
    _stirred(_model(), 3).save_pretrained(tmp_path)
    code = (
        "import sys, foundation_adapters; heavy = 'peft' in sys.modules\n"
        "from foundation_adapters import GDVLoraConfig; from peft import PeftConfig\n"
        f"print(heavy, type(PeftConfig.from_pretrained({str(tmp_path)!r})) is GDVLoraConfig)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False True"
