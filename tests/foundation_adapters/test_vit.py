"""DINOv2 and DINOv3 as encoders, by small random checkpoints in the published layout, and the heads on top of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundation_adapters import checkpoints
from foundation_adapters.adapter_files import fingerprint, save_adapter
from foundation_adapters.adapters import (
    adapter_config,
    adapter_rows,
    adapter_tensors,
    default_targets,
    parameter_groups,
    phases,
    set_phase,
)
from foundation_adapters.backbones import depth_anything, dinov2, dinov3
from foundation_adapters.estimator import load_estimator
from foundation_adapters.vit import Neck, VitNetwork, stages
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

ALL_HEADS = ("neck", "distance", "pose", "intrinsics")
# The names of a block's tensors in the files on the hub.
DINOV2_BLOCK = {
    f"encoder.layer.0.{name}"
    for name in (
        "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "layer_scale1.lambda1", "layer_scale2.lambda1",
        "attention.attention.query.weight", "attention.attention.query.bias", "attention.attention.key.weight",
        "attention.attention.key.bias", "attention.attention.value.weight", "attention.attention.value.bias",
        "attention.output.dense.weight", "attention.output.dense.bias", "mlp.fc1.weight", "mlp.fc1.bias",
        "mlp.fc2.weight", "mlp.fc2.bias",
    )
}  # fmt: skip
DINOV2 = {
    "embeddings.cls_token", "embeddings.mask_token", "embeddings.position_embeddings", "layernorm.weight",
    "layernorm.bias", "embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.projection.bias",
}  # fmt: skip
DINOV3_BLOCK = {
    f"layer.0.{name}"
    for name in (
        "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "layer_scale1.lambda1", "layer_scale2.lambda1",
        "attention.q_proj.weight", "attention.q_proj.bias", "attention.k_proj.weight", "attention.v_proj.weight",
        "attention.v_proj.bias", "attention.o_proj.weight", "attention.o_proj.bias", "mlp.up_proj.weight",
        "mlp.up_proj.bias", "mlp.down_proj.weight", "mlp.down_proj.bias",
    )
}  # fmt: skip
DINOV3 = {
    "embeddings.cls_token", "embeddings.mask_token", "embeddings.register_tokens", "norm.weight", "norm.bias",
    "embeddings.patch_embeddings.weight", "embeddings.patch_embeddings.bias",
}  # fmt: skip
PUBLISHED = {
    "dinov2": DINOV2 | DINOV2_BLOCK,
    "dinov2_with_registers": DINOV2 | DINOV2_BLOCK | {"embeddings.register_tokens"},
    "dinov3_vit": DINOV3 | DINOV3_BLOCK,
}
SLOT = {"dinov2": dinov2, "dinov2_with_registers": dinov2, "dinov3_vit": dinov3}


def _model(kind: str) -> nn.Module:
    import transformers as t

    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    torch.manual_seed(0)
    if kind == "dinov3_vit":
        return t.DINOv3ViTModel(t.DINOv3ViTConfig(**sizes, intermediate_size=128, num_register_tokens=4))
    sizes |= {"patch_size": 14, "image_size": 56}
    if kind == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**sizes))
    return t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**sizes))


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "encoder"
    model = _model(request.param)
    with torch.no_grad():
        for tensor in model.parameters():  # the tokens start at zero
            tensor.add_(0.02 * torch.randn(tensor.shape))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "dinov2-small"
    _model("dinov2").save_pretrained(folder)
    return folder


def _build(folder: Path) -> VitNetwork:
    torch.manual_seed(1)
    return SLOT[checkpoints.kind(str(folder))].build(str(folder))


def _stir(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))


def _inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 3, 64, 96, generator=generator), torch.rand(2, 3, 32, 48, generator=generator)


def test_the_checkpoint_is_in_the_published_layout(published: Path) -> None:
    kind = json.loads((published / "config.json").read_text())["model_type"]
    keys = {k for k in load_file(published / "model.safetensors") if "layer." not in k or "layer.0." in k}
    assert keys == PUBLISHED[kind]


def test_every_weight_of_the_file_is_in_the_encoder(published: Path) -> None:
    network = _build(published)
    file = load_file(published / "model.safetensors")
    own = network.encoder.state_dict()
    assert sorted(t.double().sum().item() for t in file.values()) == sorted(
        t.double().sum().item() for t in own.values()
    )
    assert not any(p.requires_grad for p in network.encoder.parameters())


def test_the_tokens_are_those_of_the_published_model(published: Path) -> None:
    """The deepest map is the published model's output, in rows."""
    import transformers

    image, _ = _inputs()
    network = _build(published)
    with torch.no_grad():
        levels = network.backbone(image)
        pixels = nn.functional.interpolate(image, levels[0].shape[-2:], mode="nearest")  # only for the shape
        assert [tuple(level.shape) for level in levels] == [(2, 32, *pixels.shape[-2:])] * 4
        assert tuple(pixels.shape[-2:]) == (64 // network.patch, 96 // network.patch)
        model = transformers.AutoModel.from_pretrained(published).eval()
        size = [side // network.patch * network.patch for side in image.shape[-2:]]
        resized = nn.functional.interpolate(image, size, mode="bicubic", antialias=True)
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        tokens = model(pixel_values=(resized - mean) / std).last_hidden_state
    places = levels[3].flatten(2).transpose(1, 2)
    torch.testing.assert_close(places, tokens[:, -places.shape[1] :], rtol=1e-4, atol=1e-5)


def test_it_answers_as_the_shipped_network_does(published: Path) -> None:
    image, rays = _inputs()
    rays[:, :, :4, :4] = float("nan")
    network = _build(published)
    with torch.no_grad():
        found = network(image, rays)
        pose = network.relative_pose(found.description, found.description.flip(0), rays, found.log_distance)
        scales = network.scales(network.backbone(image), rays)
    assert found.log_distance.shape == found.log_std.shape == (2, 64, 96)
    assert found.log_distance.dtype == torch.float32
    assert found.focal.shape == (2, 2) and pose.shape == (2, 6)
    assert all(torch.isfinite(t).all() for t in (found.log_distance, found.log_std, found.focal, pose))
    # It starts at the usual distance of 40 mm, at a focal length of .84 of the width and without motion.
    assert found.log_distance.exp().median().item() == pytest.approx(40, rel=0.3)
    assert found.focal.mean().item() == pytest.approx(0.84, abs=0.1)
    h, w = 64 // network.patch, 96 // network.patch
    assert [tuple(d.shape[1:]) for d, _ in scales] == [(4 * h, 4 * w), (2 * h, 2 * w), (h, w), (h // 2, w // 2)]


def test_only_adapters_and_heads_learn_and_all_of_them(published: Path) -> None:
    network = _build(published)
    model = get_peft_model(network, adapter_config("gdvlora", default_targets(network), heads=ALL_HEADS)).eval()
    image, rays = _inputs()

    def told() -> Tensor:
        levels = model.backbone(image)
        scales = model.scales(levels, rays)
        description = model.pose.describe(levels)
        pose = model.relative_pose(description, description.flip(0), rays, model.full_distance(levels, rays)[0])
        parts = [part for scale in scales for part in scale] + [model.intrinsics(levels), pose]
        return torch.cat([part.flatten() for part in parts])

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = adapter_tensors(model)
    optimiser = torch.optim.AdamW(parameter_groups(model), lr=1e-2, eps=1e-16)
    weight = torch.randn(told().shape, generator=torch.Generator().manual_seed(3))
    for phase in phases("gdvlora"):
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        set_phase(model, phase)
        for _ in range(3):
            optimiser.zero_grad()
            (weight * told()).sum().backward()
            optimiser.step()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
        parts = ("_A.", "_B.") if phase == "pair" else ("_u.", "_v.", "_gate.")
        assert moved == {n for n in own if ".modules_to_save." in n or any(f"gdvlora{p}" in n for p in parts)}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name not in own)


@pytest.mark.parametrize("method", ["gdvlora", "lora"])
def test_both_tasks_learn_in_one_pass_of_the_encoder(one: Path, method: str) -> None:
    """A row a task: the same distance, description and gradients as in a pass each."""
    network = _build(one)
    targets = default_targets(network)
    model = get_peft_model(network, adapter_config(method, targets, heads=network.heads["depth"]), "depth_task")
    model.add_adapter("pose_task", adapter_config(method, targets, heads=network.heads["pose"]))
    _stir(model)
    model.eval().base_model.set_adapter(["depth_task", "pose_task"])
    image, rays = _inputs()

    def learn(depth_levels: list[Tensor], pose_levels: list[Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        distance, _ = model.full_distance(depth_levels, rays)
        described = model.pose.describe(pose_levels)
        model.zero_grad()
        (distance.sum() + described.square().sum() + model.intrinsics(pose_levels).sum()).backward()
        return distance, described, {n: t.grad.clone() for n, t in adapter_tensors(model).items() if t.grad is not None}

    with adapter_rows(model, ["depth_task"] * 2 + ["pose_task"] * 2):
        levels = model.backbone(torch.cat([image, image]))
    together = learn([level[:2] for level in levels], [level[2:] for level in levels])

    def alone(name: str) -> list[Tensor]:
        with adapter_rows(model, [name] * 2):
            return model.backbone(image)

    apart = learn(alone("depth_task"), alone("pose_task"))
    for one_, other in zip(together[:2], apart[:2], strict=True):
        torch.testing.assert_close(one_, other, rtol=1e-4, atol=1e-5)
    assert together[2].keys() == apart[2].keys()
    assert {name for name in ("depth_task", "pose_task") if any("_A." + name in n for n in together[2])} == {
        "depth_task",
        "pose_task",
    }
    for name, grad in together[2].items():
        torch.testing.assert_close(grad, apart[2][name], rtol=1e-3, atol=1e-4)


def test_the_neck_changes_nothing_at_the_start() -> None:
    maps = [torch.rand(1, 16, 3, 4) for _ in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(maps, Neck(16)(maps), strict=True))


def test_the_blocks_that_are_read() -> None:
    assert (stages(12), stages(24), stages(40)) == ([3, 6, 9, 12], [5, 12, 18, 24], [10, 20, 30, 40])


# d, blocks, heads of the published sizes.
SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def _encoder(kind: str, size: str) -> nn.Module:
    """A published size on the meta device: shapes, no memory."""
    import transformers as t

    d, blocks, heads = SIZES[size]
    sizes = {"hidden_size": d, "num_hidden_layers": blocks, "num_attention_heads": heads}
    with torch.device("meta"):
        if kind == "dinov3_vit":
            config = t.DINOv3ViTConfig(**sizes, intermediate_size=4 * d, num_register_tokens=4)
            return t.DINOv3ViTBackbone(config)
        if kind == "dinov2":
            return t.Dinov2Backbone(t.Dinov2Config(**sizes, patch_size=14, image_size=518))
        return t.Dinov2WithRegistersBackbone(t.Dinov2WithRegistersConfig(**sizes, patch_size=14, image_size=518))


@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize("kind", sorted(PUBLISHED))
def test_the_published_sizes(kind: str, size: str) -> None:
    """12 d^2 + 15 d numbers a block (d less for the missing bias of DINOv3's keys), the patches' kernel and bias, 37 x
    37 positions with the class's (none in DINOv3, which turns them), class and mask token, 4 registers, the norm."""
    d, blocks, _ = SIZES[size]
    three = kind == "dinov3_vit"
    patch = 16 if three else 14
    want = blocks * (12 * d * d + (14 if three else 15) * d) + 3 * patch * patch * d + d + 2 * d + 2 * d
    want += (0 if three else (37 * 37 + 1) * d) + (0 if kind == "dinov2" else 4 * d)
    assert sum(p.numel() for p in _encoder(kind, size).parameters()) == want


@pytest.mark.parametrize("kind", sorted(PUBLISHED))
def test_1_6_million_numbers_learn_for_vit_b(kind: str) -> None:
    """Adapters of rank 4 on the perceptrons, neck and heads, within 5 % of EndoDAC's 1.6 million: in the first phase,
    and all that ever learns."""
    encoder = _encoder(kind, "base")
    encoder.out_indices = stages(12)
    with torch.device("meta"):
        network = VitNetwork(encoder)
        model = get_peft_model(network, adapter_config("gdvlora", default_targets(network), heads=ALL_HEADS))
    everything = sum(t.numel() for t in adapter_tensors(model).values())
    set_phase(model, "pair")
    counts = {
        name: sum(p.numel() for n, p in model.named_parameters() if f".{name}." in n and p.requires_grad)
        for name in ("gdvlora_A", "gdvlora_B", *ALL_HEADS)
    }
    assert counts["gdvlora_A"] + counts["gdvlora_B"] == 368_640 and counts["neck"] == 929_280
    assert sum(counts.values()) == model.get_nb_trainable_parameters()[0] == 1_580_466
    assert everything == 1_626_666
    assert abs(everything / 1.6e6 - 1) < 0.05 and abs(1_580_466 / 1.6e6 - 1) < 0.05


@pytest.mark.parametrize(("size", "millions"), [("small", 24.8), ("base", 97.5), ("large", 335.3)])
def test_depth_anything_has_the_published_sizes(size: str, millions: float) -> None:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    d, blocks, heads = SIZES[size]
    neck = {"small": [48, 96, 192, 384], "base": [96, 192, 384, 768], "large": [256, 512, 1024, 1024]}[size]
    fusion = {"small": 64, "base": 128, "large": 256}[size]
    vit = Dinov2Config(
        hidden_size=d, num_hidden_layers=blocks, num_attention_heads=heads, patch_size=14, image_size=518,
        out_indices=stages(blocks), reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=vit, reassemble_hidden_size=d, neck_hidden_sizes=neck, fusion_hidden_size=fusion
    )
    with torch.device("meta"):
        model = DepthAnythingForDepthEstimation(config)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
        adapted = get_peft_model(model, adapter_config("gdvlora", default_targets(model)))
    assert len(adapter_tensors(adapted)) == 5 * 2 * blocks


CAMERA = Camera.from_fov(96, 64, 1.2)
FRAMES = [
    Frame.of(rgb, i, i, CAMERA)
    for i, rgb in enumerate(np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), dtype=np.uint8))
]


def _trained(
    folder: Path, out: Path, tasks: tuple[str, ...] = ("depth", "pose"), heads: tuple[str, ...] = ALL_HEADS
) -> Path:
    """As if trained: every tensor of adapter and heads is moved."""
    network = _build(folder)
    model = get_peft_model(network, adapter_config("gdvlora", default_targets(network), heads=heads))
    _stir(model)
    save_adapter(model, out, "small/encoder", "CC-BY-4.0", tasks=tasks)
    return out


def test_an_encoder_with_its_adapter_gives_depth_pose_and_camera(published: Path, tmp_path: Path) -> None:
    estimator = load_estimator(str(published), _trained(published, tmp_path / "mine"))
    found = estimator.estimate(FRAMES)
    assert found.depth.shape == (3, 64, 96) and (found.depth > 0).all() and np.isfinite(found.depth).all()
    assert np.isfinite(found.previous_from_cam[1:]).all()
    assert np.isnan(found.previous_from_cam[0]).all()
    second = estimator.estimate(FRAMES[2:], previous=estimator.estimate(FRAMES[:2]))
    np.testing.assert_allclose(second.previous_from_cam[0], found.previous_from_cam[2], atol=1e-3)
    camera, spread = estimator.estimate_camera(FRAMES)
    assert camera.model == "pinhole" and spread >= 0
    assert estimator.name == f"{published} with adapter mine" and estimator.licence.endswith("adapter: CC-BY-4.0")
    # The heads were drawn anew: all that the file tells is in the adapter.
    torch.manual_seed(99)
    again = load_estimator(str(published), tmp_path / "mine").estimate(FRAMES)
    np.testing.assert_array_equal(again.depth, found.depth)


def test_a_set_a_task_shares_the_encoder_s_weights(one: Path, own_weights: None, tmp_path: Path) -> None:
    _trained(one, tmp_path / "mine/depth", ("depth",), ("neck", "distance"))
    alone = load_estimator(str(one), tmp_path / "mine").estimate(FRAMES)
    assert alone.state.shape == (1, 48, 8, 12)  # the pose is the shipped network's, stride 8
    _trained(one, tmp_path / "mine/pose", ("pose",), ("pose", "intrinsics"))
    both = load_estimator(str(one), tmp_path / "mine").estimate(FRAMES)
    assert both.state.shape == (1, 48, 4, 6)  # the tokens'
    np.testing.assert_array_equal(both.depth, alone.depth)


def test_encoders_without_heads_are_refused(one: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives features and no depth: give --adapter"):
        load_estimator(str(one))
    with pytest.raises(
        InputError, match=r"has no trained distance, neck: .*modules_to_save are distance, intrinsics, neck, pose"
    ):
        load_estimator(str(one), _trained(one, tmp_path / "a", heads=("pose", "intrinsics")))
    with pytest.raises(InputError, match="gives features and no depth"):
        load_estimator(str(one), _trained(one, tmp_path / "b", ("pose",), ("pose", "intrinsics")))


def test_an_adapter_for_another_encoder_is_refused(one: Path, tmp_path: Path) -> None:
    adapter = _trained(one, tmp_path / "mine")
    other = tmp_path / "other"
    model = _model("dinov2")
    with torch.no_grad():
        model.layernorm.bias[0] += 1e-3
    model.save_pretrained(other)
    with pytest.raises(InputError, match="trained on another version of 'small/encoder'"):
        load_estimator(str(other), adapter)
    registers = tmp_path / "registers"
    _model("dinov2_with_registers").save_pretrained(registers)
    with pytest.raises(InputError, match="another version"):
        load_estimator(str(registers), adapter)
    three = tmp_path / "three"
    _model("dinov3_vit").save_pretrained(three)
    with pytest.raises(InputError, match="does not fit"):
        load_estimator(str(three), adapter)


def test_the_fingerprint_is_the_encoder_s_alone(one: Path) -> None:
    prints = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = dinov2.build(str(one))
        prints.add(fingerprint(get_peft_model(network, adapter_config("lora", ["fc1"], heads=ALL_HEADS))))
    assert len(prints) == 1


def test_broken_encoders_are_refused(one: Path, tmp_path: Path) -> None:
    for name in ("part", "garbage"):
        (tmp_path / name).mkdir()
        for path in one.iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "part/model.safetensors")
    tensors.pop("encoder.layer.2.mlp.fc1.weight")
    save_file(tensors, tmp_path / "part/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks parts of the network \(first: encoder.layer.2.mlp.fc1.weight\)"):
        dinov2.build(str(tmp_path / "part"))
    (tmp_path / "garbage/model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="can't be read"):
        dinov2.build(str(tmp_path / "garbage"))


@pytest.mark.parametrize(
    ("model", "slot"),
    [
        ("facebook/dinov2-base", dinov2),
        ("facebook/dinov2-with-registers-large", dinov2),
        ("facebook/dinov3-vitb16-pretrain-lvd1689m", dinov3),
        ("depth-anything/Depth-Anything-V2-Small-hf", depth_anything),
        ("LiheYoung/depth-anything-large-hf", depth_anything),
    ],
)
def test_hub_ids_go_to_the_file_of_their_family(model: str, slot: object) -> None:
    assert [m for m in (depth_anything, dinov2, dinov3) if m.accepts(model)] == [slot]


@pytest.mark.parametrize(
    ("name", "card", "licence"),
    [
        ("depth-anything-v2-large-hf", None, "CC-BY-NC-4.0"),
        ("Depth-Anything-V2-Base-hf", "---\nlicense: cc-by-nc-4.0\ntags: [x]\n---\ntext", "cc-by-nc-4.0"),
        ("mine", "---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("mine", "# No front matter", checkpoints.UNKNOWN_LICENCE),
    ],
)
def test_a_folder_s_licence_is_its_card_s_or_its_name_s(
    tmp_path: Path, name: str, card: str | None, licence: str
) -> None:
    (tmp_path / name).mkdir()
    if card is not None:
        (tmp_path / name / "README.md").write_text(card)
    assert depth_anything.licence(str(tmp_path / name)) == licence


def test_known_hub_ids_have_their_licence_before_anything_is_fetched() -> None:
    assert dinov2.licence("facebook/dinov2-with-registers-base") == "Apache-2.0"
    assert dinov3.licence("facebook/dinov3-vits16-pretrain-lvd1689m").startswith("DINOv3 License")
    with pytest.raises(InputError, match=r"CC-BY-NC-4\.0, which forbids commercial use: add --accept-licence"):
        load_estimator("depth-anything/Depth-Anything-V2-Large-hf")
