"""Trajectories: the TUM format and alignment, with numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from video_io.trajectory import Trajectory, align

# World (1, 2, 3), turned by 90 degrees about z: the camera's x axis looks along the world's y axis.
QUARTER = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def test_tum_line_is_time_translation_quaternion_xyzw(tmp_path: Path) -> None:
    path = tmp_path / "t.tum"
    Trajectory(np.array([1_500_000_000]), QUARTER[None]).write_tum(path)
    values = [float(v) for v in path.read_text().split()]
    np.testing.assert_allclose(values, [1.5, 1, 2, 3, 0, 0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-9)


def test_tum_is_camera_to_world(tmp_path: Path) -> None:
    path = tmp_path / "t.tum"
    path.write_text("# time_s tx ty tz qx qy qz qw\n0.04 1 2 3 0 0 1 1  # need not be a unit quaternion\n")
    trajectory = Trajectory.read_tum(path)
    assert trajectory.times_ns.tolist() == [40_000_000]
    np.testing.assert_allclose(trajectory.world_from_cam[0], QUARTER, atol=1e-12)
    # A point 5 before the camera on its x axis lies at (1, 2 + 5, 3) in the world.
    np.testing.assert_allclose(trajectory.world_from_cam[0] @ [5, 0, 0, 1], [1, 7, 3, 1], atol=1e-12)


def test_tum_keeps_nanoseconds_and_nine_digits(tmp_path: Path) -> None:
    path, times = tmp_path / "t.tum", np.array([0, 33_333_333, 66_666_667])
    poses = np.tile(QUARTER, (3, 1, 1))
    poses[:, 0, 3] = [0.123456789, 12.3456789, 1234.56789]
    Trajectory(times, poses).write_tum(path)
    back = Trajectory.read_tum(path)
    assert back.times_ns.tolist() == times.tolist()
    np.testing.assert_allclose(back.world_from_cam, poses, rtol=1e-8)


def test_an_empty_trajectory_survives_the_file(tmp_path: Path) -> None:
    Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4))).write_tum(tmp_path / "t.tum")
    assert len(Trajectory.read_tum(tmp_path / "t.tum")) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2 3 0 0 0\n", "line 1: expected 8 numbers"),
        ("0 1 2 3 0 0 0 1\nx 1 2 3 0 0 0 1\n", "line 2: expected 8 numbers"),
        ("0 1 2 3 0 0 0 0\n", "quaternion of length zero"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "must rise"),
    ],
)
def test_bad_tum_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.tum").write_text(text)
    with pytest.raises(ValueError, match=message):
        Trajectory.read_tum(tmp_path / "t.tum")


def test_a_scaled_matrix_is_no_pose() -> None:
    with pytest.raises(ValueError, match="not rigid"):
        Trajectory(np.array([0]), np.diag([2.0, 2, 2, 1])[None])


def test_length_of_the_path() -> None:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, :3, 3] = [[0, 0, 0], [3, 4, 0], [3, 4, 12]]
    assert Trajectory(np.arange(3), poses).length == 17.0  # 5 + 12


def test_similarity_is_recovered() -> None:
    # x -> 2 * Rz(90 deg) x + (10, 20, 30) sends (1, 0, 0) to (10, 22, 30), and so on.
    source = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    target = np.array([[10.0, 20, 30], [10, 22, 30], [8, 20, 30], [10, 20, 32]])
    found = align(source, target, with_scale=True)
    assert found.scale == pytest.approx(2.0, abs=1e-12)
    np.testing.assert_allclose(found.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(found.translation, [10, 20, 30], atol=1e-12)
    np.testing.assert_allclose(found.apply(source), target, atol=1e-12)


def test_rigid_alignment_leaves_the_scale() -> None:
    source = np.array([[-1.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]])
    found = align(source, 3 * source + [5, 0, 0], with_scale=False)
    assert found.scale == 1.0
    np.testing.assert_allclose(found.translation, [5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.rotation, np.eye(3), atol=1e-12)


def test_alignment_never_mirrors() -> None:
    source = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    found = align(source, source * [1, 1, -1], with_scale=True)
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


@pytest.mark.parametrize("points", [np.zeros((2, 3)), np.ones((5, 3))])
def test_alignment_needs_three_different_points(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="alignment needs"):
        align(points, points, with_scale=True)


def test_transformed_scales_then_moves() -> None:
    moved = Trajectory(np.array([0]), QUARTER[None]).transformed(QUARTER, scale=2.0)
    # 2 * (1, 2, 3) = (2, 4, 6); turned: (-4, 2, 6); moved: (-3, 4, 9)
    assert moved.centres.tolist() == [[-3.0, 4.0, 9.0]]
