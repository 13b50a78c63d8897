"""Errors of a camera path (Sturm et al., IROS 2012; Zhang and Scaramuzza, IROS 2018)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from video_io.errors import InputError
from video_io.trajectory import Similarity, Trajectory, align


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors of the poses that have a true counterpart.

    Attributes:
        poses: poses compared.
        truth_poses: poses that the truth has.
        path_length: length of the true path over the compared poses, in the unit of the truth.
        ate_sim3, ate_se3: root mean square distance of camera centres after the best similarity and after the best
            rigid transform (absolute trajectory error), in the unit of the truth.
        ate_sim3_percent, ate_se3_percent: the same in % of the path length.
        scale: factor from the run's unit to the truth's, of the similarity.
        rpe_translation: root mean square error of the motion from one compared pose to the next, after that factor.
        rpe_rotation_rad: the same of the rotation.
        rotation_median_rad: median angle between true and aligned orientation, aligned by `align_poses`.
    """

    poses: int
    truth_poses: int
    path_length: float
    ate_sim3: float
    ate_sim3_percent: float
    ate_se3: float
    ate_se3_percent: float
    scale: float
    rpe_translation: float
    rpe_rotation_rad: float
    rotation_median_rad: float

    def to_dict(self) -> dict[str, float | int]:
        """Plain values by name."""
        return asdict(self)


def match(times_ns: NDArray[np.int64], truth_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the times and of the true times that belong together: nearest, within half a frame of the truth.

    Each is used once at most. Both inputs must rise; so do both results.
    """
    times_ns, truth_ns = np.asarray(times_ns, np.int64), np.asarray(truth_ns, np.int64)
    if len(times_ns) == 0 or len(truth_ns) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    tolerance = float(np.median(np.diff(truth_ns))) / 2 if len(truth_ns) > 1 else 0.5e9
    after = np.clip(np.searchsorted(truth_ns, times_ns), 1, max(len(truth_ns) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(truth_ns) - 1)
    nearest = np.where(np.abs(truth_ns[after] - times_ns) < np.abs(times_ns - truth_ns[before]), after, before)
    gap = np.abs(truth_ns[nearest] - times_ns)
    best: dict[int, int] = {}
    for i, (n, g) in enumerate(zip(nearest.tolist(), gap.tolist(), strict=True)):
        if g <= tolerance and (n not in best or g < gap[best[n]]):
            best[n] = i
    truth = np.array(sorted(best), np.int64)
    return np.array([best[n] for n in truth.tolist()], np.int64), truth


def matched(run: Trajectory, truth: Trajectory) -> tuple[Trajectory, Trajectory]:
    """Both trajectories, cut down to the poses that belong together by time."""
    a, b = match(run.times_ns, truth.times_ns)
    return (
        Trajectory(run.times_ns[a], run.world_from_cam[a]),
        Trajectory(truth.times_ns[b], truth.world_from_cam[b]),
    )


def align_poses(run: Trajectory, truth: Trajectory) -> Similarity:
    """The similarity from the run's world to the truth's that fits positions and orientations together.

    Positions alone leave the turn about a straight path open, so each camera also counts with the tips of its axes,
    as long as the path's spread. Both trajectories hold the same moments (`matched`).
    """
    scale = _fit(run, truth, True).scale
    reach = float(np.sqrt(((truth.centres - truth.centres.mean(0)) ** 2).sum(1).mean()))

    def corners(path: Trajectory, length: float) -> NDArray[np.float64]:
        tips = path.centres[:, None, :] + length * path.world_from_cam[:, :3, :3].transpose(0, 2, 1)
        return np.concatenate([path.centres[:, None, :], tips], 1).reshape(-1, 3)

    rotation = align(corners(run, reach / scale), corners(truth, reach), with_scale=True).rotation
    # the axes' tips carry no scale of their own: scale and translation are the centres'
    a, b = run.centres @ rotation.T, truth.centres
    a0, b0 = a - a.mean(0), b - b.mean(0)
    factor = max(float((a0 * b0).sum() / (a0 * a0).sum()), 1e-9)
    return Similarity(factor, rotation, b.mean(0) - factor * a.mean(0))


def trajectory_errors(run: Trajectory, truth: Trajectory) -> TrajectoryErrors:
    """Errors of a run's trajectory, matched by time.

    Raises:
        InputError: a pose that is not finite, fewer than three poses that match, or a camera that stands still.
    """
    for name, path in (("run", run), ("truth", truth)):
        if not np.isfinite(path.world_from_cam).all():
            raise InputError(f"the trajectory of the {name} holds NaN; a frame without a pose must be left out of it")
    total = len(truth)
    run, truth = matched(run, truth)
    if len(run) < 3:
        raise InputError(
            f"{len(run)} poses of the run match a true pose in time within half a frame; expected 3 or more: "
            "is this the truth of the same clip, at the same frame rate?"
        )
    sim3, se3 = _fit(run, truth, True), _fit(run, truth, False)
    length = truth.length
    ate_sim3, ate_se3 = _rmse(sim3.apply(run.centres) - truth.centres), _rmse(se3.apply(run.centres) - truth.centres)
    turned = align_poses(run, truth).rotation @ run.world_from_cam[:, :3, :3]
    rotation = angles(turned.transpose(0, 2, 1) @ truth.world_from_cam[:, :3, :3])
    step, true_step = steps(run), steps(truth)
    return TrajectoryErrors(
        poses=len(run),
        truth_poses=total,
        path_length=length,
        ate_sim3=ate_sim3,
        ate_sim3_percent=100 * ate_sim3 / length,
        ate_se3=ate_se3,
        ate_se3_percent=100 * ate_se3 / length,
        scale=sim3.scale,
        rpe_translation=_rmse(sim3.scale * step[:, :3, 3] - true_step[:, :3, 3]),
        rpe_rotation_rad=float(
            np.sqrt(np.mean(angles(step[:, :3, :3].transpose(0, 2, 1) @ true_step[:, :3, :3]) ** 2))
        ),
        rotation_median_rad=float(np.median(rotation)),
    )


def position_errors(
    run: Trajectory, truth: Trajectory, with_scale: bool = True
) -> tuple[NDArray[np.float64], Similarity]:
    """Distance of each aligned camera centre from the true one, (N,), and the alignment; same moments (`matched`).

    Raises:
        InputError: a camera that stands still.
    """
    fit = _fit(run, truth, with_scale)
    return np.linalg.norm(fit.apply(run.centres) - truth.centres, axis=1), fit


def _fit(run: Trajectory, truth: Trajectory, with_scale: bool) -> Similarity:
    try:
        if truth.length < 1e-9:
            raise ValueError("the true camera stands still")
        return align(run.centres, truth.centres, with_scale)
    except ValueError as error:
        raise InputError(f"the path can't be aligned with the truth: {error}; expected a moving camera") from error


def steps(path: Trajectory) -> NDArray[np.float64]:
    """Each pose in the frame of the one before, (N - 1, 4, 4)."""
    return np.linalg.inv(path.world_from_cam[:-1]) @ path.world_from_cam[1:]


def angles(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles of rotations (N, 3, 3), rad."""
    return Rotation.from_matrix(rotations).magnitude()


def _rmse(differences: NDArray[np.float64]) -> float:
    return float(np.sqrt((differences**2).sum(1).mean()))
