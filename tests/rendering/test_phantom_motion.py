"""Tissue of the phantom that moves: how far, what the pictures then show, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rendering.phantom.clip import Clip, prepare, simulate
from rendering.phantom.motion import Motion
from video_io.camera import Camera
from video_io.errors import InputError

CAMERA = Camera.from_fov(96, 80, 1.1)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Seven frames of a pull, at rest in the first and farthest in the fourth."""
    return prepare("tissue", 2, 7, CAMERA, fps=3.0, motion="pull", still=True)


def test_a_motion_by_hand() -> None:
    """Half way of the period all of the reach at the centre; e^-.5 = .6065 of it one width away; none at the start."""
    motion = Motion(np.array([1.0, 0, 0]), 2.0, np.array([0, 3.0, 0]), 4.0)
    points = np.array([[1.0, 0, 0], [3.0, 0, 0]])
    assert motion.moved(points, 2.0) == pytest.approx(np.array([[1, 3, 0], [3, 1.8196, 0]]), abs=1e-4)
    assert motion.moved(points, 1.0)[0] == pytest.approx([1, 1.5, 0])
    assert np.array_equal(motion.moved(points, 0.0), points)


def test_points_lie_on_what_is_seen_and_keep_their_colour(clip: Clip) -> None:
    points, visible = clip.tracks(60)
    moved = np.linalg.norm(points - points[0], axis=-1)
    assert points.shape == (7, 60, 3) and visible.mean() > 0.9 and moved[3].max() > 3 and moved[6].max() < 1e-6
    frames = list(clip.frames())
    pose = clip.poses[3]
    local = (points[3] - pose[:3, 3]) @ pose[:3, :3]
    pixels, _ = CAMERA.project(local)
    good = visible[3] & visible[0]
    column, row = pixels[good].astype(int).T
    assert np.abs(frames[3].depth[row, column] / local[good, 2] - 1).max() < 0.03
    start, _ = CAMERA.project((points[0] - pose[:3, 3]) @ pose[:3, :3])
    column0, row0 = start[good].astype(int).T
    far = np.linalg.norm(pixels - start, axis=1)[good] > 3
    assert far.any()
    same = np.abs(frames[3].albedo[row, column] - frames[0].albedo[row0, column0])[far].mean()
    other = np.abs(frames[3].albedo[row, column] - frames[0].albedo[row, column])[far].mean()
    assert same < 0.6 * other


def test_a_still_camera_and_tissue_at_rest(clip: Clip) -> None:
    assert np.array_equal(clip.poses, np.tile(clip.poses[0], (7, 1, 1)))
    depths = [frame.depth for frame in clip.frames()]
    assert np.array_equal(depths[0], depths[6]) and np.abs(depths[3] - depths[0]).max() > 1
    calm = prepare("tissue", 2, 3, CAMERA)
    assert calm.motion is None and np.array_equal(calm.tracks(5)[0][0], calm.tracks(5)[0][2])


def test_files(tmp_path: Path) -> None:
    made = simulate("tissue", 2, 3, CAMERA, 3.0, tmp_path / "clip", extras=False, motion="breathe", still=True)
    with np.load(made / "tracks.npz") as tracks:
        assert tracks["points"].shape == (3, 500, 3) and tracks["visible"].shape == (3, 500)
    told = json.loads((made / "phantom.json").read_text())
    assert told["motion"] == "breathe" and told["still"] is True
    assert not (simulate("plaster", 2, 1, CAMERA, 3.0, tmp_path / "other", extras=False) / "tracks.npz").exists()


def test_a_motion_that_there_is_not() -> None:
    with pytest.raises(InputError, match="motion 'jump' is not known; give one of none, breathe, pull"):
        prepare("tissue", 2, 3, CAMERA, motion="jump")  # type: ignore[arg-type]
