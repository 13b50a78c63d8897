"""A second, short stage of training: the pose and intrinsics heads alone, on the frozen backbone and distance head.

Nothing flows back into the backbone, so a step costs a fifth of a full one and the depth stays exactly what it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foundation_adapters import losses
from foundation_adapters.augment import augment
from foundation_adapters.network import Network, Prediction, load_weights, save_weights
from foundation_adapters.shards import Batch, Prefetch, open_folder, random_batch
from foundation_adapters.train import Average, Config, append_row, evaluate, learning_rate, pose_part


@dataclass(frozen=True)
class HeadsConfig:
    """What the stage does; see `Config` for what is not told here.

    Images have about the size that the estimator works on, and most of them are whole: unlike depth, the focal length
    can be told only from images with the look of those that it will be asked of.

    Attributes:
        zoom_share: share of the steps whose images are cut out of the middle of larger ones.
    """

    minutes: float = 6.0
    pairs: int = 6
    sizes: tuple[tuple[int, int], ...] = ((320, 256), (320, 256), (288, 224))
    zoom_share: float = 0.25
    learning_rate: float = 2e-3
    average: float = 0.99
    seed: int = 100
    threads: int = 2
    log_every: int = 20


def train_heads(
    weights: Path,
    folder: Path,
    validation: Path,
    out: Path,
    config: HeadsConfig,
    say: Callable[[str], None] = print,
) -> Path:
    """Train the two heads of the network in `weights` on the shards of `folder`; writes `out`/tiny.safetensors.

    Raises:
        InputError: weights of another network.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    network = Network()
    notes = load_weights(network, weights)
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    heads = nn.ModuleList([network.pose, network.intrinsics]).train().requires_grad_(True)
    average = Average(network, config.average)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=config.learning_rate, weight_decay=0.02)
    scenes, held_out = open_folder(folder), open_folder(validation)[:60]
    rng, generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    schedule = Config(learning_rate=config.learning_rate, warmup=0.02)

    def make() -> Batch:
        size = config.sizes[rng.integers(len(config.sizes))]
        return random_batch(rng, scenes, size, 2 * config.pairs, config.pairs, zoom=rng.random() < config.zoom_share)

    prefetch = Prefetch(make)
    start, total_s, step, sums = time.monotonic(), config.minutes * 60, 0, {}
    while (elapsed := time.monotonic() - start) < total_s:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(elapsed / total_s, schedule)
        batch = prefetch.next()
        parts = _learn(network, heads, optimiser, batch, *augment(batch.rgb, batch.pairs, generator))
        average.update(network)
        step += 1
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.item() / config.log_every
        if step % config.log_every == 0:
            append_row(out / "heads.csv", {"step": step, "seconds": round(elapsed), **sums})
            say(f"heads step {step} seconds {elapsed:.0f} " + " ".join(f"{k} {v:.4g}" for k, v in sums.items()))
            sums = {}
    prefetch.stop()
    save_weights(average.network, out / "tiny.safetensors", notes | {"heads_steps": str(step)})
    if held_out:
        figures = evaluate(average.network, held_out)
        say("validation " + " ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    return out / "tiny.safetensors"


def _learn(
    network: Network, heads: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, rgb: Tensor, weight: Tensor
) -> dict[str, Tensor]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        levels = network.backbone(rgb.contiguous(memory_format=torch.channels_last))
        log_distance, log_std = network.full_distance(levels, batch.rays)
    with torch.autocast("cpu", torch.bfloat16):
        focal, description = network.intrinsics(levels), network.pose.describe(levels)
    found = Prediction(log_distance, log_std, focal, description)
    parts = {
        "pose": pose_part(network, batch, found, weight * (batch.distance > 0)),
        "focal": losses.focal_loss(focal, batch.focal),
    }
    optimiser.zero_grad(set_to_none=True)
    (10 * parts["pose"] + parts["focal"]).backward()
    nn.utils.clip_grad_norm_(heads.parameters(), 2.0)
    optimiser.step()
    return parts
