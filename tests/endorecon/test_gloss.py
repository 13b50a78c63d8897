"""Highlights of Gaussians: the lobe, learning one from pictures, files, and a run that is rendered with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from endorecon.scales import _rescale_splats
from endorecon.scenes._splat_gloss import FILE, hold, mirrored, read_gloss, seeded, write_gloss
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import Splats, SplatView, read_splats, write_splats
from endorecon.scenes._splat_training import Options, Training
from video_io.camera import Camera
from video_io.errors import InputError

CAMERA = Camera.from_fov(48, 40, np.radians(70))


def wall(shiny: bool) -> Splats:
    """A grey wall 20 units ahead; or with lobes of log k = 4 that face along the axis."""
    y, x = np.meshgrid(np.linspace(-20, 20, 16), np.linspace(-20, 20, 16))
    n = x.size
    gloss = seeded(np.tile([0.0, 0, -1], (n, 1)))
    if shiny:
        gloss[:, :2] = 0.4, 4.0
    return Splats(
        np.stack([x.ravel(), y.ravel(), np.full(n, 20)], 1).astype(np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (n, 1)), np.log(np.tile(np.float32([2, 2, 0.2]), (n, 1))),
        np.full(n, 3, np.float32), np.full((n, 1, 3), -0.5, np.float32), np.zeros((n, 3, 3), np.float32), gloss=gloss,
    )  # fmt: skip


@pytest.fixture(scope="module")
def views() -> list[SplatView]:
    """A shiny wall seen from places in front of it: the highlight stays where the camera looks straight at the wall."""
    found, shiny = [], wall(True)
    for i, x in enumerate(np.linspace(-6, 6, 16)):
        pose = np.eye(4)
        pose[:2, 3] = x, 0.3 * x
        layers = shiny.render(CAMERA, pose)
        rgb, depth = np.uint8(np.rint(255 * np.clip(layers.color.numpy(), 0, 1))), layers.depth.numpy()
        known = depth > 0
        found.append(SplatView(i, i * 10**9, rgb, known, depth, known.astype(np.float16), CAMERA, pose))
    return found


def test_a_lobe_falls_off_with_the_angle() -> None:
    """exp(10 (cos 60 degrees - 1)) = .00674; from (10, 0, 0) the direction is 45 degrees off: exp(10 (.7071 - 1)) =
    .0535."""
    means = torch.tensor([[0.0, 0, 10], [0, 0, 10]])
    tilted = [0.0, 3**0.5 / 2, -0.5]
    gloss = torch.tensor([[0.5, np.log(10), 0, 0, -2], [0.5, np.log(10), *tilted]], dtype=torch.float32)
    assert mirrored(gloss, means, torch.eye(4)).tolist() == pytest.approx([0.5, 0.5 * 0.00674], abs=1e-5)
    view = torch.eye(4, dtype=torch.float64)
    view[0, 3] = -10
    assert mirrored(gloss, means, view)[0].item() == pytest.approx(0.5 * 0.0535, abs=1e-4)


def test_lobe_and_pose_have_gradients() -> None:
    gloss = torch.tensor([[0.5, 2, 0.1, 0.2, -1]], dtype=torch.float64, requires_grad=True)
    means, view = torch.tensor([[1.0, 2, 10]], dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(mirrored, (gloss, means, view.requires_grad_()))


def test_lobes_are_held_within_bounds() -> None:
    gloss = torch.tensor([[-0.1, 9.0, 0, 0, 1], [0.2, 0.0, 0, 0, 1]])
    hold(gloss)
    assert gloss[:, :2].tolist() == [[0.0, 6.0], [pytest.approx(0.2), 1.0]]


def test_training_finds_the_highlight(views: list[SplatView]) -> None:
    """Frames that were held out are shown far better than by harmonics alone; what was kept goes on as it was."""
    figures = {}
    for glossy in (False, True):
        start = wall(False) if glossy else replace(wall(False), gloss=None)
        options = Options(1e6, 300, degree=1, grow_to=0.0, gloss=glossy)
        training = Training(start, views, Light(20.0), options)
        training.run(lambda *_: None, lambda _: None)
        figures[glossy] = training.history[-1].psnr
    assert figures[True] > figures[False] + 2
    end = training.splats()
    assert end.gloss is not None and end.gloss[:, 0].min() >= 0 and np.quantile(end.gloss[:, 0], 0.9) > 0.05
    again = Training(wall(False), views, Light(1.0), options, training.state())
    assert np.array_equal(again.splats().gloss, end.gloss)
    assert again.figures().psnr == pytest.approx(figures[True], abs=1e-6)


def test_files(tmp_path: Path) -> None:
    shiny = wall(True)
    assert read_gloss(tmp_path / FILE, 3) is None
    scene, scaled = tmp_path / "scene", tmp_path / "scaled"
    scene.mkdir(), scaled.mkdir()
    write_splats(shiny, scene / "splats.ply")
    write_gloss(shiny.gloss, scene / FILE)
    assert read_splats(scene / "splats.ply").gloss is None  # what other viewers show
    assert np.array_equal(read_gloss(scene / FILE, len(shiny)), shiny.gloss)
    _rescale_splats(scene, scaled, 2.0)
    assert np.array_equal(read_gloss(scaled / FILE, len(shiny)), shiny.gloss)
    with pytest.raises(InputError, match=r"of shape \(256, 5\), and there are 7 Gaussians"):
        read_gloss(scene / FILE, 7)
    for broken in (b"PK\3\4 cut off", b"\n", b""):
        (scene / FILE).write_bytes(broken)
        with pytest.raises(InputError, match="can't be read; expected numpy's npz"):
            read_gloss(scene / FILE, len(shiny))
