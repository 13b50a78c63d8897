"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from foundation_adapters import losses


def test_scale_is_taken_out_by_the_median() -> None:
    true = torch.zeros(1, 3, 3)
    found = torch.full((1, 3, 3), 0.7)
    weight = torch.ones(1, 3, 3)
    residual, scale = losses.aligned_residual(found, true, weight)
    assert scale.item() == pytest.approx(0.7)
    assert residual.abs().max().item() == pytest.approx(0, abs=1e-7)


def test_pixels_without_truth_count_nothing() -> None:
    found = torch.tensor([[[1.0, 2.0], [3.0, 50.0]]])
    weight = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    # Every third pixel decides the scale: here the first alone. Residuals 0, 1, 2 and no fourth; their mean is 1.
    residual, scale = losses.aligned_residual(found, torch.zeros(1, 2, 2), weight)
    assert scale.item() == 1.0
    assert losses.distance_loss(residual, weight).item() == pytest.approx(1.0)


def test_an_image_without_truth_gives_zero_and_no_nan() -> None:
    found = torch.zeros(1, 8, 8, requires_grad=True)
    weight = torch.zeros(1, 8, 8)
    residual, _ = losses.aligned_residual(found, torch.zeros(1, 8, 8), weight)
    total = losses.distance_loss(residual, weight) + losses.gradient_loss(residual, weight)
    total = total + losses.spread_loss(residual, found, weight)
    total.backward()
    assert total.item() == 0
    assert torch.isfinite(found.grad).all()


def test_gradient_loss_of_a_ramp() -> None:
    # A ramp of 0.1 a pixel along x: neighbours differ by 0.1, 0.2, 0.4, 0.8 at the four strides, and by 0 along y.
    ramp = (0.1 * torch.arange(32.0)).expand(1, 32, 32)
    value = losses.gradient_loss(ramp, torch.ones(1, 32, 32))
    assert value.item() == pytest.approx((0.1 + 0.2 + 0.4 + 0.8) / 4)


def test_spread_is_best_where_it_tells_the_error() -> None:
    # Laplace: log s + sqrt(2) |r| / s has its least value at s = sqrt(2) |r|; there it is log s + 1.
    residual, weight = torch.full((1, 4, 4), 0.1), torch.ones(1, 4, 4)
    best = math.log(math.sqrt(2) * 0.1)
    values = [losses.spread_loss(residual, torch.full((1, 4, 4), best + d), weight).item() for d in (-0.2, 0.0, 0.2)]
    assert values[1] == pytest.approx(best + 1)
    assert values[1] < min(values[0], values[2])


def test_focal_loss_is_the_log_ratio() -> None:
    value = losses.focal_loss(torch.tensor([[0.6, 0.5]]), torch.tensor([[0.5, 0.5]]))
    assert value.item() == pytest.approx(math.log(1.2) / 2)


def test_pose_loss_of_a_sideways_step() -> None:
    # Straight ahead, at distance 2, a sideways error of 0.1 turns the ray by 0.05 rad; a step along the ray by none.
    rays = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    still, weight = torch.zeros(1, 6), torch.ones(1, 1, 1)
    distance = torch.full((1, 1, 1), 2.0)
    side, along, turn = torch.zeros(1, 6), torch.zeros(1, 6), torch.zeros(1, 6)
    side[0, 3], along[0, 5], turn[0, 1] = 0.1, 0.1, 0.03
    values = [losses.pose_loss(p, still, rays, distance, weight).item() for p in (side, along, turn)]
    assert values == pytest.approx([0.05, 1e-4, 0.03], abs=2e-4)


def test_scale_consistency_looks_at_pairs_alone() -> None:
    true, weight = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
    found = torch.stack([torch.full((4, 4), v) for v in (0.5, 0.9, 7.0)])
    # Smooth L1 with beta 0.05 of a difference of 0.4: 0.4 - 0.025.
    assert losses.scale_consistency_loss(found, true, weight, 1).item() == pytest.approx(0.375)
    assert losses.scale_consistency_loss(found, true, weight, 0).item() == 0
