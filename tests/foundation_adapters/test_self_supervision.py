"""Losses without truth: on a plane by formula they are least at the true depth, and each can be turned off."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from made_recording import FISHEYE, PINHOLE, made

from foundation_adapters.material import Material
from foundation_adapters.self_supervision import (
    Group,
    Weights,
    calibrated,
    group_losses,
    ordered_pairs,
    project,
    relative_error,
    sample,
    to_grid,
)
from video_io.camera import Camera

OMNIDIRECTIONAL = Camera("omnidirectional", 96, 64, (48.0, 32.0, 50.0, -0.004, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0))
ALL = Weights()
CHOSEN = np.array([5, 7, 9, 11])


def group_of(camera: Camera = PINHOLE, **options: object) -> Group:
    return Material([made(camera, **options)], torch.device("cpu")).group(0, CHOSEN)


def losses_at(group: Group, log_distance: torch.Tensor, weights: Weights = ALL) -> dict[str, float]:
    found = group_losses(log_distance, torch.full_like(log_distance, -2.0), group, weights)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE, OMNIDIRECTIONAL], ids=lambda c: c.model)
def test_points_project_as_the_camera_says(camera: Camera) -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-20, 20, 400), rng.uniform(-14, 14, 400), rng.uniform(25, 60, 400)], -1)
    pixels, seen = camera.project(points)
    grid, valid = to_grid(torch.from_numpy(points.T.reshape(1, 3, 20, 20)).float(), camera)
    found = (grid[0].reshape(400, 2).numpy() + 1) / 2 * [camera.width, camera.height]
    assert seen.sum() > 200
    assert valid.reshape(400).numpy()[seen].all()
    assert np.abs(found - pixels)[seen].max() < 0.01


def test_points_behind_the_lens_are_not_seen() -> None:
    behind = torch.tensor([0.5, 0.2, -10.0]).reshape(1, 3, 1, 1)
    assert not to_grid(behind, PINHOLE)[1].any()


@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE], ids=lambda c: c.model)
def test_true_depth_takes_pixels_to_the_same_place(camera: Camera) -> None:
    group = group_of(camera)
    target, source = ordered_pairs(len(CHOSEN))
    assert target.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert source.tolist() == [1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2]
    seen = project(group.distance.log()[target], group, target, source)
    there = sample(group.distance.log()[source], seen.grid)
    assert seen.valid.float().mean() > 0.6
    assert (seen.log_distance - there).abs()[seen.valid].median() < 1e-3


def test_a_step_towards_the_plane_by_hand() -> None:
    # From (0, 0, 0) the middle of the image sees the plane z = 40 at 40; a lens 4 nearer sees it at 36.
    group = replace(
        group_of(), world_from_cam=torch.eye(4).double().repeat(4, 1, 1), distance=torch.full((4, 32, 48), 40.0)
    )
    group.world_from_cam[1, 2, 3] = 4.0
    seen = project(torch.full((1, 32, 48), 40.0).log(), group, torch.tensor([0]), torch.tensor([1]))
    # The pixel at (24.5, 16.5) of 48 x 32 (focal length 35) is off the axis by 0.5 / 35: the ray is (1, 1, 70) / |.|.
    point = 40 * np.array([1, 1, 70]) / np.sqrt(4902) - [0, 0, 4]
    assert float(seen.log_distance[0, 16, 24].exp()) == pytest.approx(np.linalg.norm(point), rel=1e-5)
    x = 35 * point[0] / point[2] + 24
    assert float(seen.grid[0, 16, 24, 0]) == pytest.approx(2 * x / 48 - 1, abs=1e-5)


@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE], ids=lambda c: c.model)
def test_each_loss_is_less_at_the_true_depth(camera: Camera) -> None:
    group = group_of(camera)
    true = group.distance.log()
    bent = true + 0.25 * torch.linspace(-1, 1, true.shape[2])
    right, wrong = losses_at(group, true), losses_at(group, bent)
    for name in ("distill", "gradient", "photometric", "geometric", "light"):
        # Light is a weak sign of depth: what is left is the texture between pixels.
        assert right[name] < (0.9 if name == "light" else 0.75) * wrong[name], name
    # The network's unit does not matter.
    assert losses_at(group, true + 2.0)["photometric"] == pytest.approx(right["photometric"], rel=1e-3)


def test_the_scales_of_a_group_must_agree() -> None:
    group = group_of()
    true = group.distance.log()
    uneven = true + torch.tensor([0.0, 0.2, 0.0, 0.0])[:, None, None]
    assert losses_at(group, true)["scale"] < 1e-6
    # One of four is off by 0.2: smooth L1 with its corner at 0.05 gives (0.2 - 0.025) / 4.
    assert losses_at(group, uneven)["scale"] == pytest.approx(0.04375, rel=1e-3)


def test_gradients_push_a_bent_depth_back() -> None:
    group = group_of()
    slope = torch.linspace(-1, 1, group.distance.shape[2])
    for name in ("photometric", "geometric", "light", "distill"):
        only = Weights().without(*(n for n in asdict(Weights()) if n != name))
        for sign in (1.0, -1.0):
            amount = torch.tensor(0.1 * sign, requires_grad=True)
            log_distance = group.distance.log() + amount * slope
            group_losses(log_distance, torch.zeros_like(log_distance), group, only)["total"].backward()
            assert sign * float(amount.grad) > 0, name


def test_masks_keep_what_lies_on_the_image_out() -> None:
    group = group_of()
    spoilt = group.rgb.clone()
    spoilt[:, :, 4:12, 10:20] = 1.0
    mask = group.mask.clone()
    mask[:, 3:13, 9:21] = False
    true = group.distance.log()
    clean = losses_at(replace(group, mask=mask), true)
    masked = losses_at(replace(group, mask=mask, rgb=spoilt), true)
    open_ = losses_at(replace(group, rgb=spoilt), true)
    for name in ("photometric", "light"):
        # What is left are windows of 3 x 3 and interpolation that reach over the mask's edge.
        assert abs(masked[name] - clean[name]) < 0.5 * abs(open_[name] - clean[name]) + 1e-3, name


def test_no_depth_and_no_light_give_zero_and_no_nan() -> None:
    group = group_of()
    dark = replace(
        group, rgb=torch.zeros_like(group.rgb), mask=torch.zeros_like(group.mask), confidence=0 * group.confidence
    )
    log_distance = group.distance.log().requires_grad_()
    total = group_losses(log_distance, torch.zeros_like(log_distance), dark, Weights())["total"]
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(log_distance.grad).all()


@pytest.mark.parametrize("name", list(asdict(Weights())))
def test_each_loss_can_be_turned_off(name: str) -> None:
    group = group_of()
    found = losses_at(group, group.distance.log(), Weights().without(name))
    assert set(found) == {*asdict(Weights()), "total"} - {name}


def test_exposure_is_taken_out_by_least_squares() -> None:
    aim = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    image = (aim - 0.1) / 1.3
    good = torch.ones(2, 8, 8, dtype=torch.bool)
    assert torch.allclose(calibrated(image, aim, good), aim, atol=2e-3)


def test_relative_error_by_hand() -> None:
    distance = torch.tensor([[[10.0, 20.0, 40.0]]])
    confidence = torch.tensor([[[0.9, 0.9, 0.9]]])
    # After the median every pixel but the last fits; that one is 10 % too far: 0.1 / 3.
    found = relative_error((distance * torch.tensor([3.0, 3.0, 3.3])).log(), distance, confidence)
    assert found == pytest.approx([0.1 / 3], rel=1e-5)
