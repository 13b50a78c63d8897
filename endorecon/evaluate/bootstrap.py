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
        None where there is too little to resample: one sequence with fewer than three blocks.
    """
    rng = np.random.default_rng(seed)
    tail = 50 * (1 - level)
    if len(samples) > 1:
        drawn = rng.integers(0, len(samples), (draws, len(samples)))
        values = [summary([samples[i] for i in row], pool) for row in drawn.tolist()]
        return Interval(*_percentiles(values, tail), "sequences", len(samples), level)
    (sample,) = samples
    count = len(sample.values)
    length = block_length(sample.values)
    if count < _FEWEST_BLOCKS * length:
        return None
    starts = rng.integers(0, count, (draws, -(-count // length)))
    within = np.arange(length)
    values = []
    for row in starts:
        indices = ((row[:, None] + within).reshape(-1)[:count]) % count
        values.append(sample.take(indices).value)
    return Interval(*_percentiles(values, tail), "blocks", length, level)


def _percentiles(values: Sequence[float], tail: float) -> tuple[float, float]:
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
