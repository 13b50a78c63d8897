"""A run that is the truth but for errors of a known amount: what the error budget is checked with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from endorecon.run import FrameRow, RunWriter
from endorecon.scenes.tsdf import TsdfScene
from video_io.datasets import open_truth
from video_io.errors import InputError
from video_io.trajectory import Similarity, Trajectory
from video_io.view import View

Float = NDArray[np.float64]
PoseKind = Literal["jitter", "drift"]
DepthKind = Literal["frames", "patches", "bias"]


@dataclass(frozen=True)
class PutIn:
    """What was put in: root mean square displacement of the points that the pixels see, mm, by poses and by depth."""

    pose: float
    depth: float


def spoiled_run(
    truth_dir: Path,
    out: Path,
    pose_mm: float = 0.0,
    depth_share: float = 0.0,
    pose_kind: PoseKind = "jitter",
    depth_kind: DepthKind = "frames",
    seed: int = 0,
    world: Similarity | None = None,
) -> PutIn:
    """Write a run whose poses and depths are those of a clip's truth, with errors.

    Args:
        truth_dir: a clip with poses, camera and depth, as `simulate` writes it.
        out: the run folder.
        pose_mm: size of the poses' errors: root mean square of the shift; the turn is such that it moves the median
            depth by half as much.
        depth_share: size of the depths' errors as a share of the depth.
        pose_kind: `jitter`: each pose by itself; `drift`: slow waves along the path.
        depth_kind: `frames`: a factor a frame; `patches`: a smooth field of factors in each frame; `bias`: one factor.
        seed: of the errors.
        world: moves and scales the run's world; in millimetres and the truth's own unless given.

    Returns:
        What the errors amount to, computed from the truth and the errors alone.

    Raises:
        InputError: a truth without poses, camera or depth.
    """
    truth = open_truth(truth_dir)
    if truth.trajectory is None or truth.camera is None or truth.read_depth is None:
        raise InputError(f"'{truth_dir}' lacks poses, camera or depth; expected what `endorecon simulate` writes")
    rng = np.random.default_rng(seed)
    camera, true = truth.camera, truth.trajectory
    rays = camera.ray_map().astype(np.float64)
    factor = np.linalg.norm(rays, axis=-1) / rays[..., 2]  # ray length of a z-depth
    first = truth.depth(0)
    assert first is not None
    median = float(np.median(first[first > 0]))
    poses = _spoiled_poses(true.world_from_cam, pose_mm, median, pose_kind, rng)
    scene, squares = TsdfScene.for_depth(median), []
    unit = world or Similarity(1.0, np.eye(3), np.zeros(3))
    moved = Trajectory(true.times_ns, poses).transformed(unit.matrix, unit.scale)
    with RunWriter(out, {"input": str(truth_dir)}) as writer:
        view = View(camera.width, camera.height, (0, 0, camera.width, camera.height), camera.width, camera.height)
        writer.camera(camera, camera, view, estimated=False)
        one = depth_share * rng.choice([-1.0, 1.0])
        for i, pose in enumerate(poses):
            depth = truth.depth(i)
            assert depth is not None
            error = _depth_errors(depth.shape, depth_share, depth_kind, one, rng)
            known = depth > 0
            local = (rays / rays[..., 2:] * depth[..., None])[known]
            change = pose @ np.linalg.inv(true.world_from_cam[i])
            there = local @ true.world_from_cam[i][:3, :3].T + true.world_from_cam[i][:3, 3]
            by_pose = ((there @ change[:3, :3].T + change[:3, 3] - there) ** 2).sum(1).mean()
            squares.append((by_pose, ((error * depth * factor)[known] ** 2).mean()))
            spoiled = (depth * (1 + error)).astype(np.float32)
            confidence = known.astype(np.float32)
            writer.depth(i, spoiled * np.float32(unit.scale), confidence)
            scene.integrate_depth(np.zeros((*depth.shape, 3), np.uint8), spoiled, confidence, camera, pose)
        rows = [FrameRow(i, int(t), "tracked") for i, t in enumerate(true.times_ns.tolist())]
        mesh = scene.mesh().transformed(unit.matrix, unit.scale)
        scale = "mm: the truth's" if world is None else "up to scale"
        writer.finish(rows, moved, mesh, scale=scale, main_segment=0)
    by_pose, by_depth = np.sqrt(np.mean(squares, 0)).tolist()
    return PutIn(by_pose, by_depth)


def _spoiled_poses(poses: Float, size: float, lever: float, kind: PoseKind, rng: np.random.Generator) -> Float:
    from scipy.spatial.transform import Rotation

    n = len(poses)
    if kind == "jitter":
        errors = rng.standard_normal((n, 6))
    else:
        # two to four whole waves: a line or a bend along the path would be taken out by aligning it
        at = np.linspace(0, 2 * np.pi, n)[:, None, None] * np.arange(2, 5)
        phase, weight = rng.uniform(0, 2 * np.pi, (6, 3)), rng.standard_normal((6, 3))
        errors = (weight * np.sin(at + phase)).sum(-1)
    errors /= np.maximum(np.sqrt((errors**2).mean(0)), 1e-12)
    errors *= size / np.sqrt(3)
    out = poses.copy()
    out[:, :3, :3] = Rotation.from_rotvec(errors[:, 3:] * (0.5 / lever)).as_matrix() @ poses[:, :3, :3]
    out[:, :3, 3] += errors[:, :3]
    return out


def _depth_errors(shape: tuple[int, ...], size: float, kind: DepthKind, one: float, rng: np.random.Generator) -> Float:
    """Relative errors of a depth map of this shape."""
    if kind == "bias":
        return np.full(shape, one)
    if kind == "frames":
        return np.full(shape, size * float(np.clip(rng.standard_normal(), -2.5, 2.5)))
    import cv2

    field = cv2.resize(rng.standard_normal((4, 5)), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return size * np.clip(field / field.std(), -3, 3)
