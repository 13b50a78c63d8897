"""Depth Anything 3 (Lin et al. 2025), any-view series: what tells depth and cameras, in the layout of its tensors.

A DINOv2 whose later blocks look within a view and across all views in turn, a DPT head, and a light decoder of cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_adapters.alternating import (
    Block,
    DptHead,
    PatchEmbedding,
    across,
    normalised,
    placed,
    transforms,
    turns,
)
from foundation_adapters.checkpoints import Published
from foundation_adapters.multi_view import Views
from video_io.errors import InputError

_HEAD = 64  # channels of an attention head
_LONG_SIDE = 504
# With fewer views the first is the world's; of more, the one that is most like all others in three ways.
_CHOICE = 3


@dataclass(frozen=True)
class Sizes:
    """Of a checkpoint.

    Attributes:
        channels: of a token. patch: side of a patch in pixels. side: of the square of places of the embedding, patches.
        blocks: of the transformer. gated: whether its perceptrons are.
        read: the blocks whose tokens the depth head reads.
        between: the first block after which every second one looks across views. turned: the first whose tokens are
            turned by their place. normed: the first that norms queries and keys.
        head: channels of an attention head.
        levels, width: of the head for depth; see `DptHead`.
    """

    channels: int
    patch: int
    side: int
    blocks: int
    gated: bool
    read: tuple[int, ...]
    between: int
    turned: int
    normed: int
    head: int
    levels: tuple[int, ...]
    width: int

    @staticmethod
    def of(found: Published) -> Sizes:
        """As configuration and tensors are.

        Raises:
            InputError: they are of another network.
        """
        config = found.config.get("config", found.config)
        net = config.get("net", {}) if isinstance(config, dict) else {}
        if not {"out_layers", "alt_start", "rope_start", "qknorm_start"} <= set(net) or "cam_dec" not in config:
            raise InputError(
                f"{found.where} is no any-view network of Depth Anything 3 (its config.json has no 'net' with "
                "'alt_start', or no 'cam_dec'): take DA3-SMALL, -BASE, -LARGE or -GIANT"
            )
        if not net.get("cat_token", True):
            raise InputError(f"{found.where} has cat_token false, which no published network of this family has")
        encoder = "backbone.pretrained"
        channels, _, patch, _ = found.shape(f"{encoder}.patch_embed.proj.weight")
        return Sizes(
            channels, patch, round((found.shape(f"{encoder}.pos_embed")[1] - 1) ** 0.5),
            found.count(f"{encoder}.blocks"), f"{encoder}.blocks.0.mlp.w12.weight" in found.shapes,
            tuple(net["out_layers"]), net["alt_start"], net["rope_start"], net["qknorm_start"],
            found.shape(f"{encoder}.blocks.{net['qknorm_start']}.attn.q_norm.weight")[0],
            tuple(found.shape(f"head.projects.{n}.weight")[0] for n in range(4)),
            found.shape("head.scratch.layer1_rn.weight")[0],
        )  # fmt: skip


class DepthAnything3(nn.Module):
    """Images (V, 3, H, W) in [0, 1], sides multiples of `patch`, to `Views`."""

    long_side = _LONG_SIDE

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.patch = sizes.patch
        self.backbone = nn.Module()
        self.backbone.pretrained = _Encoder(sizes)
        self.head = DptHead(2 * sizes.channels, sizes.levels, sizes.width, sizes.patch, skip_positive=False)
        self.cam_dec = _CameraDecoder(2 * sizes.channels)

    def forward(self, image: Tensor) -> Views:
        h, w = image.shape[-2:]
        levels, cameras = self.backbone.pretrained(image)
        depth, confidence = self.head(levels, h // self.patch, w // self.patch)
        move, turn, field = self.cam_dec(cameras)
        focal = 0.5 / torch.tan(field[:, [1, 0]] / 2).clamp_min(1e-6)
        return Views(depth, confidence, torch.linalg.inv(transforms(move, turn)), focal)


class _Encoder(nn.Module):
    """DINOv2 with a token for the camera."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        c, self.sizes = sizes.channels, sizes
        self.patch_embed = PatchEmbedding(c, sizes.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c))
        # The first of two is for the view that is the world's.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, c))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + sizes.side**2, c))
        self.blocks = nn.ModuleList(
            Block(c, max(c // (sizes.head or _HEAD), 1), n >= sizes.normed, gated=sizes.gated)
            for n in range(sizes.blocks)
        )
        self.norm = nn.LayerNorm(c)

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four maps of patch tokens (V, P, 2C), and the cameras' tokens (V, 2C)."""
        s, views = self.sizes, len(image)
        rows, columns = (side // s.patch for side in image.shape[-2:])
        x = torch.cat([self.cls_token.expand(views, -1, -1), self.patch_embed(normalised(image))], 1)
        x = x + placed(self.pos_embed, rows, columns, 0.1)
        within = turns(rows, columns, 1, s.head, device=x.device)
        between = turns(rows, columns, 1, s.head, False, x.device)
        order, own, both, levels = torch.arange(views), x, x, []
        for n, block in enumerate(self.blocks):
            if n == s.between - 1 and views >= _CHOICE:
                order = _reference_first(x[:, 0])
                x, own = x[order], own[order]
            if n == s.between:
                x = torch.cat([self.camera_token[0, [0] + [1] * (views - 1)][:, None], x[:, 1:]], 1)
            turn = n >= s.turned
            if n >= s.between and n % 2 == 1:
                x = across(block, x, between if turn else None)
            else:
                own = x = block(x, within if turn else None)
            if n in s.read:
                both = torch.cat([own, x], -1)[order.argsort()]
                levels.append(torch.cat([both[:, 1:, : s.channels], self.norm(both[:, 1:, s.channels :])], -1))
        return levels, both[:, 0]


def _reference_first(tokens: Tensor) -> Tensor:
    """The order of views in which the one comes first that is halfway between the least and the most, in how like the
    others its class token (V, C) is, in the token's length, and in its spread."""
    unit = F.normalize(tokens, dim=-1)
    alike = ((unit @ unit.T).sum(1) - 1) / (len(tokens) - 1)
    off = torch.zeros(len(tokens), device=tokens.device)
    for measure in (alike, tokens.norm(dim=-1), unit.var(dim=-1)):
        low, high = measure.min(), measure.max()
        off = off + ((measure - low) / (high - low + 1e-8) - 0.5).abs()
    first = int(off.argmin())
    return torch.tensor([first, *(n for n in range(len(tokens)) if n != first)])


class _CameraDecoder(nn.Module):
    """Cameras from their tokens: translation and quaternion (scalar last) of world_from_cam, field of view (high,
    wide)."""

    def __init__(self, channels: int):
        super().__init__()
        c = channels
        self.backbone = nn.Sequential(nn.Linear(c, c), nn.ReLU(), nn.Linear(c, c), nn.ReLU())
        self.fc_t, self.fc_qvec = nn.Linear(c, 3), nn.Linear(c, 4)
        self.fc_fov = nn.Sequential(nn.Linear(c, 2), nn.ReLU())

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.backbone(tokens)
        return self.fc_t(x), self.fc_qvec(x), self.fc_fov(x)
