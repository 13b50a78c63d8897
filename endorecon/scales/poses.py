"""The path of a tracker or a robot in millimetres, whatever its axes: the similarity that fits the run's path to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endorecon.evaluate.trajectory import matched
from endorecon.run import Run
from endorecon.scales.base import ScaleEstimate, unit_mm
from video_io.errors import InputError
from video_io.trajectory import Trajectory, align

UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
LEAST_POSES = 4


def read_path(path: Path) -> Trajectory:
    """A trajectory in TUM's format.

    Raises:
        InputError: no such file, or one of another format.
    """
    try:
        return Trajectory.read_tum(path)
    except OSError as error:
        raise InputError(f"the path '{path}' can't be read ({error.strerror}); give a TUM file of poses") from error
    except ValueError as error:
        raise InputError(f"the path can't be used: {error}; give a TUM file, time_s tx ty tz qx qy qz qw") from error


def measure(run: Run, trajectory: Trajectory, unit: str, name: str) -> ScaleEstimate:
    """From poses with the times of the run (Umeyama 1991). A hand-eye offset shows in the error, not in the scale, as
    long as the camera moves more than it turns.

    Args:
        run: with a trajectory.
        trajectory: of the tracker, `unit` is its unit: mm, cm or m.
        name: of its file, for the record.

    Raises:
        InputError: fewer than four poses of the same times, or a camera that stands still.
    """
    ours, theirs = matched(run.trajectory, trajectory)
    if len(ours) < LEAST_POSES:
        raise InputError(
            f"{len(ours)} poses of '{name}' have the time of a frame of the run; expected at least {LEAST_POSES}: is "
            "it the path of this clip, with its times in seconds?"
        )
    try:
        fit = align(ours.centres, theirs.centres, with_scale=True)
    except ValueError as error:
        raise InputError(f"the path of '{name}' tells no scale: {error}; expected a camera that moves") from error
    spread = float(np.sqrt(((theirs.centres - theirs.centres.mean(0)) ** 2).sum(1).mean()))
    miss = float(np.sqrt(((fit.apply(ours.centres) - theirs.centres) ** 2).sum(1).mean()))
    if spread < 1e-9:
        raise InputError(f"the path of '{name}' tells no scale: it stands still; expected a camera that moves")
    # Neighbouring frames err alike: the misses count as those of a few independent poses.
    log_std = max(miss / spread / np.sqrt(LEAST_POSES), 1e-4)
    mm_per_unit = fit.scale * UNITS_MM[unit] * (unit_mm(run) or 1.0)
    return ScaleEstimate(f"the path in '{name}'", float(mm_per_unit), float(log_std))
