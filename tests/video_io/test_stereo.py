"""Rectification and matching, on a plane whose depth is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.stereo import Matcher, Rig

NORMAL, DISTANCE = np.array([0.15, -0.1, -0.98]), 62.0  # a slanted plane, mm, in the left camera's frame
PAPER = gaussian_filter(np.random.default_rng(5).uniform(0, 255, (900, 900)), 1.5)
PAPER = (PAPER - PAPER.min()) / np.ptp(PAPER) * 220 + 15


def photograph(camera: Camera, camera_from_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plane as a camera sees it, and its z there."""
    normal = NORMAL / np.linalg.norm(NORMAL)
    rays = np.nan_to_num(camera.rays(camera.pixels()))
    rotation, shift = camera_from_left[:3, :3], camera_from_left[:3, 3]
    centre, direction = -rotation.T @ shift, rays @ rotation
    along = (-DISTANCE - normal @ centre) / np.minimum(direction @ normal, -1e-6)
    points = centre + along[..., None] * direction
    at = points[..., :2].transpose(2, 0, 1)[::-1] * 6 + 450  # six points of paper a mm
    grey = map_coordinates(PAPER, at, order=3, mode="reflect")
    return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, -1), along * rays[..., 2]


def turned(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    pose[:3, 3] = shift
    return pose


PINHOLE = Camera.pinhole(240, 192, 220.0, 222.0, 118.0, 97.0)
BROWN = Camera("brown", 240, 192, (215.0, 214.0, 123.0, 93.0, -0.15, 0.05, 0.001, -0.002, 0.0))
FISHEYE = Camera("fisheye", 240, 192, (170.0, 171.0, 119.0, 98.0, -0.03, 0.01, 0.0, 0.0))


@pytest.mark.parametrize(
    ("left", "right", "right_from_left"),
    [
        (PINHOLE, PINHOLE, turned((0, 0, 0), (-4.5, 0, 0))),
        (BROWN, PINHOLE, turned((0.6, -1.8, 0.9), (-4.4, 0.3, -0.2))),
        (FISHEYE, FISHEYE, turned((-0.4, 1.2, -0.7), (-5.0, -0.2, 0.1))),
    ],
)
def test_depth_of_a_plane(left: Camera, right: Camera, right_from_left: np.ndarray) -> None:
    image, true = photograph(left, np.eye(4))
    other, _ = photograph(right, right_from_left)
    depth = Matcher(Rig(left, right, right_from_left)).depth(image, other)
    inside = depth[10:-10, 30:-30] > 0  # at the left border the right camera sees something else
    assert inside.mean() > 0.95
    error = (depth - true)[depth > 0] / true[depth > 0]
    # The geometry is exact; the matcher's subpixels are good to a sixth of a pixel, of some 15.
    assert abs(np.median(error)) < 0.002
    assert np.median(np.abs(error)) < 0.015


def test_what_is_no_stereo_pair() -> None:
    with pytest.raises(InputError, match="0 mm apart"):
        Rig(PINHOLE, PINHOLE, np.eye(4))
    with pytest.raises(InputError, match="lies to the left"):
        Matcher(Rig(PINHOLE, PINHOLE, turned((0, 0, 0), (4.5, 0, 0))))
    small = np.zeros((96, 120, 3), np.uint8)
    with pytest.raises(InputError, match="120 x 96, its camera is for 240 x 192"):
        Matcher(Rig(PINHOLE, PINHOLE, turned((0, 0, 0), (-4.5, 0, 0)))).depth(small, small)
