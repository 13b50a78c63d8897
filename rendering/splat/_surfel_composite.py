"""Compositing of surfels (flat Gaussians) front to back, and its gradient: kernels over tiles of 16 x 16 pixels.

Huang et al., "2D Gaussian Splatting for Geometrically Accurate Radiance Fields", SIGGRAPH 2024. A pixel's ray meets the
plane of a surfel at the place (u, v), in standard deviations (section 4.2). With d the pixel less the centre's pixel,
and the inverse A of the map from (u, v) to the image at the centre, (u, v) = A d / e: the falloff of an affine ellipse,
but for e = 1 + tilt . d, the plane's disparity there over that at the centre. Disparity is linear in the image, so a
surfel's row has five numbers for its shape and place instead of the paper's homography, and two digits more.

As in the paper a surfel is at least as wide as a pixel's filter (equation 11): where exp(-|d|^2) is more, that counts,
and the depth is the centre's. The walk over a tile is that of `_composite`.

A surfel's row: x, y of its centre (pixels); A, row by row, times sqrt(log2(e) / 2); opacity; half width and half height
of where it counts (pixels); tilt (2); disparity of the centre; its features, colours and then the normal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from rendering.simd import both, choose, exp2, fused, lane_numbers, load, smaller, some, splat, store, sums
from rendering.splat._composite import (
    CHECK_EVERY,
    EMPTY,
    FAINTEST,
    FULL,
    HALF,
    LOG2E,
    MOST,
    NOUGHT,
    ONE,
    PIXELS,
    TILE,
    _all_full,
    _part,
    _reach,
    start_tile,
)

HEAD = 12  # values of a row before its features
GRADIENT_HEAD = 10  # x, y, A, opacity, tilt, disparity: of a row of gradients
MOMENTS = 13  # sums over pixels that those are made of
HORIZON = np.float32(1e-2)  # e from which on a ray meets the plane: not behind the camera, nor a hundred times as far
LOW = np.float32(-LOG2E)  # of |d|^2: the pixel's filter, in powers of two
LN2 = np.float32(1 / LOG2E)


@njit(cache=True, error_model="numpy")
def _write_tile(buffer, colours, left, top, color, alpha_, depth, normal, median, distortion, middle):
    # type: ignore[no-untyped-def]
    """A tile's part of the images, from the sums that `composite` leaves in its buffer."""
    height, width = alpha_.shape
    base = PIXELS * (4 + colours)  # of a pixel's first disparity, and so on
    for j in range(min(TILE, height - top)):
        for i in range(min(TILE, width - left)):
            p, v, u = j * TILE + i, top + j, left + i
            shown, q = ONE - abs(buffer[p]), base + p
            alpha_[v, u] = shown
            for f in range(colours):
                color[v, u, f] = buffer[p + PIXELS * (1 + f)]
            for f in range(3):
                normal[v, u, f] = buffer[p + PIXELS * (1 + colours + f)]
            depth[v, u], distortion[v, u], median[v, u] = NOUGHT, NOUGHT, NOUGHT
            if shown > EMPTY:
                first, second = buffer[q + PIXELS], buffer[q + 2 * PIXELS]
                depth[v, u] = ONE / (buffer[q] + first / shown)
                distortion[v, u] = max(shown * second - first * first, NOUGHT)
            middle[v, u] = buffer[q + 4 * PIXELS]
            if middle[v, u] >= NOUGHT:
                median[v, u] = ONE / buffer[q + 3 * PIXELS]


@lru_cache
def forward_kernel(colours: int) -> Any:
    """The kernel for this many channels of colour."""
    features = colours + 3

    @njit(nogil=True, cache=True, error_model="numpy")
    def composite(
        worker, workers, order, starts, listed, rows, width, height, color, alpha_, depth, normal, median, distortion,
        middle, ends,
    ):  # type: ignore[no-untyped-def]  # fmt: skip
        """Composite every `workers`-th tile of `order`.

        Args:
            order: (T,) tiles, the fullest first; starts: (T + 1,) where each tile's part of `listed` begins.
            listed: (M,) surfels by tile, the nearest first.
            rows: (N * (HEAD + features),) float32.
            color: (height, width, colours), alpha_, depth, median, distortion: (height, width), normal: (height, width,
                3), written. middle: (height, width) float32, written: the place in the tile's list of the surfel whose
                depth is the median, or -1.
            ends: (T,) how far each tile's list was walked, written.
        """
        across, stride = (width + TILE - 1) // TILE, HEAD + features
        # transmittance, features, a pixel's first disparity, sums of disparity and its square less that, median, place
        base, last = PIXELS * (1 + features), PIXELS * (5 + features)
        buffer = np.empty(PIXELS * (features + 6), np.float32)
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
                    a0, a1, b0, b1, opacity = rows[r + 2], rows[r + 3], rows[r + 4], rows[r + 5], rows[r + 6]
                    ex, ey, near = rows[r + 9], rows[r + 10], rows[r + 11]
                    i0, i1 = _reach(x, rows[r + 7])
                    j0, j1 = _reach(y, rows[r + 8])
                    place = np.float32(k - starts[tile])
                    for i in range(i0 & HALF, i1 + 1, HALF):
                        dx = lane_numbers() + (np.float32(i) - x)
                        for j in range(j0, j1 + 1):
                            dy, p = np.float32(j) - y, j * TILE + i
                            open_ = load(buffer, p)
                            e = fused(dx, splat(ex), splat(ONE + ey * dy))
                            over = ONE / choose(e > HORIZON, e, ONE)
                            u, v = (a0 * dx + a1 * dy) * over, (b0 * dx + b1 * dy) * over
                            plane = NOUGHT - fused(u, u, v * v)
                            low = LOW * fused(dx, dx, splat(dy * dy))
                            flat = both(plane >= low, e > HORIZON)
                            alpha = smaller(opacity * exp2(choose(flat, plane, low)), splat(MOST))
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
                            disparity = near * choose(flat, e, ONE)
                            first = choose(open_ >= ONE, disparity, load(buffer, base + p))
                            store(buffer, base + p, first)
                            off = disparity - first
                            by, q = weight * off, base + p + PIXELS
                            store(buffer, q, load(buffer, q) + by)
                            store(buffer, q + PIXELS, fused(by, off, load(buffer, q + PIXELS)))
                            half = both(on, open_ > np.float32(0.5))
                            store(buffer, q + 2 * PIXELS, choose(half, disparity, load(buffer, q + 2 * PIXELS)))
                            store(buffer, p + last, choose(half, place, load(buffer, p + last)))
                            store(buffer, p, choose(seen, choose(on, rest, NOUGHT - open_), open_))
                at = stop
                if _all_full(buffer):
                    break
            ends[tile] = at
            _write_tile(buffer, colours, left, top, color, alpha_, depth, normal, median, distortion, middle)

    return composite


@lru_cache
def _start_gradient(colours: int) -> Any:
    """Fills a tile's buffer for `backward_kernel`: transmittance; what of the loss a pixel accounts for; the gradient
    of a weight but for its features; disparity; its gradient, constant and by its deviation; the median's place and
    gradient; the features' gradients."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def start(buffer, left, top, width, height, images, g_images):  # type: ignore[no-untyped-def]
        color, alpha, depth, normal, median, distortion, middle = images
        g_color, g_alpha, g_depth, g_normal, g_median, g_distortion = g_images
        start_tile(buffer, left, top, width, height)
        buffer[PIXELS:] = NOUGHT
        for j in range(min(TILE, height - top)):
            for i in range(min(TILE, width - left)):
                p, v, u = j * TILE + i, top + j, left + i
                shown, g = alpha[v, u], g_alpha[v, u]
                share = g * shown
                for f in range(colours):
                    buffer[p + PIXELS * (8 + f)] = g_color[v, u, f]
                    share += g_color[v, u, f] * color[v, u, f]
                for f in range(3):
                    buffer[p + PIXELS * (8 + colours + f)] = g_normal[v, u, f]
                    share += g_normal[v, u, f] * normal[v, u, f]
                if shown > EMPTY:
                    # Twice the weights, the same depth and four times the distortion.
                    g += g_distortion[v, u] * distortion[v, u] / shown
                    share += 2 * g_distortion[v, u] * distortion[v, u]
                    buffer[p + 3 * PIXELS] = ONE / depth[v, u]
                    buffer[p + 4 * PIXELS] = -g_depth[v, u] * depth[v, u] * depth[v, u] / shown
                    buffer[p + 5 * PIXELS] = g_distortion[v, u] * shown
                buffer[p + 6 * PIXELS] = middle[v, u]
                buffer[p + 7 * PIXELS] = -g_median[v, u] * median[v, u] * median[v, u]
                buffer[p + PIXELS], buffer[p + 2 * PIXELS] = share, g

    return start


@njit(cache=True)
def _write_sums(sums_, s, features, a0, a1, b0, b1, opacity, ex, ey, summed):  # type: ignore[no-untyped-def]
    """A row of `sums_` from the moments: of alpha; of u e, v e and e, each by 1, dx, dy; of the pixel's filter by dx,
    dy; of disparity; and the features."""
    sums_[s] = summed[10] - a0 * summed[1] - b0 * summed[4] - ex * summed[7]
    sums_[s + 1] = summed[11] - a1 * summed[1] - b1 * summed[4] - ey * summed[7]
    sums_[s + 2], sums_[s + 3], sums_[s + 4], sums_[s + 5] = summed[2], summed[3], summed[5], summed[6]
    sums_[s + 6] = summed[0] / opacity
    sums_[s + 7], sums_[s + 8], sums_[s + 9] = summed[8], summed[9], summed[12]
    for f in range(features):
        sums_[s + GRADIENT_HEAD + f] = summed[MOMENTS + f]


@njit(cache=True)
def _fold(folded, features, summed, m, mu, mux, muy, mv, mvx, mvy, me, mex, mey, mlx, mly, md):
    # type: ignore[no-untyped-def]
    """Sums over the lanes of the moments and of the features, for `_write_sums`."""
    two = splat(np.float32(2))
    store(summed, 0, sums(m, mu, mux, muy, mv, mvx, mvy, me))
    store(summed, HALF, sums(
        mex, mey, two * mlx, two * mly, md, _part(folded, 0, features), _part(folded, 1, features),
        _part(folded, 2, features),
    ))  # fmt: skip
    for f in range(3, features, 8):
        store(summed, HALF * ((f + 13) // 8), sums(
            _part(folded, f, features), _part(folded, f + 1, features), _part(folded, f + 2, features),
            _part(folded, f + 3, features), _part(folded, f + 4, features), _part(folded, f + 5, features),
            _part(folded, f + 6, features), _part(folded, f + 7, features),
        ))  # fmt: skip


@lru_cache
def backward_kernel(colours: int) -> Any:
    """The gradient of `forward_kernel`'s images."""
    features = colours + 3
    start = _start_gradient(colours)

    @njit(nogil=True, cache=True, error_model="numpy")
    def gradient(
        worker, workers, order, starts, ends, listed, slots, rows, width, height, images, g_images, sums_
    ):  # type: ignore[no-untyped-def]  # fmt: skip
        """Sums over the pixels of every `workers`-th tile of `order`, given what `composite` took and left.

        Args:
            slots: (M,) rows of `sums_` by place of `listed`. images: colour ... middle; g_images: by all but the last.
            sums_: (M * (GRADIENT_HEAD + features),) written: gradient of x, y, A, opacity, tilt, disparity, features.
        """
        across, stride, long = (width + TILE - 1) // TILE, HEAD + features, GRADIENT_HEAD + features
        buffer = np.zeros(PIXELS * (features + 8), np.float32)
        folded, summed = np.zeros(features * HALF, np.float32), np.zeros((features + 20) // 8 * HALF, np.float32)
        none = splat(NOUGHT)
        for turn in range(worker, order.size, workers):
            tile = order[turn]
            left, top = (tile % across) * TILE, (tile // across) * TILE
            start(buffer, left, top, width, height, images, g_images)
            for k in range(starts[tile], ends[tile]):
                r, s = listed[k] * stride, slots[k] * long
                x, y = rows[r] - np.float32(left + 0.5), rows[r + 1] - np.float32(top + 0.5)
                a0, a1, b0, b1, opacity = rows[r + 2], rows[r + 3], rows[r + 4], rows[r + 5], rows[r + 6]
                ex, ey, near = rows[r + 9], rows[r + 10], rows[r + 11]
                i0, i1 = _reach(x, rows[r + 7])
                j0, j1 = _reach(y, rows[r + 8])
                place = splat(np.float32(k - starts[tile]))
                folded[:] = NOUGHT
                m, mu, mux, muy, mv, mvx, mvy = none, none, none, none, none, none, none
                me, mex, mey, mlx, mly, md = none, none, none, none, none, none
                for i in range(i0 & HALF, i1 + 1, HALF):
                    dx = lane_numbers() + (np.float32(i) - x)
                    nu, nv, ne, nl = none, none, none, none
                    for j in range(j0, j1 + 1):
                        dy, p = np.float32(j) - y, j * TILE + i
                        open_ = load(buffer, p)
                        e = fused(dx, splat(ex), splat(ONE + ey * dy))
                        over = ONE / choose(e > HORIZON, e, ONE)
                        u, v = (a0 * dx + a1 * dy) * over, (b0 * dx + b1 * dy) * over
                        square = fused(u, u, v * v)
                        plane, low = NOUGHT - square, LOW * fused(dx, dx, splat(dy * dy))
                        flat = both(plane >= low, e > HORIZON)
                        alpha = smaller(opacity * exp2(choose(flat, plane, low)), splat(MOST))
                        seen = both(alpha >= FAINTEST, open_ > NOUGHT)
                        if not some(seen):
                            continue
                        weight = alpha * open_
                        rest = open_ - weight
                        on = both(seen, rest > FULL)
                        weight = choose(on, weight, NOUGHT)
                        store(buffer, p, choose(seen, choose(on, rest, NOUGHT - open_), open_))
                        ratio = choose(flat, e, ONE)
                        off = near * ratio - load(buffer, p + 3 * PIXELS)
                        by, bend = load(buffer, p + 4 * PIXELS), load(buffer, p + 5 * PIXELS) * off
                        dot = fused(off, by + bend, load(buffer, p + 2 * PIXELS))
                        for f in range(features):
                            g = load(buffer, p + PIXELS * (8 + f))
                            dot = fused(g, splat(rows[r + HEAD + f]), dot)
                            store(folded, f * HALF, fused(weight, g, load(folded, f * HALF)))
                        behind = load(buffer, p + PIXELS) - weight * dot
                        store(buffer, p + PIXELS, behind)
                        chosen = load(buffer, p + 6 * PIXELS)
                        at = choose(both(chosen >= place, place >= chosen), load(buffer, p + 7 * PIXELS), NOUGHT)
                        at = fused(weight, by + bend + bend, at)  # the gradient by this surfel's disparity
                        md = fused(at, ratio, md)
                        slope = weight * dot - behind * alpha / (ONE - alpha)
                        slope = choose(both(on, splat(MOST) > alpha), slope, NOUGHT)
                        on_plane = choose(flat, slope, NOUGHT)
                        filtered = slope - on_plane
                        m, nl = m + slope, nl + filtered
                        mly = fused(filtered, splat(dy), mly)
                        back = choose(flat, (np.float32(2) * LN2) * on_plane * over, NOUGHT)
                        gu, gv = NOUGHT - back * u, NOUGHT - back * v
                        ge = fused(back, square, choose(flat, near * at, NOUGHT))
                        nu, muy = nu + gu, fused(gu, splat(dy), muy)
                        nv, mvy = nv + gv, fused(gv, splat(dy), mvy)
                        ne, mey = ne + ge, fused(ge, splat(dy), mey)
                    mu, mux, mv, mvx = mu + nu, fused(nu, dx, mux), mv + nv, fused(nv, dx, mvx)
                    me, mex, mlx = me + ne, fused(ne, dx, mex), fused(nl, dx, mlx)
                _fold(folded, features, summed, m, mu, mux, muy, mv, mvx, mvy, me, mex, mey, mlx, mly, md)
                _write_sums(sums_, s, features, a0, a1, b0, b1, opacity, ex, ey, summed)
            # Those beyond where the tile was full are seen by nobody.
            for k in range(ends[tile], starts[tile + 1]):
                sums_[slots[k] * long : (slots[k] + 1) * long] = NOUGHT

    return gradient
