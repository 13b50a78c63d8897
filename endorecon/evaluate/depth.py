"""Errors of depth maps, by the field's usual figures (Eigen et al., NeurIPS 2014).

Every figure is computed for each image and averaged over images. Which scale was given away is part of the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError

Scaling = Literal["none", "frame", "clip"]
DepthPair = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]
_RATIOS_A_FRAME = 20_000


@dataclass(frozen=True)
class DepthErrors:
    """Errors over the pixels that have truth and are valid in the prediction.

    Attributes:
        scaling: what was given away: nothing, the ratio of medians of each frame, or one factor for the clip.
        scale: the factor on the prediction (the median over frames where each has its own).
        abs_rel, sq_rel: mean of |d - t| / t, and of (d - t)^2 / t in the unit of the truth.
        rmse, rmse_log: root mean square of d - t in the unit of the truth, and of log d - log t.
        delta1, delta2, delta3: share of pixels with max(d / t, t / d) below 1.25, 1.25^2, 1.25^3.
        valid_share: share of the pixels with truth that the prediction has a depth for, over all frames: errors of
            two methods can be compared only where these shares are alike.
        frames: frames that entered the means.
        frames_empty: frames with truth that have no valid pixel.
    """

    scaling: Scaling
    scale: float
    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    delta1: float
    delta2: float
    delta3: float
    valid_share: float
    frames: int
    frames_empty: int

    def to_dict(self) -> dict[str, float | int | str]:
        """Plain values by name."""
        return asdict(self)


def depth_errors(pairs: Iterable[DepthPair], scaling: Scaling) -> DepthErrors:
    """Errors of predicted depth maps.

    Args:
        pairs: (prediction (H, W), valid (H, W) bool, truth (H, W), 0 = none) of each frame; gone through twice, so
            a list or an object whose iteration starts anew, not a generator.
        scaling: `none`; `frame`: each frame is multiplied by median(truth) / median(prediction); `clip`: all frames
            by the median of truth / prediction over all pixels (at most 20,000 a frame, evenly spaced).

    Raises:
        InputError: a valid prediction or a truth that is no positive number, maps of different sizes, or no frame
            with a pixel to compare.
    """
    if scaling not in get_args(Scaling):
        raise ValueError(f"scaling is none, frame or clip, found '{scaling}'")
    clip_scale = _clip_scale(pairs) if scaling == "clip" else 1.0
    rows, scales, used, known, empty = [], [], 0, 0, 0
    for number, pair in enumerate(pairs):
        prediction, truth, with_truth = _compared(number, *pair)
        known += with_truth
        used += len(truth)
        if len(truth) == 0:
            empty += with_truth > 0
            continue
        scale = float(np.median(truth) / np.median(prediction)) if scaling == "frame" else clip_scale
        scales.append(scale)
        rows.append(_figures(prediction * scale, truth))
    if not rows:
        raise InputError(
            "no frame has a pixel with both true and predicted depth; expected a run of the clip that the truth is for"
        )
    return DepthErrors(
        scaling, float(np.median(scales)), *np.mean(rows, 0).tolist(), used / known, len(rows), empty
    )


def _figures(d: NDArray[np.float64], t: NDArray[np.float64]) -> tuple[float, ...]:
    ratio = np.maximum(d / t, t / d)
    return (
        float(np.mean(np.abs(d - t) / t)),
        float(np.mean((d - t) ** 2 / t)),
        float(np.sqrt(np.mean((d - t) ** 2))),
        float(np.sqrt(np.mean((np.log(d) - np.log(t)) ** 2))),
        *(float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)),
    )


def _compared(
    number: int, prediction: NDArray[np.float32], valid: NDArray[np.bool_], truth: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Predictions and truths at the pixels that have both, and the number of pixels with truth."""
    if not prediction.shape == valid.shape == truth.shape:
        raise InputError(
            f"frame {number} of the comparison: prediction {prediction.shape}, valid {valid.shape} and truth "
            f"{truth.shape} differ in size; bring them to the same pixels"
        )
    if np.isnan(truth).any():
        raise InputError(f"frame {number} of the comparison: the truth holds NaN; expected 0 where there is none")
    with_truth = truth > 0
    both = with_truth & valid
    d, t = prediction[both].astype(np.float64), truth[both].astype(np.float64)
    bad = int(np.count_nonzero(~(np.isfinite(d) & (d > 0))))
    if bad:
        raise InputError(
            f"frame {number} of the comparison: {bad} of {len(d)} predicted depths with confidence above 0 are no "
            "positive numbers; a depth that is not known must have confidence 0"
        )
    return d, t, int(with_truth.sum())


def _clip_scale(pairs: Iterable[DepthPair]) -> float:
    ratios = []
    for number, pair in enumerate(pairs):
        d, t, _ = _compared(number, *pair)
        step = -(-len(d) // _RATIOS_A_FRAME) or 1
        ratios.append(t[::step] / d[::step])
    together = np.concatenate(ratios) if ratios else np.zeros(0)
    return float(np.median(together)) if len(together) else 1.0
