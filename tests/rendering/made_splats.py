"""Gaussians made for the tests: float64 tensors in the order that `rasterize` takes them."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH, HEIGHT = 45, 37
NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats")


def camera(width: int = WIDTH, height: int = HEIGHT) -> tuple[Tensor, Tensor]:
    """A view that is turned and moved a little, and intrinsics off the centre."""
    x, y, z = 0.1, -0.2, 0.05
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))
    view[:3, 3] = torch.tensor([0.1, 0.2, 0.3])
    focal = 0.8 * width
    k = torch.tensor([[focal, 0, width / 2 + 0.7], [0, 1.05 * focal, height / 2 - 0.4], [0, 0, 1]], dtype=torch.float64)
    return view[None], k[None]


def random_scene(number: int = 60, channels: int = 3, degree: int | None = None, seed: int = 0) -> list[Tensor]:
    """Gaussians all over the image and a little beyond, at depths 2 to 5."""
    g = torch.Generator().manual_seed(seed)
    some = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    z = 2 + 3 * some(number)
    side = torch.tensor([WIDTH, HEIGHT]) / (0.8 * WIDTH)
    means = torch.cat([1.2 * (some(number, 2) - 0.5) * side * z[:, None], z[:, None]], 1)
    colors = some(number, channels) if degree is None else 0.3 * normal(number, (degree + 1) ** 2, 3)
    return [
        means, normal(number, 4), 0.02 + 0.15 * some(number, 3), 0.05 + 0.9 * some(number), colors, *camera(),
    ]  # fmt: skip


def nasty_scene(kind: str) -> list[Tensor]:
    """What real optimisations come across."""
    scene = random_scene(seed=3)
    means, _, scales, opacities = scene[:4]
    if kind == "huge":
        scales[:6] *= 300
        opacities[:6] = 0.3
    elif kind == "tiny":
        scales *= 1e-5
    elif kind == "needles":
        scales[:, 0] *= 40
        scales[:, 1] *= 1e-3
    elif kind == "behind":
        means[:30, 2] *= -1
        means[30:40, 2] = -0.28  # at the camera, within the near plane of some
    elif kind == "outside":
        means[:, :2] *= 6
        scales *= 3
    elif kind == "transparent":
        opacities[:30] = 1e-3
        opacities[30:40] = 0.0
        opacities[40:] = 0.0045
    elif kind == "opaque":
        opacities[:] = 1.0
    elif kind == "pile":  # two thousand in one place, at depths that float32 can tell apart
        scene = random_scene(2000, seed=5)
        scene[5][0] = torch.eye(4)
        scene[0][:] = torch.tensor([0.05, -0.02, 3.0], dtype=torch.float64) + 0.02 * scene[0]
        scene[0][:, 2] += 1e-4 * torch.arange(2000)
        scene[3] *= 0.05
    elif kind == "same":  # equal depths keep their order
        means[:] = means[0].clone()
    elif kind == "empty":
        scene = [t[:0] for t in scene[:5]] + scene[5:]
    elif kind == "one colour":
        scene = random_scene(channels=1)
    elif kind == "many colours":
        scene = random_scene(channels=11)
    else:
        raise ValueError(kind)
    return scene


NASTY = (
    "huge", "tiny", "needles", "behind", "outside", "transparent", "opaque", "pile", "same", "empty", "one colour",
    "many colours",
)  # fmt: skip
