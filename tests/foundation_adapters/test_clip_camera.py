"""Intrinsics learned from a clip's images: found where the camera turns, and said not to be where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_recording import FISHEYE, made, meet, texture
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foundation_adapters.clip_camera import GRID, _bilinear, learn_camera
from foundation_adapters.recordings import Recording
from video_io.camera import Camera

TRUE = Camera.pinhole(128, 96, 100.0, 100.0, 64.0, 48.0)
STEPS = np.linspace(0, 1, 10)


def filmed(camera: Camera, poses: NDArray[np.float64], tilt: float = 0.3) -> Recording:
    """The plane z = 40 + 0.3 x as `camera` sees it from `poses`; depth and poses are exact."""
    images, distances = [], []
    small = camera.scaled(camera.width // 2, camera.height // 2)
    for pose in poses:
        for seen, out in ((camera, images), (small, distances)):
            rays = seen.ray_map().astype(float) @ pose[:3, :3].T
            far = meet(rays, pose[:3, 3], tilt)
            point = pose[:3, 3] + rays * far[..., None]
            look = np.clip(255 * 0.7 * texture(2 * point[..., 0], 2 * point[..., 1]), 0, 255).round().astype(np.uint8)
            out.append(look if out is images else far.astype(np.float32))
    n, h, w = len(poses), camera.height, camera.width
    return Recording(
        "plane", camera, np.stack(images), np.ones((n, h, w), bool), np.stack(distances),
        np.full((n, h // 2, w // 2), 0.9, np.float32), poses,
    )  # fmt: skip


def turning() -> NDArray[np.float64]:
    poses = np.tile(np.eye(4), (len(STEPS), 1, 1))
    turn = 0.25 * np.stack([np.sin(5 * STEPS), np.cos(4 * STEPS), 0.5 * np.sin(7 * STEPS)], 1)
    poses[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix()
    poses[:, 0, 3], poses[:, 1, 3] = 3 * np.sin(3 * STEPS), 2 * np.cos(6 * STEPS)
    return poses


def straight() -> NDArray[np.float64]:
    poses = np.tile(np.eye(4), (len(STEPS), 1, 1))
    poses[:, 2, 3] = 12 * STEPS
    return poses


def guessed(recording: Recording, factor: float) -> Recording:
    """As a reconstruction with a focal length that is off would have it: same depths along z."""
    camera = TRUE.with_focal_scale(factor)
    small, was = (c.scaled(c.width // 2, c.height // 2).ray_map()[..., 2] for c in (camera, recording.camera))
    return replace(recording, camera=camera, distance=recording.distance * was / small)


@pytest.mark.parametrize("factor", [0.88, 1.12])
def test_a_turning_camera_tells_its_focal_length(factor: float) -> None:
    found = learn_camera(guessed(filmed(TRUE, turning()), factor), 100 * factor, 0.2)
    assert found.observable
    assert found.camera.focal_px == pytest.approx(100, rel=0.02)
    assert found.log_focal_std < 0.06
    # Poses and depth go with it.
    true = filmed(TRUE, turning())
    ratio = found.recording.distance / true.distance
    assert np.abs(ratio / np.median(ratio) - 1).mean() < 0.02
    assert found.recording.camera == found.camera


def test_the_principal_point_is_learned_too() -> None:
    camera = Camera.pinhole(128, 96, 100.0, 100.0, 67.0, 46.5)
    found = learn_camera(guessed(filmed(camera, turning()), 1.05), 105, 0.2)
    assert found.camera.focal_px == pytest.approx(100, rel=0.02)
    assert found.camera.params[2:] == pytest.approx((67.0, 46.5), abs=0.7)


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_a_camera_that_goes_straight_on_does_not(factor: float) -> None:
    found = learn_camera(guessed(filmed(TRUE, straight()), factor), 100 * factor, 0.2)
    assert not found.observable
    assert found.log_focal_std > 0.16


def test_only_a_pinhole_is_learned() -> None:
    with pytest.raises(ValueError, match="fisheye"):
        learn_camera(made(FISHEYE), 50.0, 0.2)


def test_the_grid_s_weights_sum_to_one_and_meet_its_nodes() -> None:
    rows, columns = GRID
    nodes = np.stack(np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows)), -1).reshape(-1, 2)
    assert _bilinear(nodes) == pytest.approx(np.eye(rows * columns))
    assert _bilinear(np.random.default_rng(0).random((50, 2))).sum(1) == pytest.approx(np.ones(50))
