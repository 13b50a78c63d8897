"""Depth of a frame from the fused surface: a wall, of which the frame has its own opinion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from endorecon.scenes.tsdf import TsdfScene
from endorecon.surface import Surface, fused_again
from endorecon.tracking.densify import Correction, NetworkDepth
from endorecon.tracking.observation import Observation
from rendering.mesh import Mesh
from video_io.camera import Camera
from video_io.frame import Frame

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


def tilt(mesh: Mesh) -> float:
    """Mean angle in degrees by which a wall that faces the camera is tilted, well inside of what was seen."""
    inside = np.abs(mesh.vertices[mesh.faces].mean(1)[:, :2]) < [30, 10]
    steep = np.arccos(np.clip(np.abs(mesh.face_normals[:, 2]), 0, 1))[inside.all(1)]
    return float(np.degrees(steep.mean()))


def test_steps_between_frames_that_disagree_go_once_fused_again() -> None:
    """A wall at 40 mm, by frames side by side that take it for 3 % nearer and farther in turn: where one ends, the mean
    of the others steps by up to 1.2 mm, though each frame knows a plane."""
    places = [(-20.0, 1.03), (-8.0, 0.97), (3.0, 1.03), (12.0, 0.97), (20.0, 1.03)]
    image = np.full((64, 64, 3), 128, np.uint8)

    def frames(surface: Surface | None) -> Iterator[Observation]:
        for x, factor in places:
            pose = np.eye(4)
            pose[0, 3] = x
            depth = np.full((64, 64), 40 * factor, np.float32)
            net = NetworkDepth.of(depth, np.full(depth.shape, 0.05, np.float32), CAMERA)
            start = Correction.constant(0.0)
            correction = start if surface is None else surface.correct(net, start, pose)
            yield net.observe(Frame.of(image, camera=CAMERA), CAMERA, pose, correction, 0, x == 0, {})

    scene = TsdfScene.for_depth(40.0)
    for seen in frames(None):
        scene.integrate(seen)
    fused = scene.mesh()
    again = fused_again(fused, CAMERA, frames, TsdfScene.for_depth)
    assert tilt(again) < 0.6 * tilt(fused)  # 4.7 and 1.4 degrees


def test_nothing_is_fused_again_where_there_is_nothing() -> None:
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    assert fused_again(empty, CAMERA, lambda _: iter(()), TsdfScene.for_depth) is empty
    mesh = wall(10.0)
    assert fused_again(mesh, CAMERA, lambda _: iter(()), TsdfScene.for_depth) is mesh
