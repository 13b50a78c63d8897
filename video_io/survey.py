"""One pass over all frames of a clip: the figures from which cuts, repetitions, and frames of no use are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.curate import colour_change, likeness
from video_io.frame import Frame

_WIDTH = 320
_COMB_SIZE = 480, 640  # rows and columns in which a comb is looked for
_UNLIKE, _COLOURS = 0.6, 0.25  # correlation and change of colours at a cut, as in `curate.is_cut`
_LEAST_ALIKE, _ALONE, _CALM_FRAMES = 0.97, 6.0, 4
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
        alike: correlation of the coarse picture with the one before; 1 first.
        cut: whether another scene begins.
    """

    index: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    change: Float
    bright: Float
    warm: Float
    pale: Float
    alike: Float
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
        change, cut, alike, other = np.nan, False, 1.0, 0.0
        if before is not None and before[0].shape == grey.shape:
            change = float(cv2.mean(cv2.absdiff(before[0], grey))[0])
            alike = likeness(before[1], small)
            other = colour_change(before[1], small) if alike < _LEAST_ALIKE else 0.0
            cut = other >= _COLOURS and alike < _UNLIKE
        warm, pale = colours(small.rgb)
        rows.append((frame.index, frame.time_ns, change, float(np.percentile(grey, 95)), warm, pale, alike, other, cut))
        before = grey, small
    columns = np.array(rows, float).reshape(-1, 9).T
    index, time_ns = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    return Survey(index, time_ns, *columns[2:7], (columns[8] > 0) | _jumps(columns[6], columns[7]))


def _jumps(alike: Float, colour: Float) -> NDArray[np.bool_]:
    """Cuts between scenes that look alike: one step that is far larger than those around it, in a calm clip.

    Fast motion has several such steps; a change of the light alone leaves the coarse picture as it is.
    """
    found = np.zeros(len(alike), bool)
    step = 1 - alike
    for i in np.flatnonzero(step > 1 - _LEAST_ALIKE):
        around = np.r_[step[max(0, i - _CALM_FRAMES) : i], step[i + 1 : i + 1 + _CALM_FRAMES]]
        alone = len(around) >= _CALM_FRAMES and step[i] > _ALONE * max(float(around.max()), 1e-3)
        found[i] = alone and (colour[i] > _COLOURS or step[i] > 1 - _UNLIKE)
    return found


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

    Two fields woven into one picture of a moving scene differ line by line, and the lines of one field do not: then
    both figures rise above 1. Noise and texture leave the first near .5 and the second near 1. Energies of second
    differences.
    """
    # The middle is enough, and quick in a large picture.
    top, left = (max(0, (size - most) // 4 * 2) for size, most in zip(rgb.shape, _COMB_SIZE, strict=False))
    green = rgb[top : top + _COMB_SIZE[0], left : left + _COMB_SIZE[1], 1].astype(np.float32)
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
    return Frame.of(cv2.resize(frame.rgb, (_WIDTH, height), interpolation=cv2.INTER_AREA), frame.index, frame.time_ns)
