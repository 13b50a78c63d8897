"""Gaussians that move: bells and their step, points followed, training on a phantom that is pulled, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_run import CAMERA as RUN_CAMERA
from made_run import observations, write_run

from endorecon.flight import fly
from endorecon.run import Run
from endorecon.scenes import find_scene
from endorecon.scenes._motion import (
    CHANNELS,
    FILE,
    MovingSplats,
    TimeBasis,
    add_stretch,
    displaced,
    read_motion,
    write_motion,
)
from endorecon.scenes._motion_seeds import fit, follow, seeds, steadied
from endorecon.scenes._motion_training import MotionAdam, MovingTraining
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import Splats, SplatView, read_splats, write_splats
from endorecon.scenes._splat_training import Options
from endorecon.scenes.base import Setting
from endorecon.scenes.splats_deforming import DeformingScene
from endorecon.tracking.observation import Observation
from endorecon.views.rerun import RerunView
from rendering.light import SpotLight
from rendering.phantom.clip import Clip
from rendering.phantom.material import tissue
from rendering.phantom.motion import Motion
from rendering.phantom.noise import fbm
from rendering.phantom.paths import OrbitPath
from rendering.phantom.render import Look, Renderer
from rendering.phantom.scene import Anatomy
from rendering.phantom.surfaces import height_field
from rendering.shade import Response
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

CAMERA = Camera.from_fov(96, 80, np.radians(60))
FRAMES, FPS = 17, 10.0
QUICK = Options(seconds=1e6, iterations=120, degree=0, grow_every=40)
SEEDS = 3000


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A flap of tissue, 60 mm before a still camera, of which a part is drawn 4 mm aside and 3 mm out, and let go."""
    rng = np.random.default_rng(1)
    x = np.linspace(-60, 60, 90)
    points = np.stack([*np.meshgrid(x, x, indexing="ij"), np.zeros((90, 90))], -1)
    part = height_field(5 * fbm(points, 0.03, 2, 3), 120.0, ("mucosa",))
    anatomy = Anatomy.of("flap", [part], OrbitPath(np.zeros(3), 1, (60, 61), (1, 1)), 60.0, 8.0)
    pose = np.diag([1.0, -1, -1, 1])
    pose[2, 3] = 60
    lights = (SpotLight((-2, 0, 0), exponent=1.0), SpotLight((2, 0, 0), exponent=1.0))
    # Coarse vessels without gloss: highlights do not move with the tissue.
    grain = {"vessel_frequency": 0.06, "vessel_width": 0.12, "mottle_frequency": 0.12, "mottle_share": 1.0}
    matt = {"film": 0.0, "f0": 0.0, "vessel_share": 0.9, "vessel": (0.25, 0.02, 0.03), "pool_level": 3.0}
    look = Look((replace(tissue(rng, "mucosa", 60.0), **grain, **matt),), lights, 7)
    motion = Motion(np.zeros(3), 14.0, np.array([4.0, 0, 3.0]), FRAMES / FPS)
    return Clip(
        Renderer(anatomy), CAMERA, np.tile(pose, (FRAMES, 1, 1)), look, Response(read_noise=0.003, shot_noise=0.004),
        np.ones((80, 96), bool), 0, 70.0, FPS, motion,
    )  # fmt: skip


def at(number: int) -> int:
    return round(number * 1e9 / FPS)


@pytest.fixture(scope="module")
def views(clip: Clip) -> list[SplatView]:
    return [
        SplatView(
            i, at(i), f.rgb, f.depth > 0, f.depth, (f.depth > 0).astype(np.float16), CAMERA, f.world_from_cam
        )
        for i, f in enumerate(clip.frames())
    ]  # fmt: skip


def observation(view: SplatView) -> Observation:
    frame = replace(Frame.of(view.rgb, view.index, view.time_ns, view.camera), use_mask=view.use_mask)
    spread = np.full(view.depth.shape, 0.02, np.float32)
    return Observation(frame, view.depth, view.confidence.astype(np.float32), spread, view.world_from_cam, 0, False)


def some_splats(n: int, bells: int = 3) -> MovingSplats:
    rng = np.random.default_rng(0)
    some = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    rest = Splats(some(n, 3), some(n, 4), some(n, 3), some(n), some(n, 1, 3), np.zeros((n, 0, 3), np.float32))
    return MovingSplats(rest, some(n, bells, CHANNELS), TimeBasis.over(range(0, 10**9, 10**8)))


class TestBells:
    def test_heights(self) -> None:
        """Nine times: three bells at 0, .5 and 1, .5 wide. At .5 the outer ones lie one width away: e^-.5 = .60653,
        less the floor e^-4.5 = .01111, over what is left of 1: .60212."""
        basis = TimeBasis.over(range(9))
        heights = basis.heights(4)
        assert basis.shape[0].tolist() == [0, 0.5, 1] and np.exp(basis.shape[1]) == pytest.approx([0.5] * 3)
        assert heights.first == 0 and heights.value == pytest.approx([0.60212, 1, 0.60212], abs=1e-5)
        assert basis.heights(-100).value == pytest.approx(basis.heights(-1).value)

    def test_only_near_ones_count(self) -> None:
        basis = TimeBasis.over(range(81))  # 21 bells
        heights = basis.heights(40)
        assert heights.first == 8 and len(heights.value) == 5  # those closer than three widths
        assert basis.matrix(range(81)).shape == (81, 21)

    def test_slopes_are_differences(self) -> None:
        basis, small = TimeBasis.over(range(9)), 1e-5
        heights = basis.heights(3)
        for row, slope in enumerate((heights.by_centre, heights.by_width)):
            for b in range(3):
                basis.shape[row, b] += small
                up = basis.matrix([3])[0, b]
                basis.shape[row, b] -= 2 * small
                down = basis.matrix([3])[0, b]
                basis.shape[row, b] += small
                assert slope[b] == pytest.approx((up - down) / (2 * small), abs=1e-2)

    def test_a_bell_is_moved_to_where_it_helps(self) -> None:
        basis = TimeBasis.over(range(9))
        for _ in range(200):
            heights = basis.heights(3)
            basis.step(heights, 2 * (heights.value - np.array([0.8, 0.8, 0.1])), 0.02)
        assert basis.heights(3).value == pytest.approx([0.8, 0.8, 0.1], abs=0.1)


def test_the_step_is_pytorchs() -> None:
    """Displacement, its gradient by the weights and by the heights, and Adam, against autograd and torch.optim.Adam."""
    splats, names = some_splats(40), ("means", "quats", "scales")
    parameter = torch.nn.Parameter(torch.from_numpy(splats.weights.copy()))
    theirs = torch.nn.Parameter(parameter.detach().clone())
    rest = torch.cat([torch.from_numpy(getattr(splats.rest, n)) for n in names], 1)
    mine, adam = MotionAdam(parameter), torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=1e-15)
    mine.rates = np.full(CHANNELS, 0.01, np.float32)
    for time_ns in (3 * 10**8, 4 * 10**8, 5 * 10**8):
        heights = splats.basis.heights(time_ns)
        assert heights.first == 0 and len(heights.value) == 3
        value = torch.from_numpy(heights.value).requires_grad_()
        moved = rest + torch.einsum("k,nkc->nc", value, theirs)
        ours = displaced(*(getattr(splats.rest, n) for n in names), parameter.detach().numpy(), heights)
        assert np.allclose(np.concatenate(ours, 1), moved.detach().numpy(), atol=1e-5)
        adam.zero_grad()
        (0.5 * moved**2).sum().backward()
        mine.take(heights, *(np.ascontiguousarray(a) for a in np.split(moved.detach().numpy(), [3, 7], 1)))
        adam.step()
        mine.step()
        assert value.grad is not None and mine.by_height == pytest.approx(value.grad.numpy(), rel=1e-4)
        assert torch.allclose(parameter, theirs, atol=1e-5)


def test_stretch_is_pytorchs() -> None:
    rng = np.random.default_rng(0)
    rest, means = (rng.normal(size=(9, 3)).astype(np.float32) for _ in range(2))
    near = np.array([[(n + 1) % 9, (n + 4) % 9] for n in range(9)])
    found = np.zeros((9, 3), np.float32)
    add_stretch(0, 9, rest, means, near, np.float32(0.3), np.float32(0.1), found)
    shift = torch.from_numpy(means - rest).requires_grad_()
    apart = shift[:, None] - shift.detach()[near]
    (0.3 * ((apart**2).sum(-1) + 0.01).sqrt()).sum().backward()
    assert shift.grad is not None and np.allclose(found, shift.grad.numpy(), atol=1e-5)


def test_least_squares_find_a_smooth_motion() -> None:
    """Three bells for nine times fit half a sine of 5 mm to .3 mm."""
    times = list(range(9))
    path = 5 * np.sin(np.pi * np.arange(9) / 8)
    points = np.zeros((9, 1, 3))
    points[:, 0, 0] = path
    basis = TimeBasis.over(times)
    rest, weights = fit(points, times, basis)
    again = rest[:, 0] + basis.matrix(times) @ weights[0, :, 0]
    assert np.abs(again - path).max() < 0.3 and not weights[..., 3:].any()


class TestFollowing:
    def test_a_picture_that_slides(self) -> None:
        """Noise that slides 1.5 px a frame, a third of it hidden in one frame: found to .3 px, there moved on with the
        rest. At depth 50 and a focal length of 80 px, 1.5 px are .94."""
        import cv2

        noise = np.random.default_rng(0).random((80, 160)).astype(np.float32)
        wide = np.uint8(255 * cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 1, cv2.NORM_MINMAX))
        camera, slid = Camera.pinhole(96, 80, 80, 80, 48, 40), []
        for i in range(6):
            shift = np.float32([[1, 0, 1.5 * i - 30], [0, 1, 0]])
            grey = cv2.warpAffine(wide, shift, (96, 80), flags=cv2.INTER_CUBIC)
            use = np.ones((80, 96), bool)
            use[:, 30:60] &= i != 3
            rgb, depth = np.repeat(grey[..., None], 3, 2), np.full((80, 96), 50, np.float32)
            slid.append(SplatView(i, i, rgb, use, depth, np.ones((80, 96), np.float16), camera, np.eye(4)))
        pixels = np.stack(np.meshgrid(np.arange(20.5, 70), np.arange(20.5, 60)), -1).reshape(-1, 2)
        tracks = follow(slid, 1, pixels)
        assert np.abs(tracks.places[5] - pixels - [6, 0]).mean() < 0.3
        hidden = ~tracks.seen[3]
        assert 0.3 < hidden.mean() < 0.9 and tracks.seen[5].mean() > 0.8
        points = tracks.points(slid)
        assert np.abs(points[3] - points[1] - [2 * 0.9375, 0, 0])[hidden].mean() < 0.2

    def test_flicker_goes_and_motion_stays(self, views: list[SplatView]) -> None:
        flicker = np.exp(0.05 * np.random.default_rng(0).normal(size=FRAMES))
        shaken = [replace(v, depth=v.depth * np.float32(f)) for v, f in zip(views, flicker)]
        pixels = np.stack(np.meshgrid(np.arange(5.5, 90, 3), np.arange(5.5, 75, 3)), -1).reshape(-1, 2)
        steady = steadied(shaken, follow(shaken, 8, pixels))
        level = lambda vs: np.log([np.median(a.depth / b.depth) for a, b in zip(vs, views)])  # noqa: E731
        assert np.diff(level(steady)).std() < 0.35 * np.diff(level(shaken)).std()

    def test_what_is_hidden_gets_a_frame_of_its_own(self, views: list[SplatView]) -> None:
        hiding = []
        for i, view in enumerate(views):
            use = view.use_mask.copy()
            use[20:60, 10:40] &= i < 4  # seen in the first frames only
            hiding.append(replace(view, use_mask=use))
        splats, _, first = seeds(hiding, SEEDS, 0, Light(60.0))
        assert first >= 4
        still = splats.at(at(10))
        pixels, _ = CAMERA.project((still.means - views[0].world_from_cam[:3, 3]) @ views[0].world_from_cam[:3, :3])
        behind = (abs(pixels - [25, 40]) < [12, 17]).all(1)
        assert behind.mean() > 0.5 * 24 * 34 / (80 * 96)


def test_points_are_followed_to_a_tenth_of_the_motion(clip: Clip, views: list[SplatView]) -> None:
    """Trained on 14 of 17 frames, a pixel being .7 mm; points move up to 5 mm, and are found within 1 mm, half of them
    within .3 mm (found: .17 mm; .48 mm for 95 % of them)."""
    light = Light(60.0)
    trained = [v for i, v in enumerate(views) if i % 8]
    start, _, _ = seeds(trained, SEEDS, 0, light)
    training = MovingTraining(start, views, light, QUICK)
    before, shape = training.figures(), training.basis.shape.copy()
    training.run(lambda *_: None, lambda _: None)
    after, end = training.history[-1], training.moving()
    assert after.psnr > before.psnr + 2 and [v.index for v in training.tests] == [0, 8, 16]
    points, visible = clip.tracks(200)
    found = end.follow(points[8], at(8), [at(i) for i in range(FRAMES)])
    error = np.linalg.norm(found - points, axis=-1)[visible]
    moved = np.linalg.norm(points - points[8], axis=-1)[visible]
    assert moved.max() > 4.5 and np.median(error) < 0.3 and np.percentile(error, 95) < 1.0
    for name in ("means", "quats", "scales", "opacities", "sh0"):
        kept = getattr(start.rest, name)
        assert not np.allclose(getattr(end.rest, name)[: len(kept)], kept[: len(end)]), f"{name} did not move"
    assert all(end.weights[:, :, part].any() for part in (slice(0, 3), slice(3, 7), slice(7, 10)))
    assert not np.allclose(end.basis.shape[0], shape[0]) and not np.allclose(end.basis.shape[1], shape[1])


def test_a_training_goes_on_from_what_was_kept(views: list[SplatView]) -> None:
    light, options = Light(60.0), replace(QUICK, iterations=12)
    start, _, _ = seeds(views[:6], 800, 0, light)
    first = MovingTraining(start, views, light, options)
    first.run(lambda *_: None, lambda _: None)
    second = MovingTraining(start, views, Light(1.0), replace(options, iterations=20), first.state())
    assert second.steps == 12 and np.array_equal(second.moving().weights, first.moving().weights)
    assert np.array_equal(second.basis.shape, first.basis.shape) and second.basis.steps == 12
    assert second.figures().psnr == pytest.approx(first.figures().psnr, abs=1e-6)
    second.run(lambda *_: None, lambda _: None)
    assert second.steps == 20


@pytest.mark.parametrize("what", ["sh0", "motion"])
def test_no_number_in_the_middle_goes_back(views: list[SplatView], what: str) -> None:
    light = Light(60.0)
    start, _, _ = seeds(views[:6], 800, 0, light)
    training = MovingTraining(start, views, light, replace(QUICK, iterations=6))
    with torch.no_grad():
        training.raw[what][:] = torch.nan
    training.run(lambda *_: None, lambda _: None)
    assert "no number at step" in training.warnings[0]
    assert np.isfinite(training.moving().weights).all() and np.isfinite(training.history[-1].psnr)


class TestScene:
    def test_files_figures_and_mesh(self, views: list[SplatView], tmp_path: Path) -> None:
        scene = DeformingScene(60.0, Setting(tmp_path / "scene"), replace(QUICK, iterations=40), SEEDS)
        for view in views:
            scene.integrate(observation(view))
        mesh = scene.mesh()
        assert len(mesh.faces) > 500 and scene.splats is not None and not scene.rigid
        assert scene.figures["held_out"] == [0, 8, 16] and scene.figures["psnr"] > 20
        assert scene.figures["tools"] == {"masks": "none found", "share": 0.0} and scene.figures["bells"] == 4
        still = read_splats(tmp_path / "scene" / "splats.ply")
        again = read_motion(still, tmp_path / "scene" / FILE)
        moment = round(scene.figures["moment"]["time_s"] * 1e9)
        assert np.array_equal(again.at(moment).means, still.means)
        assert np.array_equal(again.at(0).means, scene.splats.at(0).means)
        assert not np.allclose(again.at(0).means, still.means, atol=0.1)

    # Kernels of surfels compile for 20 s.
    @pytest.mark.parametrize("surfels", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_given_masks_are_used(self, views: list[SplatView], surfels: bool) -> None:
        scene = DeformingScene(60.0, Setting(), replace(QUICK, iterations=2, surfels=surfels), 800)
        for i, view in enumerate(views):
            use = view.use_mask.copy()
            use[20:40, 10 + 2 * i : 40 + 2 * i] = False
            scene.integrate(observation(replace(view, use_mask=use)))
        scene.mesh()
        assert scene.figures["tools"] == {"masks": "given"}
        assert scene.splats is not None and scene.splats.at(views[3].time_ns).surfels == surfels

    @pytest.mark.parametrize("what", ["no depth", "all masked"])
    def test_nothing_to_begin_with(self, views: list[SplatView], what: str) -> None:
        scene = DeformingScene(60.0, Setting(), QUICK)
        nothing = np.zeros_like(views[0].depth)
        for view in views[:4]:
            view = replace(view, confidence=nothing.astype(np.float16))
            scene.integrate(observation(replace(view, use_mask=nothing > 0) if what == "all masked" else view))
        assert len(scene.mesh().faces) == 0 and scene.splats is None
        assert "there are no Gaussians: in none of the 4 frames there are tissue and depth" in scene.warnings[-1]

    @pytest.mark.parametrize("frames", [1, 2])
    def test_too_few_frames(self, views: list[SplatView], frames: int) -> None:
        scene = DeformingScene(60.0, Setting(), QUICK)
        for view in views[:frames]:
            scene.integrate(observation(view))
        assert len(scene.mesh().faces) > 0 and scene.splats is None
        assert f"at least 3 frames, and there are {frames} to train on" in scene.warnings[-1]

    def test_its_name(self) -> None:
        assert isinstance(find_scene("splats-deforming")(60.0, Setting()), DeformingScene)


class TestFiles:
    def test_twice_as_long(self) -> None:
        splats = some_splats(5)
        assert np.allclose(splats.scaled(2).at(3e8).means, 2 * splats.at(3e8).means, rtol=1e-5)

    def test_motion_of_other_gaussians(self, tmp_path: Path) -> None:
        splats = some_splats(5)
        write_motion(splats, tmp_path / FILE)
        with pytest.raises(InputError, match="does not belong to the 4 Gaussians beside it"):
            read_motion(some_splats(4).rest, tmp_path / FILE)
        (tmp_path / FILE).write_bytes(b"no archive")
        with pytest.raises(InputError, match="can't be read"):
            read_motion(splats.rest, tmp_path / FILE)

    def test_the_recording_plays_them(self, tmp_path: Path) -> None:
        """Their colours once; where they are in each of the four frames that have a place."""
        from rerun.chunk import RrdReader

        splats = some_splats(5)
        view = RerunView(tmp_path / "recording.rrd")
        view.started("made up", RUN_CAMERA)
        for placed in observations():
            if isinstance(placed, Observation):
                view.observed(placed)
        view.splats(splats)
        view.finished(write_run(tmp_path / "run"))
        chunks = RrdReader(str(tmp_path / "recording.rrd")).stream()
        found = [c for c in chunks if str(c.entity_path) == "/world/splats"]
        assert sum(c.num_rows for c in found if c.is_static) == 1
        assert sum(c.num_rows for c in found if not c.is_static) == 4
        assert all("video_time" in c.timeline_names for c in found if not c.is_static)

    def test_a_clip_of_them_plays_in_time(self, tmp_path: Path) -> None:
        """One red ball, 20 ahead, that goes 6 to the right in the time of the run."""
        import av

        made: Run = write_run(tmp_path / "run")
        times = made.trajectory.times_ns
        basis = TimeBasis.over(times.tolist())
        points = np.zeros((len(times), 1, 3))
        points[:, 0] = np.stack([np.linspace(-3, 3, len(times)), np.zeros(len(times)), np.full(len(times), 20)], 1)
        rest, weights = fit(points, times.tolist(), basis)
        ball = Splats(
            rest.astype(np.float32), np.float32([[1, 0, 0, 0]]), np.zeros((1, 3), np.float32), np.float32([4]),
            np.float32([[[1.5, -1.5, -1.5]]]), np.zeros((1, 0, 3), np.float32),
        )  # fmt: skip
        moving = MovingSplats(ball, weights, basis)
        write_splats(moving.at(times[0]), made.path / "scene" / "splats.ply")
        write_motion(moving, made.path / "scene" / FILE)
        assert fly(made, "original", "color", tmp_path / "x.mp4", 10.0, lambda *_: None) == 4
        with av.open(str(tmp_path / "x.mp4")) as video:
            frames = [frame.to_ndarray(format="rgb24")[..., 0].astype(float) for frame in video.decode(video=0)]
        column = [float((f.sum(0) * np.arange(f.shape[1])).sum() / f.sum()) for f in frames]
        assert column == sorted(column) and column[-1] > column[0] + 10
