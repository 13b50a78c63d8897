"""One network: a backbone that sees pixels, and heads for distance, intrinsics and relative pose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from foundation_adapters.heads import DistanceHead, IntrinsicsHead, PoseHead, ray_pyramid
from foundation_adapters.lite0 import Lite0, SameConv
from video_io.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """What the network says of B frames; tensors, float32.

    Attributes:
        log_distance: (B, H, W), log of the distance along the unit ray, up to scale.
        log_std: (B, H, W), log of the standard deviation of `log_distance` about its aligned truth.
        focal: (B, 2), fx / width and fy / height.
        description: (B, C, H/8, W/8), what `Network.relative_pose` needs of a frame.
    """

    log_distance: Tensor
    log_std: Tensor
    focal: Tensor
    description: Tensor


class Network(nn.Module):
    """Backbone and heads. Images are (B, 3, H, W) in [0, 1], H and W multiples of 32.

    Attributes:
        parts: the modules that serve a task, for an adapter that is for this task.
    """

    parts: ClassVar = {"depth": ("backbone", "distance"), "pose": ("backbone", "intrinsics", "pose")}

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Lite0()
        self.distance = DistanceHead(self.backbone.channels)
        self.intrinsics = IntrinsicsHead(self.backbone.channels)
        self.pose = PoseHead(self.backbone.channels)

    def forward(self, image: Tensor, rays: Tensor) -> Prediction:
        """Predict; `rays` are unit rays at half the size, (B, 3, H/2, W/2), NaN where the camera has none."""
        levels = self.backbone(image)
        log_distance, log_std = self.full_distance(levels, rays)
        return Prediction(log_distance, log_std, self.intrinsics(levels), self.pose.describe(levels))

    def full_distance(self, levels: list[Tensor], rays: Tensor) -> tuple[Tensor, Tensor]:
        """Log distance and log standard deviation, (B, H, W) each, from the backbone's levels."""
        return self.read(self.distance.features(levels, ray_pyramid(rays, 5)))

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same from `DistanceHead.features`."""
        half = torch.stack(self.distance.read(features), 1)
        return F.interpolate(half, scale_factor=2, mode="bilinear").unbind(1)

    def focal(self, image: Tensor) -> Tensor:
        """(B, 2): fx / width and fy / height, without anything but the image."""
        return self.intrinsics(self.backbone(image))

    def relative_pose(self, current: Tensor, previous: Tensor, rays: Tensor, log_distance: Tensor) -> Tensor:
        """(B, 6): axis-angle and translation (in median distances of the current frame) of previous_from_cam.

        Args:
            current, previous: the frames' `description`.
            rays: (B, 3, H/2, W/2) of the current frame.
            log_distance: (B, H, W) of the current frame.
        """
        return self.pose(current, previous, ray_pyramid(rays, 3), F.avg_pool2d(log_distance[:, None], 2)[:, 0])


def fused(network: nn.Module) -> nn.Module:
    """The network for inference, changed in place: batch norms folded into convolutions, channels last, frozen."""
    network.eval().requires_grad_(False)
    _fold(network)
    for module in network.modules():
        if isinstance(module, SameConv):
            module.freeze_padding()
    return network.to(memory_format=torch.channels_last).requires_grad_(False)


def _fold(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            kept: list[nn.Module] = []
            for layer in child:
                if isinstance(layer, nn.BatchNorm2d):
                    kept[-1] = fuse_conv_bn_eval(kept[-1], layer)
                else:
                    kept.append(layer)
            if len(kept) != len(child):
                child = nn.Sequential(*kept)
                setattr(module, name, child)
        _fold(child)


def save_weights(network: nn.Module, path: Path, notes: dict[str, str]) -> None:
    """Write the weights in half precision; `notes` (licence, source, steps) go into the file's header."""
    state = {
        k: v.detach().to(torch.float16).contiguous() for k, v in network.state_dict().items() if "num_batches" not in k
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), metadata={"notes": json.dumps(notes)})
    path.chmod(0o644)


def load_weights(network: nn.Module, path: Path) -> dict[str, str]:
    """Load a file of `save_weights` into the network, wholly or not at all; returns its notes.

    Raises:
        InputError: no such file, or its tensors are not this network's.
    """
    if not path.is_file():
        raise InputError(
            f"no weights at {path}: expected a .safetensors file; reinstall or train with tools/train_default.py"
        )
    found = {k: v.float() for k, v in load_file(str(path)).items()}
    own = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    missing, foreign = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & found.keys() if own[k].shape != found[k].shape)
    if missing or foreign or shapes:
        raise InputError(
            f"{path} is not for this network ({len(missing)} missing, {len(foreign)} foreign, {len(shapes)} of another "
            f"shape, first: {(missing + foreign + shapes)[0]}): use the weights of this version"
        )
    network.load_state_dict(found, strict=False)
    with safe_open(str(path), "pt") as file:
        return json.loads((file.metadata() or {}).get("notes", "{}"))
