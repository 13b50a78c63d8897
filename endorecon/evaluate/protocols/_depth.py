"""What the protocols for depth share: Monodepth2's evaluation, which AF-SfMLearner, EndoDAC and their kin use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.case import Case, DepthFrame
from endorecon.evaluate.depth import FIGURES, DepthPair, compared, depth_figures, depth_rows, scaled_rows, some_ratios
from endorecon.evaluate.figures import Figure, Outcome, Sample
from video_io.errors import InputError

Region = Callable[[DepthFrame], NDArray[np.bool_]]
HIGHER = ("delta 1", "delta 2", "delta 3")


class InRange:
    """(prediction, valid, truth) of each frame at the pixels where low < truth < high; iteration starts anew."""

    def __init__(self, case: Case, low: float, high: float, region: Region | None = None) -> None:
        self.case, self.low, self.high, self.region = case, low, high, region
        self.numbers: list[int] = []  # of the frames given so far

    def __iter__(self) -> Iterator[DepthPair]:
        self.numbers = []
        for frame in self.case.depth_frames():
            prediction, valid = frame.prediction_by_disparity()
            inside = (frame.truth > self.low) & (frame.truth < self.high)
            if self.region is not None:
                inside &= self.region(frame)
            self.numbers.append(frame.number)
            yield prediction, valid, np.where(inside, frame.truth, np.float32(0))


def box(top: int, bottom: int, left: int, right: int) -> Region:
    """The pixels of these rows and columns."""

    def region(frame: DepthFrame) -> NDArray[np.bool_]:
        inside = np.zeros(frame.truth.shape, bool)
        inside[top:bottom, left:right] = True
        return inside

    return region


def median_scaled(case: Case, low: float, high: float, region: Region | None = None, whole: bool = False) -> Outcome:
    """The seven figures of Eigen after Monodepth2: a median scale for each image, then a cap.

    The prediction is brought to the truth's size as disparity, scaled by the ratio of the medians over the pixels
    with low < truth < high, clamped to [low, high], and compared; figures are averaged over images. Corrected: one
    scale for the sequence, no clamp.

    Args:
        region: pixels that count; None: all.
        whole: whether all pixels count in the corrected figure nevertheless.

    Raises:
        InputError: truth that is not in mm, as the caps are, or nothing to compare.
    """
    check_mm(case, "depths")
    pairs = InRange(case, low, high, region)
    rows, ratios, used, known, empty = [], [], 0, 0, 0
    for pair in pairs:
        d, t, with_truth = compared(pairs.numbers[-1], *pair)
        known, used = known + with_truth, used + len(t)
        if len(t) == 0:
            empty += 1
            continue
        ratios.append(some_ratios(d, t))
        d *= np.median(t) / np.median(d)
        rows.append(depth_figures(np.clip(d, low, high), t))
    if not rows:
        raise InputError(f"no frame has a pixel with a prediction and a true depth between {low:g} and {high:g} mm")
    if whole:
        corrected = depth_rows(InRange(case, low, high), "clip").values
    else:
        corrected = scaled_rows(pairs, float(np.median(np.concatenate(ratios)))).values
    also = "the whole image, " if whole else ""
    return Outcome(
        eigen_figures(np.array(rows), corrected, f"{also}one scale for the sequence, no clamp"),
        f"a median scale for each image, clamped to {low:g} to {high:g} mm",
        f"{also}one scale for the sequence (median of truth / prediction)",
        len(rows),
        used / known,
        _notes(used, known, empty),
    )


def eigen_figures(
    published: NDArray[np.float64], corrected: NDArray[np.float64] | None, differs: str
) -> tuple[Figure, ...]:
    """The seven figures of Eigen, from (N, 8) values of each image, as `FIGURES` names them."""
    return tuple(
        Figure(
            name,
            Sample.of(published[:, i]),
            None if corrected is None else Sample.of(corrected[:, i]),
            "mm" if name in ("SqRel", "RMSE") else "",
            "higher" if name in HIGHER else "lower",
            differs=differs,
        )
        for i, name in enumerate(FIGURES[:7])
    )


def check_mm(case: Case, what: str) -> None:
    """Raise InputError unless the truth is in mm."""
    if case.truth.unit != "mm":
        raise InputError(f"the protocol caps {what} in mm, but the truth {case.truth.name} is {case.truth.unit}")


def _notes(used: int, known: int, empty: int) -> tuple[str, ...]:
    notes = []
    if used < known:
        notes.append(
            f"{100 * (1 - used / known):.2g} % of the true pixels have no prediction; the protocol's own methods "
            "predict every pixel, so compare valid shares too"
        )
    if empty:
        notes.append(f"{empty} frames have no pixel in range and do not count, as in the published code")
    return tuple(notes)
