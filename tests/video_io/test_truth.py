"""Ground truth in the layouts of the data sets."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from video_io.datasets import layouts, open_truth
from video_io.errors import InputError
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
