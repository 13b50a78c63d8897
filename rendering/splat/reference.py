"""The rasteriser as the papers write it, in PyTorch: every pixel against every Gaussian. Slow; for tests.

Its gradient is autograd's. It computes in the type of its tensors, so float64 gives what the others are held against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from rendering.splat import Job, Layers

ABOUT = "PyTorch, every pixel against every Gaussian"
FAINTEST, MOST, FULL = 1 / 255, 0.999, 1e-4
MARGIN = 0.3


def check() -> None:
    """It runs everywhere."""


def render(job: Job) -> Layers:
    """What one camera sees (`rendering.splat.Backend`)."""
    import torch

    from rendering.splat import EMPTY_ALPHA, Layers, _surfel_reference

    if job.surfels:
        return _surfel_reference.render(job)
    centres, covariance, depth, seen = project(job)
    opacities = torch.where(seen, job.opacities, torch.zeros_like(job.opacities))
    sizes = radii(centres, covariance, opacities, job)
    order = torch.argsort(depth.masked_fill(~seen, torch.inf), stable=True)
    y, x = torch.meshgrid(torch.arange(job.height), torch.arange(job.width), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 1, 2).to(centres) + 0.5
    d = pixels - centres[order] - job.means2d[order]
    conic = torch.linalg.inv(covariance[order])
    sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", d, conic, d)
    alpha = torch.clamp(opacities[order] * torch.exp(-sigma), max=MOST)
    alpha = torch.where(alpha >= FAINTEST, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weight = torch.where(after > FULL, alpha * before, torch.zeros_like(alpha))
    image = (job.height, job.width)
    total = weight.sum(1)
    z = torch.where(seen, depth, torch.zeros_like(depth))[order]
    expected = (weight @ z) / torch.clamp(total, min=EMPTY_ALPHA)
    median = normals = None
    if job.median:
        half = (weight > 0) & (before > 0.5)
        number = torch.arange(len(z), device=z.device)
        last = torch.where(half, number, -torch.ones_like(number)).amax(1)
        median = torch.where(last >= 0, z[last.clamp(min=0)], torch.zeros_like(total)).reshape(image)
    if job.normals:
        normals = (weight @ axis_normals(job)[order]).reshape(*image, 3)
    colour = weight @ colours(job)[order]
    return Layers(colour.reshape(*image, -1), total.reshape(image), expected.reshape(image), median, normals, sizes)


def project(job: Job) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres (N, 2) and covariances (N, 2, 2) in the image, depths (N,), and which Gaussians are drawn."""
    import torch

    view = job.viewmat
    points = job.means @ view[:3, :3].T + view[:3, 3]
    z = points[:, 2]
    seen = (z > job.near) & (z < job.far)
    # Unseen ones are moved to where nothing divides by zero; they are not drawn, so no gradient flows.
    points = torch.where(seen[:, None], points, points.new_tensor([0.0, 0.0, 1.0]))
    rotation = quaternion_matrix(job.quats)
    root = view[:3, :3] @ (rotation * job.scales[:, None, :])
    centres, slope, good = (fisheye if job.is_fisheye else pinhole)(points, job)
    flat = slope @ root
    blur = job.blur * torch.eye(2, dtype=z.dtype, device=z.device)
    return centres, flat @ flat.transpose(1, 2) + blur, z, seen & good


def pinhole(points: Tensor, job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (N, 2), slopes (N, 2, 3), and that all are good; a slope's place is held near the image, as in gsplat."""
    import torch

    fx, fy, cx, cy = job.k[:4]
    x, y, z = points.unbind(1)
    u, v = x / z, y / z
    wide, tall = MARGIN * 0.5 * job.width / fx, MARGIN * 0.5 * job.height / fy
    held_u = torch.minimum(torch.maximum(u, -cx / fx - wide), (job.width - cx) / fx + wide)
    held_v = torch.minimum(torch.maximum(v, -cy / fy - tall), (job.height - cy) / fy + tall)
    nil = torch.zeros_like(z)
    rows = [fx / z, nil, -fx * held_u / z, nil, fy / z, -fy * held_v / z]
    slope = torch.stack(rows, 1).reshape(-1, 2, 3)
    return torch.stack([fx * u + cx, fy * v + cy], 1), slope, torch.ones_like(z, dtype=torch.bool)


def fisheye(points: Tensor, job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (N, 2), slopes (N, 2, 3) by automatic differentiation, and which are on the polynomial's rising branch."""
    import torch

    fx, fy, cx, cy, k1, k2, k3, k4 = job.k

    def place(point: Tensor) -> Tensor:
        x, y, z = point
        r = torch.sqrt(x * x + y * y + 1e-20)
        theta = torch.atan2(r, z)
        t2 = theta * theta
        bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        return torch.stack([fx * bent * x / r + cx, fy * bent * y / r + cy])

    slope = torch.func.vmap(torch.func.jacrev(place))(points)
    t2 = torch.atan2(torch.hypot(points[:, 0], points[:, 1]), points[:, 2]) ** 2
    rising = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4))) > 0
    return torch.func.vmap(place)(points), slope, rising


def quaternion_matrix(quats: Tensor) -> Tensor:
    """Rotations (N, 3, 3) of quaternions (N, 4) wxyz of any length."""
    import torch

    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).reshape(-1, 3, 3)


def axis_normals(job: Job) -> Tensor:
    """Shortest axis (N, 3) of each Gaussian, camera frame, turned towards the camera."""
    import torch

    axis = job.scales.argmin(1)
    world = torch.gather(quaternion_matrix(job.quats), 2, axis[:, None, None].expand(-1, 3, 1))[..., 0]
    normals = world @ job.viewmat[:3, :3].T
    points = job.means @ job.viewmat[:3, :3].T + job.viewmat[:3, 3]
    away = (normals * points).sum(1, keepdim=True) > 0
    return torch.where(away, -normals, normals)


def colours(job: Job) -> Tensor:
    """Colours (N, D), from the harmonics where there are some."""
    import torch

    if job.sh_degree is None:
        return job.colors
    eye = -torch.linalg.solve(job.viewmat[:3, :3], job.viewmat[:3, 3])
    x, y, z = torch.nn.functional.normalize(job.means - eye, dim=1).unbind(1)
    c, s = x * x - y * y, 2 * x * y
    t = -2.285228997322329 * z * z + 0.4570457994644658
    bases = [
        torch.full_like(x, 0.2820947917738781),
        -0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x,
        0.5462742152960395 * s, -1.092548430592079 * y * z, 0.9461746957575601 * z * z - 0.3153915652525201,
        -1.092548430592079 * x * z, 0.5462742152960395 * c,
        -0.5900435899266435 * (x * s + y * c), 1.445305721320277 * z * s, t * y,
        z * (1.865881662950577 * z * z - 1.119528997770346),
        t * x, 1.445305721320277 * z * c, -0.5900435899266435 * (x * c - y * s),
    ]  # fmt: skip
    used = (job.sh_degree + 1) ** 2
    value = torch.einsum("nb,nbc->nc", torch.stack(bases[:used], 1), job.colors[:, :used])
    return torch.clamp(value + 0.5, min=0)


def radii(centres: Tensor, covariance: Tensor, opacities: Tensor, job: Job) -> Tensor:
    """Half sizes (N, 2) int32 in the image of where each Gaussian counts; 0 where it is not seen."""
    import torch

    reach = torch.log(torch.clamp(opacities.detach() / FAINTEST, min=1)) + 1e-4
    half = torch.sqrt(2 * reach[:, None] * torch.diagonal(covariance.detach(), dim1=1, dim2=2))
    size = centres.new_tensor([job.width, job.height])
    inside = ((centres + half >= 0.5) & (centres - half <= size - 0.5)).all(1) & (opacities >= FAINTEST)
    return torch.where(inside[:, None], torch.ceil(half), torch.zeros_like(half)).clamp(max=2e9).to(torch.int32)
