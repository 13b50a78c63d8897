"""gsplat's strategies for adding and removing Gaussians, on any device."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from video_io.errors import InputError

NAMES = ("default", "mcmc")
OFF = 1e9  # a slope that no Gaussian has


class Growth(Protocol):
    """Changes parameters and their optimisers' state in place."""

    def step(self, raw: torch.nn.ParameterDict, adams: dict[str, Any], steps: int, info: dict[str, Any]) -> None:
        """After each step; `info` is what gsplat's strategies want to know of the rendered frame."""


def growth(name: str, size: float, most: int, slope: float, every: int) -> Growth:
    """The strategy of this name.

    Args:
        size: of the scene, the measure of large and small.
        most: Gaussians at which growth ends.
        slope: of the loss by a centre in the image, from which a Gaussian is split or doubled ("default").
        every: steps between changes.

    Raises:
        InputError: there is none of this name.
    """
    if name == "default":
        return _Default(size, most, slope, every)
    if name == "mcmc":
        return _Mcmc(most, every)
    raise InputError(f"strategy '{name}' is not known; choose one of {', '.join(NAMES)}")


class _Default:
    """3DGS's own: what the picture pulls at is split or doubled, what is hardly there is removed.

    Opacities are not reset: that takes longer to heal than a training of minutes has.
    """

    def __init__(self, size: float, most: int, slope: float, every: int) -> None:
        from gsplat import __version__
        from gsplat.strategy import DefaultStrategy

        # gsplat 1.4, which nerfstudio 1.1.5 asks for, knows one radius a Gaussian.
        self._one_radius = __version__.startswith("1.4.")
        # The caller, who knows the clock, says when to grow.
        self._strategy = DefaultStrategy(
            refine_start_iter=0, refine_stop_iter=10**9, refine_every=every, reset_every=10**9
        )
        self._state, self._most, self._slope = self._strategy.initialize_state(scene_scale=size), most, slope

    def step(self, raw: torch.nn.ParameterDict, adams: dict[str, Any], steps: int, info: dict[str, Any]) -> None:
        self._strategy.grow_grad2d = self._slope if len(raw["means"]) < self._most else OFF
        if self._one_radius:
            info = {**info, "radii": info["radii"].amax(-1)}
        self._strategy.step_post_backward(raw, adams, self._state, steps, info)


class _Mcmc:
    """Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo", NeurIPS 2024."""

    def __init__(self, most: int, every: int) -> None:
        from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci
        from gsplat.strategy import MCMCStrategy, ops

        if not torch.cuda.is_available():
            # Two kernels that gsplat has for CUDA only.
            ops.compute_relocation, ops.quat_scale_to_covar_preci = relocation, _quat_scale_to_covar_preci
        self._strategy = MCMCStrategy(cap_max=most, refine_start_iter=0, refine_stop_iter=10**9, refine_every=every)
        self._state = self._strategy.initialize_state()

    def step(self, raw: torch.nn.ParameterDict, adams: dict[str, Any], steps: int, info: dict[str, Any]) -> None:
        rate = adams["means"].param_groups[0]["lr"]
        self._strategy.step_post_backward(raw, adams, self._state, steps, info, lr=rate)


def relocation(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor) -> tuple[Tensor, Tensor]:
    """Opacities (N,) and scales (N, 3) of Gaussians of which `ratios` (N,) copies are to look like one (equation 9)."""
    ratios = ratios.clamp(1, len(binoms))
    new = 1 - (1 - opacities) ** (1 / ratios)
    k = torch.arange(len(binoms), device=opacities.device)
    terms = (-1.0) ** k / torch.sqrt(k + 1.0) * new[:, None] ** (k + 1)
    # The sum over i of binom(i - 1, k) for i up to the number of copies.
    counts = torch.cumsum(binoms, 0)[ratios - 1]
    return new, scales * (opacities / (counts * terms).sum(1))[:, None]
