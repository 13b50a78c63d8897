"""Surfels as the paper writes them, in PyTorch: their projection, and one's part in one pixel.

Huang et al., "2D Gaussian Splatting for Geometrically Accurate Radiance Fields", SIGGRAPH 2024, section 4; the plane by
its normal rather than by a homography. The slow reference and the CUDA backend share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from rendering.splat import Job, Layers

THIN, HORIZON = 0.02, 0.01


class Projected(NamedTuple):
    """Surfels in a camera: what a pixel needs of each.

    Attributes:
        centres: (N, 2) pixels. inverse: (N, 2, 2) from pixels to standard deviations, at the centre.
        tilt: (N, 2) how the plane's disparity, over that at the centre, changes with a pixel.
        depths: (N,) of the centres. normals: (N, 3) camera frame, turned towards the camera.
        solid: (N,) which are more than a line in the image. seen: (N,) which are drawn.
        axes: (N, 3, 2) the standard axes, camera frame. points: (N, 3) the centres, camera frame.
    """

    centres: Tensor
    inverse: Tensor
    tilt: Tensor
    depths: Tensor
    normals: Tensor
    solid: Tensor
    seen: Tensor
    axes: Tensor
    points: Tensor


def project(job: Job) -> Projected:
    """The job's surfels in its camera."""
    import torch

    from rendering.splat.reference import quaternion_matrix

    view, (fx, fy, cx, cy) = job.viewmat, job.k[:4]
    points = job.means @ view[:3, :3].T + view[:3, 3]
    z = points[:, 2]
    seen = (z > job.near) & (z < job.far)
    points = torch.where(seen[:, None], points, points.new_tensor([0.0, 0.0, 1.0]))
    x, y, z = points.unbind(1)
    turned = view[:3, :3] @ quaternion_matrix(job.quats)
    axes, normal = turned[:, :, :2] * job.scales[:, None, :2], turned[:, :, 2]
    nil = torch.zeros_like(z)
    slope = torch.stack([fx / z, nil, -fx * x / z**2, nil, fy / z, -fy * y / z**2], 1).reshape(-1, 2, 3)
    root = slope @ axes
    det = root[:, 0, 0] * root[:, 1, 1] - root[:, 0, 1] * root[:, 1, 0]
    solid = det.abs() >= THIN * torch.sqrt((root**2).sum((1, 2)))
    solid = solid & (det != 0)
    inverse = torch.linalg.inv(torch.where(solid[:, None, None], root, torch.eye(2).to(root)))
    along = (normal * points).sum(1)
    safe = torch.where(solid, along, torch.ones_like(along))
    tilt = torch.stack([z * normal[:, 0] / (fx * safe), z * normal[:, 1] / (fy * safe)], 1) * solid[:, None]
    facing = torch.where(along[:, None] > 0, -normal, normal)
    centres = torch.stack([fx * x / z + cx, fy * y / z + cy], 1)
    return Projected(centres, inverse, tilt, z, facing, solid, seen & torch.isfinite(det), axes, points)


def falloff(d: Tensor, inverse: Tensor, tilt: Tensor, depths: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
    """sigma of exp(-sigma), and disparity, at pixels `d` (..., 2) from the centre of the surfel that the rest is of."""
    import torch

    e = 1 + (d * tilt).sum(-1)
    before = solid & (e > HORIZON)
    over = 1 / torch.where(before, e, torch.ones_like(e))
    place = (inverse @ d[..., None])[..., 0] * over[..., None]
    plane, low = 0.5 * (place**2).sum(-1), (d**2).sum(-1)
    on_plane = before & (plane <= low)
    return torch.where(on_plane, plane, low), torch.where(on_plane, e, torch.ones_like(e)) / depths


def radii(p: Projected, opacities: Tensor, job: Job) -> Tensor:
    """Half sizes (N, 2) int32 in the image, about the centres, of where each counts; 0 where it is not seen."""
    import torch

    from rendering.splat.reference import FAINTEST

    with torch.no_grad():
        reach = torch.log(torch.clamp(opacities / FAINTEST, min=1)) + 1e-4
        square, off = 2 * reach[:, None], p.axes[:, 2] / p.depths[:, None]
        root = torch.linalg.inv(p.inverse)
        q = 1 - square * (off**2).sum(1, keepdim=True)
        middle = -square * (root @ off[..., None])[..., 0] / q
        half = middle.abs() + torch.sqrt(middle**2 + square * (root**2).sum(2) / q)
        disc = torch.sqrt(reach)[:, None].expand(-1, 2)
        # A circle that is not all before the camera is seen anywhere.
        whole = torch.where(q < 1e-6, torch.full_like(half, 1e9), torch.maximum(half, disc))
        size = torch.where(p.solid[:, None], whole, disc)
        image = p.centres.new_tensor([job.width, job.height])
        inside = ((p.centres + size >= 0.5) & (p.centres - size <= image - 0.5)).all(1)
        inside = inside & (opacities >= FAINTEST) & p.seen
        return torch.where(inside[:, None], torch.ceil(size), torch.zeros_like(size)).to(torch.int32)


def render(job: Job) -> Layers:
    """What one camera sees, every pixel against every surfel."""
    import torch

    from rendering.splat import EMPTY_ALPHA, Layers
    from rendering.splat.reference import FAINTEST, FULL, MOST, colours

    p = project(job)
    opacities = torch.where(p.seen, job.opacities, torch.zeros_like(job.opacities))
    order = torch.argsort(p.depths.masked_fill(~p.seen, torch.inf), stable=True)
    y, x = torch.meshgrid(torch.arange(job.height), torch.arange(job.width), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 1, 2).to(p.centres) + 0.5
    d = pixels - (p.centres + job.means2d)[order]
    sigma, disparity = falloff(d, p.inverse[order], p.tilt[order], p.depths[order], p.solid[order])
    alpha = torch.clamp(opacities[order] * torch.exp(-sigma), max=MOST)
    alpha = torch.where(alpha >= FAINTEST, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weight = torch.where(after > FULL, alpha * before, torch.zeros_like(alpha))
    image, total = (job.height, job.width), weight.sum(1)
    first, second = (weight * disparity).sum(1), (weight * disparity**2).sum(1)
    depth = torch.where(total > EMPTY_ALPHA, total / torch.where(first > 0, first, torch.ones_like(first)), 0 * total)
    number = torch.arange(len(order), device=order.device)
    last = torch.where((weight > 0) & (before > 0.5), number, -torch.ones_like(number))
    # One more that nothing chooses, so that there is a largest of none.
    last = torch.nn.functional.pad(last, (0, 1), value=-1).amax(1, keepdim=True)
    there = last[:, 0] >= 0
    chosen = torch.gather(torch.nn.functional.pad(disparity, (0, 1)), 1, last.clamp(min=0))[:, 0]
    median = torch.where(there, 1 / torch.where(there, chosen, torch.ones_like(chosen)), 0 * total)
    return Layers(
        (weight @ colours(job)[order]).reshape(*image, -1), total.reshape(image), depth.reshape(image),
        median.reshape(image), (weight @ p.normals[order]).reshape(*image, 3), radii(p, opacities, job),
        (total * second - first**2).reshape(image),
    )  # fmt: skip
