"""A starved H.264 stream: blocks whose detail is gone, colour in coarse steps, blocks that stay as they were until the
next key picture, and macroblocks lost on the way.

No encoder, but what one does: macroblocks predicted from the decoded picture before, each moved by its motion vector;
an 8 x 8 cosine transform of what is left, in coarse steps; half as many samples of colour each way; and blocks skipped
where little is left (ITU-T H.264, clauses 8.3 to 8.5, without the deblocking filter). On a phantom colon the severities
come to 35.8, 33.1, 30.8, 28.9 and 26.8 dB, x264 at crf 28, 34, 38, 42 and 46 to 35.2, 32.8, 30.9, 28.9 and 26.6.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.corruptions import Effect, Image

GROUP = "recording"
ABOUT = "a starved H.264 stream: blocks without detail, stuck blocks, lost ones"

_STEP = (14.0, 26.0, 44.0, 72.0, 115.0)  # of the transform's steps, grey levels
_LOST = (0.0, 0.0, 0.003, 0.01, 0.025)  # share of the macroblocks, a picture
_KEY = 24  # pictures from one key picture to the next
_MACRO = 16
Float32 = NDArray[np.float32]


def _basis() -> Float32:
    k, n = np.arange(8.0)[:, None], np.arange(8.0)[None]
    basis = np.cos(np.pi * (2 * n + 1) * k / 16) / 2
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


_DCT = _basis()
# Fine detail gets coarser steps.
_WEIGHT = (1 + 0.22 * (np.arange(8.0)[:, None] + np.arange(8.0)[None])).astype(np.float32)


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    tall, wide = -(-height // _MACRO) * _MACRO, -(-width // _MACRO) * _MACRO
    step, lost = _STEP[severity - 1], _LOST[severity - 1]
    draws = np.random.default_rng(rng.integers(2**62))
    last: list[tuple[list[Float32], NDArray[np.uint8]]] = []  # as decoded, and the source's luma
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    seen = 0

    def effect(rgb: Image, time_s: float) -> Image:
        nonlocal seen
        planes = _planes(rgb, tall, wide)
        key = seen % _KEY == 0
        luma = planes[0].astype(np.uint8)
        before = None
        if last:
            decoded, luma_before = last.pop()
            vectors = _vectors(search, luma, luma_before)
            before = [_moved(plane, vectors, wide // plane.shape[1]) for plane in decoded]
        # A key picture repairs all losses; until then they stay.
        coded = [
            _coded(plane, None if key or before is None else before[i], step * (1.0 if i == 0 else 1.3))
            for i, plane in enumerate(planes)
        ]
        _lose(coded, before, draws.random((tall // _MACRO, wide // _MACRO)) < lost, draws)
        last.append((coded, luma))
        seen += 1
        return _picture(coded, height, width)

    return effect


def _planes(rgb: Image, tall: int, wide: int) -> list[Float32]:
    """Luma, and both colour differences at half the size."""
    ycc = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)
    down, right = tall - rgb.shape[0], wide - rgb.shape[1]
    ycc = cv2.copyMakeBorder(ycc, 0, down, 0, right, cv2.BORDER_REPLICATE)
    luma, *colour = cv2.split(ycc)
    small = [cv2.resize(c, (wide // 2, tall // 2), interpolation=cv2.INTER_AREA) for c in colour]
    return [plane.astype(np.float32) for plane in (luma, *small)]


def _vectors(search: cv2.DISOpticalFlow, luma: NDArray[np.uint8], before: NDArray[np.uint8]) -> Float32:
    """(rows, columns, 2) px: where each macroblock comes from, in half pixels, as its mean optical flow tells."""
    tall, wide = luma.shape
    if min(tall, wide) < 64:  # too small to search in
        return np.zeros((tall // _MACRO, wide // _MACRO, 2), np.float32)
    half = [cv2.resize(p, (wide // 2, tall // 2), interpolation=cv2.INTER_AREA) for p in (luma, before)]
    flow = 2 * search.calc(half[0], half[1], None)
    means = cv2.resize(flow, (wide // _MACRO, tall // _MACRO), interpolation=cv2.INTER_AREA)
    return (np.round(2 * means) / 2).astype(np.float32)


def _moved(plane: Float32, vectors: Float32, shrunk: int) -> Float32:
    """The decoded plane, each block brought from where its vector points; colour planes are `shrunk` by 2."""
    tall, wide = plane.shape
    size = _MACRO // shrunk
    x, y = (np.kron(vectors[..., i] / shrunk, np.ones((size, size), np.float32)) for i in (0, 1))
    x += np.arange(wide, dtype=np.float32)[None]
    y += np.arange(tall, dtype=np.float32)[:, None]
    return cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _coded(plane: Float32, before: Float32 | None, step: float) -> Float32:
    """The plane as the decoder has it."""
    predicted = np.float32(128) if before is None else before
    blocks = _blocks(plane - predicted)
    if before is not None:
        # Whatever has changed by less than a quarter of a step is not sent at all.
        quiet = np.abs(blocks).mean((2, 3), keepdims=True) < 0.22 * step
    coefficients = _DCT @ blocks @ _DCT.T
    # A dead zone about zero, as encoders have; the mean, of which the eye is critical, in finer steps.
    weight = step * _WEIGHT
    weight[0, 0] = 0.5 * step
    whole = np.sign(coefficients) * np.floor(np.abs(coefficients) / weight + 0.33)
    residual = _DCT.T @ (whole * weight) @ _DCT
    if before is not None:
        residual = np.where(quiet, np.float32(0), residual)
    return np.clip(predicted + residual.transpose(0, 2, 1, 3).reshape(plane.shape), 0, 255)


def _blocks(plane: Float32) -> Float32:
    """(rows, columns, 8, 8)."""
    h, w = plane.shape
    return np.ascontiguousarray(plane.reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3))


def _lose(
    coded: list[Float32], before: list[Float32] | None, lost: NDArray[np.bool_], draws: np.random.Generator
) -> None:
    """Lost macroblocks, with those that follow in their slice, show the picture before, or their left neighbours."""
    for row, column in np.argwhere(lost).tolist():
        length = int(draws.integers(2, 7))
        for i, plane in enumerate(coded):
            size = _MACRO if i == 0 else _MACRO // 2
            top, left = row * size, column * size
            right = min(left + length * size, plane.shape[1])
            if before is not None:
                plane[top : top + size, left:right] = before[i][top : top + size, left:right]
            elif left:
                plane[top : top + size, left:right] = plane[top : top + size, left - 1 : left]


def _picture(coded: list[Float32], height: int, width: int) -> Image:
    luma, *colour = (np.round(plane).astype(np.uint8) for plane in coded)
    size = (luma.shape[1], luma.shape[0])
    ycc = cv2.merge([luma, *(cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in colour)])
    return np.ascontiguousarray(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)[:height, :width])
