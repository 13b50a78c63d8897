"""The model: Gaussians on our rasteriser (the processor's, or gsplat on CUDA), as `endorecon.scenes.splats` has them.

Colours are lit by what moves with the camera and shown by each frame's own exposure; depth is held near the measured
one; what is masked does not count. The loss is `endorecon.scenes._splat_loss` in PyTorch, so that it runs on CUDA too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizer, CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from endorecon.exports.nerfstudio import FLIP, LENGTH
from endorecon.scenes._splat_growth import Growth, growth
from endorecon.scenes._splat_light import SPAN, START
from endorecon.scenes._splat_loss import C1, C2, Weights
from endorecon.scenes._splat_model import Splats, seed_points, write_splats
from endorecon.scenes._splat_training import NAMES
from rendering.splat import Layers, rasterize

SHOWN = 0.5  # alpha from which a pixel's depth counts


@dataclass
class EndoreconSplatsConfig(ModelConfig):
    """Gaussians with depth, masks, the endoscope's light and exposure."""

    _target: type = field(default_factory=lambda: EndoreconSplats)
    enable_collider: bool = False
    degree: int = 2
    """Of the harmonics of the colour."""
    seeds: int = 25_000
    """Points of the surface that Gaussians begin on, at most."""
    most: int = 60_000
    """Gaussians at which growth ends."""
    strategy: str = "default"
    """Of growth: default (3DGS) or mcmc."""
    grow_from: float = 0.05
    """Share of the training at which growth begins."""
    grow_to: float = 0.6
    """And at which it ends."""
    grow_every: int = 100
    """Steps between changes."""
    grow_slope: float = 2e-4
    """Of the loss by a centre in the image, from which a Gaussian is split or doubled."""
    depth_weight: float = Weights().depth
    """Of |log depth - log measured depth|."""
    light: bool = True
    """Whether colours fall with depth and towards the corners by a law that is learnt."""
    camera_optimizer: CameraOptimizerConfig = field(default_factory=lambda: CameraOptimizerConfig(mode="off"))
    """Refinement of the poses."""


class EndoreconSplats(Model):
    """See the module.

    Args:
        seed_points: (N, 3) points and (N, 3) colours of 0 to 255; None for a ball about the origin.
    """

    config: EndoreconSplatsConfig

    def __init__(self, *args: Any, seed_points: tuple[Tensor, Tensor] | None = None, **kwargs: Any) -> None:
        self._points = seed_points
        super().__init__(*args, **kwargs)

    def populate_modules(self) -> None:
        super().populate_modules()
        seeds = seed_points(*self._seeds(), self.config.degree)
        self.gauss_params = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(tensor) for name, tensor in seeds.tensors().items()}
        )
        self.law = torch.nn.Parameter(torch.tensor(START))
        self.exposure = torch.nn.Parameter(torch.zeros(self.num_train_data, 6))
        self.camera_optimizer: CameraOptimizer = self.config.camera_optimizer.setup(
            num_cameras=self.num_train_data, device="cpu"
        )
        metadata = self.kwargs.get("metadata") or {}
        self._radial, self._times = metadata.get("radial"), metadata.get("train_times")
        self._step, self._last, self._info = 0, 1, {}

    def _seeds(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        if self._points is None or not len(self._points[0]):
            return rng.normal(0, 1, (1000, 3)), np.full((1000, 3), 128)
        rows = np.sort(rng.permutation(len(self._points[0]))[: self.config.seeds])
        return tuple(p.cpu().numpy()[rows].astype(float) for p in self._points)  # type: ignore[return-value]

    # -- training -------------------------------------------------------------------------------------------------

    def get_param_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        groups = {name: [self.gauss_params[name]] for name in NAMES}
        groups |= {"law": [self.law], "exposure": [self.exposure]}
        self.camera_optimizer.get_param_groups(param_groups=groups)
        return groups

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        trainer, optimizers = attributes.trainer, attributes.optimizers
        assert trainer is not None and optimizers is not None
        self._last = trainer.config.max_num_iterations
        config = self.config
        strategy = growth(config.strategy, 1.0, config.most, config.grow_slope, config.grow_every)
        places = TrainingCallbackLocation
        return [
            TrainingCallback([places.BEFORE_TRAIN_ITERATION], self._begin),
            TrainingCallback([places.AFTER_TRAIN_ITERATION], self._grow, args=[strategy, optimizers.optimizers]),
            TrainingCallback([places.AFTER_TRAIN], self._save, args=[trainer]),
        ]

    @property
    def share(self) -> float:
        """How much of the training is over."""
        return min(self._step / self._last, 1.0)

    def _begin(self, step: int) -> None:
        self._step = step

    def _grow(self, strategy: Growth, adams: dict[str, Any], step: int) -> None:
        moved = self._info.get("means2d")
        if self.config.grow_from <= self.share < self.config.grow_to and moved is not None and moved.grad is not None:
            strategy.step(self.gauss_params, {name: adams[name] for name in NAMES}, step, self._info)

    def _save(self, trainer: Any, step: int) -> None:
        """Write splats.ply beside the checkpoints, in the run's world and unit."""
        outputs = trainer.pipeline.datamanager.train_dataparser_outputs
        transform, scale = outputs.dataparser_transform.numpy(), float(outputs.dataparser_scale)
        if not np.allclose(transform[:, :3], np.eye(3), atol=1e-6):
            CONSOLE.print("the world was turned (--orientation-method), so splats.ply is not written")
            return
        path = Path(trainer.base_dir) / "splats.ply"
        write_splats(self.splats().moved(-transform[:, 3] * scale).scaled(1 / (scale * LENGTH)), path)
        CONSOLE.print(f"Gaussians in the run's world: {path}")

    def splats(self) -> Splats:
        """The Gaussians as they are now."""
        return Splats(**{name: self.gauss_params[name].detach().cpu().numpy().copy() for name in NAMES})

    def load_state_dict(self, state: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Their number is the checkpoint's."""
        for name in NAMES:
            shape = state[f"gauss_params.{name}"].shape
            self.gauss_params[name] = torch.nn.Parameter(torch.zeros(shape, device=self.device))
        return super().load_state_dict(state, **kwargs)

    def update_to_step(self, step: int) -> None:
        self._step = step

    # -- rendering ------------------------------------------------------------------------------------------------

    def get_outputs(self, camera: Cameras) -> dict[str, Tensor]:  # type: ignore[override]
        """What one camera sees: rgb (H, W, 3), depth, accumulation (H, W, 1)."""
        layers = self._rasterised(camera)
        color, alpha, depth = layers.color[0], layers.alpha[0], layers.depth[0]
        if self.config.light:
            color = color * light_factor(self.law, depth.detach())[..., None]
        gain, offset = self._exposure(camera)
        rgb = torch.exp(gain) * color + offset
        return {
            "rgb": rgb if self.training else rgb.clamp(0, 1), "depth": depth[..., None],
            "accumulation": alpha[..., None], "background": torch.zeros(3, device=self.device),
        }  # fmt: skip

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Any = None) -> dict[str, Tensor]:
        return self.get_outputs(camera.to(self.device))

    def _rasterised(self, camera: Cameras) -> Layers:
        pose = self.camera_optimizer.apply_to_camera(camera) if self.training else camera.camera_to_worlds
        raw, config = self.gauss_params, self.config
        degree = min(config.degree, int(self.share * 4 * (config.degree + 1))) if self.training else config.degree
        is_fisheye = int(camera.camera_type[0].item()) == CameraType.FISHEYE.value
        radial = torch.tensor([self._radial], device=self.device) if is_fisheye and self._radial else None
        w, h = int(camera.width[0].item()), int(camera.height[0].item())
        moved = torch.zeros(1, len(raw["means"]), 2, device=self.device, requires_grad=self.training)
        layers = rasterize(
            raw["means"], raw["quats"], torch.exp(raw["scales"]), torch.sigmoid(raw["opacities"]),
            torch.cat([raw["sh0"], raw["shN"]], 1), view_from_world(pose),
            camera.get_intrinsics_matrices().to(pose), w, h, sh_degree=degree,
            camera_model="fisheye" if is_fisheye else "pinhole", radial_coeffs=radial, means2d=moved,
            backend="gsplat" if raw["means"].is_cuda else "cpu",
        )  # fmt: skip
        if self.training:
            self._info = {
                "width": w, "height": h, "n_cameras": 1, "gaussian_ids": None, "means2d": moved, "radii": layers.radii,
            }  # fmt: skip
        return layers

    def _exposure(self, camera: Cameras) -> tuple[Tensor, Tensor]:
        """Log gain and offset (3,): the frame's own in training, else those between its neighbours in time."""
        number = (camera.metadata or {}).get("cam_idx")
        if self.training and number is not None:
            value = self.exposure[number]
        elif self._times and camera.times is not None:
            time, values = float(camera.times.flatten()[0]), self.exposure.detach().cpu().numpy()
            between = [np.interp(time, self._times, column) for column in values.T]
            value = torch.tensor(between, dtype=torch.float32, device=self.device)
        else:
            value = self.exposure.mean(0)
        return value[:3], value[3:]

    # -- loss and figures -----------------------------------------------------------------------------------------

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: Any = None
    ) -> dict[str, Any]:
        """L1 and D-SSIM of what shows tissue, depth, and what stays open."""
        target, use = self._target(batch)
        weights, number = Weights(), use.sum().clamp(min=1)
        shown = torch.where(use[..., None], outputs["rgb"], target)
        l1 = (shown - target).abs().sum() / (3 * number)
        dssim = (1 - ssim_map(shown, target)).sum() / (3 * number)
        alpha = outputs["accumulation"][..., 0]
        losses = {
            "color": (1 - weights.ssim) * l1 + weights.ssim * dssim,
            "opening": weights.opening * ((1 - alpha) * use).sum() / number,
        }
        if "depth_image" in batch and self.config.depth_weight:
            measured, depth = batch["depth_image"][..., 0].to(self.device), outputs["depth"][..., 0]
            known = use & (measured > 0) & (alpha > SHOWN)
            off = (torch.where(known, depth, 1.0) / torch.where(known, measured, 1.0)).log().abs()
            losses["depth"] = self.config.depth_weight * off.sum() / number
        if self.training:
            self.camera_optimizer.get_loss_dict(losses)
        return losses

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Any]:
        target, use = self._target(batch)
        return {"psnr": psnr(outputs["rgb"], target, use), "gaussian_count": len(self.gauss_params["means"])}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR over what shows tissue and over all, SSIM; the picture beside what is rendered."""
        target, use = self._target(batch)
        shown = outputs["rgb"].clamp(0, 1)
        figures = {
            "psnr": float(psnr(shown, target, use)), "psnr_all": float(psnr(shown, target, torch.ones_like(use))),
            "ssim": float(ssim_map(shown, target).mean()),
        }  # fmt: skip
        return figures, {"img": torch.cat([target, shown], 1)}

    def _target(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The picture (H, W, 3) in [0, 1], and where it shows tissue (H, W)."""
        image = batch["image"].to(self.device)
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        use = torch.ones(image.shape[:2], dtype=torch.bool, device=self.device)
        return image[..., :3], batch["mask"][..., 0].to(self.device) if "mask" in batch else use


def view_from_world(world_from_cam: Tensor) -> Tensor:
    """Camera from world (C, 4, 4), axes right, down, forward, of poses (C, 3, 4) with axes right, up, backwards."""
    pose = world_from_cam[:, :3, :4] @ torch.as_tensor(FLIP, dtype=world_from_cam.dtype, device=world_from_cam.device)
    turn = pose[:, :, :3].transpose(1, 2)
    last = pose.new_tensor([0.0, 0, 0, 1]).expand(len(pose), 1, 4)
    return torch.cat([torch.cat([turn, -turn @ pose[:, :, 3:]], 2), last], 1)


def light_factor(law: Tensor, depth: Tensor) -> Tensor:
    """What each pixel (H, W) is seen with; `Light.factor` with a usual depth of 1."""
    h, w = depth.shape
    log = torch.where(depth > 0, depth, 1.0).clamp(1 / SPAN, SPAN).log()
    y, x = torch.meshgrid(
        torch.arange(h, device=depth.device) + 0.5 - h / 2, torch.arange(w, device=depth.device) + 0.5 - w / 2,
        indexing="ij",
    )  # fmt: skip
    square = (x * x + y * y) * 4 / (w * w + h * h)
    return torch.exp(-law[0] * log + law[1] * square + law[2] * square**2)


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """SSIM (3, H, W) of images (H, W, 3) (Wang et al., IEEE TIP 2004), zeros beyond the border."""
    x, y = image.permute(2, 0, 1), target.permute(2, 0, 1)
    taps = torch.exp(-0.5 * ((torch.arange(11, dtype=x.dtype, device=x.device) - 5) / 1.5) ** 2)
    taps = taps / taps.sum()
    stack = torch.cat([x, y, x * x, y * y, x * y])[None]
    across = torch.nn.functional.conv2d(stack, taps.expand(15, 1, 1, 11), padding=(0, 5), groups=15)
    means = torch.nn.functional.conv2d(across, taps.expand(15, 1, 1, 11).transpose(2, 3), padding=(5, 0), groups=15)[0]
    mx, my, xx, yy, xy = means.reshape(5, 3, *x.shape[1:])
    top = (2 * mx * my + float(C1)) * (2 * (xy - mx * my) + float(C2))
    return top / ((mx * mx + my * my + float(C1)) * (xx - mx * mx + yy - my * my + float(C2)))


def psnr(image: Tensor, target: Tensor, use: Tensor) -> Tensor:
    """Over the pixels of `use`, dB."""
    square = ((image.detach() - target) ** 2).mean(-1)
    return -10 * torch.log10((square * use).sum() / use.sum().clamp(min=1) + 1e-10)
