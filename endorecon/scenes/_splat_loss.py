"""The loss of a rendered frame and its gradient, fused: L1 and D-SSIM of the colours, depth, and what stays open.

Colours are compared as the frame shows them: lit by what moves with the camera, a factor a pixel, and after the frame's
own exposure and white balance, a gain and an offset a channel. SSIM as in 3DGS:
a Gaussian window of 11 pixels, standard deviation 1.5, nothing beyond the border (Wang et al., IEEE TIP 2004); its
gradient by the three windowed sums over again, as fused-ssim does (Mallick et al., "Taming 3DGS", 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rendering.simd import LANES, lane_numbers, larger, load, smaller, splat, store
from rendering.splat import share, threads

Floats = NDArray[np.float32]
_TAPS, _HALF = 11, 5
_WEIGHTS = np.exp(-0.5 * ((np.arange(_TAPS) - _HALF) / 1.5) ** 2)
_W0, _W1, _W2, _W3, _W4, _W5 = (np.float32(w) for w in (_WEIGHTS / _WEIGHTS.sum())[: _HALF + 1])
C1, C2 = np.float32(0.01**2), np.float32(0.03**2)
MAPS = 5  # windowed sums: x, y, xx, yy, xy


@dataclass(frozen=True)
class Weights:
    """How much each part counts."""

    ssim: float = 0.2  # the rest of 1 is L1's
    depth: float = 0.1  # of |log depth - log measured|, by its confidence
    opening: float = 0.02  # of 1 - alpha


@dataclass(frozen=True)
class Loss:
    """A frame's loss and its gradients: images like the inputs, and gains and offsets (3,)."""

    value: float
    l1: float
    ssim: float
    depth: float
    g_color: Floats
    g_alpha: Floats
    g_depth: Floats
    g_light: Floats
    g_gain: Floats
    g_offset: Floats


@njit(cache=True, inline="always")
def _taps(a, i, step):  # type: ignore[no-untyped-def]
    """The window's sums around eight places of a flat array, from `i` + 5 steps on."""
    return (
        _W5 * load(a, i + 5 * step)
        + _W4 * (load(a, i + 4 * step) + load(a, i + 6 * step))
        + _W3 * (load(a, i + 3 * step) + load(a, i + 7 * step))
        + _W2 * (load(a, i + 2 * step) + load(a, i + 8 * step))
        + _W1 * (load(a, i + step) + load(a, i + 9 * step))
        + _W0 * (load(a, i) + load(a, i + 10 * step))
    )


@njit(nogil=True, cache=True, fastmath=True)
def shown_colours(start, end, color, light, gain, offset, target, use, out):  # type: ignore[no-untyped-def]
    """Write the rows `start` to `end` of the colours as the frame shows them, (3, H, S); like the target if unused."""
    for v in range(start, end):
        for u in range(color.shape[1]):
            for c in range(3):
                out[c, v, u] = gain[c] * light[v, u] * color[v, u, c] + offset[c] if use[v, u] else target[c, v, u]


@njit(nogil=True, cache=True, error_model="numpy")
def ssim_maps(start, end, x, y, height, width, stride, slopes):  # type: ignore[no-untyped-def]
    """SSIM of the rows `start` to `end`, summed, and its slopes by the windowed x, xx and xy, written.

    Args:
        x, y: flat (3, height, stride) images, 0 from `width` on. slopes: flat (3, 3, height, stride).
    """
    first, last = max(start - _HALF, 0), min(end + _HALF, height)
    wide, plane, rows = stride + 2 * LANES, height * stride, (end - start + 2 * _HALF) * stride
    line, across, summed = (
        np.zeros(MAPS * wide, np.float32),
        np.zeros(MAPS * rows, np.float32),
        np.zeros(LANES, np.float32),
    )
    total, one, two = 0.0, np.float32(1), np.float32(2)
    for c in range(3):
        for v in range(first, last):
            for u in range(0, stride, LANES):
                a, b, i = load(x, c * plane + v * stride + u), load(y, c * plane + v * stride + u), u + LANES
                store(line, i, a)
                store(line, i + wide, b)
                store(line, i + 2 * wide, a * a)
                store(line, i + 3 * wide, b * b)
                store(line, i + 4 * wide, a * b)
            for m in range(MAPS):
                at = m * rows + (v - start + _HALF) * stride
                for u in range(0, stride, LANES):
                    store(across, at + u, _taps(line, m * wide + u + LANES - _HALF, 1))
        for v in range(start, end):
            at, to = (v - start) * stride, c * plane + v * stride
            for u in range(0, stride, LANES):
                mx, my = _taps(across, at + u, stride), _taps(across, at + u + rows, stride)
                xx = _taps(across, at + u + 2 * rows, stride) - mx * mx
                yy = _taps(across, at + u + 3 * rows, stride) - my * my
                xy = _taps(across, at + u + 4 * rows, stride) - mx * my
                a, b = two * mx * my + C1, two * xy + C2
                p, q = mx * mx + my * my + C1, xx + yy + C2
                # nothing beyond the image
                over = smaller(larger(np.float32(width - u) - lane_numbers(), splat(np.float32(0))), splat(one)) / (
                    p * q
                )
                s = a * b * over
                store(summed, 0, s)
                total += (summed[0] + summed[1] + summed[2] + summed[3]) + (
                    summed[4] + summed[5] + summed[6] + summed[7]
                )
                by_xx, by_xy = splat(np.float32(0)) - s / q, two * a * over
                # xx and xy are less mx mx and mx my, so mx counts there too
                store(slopes, to + u, two * my * b * over - two * mx * s / p - two * mx * by_xx - my * by_xy)
                store(slopes, to + u + 3 * plane, by_xx)
                store(slopes, to + u + 6 * plane, by_xy)
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def ssim_gradient(start, end, x, y, height, stride, slopes, scale, out):  # type: ignore[no-untyped-def]
    """Write `scale` times the gradient of the summed SSIM by x, like x, for the rows `start` to `end`."""
    first, last = max(start - _HALF, 0), min(end + _HALF, height)
    plane, rows, two = height * stride, (end - start + 2 * _HALF) * stride, np.float32(2)
    line, across = np.zeros(stride + 2 * LANES, np.float32), np.zeros(3 * rows, np.float32)
    for c in range(3):
        for v in range(first, last):
            for m in range(3):
                for u in range(0, stride, LANES):
                    store(line, u + LANES, load(slopes, (3 * m + c) * plane + v * stride + u))
                for u in range(0, stride, LANES):
                    store(across, m * rows + (v - start + _HALF) * stride + u, _taps(line, u + LANES - _HALF, 1))
        for v in range(start, end):
            at, to = (v - start) * stride, c * plane + v * stride
            for u in range(0, stride, LANES):
                by_mean, by_xx = _taps(across, at + u, stride), _taps(across, at + u + rows, stride)
                by_xy = _taps(across, at + u + 2 * rows, stride)
                a, b = load(x, to + u), load(y, to + u)
                store(out, to + u, scale * (by_mean + two * a * by_xx + b * by_xy))


@njit(nogil=True, cache=True, fastmath=True)
def pixel_gradient(
    start, end, color, alpha, depth, x, y, use, measured, confidence, light, gain, g_ssim, l1, by_depth, by_alpha,
    g_color, g_alpha, g_depth, g_light, sums,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Gradients of the rows `start` to `end`; adds to `sums`: L1, depth error, opening, gains (3), offsets (3).

    `l1`, `by_depth`, `by_alpha` are the weights of a pixel; `g_ssim` (3, H, W) what SSIM says.
    """
    for v in range(start, end):
        for u in range(color.shape[1]):
            g_alpha[v, u], g_depth[v, u], g_light[v, u] = 0.0, 0.0, 0.0
            if not use[v, u]:
                g_color[v, u, 0], g_color[v, u, 1], g_color[v, u, 2] = 0.0, 0.0, 0.0
                continue
            for c in range(3):
                off = x[c, v, u] - y[c, v, u]
                g = g_ssim[c, v, u] + (l1 if off > 0 else -l1)
                sums[0] += abs(off)
                sums[3 + c] += g * light[v, u] * color[v, u, c]
                sums[6 + c] += g
                g_color[v, u, c] = g * gain[c] * light[v, u]
                g_light[v, u] += g * gain[c] * color[v, u, c]
            sums[2] += 1 - alpha[v, u]
            g_alpha[v, u] = -by_alpha
            weight = confidence[v, u]
            if weight > 0 and alpha[v, u] > 0.5:
                off = np.log(depth[v, u] / measured[v, u])
                sums[1] += weight * abs(off)
                g_depth[v, u] = (by_depth if off > 0 else -by_depth) * weight / depth[v, u]


def padded(rgb: NDArray[np.uint8]) -> Floats:
    """The colours of an (H, W, 3) image in [0, 1], (3, H, S): rows filled up with nothing to a multiple of eight."""
    h, w = rgb.shape[:2]
    out = np.zeros((3, h, -(-w // LANES) * LANES), np.float32)
    out[:, :, :w] = rgb.transpose(2, 0, 1).astype(np.float32) / 255
    return out


def frame_loss(
    color: Floats, alpha: Floats, depth: Floats, target: Floats, use: NDArray[np.bool_], measured: Floats,
    confidence: Floats, light: Floats, gain: Floats, offset: Floats, weights: Weights,
) -> Loss:  # fmt: skip
    """The loss of one frame.

    Args:
        color: (H, W, 3), alpha, depth: (H, W) as rendered.
        target: (3, H, S) the frame's colours in [0, 1], as `padded` makes them. use: (H, W) the pixels that count.
        measured, confidence: (H, W) depth, and how far it is believed, 0 where there is none.
        light: (H, W) the factor that each pixel's colours are seen with.
        gain, offset: (3,) of the frame's exposure and white balance.
    """
    (h, w), stride = alpha.shape, target.shape[2]
    workers, number = threads(), max(int(use.sum()), 1)
    x, g_ssim, slopes = np.zeros_like(target), np.empty_like(target), np.empty((3, *target.shape), np.float32)
    flat = x.reshape(-1), target.reshape(-1)
    rows = lambda i, of: (h * i // of, h * (i + 1) // of)  # noqa: E731
    share(lambda i, of: shown_colours(*rows(i, of), color, light, gain, offset, target, use, x), workers)
    ssim = sum(share(lambda i, of: ssim_maps(*rows(i, of), *flat, h, w, stride, slopes.reshape(-1)), workers))
    scale = np.float32(-weights.ssim / (3 * number))
    share(
        lambda i, of: ssim_gradient(
            *rows(i, of), *flat, h, stride, slopes.reshape(-1), scale, g_ssim.reshape(-1)
        ),
        workers,
    )  # fmt: skip
    g_color = np.empty((h, w, 3), np.float32)
    g_alpha, g_depth, g_light = (np.empty((h, w), np.float32) for _ in range(3))
    sums = np.zeros((workers, 9))
    each = [np.float32(v / number) for v in ((1 - weights.ssim) / 3, weights.depth, weights.opening)]
    share(
        lambda i, of: pixel_gradient(
            *rows(i, of), color, alpha, depth, x, target, use, measured, confidence, light, gain, g_ssim, *each,
            g_color, g_alpha, g_depth, g_light, sums[i],
        ),
        workers,
    )  # fmt: skip
    total = sums.sum(0) / number
    # The pixels that do not count are alike in both images: their SSIM is 1, and is taken out of the mean.
    ssim = 1 - (3 * h * w - ssim) / (3 * number)
    value = (1 - weights.ssim) * total[0] / 3 + weights.ssim * (1 - ssim)
    value += weights.depth * total[1] + weights.opening * total[2]
    gains = (sums.sum(0)[3:]).astype(np.float32)
    return Loss(value, total[0] / 3, ssim, total[1], g_color, g_alpha, g_depth, g_light, gains[:3], gains[3:])
