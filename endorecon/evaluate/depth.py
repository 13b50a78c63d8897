"""Errors of depth maps, by the field's usual figures (Eigen et al., NeurIPS 2014).

Every figure is computed for each image and averaged over images. Which scale was given away is part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from video_io.errors import InputError

Scaling = Literal["none", "frame", "clip"]
DepthPair = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]
FIGURES = ("AbsRel", "SqRel", "RMSE", "RMSE log", "delta 1", "delta 2", "delta 3", "L1")
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
        l1: mean of |d - t| in the unit of the truth.
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
    l1: float = float("nan")

    def to_dict(self) -> dict[str, float | int | str]:
        """Plain values by name."""
        return asdict(self)


@dataclass(frozen=True)
class DepthRows:
    """The figures of each frame, before they are averaged.

    Attributes:
        frames: (N,) number in `pairs` of each frame with a pixel to compare.
        values: (N, 8), by column as in `FIGURES`.
        scales: (N,) factor on each prediction.
        compared, with_truth: pixels compared and pixels with truth, over all frames.
        empty: frames with truth that have no valid pixel.
    """

    frames: NDArray[np.int64]
    values: NDArray[np.float64]
    scales: NDArray[np.float64]
    compared: int
    with_truth: int
    empty: int


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
    return errors_of(depth_rows(pairs, scaling), scaling)


def errors_of(rows: DepthRows, scaling: Scaling) -> DepthErrors:
    """The means of the figures of each frame."""
    *figures, l1 = rows.values.mean(0).tolist()
    share = rows.compared / rows.with_truth
    return DepthErrors(scaling, float(np.median(rows.scales)), *figures, share, len(rows.values), rows.empty, l1)


def depth_rows(pairs: Iterable[DepthPair], scaling: Scaling) -> DepthRows:
    """The figures of each frame; arguments and errors as in `depth_errors`."""
    if scaling not in get_args(Scaling):
        raise ValueError(f"scaling is none, frame or clip, found '{scaling}'")
    return scaled_rows(pairs, clip_scale(pairs)) if scaling == "clip" else rows_of_scalings(pairs, (scaling,))[scaling]


def scaled_rows(pairs: Iterable[DepthPair], scale: float) -> DepthRows:
    """The figures of each frame with one factor for all; errors as in `depth_errors`."""
    return _rows(pairs, {"clip": lambda d, t: scale})["clip"]


def rows_of_scalings(
    pairs: Iterable[DepthPair], scalings: Sequence[Scaling] = get_args(Scaling)
) -> dict[Scaling, DepthRows]:
    """The figures of each frame by several scalings, which are read together; errors as in `depth_errors`."""
    ways: dict[Scaling, _Way] = {
        "none": lambda d, t: 1.0,
        "frame": lambda d, t: float(np.median(t) / np.median(d)),
    }
    ratios: list[NDArray[np.float64]] = []
    found = _rows(pairs, {k: w for k, w in ways.items() if k in scalings}, ratios)
    if "clip" in scalings:
        found["clip"] = scaled_rows(pairs, float(np.median(np.concatenate(ratios))))
    return found


_Way = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


def _rows(
    pairs: Iterable[DepthPair], ways: dict[Scaling, _Way], ratios: list[NDArray[np.float64]] | None = None
) -> dict[Scaling, DepthRows]:
    frames, rows, scales, used, known, empty = [], [], [], 0, 0, 0
    for number, pair in enumerate(pairs):
        prediction, truth, with_truth = compared(number, *pair)
        known += with_truth
        used += len(truth)
        if len(truth) == 0:
            empty += with_truth > 0
            continue
        frames.append(number)
        scales.append([way(prediction, truth) for way in ways.values()])
        rows.append([depth_figures(prediction * scale, truth) for scale in scales[-1]])
        if ratios is not None:
            ratios.append(some_ratios(prediction, truth))
    if not frames:
        raise InputError(
            "no frame has a pixel with both true and predicted depth; expected a run of the clip that the truth is for"
        )
    at = np.array(frames)
    return {
        k: DepthRows(at, np.array([r[i] for r in rows]), np.array([s[i] for s in scales]), used, known, int(empty))
        for i, k in enumerate(ways)
    }


def depth_figures(prediction: ArrayLike, truth: ArrayLike) -> tuple[float, ...]:
    """AbsRel, SqRel, RMSE, RMSE log, delta 1 to 3, L1 (`FIGURES`) of positive depths (N,) against true ones (N,)."""
    d, t = np.asarray(prediction, float), np.asarray(truth, float)
    error, log, ratio = d - t, np.log(d / t), np.maximum(d / t, t / d)
    square = error**2
    return (
        float(np.mean(np.abs(error) / t)),
        float(np.mean(square / t)),
        float(np.sqrt(np.mean(square))),
        float(np.sqrt(np.mean(log**2))),
        *(float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)),
        float(np.mean(np.abs(error))),
    )


def compared(
    number: int | str, prediction: NDArray[np.float32], valid: NDArray[np.bool_], truth: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Predictions and truths at the pixels that have both, and the number of pixels with truth.

    Raises:
        InputError: different sizes, or a valid prediction or a truth that is no positive number; the sentence names
            the frame, `number`.
    """
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


def clip_scale(pairs: Iterable[DepthPair]) -> float:
    """The one factor of a clip: the median of truth / prediction over all pixels, at most 20,000 a frame."""
    ratios = []
    for number, pair in enumerate(pairs):
        d, t, _ = compared(number, *pair)
        ratios.append(some_ratios(d, t))
    together = np.concatenate(ratios) if ratios else np.zeros(0)
    return float(np.median(together)) if len(together) else 1.0


def some_ratios(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """truth / prediction of at most 20,000 pixels, evenly spaced."""
    step = -(-len(prediction) // _RATIOS_A_FRAME) or 1
    return truth[::step] / prediction[::step]
