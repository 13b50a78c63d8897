"""Pose in snippets of five frames, as the monocular-depth papers on SCARED print it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Figure, Outcome, Sample
from endorecon.evaluate.trajectory import angles

ABOUT = "pose in snippets of 5 frames as AF-SfMLearner and EndoDAC: sqrt(sum of squares) / N"
SOURCE = "Zhou et al., CVPR 2017 (kitti_eval); Shao et al. 2022 and Cui et al. 2024, evaluate_pose.py"
NEEDS = ("path",)
LENGTH = 5

Float = NDArray[np.float64]


def measure(case: Case) -> Outcome:
    """Mean over windows of the error of positions, and of the rotation.

    As published: the relative poses are P_(t+1) P_t^-1 with P world-to-camera; products of them, in their order, stand
    for positions; windows near the end are shorter, down to three positions; the scale of each window is least
    squares with the first position fixed; the error is sqrt(sum e^2) / N, which is the root mean square / sqrt(N).
    Corrected: the cameras' centres in the frame of the window's first camera, windows of five, sqrt(sum e^2 / N).
    """
    ours, theirs = case.paths()
    published = np.array([_published(a, b) for a, b in _windows(_published_steps(ours.world_from_cam),
                                                                _published_steps(theirs.world_from_cam))])  # fmt: skip
    corrected = np.array([_corrected(a, b) for a, b in _pose_windows(ours.world_from_cam, theirs.world_from_cam)])
    between = np.diff(theirs.times_ns)
    gaps = int((between > 1.5 * np.median(between)).sum())
    unit = case.unit
    differs = "camera centres, root mean square, whole windows alone"
    figures = [Figure("ATE of 5 frames", Sample.of(published[:, 0], over="windows"), _sample(corrected, 0), unit,
                      differs=differs),
               Figure("rotation", Sample.of(np.degrees(published[:, 1]), over="windows"),
                      _sample(np.degrees(corrected), 1), "deg", differs="without the first frame, which is 0 by "
                      "definition")]  # fmt: skip
    notes = [f"{len(published)} windows"]
    if gaps:
        notes.append(f"{gaps} gaps between poses: windows there span more time than in the papers")
    if case.run.segments > 1:
        notes.append(f"the longest of {case.run.segments} segments alone")
    return Outcome(tuple(figures), "each window: first position fixed, least-squares scale",
                   "the same", len(ours), notes=tuple(notes))  # fmt: skip


def _sample(values: Float, column: int) -> Sample | None:
    return Sample.of(values[:, column], over="windows") if len(values) else None


def _published_steps(world_from_cam: Float) -> Float:
    """Each camera-from-previous-camera transform: P_(t+1) P_t^-1 with P world-to-camera."""
    return np.linalg.inv(world_from_cam[1:]) @ world_from_cam[:-1]


def _windows(steps: Float, true_steps: Float) -> list[tuple[Float, Float]]:
    """Products of the next four steps, from each step but the last on."""
    return [
        (_products(steps[i : i + LENGTH - 1]), _products(true_steps[i : i + LENGTH - 1])) for i in range(len(steps) - 1)
    ]


def _products(steps: Float) -> Float:
    poses = [np.eye(4)]
    for step in steps:
        poses.append(poses[-1] @ step)
    return np.array(poses)


def _pose_windows(ours: Float, theirs: Float) -> list[tuple[Float, Float]]:
    """Five poses each, in the frame of the first."""
    return [
        (np.linalg.inv(ours[i]) @ ours[i : i + LENGTH], np.linalg.inv(theirs[i]) @ theirs[i : i + LENGTH])
        for i in range(len(ours) - LENGTH + 1)
    ]


def _scaled_error(a: Float, b: Float) -> float:
    """Sum of squares of what a least-squares scale leaves of the positions, both of which begin at 0."""
    p, g = a[:, :3, 3], b[:, :3, 3]
    square = float((p**2).sum())
    scale = float((g * p).sum()) / square if square > 0 else 0.0
    return float(((scale * p - g) ** 2).sum())


def _published(a: Float, b: Float) -> tuple[float, float]:
    turned = angles(b[:, :3, :3] @ a[:, :3, :3].transpose(0, 2, 1))
    return np.sqrt(_scaled_error(a, b)) / len(a), float(turned.sum()) / len(a)


def _corrected(a: Float, b: Float) -> tuple[float, float]:
    turned = angles(b[1:, :3, :3] @ a[1:, :3, :3].transpose(0, 2, 1))
    return np.sqrt(_scaled_error(a, b) / len(a)), float(turned.mean())
