"""The tensors of published networks that see several views at once, by name and shape, and small random checkpoints in
this layout. Listed from the published checkpoints, not from this project's modules."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _conv(name: str, inputs: int, outputs: int, kernel: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _block(name: str, c: int, head: int | None = None) -> Shapes:
    norms = _norm(f"{name}.attn.q_norm", head) | _norm(f"{name}.attn.k_norm", head) if head else {}
    return {
        **_norm(f"{name}.norm1", c), **_linear(f"{name}.attn.qkv", c, 3 * c), **norms,
        **_linear(f"{name}.attn.proj", c, c), f"{name}.ls1.gamma": (c,), **_norm(f"{name}.norm2", c),
        **_linear(f"{name}.mlp.fc1", c, 4 * c), **_linear(f"{name}.mlp.fc2", 4 * c, c), f"{name}.ls2.gamma": (c,),
    }  # fmt: skip


def _refinenet(name: str, width: int, units: tuple[int, ...]) -> Shapes:
    found = _conv(f"{name}.out_conv", width, width, 1)
    for unit in units:
        for layer in (1, 2):
            found |= _conv(f"{name}.resConfUnit{unit}.conv{layer}", width, width, 3)
    return found


def _dpt(name: str, c: int, levels: tuple[int, ...], width: int, outputs: int) -> Shapes:
    s = f"{name}.scratch"
    found = _norm(f"{name}.norm", c)
    for n, level in enumerate(levels):
        found |= _conv(f"{name}.projects.{n}", c, level, 1)
        found |= _conv(f"{s}.layer{n + 1}_rn", level, width, 3, bias=False)
        found |= _refinenet(f"{s}.refinenet{n + 1}", width, (2,) if n == 3 else (1, 2))
    for n, kernel in ((0, 4), (1, 2), (3, 3)):
        found |= _conv(f"{name}.resize_layers.{n}", levels[n], levels[n], kernel)
    found |= _conv(f"{s}.output_conv1", width, width // 2, 3)
    return found | _conv(f"{s}.output_conv2.0", width // 2, 32, 3) | _conv(f"{s}.output_conv2.2", 32, outputs, 1)


def vggt_shapes(
    c: int = 1024, side: int = 37, encoder: int = 24, blocks: int = 24, head: int = 64,
    levels: tuple[int, ...] = (256, 512, 1024, 1024), width: int = 256,
) -> Shapes:  # fmt: skip
    """Of VGGT-1B, as published, but for the heads of tracks, of which there is one tensor."""
    e = "aggregator.patch_embed"
    found: Shapes = {
        "aggregator.camera_token": (1, 2, 1, c), "aggregator.register_token": (1, 2, 4, c),
        f"{e}.cls_token": (1, 1, c), f"{e}.pos_embed": (1, 1 + side**2, c), f"{e}.register_tokens": (1, 4, c),
        f"{e}.mask_token": (1, c),
    }  # fmt: skip
    found |= _conv(f"{e}.patch_embed.proj", 3, c, 14) | _norm(f"{e}.norm", c)
    for n in range(encoder):
        found |= _block(f"{e}.blocks.{n}", c)
    for n in range(blocks):
        found |= _block(f"aggregator.frame_blocks.{n}", c, head) | _block(f"aggregator.global_blocks.{n}", c, head)
    found |= {"camera_head.empty_pose_tokens": (1, 1, 9)}
    for n in range(4):
        found |= _block(f"camera_head.trunk.{n}", 2 * c)
    found |= _norm("camera_head.token_norm", 2 * c) | _norm("camera_head.trunk_norm", 2 * c)
    found |= _linear("camera_head.embed_pose", 9, 2 * c) | _linear("camera_head.poseLN_modulation.1", 2 * c, 6 * c)
    found |= _linear("camera_head.pose_branch.fc1", 2 * c, c) | _linear("camera_head.pose_branch.fc2", c, 9)
    found |= _dpt("depth_head", 2 * c, levels, width, 2) | _dpt("point_head", 2 * c, levels, width, 4)
    return found | _norm("track_head.feature_extractor.norm", 2 * c)


def da3_shapes(
    c: int = 384, side: int = 37, blocks: int = 12, between: int = 4, head: int = 64,
    levels: tuple[int, ...] = (48, 96, 192, 384), width: int = 64,
) -> Shapes:  # fmt: skip
    """Of DA3-SMALL, as published."""
    e = "backbone.pretrained"
    found: Shapes = {f"{e}.cls_token": (1, 1, c), f"{e}.camera_token": (1, 2, c), f"{e}.pos_embed": (1, 1 + side**2, c)}
    found |= _conv(f"{e}.patch_embed.proj", 3, c, 14) | _norm(f"{e}.norm", c)
    for n in range(blocks):
        found |= _block(f"{e}.blocks.{n}", c, head if n >= between else None)
    found |= _dpt("head", 2 * c, levels, width, 2)
    s = "head.scratch"
    for n in range(4):
        found |= _refinenet(f"{s}.refinenet{n + 1}_aux", width, (2,) if n == 3 else (1, 2))
        for layer, (a, b) in enumerate(2 * [(width, width // 2), (width // 2, width)] + [(width, width // 2)]):
            found |= _conv(f"{s}.output_conv1_aux.{n}.{layer}", a, b, 3)
        found |= _conv(f"{s}.output_conv2_aux.{n}.0", width // 2, 32, 3) | _conv(
            f"{s}.output_conv2_aux.{n}.5", 32, 7, 1
        )
    found |= _norm(f"{s}.output_conv2_aux.0.2", 32)  # the levels share it
    for n in range(4):
        found |= _block(f"cam_enc.trunk.{n}", c)
    found |= _norm("cam_enc.token_norm", c) | _norm("cam_enc.trunk_norm", c)
    found |= _linear("cam_enc.pose_branch.fc1", 9, c // 2) | _linear("cam_enc.pose_branch.fc2", c // 2, c)
    for name, outputs in (("backbone.0", 2 * c), ("backbone.2", 2 * c), ("fc_t", 3), ("fc_qvec", 4), ("fc_fov.0", 2)):
        found |= _linear(f"cam_dec.{name}", 2 * c, outputs)
    return {f"model.{name}": shape for name, shape in found.items()}


SMALL_VGGT = {"c": 32, "side": 4, "encoder": 2, "blocks": 4, "head": 8, "levels": (8, 8, 16, 16), "width": 8}
SMALL_DA3 = {"c": 32, "side": 4, "blocks": 8, "between": 4, "head": 8, "levels": (8, 8, 16, 16), "width": 8}


def vggt_config() -> dict:
    return {"embed_dim": 1024, "img_size": 518, "patch_size": 14}


def da3_config(read: tuple[int, ...] = (5, 7, 9, 11), between: int = 4) -> dict:
    """As published with DA3-SMALL."""

    def made(path: str, name: str) -> dict:
        return {"__object__": {"path": f"depth_anything_3.model.{path}", "name": name, "args": "as_params"}}

    net = {"name": "vits", "out_layers": list(read), "alt_start": between, "qknorm_start": between}
    return {
        "model_name": "da3-small",
        "config": {
            **made("da3", "DepthAnything3Net"),
            "net": {**made("dinov2.dinov2", "DinoV2"), **net, "rope_start": between, "cat_token": True},
            "head": {**made("dualdpt", "DualDPT"), "dim_in": 768, "output_dim": 2, "features": 64},
            "cam_enc": {**made("cam_enc", "CameraEnc"), "dim_out": 384},
            "cam_dec": {**made("cam_dec", "CameraDec"), "dim_in": 768},
        },
    }


def write(folder: Path, shapes: Shapes, config: dict, readme: str = "") -> Path:
    """A random checkpoint; the same one each time."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        fan = max(int(torch.tensor(shape[1:]).prod()) if len(shape) > 1 else 1, 1)
        state[name] = torch.randn(shape, generator=generator) / fan**0.5 * (1.0 if len(shape) > 1 else 0.3)
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gamma")):
            state[name] = state[name] + 1
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    if readme:
        (folder / "README.md").write_text(readme)
    return folder


def small_vggt(folder: Path) -> Path:
    return write(folder, vggt_shapes(**SMALL_VGGT), vggt_config() | {"img_size": 112})


def small_da3(folder: Path) -> Path:
    return write(folder, da3_shapes(**SMALL_DA3), da3_config((4, 5, 6, 7)), "---\nlicense: apache-2.0\n---\n")
