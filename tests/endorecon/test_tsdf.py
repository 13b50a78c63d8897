"""The fused surface: where it lies, that it is closed, and that its memory is bounded."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from endorecon.scenes import _marching_cubes, _tsdf_reference
from endorecon.scenes._relief import smoothed
from endorecon.scenes.tsdf import FAR_DEPTHS, TsdfScene
from rendering.mesh import distances_to, read_ply
from video_io.camera import Camera
from video_io.frame import Frame
from video_io.trajectory import Trajectory

CAMERA = Camera.pinhole(64, 48, 60, 60, 32, 24)
FISHEYE = Camera("fisheye", 64, 48, (35, 36, 31, 25, 0.02, -0.01, 0.003, -0.001))


def plain(**sizes):
    """A scene that takes depth as it is."""
    return TsdfScene(**sizes, smoothing_px=0)


def add(scene, depth, camera=CAMERA, pose=None, confidence=1.0, rgb=(200, 100, 50), **more):
    """Integrate a depth map of one colour."""
    depth = np.broadcast_to(np.asarray(depth, np.float32), (camera.height, camera.width))
    confidence = np.broadcast_to(np.float32(confidence), depth.shape)
    image = np.broadcast_to(np.array(rgb, np.uint8), (*depth.shape, 3))
    more = {"log_std": np.ones(depth.shape, np.float32), **more}  # so uncertain that the truncation is the ramp
    scene.integrate_depth(image, depth, confidence, camera, np.eye(4) if pose is None else pose, **more)


def voxel_at(scene, point):
    """Signed distance, weight and colour of the voxel at a point."""
    from endorecon.scenes._tsdf_kernels import find

    i = np.floor(np.asarray(point) / scene.voxel).astype(int)
    row = find(scene._keys, scene._rows, *(i >> 3))
    at = ((i[2] & 7) * 8 + (i[1] & 7)) * 8 + (i[0] & 7)
    return scene._tsdf[row, at], scene._weights[row, at], scene._colors[row, at] / 256


def wavy(camera, seed=0):
    """A smooth bumpy depth map."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(8, 12, (5, 6)).astype(np.float32)
    return cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)


def test_values_on_a_plane_are_those_worked_out_by_hand():
    scene = plain(voxel=0.5, truncation=2, reference_depth=10)
    add(scene, 10)
    # the voxel centred at z = 9.25 lies 0.75 before the plane, and the truncation is 2
    value, weight, color = voxel_at(scene, (0.2, 0.2, 9.3))
    assert value == pytest.approx(0.375, abs=1e-5)
    # its pixel is (33, 25): ray (1.5, 1.5, 60), cosine 60 / sqrt(60^2 + 2 * 1.5^2) = 0.99938
    assert weight == pytest.approx(0.99938, abs=1e-5)
    np.testing.assert_array_equal(color, [200, 100, 50])
    # 0.75 behind: -0.375, and its weight falls off by 1 - 0.375
    value, weight, _ = voxel_at(scene, (0.2, 0.2, 10.8))
    assert value == pytest.approx(-0.375, abs=1e-5)
    assert weight == pytest.approx(0.99938 * 0.625, abs=1e-5)


def test_a_plane_becomes_a_plane_that_faces_the_camera():
    scene = plain(voxel=0.5)
    add(scene, 10)
    mesh = scene.mesh()
    np.testing.assert_allclose(mesh.vertices[:, 2], 10, atol=1e-4)
    np.testing.assert_allclose(mesh.face_normals[:, 2], -1, atol=1e-3)
    # 64 x 48 pixels of 1 / 6 mm: 10.67 x 8 mm, less at most a voxel along the border
    assert 9.6 * 7 < mesh.face_areas.sum() < 10.67 * 8
    assert np.all(mesh.colors == [200, 100, 50]) and mesh.weight.min() > 0.5


def test_a_steep_plane_is_not_pushed_outwards():
    # z = 10 + 2 x: 63 degrees from the image plane; depth along the ray (u - cx) / f = t is 10 / (1 - 2 t)
    t = (CAMERA.pixels()[..., 0] - 32) / 60
    scene = plain(voxel=0.25, reference_depth=10)
    add(scene, np.where(t < 0.35, 10 / (1 - 2 * t), 0), confidence=(t < 0.35).astype(np.float32))
    off = np.abs(scene.mesh().vertices @ np.array([-2, 0, 1.0]) - 10) / np.sqrt(5)
    assert off.max() < 1e-3


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE], ids=["pinhole", "fisheye"])
def test_the_kernels_agree_with_the_reference(camera):
    scene = plain(voxel=0.5, truncation=2, reference_depth=10)
    log_std = np.random.default_rng(1).uniform(0.02, 0.3, (48, 64)).astype(np.float32)
    confidence = np.random.default_rng(2).uniform(0, 1, (48, 64)).astype(np.float32)
    confidence[10:20, 30:40] = 0
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0.1, -0.2, 0.3]))[0]
    pose[:3, 3] = 1, 2, 3
    expected = None
    for seed in (0, 1):
        depth = wavy(camera, seed)
        add(scene, depth, camera, pose, confidence, log_std=log_std)
        z, w = depth.astype(float), confidence.astype(float)
        distance = z / camera.rays(camera.pixels())[..., 2]
        tau = np.clip(2 * log_std * distance, 2 * scene.voxel, scene.truncation)
        measured = _tsdf_reference.surfels(z, w, camera, 10, FAR_DEPTHS * 10, tau)
        if expected is None:
            n = scene.blocks
            k, j, i = np.unravel_index(np.arange(512), (8, 8, 8))
            places = scene._coordinates[:n, None] * 8 + np.stack([i, j, k], -1)
            voxels = (places.reshape(-1, 3) + 0.5) * scene.voxel
            expected = np.zeros(len(voxels)), np.zeros(len(voxels))
            touched_once = n
        expected = _tsdf_reference.update(voxels, *expected, measured, camera, pose)
    ours = scene._tsdf[:touched_once].ravel(), scene._weights[:touched_once].ravel()
    # blocks that the second image does not touch, and voxels on the border between two pixels, may differ
    seen = expected[1] > 0
    agree = np.isclose(ours[1], expected[1], atol=2e-3) & np.isclose(ours[0], expected[0], atol=5e-3)
    assert seen.sum() > 4000
    assert agree[seen].mean() > 0.97 and agree[~seen].mean() > 0.999


def test_the_sphere_around_a_camera_is_closed():
    import trimesh

    # six square views of 100 degrees from the middle of a sphere of radius 10
    camera = Camera.from_fov(96, 96, np.radians(100))
    depth = 10 * camera.ray_map()[..., 2]
    scene = plain(voxel=0.4, reference_depth=10)
    for axis, quarters in ((1, 0), (1, 1), (1, 2), (1, 3), (0, 1), (0, 3)):
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(np.eye(3)[axis] * quarters * np.pi / 2)[0]
        add(scene, depth, camera, pose)
    mesh = scene.mesh()
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight and solid.is_winding_consistent and solid.euler_number == 2
    # normals point inwards, to the cameras; 4 / 3 pi 10^3 = 4188.8
    assert -solid.volume == pytest.approx(4188.8, rel=2e-3)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 10, atol=0.02)


def test_marching_cubes_closes_any_field():
    # random values in 3 x 3 x 3 blocks with a free border: every case and every kind of block border
    rng = np.random.default_rng(0)
    scene = plain(voxel=1.0, max_blocks=27)
    from endorecon.scenes._tsdf_kernels import insert

    field = rng.uniform(-0.4, 0.4, (24, 24, 24)).astype(np.float32)
    for side in (0, -1):
        field[side], field[:, side], field[:, :, side] = 0.4, 0.4, 0.4
    for b in np.ndindex(3, 3, 3):
        row, scene._count = insert(scene._keys, scene._rows, scene._coordinates, scene._count, b[2], b[1], b[0])
        z, y, x = (8 * v for v in b)
        scene._tsdf[row], scene._weights[row] = field[z : z + 8, y : y + 8, x : x + 8].ravel(), 1
    faces = scene.mesh(min_faces=1).faces
    assert len(faces) > 10_000
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    forward, count = np.unique(directed[:, 0] << 32 | directed[:, 1], return_counts=True)
    assert np.all(count == 1)
    np.testing.assert_array_equal(forward, np.unique(directed[:, 1] << 32 | directed[:, 0]))


def test_the_case_table_has_one_triangle_for_one_corner():
    table = _marching_cubes.case_table()
    # corner 0 alone inside: cut on the edges along x, y, z that start there (0, 4 and 8), seen from outside
    assert sorted(table[1, :3].tolist()) == [0, 4, 8] and table[1, 3] == -1
    assert np.all(table[[0, 255]] == -1)
    assert (table >= 0).sum(1).max() <= 15


def test_no_skirt_hangs_between_two_depths():
    depth = np.full((48, 64), 20, np.float32)
    depth[:, :32] = 10
    scene = plain(voxel=0.3, reference_depth=10)
    add(scene, depth)
    z = scene.mesh(min_weight=0.01, min_faces=1).vertices[:, 2]
    assert np.all((np.abs(z - 10) < 0.05) | (np.abs(z - 20) < 0.05))
    assert {round(float(v)) for v in z} == {10, 20}


def test_confidence_decides_between_two_depths():
    scene = plain(voxel=0.25, truncation=2, reference_depth=10)
    add(scene, 10)
    add(scene, 10.4, confidence=1 / 3)
    # weights 1 and (10 / 10.4)^2 / 3 = 0.308: the mean of the two ramps is 0 at 10 + 0.4 * 0.308 / 1.308 = 10.094
    assert np.median(scene.mesh().vertices[:, 2]) == pytest.approx(10.094, abs=0.01)


def test_an_uncertain_depth_has_a_gentle_ramp_and_yields():
    scene = plain(voxel=0.25, truncation=2, reference_depth=10)
    log_std = np.full((48, 64), 0.001, np.float32)
    add(scene, 10, log_std=log_std)  # ramp of 2 voxels = 0.5
    add(scene, 10.2, log_std=log_std * 1000)  # ramp of 2
    # weights 1 and 0.925, slopes 2 and 0.5: 0 where 2 (10 - z) + 0.925 * 0.5 (10.2 - z) = 0, at 10.0375
    assert np.median(scene.mesh().vertices[:, 2]) == pytest.approx(10.0375, abs=0.02)


def test_a_highlight_leaves_the_colour():
    scene = plain(voxel=0.5)
    add(scene, 10)
    add(scene, 10, rgb=(255, 255, 255), specular_mask=np.ones((48, 64), bool))
    # the second counts a tenth of a half: 50 + 0.05 * 205 = 60.25
    assert abs(int(np.median(scene.mesh().colors[:, 2])) - 60) <= 1


def test_fine_relief_below_the_uncertainty_is_not_believed():
    # ripples of 0.5 % and 4 px on a steep plane, and a step of 20 %
    t = (CAMERA.pixels()[..., 0] - 32) / 60
    plane = 10 / (1 - t)
    plane[:, 40:] *= 1.2
    depth = (plane * (1 + 0.005 * np.sin(CAMERA.pixels()[..., 0] * np.pi / 2))).astype(np.float32)
    sure, unsure = (np.full(depth.shape, s, np.float32) for s in (0.001, 0.1))
    ones = np.ones_like(depth)
    np.testing.assert_allclose(smoothed(depth, ones, sure, 4.0), depth, rtol=1e-6)
    off = np.abs(smoothed(depth, ones, unsure, 4.0) / plane - 1)
    # flat in the middle, as it was along the borders and beside the step
    assert off[20:28, 16:24].max() < 5e-4
    assert off[:, 39:41].max() < 0.0051 and off[0].max() < 0.0051


def test_pixels_without_confidence_leave_a_hole():
    confidence = np.ones((48, 64), np.float32)
    confidence[:, 32:] = 0
    depth = np.full((48, 64), 10, np.float32)
    depth[:, 32:] = np.nan
    scene = plain(voxel=0.5)
    add(scene, depth, confidence=confidence)
    mesh = scene.mesh()
    assert len(mesh.faces) > 100 and mesh.vertices[:, 0].max() <= 0.25


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0, 0.0])
def test_what_is_no_number_touches_nothing_else(bad):
    rng = np.random.default_rng(0)
    maps = {n: np.full((48, 64), v, np.float32) for n, v in (("depth", 10), ("confidence", 1), ("log_std", 0.05))}
    for values in maps.values():
        values[rng.random(values.shape) < 0.01] = bad
    maps["confidence"][~np.isfinite(maps["confidence"])] = 0
    scene = plain(voxel=0.5)
    add(scene, maps["depth"], confidence=maps["confidence"], log_std=maps["log_std"])
    mesh = scene.mesh()
    assert np.isfinite(scene._tsdf).all() and np.isfinite(scene._weights).all()
    assert len(mesh.faces) > 400
    # neighbouring pixels' ramps differ a little, which moves the surface by less than a hundredth of a voxel
    np.testing.assert_allclose(mesh.vertices[:, 2], 10, atol=5e-3)


def test_memory_is_bounded_by_coarser_voxels():
    scene = plain(voxel=0.25, truncation=1, max_blocks=60, reference_depth=10)
    for step in range(12):
        pose = np.eye(4)
        pose[0, 3] = step
        add(scene, 10, pose=pose)
    assert scene.blocks <= 60 and scene.voxel == 0.5
    assert len(scene.warnings) == 1 and "doubled from 0.25 to 0.5" in scene.warnings[0]
    mesh = scene.mesh()
    # exact but where only a part of the merged voxels had been seen
    assert np.median(np.abs(mesh.vertices[:, 2] - 10)) < 1e-3
    np.testing.assert_allclose(mesh.vertices[:, 2], 10, atol=0.06)
    assert np.all(mesh.colors == [200, 100, 50])
    # the strip is 10.67 + 11 long
    assert np.ptp(mesh.vertices[:, 0]) == pytest.approx(21.67, abs=1.5)


def test_an_observation_goes_in_as_it_is():
    frame = Frame.of(np.full((48, 64, 3), 90, np.uint8), camera=CAMERA)
    depth = np.full((48, 64), 10, np.float32)
    observation = SimpleNamespace(frame=frame, depth=depth, confidence=np.ones_like(depth), world_from_cam=np.eye(4))
    scene = TsdfScene.for_depth(10)
    scene.integrate(observation)
    assert scene.frames == 1 and scene.voxel == 10 / 64
    assert len(scene.mesh().faces) > 100


def test_an_empty_scene_gives_an_empty_mesh():
    assert len(TsdfScene(1.0).mesh().faces) == 0
    scene = TsdfScene(1.0)
    add(scene, 10, confidence=0)
    assert scene.blocks == 0 and len(scene.mesh().vertices) == 0


def test_what_would_spoil_the_scene_is_refused():
    scene = TsdfScene(1.0)
    with pytest.raises(ValueError, match="finite 4 x 4"):
        add(scene, 10, pose=np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match=r"depth is \(2, 2\)"):
        scene.integrate_depth(np.zeros((48, 64, 3), np.uint8), np.ones((2, 2)), np.ones((48, 64)), CAMERA, np.eye(4))
    with pytest.raises(ValueError, match="voxel > 0"):
        TsdfScene(0.0)


@pytest.mark.parametrize("name", ["colon", "sinus", "lap"])
def test_true_depth_gives_the_true_surface(sample_data, name):
    folder = sample_data / f"traced_{name}"
    values = json.loads((folder / "intrinsics.json").read_text())
    camera = Camera.from_dict({"model": "pinhole", **values})
    poses = Trajectory.read_tum(folder / "poses.txt").world_from_cam
    scene = None
    for i in range(0, 60, 6):
        depth = (cv2.imread(str(folder / f"depth/{i:04d}.png"), cv2.IMREAD_UNCHANGED) / 400).astype(np.float32)
        rgb = cv2.cvtColor(cv2.imread(str(folder / f"rgb/{i:04d}.jpg")), cv2.COLOR_BGR2RGB)
        exact = np.full(depth.shape, 0.01, np.float32)
        if scene is None:
            median = float(np.median(depth[depth > 0]))
            scene = TsdfScene.for_depth(median)
        scene.integrate_depth(rgb, depth, (depth > 0).astype(np.float32), camera, poses[i], log_std=exact)
    off = distances_to(read_ply(folder / "mesh.ply"), scene.mesh().sample(5000)[0])
    # 0.02 % of the median depth (about 0.004 mm) was measured in the colon
    assert np.median(off) < 0.001 * median
    assert np.percentile(off, 95) < 0.01 * median
