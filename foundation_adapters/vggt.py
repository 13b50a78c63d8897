"""VGGT (Wang et al., CVPR 2025), the parts of it that tell depth and cameras, in the layout of its published tensors.

DINOv2 with registers makes tokens of each view; 24 pairs of blocks look within a view and across all views in turn; a
head refines the cameras from their own tokens, another reads depth and its confidence from four maps of tokens.
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
    Perceptron,
    across,
    normalised,
    placed,
    transforms,
    turns,
)
from foundation_adapters.checkpoints import Published
from foundation_adapters.multi_view import Views

_ENCODER_HEAD, _CAMERA_HEAD = 64, 128  # channels of an attention head
_ITERATIONS = 4
_POSE = 9  # translation, quaternion (scalar last), field of view (high, wide)
# Of ordinary layer norms; DINOv2's blocks have their own.
_EPS = 1e-5


@dataclass(frozen=True)
class Sizes:
    """Of a checkpoint.

    Attributes:
        channels: of a token. patch: side of a patch in pixels. side: of the square of places of the embedding, patches.
        encoder_blocks, blocks: of DINOv2, and pairs of alternating ones. registers: tokens.
        head: channels of an attention head of the alternating blocks.
        camera_blocks: of the head for cameras. levels, width: of the head for depth; see `DptHead`.
        long_side: of the images that it was trained on, pixels.
    """

    channels: int = 1024
    patch: int = 14
    side: int = 37
    encoder_blocks: int = 24
    blocks: int = 24
    registers: int = 4
    head: int = 64
    camera_blocks: int = 4
    levels: tuple[int, ...] = (256, 512, 1024, 1024)
    width: int = 256
    long_side: int = 518

    @staticmethod
    def of(found: Published) -> Sizes:
        """As the tensors are.

        Raises:
            InputError: they are not VGGT's.
        """
        channels, _, patch, _ = found.shape("aggregator.patch_embed.patch_embed.proj.weight")
        return Sizes(
            channels, patch, round((found.shape("aggregator.patch_embed.pos_embed")[1] - 1) ** 0.5),
            found.count("aggregator.patch_embed.blocks"), found.count("aggregator.frame_blocks"),
            found.shape("aggregator.register_token")[2],
            found.shape("aggregator.frame_blocks.0.attn.q_norm.weight")[0], found.count("camera_head.trunk"),
            tuple(found.shape(f"depth_head.projects.{n}.weight")[0] for n in range(4)),
            found.shape("depth_head.scratch.layer1_rn.weight")[0], int(found.config.get("img_size", 518)),
        )  # fmt: skip

    @property
    def read(self) -> list[int]:
        """The pairs of blocks whose tokens the depth head reads."""
        return [4, 11, 17, 23] if self.blocks == 24 else [round(self.blocks * n / 4) - 1 for n in (1, 2, 3, 4)]


class Vggt(nn.Module):
    """Images (V, 3, H, W) in [0, 1], sides multiples of `patch`, to `Views`."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.patch, self.long_side = sizes.patch, sizes.long_side
        self.aggregator = _Aggregator(sizes)
        self.camera_head = _CameraHead(2 * sizes.channels, sizes.camera_blocks)
        self.depth_head = DptHead(2 * sizes.channels, sizes.levels, sizes.width, sizes.patch, skip_positive=True)

    def forward(self, image: Tensor) -> Views:
        h, w = image.shape[-2:]
        levels, cameras = self.aggregator(image)
        pose = self.camera_head(cameras)
        depth, confidence = self.depth_head(levels, h // self.patch, w // self.patch)
        cam_from_world = transforms(pose[:, :3], pose[:, 3:7])
        field = F.relu(pose[:, [8, 7]])
        return Views(depth, confidence, cam_from_world, 0.5 / torch.tan(field / 2).clamp_min(1e-6))


class _Encoder(nn.Module):
    """DINOv2 with registers."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        c, self.registers = sizes.channels, sizes.registers
        self.patch_embed = PatchEmbedding(c, sizes.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + sizes.side**2, c))
        self.register_tokens = nn.Parameter(torch.zeros(1, sizes.registers, c))
        self.blocks = nn.ModuleList(Block(c, max(c // _ENCODER_HEAD, 1)) for _ in range(sizes.encoder_blocks))
        self.norm = nn.LayerNorm(c, 1e-6)

    def forward(self, image: Tensor, rows: int, columns: int) -> Tensor:
        views = len(image)
        x = torch.cat([self.cls_token.expand(views, -1, -1), self.patch_embed(image)], 1)
        x = x + placed(self.pos_embed, rows, columns, 0.0)
        x = torch.cat([x[:, :1], self.register_tokens.expand(views, -1, -1), x[:, 1:]], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1 + self.registers :]


class _Aggregator(nn.Module):
    """Tokens of all views that know of each other."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        c = sizes.channels
        self.patch, self.head, self.read, self.special = sizes.patch, sizes.head, sizes.read, 1 + sizes.registers
        self.patch_embed = _Encoder(sizes)
        # The first of two is for the first view, the world's own.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, c))
        self.register_token = nn.Parameter(torch.zeros(1, 2, sizes.registers, c))
        self.frame_blocks = nn.ModuleList(Block(c, c // sizes.head, True, _EPS) for _ in range(sizes.blocks))
        self.global_blocks = nn.ModuleList(Block(c, c // sizes.head, True, _EPS) for _ in range(sizes.blocks))

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four maps of patch tokens (V, P, 2C), and the cameras' tokens (V, 2C)."""
        rows, columns = (side // self.patch for side in image.shape[-2:])
        which = [0] + [1] * (len(image) - 1)
        x = self.patch_embed(normalised(image), rows, columns)
        x = torch.cat([self.camera_token[0, which], self.register_token[0, which], x], 1)
        turn = turns(rows, columns, self.special, self.head, device=x.device)
        levels, both = [], x
        for number, (within, between) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            own = within(x, turn)
            x = across(between, own, turn)
            if number in self.read:
                both = torch.cat([own, x], -1)
                levels.append(both[:, self.special :])
        return levels, both[:, 0]


class _CameraHead(nn.Module):
    """Poses, refined four times from what they were."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        c, heads = channels, max(channels // _CAMERA_HEAD, 1)
        self.token_norm, self.trunk_norm = nn.LayerNorm(c), nn.LayerNorm(c)
        self.trunk = nn.ModuleList(Block(c, heads, eps=_EPS) for _ in range(blocks))
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, _POSE))
        self.embed_pose = nn.Linear(_POSE, c)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(c, 3 * c))
        self.pose_branch = Perceptron(c, c // 2, _POSE)

    def forward(self, tokens: Tensor) -> Tensor:
        """(V, 9) from (V, C)."""
        x = self.token_norm(tokens)[None]
        plain = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        pose = torch.zeros(1, x.shape[1], _POSE, device=x.device)
        for number in range(_ITERATIONS):
            now = self.embed_pose(pose if number else self.empty_pose_tokens.expand(-1, x.shape[1], -1))
            shift, scale, gate = self.poseLN_modulation(now).chunk(3, -1)
            y = x + gate * (plain * (1 + scale) + shift)
            for block in self.trunk:
                y = block(y)
            pose = pose + self.pose_branch(self.trunk_norm(y))
        return pose[0]
