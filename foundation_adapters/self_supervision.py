"""What frames of a recording tell a depth network without truth. Pure: tensors in, numbers out.

A group is a few frames that see the same from different places, with known poses. Distances are along unit rays, so
one geometry serves every lens. The run's unit is arbitrary, and so is the network's: each predicted map is first
brought to the run's unit by the median (no gradient flows through it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from foundation_adapters import losses
from video_io.camera import Camera

_LOOKUP = 512
_SSIM_SHARE = 0.85
# The display's response, undone before light is compared (docs of the field: EndoMapper's calibration has 2.2).
_GAMMA = 2.2
# Beyond these, a mismatch of two frames is occlusion or a highlight, and no longer a small error of depth.
_MOST_LOG_LIGHT, _MOST_LOG_GAP = 0.5, 0.2


@dataclass(frozen=True)
class Weights:
    """How much each loss counts; 0 turns it off.

    Attributes:
        distill: distance to the run's depth, weighed by its confidence, scale-free.
        gradient: differences of neighbouring errors of it, at four scales.
        spread: the network's own standard deviation against its error.
        photometric: the same tissue looks the same in other frames (SSIM and L1).
        light: the same tissue gets darker with the square of its distance from the endoscope's own light.
        geometric: predicted depths of two frames agree where they see the same.
        scale: predicted depths of the frames of a group have one scale.
        smooth: depth is smooth where the image is.
    """

    distill: float = 1.0
    gradient: float = 0.5
    spread: float = 0.1
    photometric: float = 0.3
    light: float = 0.05
    geometric: float = 0.1
    scale: float = 0.1
    smooth: float = 0.01

    def without(self, *names: str) -> Weights:
        """The same with some of them turned off."""
        return Weights(**{f.name: 0.0 if f.name in names else getattr(self, f.name) for f in fields(self)})


SUPERVISED = Weights().without("photometric", "light", "geometric", "smooth")
"""Where the distance is the truth."""


@dataclass(frozen=True)
class Group:
    """G frames of one camera.

    Attributes:
        rgb: (G, 3, h, w) in [0, 1], as recorded.
        mask: (G, h, w) bool, True where the image can be compared.
        distance: (G, h, w) of the run; 0 where there is none.
        confidence: (G, h, w) in [0, 1].
        rays: (3, h, w) unit rays, NaN where the camera has none.
        world_from_cam: (G, 4, 4) float64.
        camera: of an image of h x w pixels.
    """

    rgb: Tensor
    mask: Tensor
    distance: Tensor
    confidence: Tensor
    rays: Tensor
    world_from_cam: Tensor
    camera: Camera


def group_losses(log_distance: Tensor, log_std: Tensor, group: Group, weights: Weights) -> dict[str, Tensor]:
    """Every loss that is turned on, by name, and `total`.

    Args:
        log_distance, log_std: (G, h, w), what the network says, in any unit.
    """
    weight = group.confidence * (group.distance > 0)
    truth = group.distance.clamp_min(1e-9).log()
    residual, scale = losses.aligned_residual(log_distance, truth, weight)
    parts: dict[str, Tensor] = {}
    if weights.distill:
        parts["distill"] = losses.distance_loss(residual, weight)
    if weights.gradient:
        parts["gradient"] = losses.gradient_loss(residual, weight)
    if weights.spread:
        parts["spread"] = losses.spread_loss(_with_doubt(residual, group.confidence), log_std, weight)
    if weights.scale:
        parts["scale"] = _scale_loss(log_distance, truth, weight)
    if weights.smooth:
        parts["smooth"] = smoothness(log_distance, group.rgb, group.mask)
    if weights.photometric or weights.light or weights.geometric:
        parts |= _between(log_distance - scale[:, None, None], group, weights)
    zero = log_distance.new_zeros(())
    parts["total"] = sum((getattr(weights, name) * value for name, value in parts.items()), zero)
    return parts


def _with_doubt(residual: Tensor, confidence: Tensor) -> Tensor:
    """The residual's size, not smaller than what the run itself is unsure of: c = 1 / (1 + (std / 0.1)^2)."""
    doubt = 0.01 * (1 / confidence.clamp(0.05, 1) - 1)
    return (residual.detach() ** 2 + doubt).sqrt()


def _scale_loss(log_distance: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """How much the scales of the frames of a group differ, in log."""
    mean = ((log_distance - truth) * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1e-6)
    return F.smooth_l1_loss(mean, mean.detach().median().expand_as(mean), beta=0.05)


# -- two frames -----------------------------------------------------------------------------------------------------


def _between(log_distance: Tensor, group: Group, weights: Weights) -> dict[str, Tensor]:
    """Losses of each frame as a target with all others of the group as its sources."""
    target, source = ordered_pairs(len(log_distance), log_distance.device)
    if not len(target):
        return {}
    seen = project(log_distance[target], group, target, source)
    good = seen.valid & group.mask[target] & (sample(group.mask.float()[source], seen.grid) > 0.99)
    parts = {}
    if weights.photometric:
        parts["photometric"] = photometric(group.rgb, seen.grid, good, target, source)
    if weights.light:
        parts["light"] = light(group.rgb, seen, log_distance, good, target, source)
    if weights.geometric:
        gap = (seen.log_distance - sample(log_distance[source], seen.grid)).abs()
        parts["geometric"] = _mean(gap.clamp_max(_MOST_LOG_GAP), good)
    return parts


def ordered_pairs(count: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Targets and sources of all ordered pairs of `count` frames, those of one target together."""
    both = [(t, s) for t in range(count) for s in range(count) if s != t]
    pairs = torch.tensor(both, dtype=torch.long, device=device).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@dataclass(frozen=True)
class Seen:
    """Where P sources see the pixels of their targets.

    Attributes:
        grid: (P, h, w, 2) for `grid_sample`, in [-1, 1].
        log_distance: (P, h, w), from the source's lens to the point.
        valid: (P, h, w) bool, inside the source's image and in front of it.
    """

    grid: Tensor
    log_distance: Tensor
    valid: Tensor


def project(log_distance: Tensor, group: Group, target: Tensor, source: Tensor) -> Seen:
    """Project the points of targets (P, h, w log distances in the unit of the poses) into their sources."""
    pose = group.world_from_cam
    source_from_target = (torch.linalg.inv(pose)[source] @ pose[target]).to(log_distance.dtype)
    rays = torch.nan_to_num(group.rays)
    points = rays[None] * log_distance.exp()[:, None]
    moved = (
        torch.einsum("pij,pjhw->pihw", source_from_target[:, :3, :3], points) + source_from_target[:, :3, 3, None, None]
    )
    far = moved.norm(dim=1).clamp_min(1e-9)
    grid, valid = to_grid(moved, group.camera)
    valid = valid & torch.isfinite(grid).all(-1)
    # What is no number must not reach grid_sample, whose gradient would write outside its memory.
    grid = torch.nan_to_num(grid, 0.0, 0.0, 0.0).clamp(-3, 3)
    valid = valid & torch.isfinite(group.rays).all(0) & (grid.detach().abs() < 1).all(-1)
    return Seen(grid, far.log(), valid)


def to_grid(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Where a camera sees points (P, 3, h, w): (P, h, w, 2) in [-1, 1] over its image, and whether it can.

    A pinhole by its formula. Any other lens by a table over the stereographic plane (x, y) / (r + z), which is smooth
    and finite for every direction but straight backwards; its gradient is that of the linear interpolation.
    """
    x, y, z = points.unbind(1)
    if camera.model == "pinhole":
        fx, fy, cx, cy = camera.params
        front = z > 1e-3 * points.norm(dim=1)
        deep = torch.where(front, z, torch.ones_like(z))
        u, v = fx * x / deep + cx, fy * y / deep + cy
        return torch.stack([2 * u / camera.width - 1, 2 * v / camera.height - 1], -1), front
    table, reach = _table(camera)
    r = points.norm(dim=1)
    plane = torch.stack([x, y], -1) / ((r + z).clamp_min(1e-3 * r) * reach)[..., None]
    found = F.grid_sample(
        table.to(points).expand(len(points), -1, -1, -1), plane, align_corners=True, padding_mode="border"
    )
    grid, seen = found[:, :2].movedim(1, -1), found[:, 2] > 0.999
    return grid, seen & (plane.detach().abs() < 1).all(-1)


@lru_cache(maxsize=16)
def _table(camera: Camera) -> tuple[Tensor, float]:
    """(1, 3, 512, 512): x and y in [-1, 1] over the image and whether it is seen, over the stereographic plane; and
    how far that reaches."""
    rays = camera.ray_map().reshape(-1, 3).astype(np.float64)
    rays = rays[np.isfinite(rays[:, 2]) & (rays[:, 2] > -0.9)]
    reach = 1.05 * float(np.abs(rays[:, :2] / (1 + rays[:, 2:])).max())
    axis = np.linspace(-reach, reach, _LOOKUP)
    a, b = np.meshgrid(axis, axis)
    square = a * a + b * b
    # Seen a little beyond the border, so that interpolation reaches the last pixel.
    margin = max(camera.width, camera.height) // 16 + 1
    wider = camera.cropped(-margin, -margin, camera.width + 2 * margin, camera.height + 2 * margin)
    pixels, seen = wider.project(np.stack([2 * a, 2 * b, 1 - square], -1))
    place = 2 * (pixels - margin) / [camera.width, camera.height] - 1
    held = np.concatenate([np.where(seen[..., None], place, 2.0), seen[..., None]], -1)
    return torch.from_numpy(held.astype(np.float32)).movedim(-1, 0)[None], reach


def sample(maps: Tensor, grid: Tensor) -> Tensor:
    """Maps (P, h, w) or (P, C, h, w) at `grid`, linearly; the border goes on outside."""
    flat = maps[:, None] if maps.ndim == 3 else maps
    found = F.grid_sample(flat, grid, align_corners=False, padding_mode="border")
    return found[:, 0] if maps.ndim == 3 else found


# -- looks ------------------------------------------------------------------------------------------------------------


def photometric(rgb: Tensor, grid: Tensor, good: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """How differently a target looks in the source that shows each of its pixels best (Godard et al. 2019).

    Pixels that fit better without any motion are left out: they do not tell a depth.
    """
    aim, count = rgb[target], int(target.max()) + 1
    warped, still = sample(rgb[source], grid), rgb[source]
    error = look_error(calibrated(warped, aim, good), aim)
    unmoved = look_error(calibrated(still, aim, good), aim).detach()
    error, unmoved = (torch.where(good, e, torch.inf).reshape(count, -1, *e.shape[1:]) for e in (error, unmoved))
    # The minimum's own gradient, and none from the infinite.
    best = error.amin(1)
    keep = torch.isfinite(best) & (best < unmoved.amin(1))
    return _mean(torch.where(keep, best, 0.0), keep)


def look_error(image: Tensor, aim: Tensor) -> Tensor:
    """0.85 (1 - SSIM) / 2 + 0.15 L1 of (P, 3, h, w): (P, h, w)."""
    from kornia.metrics import ssim

    unlike = ((1 - ssim(image, aim, window_size=3)) / 2).clamp(0, 1).mean(1)
    return _SSIM_SHARE * unlike + (1 - _SSIM_SHARE) * (image - aim).abs().mean(1)


def calibrated(image: Tensor, aim: Tensor, good: Tensor) -> Tensor:
    """The image with the gain and offset of each channel that bring it nearest to `aim` (least squares over `good`).

    Exposure and white balance differ between frames; what they are says nothing of depth, so no gradient flows.
    """
    with torch.no_grad():
        weight = good[:, None].float()
        total = weight.sum((2, 3), keepdim=True).clamp_min(1)
        mean_a, mean_b = ((x * weight).sum((2, 3), keepdim=True) / total for x in (image, aim))
        spread = (((image - mean_a) ** 2) * weight).sum((2, 3), keepdim=True) / total
        shared = ((image - mean_a) * (aim - mean_b) * weight).sum((2, 3), keepdim=True) / total
        gain = ((shared + 1e-4) / (spread + 1e-4)).clamp(0.5, 2.0)
    return gain * (image - mean_a) + mean_b


def light(rgb: Tensor, seen: Seen, log_distance: Tensor, good: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """How far two frames' brightness of the same tissue is from the inverse square of its distance to the lens.

    log L_t - log L_s = c - 2 (log d_t - log d_s), with the light beside the lens, the exposure's c free for each pair
    (the median), and the tissue's reflection the same in both directions, which it nearly is for small motions.
    """
    level = log_light(rgb)
    bright = rgb.amax(1)
    exposed = (bright > 0.1) & (bright < 0.92)
    good = good & exposed[target] & (sample(exposed.float()[source], seen.grid) > 0.99)
    error = level[target] - sample(level[source], seen.grid) + 2 * (log_distance[target] - seen.log_distance)
    hidden = torch.where(good, error.detach(), torch.nan).flatten(1)
    exposure = torch.nan_to_num(hidden.nanmedian(1).values)[:, None, None]
    return _mean((error - exposure).abs().clamp_max(_MOST_LOG_LIGHT), good)


def log_light(rgb: Tensor) -> Tensor:
    """Log of the light that a pixel got, (G, h, w): linear, over the colours and 3 x 3 pixels, as vessels shift."""
    linear = rgb.clamp_min(1e-3).pow(_GAMMA).mean(1, keepdim=True)
    return F.avg_pool2d(linear, 3, 1, 1, count_include_pad=False)[:, 0].clamp_min(1e-6).log()


def smoothness(log_distance: Tensor, rgb: Tensor, mask: Tensor) -> Tensor:
    """Edge-aware: differences of neighbouring log distances, less where the image changes (Godard et al. 2017)."""
    total = log_distance.new_zeros(())
    for axis in (1, 2):
        n = log_distance.shape[axis] - 1
        step = log_distance.narrow(axis, 1, n) - log_distance.narrow(axis, 0, n)
        edge = (rgb.narrow(axis + 1, 1, n) - rgb.narrow(axis + 1, 0, n)).abs().mean(1)
        both = mask.narrow(axis, 1, n) & mask.narrow(axis, 0, n)
        total = total + _mean(step.abs() * torch.exp(-10 * edge), both)
    return total


def _mean(values: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, values, 0.0).sum() / keep.sum().clamp_min(1)


# -- figures ----------------------------------------------------------------------------------------------------------


def relative_error(log_distance: Tensor, distance: Tensor, confidence: Tensor) -> list[float]:
    """Mean |d / t - 1| of each frame after its scale by the median, over pixels whose `distance` t is known well.

    Args:
        log_distance, distance, confidence: (G, h, w). Pixels with a confidence of 0.5 and more count.
    """
    weight = (confidence >= 0.5) & (distance > 0)
    residual, _ = losses.aligned_residual(log_distance, distance.clamp_min(1e-9).log(), weight.float())
    found: Sequence[Tensor] = ((residual.exp() - 1).abs() * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    return [float(e) for e in found if math.isfinite(float(e))]
