"""Camera path of the SimCol3D challenge."""

from __future__ import annotations

import numpy as np

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Figure, Outcome, Sample
from endorecon.evaluate.trajectory import angles, position_errors, steps

ABOUT = "path of the SimCol3D challenge: first poses laid together, scale from the steps, medians, cm"
SOURCE = "Rau et al., Medical Image Analysis 2024, evaluation/eval_synthetic_pose.py"
NEEDS = ("path",)


def measure(case: Case) -> Outcome:
    """ATE and RTE, cm, and ROT, degrees.

    Both paths begin at the identity; the scale is the least-squares ratio of the steps; the medians over frames of
    the distance, and over steps of the error of the relative pose. Corrected: root mean squares after a similarity.
    """
    ours, theirs = case.paths()
    step, true_step = steps(ours), steps(theirs)
    moved, true_moved = step[:, :3, 3], true_step[:, :3, 3]
    scale = float((true_moved * moved).sum() / (moved**2).sum())
    first, true_first = np.linalg.inv(ours.world_from_cam[0]), np.linalg.inv(theirs.world_from_cam[0])
    a, b = first @ ours.world_from_cam, true_first @ theirs.world_from_cam
    ate = np.linalg.norm(scale * a[:, :3, 3] - b[:, :3, 3], axis=1)
    step[:, :3, 3] *= scale
    error = np.linalg.inv(true_step) @ step
    rte, rot = np.linalg.norm(error[:, :3, 3], axis=1), angles(error[:, :3, :3])
    aligned, fit = position_errors(ours, theirs)
    fair = steps(ours)
    fair[:, :3, 3] *= fit.scale
    fair_rte = np.linalg.norm((np.linalg.inv(true_step) @ fair)[:, :3, 3], axis=1)
    cm, mm = 0.1 if case.unit else 1.0, "cm" if case.unit else ""
    differs = "root mean square after a similarity, not a median after laying the first poses together"

    def figure(name: str, unit: str, published: np.ndarray, corrected: np.ndarray, over: str) -> Figure:
        return Figure(name, Sample(published, "median", over=over), Sample(corrected, "rms", over=over), unit,
                      pool="sequences", differs=differs)  # fmt: skip

    return Outcome(
        (
            figure("ATE", mm, ate * cm, aligned * cm, "poses"),
            figure("RTE", mm, rte * cm, fair_rte * cm, "steps"),
            figure("ROT", "deg", np.degrees(rot), np.degrees(rot), "steps"),
        ),
        f"first poses laid together, scale {scale:.4g} from the steps",
        f"similarity (scale {fit.scale:.4g})",
        len(ours),
    )
