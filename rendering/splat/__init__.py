"""Gaussian splatting: one pure function, `rasterize`; each public file here is one way to compute it.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", SIGGRAPH 2023; arguments and tensors as
gsplat has them (Ye et al., JMLR 2025). `cpu` is compiled for the processor, `gsplat` for CUDA, and `reference` is what
the tests hold both against.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from rendering.splat._workers import set_threads, share, threads
from video_io.errors import InputError

__all__ = ["Layers", "backends", "find_backend", "rasterize", "set_threads", "share", "threads"]

if TYPE_CHECKING:
    from torch import Tensor

EMPTY_ALPHA = 1e-10  # a pixel that shows less than this has no depth
CAMERAS = ("pinhole", "fisheye")


class Layers(NamedTuple):
    """What one camera sees, or what each of C cameras does, with a leading C.

    Attributes:
        color: (H, W, D) sum of w_i c_i over the Gaussians i front to back, w_i = alpha_i prod_{j<i} (1 - alpha_j)
            (3DGS, equation 3); the background is added where one was given.
        alpha: (H, W) sum of w_i.
        depth: (H, W) expected z-depth, sum of w_i z_i / sum of w_i, with z_i of the centres; 0 where nothing is.
        median: (H, W) z_i of the last Gaussian that counts and before which more than half of the light is left (Huang
            et al., "2D Gaussian Splatting", SIGGRAPH 2024, section 5: depth as the median intersection); where the
            pixel never gets half full, that of the farthest. The gradient goes to that Gaussian. None unless asked for.
        normals: (H, W, 3) sum of w_i n_i, camera frame, not normalised: n_i is the Gaussian's shortest axis, turned
            towards the camera (2DGS, section 4.1, where the third axis has no length). None unless asked for.
        radii: (N, 2) int32 half width and half height of the part of each Gaussian that counts, pixels; 0 if unseen.
        distortion: (H, W) sum over pairs of w_i w_j (1 / z_i - 1 / z_j)^2, how far what a ray meets lies apart (2DGS,
            equation 13, in disparity as its code has it). None but for surfels.

    Of surfels z_i is where the pixel's ray meets the surfel's plane, the median is that depth, the expected depth is
    sum of w_i / sum of (w_i / z_i), and the normal is the third axis; median, normals and distortion are always there.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    median: Tensor | None
    normals: Tensor | None
    radii: Tensor
    distortion: Tensor | None = None


@dataclass(frozen=True)
class Job:
    """One camera's part of a `rasterize` call: its tensors, checked, and its options."""

    means2d: Tensor
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmat: Tensor
    k: Tensor  # fx, fy, cx, cy, k1, k2, k3, k4
    width: int
    height: int
    sh_degree: int | None
    is_fisheye: bool
    median: bool
    normals: bool
    near: float
    far: float
    blur: float
    surfels: bool = False

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors, in the order of the fields."""
        return (
            self.means2d, self.means, self.quats, self.scales, self.opacities, self.colors, self.viewmat, self.k,
        )  # fmt: skip


class Backend(Protocol):
    """A file of this folder."""

    ABOUT: str

    def check(self) -> None:
        """Raise InputError unless it can run here."""

    def render(self, job: Job) -> Layers:
        """What one camera sees."""


def backends() -> list[str]:
    """Names of the backends."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def find_backend(name: str = "auto") -> Backend:
    """The backend of this name, ready to run; `auto` is gsplat where there is a CUDA device, and cpu elsewhere.

    Raises:
        InputError: there is none of this name, or it can't run here.
    """
    if name == "auto":
        import torch

        name = "gsplat" if torch.cuda.is_available() else "cpu"
    if name not in backends():
        raise InputError(f"rasteriser '{name}' is not known; choose one of auto, {', '.join(backends())}")
    backend: Backend = importlib.import_module(f"rendering.splat.{name}")  # type: ignore[assignment]
    backend.check()
    return backend


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    camera_model: Literal["pinhole", "fisheye"] = "pinhole",
    radial_coeffs: Tensor | None = None,
    backgrounds: Tensor | None = None,
    median: bool = False,
    normals: bool = False,
    means2d: Tensor | None = None,
    surfels: bool = False,
    backend: str = "auto",
) -> Layers:
    """Render Gaussians as C cameras see them; differentiable in every tensor but `Ks` and the coefficients.

    Args:
        means: (N, 3) centres, world. quats: (N, 4) rotations wxyz, of any length. scales: (N, 3) standard deviations.
        opacities: (N,) in [0, 1].
        colors: (N, D), or with `sh_degree` (N, K, 3) spherical harmonics, K >= (sh_degree + 1)^2, of the direction from
            the camera to the centre; 0.5 is added and what is negative cut off.
        viewmats: (C, 4, 4) camera from world. Ks: (C, 3, 3), the centre of the top-left pixel at (0.5, 0.5).
        width, height: of the images.
        near_plane, far_plane: z of a centre that is drawn lies between them.
        eps2d: pixels^2 added to the covariance in the image.
        sh_degree: 0 to 3, or None where `colors` are colours.
        camera_model, radial_coeffs: "fisheye" is OpenCV's with (C, 4) k1 ... k4, or equidistant without.
        backgrounds: (C, D) what shows where alpha is below 1.
        median, normals: whether these are wanted.
        means2d: (C, N, 2) zeros that require a gradient, if that by the centres in pixels is wanted, as gsplat's
            strategies do; it is added to `means2d.grad`.
        surfels: flat Gaussians (2DGS) instead: the third scale does not count, nor does `eps2d`; in the image each is
            at least as wide as exp(-d^2), d in pixels. Pinhole only.
        backend: "auto" or one of `backends()`.

    Returns:
        Layers with a leading C.

    Raises:
        ValueError: tensors that do not fit each other, an unknown camera model, or a degree that is not supported.
        InputError: a backend that is not known or can't run here.
    """
    import torch

    _check(means, quats, scales, opacities, colors, viewmats, Ks, width, height, sh_degree, camera_model)
    if surfels and camera_model != "pinhole":
        raise ValueError(f"surfels are seen by a pinhole camera, found {camera_model}")
    render = find_backend(backend).render
    views = []
    for c in range(len(viewmats)):
        radial = Ks.new_zeros(4) if radial_coeffs is None else radial_coeffs[c]
        pinhole = torch.stack([Ks[c, 0, 0], Ks[c, 1, 1], Ks[c, 0, 2], Ks[c, 1, 2]])
        job = Job(
            means.new_zeros(len(means), 2) if means2d is None else means2d[c], means, quats, scales, opacities, colors,
            viewmats[c], torch.cat([pinhole, radial.to(pinhole)]).detach(), width, height, sh_degree,
            camera_model == "fisheye", median, normals, near_plane, far_plane, eps2d, surfels,
        )  # fmt: skip
        layers = render(job)
        if backgrounds is not None:
            layers = layers._replace(color=layers.color + (1 - layers.alpha[..., None]) * backgrounds[c])
        views.append(layers)
    # One camera's images are not copied.
    join = torch.stack if len(views) > 1 else lambda values: values[0][None]
    return Layers(*(None if values[0] is None else join(values) for values in zip(*views)))


def _check(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, sh_degree: int | None, camera_model: str,
) -> None:  # fmt: skip
    n, cameras = len(means), len(viewmats)
    wanted = {
        "means": (means, (n, 3)), "quats": (quats, (n, 4)), "scales": (scales, (n, 3)), "opacities": (opacities, (n,)),
        "viewmats": (viewmats, (cameras, 4, 4)), "Ks": (Ks, (cameras, 3, 3)),
    }  # fmt: skip
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, expected {shape} for {n} Gaussians, {cameras} cameras")
    if cameras < 1 or width < 1 or height < 1:
        raise ValueError(f"expected a camera and an image, found {cameras} cameras of {width} x {height}")
    if camera_model not in CAMERAS:
        raise ValueError(f"camera model '{camera_model}' is not known; models are {', '.join(CAMERAS)}")
    if sh_degree is None:
        if colors.ndim != 2 or len(colors) != n:
            raise ValueError(f"colors is {tuple(colors.shape)}, expected ({n}, D)")
    elif not 0 <= sh_degree <= 3:
        raise ValueError(f"spherical harmonics of degree 0 to 3 are supported, found {sh_degree}")
    elif colors.ndim != 3 or len(colors) != n or colors.shape[2] != 3 or colors.shape[1] < (sh_degree + 1) ** 2:
        least = (sh_degree + 1) ** 2
        raise ValueError(f"colors is {tuple(colors.shape)}, expected ({n}, at least {least}, 3) for degree {sh_degree}")
