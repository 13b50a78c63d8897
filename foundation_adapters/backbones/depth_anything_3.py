"""Depth Anything 3 (Lin et al. 2025), its any-view series: depth, pose and intrinsics of a window of frames at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation_adapters import checkpoints

if TYPE_CHECKING:
    from foundation_adapters.multi_view import ViewNetwork

LICENCE = "the checkpoint's own (Small and Base: Apache-2.0; Large and Giant: CC-BY-NC-4.0)"
SIZE_MB = None
SOURCE = "--model HUB_ID or FOLDER, for example depth-anything/DA3-SMALL"
ABOUT = "Depth Anything 3 gives depth, pose and intrinsics of eight frames at once"
# It sees a window of frames, and needs no other network beside it.
MULTI_VIEW = True

_LICENCES = {
    "depth-anything/da3-small": "Apache-2.0",
    "depth-anything/da3-base": "Apache-2.0",
    "depth-anything/da3-large": "CC-BY-NC-4.0",
    "depth-anything/da3-large-1.1": "CC-BY-NC-4.0",
    "depth-anything/da3-giant": "CC-BY-NC-4.0",
    "depth-anything/da3-giant-1.1": "CC-BY-NC-4.0",
}
# What is not asked for: rays, Gaussians, and the encoder of given cameras.
_UNUSED = (
    "cam_enc.", "gs_head.", "gs_adapter.", "head.scratch.output_conv1_aux.", "head.scratch.output_conv2_aux.",
    *(f"head.scratch.refinenet{n}_aux." for n in (1, 2, 3, 4)),
)  # fmt: skip


def accepts(model: str) -> bool:
    return checkpoints.is_checkpoint(model) and checkpoints.kind(model) == "depth_anything_3"


def licence(model: str) -> str:
    return checkpoints.licence_of(model, _LICENCES)


def build(model: str) -> ViewNetwork:
    """Load a checkpoint from a local folder or the Hugging Face hub: safetensors only, all tensors or none.

    Raises:
        InputError: not found, another network (the metric, monocular and nested ones among them), or an incomplete
            file.
    """
    from foundation_adapters.depth_anything_3 import DepthAnything3, Sizes

    found = checkpoints.Published.of(model, "Depth Anything 3", "depth-anything/DA3-SMALL", "model.")
    sizes = Sizes.of(found)
    return found.filled(lambda: DepthAnything3(sizes), _UNUSED)
