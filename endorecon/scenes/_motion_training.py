"""Training of Gaussians that move: that of `_splat_training`, with the weights of the motion and the bells trained too.

A frame is rendered with the Gaussians as they are at its time. The gradient by the displaced Gaussians is that of the
Gaussians at rest; times the bells' heights it is that of the weights, which is formed within their step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from endorecon.scenes._motion import CHANNELS, Heights, MovingSplats, TimeBasis, add_stretch, displaced, step_weights
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import Splats, SplatView
from endorecon.scenes._splat_training import Options, Training
from rendering.splat import share, threads

MOVED = ("means", "quats", "scales")
# Of the weights: positions in units of the scene's size, quaternions, logs of scales.
POSITION_RATE, TURN_RATE, SCALE_RATE = 3e-4, 1e-3, 2e-3
POSITION_RATE_AT_END = 0.05
BASIS_RATE = 2e-3
STRETCH, SLIDE = 0.02, 2e-3  # how much neighbours' unlike motion costs, and from which share of the size it may slide
NEIGHBOURS = 6


class MotionAdam(torch.optim.Optimizer):
    """Adam for weights (N, B, 10) whose gradient is an outer product: by the bells that count at one time.

    Bells that do not count stay as they are, with their moments, and the fading-in is counted for each by itself.
    """

    def __init__(self, parameter: torch.nn.Parameter, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__([{"params": [parameter], "name": "motion"}], {"lr": 0.0})
        self._betas, self._taken = betas, None
        self.rates = np.zeros(CHANNELS, np.float32)
        self.by_height = np.zeros(0)

    def take(self, heights: Heights, g_means: NDArray, g_quats: NDArray, g_scales: NDArray) -> None:
        """The gradient of the next step: by the displaced Gaussians, float32."""
        self._taken = heights, g_means, g_quats, g_scales

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; `by_height` is then the gradient by the heights of the bells."""
        if self._taken is None:
            return
        heights, *slopes = self._taken
        self._taken, parameter = None, self.param_groups[0]["params"][0]
        state, (b1, b2) = self.state[parameter], self._betas
        if not state:
            state["step"] = torch.zeros(parameter.shape[1], dtype=torch.int64)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        part = slice(heights.first, heights.first + len(heights.value))
        state["step"][part] += 1
        count = state["step"][part].numpy()
        fades = np.stack([1 - b1**count, 1 - b2**count], 1).astype(np.float32)
        arrays = [t.detach().numpy() for t in (parameter, state["exp_avg"], state["exp_avg_sq"])]
        n, workers = len(parameter), threads()
        sums = np.zeros((workers, len(heights.value)))
        numbers = [np.float32(v) for v in (b1, b2, 1e-15)]
        share(
            lambda i, of: step_weights(
                n * i // of, n * (i + 1) // of, *arrays, heights.first, heights.value, *slopes, self.rates, *numbers,
                fades, sums[i],
            ),
            workers,
        )  # fmt: skip
        self.by_height = sums.sum(0)


class MovingTraining(Training):
    """As `Training`, of Gaussians that move.

    Args:
        splats: the seeds, and how they move.
    """

    def __init__(
        self,
        splats: MovingSplats,
        views: Sequence[SplatView],
        light: Light,
        options: Options,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.basis, self._weights = splats.basis, splats.weights
        self._near: NDArray[np.int64] | None = None
        self._now: tuple[Heights, NDArray[np.float32]] | None = None
        super().__init__(splats.rest, views, light, options, state)

    def moving(self) -> MovingSplats:
        """The Gaussians and their motion as they are now."""
        shape = TimeBasis(self.basis.begin_ns, self.basis.end_ns, self.basis.shape.copy())
        return MovingSplats(self.splats(), self.raw["motion"].detach().numpy().copy(), shape)

    def step(self) -> bool:
        """One frame; False where something is no number any more."""
        try:
            done = super().step()
        except FloatingPointError:
            done = False
        if not done or self._now is None:
            return False
        self.basis.step(self._now[0], self._motion.by_height, BASIS_RATE * self._cooling)
        return True

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {**super().state(), "basis": {name: np.array(value) for name, value in vars(self.basis).items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back, or on, to what `state` has returned."""
        b = state["basis"]
        whole = (int(b[name]) for name in ("begin_ns", "end_ns"))
        self.basis = TimeBasis(*whole, b["shape"].copy(), b["moments"].copy(), int(b["steps"]))
        self._near = None
        super().restore(state)

    # -- what is done in another way ------------------------------------------------------------------------------

    def _start(self, splats: Splats) -> dict[str, torch.Tensor]:
        return {**splats.tensors(), "motion": torch.from_numpy(self._weights)}

    def _adam(self, name: str) -> torch.optim.Optimizer:
        return MotionAdam(self.raw[name]) if name == "motion" else super()._adam(name)

    def _rate(self, name: str) -> float:
        return 0.0 if name == "motion" else super()._rate(name)

    def _shown(self, view: SplatView) -> dict[str, torch.Tensor]:
        heights = self.basis.heights(view.time_ns)
        moved = displaced(*(self.raw[n].detach().numpy() for n in (*MOVED, "motion")), heights)
        if not all(np.isfinite(m.sum()) for m in moved):
            raise FloatingPointError("the motion of the Gaussians is no number")
        self._now = heights, moved[0]
        return {**self.raw, **{n: torch.from_numpy(m).requires_grad_() for n, m in zip(MOVED, moved, strict=True)}}

    def _take(self, shown: dict[str, torch.Tensor]) -> None:
        assert self._now is not None
        heights, means = self._now
        slopes = []
        for name in MOVED:
            slope = shown[name].grad
            self.raw[name].grad = torch.zeros_like(self.raw[name]) if slope is None else slope
            slopes.append(self.raw[name].grad.contiguous().numpy())
        # Neighbours are to move alike, which says nothing of where they rest.
        pulled, rest, near = slopes[0].copy(), self.raw["means"].detach().numpy(), self._neighbours()
        n, strength = len(rest), np.float32(STRETCH / (len(rest) * NEIGHBOURS * self.size))
        share(
            lambda i, of: add_stretch(
                n * i // of, n * (i + 1) // of, rest, means, near, strength, np.float32(SLIDE * self.size), pulled
            ),
            threads(),
        )  # fmt: skip
        self._motion.take(heights, pulled, *slopes[1:])

    def _set_rates(self) -> None:
        super()._set_rates()
        position = POSITION_RATE * self.size * POSITION_RATE_AT_END**self.share
        turn, scale = TURN_RATE * self._cooling, SCALE_RATE * self._cooling
        self._motion.rates = np.repeat(np.float32([position, turn, scale]), [3, 4, 3])

    def _at(self, splats: Splats, view: SplatView) -> Splats:
        return MovingSplats(splats, self.raw["motion"].detach().numpy(), self.basis).at(view.time_ns)

    # -- inside ---------------------------------------------------------------------------------------------------

    @property
    def _motion(self) -> MotionAdam:
        adam = self.adams["motion"]
        assert isinstance(adam, MotionAdam)
        return adam

    def _neighbours(self) -> NDArray[np.int64]:
        """(N, K) the nearest Gaussians of each, found anew when some have come or gone."""
        rest = self.raw["means"].detach().numpy()
        if self._near is None or len(self._near) != len(rest):
            from scipy.spatial import cKDTree

            number = min(NEIGHBOURS + 1, len(rest))
            found = cKDTree(rest).query(rest, number)[1].reshape(len(rest), -1)
            self._near = np.ascontiguousarray(found[:, 1:])
        return self._near
