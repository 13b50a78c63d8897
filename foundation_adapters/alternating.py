"""Parts of networks that see several views at once: transformers whose blocks look within a view and across all views
in turn (VGGT, Wang et al., CVPR 2025; Depth Anything 3, Lin et al. 2025), and the DPT head that reads their tokens.

Modules bear the names that the published tensors have. Tokens are (V, P, C): V views, P tokens each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Turn = tuple[Tensor, Tensor]
"""Cosines and sines (P, D) by which the queries and keys of P tokens are turned."""

_ROPE_BASE = 100.0
_UV_BASE, _UV_SHARE = 100.0, 0.1
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(image: Tensor) -> Tensor:
    """(V, 3, H, W) in [0, 1], less ImageNet's mean, by its deviation."""
    mean, std = (torch.tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (_MEAN, _STD))
    return (image - mean) / std


def turns(
    rows: int, columns: int, special: int, channels: int, apart: bool = True, device: torch.device | None = None
) -> Turn:
    """Rotary embedding in 2D (RoPE, Su et al. 2021) of `special` tokens, at 0, and of a grid of patches, from (1, 1)
    on; where they are not `apart`, all patches are at (1, 1).

    Args:
        channels: of one attention head; the first half tells the row, the second the column.
    """
    half = channels // 2
    rate = _ROPE_BASE ** -(torch.arange(0, half, 2) / half)
    y, x = torch.meshgrid(torch.arange(rows) + 1.0, torch.arange(columns) + 1.0, indexing="ij")
    place = torch.stack([y.flatten(), x.flatten()], 1)
    place = torch.cat([torch.zeros(special, 2), place if apart else torch.ones_like(place)])
    angle = place[:, :, None] * rate  # (P, 2, half / 2)
    angle = torch.cat([angle, angle], -1).flatten(1)
    return angle.cos().to(device), angle.sin().to(device)


def turned(x: Tensor, turn: Turn) -> Tensor:
    """Queries or keys (..., P, D), each half of whose channels is turned by its own angle."""
    a, b = x.unflatten(-1, (2, 2, -1)).unbind(-2)
    return x * turn[0] + torch.stack([-b, a], -2).flatten(-3) * turn[1]


class Attention(nn.Module):
    """Multi-head attention of all tokens of a row."""

    def __init__(self, channels: int, heads: int, norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.q_norm = nn.LayerNorm(channels // heads) if norm else nn.Identity()
        self.k_norm = nn.LayerNorm(channels // heads) if norm else nn.Identity()
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, turn: Turn | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """Two linear layers and a GELU between them."""

    def __init__(self, channels: int, hidden: int, outputs: int | None = None):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, outputs or channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GatedPerceptron(nn.Module):
    """SwiGLU (Shazeer 2020), as in DINOv2's giant."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.w12, self.w3 = nn.Linear(channels, 2 * hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A factor a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """A transformer block: attention, then a perceptron, each with its norm before and its scale behind it."""

    def __init__(self, channels: int, heads: int, norm: bool = False, eps: float = 1e-6, gated: bool = False):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps), nn.LayerNorm(channels, eps)
        self.attn = Attention(channels, heads, norm)
        self.ls1, self.ls2 = LayerScale(channels), LayerScale(channels)
        self.mlp = (GatedPerceptron if gated else Perceptron)(channels, 4 * channels)

    def forward(self, x: Tensor, turn: Turn | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), turn))
        return x + self.ls2(self.mlp(self.norm2(x)))


def across(block: nn.Module, x: Tensor, turn: Turn | None) -> Tensor:
    """A block over the tokens of all views together; `turn` is that of one view."""
    views = len(x)
    wide = None if turn is None else (turn[0].repeat(views, 1), turn[1].repeat(views, 1))
    return block(x.reshape(1, -1, x.shape[-1]), wide).reshape(x.shape)


class PatchEmbedding(nn.Module):
    """Patches to tokens."""

    def __init__(self, channels: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


def placed(embedding: Tensor, rows: int, columns: int, offset: float) -> Tensor:
    """DINOv2's learned embedding (1, 1 + N, C) of the class token and a square of places, for `rows` x `columns`.

    Args:
        offset: 0.1 as DINOv2 was trained (bicubic, by a factor that is a little too large), 0 for its version with
            registers (bicubic against aliasing).
    """
    side = math.isqrt(embedding.shape[1] - 1)
    if (rows, columns) == (side, side):
        return embedding
    grid = embedding[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if offset:
        factor = ((rows + offset) / side, (columns + offset) / side)
        grid = F.interpolate(grid, scale_factor=factor, mode="bicubic")
    else:
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
    return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], 1)


# -- the DPT head -----------------------------------------------------------------------------------------------------


class ResidualConvolutions(nn.Module):
    """Two convolutions beside a skip connection.

    In VGGT the first activation works in place, so that the skip carries what it has left: `skip_positive`.
    """

    def __init__(self, width: int, skip_positive: bool):
        super().__init__()
        self.skip_positive = skip_positive
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        positive = F.relu(x)
        return self.conv2(F.relu(self.conv1(positive))) + (positive if self.skip_positive else x)


class Fusion(nn.Module):
    """One step from coarse to fine."""

    def __init__(self, width: int, skip_positive: bool, coarsest: bool = False):
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        if not coarsest:
            self.resConfUnit1 = ResidualConvolutions(width, skip_positive)
        self.resConfUnit2 = ResidualConvolutions(width, skip_positive)

    def forward(self, x: Tensor, lateral: Tensor | None, size: tuple[int, int]) -> Tensor:
        if lateral is not None:
            x = x + self.resConfUnit1(lateral)
        x = F.interpolate(self.resConfUnit2(x), size, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class DptHead(nn.Module):
    """Depth and its confidence from four maps of tokens (DPT, Ranftl et al. 2021).

    Args:
        channels: of a token. levels: channels of the four maps once projected. width: of the fusion.
        skip_positive: see `ResidualConvolutions`.
    """

    def __init__(self, channels: int, levels: Sequence[int], width: int, patch: int, skip_positive: bool):
        super().__init__()
        a, b, c, d = levels
        self.patch = patch
        self.norm = nn.LayerNorm(channels)
        self.projects = nn.ModuleList(nn.Conv2d(channels, level, 1) for level in levels)
        self.resize_layers = nn.ModuleList(
            [nn.ConvTranspose2d(a, a, 4, 4), nn.ConvTranspose2d(b, b, 2, 2), nn.Identity(), nn.Conv2d(d, d, 3, 2, 1)]
        )
        self.scratch = nn.Module()
        for number, level in enumerate((a, b, c, d), 1):
            self.scratch.add_module(f"layer{number}_rn", nn.Conv2d(level, width, 3, padding=1, bias=False))
            self.scratch.add_module(f"refinenet{number}", Fusion(width, skip_positive, coarsest=number == 4))
        self.scratch.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(width // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 1)
        )

    def forward(self, levels: Sequence[Tensor], rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Depth and confidence (1 and more), (V, H, W) each, from four maps of tokens (V, rows * columns, C)."""
        # View after view: the maps at full size would fill the memory.
        found = [self._view([level[v : v + 1] for level in levels], rows, columns) for v in range(len(levels[0]))]
        out = torch.cat(found)
        return out[:, 0].exp(), 1 + out[:, 1].exp()

    def _view(self, levels: Sequence[Tensor], rows: int, columns: int) -> Tensor:
        s, maps = self.scratch, []
        for level, project, resize in zip(levels, self.projects, self.resize_layers, strict=True):
            x = self.norm(level).transpose(1, 2).unflatten(2, (rows, columns))
            maps.append(resize(_with_place(project(x), columns / rows)))
        maps = [getattr(s, f"layer{n}_rn")(x) for n, x in enumerate(maps, 1)]
        sizes = [x.shape[2:] for x in maps]
        x = s.refinenet4(maps[3], None, sizes[2])
        x = s.refinenet3(x, maps[2], sizes[1])
        x = s.refinenet2(x, maps[1], sizes[0])
        x = s.output_conv1(s.refinenet1(x, maps[0], (2 * sizes[0][0], 2 * sizes[0][1])))
        size = (rows * self.patch, columns * self.patch)
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        return s.output_conv2(_with_place(x, columns / rows))


def _with_place(x: Tensor, aspect: float) -> Tensor:
    """A map (1, C, h, w) plus a tenth of sines and cosines of where each pixel lies; the image's diagonal is 2 long."""
    c, h, w = x.shape[1:]
    diagonal = math.hypot(aspect, 1)
    u, v = (
        torch.linspace(-1, 1, n, dtype=torch.float64) * span / diagonal * (n - 1) / n
        for n, span in ((w, aspect), (h, 1.0))
    )
    rate = _UV_BASE ** -(torch.arange(c // 4, dtype=torch.float64) / (c / 4))
    along_u, along_v = (torch.cat([(p[:, None] * rate).sin(), (p[:, None] * rate).cos()], 1) for p in (u, v))
    wide = torch.cat([along_u.expand(h, -1, -1), along_v[:, None].expand(-1, w, -1)], -1)
    return x + _UV_SHARE * wide.permute(2, 0, 1).to(x)


def rotations(quaternion: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4), scalar last, of any length but 0."""
    x, y, z, w = (quaternion / quaternion.norm(dim=-1, keepdim=True).clamp_min(1e-12)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def transforms(translation: Tensor, quaternion: Tensor) -> Tensor:
    """(V, 4, 4) float64 from translations (V, 3) and quaternions (V, 4)."""
    found = torch.eye(4, dtype=torch.float64, device=translation.device).repeat(len(translation), 1, 1)
    found[:, :3, :3], found[:, :3, 3] = rotations(quaternion.double()), translation.double()
    return found
