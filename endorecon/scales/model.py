"""A depth model that gives millimetres: its own scale in each frame, against that of the run."""

from __future__ import annotations

import numpy as np

from endorecon.run import Run
from endorecon.scales.base import ScaleEstimate, mean_of_frames
from video_io.errors import InputError

MOST_PERCENT = 100.0


def measure(run: Run, percent: float) -> ScaleEstimate:
    """From the factor by which each frame's network depth had to be scaled to fit the run.

    Models learn what is usual where they were trained, and err by a factor where a case is not: how sure they are can't
    be told from a clip, so it has to be said.

    Args:
        run: of a model whose depth is in millimetres.
        percent: by how much its scale is off, one standard deviation, as its makers or a validation say.

    Raises:
        InputError: a percentage that is none, or a run that does not tell the factors.
    """
    if not 0 < percent <= MOST_PERCENT:
        raise InputError(f"the model's error is {percent:g} %; expected more than 0 and at most {MOST_PERCENT:g}")
    main = run.info.get("main_segment", 0)
    factors = [row.figures.get("depth_scale", np.nan) for row in run.rows if row.segment == main]
    known = np.array([f for f in factors if np.isfinite(f) and f > 0])
    if not len(known):
        raise InputError(f"the run in '{run.path}' does not tell its frames' depth_scale; reconstruct again")
    middle, spread = mean_of_frames(-np.log(known))
    name = run.info.get("model", {}).get("name", "")
    source = f"the depth model '{name}', which is said to be metric to {percent:g} %"
    return ScaleEstimate(source, float(np.exp(middle)), float(np.hypot(np.log1p(percent / 100), spread)))
