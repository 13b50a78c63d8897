"""Depth with one scale for the sequence, as reconstruction papers (Endo3R and its kin) print it."""

from __future__ import annotations

import numpy as np

from endorecon.evaluate.case import Case
from endorecon.evaluate.depth import compared, depth_figures, depth_rows
from endorecon.evaluate.figures import Outcome
from endorecon.evaluate.protocols._depth import InRange, check_mm, eigen_figures
from video_io.errors import InputError

ABOUT = "depth with one scale for the sequence as Endo3R's table: ratio of the medians over all its pixels, cap 150 mm"
SOURCE = "Guo et al., MICCAI 2025 (its script is not public: the ratio of medians is DUSt3R's family's)"
NEEDS = ("depth",)
LOW_MM, HIGH_MM = 1e-3, 150.0
_MOST_PIXELS = 40_000_000  # of which the medians are taken; of more, evenly spaced ones


def measure(case: Case) -> Outcome:
    """The seven figures after one ratio of medians over the sequence, averaged over images.

    Corrected: the median of the ratios, which does not favour the far pixels.
    """
    check_mm(case, "depths")
    pairs = InRange(case, LOW_MM, HIGH_MM)
    predicted, true, used, known = [], [], 0, 0
    for pair in pairs:
        d, t, with_truth = compared(pairs.numbers[-1], *pair)
        step = max(1, len(d) * len(case.run.indices) // _MOST_PIXELS)
        predicted.append(d[::step].astype(np.float32))
        true.append(t[::step].astype(np.float32))
        used, known = used + len(t), known + with_truth
    if not used:
        raise InputError(f"no frame has a pixel with a prediction and a true depth up to {HIGH_MM:g} mm")
    scale = float(np.median(np.concatenate(true)) / np.median(np.concatenate(predicted)))
    rows = (compared(pairs.numbers[-1], *pair) for pair in pairs)
    published = np.array([depth_figures(d * scale, t) for d, t, _ in rows if len(t)])
    corrected = depth_rows(pairs, "clip").values
    return Outcome(
        eigen_figures(published, corrected, "the scale is the median of truth / prediction"),
        f"one scale for the sequence, {scale:.4g}: the ratio of the medians",
        "one scale for the sequence: the median of truth / prediction",
        len(published),
        used / known,
    )
