"""Depth Anything V1 and V2 (Yang et al. 2024), any checkpoint in the layout of `transformers`: a hub id or a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from video_io.errors import InputError

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
    """Hub ids (owner/name) and folders."""
    return "/" in model or Path(model).expanduser().is_dir()


def build(model: str) -> DepthAnything:
    """Load a checkpoint from a local folder or, if there is no such folder, from the Hugging Face hub or its cache.

    Only safetensors are read, and only if every tensor of the network is there.

    Raises:
        InputError: not found, no network, another architecture, or an incomplete file.
    """
    where, folder = model, Path(model).expanduser()
    if folder.is_dir():
        _check_folder(folder)
    elif where.count("/") != 1 or where.startswith((".", "/", "~")):
        raise InputError(
            f"no folder {where}: give a folder with config.json and model.safetensors, or a hub id such as "
            "depth-anything/Depth-Anything-V2-Small-hf"
        )
    network, told = _load(str(folder) if folder.is_dir() else where, folder.is_dir())
    if told["missing_keys"] or told["mismatched_keys"]:
        first = sorted(str(k) for k in (*told["missing_keys"], *told["mismatched_keys"]))[0]
        raise InputError(
            f"the checkpoint {where} lacks parts of the network (first: {first}): download it again in full"
        )
    network.eval().requires_grad_(False)
    licence = _LICENCES.get(where.lower(), "not known to this program: see the checkpoint's model card")
    return DepthAnything(network, where, licence, "folder" if folder.is_dir() else "Hugging Face hub")


def _check_folder(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file() or not list(folder.glob("*.safetensors")):
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise InputError(
            f"{folder} holds {held}: expected config.json and model.safetensors of a Depth Anything checkpoint"
        )
    try:
        kind = json.loads(config.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise InputError(f"{config} is not JSON ({error}): download the checkpoint again") from error
    if kind != "depth_anything":
        raise InputError(
            f"{folder} holds a model of type '{kind}': expected 'depth_anything' (V1 or V2, the '-hf' checkpoints)"
        )


def _load(where: str, local: bool) -> tuple[nn.Module, dict]:
    from safetensors import SafetensorError

    try:
        from transformers import DepthAnythingForDepthEstimation
    except ImportError as error:
        raise InputError("Depth Anything needs 'transformers': pip install transformers") from error
    try:
        return DepthAnythingForDepthEstimation.from_pretrained(
            where, use_safetensors=True, local_files_only=local, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local:
            raise InputError(
                f"the checkpoint in {where} can't be read ({reason}): download it again in full"
            ) from error
        raise InputError(
            f"no folder '{where}', no copy in the Hugging Face cache, and the hub did not give it ({reason}): "
            f"on a machine with network run 'hf download {where} --local-dir FOLDER', bring FOLDER here and give it as "
            "--model; or use --model tiny, which is shipped"
        ) from error
