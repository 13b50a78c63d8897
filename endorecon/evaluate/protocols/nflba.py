"""Surface on C3VD as NFL-BA prints it."""

from __future__ import annotations

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Figure, Outcome, Sample

ABOUT = "surface as NFL-BA: Chamfer distance one way, from the truth to the estimate"
SOURCE = "Beltran et al. 2024 (2412.13176)"
NEEDS = ("surface",)


def measure(case: Case) -> Outcome:
    """The mean distance from the true surface in view to the estimated one.

    What was invented where there is nothing costs nothing one way. Corrected: the mean of both ways.
    """
    d = case.distances
    both = Sample.of(
        [*d.accuracy, *d.completeness],
        weights=[1 / len(d.accuracy)] * len(d.accuracy) + [1 / len(d.completeness)] * len(d.completeness),
        over="points",
    )
    figure = Figure("Chamfer", Sample(d.completeness, over="points"), both, case.unit, pool="sequences",
                    differs="the mean of both ways")  # fmt: skip
    words = f"similarity by positions and orientations of the cameras (scale {case.fit.scale:.4g})"
    frames = len(case.paths()[0]) if len(case.run.trajectory) else 0
    return Outcome((figure,), words, words, frames)
