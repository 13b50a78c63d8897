"""What a protocol gives: figures as papers print them, the corrected ones beside, and under which conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
How = Literal["mean", "rms", "median", "psnr"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Sample:
    """The values of one sequence that a figure sums up.

    Attributes:
        values: (N,) one value a frame, pair of frames, window or point, in the order of time where there is one.
        how: the figure is their mean, root mean square or median, or the PSNR, dB, of a mean squared error of
            images in [0, 1]: -10 log10(mean).
        weights: (N,) how much each value counts, for `mean`, `rms` and `psnr`; None: alike.
        over: what a value stands for, a word in the plural, such as `frames`.
    """

    values: Float
    how: How = "mean"
    weights: Float | None = None
    over: str = "frames"

    @staticmethod
    def of(values: ArrayLike, how: How = "mean", weights: ArrayLike | None = None, over: str = "frames") -> Sample:
        """From anything that is an array."""
        weighed = None if weights is None else np.asarray(weights, float).reshape(-1)
        return Sample(np.asarray(values, float).reshape(-1), how, weighed, over)

    @property
    def value(self) -> float:
        """The figure."""
        return summary([self], "frames")


def summary(samples: Sequence[Sample], pool: Literal["frames", "sequences"]) -> float:
    """One figure of several sequences: over all their values together, or the mean of the figure of each."""
    if pool == "sequences" and len(samples) > 1:
        return float(np.mean([s.value for s in samples]))
    values = np.concatenate([s.values for s in samples])
    weights = None
    if samples[0].weights is not None:
        weights = np.concatenate([np.asarray(s.weights) for s in samples])
    how = samples[0].how
    if how == "median":
        return float(np.median(values))
    mean = float(np.average(values**2 if how == "rms" else values, weights=weights))
    if how == "psnr":
        return float(-10 * np.log10(mean)) if mean > 0 else float("inf")
    return float(np.sqrt(mean)) if how == "rms" else mean


@dataclass(frozen=True)
class Figure:
    """One figure of a sequence, as the protocol prints it and corrected.

    Attributes:
        name: its name in the field's tables.
        published: what the protocol computes; None where it has no such figure.
        corrected: what should be read instead; None where there is nothing to correct.
        unit: of both, or empty.
        better: which way is good.
        pool: over several sequences, whether all frames count together or each sequence once.
        differs: in a few words, what the corrected figure does otherwise.
    """

    name: str
    published: Sample | None
    corrected: Sample | None
    unit: str = ""
    better: Better = "lower"
    pool: Literal["frames", "sequences"] = "frames"
    differs: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a protocol found for one sequence.

    Attributes:
        figures: in the order of the protocol's table.
        alignment: what was given away to the published figure, in words.
        corrected_alignment: the same of the corrected one.
        frames: frames (or poses) that entered.
        valid_share: share of the pixels with truth that have a prediction; NaN where no pixels are compared.
        notes: what the reader must know: where this run departs from the protocol's own data.
    """

    figures: tuple[Figure, ...]
    alignment: str
    corrected_alignment: str
    frames: int
    valid_share: float = float("nan")
    notes: tuple[str, ...] = ()
