"""Clips and calibrations from which no good reconstruction can come: recognised, and said in the run's warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from endorecon.job import reconstruct_video
from endorecon.run import Run, read_run
from endorecon.tracking.motion import poor_motion
from rendering.phantom.clip import Video, prepare
from rendering.phantom.pull import pulled
from video_io.camera import Camera
from video_io.camera_files import write_camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory

CAMERA = Camera.from_fov(192, 160, np.radians(80))
FRAMES = 20


def rendered(
    poses: np.ndarray | None = None, scene: str = "tissue", seed: int = 21
) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures seen from these poses (N, 4, 4), relative to the clip's first one, and the poses; None: its own path."""
    clip = prepare(scene, seed, FRAMES, CAMERA)
    clip = replace(clip, look=replace(clip.look, interreflection=0.0))
    if poses is not None:
        clip = replace(clip, poses=clip.poses[0] @ poses)
    return [frame.rgb for frame in clip.frames()], clip.poses


def turned(most_deg: float) -> np.ndarray:
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    angle = np.radians(most_deg) * np.linspace(0, 1, FRAMES)
    poses[:, :3, :3] = Rotation.from_rotvec(angle[:, None] * [0.2, 1.0, 0.1]).as_matrix()
    return poses


def along_z(steps_mm: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 2, 3] = steps_mm
    return poses


def moving() -> np.ndarray:
    """To the side, ahead, and round: everything that shows a focal length."""
    poses, share = turned(14), np.linspace(0, 1, FRAMES)
    poses[:, :3, 3] = np.stack([14 * share, 3 * np.sin(3 * share), 6 * share], 1)
    return poses


def run_of(tmp_path: Path, pictures: list[np.ndarray], camera: Camera = CAMERA, **more) -> Run:
    height, width = pictures[0].shape[:2]
    with Video(tmp_path / "clip.mp4", width, height, 30.0) as video:
        for picture in pictures:
            video.write(np.ascontiguousarray(picture))
    write_camera(tmp_path / "camera.json", camera)
    out = reconstruct_video(tmp_path / "clip.mp4", tmp_path / "run", camera=tmp_path / "camera.json", **more)
    return read_run(out)


def said(run: Run, words: str) -> bool:
    return any(words in warning for warning in run.info["warnings"])


# -- the path alone -----------------------------------------------------------------------------------------------


def test_a_path_of_a_fiftieth_of_the_distance_is_none() -> None:
    poses = along_z(np.linspace(0, 0.9, FRAMES))
    assert "hardly moved" in poor_motion(poses, 50.0)
    assert "hardly moved" not in poor_motion(poses, 40.0)


def test_turning_is_no_moving() -> None:
    assert "only turned, by up to 12 degrees" in poor_motion(turned(12), 50.0)


def test_straight_ahead_is_said_and_a_curve_is_not() -> None:
    straight = along_z(np.linspace(0, 10, FRAMES))
    assert "along its line of sight only" in poor_motion(straight, 50.0)
    curved = straight.copy()
    curved[:, 0, 3] = 4 * np.sin(np.linspace(0, np.pi, FRAMES))
    assert poor_motion(curved, 50.0) == ""


# -- whole runs ---------------------------------------------------------------------------------------------------


def test_a_camera_that_only_turns(tmp_path) -> None:
    run = run_of(tmp_path, rendered(turned(12))[0])
    assert said(run, "the camera only turned"), run.info["warnings"]
    assert run.info["verdict"]["grade"] == "red"


def test_a_camera_that_stands(tmp_path) -> None:
    run = run_of(tmp_path, rendered(turned(0))[0])
    assert said(run, "the camera hardly moved"), run.info["warnings"]
    assert run.info["verdict"]["grade"] == "red"


def test_a_camera_that_goes_straight_ahead(tmp_path) -> None:
    run = run_of(tmp_path, rendered(along_z(np.linspace(0, 12, FRAMES)))[0])
    assert said(run, "along its line of sight only"), run.info["warnings"]


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_a_wrong_calibration(factor, tmp_path) -> None:
    run = run_of(tmp_path, rendered(moving())[0], CAMERA.with_focal_scale(factor))
    assert said(run, "the calibration does not fit"), run.info["warnings"]


def test_the_right_calibration_is_not_doubted(tmp_path) -> None:
    run = run_of(tmp_path, rendered(moving())[0])
    assert not said(run, "calibration"), run.info["warnings"]


def test_a_wide_fisheye_has_no_shorter_lens_to_be_compared_with(tmp_path) -> None:
    """Seen through a lens of .6 times its focal length, the corners of this one have no ray."""
    fisheye = Camera("fisheye", 192, 160, (140.0, 140.0, 96.0, 80.0, -0.19, 0.0, 0.03, -0.013))
    corner = np.array([[1.0, 1.0]])
    assert np.isfinite(fisheye.rays(corner)).all()
    assert not all(np.isfinite(fisheye.with_focal_scale(s).rays(corner)).all() for s in (0.6, 1.7))
    clip = prepare("colon", 21, FRAMES, fisheye)
    clip = replace(clip, look=replace(clip.look, interreflection=0.0))
    run = run_of(tmp_path, [frame.rgb for frame in clip.frames()], fisheye)
    assert len(run.trajectory.times_ns) == FRAMES
    assert not said(run, "the calibration does not fit")


def test_tissue_that_moves_before_a_still_camera(tmp_path) -> None:
    run = run_of(tmp_path, pulled([rendered(turned(0))[0][0]] * FRAMES, 12, 30.0, np.random.default_rng(0)))
    assert run.info["verdict"]["grade"] == "red"
    assert said(run, "--poses fixed"), run.info["warnings"]


@pytest.mark.parametrize("fault", ["transposed", "other clip"])
def test_poses_that_belong_to_something_else(fault, tmp_path) -> None:
    pictures, poses = rendered(moving())
    if fault == "transposed":
        poses = poses.copy()
        poses[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    else:
        poses = prepare("tissue", 33, FRAMES, CAMERA).poses
    Trajectory(np.round(np.arange(FRAMES) * 1e9 / 30).astype(np.int64), poses).write_tum(tmp_path / "poses.txt")
    with pytest.raises(InputError, match="the poses do not fit the images"):
        run_of(tmp_path, pictures, poses=str(tmp_path / "poses.txt"))


def test_two_frames(tmp_path) -> None:
    with pytest.raises(InputError, match="2 readable frames; expected a clip of a moving camera"):
        run_of(tmp_path, rendered()[0][:2])
