"""Depth Anything V1 and V2 (Yang et al. 2024), any checkpoint in the layout of `transformers`: a hub id or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation_adapters import checkpoints

if TYPE_CHECKING:
    from torch import Tensor, nn

LICENCE = "the checkpoint's own (V2 Small: Apache-2.0; V2 Base and Large: CC-BY-NC-4.0)"
SIZE_MB = None
SOURCE = "--model HUB_ID or FOLDER, for example depth-anything/Depth-Anything-V2-Small-hf"
ABOUT = "Depth Anything gives depth up to scale; relative pose and intrinsics come from tiny"

# The checkpoints whose terms are known; of others only their own model card can tell.
_LICENCES = {
    "depth-anything/depth-anything-v2-small-hf": "Apache-2.0",
    "depth-anything/depth-anything-v2-base-hf": "CC-BY-NC-4.0",
    "depth-anything/depth-anything-v2-large-hf": "CC-BY-NC-4.0",
    "liheyoung/depth-anything-small-hf": "Apache-2.0",
    "liheyoung/depth-anything-base-hf": "Apache-2.0",
    "liheyoung/depth-anything-large-hf": "Apache-2.0",
}
# The checkpoint says nothing of its own errors: a fixed spread, about what is published for endoscopy without training.
_LOG_STD = -1.6
_FARTHEST = 20.0


class DepthAnything:
    """A checkpoint as a function of images and rays, with its own preparation of the image.

    Attributes:
        name, licence, source: what the run folder records.
        model: the `transformers` model; an adapter may wrap it.
    """

    def __init__(self, model: nn.Module, name: str, licence: str, source: str):
        self.model, self.name, self.licence, self.source = model, name, licence, source
        self.patch = int(model.config.patch_size)
        self.metric = model.config.depth_estimation_type == "metric"

    def __call__(self, image: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Log distance along the ray, up to scale, and its log standard deviation, (N, H, W) each.

        The network tells disparity up to scale and shift. The shift is taken to be 0 and depth is at most 20 times
        the median.

        Args:
            image: (N, 3, H, W) in [0, 1].
            rays: (N, 3, H, W) unit rays, NaN where the camera has none.
        """
        import torch
        from torch.nn import functional as F

        h, w = image.shape[-2:]
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        size = (max(h // self.patch, 1) * self.patch, max(w // self.patch, 1) * self.patch)
        pixels = F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)
        found = self.model(pixel_values=((pixels - mean) / std).contiguous()).predicted_depth.float()
        found = F.interpolate(found[:, None], (h, w), mode="bilinear", align_corners=False)[:, 0]
        median = found.flatten(1).median(1).values.clamp_min(1e-6)[:, None, None]
        relative = (found / median).clamp(1 / _FARTHEST, _FARTHEST)
        log_depth = relative.log() if self.metric else -relative.log()
        log_distance = log_depth - torch.nan_to_num(rays[:, 2], nan=1.0).clamp_min(0.05).log()
        return log_distance, torch.full_like(log_distance, _LOG_STD)


def accepts(model: str) -> bool:
    """Hub ids (owner/name) and folders, but for those of another family."""
    return checkpoints.is_checkpoint(model) and checkpoints.kind(model) not in checkpoints.OTHERS


def licence(model: str) -> str:
    return checkpoints.licence_of(model, _LICENCES)


def build(model: str) -> DepthAnything:
    """Load a checkpoint from a local folder or, if there is no such folder, from the Hugging Face hub or its cache.

    Only safetensors are read, and only if every tensor of the network is there.

    Raises:
        InputError: not found, no network, another architecture, or an incomplete file.
    """
    network = checkpoints.load(
        model,
        {"depth_anything": "DepthAnythingForDepthEstimation"},
        "Depth Anything V1 or V2, the '-hf' checkpoints",
        "depth-anything/Depth-Anything-V2-Small-hf",
    )
    return DepthAnything(network, model, licence(model), checkpoints.source_of(model))
