"""Surfels of a scene: their loss against PyTorch, their training, files and mesh; and poses that are improved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import SplatView, read_splats, seed, seed_points, write_splats
from endorecon.scenes._splat_poses import Poses
from endorecon.scenes._splat_training import Options, Training
from endorecon.scenes._surfel_loss import SurfelWeights, surface_loss
from endorecon.scenes.base import Setting, SplatChoice
from endorecon.scenes.splats import SplatScene
from endorecon.tracking.observation import Observation
from rendering.phantom.clip import prepare
from video_io.camera import Camera
from video_io.frame import Frame

CAMERA = Camera.from_fov(96, 80, np.radians(80))
QUICK = Options(seconds=1e6, iterations=60, grow_every=25, degree=0, surfels=True)


@pytest.fixture(scope="module")
def views() -> list[SplatView]:
    """Frames of a phantom colon with their true depth and poses."""
    clip, found = prepare("colon", 5, 9, CAMERA), []
    for i, frame in enumerate(clip.frames()):
        known = (frame.depth > 0).astype(np.float16)
        found.append(
            SplatView(i, i * 10**8 // 3, frame.rgb, known > 0, frame.depth, known, CAMERA, frame.world_from_cam)
        )
    return found


def observation(view: SplatView) -> Observation:
    frame = replace(Frame.of(view.rgb, view.index, view.time_ns, view.camera), use_mask=view.use_mask)
    spread = np.full(view.depth.shape, 0.05, np.float32)
    known = view.confidence.astype(np.float32)
    return Observation(frame, view.depth, known, spread, view.world_from_cam, 0, view.index == 0)


def test_surface_loss_is_what_pytorch_says() -> None:
    """Mean over the pixels that count of alpha - n . N, with N of central differences, and of the distortion."""
    rng, (h, w) = np.random.default_rng(0), (12, 15)
    camera = Camera.pinhole(w, h, 14, 15, 7, 6)
    depth = (3 + 0.2 * rng.random((h, w))).astype(np.float32)
    alpha = (0.45 + 0.5 * rng.random((h, w))).astype(np.float32)
    normals, distortion = rng.standard_normal((h, w, 3)).astype(np.float32), rng.random((h, w)).astype(np.float32)
    use, weights = rng.random((h, w)) > 0.2, SurfelWeights()
    found = surface_loss(alpha, depth, normals, distortion, use, camera, 3.0, weights)

    z, n, d = (torch.from_numpy(a).double().requires_grad_() for a in (depth, normals, distortion))
    rays = torch.from_numpy(camera.ray_map().copy()).double()
    points = z[..., None] * rays / rays[..., 2:]
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    facing = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    assert facing[..., 2].max() < 0  # towards the camera
    a = torch.from_numpy(alpha)
    near = torch.stack([a[1:-1, 1:-1], a[1:-1, 2:], a[1:-1, :-2], a[2:, 1:-1], a[:-2, 1:-1]]).amin(0)
    counts = torch.from_numpy(use)[1:-1, 1:-1] & (near > 0.5)
    bend = ((a[1:-1, 1:-1] - (facing * n[1:-1, 1:-1]).sum(-1)) * counts).sum() / int(use.sum())
    apart = 9 * (d * torch.from_numpy(use)).sum() / int(use.sum())
    (weights.normals * bend + weights.distortion * apart).backward()  # type: ignore[no-untyped-call]
    assert (found.normals, found.distortion) == pytest.approx((bend.item(), apart.item()), rel=1e-5)
    for tensor, slope in zip((z, n, d), (found.g_depth, found.g_normals, found.g_distortion), strict=True):
        assert tensor.grad is not None and slope.dtype == np.float32
        assert (tensor.grad - torch.from_numpy(slope)).norm() < 1e-5 * tensor.grad.norm()


def test_the_shortest_axis_becomes_the_normal() -> None:
    """Gaussians of any shape: as surfels they cover the same in their two longer axes."""
    rng = np.random.default_rng(0)
    splats = replace(
        seed_points(rng.normal(size=(20, 3)), 255 * rng.random((20, 3)), 1),
        quats=rng.normal(size=(20, 4)).astype(np.float32), scales=rng.normal(size=(20, 3)).astype(np.float32),
    )  # fmt: skip
    flat = splats.flattened()

    def covariance(s: object, axes: int) -> np.ndarray:
        turn = Rotation.from_quat(np.roll(s.quats, -1, 1)).as_matrix()  # type: ignore[attr-defined]
        order = np.argsort(-s.scales, 1)[:, :axes]  # type: ignore[attr-defined]
        size = np.exp(np.take_along_axis(s.scales, order, 1))  # type: ignore[attr-defined]
        root = np.take_along_axis(turn, order[:, None].repeat(3, 1), 2) * size[:, None]
        return root @ root.transpose(0, 2, 1)

    assert flat.surfels and not splats.surfels and (flat.scales.argmin(1) == 2).all()
    assert np.allclose(covariance(splats, 2), covariance(flat, 2), atol=1e-4)


def test_training_mesh_and_files(views: list[SplatView], tmp_path: Path) -> None:
    scene = SplatScene(float(np.median(views[0].depth)), Setting(tmp_path / "scene"), QUICK)
    for view in views:
        scene.integrate(observation(view))
    mesh, splats = scene.mesh(), scene.splats
    assert splats is not None and splats.surfels and len(mesh.faces) > 500 and scene.figures["surfels"]
    assert scene.figures["psnr"] > 15
    again = read_splats(tmp_path / "scene" / "splats.ply")
    assert again.surfels and np.array_equal(again.quats, splats.quats)
    assert (again.scales.argmin(1) == 2).all()
    # Without the mark they are Gaussians of the standard form, as all other viewers see them.
    write_splats(replace(splats, surfels=False), tmp_path / "plain.ply")
    plain = read_splats(tmp_path / "plain.ply")
    assert not plain.surfels and np.array_equal(plain.means, splats.means)
    pose, known = views[4].world_from_cam, views[4].use_mask
    flat, round_ = again.render(CAMERA, pose), plain.render(CAMERA, pose)
    assert flat.distortion is not None and round_.distortion is None
    assert np.abs(flat.color.numpy() - round_.color.numpy())[known].mean() < 0.05
    assert np.median(np.abs(flat.median.numpy() / views[4].depth - 1)[known]) < 0.05  # type: ignore[union-attr]


def test_a_training_goes_on_with_poses_and_surfels(views: list[SplatView]) -> None:
    light = Light(float(np.median(views[0].depth)))
    options = replace(QUICK, iterations=12, poses=True)
    first = Training(seed(views, None, 400, 0, light).flattened(), views, light, options)
    first.run(lambda *_: None, lambda _: None)
    second = Training(first.splats(), views, Light(1.0), replace(options, iterations=14), first.state())
    assert np.array_equal(second.poses.matrix, first.poses.matrix) and second.poses.usual == light.usual
    assert not np.allclose(first.poses.matrix[1:], np.eye(4)) and np.array_equal(first.poses.matrix[0], np.eye(4))
    second.run(lambda *_: None, lambda _: None)
    assert second.steps == 14 and np.isfinite(second.history[-1].psnr)


def test_fisheyes_become_pinholes(views: list[SplatView]) -> None:
    fisheye = Camera("fisheye", 96, 80, (*CAMERA.params, 0.02, 0, 0, 0))
    scene = SplatScene(20.0, Setting(splats=SplatChoice(surfels=True)))
    scene.integrate(observation(replace(views[0], camera=fisheye)))
    assert scene._kept.views[0].camera.model == "pinhole" and scene._kept.views[0].use_mask.mean() > 0.8


def test_a_run_chooses() -> None:
    scene = SplatScene(20.0, Setting(seconds=7, splats=SplatChoice(True, "mcmc", True)))
    o = scene._options
    assert (o.surfels, o.strategy, o.poses, o.seconds) == (True, "mcmc", True, 7)


def test_poses_follow_a_known_gradient() -> None:
    """What is to be found: a turn of .02 about an axis and a shift, from |corrected - true|^2 of three points."""
    rng = np.random.default_rng(0)
    points, given = rng.normal(size=(3, 4)) + [0, 0, 5, 0], np.eye(4)
    points[:, 3] = 1
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = Rotation.from_rotvec([0.02, -0.01, 0.015]).as_matrix(), [0.05, -0.02, 0.03]
    poses = Poses.given(2, 5.0)
    for _ in range(400):
        view = poses.view(1, given)
        off = (view - truth)[:3] @ points.T
        slope = np.zeros((4, 4))
        slope[:3] = 2 * off @ points
        poses.step(1, view, slope, 1e-3)
        poses.step(0, view, slope, 1e-3)
    assert np.abs(poses.matrix[1] - truth).max() < 5e-3 and np.array_equal(poses.matrix[0], np.eye(4))
    halfway = poses.between(np.array([0.0, 2.0]), 1.0, given)
    turn = Rotation.from_matrix(halfway[:3, :3]).magnitude()
    assert turn == pytest.approx(np.linalg.norm([0.02, -0.01, 0.015]) / 2, abs=2e-3)


@pytest.mark.slow
def test_spoiled_poses_get_better(views: list[SplatView]) -> None:
    """Every second frame turned by .6 degrees: with what stands still known, training turns it back."""
    light, off = Light(float(np.median(views[0].depth))), np.eye(4)
    off[:3, :3] = Rotation.from_rotvec([0, 0.01, 0]).as_matrix()
    start = seed(views, None, 3000, 0, light)
    spoiled = [replace(v, world_from_cam=v.world_from_cam @ off) if v.index % 2 else v for v in views]
    options = Options(1e6, 250, degree=0, grow_to=0.0, held_out=False, poses=True)
    training = Training(start, spoiled, light, options)
    training.run(lambda *_: None, lambda _: None)
    off = [np.linalg.inv(a.world_from_cam) @ b.world_from_cam for a, b in zip(views, training.placed(), strict=True)]
    assert np.median(Rotation.from_matrix([o[:3, :3] for o in off[1::2]]).magnitude()) < 0.006


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--surfels"], "--surfels says nothing to the scene 'tsdf'; give it with --scene splats or splats-deforming"),
        (["--scene", "splats-deforming", "--splat-poses"], "--splat-poses says nothing to the scene 'splats-def"),
        (["--splat-growth", "mcmc"], "--splat-growth mcmc says nothing to the scene 'tsdf'"),
    ],
)
def test_choices_that_a_scene_does_not_have_are_refused(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from endorecon import cli

    assert cli.main(["reconstruct", "demo", "-o", str(tmp_path / "run"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
