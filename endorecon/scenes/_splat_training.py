"""Training of Gaussians on a clip's frames: Adam, gsplat's strategies for growth and pruning, exposure, and the clock.

3DGS (Kerbl et al., SIGGRAPH 2023) but for the seeds, which lie on a measured surface, and the time: rates fall with the
share of the time that is used up, so that two minutes give a finished scene too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from endorecon.scenes._splat_adam import FusedAdam
from endorecon.scenes._splat_gloss import RATE as GLOSS_RATE
from endorecon.scenes._splat_gloss import hold
from endorecon.scenes._splat_growth import Growth, growth
from endorecon.scenes._splat_light import RATE as LIGHT_RATE
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_loss import Loss, Weights, frame_loss, padded
from endorecon.scenes._splat_model import NAMES, Splats, SplatView, rasterize_raw
from endorecon.scenes._splat_poses import RATE as POSE_RATE
from endorecon.scenes._splat_poses import Poses
from endorecon.scenes._surfel_loss import SurfelWeights, surface_loss

# As in 3DGS; those of the centres are in units of the scene's size.
RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 2.5e-3 / 20,
         "gloss": GLOSS_RATE}  # fmt: skip
MEANS_RATE_AT_END = 0.01
EXPOSURE_RATE = 2e-3
HELD_OUT_EVERY = 8
MOST_RETURNS = 3  # to the last good state, before training ends with it
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Options:
    """How Gaussians are trained.

    Attributes:
        seconds: time to spend; less where nothing gets better any more.
        iterations: most steps, however much time is left; None for any number.
        degree: of the harmonics of the colour.
        strategy: "default" (3DGS) or "mcmc" (Kheradmand et al., NeurIPS 2024).
        most: Gaussians at which growth ends.
        grow_from, grow_to: the shares of the time between which Gaussians are added and removed.
        weights: of the parts of the loss; opacity: of the mean opacity.
        held_out: whether every 8th frame is kept for the figures.
        surfels: whether the Gaussians are flat (2DGS); surface: weights of what holds them to one surface.
        poses: whether the frames' poses are improved along with the Gaussians.
        gloss: whether the Gaussians of a scene that stands still have highlights.
    """

    seconds: float = 300.0
    iterations: int | None = None
    degree: int = 2
    strategy: str = "default"
    most: int = 60_000
    grow_from: float = 0.05
    grow_to: float = 0.6
    grow_every: int = 100
    grow_slope: float = 2e-4
    weights: Weights = field(default_factory=Weights)
    opacity: float = 0.0
    held_out: bool = True
    surfels: bool = False
    surface: SurfelWeights = field(default_factory=SurfelWeights)
    poses: bool = False
    gloss: bool = True


@dataclass
class Exposure:
    """Gain and offset (F, 3) of the frames that are trained on, with Adam's moments."""

    value: NDArray[np.float64]
    moments: NDArray[np.float64]
    steps: NDArray[np.int64]

    @staticmethod
    def neutral(frames: int) -> Exposure:
        return Exposure(np.zeros((frames, 6)), np.zeros((2, frames, 6)), np.zeros(frames, np.int64))

    def of(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        value = self.value[frame]
        return np.exp(value[:3]).astype(np.float32), value[3:].astype(np.float32)

    def between(self, times: NDArray, time: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of a frame that is not trained on: between those of its neighbours in time."""
        value = np.array([np.interp(time, times, column) for column in self.value.T])
        return np.exp(value[:3]).astype(np.float32), value[3:].astype(np.float32)

    def step(self, frame: int, loss: Loss, rate: float) -> None:
        slope = np.concatenate([loss.g_gain * np.exp(self.value[frame, :3]), loss.g_offset])
        self.steps[frame] += 1
        n, (m, s) = self.steps[frame], self.moments[:, frame]
        m += 0.1 * (slope - m)
        s += 0.01 * (slope**2 - s)
        self.value[frame] -= rate * (m / (1 - 0.9**n)) / (np.sqrt(s / (1 - 0.99**n)) + 1e-12)


@dataclass(frozen=True)
class Figures:
    """How well frames that were never trained on are rendered."""

    seconds: float
    steps: int
    gaussians: int
    psnr: float  # over the pixels that show tissue
    psnr_all: float
    ssim: float

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def held_out(views: int, options: Options) -> set[int]:
    """Numbers of the frames that are kept for the figures: every 8th, if there are that many."""
    return set(range(0, views, HELD_OUT_EVERY)) if options.held_out and views >= HELD_OUT_EVERY else set()


class Training:
    """The state of a training; `run` goes on with it.

    Args:
        splats: the seeds.
        views: frames in order of time, at least one.
        light: as the seeds' colours were made with.
        state: what `state` returned, to go on from there.
    """

    def __init__(
        self,
        splats: Splats,
        views: Sequence[SplatView],
        light: Light,
        options: Options,
        state: dict[str, Any] | None = None,
    ) -> None:
        held = held_out(len(views), options)
        self.views = [v for i, v in enumerate(views) if i not in held]
        self.tests = [v for i, v in enumerate(views) if i in held]
        self.targets = [padded(v.rgb) for v in self.views]
        self.options, self.light, self.size = options, light, light.usual
        self.steps, self.spent, self.losses = 0, 0.0, []
        self.raw = torch.nn.ParameterDict({n: torch.nn.Parameter(t.clone()) for n, t in self._start(splats).items()})
        self.adams = {n: self._adam(n) for n in self.raw}
        self.exposure = Exposure.neutral(len(self.views))
        self.poses = Poses.given(len(self.views), self.size)
        self.history: list[Figures] = []
        self.warnings: list[str] = []
        self._rng = np.random.default_rng(0)
        self._queue: list[int] = []
        self._returns = 0
        self._growth = self._make_growth()
        if state is not None:
            self.restore(state)
        self._good = self.state()

    # -- training -------------------------------------------------------------------------------------------------

    def run(self, progress: Progress, keep: Callable[[dict[str, Any]], None], every_s: float = 30.0) -> None:
        """Train until the time is used up, nothing gets better, or the user interrupts; the figures come last.

        Args:
            progress: told the seconds spent of all seconds.
            keep: takes the state every `every_s` seconds.
        """
        total, kept, first = self.options.seconds, self.spent, True
        try:
            while self.share < 1 and self._returns <= MOST_RETURNS and not self._settled():
                begun = time.perf_counter()
                if not self.step():
                    self._go_back()
                # The first step may compile kernels, which is no training.
                self.spent += 0.0 if first else time.perf_counter() - begun
                first = False
                if self.spent - kept > every_s:
                    kept = self.spent
                    if self._sound():
                        self.history.append(self.figures())
                        self._good = self.state()
                        keep(self._good)
                    else:
                        self._go_back()
                progress("splats", min(int(self.spent), int(total)), int(total))
        except KeyboardInterrupt:
            self.warnings.append(f"the Gaussians were trained for {self.spent:.0f} of {total:.0f} s, then interrupted")
        if not self._sound():
            self._go_back()
        self.history.append(self.figures())

    @property
    def share(self) -> float:
        """How much of the time or of the steps is used up."""
        steps = self.options.iterations
        return min(max(self.spent / self.options.seconds, self.steps / steps if steps else 0.0), 1.0)

    def step(self) -> bool:
        """One frame, one step of every parameter; False where something is no number any more."""
        number = self._next()
        view, target = self.views[number], self.targets[number]
        degree = min(self.options.degree, int(self.share * 4 * (self.options.degree + 1)))
        moved = torch.zeros(1, len(self.raw["means"]), 2, requires_grad=True)
        shown, surfels = self._shown(view), self.options.surfels
        pose = torch.from_numpy(self.poses.view(number, view.world_from_cam)).requires_grad_(self.options.poses)
        layers = rasterize_raw(shown, view.camera, pose, degree, means2d=moved, surfels=surfels)
        color, alpha, depth = (layer[0].detach().numpy() for layer in layers[:3])  # type: ignore[index]
        gain, offset = self.exposure.of(number)
        lit = self.light.factor(depth)
        loss = frame_loss(
            color, alpha, depth, target, view.use_mask, view.depth, view.confidence.astype(np.float32), lit, gain,
            offset, self.options.weights,
        )  # fmt: skip
        if not np.isfinite(loss.value):
            return False
        self.losses.append(loss.l1)
        images, slopes = list(layers[:3]), [loss.g_color, loss.g_alpha, loss.g_depth]
        if surfels:
            images += [layers.normals, layers.distortion]
            slopes += self._surface_slopes(layers, view, slopes)
        torch.autograd.backward(images, [torch.from_numpy(g)[None] for g in slopes])  # type: ignore[arg-type]
        if self.options.opacity:
            opacity = torch.sigmoid(self.raw["opacities"].detach())
            self.raw["opacities"].grad += self.options.opacity / len(opacity) * opacity * (1 - opacity)
        info = {
            "width": view.camera.width, "height": view.camera.height, "n_cameras": 1, "gaussian_ids": None,
            "means2d": moved, "radii": layers.radii,
        }  # fmt: skip
        self._set_rates()
        self._take(shown)
        for adam in self.adams.values():
            adam.step()
            adam.zero_grad(set_to_none=True)
        if "gloss" in self.raw:
            hold(self.raw["gloss"].data)
        self.exposure.step(number, loss, EXPOSURE_RATE * (1 - 0.9 * self.share))
        self.light.step(depth, lit, loss.g_light, LIGHT_RATE * (1 - 0.95 * self.share))
        if pose.grad is not None:
            self.poses.step(number, pose.detach().numpy(), pose.grad.numpy(), POSE_RATE * self._cooling)
        self.steps += 1
        self._grow(info)
        return True

    def figures(self) -> Figures:
        """Of the held-out frames as they are now; not a number where there are none."""
        splats, values = self.splats(), []
        times = np.array([v.time_ns for v in self.views], float)
        for view in self.tests:
            gain, offset = self.exposure.between(times, view.time_ns)
            pose = view.world_from_cam
            if self.options.poses:
                pose = self.poses.between(times, view.time_ns, pose)
            layers = self._at(splats, view).render(view.camera, pose)
            color, alpha, depth = (layer.numpy() for layer in layers[:3])  # type: ignore[union-attr]
            lit = self.light.factor(depth)[..., None]
            shown, target = np.clip(color * lit * gain + offset, 0, 1), view.rgb.astype(np.float32) / 255
            square = ((shown - target) ** 2).mean(-1)
            unit = np.ones(3, np.float32)
            ssim = frame_loss(
                shown,
                alpha,
                depth,
                padded(view.rgb),
                view.use_mask,
                depth,
                0 * depth,
                0 * depth + 1,
                unit,
                0 * unit,
                Weights(),
            ).ssim
            used = square[view.use_mask].mean() if view.use_mask.any() else np.nan
            values.append([-10 * np.log10(max(used, 1e-10)), -10 * np.log10(max(square.mean(), 1e-10)), ssim])
        psnr, psnr_all, ssim = np.mean(values, 0) if values else (np.nan,) * 3
        return Figures(self.spent, self.steps, len(splats), float(psnr), float(psnr_all), float(ssim))

    def splats(self) -> Splats:
        """The Gaussians as they are now."""
        arrays = {name: self.raw[name].detach().numpy().copy() for name in (*NAMES, "gloss") if name in self.raw}
        return Splats(**arrays, surfels=self.options.surfels)

    def placed(self) -> list[SplatView]:
        """The frames that are trained on, at their poses as they are now."""
        return [
            replace(view, world_from_cam=np.linalg.inv(self.poses.view(i, view.world_from_cam)))
            for i, view in enumerate(self.views)
        ]

    # -- keeping --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, as plain values and arrays."""
        moments = {
            n: {k: v.numpy().copy() if isinstance(v, torch.Tensor) else v for k, v in adam.state[self.raw[n]].items()}
            for n, adam in self.adams.items()
        }
        splats = {name: parameter.detach().numpy().copy() for name, parameter in self.raw.items()}
        exposure, light, poses = (
            {k: np.array(v) for k, v in vars(x).items()} for x in (self.exposure, self.light, self.poses)
        )
        return {
            "splats": splats, "moments": moments, "exposure": exposure, "light": light, "steps": self.steps,
            "spent": self.spent, "history": [figures.to_dict() for figures in self.history],
            "losses": list(self.losses), "poses": poses,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go back, or on, to what `state` has returned."""
        for name in self.adams:
            parameter = torch.nn.Parameter(torch.from_numpy(state["splats"][name].copy()))
            adam = self.adams[name]
            adam.state.clear()
            adam.param_groups[0]["params"] = [parameter]
            self.raw[name] = parameter
            adam.state[parameter] = {
                k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v
                for k, v in state["moments"][name].items()
            }
        self.exposure = Exposure(**{k: v.copy() for k, v in state["exposure"].items()})
        kept = {k: v.copy() for k, v in state["poses"].items()}
        self.poses = Poses(**{**kept, "usual": float(kept["usual"])})
        law = state["light"]
        self.light = Light(float(law["usual"]), law["law"].copy(), law["moments"].copy(), int(law["steps"]))
        self.steps, self.spent, self.losses = state["steps"], max(self.spent, state["spent"]), list(state["losses"])
        if not self.history:
            self.history = [Figures(**figures) for figures in state["history"]]
        self._growth = self._make_growth()

    def _sound(self) -> bool:
        """Whether all is finite: a Gaussian that is not is drawn nowhere, so the loss does not tell of it."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.raw.values())

    def _go_back(self) -> None:
        """To the last good state; nothing grows from there on. After a few times that state is the result."""
        self.warnings.append(f"training came upon a value that is no number at step {self.steps}; it went back")
        self.restore(self._good)
        self.options, self._returns = replace(self.options, grow_to=0.0), self._returns + 1
        if self._returns > MOST_RETURNS:
            self.warnings.append(f"the Gaussians are left as they were at step {self.steps}, the last that was good")

    # -- what a scene that moves does in another way ----------------------------------------------------------------

    def _start(self, splats: Splats) -> dict[str, torch.Tensor]:
        """Everything that is trained, by name; the first axis counts Gaussians."""
        return splats.tensors()

    def _adam(self, name: str) -> torch.optim.Optimizer:
        return FusedAdam([{"params": [self.raw[name]], "name": name}], lr=self._rate(name))

    def _shown(self, view: SplatView) -> dict[str, torch.Tensor]:
        """What is rasterised for a view, with gradients."""
        return dict(self.raw)

    def _take(self, shown: dict[str, torch.Tensor]) -> None:
        """Bring the gradient from what was rasterised to what is trained."""

    def _at(self, splats: Splats, view: SplatView) -> Splats:
        """The Gaussians when the view was taken."""
        return splats

    # -- inside ---------------------------------------------------------------------------------------------------

    def _surface_slopes(self, layers: Any, view: SplatView, slopes: list[NDArray]) -> list[NDArray]:
        """Gradients by normals and distortion of what holds surfels to a surface; adds that by depth to `slopes`."""
        maps = [layer[0].detach().numpy() for layer in (layers.alpha, layers.depth, layers.normals, layers.distortion)]
        surface = surface_loss(*maps, view.use_mask, view.camera, self.size, self.options.surface, self.share)
        slopes[2] = slopes[2] + surface.g_depth
        return [surface.g_normals, surface.g_distortion]

    def _next(self) -> int:
        if not self._queue:
            self._queue = self._rng.permutation(len(self.views)).tolist()
        return self._queue.pop()

    def _rate(self, name: str) -> float:
        rate = RATES[name]
        return rate * self.size * MEANS_RATE_AT_END**self.share if name == "means" else rate

    @property
    def _cooling(self) -> float:
        """All rates fall in the last third."""
        return float(np.clip(3 * (1 - self.share), 0.05, 1))

    def _set_rates(self) -> None:
        for name, adam in self.adams.items():
            adam.param_groups[0]["lr"] = self._rate(name) * (1 if name == "means" else self._cooling)

    def _make_growth(self) -> Growth:
        o = self.options
        return growth(o.strategy, self.size, o.most, o.grow_slope, o.grow_every)

    def _grow(self, info: dict[str, Any]) -> None:
        if self.options.grow_from <= self.share < self.options.grow_to and info["means2d"].grad is not None:
            self._growth.step(self.raw, self.adams, self.steps, info)

    def _settled(self) -> bool:
        """Whether the last third of many steps after growth is no better than the third before."""
        n = 30 * len(self.views)
        if self.share < self.options.grow_to + 0.2 or len(self.losses) < 2 * n:
            return False
        return bool(np.mean(self.losses[-n:]) > 0.998 * np.mean(self.losses[-2 * n : -n]))
