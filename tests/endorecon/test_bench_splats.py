"""What the bench of Gaussians says of a run's history."""

from __future__ import annotations

from tools.bench_splats import nearest

HISTORY = [[31.0, 400, 25000, 24.5, 0.5], [118.0, 1600, 40000, 27.25, 0.61], [149.0, 2000, 41000, 27.5, 0.62],
           [300.1, 4000, 42000, 29.0, 0.65]]  # fmt: skip


def test_figures_nearest_to_a_time() -> None:
    assert nearest(HISTORY, 2) == "27.25 / 0.610"
    assert nearest(HISTORY, 5) == "29.00 / 0.650"
    assert nearest(HISTORY, 15) == "29.00 / 0.650 (300 s)"  # ended early
    assert nearest([[30.0, 10, 100, None, None]], 0.5) == "-"
