"""Train the default network and a small Depth Anything (ViT, DPT neck) side by side.

Usage: python tools/compare_backbones.py DATA VALIDATION OUT NAME MINUTES

NAME is lite0, lite0-scratch or vit. Run them at the same time with one thread each, so that both get the same machine;
the figures are in OUT/validation.csv.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_adapters.heads import RAY_CHANNELS, ray_pyramid
from foundation_adapters.network import Network, Prediction
from foundation_adapters.train import Config, train


class SmallDepthAnything(nn.Module):
    """DINOv2-style ViT and DPT neck of Depth Anything, scaled to the time of the default network; random weights."""

    def __init__(self, hidden: int = 192, layers: int = 6) -> None:
        super().__init__()
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

        stages = [f"stage{i}" for i in (layers // 4 + 1, layers // 2, 3 * layers // 4, layers)]
        vit = Dinov2Config(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=3,
            patch_size=16,
            image_size=256,
            out_features=stages,
            reshape_hidden_states=False,
        )
        config = DepthAnythingConfig(
            backbone_config=vit,
            patch_size=16,
            reassemble_hidden_size=hidden,
            neck_hidden_sizes=[24, 48, 96, 192],
            fusion_hidden_size=48,
            head_hidden_size=32,
        )
        whole = DepthAnythingForDepthEstimation(config)
        self.backbone, self.neck = whole.backbone, whole.neck
        self.out = nn.Sequential(
            nn.Conv2d(48 + RAY_CHANNELS, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 2, 3, padding=1)
        )
        self.focal = nn.Linear(hidden, 2)
        with torch.no_grad():
            self.out[2].bias.copy_(torch.tensor([3.7, -1.2]))

    def forward(self, image: Tensor, rays: Tensor) -> Prediction:
        h, w = image.shape[-2:]
        maps = self.backbone((image - 0.45) / 0.23).feature_maps
        fused = self.neck(maps, h // 16, w // 16)[-1]
        fused = F.interpolate(fused, (h // 2, w // 2), mode="bilinear")
        out = self.out(torch.cat([fused, ray_pyramid(rays, 1)[0].to(fused.dtype)], 1)).float()
        out = F.interpolate(out, (h, w), mode="bilinear")
        focal = F.softplus(self.focal(maps[-1].mean(1)).float()) + 0.15
        return Prediction(out[:, 0], out[:, 1].clamp(-5, 1), focal, image.new_zeros(len(image), 1, 1, 1))

    def relative_pose(self, current: Tensor, *_: Tensor) -> Tensor:
        return torch.zeros(len(current), 6)


def _lite0() -> Network:
    network = Network()
    network.backbone.load_imagenet()
    return network


BUILD = {"lite0": _lite0, "lite0-scratch": Network, "vit": SmallDepthAnything}

if __name__ == "__main__":
    if len(sys.argv) != 6 or sys.argv[4] not in BUILD:
        print(__doc__, file=sys.stderr)
        raise SystemExit(2)
    data, validation, out = (Path(a) for a in sys.argv[1:4])
    config = Config(
        minutes=float(sys.argv[5]),
        early_share=0.85,
        early_pairs=0,
        final_size=(256, 192),
        final_batch=16,
        pairs=0,
        final_pairs=0,
        threads=1,
        validate_minutes=1e9,
        checkpoint_minutes=1e9,
    )
    train(data, validation, out, config, build=BUILD[sys.argv[4]], say=lambda s: print(s, flush=True))
