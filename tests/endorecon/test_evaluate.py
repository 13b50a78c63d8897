"""The figures of the evaluation, worked out by hand, and what it refuses to compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from endorecon.evaluate.depth import depth_errors
from endorecon.evaluate.protocol import at_source_pixels, evaluate, evaluate_run, table
from endorecon.evaluate.surface import seen_points, surface_errors
from endorecon.evaluate.trajectory import align_poses, match, trajectory_errors
from endorecon.run import FrameRow, RunWriter
from rendering.mesh import Mesh, read_ply
from video_io.camera import Camera
from video_io.datasets import open_truth
from video_io.errors import InputError
from video_io.trajectory import Trajectory
from video_io.view import View

ALL = np.ones((1, 4), bool)


def pair(prediction, truth, valid=None):
    d, t = np.array([prediction], np.float32), np.array([truth], np.float32)
    return d, np.ones(d.shape, bool) if valid is None else np.array([valid]), t


# -- depth --------------------------------------------------------------------------------------------------------


def test_depth_errors_by_hand():
    # the last pixel has no truth; d = 12, 18, 40 against t = 10, 20, 20
    e = depth_errors([pair([12, 18, 40, 7], [10, 20, 20, 0])], "none")
    assert e.abs_rel == pytest.approx((0.2 + 0.1 + 1.0) / 3)
    assert e.sq_rel == pytest.approx((4 / 10 + 4 / 20 + 400 / 20) / 3)
    assert e.rmse == pytest.approx(np.sqrt((4 + 4 + 400) / 3))
    # log 1.2 = 0.18232, log 0.9 = -0.10536, log 2 = 0.69315
    assert e.rmse_log == pytest.approx(np.sqrt((0.033241 + 0.011101 + 0.480453) / 3), abs=1e-6)
    # worst ratios 1.2, 1.111, 2 against 1.25, 1.5625, 1.953
    assert (e.delta1, e.delta2, e.delta3) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (e.valid_share, e.frames, e.scale) == (1.0, 1, 1.0)


def test_each_frame_counts_once_whatever_its_pixels():
    frames = [pair([11, 11, 11, 11], [10, 10, 10, 10]), pair([13, 1, 1, 1], [10, 0, 0, 0])]
    assert depth_errors(frames, "none").abs_rel == pytest.approx((0.1 + 0.3) / 2, abs=1e-6)


def test_a_scale_a_frame_hides_what_a_scale_for_the_clip_shows():
    # both frames have the right shape; their scales are 2 and 4 times too small
    frames = [pair([5, 10, 15, 20], [10, 20, 30, 40]), pair([5, 10, 15, 20], [20, 40, 60, 80])]
    frame = depth_errors(frames, "frame")
    assert frame.abs_rel == pytest.approx(0, abs=1e-7) and frame.scale == pytest.approx(3)
    # ratios 2 and 4, four times each: their median is 3, so the frames are off by 3 / 2 - 1 and 3 / 4 - 1
    clip = depth_errors(frames, "clip")
    assert clip.scale == pytest.approx(3) and clip.abs_rel == pytest.approx((0.5 + 0.25) / 2)


def test_a_constant_shift_is_hidden_by_no_scale():
    frames = [pair([12, 22, 32, 42], [10, 20, 30, 40])]
    # ratio of medians 25 / 27; 12 * 25 / 27 = 11.111, 20.370, 29.630, 38.889
    assert depth_errors(frames, "frame").abs_rel == pytest.approx((0.11111 + 0.01852 + 0.01235 + 0.02778) / 4, abs=1e-5)
    assert depth_errors(frames, "none").abs_rel == pytest.approx((0.2 + 0.1 + 0.06667 + 0.05) / 4, abs=1e-5)


def test_what_was_not_predicted_is_counted():
    frames = [pair([10, 99, 10, 1], [10, 10, 10, 0], [True, False, True, True]), pair([1] * 4, [5] * 4, [False] * 4)]
    e = depth_errors(frames, "none")
    # 2 of 3 + 4 pixels with truth are compared; one frame has none
    assert (e.abs_rel, e.valid_share, e.frames, e.frames_empty) == (0, 2 / 7, 1, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_a_predicted_depth_that_is_no_number_is_an_error(bad):
    with pytest.raises(InputError, match="1 of 4 predicted depths with confidence above 0 are no positive numbers"):
        depth_errors([pair([10, bad, 10, 10], [10] * 4)], "none")
    # where confidence is 0 it may be anything
    assert depth_errors([pair([10, bad, 10, 10], [10] * 4, [True, False, True, True])], "none").abs_rel == 0


def test_truth_that_is_no_number_sizes_and_nothing_in_common():
    with pytest.raises(InputError, match="truth holds NaN"):
        depth_errors([pair([1] * 4, [np.nan, 1, 1, 1])], "frame")
    with pytest.raises(InputError, match="differ in size"):
        depth_errors([(np.ones((2, 2)), np.ones((2, 2), bool), np.ones((2, 3)))], "none")
    with pytest.raises(InputError, match="no frame has a pixel"):
        depth_errors([pair([1] * 4, [0] * 4)], "clip")


# -- trajectory ---------------------------------------------------------------------------------------------------


def path(points, times=None, rotations=None):
    poses = np.tile(np.eye(4), (len(points), 1, 1))
    poses[:, :3, 3] = points
    if rotations is not None:
        poses[:, :3, :3] = rotations
    return Trajectory(np.arange(len(points)) * 100 if times is None else times, poses)


CORNER = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [4, 4, 4.0]])


def test_a_shift_is_hidden_and_a_scale_only_by_sim3():
    shifted = trajectory_errors(path(CORNER + [7, -3, 1]), path(CORNER))
    assert shifted.ate_se3 == pytest.approx(0, abs=1e-9) and shifted.ate_sim3 == pytest.approx(0, abs=1e-9)
    assert shifted.path_length == 12 and shifted.poses == 4
    doubled = trajectory_errors(path(2 * CORNER), path(CORNER))
    assert doubled.scale == pytest.approx(0.5) and doubled.ate_sim3 == pytest.approx(0, abs=1e-9)
    # about the mean (3, 2, 1) the squared distances are 14, 6, 6, 14: rms sqrt(10), the error of doubling
    assert doubled.ate_se3 == pytest.approx(np.sqrt(10))
    assert doubled.ate_se3_percent == pytest.approx(100 * np.sqrt(10) / 12)
    assert doubled.rpe_translation == pytest.approx(0, abs=1e-9)


def test_ate_by_hand():
    # a square of side 2 against one whose corners are pushed by 0.1 up and down in turn: no alignment removes that
    square = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0.0]])
    bent = square + np.array([[0, 0, 0.1], [0, 0, -0.1], [0, 0, 0.1], [0, 0, -0.1]])
    e = trajectory_errors(path(bent), path(square))
    # scale: sum of a . b over sum of a . a about the mean = 8 / 8.04
    assert e.scale == pytest.approx(8 / 8.04)
    assert e.ate_se3 == pytest.approx(0.1)
    # what is left of 8.04 - 8^2 / 8.04 scaled back: 8 - 8^2 / 8.04 = 0.0398 over 4 poses
    assert e.ate_sim3 == pytest.approx(np.sqrt(0.0398 / 4), abs=1e-5)
    # each step rises or falls by 0.2 instead of 0 and is 8 / 8.04 as long
    assert e.rpe_translation == pytest.approx(np.hypot(2 - 2 * 8 / 8.04, 0.2 * 8 / 8.04))


def test_rotation_errors_by_hand():
    # the run's last camera is turned by 0.3 too much: one of three steps is off
    turns = Rotation.from_rotvec([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.3]]).as_matrix()
    e = trajectory_errors(path(CORNER, rotations=turns), path(CORNER))
    assert e.rpe_rotation_rad == pytest.approx(0.3 / np.sqrt(3))
    assert 0 < e.rotation_median_rad < 0.1


def test_a_straight_path_is_aligned_by_its_orientations():
    line = np.arange(5)[:, None] * [[0, 0, 1.0]]
    turn = Rotation.from_rotvec([0.4, -0.2, 1.1]).as_matrix()
    run = path(3 * line @ turn.T + [1, 2, 3], rotations=np.tile(turn, (5, 1, 1)))
    fit = align_poses(run, path(line))
    np.testing.assert_allclose(fit.rotation, turn.T, atol=1e-9)
    assert fit.scale == pytest.approx(1 / 3)
    np.testing.assert_allclose(fit.apply(run.centres), line, atol=1e-9)


def test_times_are_matched_within_half_a_frame_and_once():
    # frames every 100: 40 belongs to 0, 160 is nearer to 200 than 230 is not, 460 is too late
    ours, theirs = match(np.array([40, 160, 230, 460]), np.array([0, 100, 200, 300, 400]))
    assert ours.tolist() == [0, 2] and theirs.tolist() == [0, 2]
    assert match(np.array([], int), np.array([1]))[0].tolist() == []


def test_trajectories_that_cannot_be_compared():
    with pytest.raises(InputError, match="2 poses of the run match"):
        trajectory_errors(path(CORNER[:2]), path(CORNER))
    with pytest.raises(InputError, match="stands still"):
        trajectory_errors(path(CORNER), path(0 * CORNER))
    with pytest.raises(InputError, match="did the camera move"):
        trajectory_errors(path(0 * CORNER), path(CORNER))
    broken = path(CORNER)
    broken.world_from_cam[1, 0, 3] = np.nan
    with pytest.raises(InputError, match="trajectory of the run holds NaN"):
        trajectory_errors(broken, path(CORNER))


# -- surface ------------------------------------------------------------------------------------------------------


def square(z=10.0, half=5.0):
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return Mesh(corners, np.array([[0, 2, 1], [0, 3, 2]]))


def test_distances_of_a_surface_that_lies_behind_and_is_too_small():
    # half of the true square is there, 1.5 too far away
    corners = np.array([[-5, -5, 11.5], [0, -5, 11.5], [0, 5, 11.5], [-5, 5, 11.5]])
    half = Mesh(corners, np.array([[0, 2, 1], [0, 3, 2]]))
    e = surface_errors(half, square(), square().sample(20_000)[0], median_depth=10)
    assert e.accuracy_median == pytest.approx(1.5) and e.accuracy_percent == pytest.approx(15)
    assert (e.precision[1.0], e.precision[2.0], e.precision[5.0]) == (0, 1, 1)
    # 2 mm reaches sqrt(4 - 2.25) = 1.3229 past the edge: 6.3229 of 10; 5 mm: sqrt(25 - 2.25) = 4.7697
    assert e.recall[2.0] == pytest.approx(0.63229, abs=0.01) and e.recall[5.0] == pytest.approx(0.97697, abs=0.01)
    assert e.f_score[1.0] == 0 and e.f_score[2.0] == pytest.approx(2 * 0.63229 / 1.63229, abs=0.01)
    # half the points are at 1.5, so the median is where the missing half begins
    assert e.completeness_median == pytest.approx(1.5, abs=0.03)


def test_only_what_was_in_view_must_be_there():
    # f = 100 at z = 10 sees 2 to the left and right, 1 up and down; a second square hides behind the first
    camera = Camera.pinhole(40, 20, 100, 100, 20, 10)
    both = Mesh(np.vstack([square().vertices, square(z=14).vertices]), np.vstack([square().faces, square().faces + 4]))
    points, share, depth = seen_points(both, camera, path([[0, 0, 0], [1, 0, 0]]))
    assert depth == pytest.approx(10) and np.allclose(points[:, 2], 10)
    # 5 x 2 of two squares of 100
    assert share == pytest.approx(10 / 200, rel=0.05)
    assert points[:, 0].min() == pytest.approx(-2, abs=0.05) and points[:, 0].max() == pytest.approx(3, abs=0.05)


def test_surfaces_that_cannot_be_compared():
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(InputError, match="mesh of the run is empty"):
        surface_errors(empty, square(), np.zeros((1, 3)), 10)
    with pytest.raises(InputError, match="see nothing"):
        surface_errors(square(), square(), np.zeros((0, 3)), 10)
    with pytest.raises(InputError, match="not finite"):
        surface_errors(Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]])), square(), np.zeros((1, 3)), 10)


# -- a whole run --------------------------------------------------------------------------------------------------


@dataclass
class FakeRun:
    """A run made of the truth, in another unit and another world."""

    view: View
    trajectory: Trajectory
    depths: dict
    surface: Mesh | None
    name: str = "fake"
    segments: int = 1
    indices: list = field(default_factory=list)

    @property
    def frames(self):
        return len(self.indices) + 1

    def depth(self, index):
        return self.depths[index]

    def mesh(self):
        return self.surface


def test_depth_is_brought_to_the_pixels_of_the_source():
    # a ramp z = 10 + u over 8 x 4 source pixels; the run worked on the 4 x 4 in the middle, at half the size
    view = View(8, 4, (2, 0, 4, 4), 2, 2)
    depth = np.array([[13.0, 15.0], [13.0, 15.0]], np.float32)  # centres of columns 2-3 and 4-5: u = 3 and 5
    got, valid = at_source_pixels(depth, np.ones((2, 2), bool), view)
    assert valid.tolist() == [[False, False, True, True, True, True, False, False]] * 4
    # columns 3 and 4 (u = 3.5, 4.5) lie between the centres, 2 and 5 beyond: the nearest value
    np.testing.assert_allclose(got[0, 2:6], [13, 13.5, 14.5, 15], atol=1e-5)
    got, valid = at_source_pixels(depth, np.array([[True, False]] * 2), view)
    assert valid[0].tolist() == [False, False, True, True, False, False, False, False]
    np.testing.assert_allclose(got[0, 2:4], [13, 13], atol=1e-5)


def test_a_depth_map_that_does_not_fit_its_view():
    view = View(4, 4, (0, 0, 4, 4), 2, 2)
    with pytest.raises(InputError, match=r"camera\.json says 2 x 2"):
        at_source_pixels(np.ones((3, 3), np.float32), np.ones((3, 3), bool), view)
    with pytest.raises(InputError, match="1 values that are no positive numbers"):
        at_source_pixels(np.array([[1, np.nan], [1, 1]], np.float32), np.ones((2, 2), bool), view)


def fake_run(folder: Path, scale: float, every: int = 6, shift: float = 0.0) -> FakeRun:
    truth = open_truth(folder)
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = Rotation.from_rotvec([0.3, 2.0, -0.5]).as_matrix(), [3, 4, 5]
    indices = list(range(0, truth.frame_count, every))
    part = Trajectory(truth.trajectory.times_ns[indices], truth.trajectory.world_from_cam[indices])
    depths = {}
    for i in indices:
        depth = cv2.resize(truth.depth(i), (160, 128), interpolation=cv2.INTER_NEAREST)
        depths[i] = (depth * scale + shift).astype(np.float32), (depth > 0).astype(np.float32)
    mesh = read_ply(truth.mesh_path).transformed(turn, scale)
    view = View(320, 256, (0, 0, 320, 256), 160, 128)
    return FakeRun(view, part.transformed(turn, scale), depths, mesh, indices=indices)


def test_the_truth_itself_in_another_unit_and_world(sample_data):
    folder = sample_data / "traced_sinus"
    result = evaluate(fake_run(folder, scale=0.25), open_truth(folder))
    assert result.trajectory.ate_sim3 < 1e-6 and result.trajectory.scale == pytest.approx(4)
    assert result.trajectory.ate_se3_percent > 5
    none, frame, clip = result.depth
    assert none.abs_rel == pytest.approx(0.75, abs=0.01)
    assert frame.abs_rel < 0.01 and clip.abs_rel < 0.01 and clip.valid_share > 0.99
    assert result.surface.accuracy_median < 1e-3 and result.surface.f_score[1.0] > 0.999
    assert 0 < result.surface.seen_share < 1
    text = table(result)
    assert "10 of 11 frames in the main segment" in text and "one for the clip" in text and "F-score" in text
    assert result.to_dict()["depth"]["clip"]["scaling"] == "clip" and result.left_out == ()


def test_a_run_folder_is_evaluated(sample_data, tmp_path):
    folder = sample_data / "traced_lap"
    fake = fake_run(folder, scale=0.5, every=10)
    truth = open_truth(folder)
    with RunWriter(tmp_path / "run", {}) as writer:
        writer.camera(truth.camera.scaled(160, 128), truth.camera, fake.view, estimated=False)
        rows = []
        for i, (index, time_ns) in enumerate(zip(fake.indices, fake.trajectory.times_ns.tolist(), strict=True)):
            writer.depth(index, *fake.depths[index])
            # the first frame is a segment of its own, so it takes no part
            rows.append(FrameRow(index, time_ns, "tracked", segment=int(i > 0)))
        rows.append(FrameRow(59, rows[-1].time_ns + 1, "refused", "too blurred", 1))
        writer.finish(rows, fake.trajectory, fake.surface)
    result = evaluate_run(tmp_path / "run", folder)
    assert (result.frames, result.frames_main_segment, result.segments) == (7, 5, 2)
    assert result.trajectory.poses == 5 and result.trajectory.ate_sim3 < 1e-6
    assert result.depth[2].abs_rel < 0.01 and result.surface.accuracy_median < 1e-3
    (tmp_path / "run" / "camera.json").unlink()
    with pytest.raises(InputError, match="an entry 'view'"):
        evaluate_run(tmp_path / "run", folder)


def test_what_the_truth_lacks_is_said(sample_data):
    folder = sample_data / "traced_sinus"
    run = fake_run(folder, scale=1.0, every=20)
    run.surface = None
    assert evaluate(run, open_truth(folder)).left_out == ("surface: the run has no surface",)


def test_a_run_of_another_clip_is_refused(sample_data):
    run = fake_run(sample_data / "traced_sinus", scale=1.0, every=20)
    with pytest.raises(InputError, match=r"images of 320 x 256.* depth of 1350 x 1080"):
        evaluate(run, open_truth(sample_data / "c3vd_trans_t1_a"))
