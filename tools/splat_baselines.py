"""What tools/bench_splats.py compares the rasteriser with: one in PyTorch, and a plain loop over pixels in numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from rendering.splat import Job, reference

TILE = 16
PAIRS = 250_000  # pairs of Gaussian and pixel at once, which is the fastest here: they stay in the caches


def torch_layers(job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, alpha and expected depth in PyTorch with its gradient by autograd.

    Gaussians are dealt to tiles by one sort; tiles of like length are filled up to the longest and composited together.
    """
    centres, covariance, depth, seen = reference.project(job)
    inverse = torch.linalg.inv(covariance)
    features = torch.cat([reference.colours(job), depth[:, None], torch.ones_like(depth)[:, None]], 1)
    across, down = -(-job.width // TILE), -(-job.height // TILE)
    with torch.no_grad():
        sizes = reference.radii(centres, covariance, torch.where(seen, job.opacities, 0), job)
        ids = torch.nonzero((sizes > 0).all(1) & seen)[:, 0]
        limit = torch.tensor([across, down])
        low = ((centres[ids] - sizes[ids]) / TILE).floor().long().clamp(min=0)
        high = torch.minimum(((centres[ids] + sizes[ids]) / TILE).floor().long() + 1, limit)
        spans = (high - low).clamp(min=0)
        counts = spans.prod(1)
        owner = torch.repeat_interleave(torch.arange(len(ids)), counts)
        place = torch.arange(len(owner)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        wide = spans[owner, 0]
        tiles = (low[owner, 1] + place // wide) * across + low[owner, 0] + place % wide
        rank = torch.empty_like(ids)
        rank[torch.argsort(depth[ids])] = torch.arange(len(ids))
        order = torch.argsort(tiles * len(ids) + rank[owner])
        listed, lengths = ids[owner[order]], torch.bincount(tiles, minlength=across * down)
        starts = lengths.cumsum(0) - lengths
        by_length = torch.argsort(lengths, descending=True)
        grid = torch.arange(TILE) + 0.5
        inside = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1).reshape(-1, 2)
    parts, at = [], 0
    while at < len(by_length):
        longest = max(int(lengths[by_length[at]]), 1)
        some = by_length[at : at + max(PAIRS // (longest * TILE * TILE), 1)]
        at += len(some)
        number = torch.arange(longest)[None]
        filled = number < lengths[some][:, None]
        g = listed[torch.where(filled, starts[some][:, None] + number, 0).clamp(max=max(len(listed) - 1, 0))]
        corner = torch.stack([some % across, some // across], 1) * TILE
        d = (corner[:, None] + inside)[:, None] - centres[g][:, :, None]
        x, y, c = d[..., 0], d[..., 1], inverse[g][:, :, None]
        sigma = 0.5 * (c[..., 0, 0] * x * x + c[..., 1, 1] * y * y) + c[..., 0, 1] * x * y
        alpha = (torch.where(filled, job.opacities[g], 0)[..., None] * torch.exp(-sigma)).clamp(max=reference.MOST)
        alpha = torch.where(alpha >= reference.FAINTEST, alpha, 0)
        after = torch.cumprod(1 - alpha, 1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
        weight = torch.where(after > reference.FULL, alpha * before, 0)
        parts.append(torch.einsum("tkp,tkf->tpf", weight, features[g]))
    images = torch.empty(across * down, TILE * TILE, features.shape[1]).index_copy(0, by_length, torch.cat(parts))
    images = images.reshape(down, across, TILE, TILE, -1).transpose(1, 2).reshape(down * TILE, across * TILE, -1)
    images = images[: job.height, : job.width]
    alpha = images[..., -1]
    return images[..., :-2], alpha, images[..., -2] / alpha.clamp(min=1e-10)


def torch_loss(shown: Tensor, target: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """L1 and D-SSIM of (3, H, W) images."""
    taps = torch.exp(-0.5 * ((torch.arange(11) - 5) / 1.5) ** 2)
    taps = taps / taps.sum()
    stacked = torch.cat([shown, target, shown * shown, target * target, shown * target])[:, None]
    summed = torch.nn.functional.conv2d(stacked, taps.reshape(1, 1, 1, 11), padding=(0, 5))
    summed = torch.nn.functional.conv2d(summed, taps.reshape(1, 1, 11, 1), padding=(5, 0))
    x, y, xx, yy, xy = summed[:, 0].split(3)
    over = (x * x + y * y + 1e-4) * (xx - x * x + yy - y * y + 9e-4)
    ssim = (2 * x * y + 1e-4) * (2 * (xy - x * y) + 9e-4) / over
    return (1 - ssim_weight) * (shown - target).abs().mean() + ssim_weight * (1 - ssim.mean())


def plain_forward(features: int) -> Any:
    """The plain loop over pixels that stands in for `_composite.forward_kernel`, with its arguments."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def composite(
        worker, workers, order, starts, listed, rows, width, height, color, alpha_, depth, normal, median, ends
    ):  # type: ignore[no-untyped-def]
        across, stride, sums = (width + TILE - 1) // TILE, 8 + features, np.zeros(features, np.float32)
        for v in range(worker, height, workers):
            for u in range(width):
                tile = v // TILE * across + u // TILE
                left, sums[:] = np.float32(1), 0
                for k in range(starts[tile], starts[tile + 1]):
                    r = listed[k] * stride
                    dx, dy = np.float32(u + 0.5) - rows[r], np.float32(v + 0.5) - rows[r + 1]
                    along, off = rows[r + 2] * dx + rows[r + 3] * dy, rows[r + 4] * dy
                    alpha = min(rows[r + 5] * np.exp2(-along * along - off * off), np.float32(0.999))
                    if alpha < np.float32(1 / 255):
                        continue
                    if left * (1 - alpha) <= np.float32(1e-4):
                        break
                    for f in range(features):
                        sums[f] += alpha * left * rows[r + 8 + f]
                    left *= np.float32(1) - alpha
                color[v, u] = sums[: features - 1]
                alpha_[v, u] = 1 - left
                depth[v, u] = sums[features - 1] / max(1 - left, np.float32(1e-10))
        for tile in range(ends.size):
            ends[tile] = starts[tile + 1]

    return composite


def plain_backward(features: int) -> Any:
    """The same for `_composite.backward_kernel`: tiles are shared among threads, their pixels are walked one by one."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def gradient(
        worker, workers, order, starts, ends, listed, slots, rows, width, height, color, alpha_, depth, normal, g_color,
        g_alpha, g_depth, g_normal, sums_,
    ):  # type: ignore[no-untyped-def]  # fmt: skip
        across, stride, long, one = (width + TILE - 1) // TILE, 8 + features, 6 + features, np.float32(1)
        g = np.zeros(features, np.float32)
        for tile in range(worker, order.size, workers):
            for k in range(starts[tile], starts[tile + 1]):
                sums_[slots[k] * long : (slots[k] + 1) * long] = 0
            for v in range(tile // across * TILE, min((tile // across + 1) * TILE, height)):
                for u in range(tile % across * TILE, min((tile % across + 1) * TILE, width)):
                    g[: features - 1] = g_color[v, u]
                    g[features - 1] = g_depth[v, u] / max(alpha_[v, u], np.float32(1e-10))
                    base = g_alpha[v, u] - g[features - 1] * depth[v, u]
                    behind = g_alpha[v, u] * alpha_[v, u]
                    for f in range(features - 1):
                        behind += g[f] * color[v, u, f]
                    left = one
                    for k in range(starts[tile], starts[tile + 1]):
                        r, s = listed[k] * stride, slots[k] * long
                        dx, dy = np.float32(u + 0.5) - rows[r], np.float32(v + 0.5) - rows[r + 1]
                        p, q, t = rows[r + 2], rows[r + 3], rows[r + 4]
                        along, off = p * dx + q * dy, t * dy
                        alpha = min(rows[r + 5] * np.exp2(-along * along - off * off), np.float32(0.999))
                        if alpha < np.float32(1 / 255):
                            continue
                        if left * (one - alpha) <= np.float32(1e-4):
                            break
                        dot, weight = base, alpha * left
                        for f in range(features):
                            dot += g[f] * rows[r + 8 + f]
                            sums_[s + 6 + f] += weight * g[f]
                        behind -= weight * dot
                        left *= one - alpha
                        if alpha < np.float32(0.999):
                            slope = weight * dot - behind * alpha / (one - alpha)
                            sums_[s] += slope * np.float32(1.3862943611) * p * along
                            sums_[s + 1] += slope * np.float32(1.3862943611) * (q * along + t * off)
                            sums_[s + 2] -= np.float32(0.5) * slope * dx * dx
                            sums_[s + 3] -= slope * dx * dy
                            sums_[s + 4] -= np.float32(0.5) * slope * dy * dy
                            sums_[s + 5] += slope / rows[r + 5]

    return gradient
