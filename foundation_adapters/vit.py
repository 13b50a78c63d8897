"""A frozen vision transformer with heads of this project: distance, relative pose and intrinsics from its tokens.

The set-up of EndoDAC (Cui et al. 2024) in one network: the encoder stays as it was published, adapters go into its
perceptrons, a convolutional neck refines the tokens of four blocks for the distance, and light heads read them. With
GDV-LoRA of rank 4 about 1.6 million numbers learn for ViT-B. Unlike EndoDAC's the neck stands behind the encoder, not
in it, and serves depth alone, so that no module belongs to both tasks and both can learn in one pass of the encoder;
its head is fused by separable convolutions, as no published checkpoint of a bare encoder has a head whose fusion could
stay frozen; and it is told the rays, as the shipped network's is, and tells its own uncertainty.

It answers as `Network` does, so that an Estimator takes either.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_adapters.heads import RAY_CHANNELS, neighbourhood_scores, ray_pyramid
from foundation_adapters.network import Prediction

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LOG_SCALE_LIMIT = 5.0


def stages(blocks: int) -> list[int]:
    """The four blocks (from 1) whose tokens are read: as in Depth Anything for 12 and 24, else evenly spread."""
    return [5, 12, 18, 24] if blocks == 24 else [round(blocks * i / 4) for i in (1, 2, 3, 4)]


class VitNetwork(nn.Module):
    """Encoder, neck and heads. Images are (B, 3, H, W) in [0, 1].

    Attributes:
        encoder: a backbone of `transformers` that gives four maps of tokens, all of one size.
        parts: the modules that serve a task, for an adapter that is for this task.
        heads: those of them that are not published, and must learn with the adapter.
        published: the modules that have weights without an adapter.
    """

    parts: ClassVar = {
        "depth": ("encoder", "neck", "distance"),
        "pose": ("encoder", "pose", "intrinsics"),
    }
    heads: ClassVar = {"depth": ("neck", "distance"), "pose": ("pose", "intrinsics")}
    published: ClassVar = ("encoder.",)

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        channels = int(encoder.config.hidden_size)
        self.patch = int(encoder.config.patch_size)
        self.neck = Neck(channels)
        self.distance = DptHead(channels)
        self.pose = TokenPoseHead(channels)
        self.intrinsics = TokenIntrinsicsHead(channels)

    def forward(self, image: Tensor, rays: Tensor) -> Prediction:
        """Predict; `rays` are unit rays at half the size, (B, 3, H/2, W/2), NaN where the camera has none."""
        levels = self.backbone(image)
        log_distance, log_std = self.full_distance(levels, rays)
        return Prediction(log_distance, log_std, self.intrinsics(levels)[:, :2], self.pose.describe(levels))

    def backbone(self, image: Tensor) -> list[Tensor]:
        """Four maps of tokens, (B, C, h, w) each, from the shallowest; h and w are the image's size by the patch's."""
        h, w = (max(side // self.patch, 1) * self.patch for side in image.shape[-2:])
        mean, std = (torch.tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (_MEAN, _STD))
        pixels = F.interpolate(image, (h, w), mode="bicubic", align_corners=False, antialias=True)
        return list(self.encoder(pixel_values=((pixels - mean) / std).contiguous()).feature_maps)

    def scales(self, levels: list[Tensor], rays: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Log distance and log standard deviation, (B, h, w) each, at 4, 2, 1 and half the tokens' resolution."""
        return [(out[:, 0], out[:, 1]) for out in self.distance(self.neck(levels), rays)]

    def full_distance(self, levels: list[Tensor], rays: Tensor) -> tuple[Tensor, Tensor]:
        """Log distance and log standard deviation, (B, H, W) each, from the tokens."""
        size = (2 * rays.shape[-2], 2 * rays.shape[-1])
        return F.interpolate(self.distance(self.neck(levels), rays)[0], size, mode="bilinear").unbind(1)

    def focal(self, image: Tensor) -> Tensor:
        """(B, 2): fx / width and fy / height, without anything but the image."""
        return self.intrinsics(self.backbone(image))[:, :2]

    def relative_pose(self, current: Tensor, previous: Tensor, rays: Tensor, log_distance: Tensor) -> Tensor:
        """(B, 6): axis-angle and translation (in median distances of the current frame) of previous_from_cam.

        Args:
            current, previous: the frames' `description`.
            rays: (B, 3, H/2, W/2) of the current frame.
            log_distance: (B, H, W) of the current frame.
        """
        return self.pose(current, previous, rays, log_distance)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Neck(nn.Module):
    """A residual bottleneck on each map of tokens (ViTDet, Li et al. 2022); it changes nothing at the start."""

    def __init__(self, channels: int, levels: int = 4, reduction: int = 8):
        super().__init__()
        inner = channels // reduction
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, inner, 1, bias=False),
                ChannelNorm(inner),
                nn.GELU(),
                nn.Conv2d(inner, inner, 3, padding=1, bias=False),
                ChannelNorm(inner),
                nn.GELU(),
                nn.Conv2d(inner, channels, 1, bias=False),
                ChannelNorm(channels),
            )
            for _ in range(levels)
        )
        for block in self.blocks:
            nn.init.zeros_(block[-1].weight)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [x + block(x) for x, block in zip(maps, self.blocks, strict=True)]


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3 x 3 and pointwise convolution; a norm without memory of the images that it was trained on; ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(),
    )


class DptHead(nn.Module):
    """Fuses four maps of tokens from coarse to fine, each at its own scale (DPT, Ranftl et al. 2021), and tells log
    distance along the ray and the log of its standard deviation at each."""

    def __init__(self, channels: int, width: int = 48, start_mm: float = 40.0):
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(channels + RAY_CHANNELS, width, 1) for _ in range(4))
        self.fuse = nn.ModuleList(nn.Sequential(separable(width, width), separable(width, width)) for _ in range(4))
        self.outs = nn.ModuleList(nn.Conv2d(width, 2, 3, padding=1) for _ in range(4))
        for out in self.outs:
            nn.init.normal_(out.weight, std=1e-2)
            with torch.no_grad():
                out.bias.copy_(torch.tensor([math.log(start_mm), math.log(0.3)]))

    def forward(self, levels: list[Tensor], rays: Tensor) -> list[Tensor]:
        """(B, 2, ., .) float32 at 4, 2, 1 and half the resolution of the tokens.

        Args:
            levels: maps of tokens (B, C, h, w), from the shallowest.
            rays: (B, 3, H/2, W/2) unit rays, NaN where there is none.
        """
        told = ray_pyramid(rays, 1)[0]
        h, w = levels[0].shape[-2:]
        x, found = None, []
        for level, scale in ((3, 0.5), (2, 1), (1, 2), (0, 4)):
            # Projected at the tokens' resolution, then resized: the pointwise layer costs the same at every scale.
            here = F.interpolate(told, (h, w), mode="area").to(levels[level].dtype)
            size = (max(int(h * scale), 1), max(int(w * scale), 1))
            lateral = _resized(self.project[level](torch.cat([levels[level], here], 1)), size)
            x = lateral if x is None else lateral + _resized(x, size)
            x = x + self.fuse[level](x)
            with torch.autocast(x.device.type, enabled=False):
                out = self.outs[level](x.float())
            found.append(torch.cat([out[:, :1], out[:, 1:].clamp(-_LOG_SCALE_LIMIT, 1.0)], 1))
        return found[::-1]


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[-2:]) == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


class TokenPoseHead(nn.Module):
    """Relative pose from where the tokens of one frame match those of the other, as the shipped network's `PoseHead`,
    in a size that fits beside adapters."""

    def __init__(self, channels: int, radius: int = 3, described: int = 48, width: int = 64):
        super().__init__()
        self.radius = radius
        self.project = nn.Conv2d(channels, described, 1)
        scores = (2 * radius + 1) ** 2
        self.mix = nn.Sequential(
            nn.Conv2d(scores + described + RAY_CHANNELS + 1, width, 1, bias=False), nn.GroupNorm(8, width), nn.ReLU()
        )
        self.layers = nn.Sequential(separable(width, width), separable(width, 96, 2))
        self.out = nn.Sequential(nn.Linear(96 * 6, 48), nn.ReLU(), nn.Linear(48, 6))
        nn.init.zeros_(self.out[2].bias)
        nn.init.normal_(self.out[2].weight, std=1e-2)

    def describe(self, levels: list[Tensor]) -> Tensor:
        """What is kept of a frame to match it with the next: (B, 48, h, w). Deep maps match best, but the deepest is
        the least local."""
        return self.project(levels[2])

    def forward(self, current: Tensor, previous: Tensor, rays: Tensor, log_distance: Tensor) -> Tensor:
        """Returns (B, 6) float32: axis-angle and translation of previous_from_cam; see `VitNetwork.relative_pose`."""
        size = current.shape[-2:]
        coarse = F.interpolate(log_distance.detach()[:, None], size, mode="area")
        coarse = coarse - coarse.flatten(1).median(1).values[:, None, None, None]
        told = F.interpolate(ray_pyramid(rays, 1)[0], size, mode="area")
        scores = neighbourhood_scores(current, previous, self.radius)
        x = torch.cat([scores, current, told.to(current.dtype), coarse.to(current.dtype)], 1)
        return self.out(F.adaptive_avg_pool2d(self.layers(self.mix(x)), (2, 3)).flatten(1)).float() * 0.1


class TokenIntrinsicsHead(nn.Module):
    """Focal lengths and principal point of an image, as shares of its size, from its tokens alone.

    A clip has one camera: take the median over its frames, as `Estimator.estimate_camera` does.
    """

    def __init__(self, channels: int, width: int = 32):
        super().__init__()
        self.hidden = nn.Linear(channels, width)
        self.out = nn.Linear(width, 4)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.out.weight, std=1e-2)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Returns (B, 4) float32: fx / width, fy / height, cx / width, cy / height."""
        x = self.out(F.relu(self.hidden(levels[3].mean((2, 3))))).float()
        return torch.cat([F.softplus(x[:, :2]) + 0.15, 0.5 + x[:, 2:]], 1)
