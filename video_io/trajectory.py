"""Where the camera was: times and poses, their file format, and their alignment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from video_io.files import read_text

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """Poses over time.

    Attributes:
        times_ns: (N,) int64, strictly rising.
        world_from_cam: (N, 4, 4) float64, rigid; millimetres, or up to scale where the source says so.
    """

    times_ns: NDArray[np.int64]
    world_from_cam: Float

    def __post_init__(self) -> None:
        times = np.asarray(self.times_ns, np.int64).reshape(-1)
        poses = np.asarray(self.world_from_cam, np.float64).reshape(-1, 4, 4)
        object.__setattr__(self, "times_ns", times)
        object.__setattr__(self, "world_from_cam", poses)
        if len(times) != len(poses):
            raise ValueError(f"a trajectory needs one pose a time, found {len(times)} times and {len(poses)} poses")
        if np.any(np.diff(times) <= 0):
            raise ValueError("a trajectory's times must rise from pose to pose")
        rotation = poses[:, :3, :3]
        if len(poses) and not np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-4):
            raise ValueError(
                "a pose is not rigid: its rotation is not orthogonal (is the matrix transposed or scaled?)"
            )

    def __len__(self) -> int:
        return len(self.times_ns)

    @property
    def centres(self) -> Float:
        """Camera centres in the world, (N, 3)."""
        return self.world_from_cam[:, :3, 3]

    @property
    def length(self) -> float:
        """Length of the path, in the unit of the poses."""
        return float(np.linalg.norm(np.diff(self.centres, axis=0), axis=1).sum())

    def transformed(self, new_from_world: Float, scale: float = 1.0) -> Trajectory:
        """The trajectory after x -> scale * R x + t, with R and t from the rigid `new_from_world`."""
        poses = self.world_from_cam.copy()
        poses[:, :3, 3] *= scale
        return Trajectory(self.times_ns, new_from_world @ poses)

    def write_tum(self, path: Path) -> None:
        """Write `time_s tx ty tz qx qy qz qw`, camera-to-world, one line a pose."""
        from scipy.spatial.transform import Rotation

        quaternions = Rotation.from_matrix(self.world_from_cam[:, :3, :3]).as_quat()
        lines = [
            f"{t / 1e9:.9f} " + " ".join(f"{v:.9g}" for v in (*centre, *q))
            for t, centre, q in zip(self.times_ns.tolist(), self.centres, quaternions, strict=True)
        ]
        Path(path).write_text("\n".join(lines) + "\n" if lines else "")

    @staticmethod
    def read_tum(path: Path) -> Trajectory:
        """Read `time_s tx ty tz qx qy qz qw` lines; `#` starts a comment.

        Raises:
            ValueError: a line that has not 8 numbers, a zero quaternion, or times that do not rise.
        """
        from scipy.spatial.transform import Rotation

        rows = []
        for number, line in enumerate(read_text(path).splitlines(), 1):
            text = line.split("#")[0].split()
            if not text:
                continue
            try:
                row = [float(v) for v in text]
            except ValueError:
                row = []
            if len(row) != 8:
                raise ValueError(
                    f"{path}, line {number}: expected 8 numbers (time_s tx ty tz qx qy qz qw), found '{line[:60]}'"
                )
            rows.append(row)
        values = np.array(rows, float).reshape(-1, 8)
        if len(values) and np.any(np.linalg.norm(values[:, 4:], axis=1) < 1e-6):
            raise ValueError(f"{path}: a quaternion of length zero is no rotation")
        poses = np.tile(np.eye(4), (len(values), 1, 1))
        if len(values):
            poses[:, :3, :3] = Rotation.from_quat(values[:, 4:]).as_matrix()
            poses[:, :3, 3] = values[:, 1:4]
        return Trajectory(np.round(values[:, 0] * 1e9).astype(np.int64), poses)


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: Float
    translation: Float

    def apply(self, points: ArrayLike) -> Float:
        """Transform points (..., 3)."""
        return self.scale * np.asarray(points, float) @ self.rotation.T + self.translation

    @property
    def matrix(self) -> Float:
        """The rigid part as 4 x 4; the scale is not in it."""
        m = np.eye(4)
        m[:3, :3], m[:3, 3] = self.rotation, self.translation
        return m


def align(source: ArrayLike, target: ArrayLike, with_scale: bool) -> Similarity:
    """The rigid (SE3) or similarity (Sim3) transform that brings `source` points (N, 3) nearest to `target`.

    Least squares in closed form: Umeyama, PAMI 1991.

    Raises:
        ValueError: fewer than three points, or source points that all coincide.
    """
    a, b = np.asarray(source, float), np.asarray(target, float)
    if a.shape != b.shape or len(a) < 3:
        raise ValueError(f"alignment needs at least 3 pairs of points, found {a.shape} and {b.shape}")
    mean_a, mean_b = a.mean(0), b.mean(0)
    spread = float(((a - mean_a) ** 2).sum() / len(a))
    if spread < 1e-20:
        raise ValueError("alignment needs points that differ: all positions coincide (did the camera move?)")
    u, d, vt = np.linalg.svd((b - mean_b).T @ (a - mean_a) / len(a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = float((d * sign).sum() / spread) if with_scale else 1.0
    return Similarity(scale, rotation, mean_b - scale * rotation @ mean_a)
