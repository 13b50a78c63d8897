"""Compositing of projected Gaussians front to back, and its gradient: kernels over tiles of 16 x 16 pixels.

A tile's Gaussians are walked once, from the nearest on; each touches only the rows and half rows that its ellipse
reaches. The gradient walks forward too: what lies behind a Gaussian is what the pixel shows less what has been passed,
so no transmittance is divided out again. Each pair of Gaussian and tile leaves a row of sums over its pixels, which the
projection's gradient adds up, so no two threads write to the same place.

A Gaussian's row in `rows` is: x, y of its centre (pixels); p, q, r with log2 of its falloff = -(p dx + q dy)^2 -
(r dy)^2, a sum of squares, since the usual three terms of a needle cancel to a few digits; opacity; half width and half
height of the ellipse where it still counts (pixels); its features.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from rendering.simd import (
    both,
    choose,
    exp2,
    fused,
    lane_numbers,
    larger,
    load,
    smaller,
    some,
    splat,
    store,
    sums,
)

TILE, PIXELS, HALF = 16, 256, 8
HEAD = 8  # values of a row of Gaussians before its features
GRADIENT_HEAD = 6  # x, y, the three of the conic, opacity: of a row of gradients
# As in gsplat: what is fainter than 1 / 255 does not count, none hides more than .999, and a pixel is full at 1e-4.
FAINTEST, MOST, FULL = np.float32(1 / 255), np.float32(0.999), np.float32(1e-4)
CHECK_EVERY = 32  # Gaussians between looks whether a tile is full
ONE, NOUGHT = np.float32(1), np.float32(0)
LOG2E = 1.4426950408889634
EMPTY = np.float32(1e-10)  # a pixel that shows less than this has no depth


@njit(cache=True, inline="always")
def _reach(centre, half):  # type: ignore[no-untyped-def]
    """First and last pixel of a tile, 0 to 15, whose centre is within `half` of `centre`; centres are at 0, 1, ..."""
    return max(int(np.ceil(centre - half)), 0), min(int(np.floor(centre + half)), TILE - 1)


@njit(cache=True)
def start_tile(buffer, left, top, width, height):  # type: ignore[no-untyped-def]
    """Transmittance 1 in the first 256 places, -1 where the tile hangs over the image."""
    for j in range(TILE):
        for i in range(TILE):
            buffer[j * TILE + i] = ONE if left + i < width and top + j < height else -ONE


@njit(cache=True, inline="always")
def _all_full(buffer):  # type: ignore[no-untyped-def]
    most = load(buffer, 0)
    for i in range(HALF, PIXELS, HALF):
        most = larger(most, load(buffer, i))
    return not some(most > NOUGHT)


@lru_cache
def forward_kernel(colours: int, normals: bool, middle: bool) -> Any:
    """The kernel for this many channels of colour, then depth, then, if wanted, normals and the median depth."""
    features = colours + (4 if normals else 1)

    @njit(nogil=True, cache=True, error_model="numpy")
    def composite(
        worker, workers, order, starts, listed, rows, width, height, color, alpha_, depth, normal, median, ends
    ):  # type: ignore[no-untyped-def]
        """Composite every `workers`-th tile of `order`.

        Args:
            order: (T,) tiles, the fullest first; starts: (T + 1,) where each tile's part of `listed` begins.
            listed: (M,) Gaussians by tile, the nearest first.
            rows: (N * (HEAD + features),) float32.
            color: (height, width, colours), alpha_, depth: (height, width), written.
            normal: (height, width, 3), median: (height, width) int32, the last Gaussian before which the pixel was more
                than half open, or -1; written if wanted.
            ends: (T,) how far each tile's list was walked, written.
        """
        across, stride, last = (width + TILE - 1) // TILE, HEAD + features, PIXELS * (features + 1)
        buffer = np.empty(PIXELS * (features + 2), np.float32)
        for turn in range(worker, order.size, workers):
            tile = order[turn]
            left, top = (tile % across) * TILE, (tile // across) * TILE
            buffer[PIXELS:last] = NOUGHT
            buffer[last:] = -ONE
            start_tile(buffer, left, top, width, height)
            at, end = starts[tile], starts[tile + 1]
            while at < end:
                stop = min(at + CHECK_EVERY, end)
                for k in range(at, stop):
                    r = listed[k] * stride
                    x, y = rows[r] - np.float32(left + 0.5), rows[r + 1] - np.float32(top + 0.5)
                    lp, lq, lr, opacity = rows[r + 2], rows[r + 3], rows[r + 4], rows[r + 5]
                    i0, i1 = _reach(x, rows[r + 6])
                    j0, j1 = _reach(y, rows[r + 7])
                    for i in range(i0 & HALF, i1 + 1, HALF):
                        dx = lane_numbers() + (np.float32(i) - x)
                        pdx = lp * dx
                        for j in range(j0, j1 + 1):
                            dy, p = np.float32(j) - y, j * TILE + i
                            open_ = load(buffer, p)
                            along, across_ = pdx + lq * dy, lr * dy
                            power = fused(NOUGHT - along, along, -across_ * across_)
                            alpha = smaller(opacity * exp2(power), splat(MOST))
                            seen = both(alpha >= FAINTEST, open_ > NOUGHT)
                            if not some(seen):
                                continue
                            weight = alpha * open_
                            rest = open_ - weight
                            on = both(seen, rest > FULL)
                            weight = choose(on, weight, NOUGHT)
                            for f in range(features):
                                q = p + PIXELS * (1 + f)
                                store(buffer, q, fused(weight, splat(rows[r + HEAD + f]), load(buffer, q)))
                            store(buffer, p, choose(seen, choose(on, rest, NOUGHT - open_), open_))
                            if middle:
                                half, place = both(on, open_ > np.float32(0.5)), np.float32(k - starts[tile])
                                store(buffer, p + last, choose(half, place, load(buffer, p + last)))
                at = stop
                if _all_full(buffer):
                    break
            ends[tile] = at
            for j in range(min(TILE, height - top)):
                for i in range(min(TILE, width - left)):
                    p, v, u = j * TILE + i, top + j, left + i
                    shown = ONE - abs(buffer[p])
                    alpha_[v, u] = shown
                    depth[v, u] = buffer[p + PIXELS * (1 + colours)] / max(shown, EMPTY)
                    for f in range(colours):
                        color[v, u, f] = buffer[p + PIXELS * (1 + f)]
                    if normals:
                        for f in range(3):
                            normal[v, u, f] = buffer[p + PIXELS * (2 + colours + f)]
                    if middle:
                        k = int(buffer[p + last])
                        median[v, u] = listed[starts[tile] + k] if k >= 0 else -1

    return composite


@lru_cache
def _start_gradient(colours: int, normals: bool) -> Any:
    """Fills a tile's buffer for `backward_kernel`: what of the loss each pixel accounts for, and its gradients."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def start(buffer, left, top, width, height, color, alpha, depth, normal, g_color, g_alpha, g_depth, g_normal):  # type: ignore[no-untyped-def]
        start_tile(buffer, left, top, width, height)
        for j in range(min(TILE, height - top)):
            for i in range(min(TILE, width - left)):
                p, v, u = j * TILE + i, top + j, left + i
                g = g_alpha[v, u]
                share = g * alpha[v, u]
                for f in range(colours):
                    buffer[p + PIXELS * (3 + f)] = g_color[v, u, f]
                    share += g_color[v, u, f] * color[v, u, f]
                # Expected depth is a quotient: twice the weights, the same depth, so it adds nothing to `share`.
                by_depth = g_depth[v, u] / max(alpha[v, u], EMPTY)
                if alpha[v, u] > EMPTY:
                    g -= by_depth * depth[v, u]
                else:
                    share += g_depth[v, u] * depth[v, u]
                buffer[p + PIXELS * (3 + colours)] = by_depth
                if normals:
                    for f in range(3):
                        buffer[p + PIXELS * (4 + colours + f)] = g_normal[v, u, f]
                        share += g_normal[v, u, f] * normal[v, u, f]
                buffer[p + PIXELS], buffer[p + 2 * PIXELS] = share, g

    return start


@njit(cache=True, inline="always")
def _part(folded, f, features):  # type: ignore[no-untyped-def]
    return load(folded, f * HALF) if f < features else splat(NOUGHT)


@njit(cache=True)
def _write_sums(sums_, s, features, lp, lq, lr, opacity, summed):  # type: ignore[no-untyped-def]
    """A row of `sums_` from the moments of the gradient by sigma: 1, dx, dy, dx^2, dx dy, dy^2, and features."""
    # sigma = ln 2 ((p dx + q dy)^2 + (r dy)^2), with d = pixel - centre
    along = np.float32(2 / LOG2E) * (lp * summed[1] + lq * summed[2])
    sums_[s] = lp * along
    sums_[s + 1] = lq * along + np.float32(2 / LOG2E) * lr * lr * summed[2]
    sums_[s + 2] = np.float32(-0.5) * summed[3]
    sums_[s + 3] = -summed[4]
    sums_[s + 4] = np.float32(-0.5) * summed[5]
    sums_[s + 5] = summed[0] / opacity
    for f in range(features):
        sums_[s + GRADIENT_HEAD + f] = summed[6 + f]


@lru_cache
def backward_kernel(colours: int, normals: bool) -> Any:
    """The gradient of `forward_kernel`'s images."""
    features = colours + (4 if normals else 1)
    start = _start_gradient(colours, normals)

    @njit(nogil=True, cache=True, error_model="numpy")
    def gradient(
        worker, workers, order, starts, ends, listed, slots, rows, width, height, color, alpha_, depth, normal, g_color,
        g_alpha, g_depth, g_normal, sums_,
    ):  # type: ignore[no-untyped-def]  # fmt: skip
        """Sums over the pixels of every `workers`-th tile of `order`.

        Args:
            order ... normal: as `composite` took and left them.
            slots: (M,) the row of `sums_` that each place of `listed` owns.
            g_color ... g_normal: the loss's gradient, like the images.
            sums_: (M * (GRADIENT_HEAD + features),) written: gradient of x, y, conic, opacity, features.
        """
        across, stride, long = (width + TILE - 1) // TILE, HEAD + features, GRADIENT_HEAD + features
        # transmittance; what is left of the pixel's share of the loss; gradient of alpha; gradients of the features
        buffer = np.zeros(PIXELS * (features + 3), np.float32)
        folded, summed = np.zeros(features * HALF, np.float32), np.zeros((features + 13) // 8 * HALF, np.float32)
        for turn in range(worker, order.size, workers):
            tile = order[turn]
            left, top = (tile % across) * TILE, (tile // across) * TILE
            start(buffer, left, top, width, height, color, alpha_, depth, normal, g_color, g_alpha, g_depth, g_normal)
            for k in range(starts[tile], ends[tile]):
                r, s = listed[k] * stride, slots[k] * long
                x, y = rows[r] - np.float32(left + 0.5), rows[r + 1] - np.float32(top + 0.5)
                lp, lq, lr, opacity = rows[r + 2], rows[r + 3], rows[r + 4], rows[r + 5]
                i0, i1 = _reach(x, rows[r + 6])
                j0, j1 = _reach(y, rows[r + 7])
                for f in range(features):
                    store(folded, f * HALF, splat(NOUGHT))
                m, mx, mxx = splat(NOUGHT), splat(NOUGHT), splat(NOUGHT)
                my, mxy, myy = splat(NOUGHT), splat(NOUGHT), splat(NOUGHT)
                for i in range(i0 & HALF, i1 + 1, HALF):
                    dx = lane_numbers() + (np.float32(i) - x)
                    pdx = lp * dx
                    n, ny, nyy = splat(NOUGHT), splat(NOUGHT), splat(NOUGHT)
                    for j in range(j0, j1 + 1):
                        dy, p = np.float32(j) - y, j * TILE + i
                        open_ = load(buffer, p)
                        along, across_ = pdx + lq * dy, lr * dy
                        power = fused(NOUGHT - along, along, -across_ * across_)
                        alpha = smaller(opacity * exp2(power), splat(MOST))
                        seen = both(alpha >= FAINTEST, open_ > NOUGHT)
                        if not some(seen):
                            continue
                        weight = alpha * open_
                        rest = open_ - weight
                        on = both(seen, rest > FULL)
                        weight = choose(on, weight, NOUGHT)
                        store(buffer, p, choose(seen, choose(on, rest, NOUGHT - open_), open_))
                        dot = load(buffer, p + 2 * PIXELS)
                        for f in range(features):
                            g = load(buffer, p + PIXELS * (3 + f))
                            dot = fused(g, splat(rows[r + HEAD + f]), dot)
                            store(folded, f * HALF, fused(weight, g, load(folded, f * HALF)))
                        behind = load(buffer, p + PIXELS) - weight * dot
                        store(buffer, p + PIXELS, behind)
                        # alpha times the loss's gradient by alpha; what is cut off at MOST does not move with sigma
                        slope = weight * dot - behind * alpha / (ONE - alpha)
                        slope = choose(both(on, splat(MOST) > alpha), slope, NOUGHT)
                        n = n + slope
                        ny = fused(slope, splat(dy), ny)
                        nyy = fused(slope, splat(dy * dy), nyy)
                    m, my, myy = m + n, my + ny, myy + nyy
                    mx, mxy, mxx = fused(n, dx, mx), fused(ny, dx, mxy), fused(n * dx, dx, mxx)
                store(summed, 0, sums(m, mx, my, mxx, mxy, myy, _part(folded, 0, features), _part(folded, 1, features)))
                for f in range(2, features, 8):
                    store(summed, HALF * ((f + 6) // 8), sums(
                        _part(folded, f, features), _part(folded, f + 1, features), _part(folded, f + 2, features),
                        _part(folded, f + 3, features), _part(folded, f + 4, features), _part(folded, f + 5, features),
                        _part(folded, f + 6, features), _part(folded, f + 7, features),
                    ))  # fmt: skip
                _write_sums(sums_, s, features, lp, lq, lr, opacity, summed)
            # Those beyond where the tile was full are seen by nobody.
            for k in range(ends[tile], starts[tile + 1]):
                sums_[slots[k] * long : (slots[k] + 1) * long] = NOUGHT

    return gradient
