"""Confidence intervals: whole sequences, or blocks of the one there is."""

from __future__ import annotations

import numpy as np
import pytest

from endorecon.evaluate import bootstrap
from endorecon.evaluate.bootstrap import block_length, interval
from endorecon.evaluate.figures import Sample, summary


def correlated(n: int, rho: float, seed: int) -> np.ndarray:
    """x_t = rho x_(t-1) + e_t."""
    noise = np.random.default_rng(seed).normal(size=n)
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = rho * x[i - 1] + noise[i]
    return x


def test_a_figure_of_several_sequences_by_hand():
    a, b = Sample.of([1, 3]), Sample.of([5, 5, 5, 5])
    # all six values together: 24 / 6; each sequence once: (2 + 5) / 2
    assert summary([a, b], "frames") == 4 and summary([a, b], "sequences") == 3.5
    rms = [Sample.of([3, 4], "rms"), Sample.of([5], "rms")]
    assert summary(rms, "frames") == pytest.approx(np.sqrt(50 / 3))
    assert summary(rms, "sequences") == pytest.approx((np.sqrt(12.5) + 5) / 2)
    assert Sample.of([0.01, 0.001], "psnr").value == pytest.approx(-10 * np.log10(0.0055))
    assert Sample.of([1, 9, 2], "median").value == 2
    assert Sample.of([1, 4], weights=[3, 1]).value == pytest.approx(1.75)


@pytest.mark.parametrize(
    ("n", "rho", "seed", "arch"),
    # arch 8.0: arch.bootstrap.optimal_block_length(correlated(n, rho, seed))["circular"][0]
    [(300, 0.9, 0, 19.31), (300, 0.5, 1, 4.87), (300, 0.0, 2, 0.96), (60, 0.8, 3, 7.03), (1000, 0.95, 4, 56.29)],
)
def test_the_length_of_blocks_agrees_with_another_program(n, rho, seed, arch):
    # a lag more or less in the choice of the window moves it by less than a fifth
    assert block_length(correlated(n, rho, seed)) == pytest.approx(arch, abs=1, rel=0.2)


def test_blocks_hold_the_truth_as_often_as_they_say_where_single_frames_do_not():
    held = {"blocks": 0, "single frames": 0}
    rng = np.random.default_rng(0)
    for seed in range(60):
        x = correlated(600, 0.8, seed + 100)
        found = interval([Sample.of(x)], draws=200)
        assert found is not None and found.by == "blocks"
        held["blocks"] += found.low < 0 < found.high
        means = x[rng.integers(0, len(x), (200, len(x)))].mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        held["single frames"] += low < 0 < high
    # 57 are promised; blocks come to 89 %, single frames to 41 %
    assert held["blocks"] >= 48 and held["single frames"] <= 33


def test_sequences_are_drawn_whole():
    # three sequences whose frames are all alike: any draw is a mean of 1, 2 and 6
    samples = [Sample.of([v] * 50) for v in (1.0, 2.0, 6.0)]
    found = interval(samples)
    assert found is not None and (found.by, found.units) == ("sequences", 3)
    # the chance of three times the same is 1 / 27 = 3.7 %, so both ends are reached
    assert (found.low, found.high) == (1, 6) and "so few" in found.words
    assert "so few" not in interval(samples * 2).words
    one = interval([samples[0]])
    assert one is not None and (one.low, one.high) == (1, 1) and "one sequence" in one.words


def test_too_little_to_resample_and_the_same_every_time():
    assert interval([Sample.of([3.0])]) is None and interval([Sample.of([3.0, 4.0])]) is None
    x = [Sample.of(correlated(100, 0.5, 0))]
    assert interval(x) == interval(x)


def test_draws_against_a_plain_loop():
    """Blocks by running sums and sequences by their sums give what taking the values one by one gives."""
    rng = np.random.default_rng(3)
    for how in ("mean", "rms", "psnr", "median"):
        one = Sample.of(rng.random(23), how, None if how == "median" else rng.random(23))
        starts = rng.integers(0, 23, (5, 6))
        for row, found in zip(starts, bootstrap._of_blocks(one, 4, starts), strict=True):
            at = np.concatenate([(s + np.arange(4)) % 23 for s in row])[:23]
            weights = None if one.weights is None else one.weights[at]
            assert found == pytest.approx(Sample(one.values[at], how, weights).value)
        several = [Sample.of(rng.random(n), how) for n in (3, 5, 8)]
        drawn = rng.integers(0, 3, (5, 3))
        for pool in ("frames", "sequences"):
            for row, found in zip(drawn, bootstrap._of_sequences(several, pool, drawn), strict=True):
                assert found == pytest.approx(summary([several[i] for i in row], pool))
