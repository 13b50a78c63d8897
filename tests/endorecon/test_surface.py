"""Depth of a frame from the fused surface: a wall, of which the frame has its own opinion."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from endorecon.surface import Surface
from endorecon.tracking.densify import Correction, NetworkDepth
from rendering.mesh import Mesh
from video_io.camera import Camera

CAMERA = Camera.pinhole(64, 64, 60.0, 60.0, 32.0, 32.0)


def wall(z_mm: float, right_mm: float = 90.0) -> Mesh:
    """At z, from x = -90 to `right_mm`."""
    corners = [[-90, -90, z_mm], [right_mm, -90, z_mm], [right_mm, 90, z_mm], [-90, 90, z_mm]]
    return Mesh(np.array(corners), np.array([[0, 2, 1], [0, 3, 2]]))


def corrected(mesh: Mesh, z_mm: float, log_scale: float = 0.0) -> NDArray[np.float64]:
    """z-depth (64, 64) of a frame whose own is `z_mm`, once it has seen the surface."""
    z = CAMERA.ray_map()[..., 2]
    net = NetworkDepth((z_mm * np.exp(-log_scale) / z).astype(np.float32), np.full(z.shape, 0.1, np.float32))
    correction = Surface(mesh, CAMERA).correct(net, Correction.constant(log_scale), np.eye(4))
    distance, _ = correction.apply(net.distance, net.log_std)
    return distance * z


def test_the_surface_is_looked_at_along_the_rays() -> None:
    far = Surface(wall(10.0), CAMERA).distance(np.eye(4))
    assert far.shape == (16, 16)
    # Pixel (8, 8) of the small image is its centre's neighbour: u - c = 0.5 at f = 15.
    assert far[8, 8] == pytest.approx(10 * np.sqrt(1 + 2 * (0.5 / 15) ** 2), rel=1e-5)


def test_a_frame_takes_the_surface_where_they_nearly_agree() -> None:
    """3 % off: the surface has 1 / (1 + .3^2) = .92 of the say, so that .25 % are left."""
    depth = corrected(wall(10.0), 10.3, log_scale=0.4)
    assert np.abs(np.log(depth / 10)).max() < 0.004
    assert np.log(depth / 10)[20:44, 20:44].mean() == pytest.approx(0.0025, abs=0.0005)


def test_a_frame_that_contradicts_keeps_its_own() -> None:
    """Twice as far (a gap of .69): the surface has 2 % of the say."""
    assert np.log(corrected(wall(10.0), 20.0) / 20)[20:44, 20:44].mean() == pytest.approx(-0.69 / 49, abs=0.002)


def test_where_there_is_no_surface_nothing_changes() -> None:
    depth = corrected(wall(10.0, right_mm=0.0), 10.3)
    assert np.abs(np.log(depth[:, 52:] / 10.3)).max() < 0.004
    assert np.abs(np.log(depth[:, :28] / 10)).max() < 0.004


def test_an_empty_scene_changes_nothing() -> None:
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    np.testing.assert_allclose(corrected(empty, 10.3), 10.3, rtol=1e-5)
