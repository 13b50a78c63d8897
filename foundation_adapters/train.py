"""Supervised training of the network on rendered scenes, within a given time.

The learning rate and the image size follow the share of the time that has passed, so that training ends on time and
with its full decay on a machine that others use as well.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_adapters import losses
from foundation_adapters.augment import augment
from foundation_adapters.network import Network, load_weights, save_weights
from foundation_adapters.shards import Batch, Prefetch, Scene, full_cut, make_batch, open_folder, random_batch
from video_io.errors import InputError

_MAX_GRADIENT = 2.0


@dataclass(frozen=True)
class Config:
    """What a training run does.

    Attributes:
        minutes: wall-clock time of the run.
        batch, pairs: images a step, and how many pairs are among them.
        early_share, early_sizes, early_batch, early_pairs: share of the time, at its beginning, with small images, of
            which four are learnt from in the time of one large one.
        sizes: (width, height) of the training images after that, one drawn a step.
        final_share: share of the time, at its end, with whole images of `final_size` and `final_batch`.
        learning_rate, backbone_factor, weight_decay: of AdamW; the backbone learns at `backbone_factor` times the rate.
        warmup: share of the time in which the rate rises.
        average: decay of the moving average of the weights, which is what is shipped.
    """

    minutes: float = 65.0
    batch: int = 24
    pairs: int = 6
    early_share: float = 0.65
    early_sizes: tuple[tuple[int, int], ...] = ((160, 128), (192, 128), (160, 160), (192, 160))
    early_batch: int = 32
    early_pairs: int = 8
    sizes: tuple[tuple[int, int], ...] = ((256, 192), (224, 192), (256, 224), (224, 160))
    final_share: float = 0.15
    final_size: tuple[int, int] = (320, 256)
    final_batch: int = 14
    final_pairs: int = 3
    learning_rate: float = 1.5e-3
    backbone_factor: float = 0.5
    weight_decay: float = 0.02
    warmup: float = 0.03
    average: float = 0.995
    seed: int = 0
    threads: int = 2
    log_every: int = 20
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 10.0


def rotation_vector(rotation: Tensor) -> Tensor:
    """Axis-angle (B, 3) of rotation matrices (B, 3, 3) below a half turn."""
    skew = torch.stack(
        [
            rotation[:, 2, 1] - rotation[:, 1, 2],
            rotation[:, 0, 2] - rotation[:, 2, 0],
            rotation[:, 1, 0] - rotation[:, 0, 1],
        ],
        1,
    )
    sine = skew.norm(dim=1, keepdim=True) / 2
    cosine = (rotation.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) - 1) / 2
    return skew / 2 * torch.where(sine > 1e-6, torch.atan2(sine, cosine) / sine.clamp_min(1e-9), torch.ones_like(sine))


def total_loss(network: nn.Module, batch: Batch, rgb: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Every loss of a batch by name, `total` being what is minimised.

    Args:
        rgb: (B, 3, H, W), the augmented images.
        weight: (B, H, W), of each pixel, before those without truth are taken out.
    """
    with torch.autocast("cpu", torch.bfloat16):
        found = network(rgb, batch.rays)
    truth = batch.distance.clamp_min(1e-3).log()
    weight = weight * (batch.distance > 0)
    residual, scale = losses.aligned_residual(found.log_distance, truth, weight)
    parts = {
        "distance": losses.distance_loss(residual, weight),
        "gradient": losses.gradient_loss(residual, weight),
        "spread": losses.spread_loss(residual, found.log_std, weight),
        "focal": losses.focal_loss(found.focal, batch.focal),
        "consistency": losses.scale_consistency_loss(found.log_distance, truth, weight, batch.pairs),
        "level": F.smooth_l1_loss(
            ((found.log_distance - truth) * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1),
            torch.zeros_like(scale),
        ),
        "pose": pose_part(network, batch, found, weight) if batch.pairs else residual.new_zeros(()),
    }
    factors = {
        "distance": 1.0,
        "gradient": 0.5,
        "spread": 0.1,
        "focal": 0.1,
        "consistency": 0.5,
        "level": 0.02,
        "pose": 2.0,
    }
    parts["total"] = sum((factors[name] * value for name, value in parts.items()), residual.new_zeros(()))
    return parts


def pose_part(network: nn.Module, batch: Batch, found, weight: Tensor) -> Tensor:
    n = 2 * batch.pairs
    distance = batch.distance[1:n:2, ::2, ::2]
    present = torch.where(distance > 0, distance, torch.nan)
    median = torch.nan_to_num(present.flatten(1).nanmedian(1).values, nan=1.0)
    true_pose = torch.cat([rotation_vector(batch.pose[:, :3, :3]), batch.pose[:, :3, 3] / median[:, None]], 1)
    rays = batch.rays[1:n:2]
    with torch.autocast("cpu", torch.bfloat16):
        pose = network.relative_pose(
            found.description[1:n:2], found.description[0:n:2], rays, found.log_distance[1:n:2]
        )
    relative = distance / median[:, None, None]
    seen = weight[1:n:2, ::2, ::2] * (distance > 0) * torch.isfinite(rays).all(1)
    return losses.pose_loss(pose, true_pose, torch.nan_to_num(rays), relative, seen)


def evaluate(network: nn.Module, scenes: tuple[Scene, ...], frames: int = 4, batch: int = 8) -> dict[str, float]:
    """Figures on whole images of unseen scenes: AbsRel, delta 1 (one scale an image), intrinsics, pose, calibration."""
    network = copy.deepcopy(network).eval()
    rows: list[dict[str, float]] = []
    for scene in scenes:
        pairs = [list(map(int, p)) for p in scene.pairs[:: max(1, len(scene.pairs) // (frames // 2))]][: frames // 2]
        chosen = pairs or [[int(i)] for i in np.linspace(0, len(scene.rgb) - 1, frames)]
        width, height = scene.camera.width, scene.camera.height
        data = make_batch([(scene, p, full_cut(scene.camera)) for p in chosen], (width, height))
        with torch.inference_mode():
            rows.append(_figures(network, data))
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def _figures(network: nn.Module, data: Batch) -> dict[str, float]:
    found = network(data.rgb.contiguous(memory_format=torch.channels_last), data.rays)
    valid = (data.distance > 0).float()
    residual, _ = losses.aligned_residual(found.log_distance, data.distance.clamp_min(1e-3).log(), valid)
    ratio = residual.exp()
    count = valid.sum()
    figures = {
        "absrel": float(((ratio - 1).abs() * valid).sum() / count),
        "delta1": float(((residual.abs() < math.log(1.25)) * valid).sum() / count),
        "z": float(((math.sqrt(2) * residual.abs() / found.log_std.exp()) * valid).sum() / count),
        "focal": float((found.focal.log() - data.focal.log()).abs().mean()),
        "pose": math.nan,
        "still": math.nan,
    }
    if data.pairs:
        figures["pose"] = float(pose_part(network, data, found, valid))
        figures["still"] = float(pose_part(_Still(), data, found, valid))
    return figures


class _Still(nn.Module):
    """Says that nothing moved: what the pose figure is held against."""

    def relative_pose(self, current: Tensor, *_: Tensor) -> Tensor:
        return torch.zeros(len(current), 6)


class Average:
    """Moving average of weights and of batch norm statistics."""

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        rate = 1 - min(self.decay, self.steps / (self.steps + 10))
        own = [v for v in self.network.state_dict().values() if v.is_floating_point()]
        new = [v for v in network.state_dict().values() if v.is_floating_point()]
        torch._foreach_lerp_(own, new, rate)


def learning_rate(progress: float, config: Config) -> float:
    """Linear rise over `warmup`, then a half cosine to one hundredth."""
    if progress < config.warmup:
        return config.learning_rate * (0.02 + 0.98 * progress / config.warmup)
    fall = (min(progress, 1.0) - config.warmup) / (1 - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * fall)) / 2)


class _Feed:
    """Batches for the current phase, from the scenes that there are; new scenes are picked up."""

    def __init__(self, folder: Path, config: Config, step: int):
        self.folder, self.config = folder, config
        self.rng = np.random.default_rng([config.seed, step])
        self.scenes = open_folder(folder)
        if not self.scenes:
            raise InputError(f"no training scenes in {folder}: make them with tools/make_training_data.py")
        self.progress = 0.0
        self.made = 0

    def __call__(self) -> Batch:
        self.made += 1
        if self.made % 25 == 0:
            self.scenes = open_folder(self.folder, self.scenes)
        c = self.config
        if self.progress > 1 - c.final_share:
            return random_batch(self.rng, self.scenes, c.final_size, c.final_batch, c.final_pairs, zoom=False)
        if self.progress < c.early_share:
            size = c.early_sizes[self.rng.integers(len(c.early_sizes))]
            return random_batch(self.rng, self.scenes, size, c.early_batch, c.early_pairs, zoom=True)
        size = c.sizes[self.rng.integers(len(c.sizes))]
        return random_batch(self.rng, self.scenes, size, c.batch, c.pairs, zoom=True)


def train(
    folder: Path,
    validation: Path,
    out: Path,
    config: Config,
    build: Callable[[], nn.Module] | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Train on the shards in `folder`; writes `out`/tiny.safetensors (the moving average), log.csv and validation.csv.

    Args:
        build: makes the network; by default the shipped one with ImageNet weights.
        resume: go on from `out`/checkpoint.pt, its elapsed time included.
        start_from: weights of `save_weights` to begin with, under a fresh schedule and optimiser.

    Raises:
        InputError: no scenes, nothing to resume, weights of another network.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    network = (build or _default_network)()
    if start_from:
        load_weights(network, start_from)
    run = _Run(out, config, network, resume)
    feed = _Feed(folder, config, run.step)
    prefetch = Prefetch(feed)
    held_out = open_folder(validation)[:60]
    start, total_s = time.monotonic() - run.seconds, config.minutes * 60
    saved_s = validated_s = run.seconds
    while (elapsed := time.monotonic() - start) < total_s:
        feed.progress = elapsed / total_s
        row = run.learn(prefetch.next(), elapsed)
        if row:
            append_row(out / "log.csv", row)
            say(" ".join(f"{k} {v:.4g}" for k, v in row.items()) + f" scenes {len(feed.scenes)}")
        if elapsed - saved_s > config.checkpoint_minutes * 60:
            saved_s = elapsed
            run.save()
        if held_out and elapsed - validated_s > config.validate_minutes * 60:
            validated_s = elapsed
            _validate(out, run.average.network, held_out, run.step, elapsed, say)
    prefetch.stop()
    run.save()
    if held_out:
        _validate(out, run.average.network, held_out, run.step, total_s, say)
    return out / "tiny.safetensors"


class _Run:
    """The state of a training run: network, moving average, optimiser, and how far it is."""

    def __init__(self, out: Path, config: Config, network: nn.Module, resume: bool):
        self.out, self.config = out, config
        self.network = network.to(memory_format=torch.channels_last).train()
        self.average = Average(self.network, config.average)
        self.optimiser = torch.optim.AdamW(_groups(network, config), lr=config.learning_rate, betas=(0.9, 0.99))
        self.step, self.images, self.seconds = 0, 0, 0.0
        if resume:
            self._resume(out / "checkpoint.pt")
        self.generator = torch.Generator().manual_seed(config.seed + 1 + self.step)
        self._sums: dict[str, float] = {}

    def learn(self, batch: Batch, elapsed: float) -> dict[str, float]:
        """One step; every `log_every` steps returns the row for the log, otherwise an empty one."""
        rate = learning_rate(elapsed / (self.config.minutes * 60), self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        rgb, weight = augment(batch.rgb, batch.pairs, self.generator)
        parts = total_loss(self.network, batch, rgb.contiguous(memory_format=torch.channels_last), weight)
        self.optimiser.zero_grad(set_to_none=True)
        parts["total"].backward()
        parts["norm"] = nn.utils.clip_grad_norm_(self.network.parameters(), _MAX_GRADIENT)
        if torch.isfinite(parts["norm"]):
            self.optimiser.step()
            self.average.update(self.network)
        self.step, self.images, self.seconds = self.step + 1, self.images + len(rgb), elapsed
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.item() / self.config.log_every
        if self.step % self.config.log_every:
            return {}
        row = {"step": self.step, "images": self.images, "seconds": round(elapsed), "lr": rate, **self._sums}
        self._sums = {}
        return row

    def save(self) -> None:
        """Write the checkpoint to resume from and the averaged weights, each whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
            "progress": (self.step, self.images, self.seconds),
        }
        torch.save(state, self.out / "checkpoint.part")
        (self.out / "checkpoint.part").replace(self.out / "checkpoint.pt")
        notes = {
            "licence": "Apache-2.0",
            "data": "procedural phantom",
            "steps": str(self.step),
            "images": str(self.images),
        }
        save_weights(self.average.network, self.out / "tiny.part", notes)
        (self.out / "tiny.part").replace(self.out / "tiny.safetensors")

    def _resume(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"nothing to resume: {path} does not exist; start without --resume")
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.images, self.seconds = state["progress"]


def _default_network() -> Network:
    network = Network()
    network.backbone.load_imagenet()
    return network


def _groups(network: nn.Module, config: Config) -> list[dict]:
    """Parameter groups: the backbone learns more slowly; biases and norms don't decay. Each tensor is in one group."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, value in network.named_parameters():
        groups.setdefault((name.startswith("backbone."), value.ndim > 1), []).append(value)
    return [
        {
            "params": values,
            "factor": config.backbone_factor if in_backbone else 1.0,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), values in groups.items()
    ]


def append_row(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


def _validate(
    out: Path, network: nn.Module, scenes: tuple[Scene, ...], step: int, seconds: float, say: Callable[[str], None]
) -> None:
    figures = evaluate(network, scenes)
    append_row(out / "validation.csv", {"step": step, "seconds": round(seconds), **figures})
    say("validation " + " ".join(f"{k} {v:.4f}" for k, v in figures.items()))


def describe(config: Config) -> str:
    """The configuration on one line, for the log."""
    return " ".join(f"{k}={v}" for k, v in asdict(config).items())
