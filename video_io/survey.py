"""One pass over all frames of a clip: the figures from which cuts, repetitions, and frames of no use are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.curate import is_cut
from video_io.frame import Frame

_WIDTH = 320
Float = NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """Figures of N frames, each (N,).

    Attributes:
        index: the frames' own numbers.
        time_ns: their times.
        change: mean absolute change from the frame before, grey levels of the smoothed image 320 px wide; NaN first.
        bright: 95th percentile of the grey level.
        warm: share of the lit pixels whose colour is tissue's, magenta to yellow.
        pale: share of the lit pixels with hardly any colour.
        cut: whether another scene begins.
    """

    index: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    change: Float
    bright: Float
    warm: Float
    pale: Float
    cut: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.index)


def survey(frames: Iterable[Frame]) -> Survey:
    """Look at every frame, in order, in bounded memory."""
    rows: list[tuple[float, ...]] = []
    before: tuple[NDArray[np.uint8], Frame] | None = None
    for frame in frames:
        small = _small(frame)
        grey = cv2.GaussianBlur(cv2.cvtColor(small.rgb, cv2.COLOR_RGB2GRAY), (5, 5), 0)
        change, cut = np.nan, False
        if before is not None and before[0].shape == grey.shape:
            change = float(cv2.mean(cv2.absdiff(before[0], grey))[0])
            cut = is_cut(before[1], small)
        warm, pale = colours(small.rgb)
        rows.append((frame.index, frame.time_ns, change, float(np.percentile(grey, 95)), warm, pale, cut))
        before = grey, small
    columns = np.array(rows, float).reshape(-1, 7).T
    index, time_ns = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    return Survey(index, time_ns, *columns[2:6], columns[6] > 0)


def colours(rgb: NDArray[np.uint8]) -> tuple[float, float]:
    """Share of the lit pixels that are as warm as tissue (hue magenta to yellow, some saturation), and of pale ones."""
    hsv = cv2.cvtColor(rgb[::2, ::2], cv2.COLOR_RGB2HSV)
    lit = hsv[..., 2] > 30
    count = np.count_nonzero(lit)
    if count < 0.01 * lit.size:
        return 0.0, 0.0
    hue, saturation = hsv[..., 0], hsv[..., 1]
    coloured = saturation > 45
    warm = coloured & ((hue <= 28) | (hue >= 140))
    return np.count_nonzero(warm & lit) / count, np.count_nonzero(~coloured & lit) / count


def comb(rgb: NDArray[np.uint8]) -> tuple[float, float]:
    """How much a line differs from its two neighbours, as a share of how much it differs from the next but one; and the
    same relative to columns.

    Two fields woven into one picture of a moving scene differ line by line, and the lines of one field do not: then both
    figures rise above 1. Noise and texture leave the first near .5 and the second near 1. Energies of second differences.
    """
    green = rgb[..., 1].astype(np.float32)
    rows, columns = (_roughness(image) for image in (green, green.T))
    return rows, rows / max(columns, 1e-6)


def _roughness(image: NDArray[np.float32]) -> float:
    near = image[2:-2] - 0.5 * (image[1:-3] + image[3:-1])
    far = image[2:-2] - 0.5 * (image[:-4] + image[4:])
    return float(np.mean(near * near)) / max(float(np.mean(far * far)), 1e-6)


def _small(frame: Frame) -> Frame:
    height = max(2, round(frame.height * _WIDTH / frame.width))
    if frame.width <= _WIDTH:
        return frame
    return Frame.of(
        cv2.resize(frame.rgb, (_WIDTH, height), interpolation=cv2.INTER_AREA), frame.index, frame.time_ns
    )
