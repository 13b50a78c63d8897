"""Gaussians of a scene: the loss and the optimiser against PyTorch's, training on a phantom, files, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from endorecon.scenes import find_scene, scenes
from endorecon.scenes._splat_adam import FusedAdam
from endorecon.scenes._splat_growth import relocation
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_loss import Weights, frame_loss, padded
from endorecon.scenes._splat_model import C0, Splats, SplatView, read_splats, seed, seed_points, write_splats
from endorecon.scenes._splat_training import NAMES, Options, Training
from endorecon.scenes.base import Setting
from endorecon.scenes.splats import SplatScene
from endorecon.tracking.observation import Observation
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.datasets import open_truth
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import open_source

CAMERA = Camera.from_fov(96, 80, np.radians(80))
QUICK = Options(seconds=1e6, iterations=150, grow_every=50)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[SplatView]:
    """Frames of a phantom colon with their true depth and poses."""
    folder = simulate("colon", 5, 17, CAMERA, 30.0, tmp_path_factory.mktemp("phantom") / "clip", extras=False)
    truth, found = open_truth(folder), []
    for frame in open_source(folder / "video.mp4").frames():
        depth = truth.depth(frame.index).astype(np.float32)
        pose = truth.trajectory.world_from_cam[frame.index]
        known = (depth > 0).astype(np.float16)
        found.append(SplatView(frame.index, frame.time_ns, frame.rgb, known > 0, depth, known, CAMERA, pose))
    return found


def observation(view: SplatView) -> Observation:
    frame = replace(Frame.of(view.rgb, view.index, view.time_ns, view.camera), use_mask=view.use_mask)
    spread = np.full(view.depth.shape, 0.05, np.float32)
    return Observation(
        frame, view.depth, view.confidence.astype(np.float32), spread, view.world_from_cam, 0, view.index == 0
    )  # fmt: skip


def torch_ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """SSIM map of (3, H, W) images by its definition."""
    taps = torch.exp(-0.5 * ((torch.arange(11, dtype=x.dtype) - 5) / 1.5) ** 2)
    window = torch.outer(taps, taps).div(taps.sum() ** 2).expand(3, 1, 11, 11)
    mean = lambda image: torch.nn.functional.conv2d(image[None], window, padding=5, groups=3)[0]  # noqa: E731
    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return (2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx * mx + my * my + 1e-4) * (xx + yy + 9e-4))


@pytest.mark.parametrize("width", [40, 37])
def test_loss_is_what_pytorch_says(width: int) -> None:
    rng, height = np.random.default_rng(0), 33
    some = lambda *shape: rng.random(shape).astype(np.float32)  # noqa: E731
    color, alpha, depth, light = (
        some(height, width, 3),
        some(height, width),
        1 + some(height, width),
        1 + some(height, width),
    )
    measured, confidence, use = 1 + some(height, width), some(height, width), some(height, width) > 0.2
    target = padded((255 * (0.3 * some(height, width, 3) + 0.7 * color)).astype(np.uint8))
    gain, offset, weights = np.float32([1.1, 0.9, 1]), np.float32([0.02, 0, -0.01]), Weights()
    found = frame_loss(color, alpha, depth, target, use, measured, confidence, light, gain, offset, weights)

    c, a, z, m, g, o = (
        torch.from_numpy(v).double().requires_grad_() for v in (color, alpha, depth, light, gain, offset)
    )
    used, y = torch.from_numpy(use), torch.from_numpy(target[:, :, :width]).double()
    x = (c * m[..., None] * g + o).permute(2, 0, 1)
    number = used.sum()
    ssim = 1 - (1 - torch_ssim(torch.where(used, x, y), y)).sum() / 3 / number
    l1 = ((x - y).abs() * used).sum() / 3 / number
    off = (z / torch.from_numpy(measured)).log().abs() * torch.from_numpy(confidence) * (used & (a > 0.5))
    loss = 0.8 * l1 + 0.2 * (1 - ssim) + weights.depth * off.sum() / number
    loss = loss + weights.opening * ((1 - a) * used).sum() / number
    loss.backward()  # type: ignore[no-untyped-call]
    assert found.value == pytest.approx(loss.item(), rel=1e-5) and found.ssim == pytest.approx(ssim.item(), rel=1e-4)
    gradients = found.g_color, found.g_alpha, found.g_depth, found.g_light, found.g_gain, found.g_offset
    for tensor, slope in zip((c, a, z, m, g, o), gradients, strict=True):
        assert tensor.grad is not None
        assert (tensor.grad - torch.from_numpy(slope)).norm() < 1e-5 * tensor.grad.norm()


def test_adam_is_pytorchs() -> None:
    g = torch.Generator().manual_seed(0)
    mine = torch.nn.Parameter(torch.randn(50, 3, generator=g))
    theirs = torch.nn.Parameter(mine.detach().clone())
    adams = FusedAdam([mine], lr=0.01), torch.optim.Adam([theirs], lr=0.01, eps=1e-15)
    for _ in range(5):
        mine.grad = torch.randn(50, 3, generator=g)
        theirs.grad = mine.grad.clone()
        for adam in adams:
            adam.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_light_learns_an_inverse_square() -> None:
    """Pictures made by p = .9 and darker corners; 400 steps from p = .6 find the law again."""
    rng = np.random.default_rng(0)
    light, truth = Light(20.0), Light(20.0, np.array([0.9, -0.3, 0.1]))
    for _ in range(400):
        depth = (20 * np.exp(0.6 * rng.standard_normal((12, 16)))).astype(np.float32)
        factor = light.factor(depth)
        light.step(depth, factor, factor - truth.factor(depth), 5e-3)
    assert light.law == pytest.approx([0.9, -0.3, 0.1], abs=0.05)
    assert truth.factor(np.zeros((2, 2), np.float32)) == pytest.approx(np.exp(-0.3 * 0.25 + 0.1 / 16), abs=1e-5)


def test_training_gets_better_and_moves_everything(views: list[SplatView]) -> None:
    light = Light(float(np.median(views[0].depth)))
    held = [v for i, v in enumerate(views) if i % 8]
    start = seed(held, None, 4000, 1, light)
    training = Training(start, views, light, replace(QUICK, degree=1))
    assert [v.index for v in training.tests] == [0, 8, 16] and len(training.views) == 14
    before = training.figures()
    training.run(lambda *_: None, lambda _: None)
    after = training.history[-1]
    assert training.steps == 150 and after.psnr > before.psnr + 3 and after.ssim > before.ssim
    end = training.splats()
    for name in NAMES:
        kept = getattr(start, name)
        assert not np.allclose(getattr(end, name)[: len(kept)], kept[: len(end)]), f"{name} did not move"
    depth = end.render(CAMERA, views[8].world_from_cam).depth.numpy()
    assert np.median(np.abs(depth / views[8].depth - 1)[views[8].use_mask]) < 0.05


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_strategies_add_gaussians(views: list[SplatView], strategy: str) -> None:
    light = Light(float(np.median(views[0].depth)))
    options = Options(
        1e6, 60, degree=0, strategy=strategy, most=450, grow_from=0, grow_to=1, grow_every=20, grow_slope=1e-6
    )  # fmt: skip
    training = Training(seed(views, None, 400, 0, light), views, light, options)
    before = len(training.splats())
    training.run(lambda *_: None, lambda _: None)
    assert before < len(training.splats()) and np.isfinite(training.history[-1].psnr)


def test_copies_look_like_one() -> None:
    """Two copies of opacity .75: 1 - sqrt(1 - .75) = .5 each; by equation 9 their width is .75 over
    (1 + 1) .5 - .5^2 / sqrt 2 = .8232 of the one's."""
    opacity, scale = relocation(
        torch.tensor([0.75, 0.3]), torch.ones(2, 3), torch.tensor([2, 1]), torch.tensor([[1.0, 0], [1, 1]])
    )
    assert opacity.tolist() == pytest.approx([0.5, 0.3], abs=1e-6)
    assert scale[:, 0].tolist() == pytest.approx([0.75 / 0.82322, 1], abs=1e-4)


def test_a_training_goes_on_from_what_was_kept(views: list[SplatView]) -> None:
    light, options = Light(float(np.median(views[0].depth))), replace(QUICK, iterations=20, degree=1)
    first = Training(seed(views, None, 500, 1, light), views, light, options)
    first.run(lambda *_: None, lambda _: None)
    kept = first.state()
    second = Training(seed(views, None, 300, 1, light), views, Light(1.0), replace(options, iterations=30), kept)
    assert second.steps == 20 and len(second.splats()) == len(first.splats())
    assert np.array_equal(second.splats().means, first.splats().means) and second.light.usual == light.usual
    assert second.figures().psnr == pytest.approx(first.figures().psnr, abs=1e-6)
    second.run(lambda *_: None, lambda _: None)
    assert second.steps == 30


def test_no_number_in_the_middle_goes_back(views: list[SplatView]) -> None:
    light = Light(float(np.median(views[0].depth)))
    training = Training(seed(views, None, 500, 0, light), views, light, replace(QUICK, iterations=8, degree=0))
    with torch.no_grad():
        training.raw["sh0"][:] = torch.nan
    training.run(lambda *_: None, lambda _: None)
    assert "no number at step 0; it went back" in training.warnings[0]
    assert np.isfinite(training.splats().sh0).all() and np.isfinite(training.history[-1].psnr)


def test_a_gaussian_that_is_no_number_goes_back_too(views: list[SplatView]) -> None:
    """It is drawn nowhere, so the loss does not tell of it; nothing of it is kept."""
    light, kept = Light(float(np.median(views[0].depth))), []
    training = Training(seed(views, None, 500, 0, light), views, light, replace(QUICK, iterations=6, degree=0))
    spoiled: list[int] = []

    def spoil(*_: object) -> None:
        if training.steps == 3 and not spoiled:
            training.raw["means"].data[7] = torch.nan
            spoiled.append(7)

    training.run(spoil, kept.append, every_s=0.0)
    assert spoiled and "came upon a value that is no number" in training.warnings[0]
    assert all(np.isfinite(state["splats"]["means"]).all() for state in kept) and training.steps == 6
    assert np.isfinite(training.splats().means).all() and len(training.splats()) > 100


def test_what_keeps_failing_ends_with_the_last_good_state(views: list[SplatView]) -> None:
    light = Light(float(np.median(views[0].depth)))
    training = Training(seed(views, None, 500, 0, light), views, light, replace(QUICK, iterations=50, degree=0))
    good = training.splats()

    def spoil(*_: object) -> None:
        training.raw["sh0"].data[:] = torch.nan

    training.run(spoil, lambda _: None)
    assert training.warnings[-1] == "the Gaussians are left as they were at step 0, the last that was good"
    assert np.array_equal(training.splats().sh0, good.sh0) and np.isfinite(training.history[-1].psnr)


class TestScene:
    def test_mesh_files_and_figures(self, views: list[SplatView], tmp_path: Path) -> None:
        told: list[str] = []
        setting = Setting(tmp_path / "scene", progress=lambda stage, *_: told.append(stage))
        scene = SplatScene(float(np.median(views[0].depth)), setting, replace(QUICK, iterations=60, degree=1))
        for view in views:
            scene.integrate(observation(view))
        mesh = scene.mesh()
        assert len(mesh.faces) > 500 and scene.splats is not None and set(told) == {"splats"}
        assert scene.figures["held_out"] == [0, 8, 16] and scene.figures["psnr"] > 15
        again = read_splats(tmp_path / "scene" / "splats.ply")
        for name in NAMES:
            assert np.array_equal(getattr(again, name), getattr(scene.splats, name)), name
        assert (tmp_path / "scene" / "splats.splat").stat().st_size == 32 * len(scene.splats)

    def test_other_lenses_are_straightened(self, views: list[SplatView]) -> None:
        brown = Camera("brown", 96, 80, (*CAMERA.params, -0.1, 0.01, 0, 0, 0))
        scene = SplatScene(20.0, Setting(), replace(QUICK, iterations=2))
        scene.integrate(observation(replace(views[0], camera=brown)))
        assert scene._kept.views[0].camera.model == "pinhole" and scene._kept.views[0].use_mask.mean() > 0.8

    @pytest.mark.parametrize("what", ["no depth", "all masked"])
    def test_nothing_to_begin_with(self, views: list[SplatView], what: str) -> None:
        scene = SplatScene(20.0, Setting(), replace(QUICK, iterations=2))
        nothing = np.zeros_like(views[0].depth)
        for view in views[:3]:
            view = replace(view, confidence=nothing.astype(np.float16))
            scene.integrate(observation(replace(view, use_mask=nothing > 0) if what == "all masked" else view))
        assert len(scene.mesh().faces) == 0 and scene.splats is None
        assert "there are no Gaussians: Gaussians begin on measured depth, and 3 frames" in scene.warnings[-1]

    def test_one_frame(self, views: list[SplatView]) -> None:
        scene = SplatScene(20.0, Setting(), replace(QUICK, iterations=5, degree=1))
        scene.integrate(observation(views[0]))
        scene.mesh()
        assert scene.splats is not None and scene.figures["psnr"] is None and scene.figures["held_out"] == []

    def test_long_clips_are_thinned_out(self, views: list[SplatView], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("endorecon.scenes._splat_views.MOST_VIEWS", 6)
        scene = SplatScene(20.0, Setting(), replace(QUICK, iterations=2, degree=0))
        for view in views:
            scene.integrate(observation(view))
        assert [view.index for view in scene._kept.views] == [0, 4, 8, 12, 16]
        scene.mesh()
        assert "trained on every 4th frame" in scene.warnings[0]


def test_exposure_and_opacity(views: list[SplatView]) -> None:
    """One frame is a fifth brighter than the rest: its gain rises above the others'. A cost on opacity lowers it."""
    light = Light(float(np.median(views[0].depth)))
    few = [replace(v, rgb=np.uint8(np.minimum(1.2 * v.rgb, 255))) if v.index == 2 else v for v in views[:5]]
    means = []
    for opacity in (0.0, 5.0):
        options = replace(QUICK, iterations=200, degree=0, grow_to=0.0, held_out=False, opacity=opacity)
        training = Training(seed(few, None, 600, 0, light), few, light, options)
        training.run(lambda *_: None, lambda _: None)
        gains = np.array([training.exposure.of(i)[0].mean() for i in range(len(few))])
        assert gains.argmax() == 2 and gains[2] > np.median(gains) + 0.004
        means.append(float((1 / (1 + np.exp(-training.splats().opacities))).mean()))
    assert means[1] < 0.9 * means[0]


def test_what_gets_no_better_ends_early(views: list[SplatView]) -> None:
    """After growth, once the last steps are no better than those before; not while they still are."""
    light = Light(20.0)
    training = Training(seed(views, None, 300, 0, light), views, light, replace(QUICK, iterations=10_000, degree=0))
    training.steps = 9000
    n = 30 * len(training.views)
    training.losses = [0.1] * (2 * n)
    assert training._settled()
    training.run(lambda *_: None, lambda _: None)
    assert training.steps == 9000 and training.warnings == []
    training.losses = [0.1] * n + [0.09] * n
    assert not training._settled()


def test_black_seeds_can_become_brighter() -> None:
    """A colour of exactly 0 has no gradient, since what is negative is cut off."""
    seeds = seed_points(np.random.default_rng(0).normal(size=(6, 3)), np.zeros((6, 3)), 1)
    assert (C0 * seeds.sh0 + 0.5 > 1e-3).all() and seeds.degree == 1


def test_names() -> None:
    assert scenes() == ["splats", "splats-deforming", "tsdf"]
    with pytest.raises(InputError, match="scene 'mesh' is not known; choose one of splats, splats-deforming, tsdf"):
        find_scene("mesh")


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.ply"
    with pytest.raises(InputError, match="can't be read"):
        read_splats(path)
    path.write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n1234")
    with pytest.raises(InputError, match="has no y; expected Gaussians in the standard 3DGS form"):
        read_splats(path)
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match="is no binary PLY"):
        read_splats(path)
    one = Splats(*(np.zeros(s, np.float32) for s in ((1, 3), (1, 4), (1, 3), (1,), (1, 1, 3), (1, 3, 3))))
    write_splats(one, path)
    whole = path.read_bytes()
    for damage, words in [
        (lambda b: b[:-8], "is cut short"),
        (lambda b: b.replace(b"element vertex 1", b"element vertex 9999999999999"), "is cut short"),
        (lambda b: b.replace(b"element vertex 1", b"element vertex -1"), "is cut short"),
        (lambda b: b.replace(b"element vertex 1", b"element vertex many"), "is cut short"),
        (lambda b: b.replace(b"binary_little_endian", b"ascii"), "is no binary PLY"),
        (lambda b: b.replace(b"end_header", b"element face 0\nproperty list int int i\nend_header"), "holds more than"),
        (lambda b: b[:-4] + b"\x00\x00\xc0\x7f", "none of them of finite numbers"),
    ]:
        path.write_bytes(damage(whole))
        with pytest.raises(InputError, match=words):
            read_splats(path)
    path.write_bytes(whole.replace(b"\n", b"\r\n", whole[: whole.index(b"end_header")].count(b"\n")))
    assert len(read_splats(path)) == 1
    write_splats(one, tmp_path / "a.compressed.ply")
    with pytest.raises(InputError, match="is a compressed PLY, which is for viewers"):
        read_splats(tmp_path / "a.compressed.ply")
    with pytest.raises(InputError, match=r"can't be read \('zero' is a pipe or a device"):
        read_splats(Path("/dev/zero"))
