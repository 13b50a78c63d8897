"""Depth with a scale and a shift of disparity for the sequence, and TAE, as Video Depth Anything and EndoDAV do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.case import Case
from endorecon.evaluate.depth import depth_figures, depth_rows
from endorecon.evaluate.figures import Figure, Outcome, Sample
from endorecon.evaluate.protocols._depth import InRange, check_mm
from endorecon.evaluate.temporal import temporal_errors
from video_io.errors import InputError

ABOUT = "depth with a scale and a shift of disparity for the sequence, and TAE, as Video Depth Anything and EndoDAV"
SOURCE = "Chen et al., CVPR 2025, benchmark/eval/eval.py and eval_tae.py"
NEEDS = ("depth",)
_LEAST, _MOST_MM = 1e-3, 100_000.0  # metres (or 1 / metres); mm: the published 100 m is no cap
_SHOWN = (("AbsRel", 0, ""), ("RMSE", 2, "mm"), ("delta 1", 4, ""))


def measure(case: Case) -> Outcome:
    """AbsRel, RMSE, delta 1 and 100 TAE.

    A least-squares scale and shift from predicted to true disparity (1 / m) over all pixels of the sequence; the
    result is clipped at 1e-3 and inverted. Corrected: one scale, no shift; a prediction that is off by a constant
    disparity, and so has the wrong shape, gets a perfect published figure. TAE needs poses and a camera; the
    corrected one is the prediction's less the truth's own, which is what warping to the nearest pixel costs.
    """
    check_mm(case, "depths")
    pairs = InRange(case, 1.0, _MOST_MM)
    scale, shift, used, known = _fit(pairs)
    rows = [depth_figures(_aligned(d, scale, shift), t) for d, t in _values(pairs) if len(t)]
    published, corrected = np.array(rows), depth_rows(pairs, "clip").values
    figures = [
        Figure(name, Sample.of(published[:, i]), Sample.of(corrected[:, i]), unit,
               "higher" if name == "delta 1" else "lower", differs="one scale, no shift")
        for name, i, unit in _SHOWN
    ]  # fmt: skip
    notes = []
    if case.truth.trajectory is None or case.truth.camera is None:
        notes.append("no TAE: the truth has no poses or no camera")
    else:
        tae, own = temporal_errors(case, lambda d: _aligned(d, scale, shift))
        figures.append(
            Figure("100 TAE", Sample.of(100 * tae, over="pairs of frames"),
                   Sample.of(100 * (tae - own), over="pairs of frames"), "%",
                   differs="less the truth's own, which the warp costs")
        )  # fmt: skip
    return Outcome(
        tuple(figures),
        f"scale {scale:.4g} and shift {shift:.4g} / m of disparity for the sequence, by least squares",
        "one scale for the sequence: the median of truth / prediction",
        len(published),
        used / known,
        tuple(notes),
    )


def _values(pairs: InRange) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    for prediction, valid, truth in pairs:
        both = valid & (truth > 0)
        yield prediction[both].astype(np.float64), truth[both].astype(np.float64)


def _fit(pairs: InRange) -> tuple[float, float, int, int]:
    """Scale and shift from predicted disparity (as it comes) to 1 / m, pixels used and pixels with truth."""
    # sums about the first frame's means, so that nothing cancels
    sums, used, known, origin = np.zeros(5), 0, 0, None
    for prediction, valid, truth in pairs:
        both = valid & (truth > 0)
        known += int((truth > 0).sum())
        if not both.any():
            continue
        x, y = 1 / prediction[both].astype(np.float64), 1 / (truth[both].astype(np.float64) / 1000 + 1e-8)
        if origin is None:
            origin = x.mean(), y.mean()
        x, y = x - origin[0], y - origin[1]
        sums += [len(x), x.sum(), y.sum(), (x * x).sum(), (x * y).sum()]
        used += len(x)
    if origin is None:
        raise InputError("no frame has a pixel with both true and predicted depth")
    n, sx, sy, sxx, sxy = sums
    spread = sxx - sx * sx / n
    scale = float((sxy - sx * sy / n) / spread) if spread > 0 else 0.0
    return scale, float(origin[1] + sy / n - scale * (origin[0] + sx / n)), used, known


def _aligned(depth: NDArray[np.floating], scale: float, shift: float) -> NDArray[np.float64]:
    """Predicted depth (> 0) in mm after the scale and shift of its disparity."""
    disparity = np.maximum(scale / np.asarray(depth, np.float64) + shift, _LEAST)
    return np.clip(1 / disparity, _LEAST, _MOST_MM / 1000) * 1000
