"""Confidence intervals by resampling: whole sequences, or blocks of frames where there is one sequence only.

Neighbouring frames of a video show nearly the same, so an interval that takes frames as independent is too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.figures import Sample, summary

DRAWS = 2000
LEVEL = 0.95
FEW_SEQUENCES = 6
_FEWEST_BLOCKS = 3
_MOST_AT_ONCE = 4_000_000  # blocks that are drawn together, for the memory
_WITHOUT_ORDER = ("points", "surfaces")  # neighbours in the list are none in space, so there are no blocks


@dataclass(frozen=True)
class Interval:
    """An interval of confidence, by percentiles.

    Attributes:
        low, high: its ends.
        by: `sequences`, or `blocks` of the one sequence.
        units: sequences that were resampled, or the length of a block, in values.
        level: how often such an interval holds the figure, if the sequences (frames) are typical.
    """

    low: float
    high: float
    by: Literal["sequences", "blocks"]
    units: int
    level: float = LEVEL

    @property
    def words(self) -> str:
        """How it was found."""
        if self.by == "sequences":
            few = f", so few that it is rather too narrow (want {FEW_SEQUENCES})" if self.units < FEW_SEQUENCES else ""
            return f"{100 * self.level:g} % by bootstrap over {self.units} sequences{few}"
        return (
            f"{100 * self.level:g} % by bootstrap over blocks of {self.units} of one sequence: "
            "it says nothing of other sequences"
        )


def interval(
    samples: Sequence[Sample],
    pool: Literal["frames", "sequences"] = "frames",
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval | None:
    """The interval of `summary(samples, pool)`.

    Several sequences are drawn whole, with replacement. One sequence is drawn in circular blocks (Politis and Romano,
    1992) that are as long as `block_length` says. What a sample's values rest on together, such as an alignment, is
    kept as it is.

    Returns:
        None where there is too little to resample: one sequence with fewer than three blocks, or points of a surface.
    """
    rng = np.random.default_rng(seed)
    if len(samples) > 1:
        values = _of_sequences(samples, pool, rng.integers(0, len(samples), (draws, len(samples))))
        return Interval(*_percentiles(values, level), "sequences", len(samples), level)
    (sample,) = samples
    count = len(sample.values)
    length = block_length(sample.values) if sample.over not in _WITHOUT_ORDER else count
    if count < _FEWEST_BLOCKS * length:
        return None
    blocks = -(-count // length)
    at_once = max(1, _MOST_AT_ONCE // blocks)
    values = np.concatenate(
        [
            _of_blocks(sample, length, rng.integers(0, count, (min(at_once, draws - done), blocks)))
            for done in range(0, draws, at_once)
        ]
    )
    return Interval(*_percentiles(values, level), "blocks", length, level)


def _of_sequences(
    samples: Sequence[Sample], pool: Literal["frames", "sequences"], drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The figure of each draw of sequences, rows of `drawn`."""
    if pool == "sequences":
        return np.array([s.value for s in samples])[drawn].mean(1)
    if samples[0].how == "median":
        return np.array([summary([samples[i] for i in row], pool) for row in drawn.tolist()])
    sums = np.array([_terms(s)[0].sum() for s in samples])[drawn].sum(1)
    weights = np.array([_terms(s)[1].sum() for s in samples])[drawn].sum(1)
    return _finished(sums / weights, samples[0])


def _of_blocks(sample: Sample, length: int, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The figure of each draw of blocks that begin at `starts`, (draws, blocks); the last block is cut to fit."""
    count = len(sample.values)
    lengths = np.full(starts.shape[1], length)
    lengths[-1] = count - length * (starts.shape[1] - 1)
    if sample.how == "median":
        within = np.concatenate([np.arange(n) for n in lengths])
        at = np.repeat(starts, lengths, axis=1) + within
        return np.median(sample.values[at % count], axis=1)
    # sums of blocks by differences of running sums, twice around
    terms, weights = (np.concatenate([[0.0], np.cumsum(np.tile(x, 2))]) for x in _terms(sample))
    total, weight = ((x[starts + lengths] - x[starts]).sum(1) for x in (terms, weights))
    return _finished(total / weight, sample)


def _terms(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is summed up, and the weights."""
    weights = np.ones(len(sample.values)) if sample.weights is None else sample.weights
    return (sample.values**2 if sample.how == "rms" else sample.values) * weights, weights


def _finished(means: NDArray[np.float64], sample: Sample) -> NDArray[np.float64]:
    """The figure from the means of its terms."""
    if sample.how == "psnr":
        return -10 * np.log10(np.maximum(means, 1e-300))
    return np.sqrt(np.maximum(means, 0)) if sample.how == "rms" else means


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def block_length(values: NDArray[np.float64]) -> int:
    """How long the blocks of a circular bootstrap of the mean should be, by the series' own correlation.

    The automatic choice of Politis and White (Econometric Reviews 2004) with the correction of Patton, Politis and
    White (2009): b = (2 G^2 / D)^(1/3) n^(1/3) with D = 4/3 g(0)^2 from flat-top windowed autocovariances. At least
    1, at most a third of the series.
    """
    x = np.asarray(values, float)
    n = len(x)
    if n < 4 or not np.ptp(x) > 0:
        return 1
    centred = x - x.mean()
    most = min(int(np.ceil(np.sqrt(n))) + max(5, int(np.ceil(np.log10(n)))), n - 1)
    covariance = np.array([centred[: n - k] @ centred[k:] / n for k in range(most + 1)])
    correlation = covariance / covariance[0]
    bound, run = 2 * np.sqrt(np.log10(n) / n), max(5, int(np.ceil(np.sqrt(np.log10(n)))))
    small = np.abs(correlation[1:]) < bound
    # the lag after which `run` correlations in a row are negligible, or else the last that is not
    lag = next((k for k in range(len(small) - run + 1) if small[k : k + run].all()), None)
    if lag is None:
        lag = int(np.flatnonzero(~small)[-1]) + 1 if (~small).any() else 1
    reach = min(2 * max(lag, 1), most)
    k = np.arange(-reach, reach + 1)
    window = np.clip(2 * (1 - np.abs(k) / reach), 0, 1)
    lagged = covariance[np.abs(k)]
    g = float((window * np.abs(k) * lagged).sum())
    d = 4 / 3 * float((window * lagged).sum()) ** 2
    if d <= 0:
        return 1
    length = (2 * g**2 / d) ** (1 / 3) * n ** (1 / 3)
    return int(min(max(np.ceil(length), 1), np.ceil(min(3 * np.sqrt(n), n / 3))))
