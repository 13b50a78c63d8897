"""Photometric augmentation of a batch, each image with its own draw; the two frames of a pair share theirs.

What a renderer can't be trusted to vary as reality does: exposure, response, colour, uneven light, highlights, blood,
blur, noise, compression, and the shape of the field of view. And, rarely, what goes wrong in endoscopy: the registry of
`video_io.corruptions`, which the corruption benchmark uses too.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from video_io import corruptions

_LUMA = torch.tensor([0.299, 0.587, 0.114])
_OUTSIDE_WEIGHT = 0.1
# Share of the scenes that something goes wrong in; at the higher severities there may be little left to learn from.
CORRUPTED, CORRUPTED_SEVERITIES = 0.15, (1, 2, 3)
_PAIR_S = 0.1  # between the frames of a pair, about


class Draw:
    """Random numbers a image; the two frames of a pair get the same ones."""

    def __init__(self, generator: torch.Generator, count: int, pairs: int):
        self.generator = generator
        # Image -> scene: 0 0 1 1 2 3 4 for two pairs and three single images.
        index = torch.arange(count)
        self.index = torch.where(index < 2 * pairs, index // 2, index - pairs)
        self.scenes = count - pairs

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(self.scenes, *shape, generator=self.generator))[self.index]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.scenes, *shape, generator=self.generator)[self.index]

    def chosen(self, probability: float) -> Tensor:
        """Indices of the images that an effect falls on."""
        return torch.nonzero((torch.rand(self.scenes, generator=self.generator) < probability)[self.index])[:, 0]


def augment(rgb: Tensor, pairs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns the changed images (B, 3, H, W) in [0, 1] and each pixel's weight (B, H, W), low where it was masked."""
    b, _, h, w = rgb.shape
    draw = Draw(generator, b, pairs)
    x = rgb.clone()
    _add_light(x, draw)
    _response(x, draw)
    _blood(x, draw)
    _highlights(x, draw)
    _blur(x, draw)
    _noise(x, draw)
    x.clamp_(0, 1)
    _corrupt(x, draw)
    _compress(x, draw)
    mask = _field_of_view(b, h, w, draw)
    dark = 0.02 * torch.rand(b, 3, 1, 1, generator=generator)
    x = torch.where(mask[:, None], x, dark).clamp_(0, 1)
    return x, torch.where(mask, 1.0, _OUTSIDE_WEIGHT)


class _OneDraw(Draw):
    """One draw for all of the images."""

    def __init__(self, generator: torch.Generator, count: int):
        self.generator, self.index, self.scenes = generator, torch.zeros(count, dtype=torch.long), 1


def augment_group(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Images (G, 3, H, W) in [0, 1] of one recording, changed alike: response, colour, blur, compression; only the
    noise is new in every frame."""
    draw = _OneDraw(generator, len(rgb))
    x = rgb.clone()
    if len(draw.chosen(0.8)):
        _response(x, draw)
    _blur(x, draw)
    _noise(x, draw)
    x.clamp_(0, 1)
    _compress(x, draw)
    return x.clamp_(0, 1)


def _smooth(field: Tensor, h: int, w: int) -> Tensor:
    return F.interpolate(field, (h, w), mode="bicubic", align_corners=False)


def _add_light(x: Tensor, draw: Draw) -> None:
    """Uneven light: a smooth multiplicative field, so that brightness is not the only sign of distance."""
    at = draw.chosen(0.4)
    if len(at):
        field = draw.normal(1, 3, 4)[at] * draw.uniform(0, 0.45, 1, 1, 1)[at]
        x[at] *= torch.exp(_smooth(field, *x.shape[-2:]))


def _response(x: Tensor, draw: Draw) -> None:
    """Exposure, gamma, white balance, hue, saturation, contrast; rarely no colour at all."""
    gamma = torch.exp(draw.uniform(-0.4, 0.4, 1, 1, 1))
    x.clamp_(1e-4, 4).pow_(gamma)
    saturation = draw.uniform(0.4, 1.5)
    saturation[draw.chosen(0.05)] = 0
    hue = draw.uniform(-0.35, 0.35) * (draw.uniform(0, 1) < 0.6)
    matrix = _colour_matrix(saturation, hue)
    balance = torch.exp(draw.normal(3) * 0.12 + draw.uniform(-0.5, 0.4, 1))
    contrast = draw.uniform(0.75, 1.3)
    matrix = matrix * (balance * contrast[:, None])[:, :, None]
    mean = x.mean((1, 2, 3)) * (1 - contrast)
    x.copy_(torch.einsum("bij,bjhw->bihw", matrix, x) + mean[:, None, None, None])


def _colour_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """(B, 3, 3): rotation about the grey axis by `hue`, then colour stretched by `saturation` about luma."""
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cos, sin = hue.cos()[:, None, None], hue.sin()[:, None, None]
    rotation = cos * (torch.eye(3) - axis) + sin * cross + axis
    s = saturation[:, None, None]
    return (s * torch.eye(3) + (1 - s) * _LUMA.expand(3, 3)) @ rotation


def _blood(x: Tensor, draw: Draw) -> None:
    """Dark, mostly red patches with soft or hard edges."""
    at = draw.chosen(0.3)
    if len(at):
        field = _smooth(draw.normal(1, 5, 6)[at], *x.shape[-2:])
        sharp, threshold = draw.uniform(3, 30, 1, 1, 1)[at], draw.uniform(0.7, 1.6, 1, 1, 1)[at]
        colour = draw.uniform(0.05, 0.6, 3, 1, 1)[at] * torch.tensor([1.3, 0.7, 0.7])[:, None, None]
        x[at] *= 1 + torch.sigmoid(sharp * (field - threshold)) * (colour - 1)


def _highlights(x: Tensor, draw: Draw) -> None:
    """Small saturated spots where two random fields are both high."""
    at = draw.chosen(0.3)
    if len(at):
        h, w = x.shape[-2:]
        fine = _smooth(draw.normal(1, h // 6, w // 6)[at], h, w)
        coarse = _smooth(draw.normal(1, 4, 5)[at], h, w)
        amount = torch.sigmoid(8 * (fine + coarse - draw.uniform(1.8, 3.0, 1, 1, 1)[at]))
        x[at] += amount * draw.uniform(0.3, 1.0, 1, 1, 1)[at]


def _blur(x: Tensor, draw: Draw) -> None:
    """Defocus or motion: an elongated Gaussian of any direction, 9 x 9."""
    at = draw.chosen(0.4)
    if not len(at):
        return
    grid = torch.arange(-4.0, 5.0)
    gy, gx = torch.meshgrid(grid, grid, indexing="ij")
    angle = draw.uniform(0, math.pi, 1, 1)[at]
    along = gx * angle.cos() + gy * angle.sin()
    across = gy * angle.cos() - gx * angle.sin()
    small, large = draw.uniform(0.4, 1.4, 1, 1)[at], draw.uniform(0.4, 2.5, 1, 1)[at]
    kernel = torch.exp(-0.5 * ((along / large) ** 2 + (across / small) ** 2))
    kernel = (kernel / kernel.sum((1, 2), keepdim=True)).repeat_interleave(3, 0)[:, None]
    n, _, h, w = x[at].shape
    padded = F.pad(x[at], (4, 4, 4, 4), mode="replicate").reshape(1, 3 * n, h + 8, w + 8)
    x[at] = F.conv2d(padded, kernel, groups=3 * n).reshape(n, 3, h, w)


def _noise(x: Tensor, draw: Draw) -> None:
    """Sensor noise, new in every frame: white, or coarse as after a codec."""
    for probability, factor, strength in ((0.5, 1, 0.035), (0.25, 2, 0.025)):
        at = draw.chosen(probability)
        if len(at):
            h, w = x.shape[-2:]
            noise = torch.randn(len(at), 3, h // factor, w // factor, generator=draw.generator)
            noise = noise if factor == 1 else F.interpolate(noise, (h, w), mode="bilinear")
            x[at] += noise * draw.uniform(0, strength, 1, 1, 1)[at]


@lru_cache(maxsize=1)
def corruptions_of_pictures() -> tuple[str, ...]:
    """The corruptions that change how a picture looks."""
    return tuple(name for name in corruptions.names() if not corruptions.describe(name).acts_on_order)


def _corrupt(x: Tensor, draw: Draw) -> None:
    """Something of the registry; over the frames of a pair it is the same event, a little later."""
    at = draw.chosen(CORRUPTED)
    if not len(at):
        return
    names = corruptions_of_pictures()
    kind, severity, seed = (draw.uniform(0, 1)[at] for _ in range(3))
    scene = draw.index[at].tolist()
    for i, image in enumerate(at.tolist()):
        again = i > 0 and scene[i] == scene[i - 1]
        picture = np.ascontiguousarray((x[image] * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).numpy())
        found = corruptions.corrupt(
            picture,
            names[int(kind[i] * len(names))],
            CORRUPTED_SEVERITIES[int(severity[i] * len(CORRUPTED_SEVERITIES))],
            seed=int(seed[i] * 2**24),
            time_s=_PAIR_S * again,
        )
        x[image] = torch.from_numpy(found).permute(2, 0, 1).to(x.dtype) / 255


@lru_cache(maxsize=1)
def _dct() -> Tensor:
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    basis = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _compress(x: Tensor, draw: Draw) -> None:
    """Block compression: 8 x 8 cosine transform of luma and colour, quantised more coarsely at high frequencies."""
    at = draw.chosen(0.4)
    if not len(at):
        return
    n, _, h, w = x[at].shape
    luma = torch.einsum("c,nchw->nhw", _LUMA, x[at])[:, None]
    planes = torch.cat([luma, x[at][:, 0:1] - luma, x[at][:, 2:3] - luma], 1)
    blocks = planes.reshape(n, 3, h // 8, 8, w // 8, 8).transpose(3, 4)
    dct = _dct()
    frequency = torch.arange(8.0)
    step = (1 + frequency[:, None] + frequency[None]) * torch.tensor([1.0, 2, 2])[:, None, None]
    step = step[None] * torch.exp(draw.uniform(math.log(0.003), math.log(0.05), 1, 1, 1)[at])
    step = step[:, :, None, None]
    coded = ((dct @ blocks @ dct.T) / step).round() * step
    luma, red, blue = (dct.T @ coded @ dct).transpose(3, 4).reshape(n, 3, h, w).unbind(1)
    green = -(0.299 * red + 0.114 * blue) / 0.587
    x[at] = torch.stack([luma + red, luma + green, luma + blue], 1).clamp(0, 1)


def _field_of_view(b: int, h: int, w: int, draw: Draw) -> Tensor:
    """(B, H, W) bool: a circle, an octagon, or a rectangle with rounded corners; mostly everything."""
    mask = torch.ones(b, h, w, dtype=torch.bool)
    at = draw.chosen(0.4)
    if not len(at):
        return mask
    y = (torch.arange(h) + 0.5)[None, :, None] - h * (0.5 + draw.uniform(-0.08, 0.08, 1, 1)[at])
    x = (torch.arange(w) + 0.5)[None, None, :] - w * (0.5 + draw.uniform(-0.08, 0.08, 1, 1)[at])
    radius = draw.uniform(0.42, 0.75, 1, 1)[at] * min(h, w)
    # The norm's order turns a diamond (1) into a circle (2) and a rounded square (8).
    order = draw.uniform(0, 1, 1, 1)[at]
    round_or_square = torch.where(order < 0.5, torch.full_like(order, 2.0), 2 + 8 * order)
    ratio = torch.where(order < 0.5, torch.ones_like(order), torch.full_like(order, w / h))
    distance = ((x / ratio).abs() ** round_or_square + y.abs() ** round_or_square) ** (1 / round_or_square)
    octagon = torch.maximum(torch.maximum(x.abs() / ratio, y.abs()), (x.abs() / ratio + y.abs()) / 1.35)
    use_octagon = draw.uniform(0, 1, 1, 1)[at] < 0.35
    mask[at] = torch.where(use_octagon, octagon, distance) < radius
    return mask
