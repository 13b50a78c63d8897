"""The CUDA backend without a CUDA device: what it makes of gsplat's kernels, with PyTorch in their place.

Projection, tiles and offsets are gsplat's own PyTorch; compositing is written out below as its kernels do it. Each call
is bound to the signature of the function that it stands for, so that a changed one is noticed. On a machine with CUDA
the tests marked `gpu` hold the real kernels against the reference.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from made_splats import HEIGHT, NAMES, NASTY, WIDTH, nasty_scene, random_scene
from torch import Tensor

from rendering.splat import Layers, rasterize
from rendering.splat import gsplat as backend
from video_io.errors import InputError

gsplat = pytest.importorskip("gsplat")
FISHEYE = torch.tensor([[0.05, -0.02, 0.01, 0.002]])


def projection(
    means: Tensor, covars: None, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, **a: Any
) -> Any:  # fmt: skip
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    assert len({t.dtype for t in (means, quats, scales, viewmats, Ks)}) == 1  # the kernels read one type
    covariance, _ = _quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    kept = {name: a[name] for name in ("width", "height", "eps2d", "near_plane", "far_plane")}
    radii, *rest = _fully_fused_projection(means, covariance, viewmats, Ks, **kept)
    return (radii * (a["opacities"] >= 1 / 255)[None, :, None], *rest)


def tiles(
    means2d: Tensor, radii: Tensor, depths: Tensor, tile_size: int, tile_width: int, tile_height: int, **_: Any
) -> Any:  # fmt: skip
    from gsplat.cuda._torch_impl import _isect_tiles

    assert radii.dtype == torch.int32
    size = tile_size, tile_width, tile_height
    counts, keys, listed = _isect_tiles(means2d.detach(), radii, depths.detach(), *size, sort=False)
    order = torch.argsort(keys, stable=True)  # as the kernels' radix sort
    return counts, keys[order], listed[order]


def offsets(isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
    from gsplat.cuda._torch_impl import _isect_offset_encode

    if not len(isect_ids):
        return torch.zeros(n_images, tile_height, tile_width, dtype=torch.int32)
    return _isect_offset_encode(isect_ids, n_images, tile_width, tile_height)


def weights(a: dict[str, Any]) -> Tensor:
    """What each Gaussian adds to each pixel (H, W, N), by the kernel's loop over a tile's list."""
    (w, h, size), means, conics, opacities = (
        (a["image_width"], a["image_height"], a["tile_size"]), a["means2d"][0], a["conics"][0], a["opacities"][0],
    )  # fmt: skip
    starts, listed = a["isect_offsets"][0].flatten().tolist(), a["flatten_ids"]
    ends, across = [*starts[1:], len(listed)], a["isect_offsets"].shape[2]
    image = means.new_zeros(h, w, len(means))
    for tile, (start, end) in enumerate(zip(starts, ends, strict=True)):
        top, left, ids = tile // across * size, tile % across * size, listed[start:end].long()
        v, u = torch.meshgrid(
            torch.arange(top, min(top + size, h)) + 0.5, torch.arange(left, min(left + size, w)) + 0.5, indexing="ij"
        )
        dx, dy = means[ids, 0] - u[..., None], means[ids, 1] - v[..., None]
        sigma = 0.5 * (conics[ids, 0] * dx * dx + conics[ids, 2] * dy * dy) + conics[ids, 1] * dx * dy
        alpha = torch.clamp(opacities[ids] * torch.exp(-sigma), max=0.999)
        alpha = torch.where((sigma >= 0) & (alpha >= 1 / 255), alpha, torch.zeros_like(alpha))
        after = torch.cumprod(1 - alpha, 2)
        weight = alpha * torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], 2)
        weight = torch.where(after > 1e-4, weight, torch.zeros_like(weight))
        spread = torch.nn.functional.one_hot(ids, len(means)).to(weight)
        image = torch.nn.functional.pad(
            weight @ spread, (0, 0, left, w - left - u.shape[1], top, h - top - u.shape[0])
        ) + image  # fmt: skip
    return image


def to_pixels(**a: Any) -> tuple[Tensor, Tensor]:
    weight = weights(a)
    return (weight @ a["colors"][0])[None], weight.sum(2)[None, ..., None]


def to_indices(**a: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of Gaussian and pixel, a tile's in order of depth, tiles as they come: pixels are not in order."""
    weight, listed = weights({k: v.detach() if isinstance(v, Tensor) else v for k, v in a.items()}), a["flatten_ids"]
    assert a["range_start"] == 0 and a["range_end"] * a["tile_size"] ** 2 >= len(listed)
    order = torch.tensor(list(dict.fromkeys(listed.tolist())), dtype=torch.int64)
    depth_rank = torch.argsort(a["depths_for_the_test"][order], stable=True)
    pixels, ids = [], []
    for pixel, row in enumerate(weight.reshape(-1, weight.shape[2])):
        seen = order[depth_rank][row[order[depth_rank]] > 0]
        ids.append(seen)
        pixels.append(torch.full((len(seen),), pixel))
    mixed = torch.argsort(torch.cat(pixels) % 7, stable=True)
    found = torch.cat(ids)[mixed], torch.cat(pixels)[mixed]
    return (*found, torch.zeros_like(found[0]))


def to_indices_of_surfels(**a: Any) -> tuple[Tensor, Tensor, Tensor]:
    """As `to_indices`, by the kernel's ray and plane: lines through the pixel's column and row, crossed."""
    listed, (w, h), opacities = a["flatten_ids"], (a["image_width"], a["image_height"]), a["opacities"][0]
    assert a["range_start"] == 0 and a["range_end"] * a["tile_size"] ** 2 >= len(listed)
    found = torch.tensor(list(dict.fromkeys(listed.tolist())), dtype=torch.int64)
    order = found[torch.argsort(a["depths_for_the_test"][found], stable=True)]
    v, u = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    u, v, m = u.reshape(-1, 1, 1), v.reshape(-1, 1, 1), a["ray_transforms"][0][order]
    crossed = torch.linalg.cross(u * m[:, 2] - m[:, 0], v * m[:, 2] - m[:, 1])
    on_plane = (crossed[..., :2] ** 2).sum(-1) / crossed[..., 2] ** 2
    d = a["means2d"][0][order] - torch.cat([u[..., 0], v[..., 0]], 1)[:, None]
    sigma = 0.5 * torch.minimum(on_plane, 2 * (d**2).sum(-1))
    alpha = torch.clamp(opacities[order] * torch.exp(-sigma), max=0.999)
    alpha = torch.where(alpha >= 1 / 255, alpha, torch.zeros_like(alpha))
    pixels, number = ((alpha > 0) & (torch.cumprod(1 - alpha, 1) > 1e-4)).nonzero().T
    mixed = torch.argsort(pixels % 7, stable=True)
    return order[number][mixed], pixels[mixed], torch.zeros_like(pixels)


@pytest.fixture(autouse=True)
def torch_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    depths: dict[str, Tensor] = {}

    def bound(name: str, function: Any) -> Any:
        signature = inspect.signature(getattr(gsplat, name))

        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs)
            arguments.apply_defaults()
            if name == "isect_tiles":
                depths["depths_for_the_test"] = arguments.arguments["depths"][0].detach()
            more = depths if name.startswith("rasterize_to_indices_in_range") else {}
            return function(**arguments.arguments, **more)

        return call

    for name, function in {
        "fully_fused_projection": projection, "isect_tiles": tiles, "isect_offset_encode": offsets,
        "rasterize_to_pixels": to_pixels, "rasterize_to_indices_in_range": to_indices,
        "rasterize_to_indices_in_range_2dgs": to_indices_of_surfels,
    }.items():  # fmt: skip
        monkeypatch.setattr(gsplat, name, bound(name, function))
    monkeypatch.setattr(backend, "check", lambda: None)


def render(scene: list[Tensor], name: str, **options: Any) -> tuple[Layers, dict[str, Tensor]]:
    inputs = [t.float().clone().requires_grad_(i < 6) for i, t in enumerate(scene)]
    layers = rasterize(*inputs, WIDTH, HEIGHT, backend=name, **options)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(9)
    shown = layers.alpha.detach() > 0.05
    images = [image for i, image in enumerate(layers) if image is not None and i not in (2, 5)]
    loss = sum((image * torch.randn(image.shape, generator=g)).sum() for image in images)
    (loss + (layers.depth * shown * torch.randn(shown.shape, generator=g)).sum()).backward()
    return layers, {n: t.grad for n, t in zip(NAMES, inputs, strict=False) if t.grad is not None}


@pytest.mark.parametrize("options", [
    {"median": True, "normals": True}, {"camera_model": "fisheye", "radial_coeffs": FISHEYE, "median": True},
    {"surfels": True},
])  # fmt: skip
def test_layers_and_gradients(options: dict[str, Any]) -> None:
    scene = random_scene(40, seed=1)
    expected, slopes = render(scene, "cpu", **options)
    found, gradients = render(scene, "gsplat", **options)
    for name, a, b in zip(Layers._fields[:5], expected, found, strict=False):
        if a is not None and b is not None:
            assert ((a - b).abs() > (2e-3 if name in ("depth", "median") else 2e-5)).float().mean() < 2e-3, name
    for name, slope in slopes.items():
        assert (slope - gradients[name]).norm() < 1e-3 * slope.norm().clamp(min=1e-6), name


def test_harmonics() -> None:
    scene = random_scene(30, degree=3, seed=2)
    expected, _ = render(scene, "cpu", sh_degree=2)
    found, _ = render(scene, "gsplat", sh_degree=2)
    assert (expected.color - found.color).abs().max() < 1e-4


@pytest.mark.parametrize("kind", NASTY)
def test_nasty(kind: str) -> None:
    scene = [t[:40] if len(t) > 1 else t for t in nasty_scene(kind)]
    for surfels in (False, True):
        expected, _ = render(scene, "cpu", surfels=surfels)
        found, _ = render(scene, "gsplat", surfels=surfels)
        assert ((expected.color - found.color).abs() > 1e-4).float().mean() < 5e-3


def test_poses_in_double_and_opacities_of_nan() -> None:
    scene = [t.float() for t in random_scene(20)]
    clean = rasterize(*[t[1:] for t in scene[:5]], *scene[5:], WIDTH, HEIGHT, backend="gsplat").color  # type: ignore[misc]
    scene[3][0] = torch.nan
    scene[5] = scene[5].double()
    assert torch.equal(rasterize(*scene, WIDTH, HEIGHT, backend="gsplat").color, clean)  # type: ignore[misc]


def test_no_gaussians_and_none_in_view() -> None:
    for name in ("cpu", "gsplat"):
        scene = [t.float() for t in random_scene(3)]
        scene[0][:, 2] -= 50
        assert rasterize(*scene, WIDTH, HEIGHT, median=True, backend=name).alpha.max() == 0  # type: ignore[misc]
        empty = [t[:0] for t in scene[:5]] + scene[5:]
        layers = rasterize(*empty, WIDTH, HEIGHT, median=True, normals=True, backend=name)  # type: ignore[misc]
        assert layers.color.shape == (1, HEIGHT, WIDTH, 3) and layers.alpha.max() == 0 and len(layers.radii[0]) == 0


def test_an_old_gsplat_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat, "__version__", "1.4.0")
    backend._kernels.cache_clear()
    with pytest.raises(InputError, match=r"needs gsplat 1\.5 or later, found 1\.4\.0"):
        backend._kernels()
    backend._kernels.cache_clear()
