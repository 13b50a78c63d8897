"""What is read from a backbone's features: distance with its uncertainty, intrinsics, relative pose.

Only the distance and pose heads are told the rays; the intrinsics head must do without, as it is there to find them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_adapters.lite0 import SameConv

RAY_CHANNELS = 4
_TYPICAL_STEP_RAD = 0.0065
_LOG_SCALE_LIMIT = 5.0


def ray_pyramid(rays: Tensor, levels: int) -> list[Tensor]:
    """Ray features at strides 2, 4, ..., 2^levels from unit rays at stride 2.

    Args:
        rays: (B, 3, H/2, W/2), NaN where the camera has no ray.

    Returns:
        (B, 4, ., .) a level: the mean ray (0 where there is none) and the log of the angle that a pixel spans.
    """
    return known_ray_pyramid(torch.nan_to_num(rays), levels)


def known_ray_pyramid(known: Tensor, levels: int) -> list[Tensor]:
    """The same from rays that are 0 where the camera has none."""
    step = (known[..., 1:] - known[..., :-1]).norm(dim=1, keepdim=True)
    step = F.pad(step, (0, 1, 0, 0), mode="replicate")
    resolution = torch.log(step.clamp(1e-4, 0.1) / _TYPICAL_STEP_RAD)
    pyramid = [torch.cat([known, resolution], 1).contiguous(memory_format=torch.channels_last)]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid


def separable(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Depthwise then pointwise convolution, each normalised; ReLU at the end."""
    return nn.Sequential(
        SameConv(inputs, inputs, kernel, stride, groups=inputs),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class GlobalContext(nn.Module):
    """Transformer blocks over the coarsest level, so that every place knows of every other.

    The ray of a token is its only position: the blocks work for any size of image.
    """

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm_attention(tokens)).reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c))
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        return tokens.transpose(1, 2).reshape(b, c, h, w).contiguous(memory_format=torch.channels_last)


class Fusion(nn.Module):
    """One step up the pyramid: the coarser level, the encoder's features and the rays, added and filtered."""

    def __init__(self, coarse: int, skip: int, width: int, kernel: int, blocks: int):
        super().__init__()
        self.from_coarse = nn.Conv2d(coarse, width, 1, bias=False)
        self.from_skip = nn.Conv2d(skip + RAY_CHANNELS, width, 1)
        self.blocks = nn.ModuleList(separable(width, width, kernel) for _ in range(blocks))

    def forward(self, coarse: Tensor, skip: Tensor, rays: Tensor) -> Tensor:
        lateral = self.from_skip(torch.cat([skip, rays.to(skip.dtype)], 1))
        x = F.relu(lateral + F.interpolate(self.from_coarse(coarse), scale_factor=2, mode="bilinear"))
        for block in self.blocks:
            x = x + block(x)
        return x


class DistanceHead(nn.Module):
    """Log distance along the ray, and the log of its standard deviation, at stride 2."""

    def __init__(
        self, channels: tuple[int, ...], widths: tuple[int, ...] = (48, 64, 96, 128, 192), start_mm: float = 40.0
    ):
        super().__init__()
        self.reduce = nn.Conv2d(channels[4] + RAY_CHANNELS, widths[4], 1)
        self.context = nn.Sequential(GlobalContext(widths[4]), GlobalContext(widths[4]))
        shape = ((3, 5, 2), (2, 5, 2), (1, 3, 2), (0, 3, 1))
        self.fusions = nn.ModuleList(Fusion(widths[i + 1], channels[i], widths[i], k, n) for i, k, n in shape)
        self.out = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.normal_(self.out.weight, std=1e-2)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([math.log(start_mm), math.log(0.3)]))

    def forward(self, levels: list[Tensor], rays: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns log distance and log standard deviation, float32, (B, H/2, W/2) each."""
        return self.read(self.features(levels, rays))

    def features(self, levels: list[Tensor], rays: list[Tensor]) -> Tensor:
        """All but the last layer: (B, 48, H/2, W/2)."""
        x = self.context(self.reduce(torch.cat([levels[4], rays[4].to(levels[4].dtype)], 1)))
        for index, fusion in zip((3, 2, 1, 0), self.fusions, strict=True):
            x = fusion(x, levels[index], rays[index])
        return x

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer."""
        # In single precision: half precision would put the log distance on steps of one and a half per cent.
        with torch.autocast(x.device.type, enabled=False):
            out = self.out(x.float())
        return out[:, 0], out[:, 1].clamp(-_LOG_SCALE_LIMIT, 1.0)


class IntrinsicsHead(nn.Module):
    """Focal lengths as shares of the image's width and height, from the encoder's features alone."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(channels[4], 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        )
        self.hidden = nn.Linear(64 * 20, 128)
        self.out = nn.Linear(128, 2)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Returns (B, 2) float32: fx / width and fy / height; for a fisheye those at the image centre."""
        x = F.adaptive_avg_pool2d(self.reduce(levels[4]), (4, 5)).flatten(1)
        return F.softplus(self.out(F.relu(self.hidden(x))).float()) + 0.15


def neighbourhood_scores(current: Tensor, previous: Tensor, radius: int) -> Tensor:
    """Inner products of each place of `current` with its neighbourhood in `previous`, over the root of their length.

    Args:
        current, previous: (B, C, h, w).

    Returns:
        (B, (2 radius + 1)^2, h, w), row by row of the neighbourhood; 0 where it leaves the image.
    """
    h, w = current.shape[-2:]
    side = 2 * radius + 1
    padded = F.pad(previous, (radius, radius, radius, radius))
    scores = [(current * padded[:, :, y : y + h, x : x + w]).sum(1) for y in range(side) for x in range(side)]
    return torch.stack(scores, 1) * current.shape[1] ** -0.5


class PoseHead(nn.Module):
    """Relative pose of two frames from where the features of one match those of the other.

    The match scores of each place with its neighbourhood in the previous frame (stride 8, `radius` cells) carry the
    motion; the rays and the distance tell what a motion of the image means in space. Translation is in units of the
    median distance of the current frame, so it needs no scale.
    """

    def __init__(self, channels: tuple[int, ...], radius: int = 3):
        super().__init__()
        self.radius = radius
        window = (2 * radius + 1) ** 2
        self.project = nn.Conv2d(channels[2] + channels[1], 48, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(window + 48 + RAY_CHANNELS + 1, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU(inplace=True)
        )
        self.layers = nn.Sequential(
            separable(96, 96, 3), separable(96, 128, 3, 2), separable(128, 128, 3), separable(128, 160, 3, 2)
        )
        self.out = nn.Sequential(nn.Linear(160 * 20, 128), nn.ReLU(inplace=True), nn.Linear(128, 6))
        nn.init.zeros_(self.out[2].bias)
        nn.init.normal_(self.out[2].weight, std=1e-2)

    def describe(self, levels: list[Tensor]) -> Tensor:
        """What is kept of a frame to match it with the next: (B, 48, H/8, W/8)."""
        return self.project(torch.cat([levels[2], F.avg_pool2d(levels[1], 2)], 1))

    def match(self, current: Tensor, previous: Tensor) -> Tensor:
        """Scores of each place of `current` with its neighbourhood in `previous`: (B, window, h, w)."""
        return neighbourhood_scores(current, previous, self.radius)

    def forward(self, current: Tensor, previous: Tensor, rays: list[Tensor], log_distance: Tensor) -> Tensor:
        """Returns (B, 6) float32: axis-angle and translation of previous_from_cam.

        Args:
            current, previous: what `describe` gave for the frames.
            rays: ray pyramid of the current frame.
            log_distance: (B, H/2, W/2) of the current frame, any scale.
        """
        coarse = F.avg_pool2d(log_distance.detach()[:, None], 4)
        coarse = coarse - coarse.flatten(1).median(1).values[:, None, None, None]
        parts = [self.match(current, previous), current, rays[2].to(current.dtype), coarse.to(current.dtype)]
        x = self.layers(self.mix(torch.cat(parts, 1)))
        return self.out(F.adaptive_avg_pool2d(x, (4, 5)).flatten(1)).float() * 0.1
