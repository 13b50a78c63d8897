"""Loss functions, pure: tensors in, one number (or one a pixel) out. Weights are 0 where there is no truth."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def aligned_residual(log_distance: Tensor, true_log_distance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The error of log distance once each image's scale is taken out, and that scale.

    The scale is the median over the pixels with a weight above one half; no gradient flows through it.

    Args:
        log_distance, true_log_distance, weight: (B, H, W).

    Returns:
        residual (B, H, W), 0 where the weight is 0, and the median (B,) that was subtracted.
    """
    error = log_distance - true_log_distance
    counted = torch.where(weight > 0.5, error.detach(), torch.nan)[:, ::3, ::3]
    scale = torch.nan_to_num(counted.flatten(1).nanmedian(1).values)
    return torch.where(weight > 0, error - scale[:, None, None], 0.0), scale


def distance_loss(residual: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute scale-free error of log distance: close to AbsRel."""
    return (residual.abs() * weight).sum() / weight.sum().clamp_min(1)


def gradient_loss(residual: Tensor, weight: Tensor, scales: int = 4) -> Tensor:
    """Mean absolute difference of neighbouring residuals at strides 1, 2, 4, ... (Li and Snavely 2018, MegaDepth)."""
    total = residual.new_zeros(())
    for _ in range(scales):
        for axis in (1, 2):
            n = residual.shape[axis] - 1
            near, far = residual.narrow(axis, 0, n), residual.narrow(axis, 1, n)
            both = weight.narrow(axis, 0, n) * weight.narrow(axis, 1, n)
            total = total + ((far - near).abs() * both).sum() / both.sum().clamp_min(1)
        residual, weight = residual[:, ::2, ::2], weight[:, ::2, ::2]
    return total / scales


def spread_loss(residual: Tensor, log_std: Tensor, weight: Tensor) -> Tensor:
    """Negative log likelihood of the residual under a Laplace distribution with this standard deviation.

    The residual is detached: the spread learns to tell the error and never excuses it.
    """
    scaled = math.sqrt(2) * residual.detach().abs() * torch.exp(-log_std)
    return ((log_std + scaled) * weight).sum() / weight.sum().clamp_min(1)


def focal_loss(focal: Tensor, true_focal: Tensor) -> Tensor:
    """Mean absolute error of the log of the focal lengths, (B, 2)."""
    return (focal.log() - true_focal.log()).abs().mean()


def pose_loss(pose: Tensor, true_pose: Tensor, rays: Tensor, relative_distance: Tensor, weight: Tensor) -> Tensor:
    """Mean angle (rad) by which a pixel's ray moves wrongly: rotation and translation weighed by what they do.

    To first order a point at distance d along the unit ray u moves by (r x u) + (t - u (u . t)) / d on the sphere.

    Args:
        pose, true_pose: (B, 6) axis-angle r and translation t.
        rays: (B, 3, H, W) unit rays, 0 where there is none.
        relative_distance: (B, H, W) in the unit of the translation.
        weight: (B, H, W).
    """
    error = pose - true_pose
    r, t = error[:, :3, None, None].expand_as(rays), error[:, 3:, None, None].expand_as(rays)
    across = t - rays * (rays * t).sum(1, keepdim=True)
    moved = torch.linalg.cross(r, rays, dim=1) + across / relative_distance[:, None].clamp_min(0.05)
    return ((moved.square().sum(1) + 1e-8).sqrt() * weight).sum() / weight.sum().clamp_min(1)


def scale_consistency_loss(log_distance: Tensor, true_log_distance: Tensor, weight: Tensor, pairs: int) -> Tensor:
    """How much the scale of the two frames of each pair differs; images 2k and 2k + 1, k < `pairs`, are a pair."""
    if pairs == 0:
        return log_distance.new_zeros(())
    error = ((log_distance - true_log_distance) * weight)[: 2 * pairs].flatten(1).sum(1)
    scale = error / weight[: 2 * pairs].flatten(1).sum(1).clamp_min(1)
    return F.smooth_l1_loss(scale[0::2], scale[1::2], beta=0.05)
