"""Depth of the SimCol3D challenge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.case import Case, DepthFrame
from endorecon.evaluate.depth import clip_scale, compared
from endorecon.evaluate.figures import Figure, Outcome, Sample
from endorecon.evaluate.protocol import DepthPairs
from endorecon.evaluate.protocols._depth import check_mm

ABOUT = "depth of the SimCol3D challenge: one scale for the sequence from each image's mean, cm, all pixels"
SOURCE = "Rau et al., Medical Image Analysis 2024, evaluation/eval_synthetic_depth.py"
NEEDS = ("depth",)
RANGE_MM = 200.0  # a stored depth of 1 is 20 cm
_CM = 20.0
_AGAINST_ZERO = 10e-5


def measure(case: Case) -> Outcome:
    """Mean L1 and RMSE, cm, and mean of the images' median relative error, %.

    Predictions are submitted as float16 shares of 20 cm and clipped to [0, 1]; the scale is sum(p g) / sum(p^2) over
    the mean p of each predicted image and g of each true one; every pixel counts, also those without truth.
    Corrected: the median scale, true pixels alone, no rounding.
    """
    check_mm(case, "depths")
    means = np.array([[p.mean(), g.mean()] for p, g in (_submitted(f) for f in case.depth_frames())], float)
    scale = float((means[:, 0] * means[:, 1]).sum() / (means[:, 0] ** 2).sum())
    published = np.array([_errors(p * scale, g) for p, g in (_submitted(f) for f in case.depth_frames())])
    pairs = DepthPairs(case.run, case.truth)
    fair_scale, rows, used, known = clip_scale(pairs), [], 0, 0
    for number, pair in enumerate(pairs):
        d, t, with_truth = compared(number, *pair)
        used, known = used + len(t), known + with_truth
        if len(t):
            error = np.abs(d * fair_scale - t)
            rows.append((error.mean() / 10, 100 * np.median(error / t), np.sqrt((error**2).mean()) / 10))
    corrected = np.array(rows)
    differs = "median scale, only pixels with truth and prediction, no rounding to float16"
    figures = tuple(
        Figure(name, Sample.of(published[:, i]), Sample.of(corrected[:, i]), unit, pool="sequences", differs=differs)
        for i, (name, unit) in enumerate((("L1", "cm"), ("median relative error", "%"), ("RMSE", "cm")))
    )
    return Outcome(
        figures,
        f"one scale for the sequence, {scale:.4g}, from the means of the images",
        f"one scale for the sequence, {fair_scale:.4g}, the median of truth / prediction",
        len(published),
        used / known if known else float("nan"),
        ("a pixel without a prediction counts as depth 0 in the published figure",) if used < known else (),
    )


def _submitted(frame: DepthFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prediction and truth as shares of 20 cm, the first rounded to float16 and clipped."""
    depth, valid = frame.prediction()
    share = np.where(valid, depth, 0) / RANGE_MM
    return share.astype(np.float16).clip(0, 1).astype(np.float64), frame.truth.astype(np.float64) / RANGE_MM


def _errors(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float, float]:
    """L1 in cm, median relative error in %, RMSE in cm."""
    p, g = prediction * _CM, truth * _CM
    relative = float(np.median(np.abs((p - g) / (g + _AGAINST_ZERO)))) * 100
    return float(np.abs(p - g).mean()), relative, float(np.sqrt(((p - g) ** 2).mean()))
