"""The rasteriser on CUDA, by gsplat's kernels.

Projection and harmonics are PyTorch's, as in `reference`, where gsplat has no gradient: a fisheye with distortion. The
median depth, which gsplat composites for surfels only, is found from its list of pixels and Gaussians.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from video_io.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from rendering.splat import Job, Layers
    from rendering.splat._surfel_reference import Projected

ABOUT = "gsplat, needs a CUDA device and nvcc"
TILE = 16
LEAST_VERSION = (1, 5)  # radii of two values, and bounds by opacity


def check() -> None:
    """Raise InputError unless there are a CUDA device and gsplat with its kernels, which it builds at first use."""
    import torch

    # Asked first: without a device gsplat tries to build its kernels and complains about a missing file.
    if not torch.cuda.is_available():
        raise InputError(
            "rasteriser 'gsplat' needs a CUDA device, and torch finds none; use the rasteriser 'cpu', or install a "
            "CUDA build of torch on a machine with an NVIDIA card"
        )
    _kernels()


@lru_cache
def _kernels() -> None:
    """Have gsplat load its kernels, or build them, which takes minutes once."""
    try:
        import gsplat
    except ImportError as error:
        raise InputError("rasteriser 'gsplat' needs the package gsplat: pip install 'endorecon[cuda]'") from error
    if tuple(int(n) for n in gsplat.__version__.split(".")[:2]) < LEAST_VERSION:
        raise InputError(
            f"rasteriser 'gsplat' needs gsplat 1.5 or later, found {gsplat.__version__}; pip install 'endorecon[cuda]'"
        )
    try:
        from gsplat.cuda._backend import _C
    except (ImportError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"gsplat can't build its CUDA kernels ({reason:.120}); check that nvcc is of torch's CUDA version, or use "
            "the rasteriser 'cpu'"
        ) from error
    if _C is None:
        raise InputError("gsplat finds no nvcc to build its CUDA kernels; install the CUDA toolkit, or use 'cpu'")


def render(job: Job) -> Layers:
    """What one camera sees (`rendering.splat.Backend`)."""
    import torch
    from gsplat import isect_offset_encode, isect_tiles, rasterize_to_pixels

    from rendering.splat import EMPTY_ALPHA, Layers, reference

    job = _one_kind(job)
    if job.surfels:
        return _surfels(job) if len(job.means) else _nothing(job)
    if not len(job.means):  # the kernels divide by their number
        return _nothing(job)
    centres, conics, depths, radii = _project(job)
    centres = centres + job.means2d
    parts = [reference.colours(job), depths[:, None]] + ([reference.axis_normals(job)] if job.normals else [])
    across, down = -(-job.width // TILE), -(-job.height // TILE)
    _, keys, listed = isect_tiles(centres[None], radii[None], depths[None], TILE, across, down)
    starts = isect_offset_encode(keys, 1, across, down)
    image, alpha = rasterize_to_pixels(
        centres[None], conics[None], torch.cat(parts, 1)[None], job.opacities[None], job.width, job.height, TILE,
        starts, listed,
    )  # fmt: skip
    alpha, colours = alpha[0, ..., 0], parts[0].shape[1]
    median = _median(job, centres, conics, depths, starts, listed) if job.median else None
    return Layers(
        image[0, ..., :colours],
        alpha,
        image[0, ..., colours] / alpha.clamp(min=EMPTY_ALPHA),
        median,
        image[0, ..., colours + 1 :] if job.normals else None,
        radii,
    )


def _nothing(job: Job) -> Layers:
    """What no Gaussians look like."""
    import torch

    from rendering.splat import Layers

    none = job.means.new_zeros(job.height, job.width) + job.means.sum()
    three, channels = none[..., None].expand(-1, -1, 3), 3 if job.sh_degree is not None else job.colors.shape[1]
    return Layers(
        none[..., None].expand(-1, -1, channels), none, none, none if job.median or job.surfels else None,
        three if job.normals or job.surfels else None, torch.zeros(0, 2, dtype=torch.int32, device=none.device),
        none if job.surfels else None,
    )  # fmt: skip


def _one_kind(job: Job) -> Job:
    """The job with camera and pose in the means' type, which is all that the kernels take, and no opacity of NaN, which
    they would draw as opaque."""
    import torch

    opacities = torch.nan_to_num(job.opacities, nan=0.0)
    return replace(job, viewmat=job.viewmat.to(job.means), k=job.k.to(job.means), opacities=opacities)


def _project(job: Job) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres (N, 2), conics (N, 3), depths (N,) and radii (N, 2)."""
    import torch
    from gsplat import fully_fused_projection

    from rendering.splat import reference

    if job.is_fisheye:
        centres, covariance, depths, seen = reference.project(job)
        a, b, c = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
        conics = torch.stack([c, -b, a], 1) / (a * c - b * b)[:, None]
        opacities = torch.where(seen, job.opacities, torch.zeros_like(job.opacities))
        return centres, conics, depths, reference.radii(centres, covariance, opacities, job)
    fx, fy, cx, cy = job.k[:4]
    nil, one = torch.zeros_like(fx), torch.ones_like(fx)
    matrix = torch.stack([fx, nil, cx, nil, fy, cy, nil, nil, one]).reshape(1, 3, 3)
    radii, centres, depths, conics, _ = fully_fused_projection(
        job.means, None, job.quats, job.scales, job.viewmat[None], matrix, job.width, job.height, eps2d=job.blur,
        near_plane=job.near, far_plane=job.far, opacities=job.opacities,
    )  # fmt: skip
    return centres[0], conics[0], depths[0], radii[0]


def _median(
    job: Job, centres: Tensor, conics: Tensor, depths: Tensor, starts: Tensor, listed: Tensor
) -> Tensor:  # fmt: skip
    """Median depth (H, W), by the list of all pairs of Gaussian and pixel, a pixel's pairs being in order of depth."""
    import torch
    from gsplat import rasterize_to_indices_in_range

    size = job.height * job.width
    with torch.no_grad():
        ids, pixels, _ = rasterize_to_indices_in_range(
            0, len(listed) // TILE**2 + 1, torch.ones(1, job.height, job.width, device=centres.device), centres[None],
            conics[None], job.opacities[None], job.width, job.height, TILE, starts, listed,
        )  # fmt: skip
        order = torch.argsort(pixels, stable=True)
        ids, pixels = ids[order], pixels[order]
        place = torch.stack([pixels % job.width, pixels // job.width], 1) + 0.5 - centres[ids]
        a, b, c = conics[ids].unbind(1)
        sigma = 0.5 * (a * place[:, 0] ** 2 + c * place[:, 1] ** 2) + b * place[:, 0] * place[:, 1]
        alpha = torch.clamp(job.opacities[ids] * torch.exp(-sigma), max=0.999)
        # Transmittance before each pair: a running sum of logs, less what it was at the pixel's first.
        total = torch.cumsum(torch.log1p(-alpha.double()), 0)
        before = torch.cat([total.new_zeros(1), total[:-1]])
        first = torch.searchsorted(pixels, torch.arange(size, device=pixels.device))
        before = before - before[first[pixels]]
        number = torch.arange(len(ids), device=ids.device)
        half = torch.where(before > -0.6931471805599453, number, -torch.ones_like(number))
        last = torch.full((size,), -1, device=ids.device).scatter_reduce(0, pixels, half, "amax")
    if not len(ids):
        return depths.new_zeros(job.height, job.width)
    found = torch.where(last >= 0, depths[ids[last.clamp(min=0)]], depths.new_zeros(size))
    return found.reshape(job.height, job.width)


def _surfels(job: Job) -> Layers:
    """Surfels: gsplat says which reach which pixel, and in which order; they are composited in PyTorch.

    Its own compositing (`rasterize_to_pixels_2dgs`) knows the depth of a surfel's centre only, not of where a ray meets
    it, so expected and median depth and the distortion would be others than the processor's.
    """
    import torch
    from gsplat import isect_offset_encode, isect_tiles, rasterize_to_indices_in_range_2dgs

    from rendering.splat import _surfel_reference

    p = _surfel_reference.project(job)
    opacities = torch.where(p.seen, job.opacities, torch.zeros_like(job.opacities))
    radii, centres = _surfel_reference.radii(p, opacities, job), p.centres + job.means2d
    across, down = -(-job.width // TILE), -(-job.height // TILE)
    with torch.no_grad():
        # One that is seen edge-on is a small disc, so that none is left out by a division.
        disc = 1e-6 * p.depths[:, None, None] * torch.eye(3, 2).to(p.axes)
        axes = torch.where(p.solid[:, None, None], p.axes, disc)
        fx, fy, cx, cy = job.k[:4]
        nil, one = torch.zeros_like(fx), torch.ones_like(fx)
        matrix = torch.stack([fx, nil, cx, nil, fy, cy, nil, nil, one]).reshape(3, 3)
        transforms = matrix @ torch.cat([axes, p.points[..., None]], 2)
        _, keys, listed = isect_tiles(centres[None], radii[None], p.depths[None], TILE, across, down)
        starts = isect_offset_encode(keys, 1, across, down)
        ids, pixels, _ = rasterize_to_indices_in_range_2dgs(
            0, len(listed) // TILE**2 + 1, torch.ones(1, job.height, job.width, device=centres.device), centres[None],
            transforms[None], opacities[None], job.width, job.height, TILE, starts, listed,
        )  # fmt: skip
        order = torch.argsort(pixels, stable=True)
        ids, pixels = ids[order].long(), pixels[order].long()
    return _composited(job, p, centres, opacities, ids, pixels)._replace(radii=radii)


def _composited(job: Job, p: Projected, centres: Tensor, opacities: Tensor, ids: Tensor, pixels: Tensor) -> Layers:
    """Layers of pairs (M,) of surfel and pixel, a pixel's pairs together and in order of depth."""
    import torch

    from rendering.splat import EMPTY_ALPHA, Layers, reference
    from rendering.splat._surfel_reference import falloff

    size, image = job.height * job.width, (job.height, job.width)
    place = torch.stack([pixels % job.width, pixels // job.width], 1) + 0.5 - centres[ids]
    sigma, disparity = falloff(place, p.inverse[ids], p.tilt[ids], p.depths[ids], p.solid[ids])
    alpha = torch.clamp(opacities[ids] * torch.exp(-sigma), max=reference.MOST).double()
    alpha = torch.where(alpha >= reference.FAINTEST, alpha, torch.zeros_like(alpha))
    # Transmittance: a running sum of logs, less what it was at the pixel's first.
    log = torch.log1p(-alpha)
    total = torch.cumsum(log, 0) - log
    first = torch.searchsorted(pixels, torch.arange(size, device=pixels.device)).clamp(max=max(len(ids) - 1, 0))
    before = torch.exp(total - total[first[pixels]])
    weight = torch.where(before * (1 - alpha) > reference.FULL, alpha * before, torch.zeros_like(alpha))
    disparity = disparity.double()
    off = disparity - disparity[first[pixels]].detach()

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(size, *values.shape[1:]).index_add(0, pixels, values)

    shown, moment, second = summed(weight), summed(weight * off), summed(weight * off**2)
    mean = summed(weight * disparity)
    some = shown > EMPTY_ALPHA
    depth = torch.where(some, shown / torch.where(some, mean, torch.ones_like(mean)), torch.zeros_like(mean))
    number = torch.arange(len(ids), device=ids.device)
    half = torch.where((before > 0.5) & (weight > 0), number, -torch.ones_like(number))
    last = number.new_full((size,), -1).scatter_reduce(0, pixels, half, "amax")
    chosen = torch.nn.functional.pad(disparity, (0, 1), value=1.0)[torch.where(last < 0, len(ids), last)]
    median = torch.where(last >= 0, 1 / chosen, torch.zeros_like(mean))
    colour = summed(weight[:, None].to(job.means) * reference.colours(job)[ids])
    maps = [m.to(job.means).reshape(image) for m in (shown, depth, median, shown * second - moment**2)]
    normals = summed(weight[:, None].to(job.means) * p.normals[ids]).reshape(*image, 3)
    return Layers(colour.reshape(*image, -1), *maps[:3], normals, ids.new_zeros(len(centres), 2), maps[3])
