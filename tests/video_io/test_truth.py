"""Ground truth in the layouts of the data sets."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from video_io.datasets import layouts, open_truth
from video_io.datasets.c3vd import published_camera
from video_io.errors import InputError
from video_io.reprojection import agreement
from video_io.trajectory import Trajectory


def _phantom(folder: Path, frames: int = 3, **intrinsics: float) -> Path:
    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    for i in range(frames):
        cv2.imwrite(str(folder / "rgb" / f"{i:04d}.png"), np.full((4, 6, 3), 90, np.uint8))
        depth = np.full((4, 6), 800 + 400 * i, np.uint16)
        depth[0, 0] = 0
        cv2.imwrite(str(folder / "depth" / f"{i:04d}.png"), depth)
    camera = {"fx": 5.0, "fy": 5.0, "cx": 3.0, "cy": 2.0, "width": 6, "height": 4, **intrinsics}
    (folder / "intrinsics.json").write_text(json.dumps(camera))
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames)
    Trajectory(np.arange(frames) * 40_000_000, poses).write_tum(folder / "poses.txt")
    (folder / "mesh.ply").write_text("ply\n")
    return folder


def test_the_slot_lists_its_files() -> None:
    assert {"phantom", "c3vd", "simcol"} <= set(layouts())


def test_phantom(tmp_path: Path) -> None:
    truth = open_truth(_phantom(tmp_path))
    assert (truth.layout, truth.frame_count, len(truth.image_paths)) == ("phantom", 3, 3)
    depth = truth.depth(1)
    assert depth.dtype == np.float32
    assert depth[2, 2] == 3.0  # 1200 / 400
    assert depth[0, 0] == 0.0
    assert truth.trajectory.times_ns.tolist() == [0, 40_000_000, 80_000_000]
    assert truth.trajectory.centres[2].tolist() == [0.0, 0.0, 2.0]
    assert truth.camera.params == (5.0, 5.0, 3.0, 2.0)
    assert truth.mesh_path == tmp_path / "mesh.ply"


def test_phantom_with_its_own_depth_scale(tmp_path: Path) -> None:
    assert open_truth(_phantom(tmp_path, depth_scale=100.0)).depth(0)[2, 2] == 8.0


def _c3vd(folder: Path) -> Path:
    for i in (1, 2):
        cv2.imwrite(str(folder / f"{i:04d}_color.png"), np.full((4, 6, 3), 90, np.uint8))
        stored = np.array([[0, 65535, 13107, 6554, 1, 65534]] * 4, np.uint16)
        cv2.imwrite(str(folder / f"{i:04d}_depth.tiff"), stored)
    # Camera at (1, 2, 3) + image number in x; the camera's x axis is the world's y. Values by columns.
    rows = [f"0,1,0,0,-1,0,0,0,0,0,1,0,{1 + number},2,3,1" for number in range(3)]
    (folder / "pose.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_c3vd(tmp_path: Path) -> None:
    truth = open_truth(_c3vd(tmp_path))
    assert truth.layout == "c3vd"
    assert truth.frame_count == 2
    np.testing.assert_allclose(truth.depth(0)[0], [0, 0, 20.0, 10.0007629, 0.0015259, 99.9984741], rtol=1e-4)
    np.testing.assert_allclose(truth.trajectory.centres, [[2, 2, 3], [3, 2, 3]])  # rows 1 and 2: the images' numbers
    np.testing.assert_allclose(truth.trajectory.world_from_cam[0] @ [1, 0, 0, 0], [0, 1, 0, 0], atol=1e-12)


def test_sample_truths(sample_data: Path) -> None:
    colon = open_truth(sample_data / "traced_colon")
    assert colon.frame_count == len(colon.trajectory) == 80
    assert colon.trajectory.length == pytest.approx(87.859, abs=0.01)
    simcol = open_truth(sample_data / "simcol_synthetic_colon")
    assert simcol.trajectory is None
    assert 5 < simcol.depth(0).min() < simcol.depth(0).max() < 200  # cm in the file, mm here


def test_c3vds_depth_and_poses_belong_together(sample_data: Path) -> None:
    """Points of image 0, moved by the poses into image 9, have the depth that is stored there."""
    truth = open_truth(sample_data / "c3vd_trans_t1_a")
    first, last = truth.depth(0), truth.depth(9)
    poses = truth.trajectory.world_from_cam
    rows, columns = np.mgrid[200:900:25, 300:1100:25]
    rays = truth.camera.ray_map()[rows, columns].astype(float)
    points = rays / rays[..., 2:] * first[rows, columns][..., None]
    moved = np.linalg.inv(poses[9]) @ poses[0]
    points = points @ moved[:3, :3].T + moved[:3, 3]
    pixels, seen = truth.camera.project(points)
    there = last[pixels[seen][:, 1].astype(int), pixels[seen][:, 0].astype(int)]
    assert np.median(np.abs(there - points[seen][:, 2])) < 0.04  # mm; 0.07 with the poses one row off


def test_c3vds_published_camera_is_that_of_the_depth(sample_data: Path) -> None:
    """The released depth was rendered with it: it agrees better than the fit to OpenCV's model."""
    truth = open_truth(sample_data / "c3vd_trans_t1_a")
    camera = published_camera()
    cx, cy, *rest = camera.params
    found = {
        name: agreement(replace(truth, camera=c), pairs=2).median
        for name, c in (
            ("published", camera),
            ("half a pixel off", replace(camera, params=(cx + 0.5, cy + 0.5, *rest))),
            ("fitted", truth.camera),
        )
    }
    assert found["published"] < 0.0015  # mm; a step of the stored depth
    assert found["published"] < 0.7 * min(found["half a pixel off"], found["fitted"])
    assert found["fitted"] < 0.05


def test_the_samples_stereo_heart(sample_data: Path) -> None:
    truth = open_truth(sample_data / "hamlyn_heart_stereo")
    assert (truth.layout, truth.frame_count) == ("hamlyn", 1)
    assert truth.pairs.rig.baseline_mm == pytest.approx(5.521, abs=0.001)
    depth = truth.depth(0)
    middle = depth[100:200, 120:240]
    assert (middle > 0).mean() > 0.8
    assert 50 < np.median(middle[middle > 0]) < 80  # mm; the heart fills the picture, some 6 cm away


def test_folders_without_truth(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_truth(tmp_path / "none")
    with pytest.raises(InputError, match="no ground truth of a known layout"):
        open_truth(tmp_path)


def test_incomplete_truth(tmp_path: Path) -> None:
    folder = _phantom(tmp_path)
    (folder / "depth" / "0002.png").unlink()
    with pytest.raises(InputError, match="3 images but 2 depth images"):
        open_truth(folder)


def test_eight_bit_depth_is_refused(tmp_path: Path) -> None:
    folder = _phantom(tmp_path)
    cv2.imwrite(str(folder / "depth" / "0001.png"), np.full((4, 6), 90, np.uint8))
    with pytest.raises(InputError, match="8 bits a pixel"):
        open_truth(folder).depth(1)


def test_damaged_poses_are_an_input_error(tmp_path: Path) -> None:
    folder = _phantom(tmp_path)
    (folder / "poses.txt").write_text("0 1 2 3\n")
    with pytest.raises(InputError, match="expected 8 numbers"):
        open_truth(folder)


def test_a_frame_without_truth(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="truth for 3 frames, but frame 3"):
        open_truth(_phantom(tmp_path)).depth(3)


def _jhu(folder: Path) -> Path:
    """Two frames, 7 and 9, 2 units apart along x; a point 4 units ahead of the first, seen by both, and one by 9."""
    for number in (7, 9):
        cv2.imwrite(str(folder / f"{number:08d}.jpg"), np.full((80, 100, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "undistorted_mask.jpg"), np.zeros((80, 100), np.uint8))
    (folder / "visible_view_indexes").write_text("7\n9\n")
    (folder / "camera_intrinsics_per_view").write_text("60\n60\n50\n40\n")
    pose = "  poses[{}]: \n    position: \n      x: {}\n      y: 0\n      z: 0\n    orientation: \n"
    turn = "      x: 0\n      y: 0\n      z: 0\n      w: 1\n"
    header = "header: \n  seq: 0\n  frame_id: \nposes[]:\n"
    (folder / "motion.yaml").write_text(header + pose.format(0, 0) + turn + pose.format(1, 2) + turn)
    names = "property float x\nproperty float y\nproperty float z\n"
    ply = f"ply\nformat ascii 1.0\nelement vertex 2\n{names}element camera 1\nend_header\n0 0 4\n2 1 5\n0 0 0\n"
    (folder / "structure.ply").write_text(ply)
    (folder / "view_indexes_per_point").write_text("-1\n7\n9\n-1\n9\n")
    return folder


def test_sinus_with_structure_from_motion(tmp_path: Path) -> None:
    truth = open_truth(_jhu(tmp_path))
    assert (truth.layout, truth.unit, truth.frame_count) == ("jhu_sfm", "up to scale", 2)
    assert truth.trajectory.centres.tolist() == [[0, 0, 0], [2, 0, 0]]
    assert truth.trajectory.times_ns.tolist() == [0, 33_333_333]
    first, second = truth.depth(0), truth.depth(1)
    # f x / z + c: the first point at (50, 40) of frame 7; at (50 - 60 * 2 / 4, 40) of frame 9
    assert np.argwhere(first).tolist() == [[40, 50]] and first[40, 50] == 4
    # the other one at (50, 40 + 60 / 5) of frame 9
    assert np.argwhere(second).tolist() == [[40, 20], [52, 50]] and second[52, 50] == 5


def test_sinus_folders_that_are_incomplete(tmp_path: Path) -> None:
    folder = _jhu(tmp_path)
    (folder / "visible_view_indexes").write_text("7\n8\n")
    with pytest.raises(InputError, match="numbers are not those of visible_view_indexes"):
        open_truth(folder)
    (folder / "visible_view_indexes").write_text("7\n9\n")
    (folder / "view_indexes_per_point").write_text("-1\n7\n")
    with pytest.raises(InputError, match=r"tells of 1 points, structure\.ply of 2"):
        open_truth(folder)
    (folder / "motion.yaml").write_text("poses[]:\n  poses[0]: 3\n")
    with pytest.raises(InputError, match=r"does not hold the 2 poses poses\[0\]"):
        open_truth(folder)


def test_depth_that_is_a_pipe_and_a_scale_that_is_a_list(tmp_path: Path) -> None:
    truth = open_truth(_phantom(tmp_path))
    (tmp_path / "depth" / "0001.png").unlink()
    os.mkfifo(tmp_path / "depth" / "0001.png")
    with pytest.raises(InputError, match="can't be read"):
        truth.depth(1)
    told = json.loads((tmp_path / "intrinsics.json").read_text())
    (tmp_path / "intrinsics.json").write_text(json.dumps({**told, "depth_scale": [400]}))
    with pytest.raises(InputError, match="expected stored steps a mm"):
        open_truth(tmp_path)
