"""VGGT (Wang et al., CVPR 2025): depth, pose and intrinsics of a window of frames at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation_adapters import checkpoints

if TYPE_CHECKING:
    from foundation_adapters.multi_view import ViewNetwork

LICENCE = "the checkpoint's own (VGGT-1B: CC-BY-NC-4.0; VGGT-1B-Commercial: Meta's own)"
SIZE_MB = 5000
SOURCE = "--model HUB_ID or FOLDER, for example facebook/VGGT-1B"
ABOUT = "VGGT gives depth, pose and intrinsics of eight frames at once; 1.2 billion parameters: for a GPU"
# It sees a window of frames, and needs no other network beside it.
MULTI_VIEW = True

_LICENCES = {
    "facebook/vggt-1b": "CC-BY-NC-4.0",
    "facebook/vggt-1b-commercial": "VGGT licence: Meta's own, with conditions on use and on passing it on",
}
# Heads for points and tracks, which are not asked for, and DINOv2's token for masked training.
_UNUSED = ("point_head.", "track_head.", "aggregator.patch_embed.mask_token")


def accepts(model: str) -> bool:
    return checkpoints.is_checkpoint(model) and checkpoints.kind(model) == "vggt"


def licence(model: str) -> str:
    return checkpoints.licence_of(model, _LICENCES)


def build(model: str) -> ViewNetwork:
    """Load a checkpoint from a local folder or the Hugging Face hub: safetensors only, all tensors or none.

    Raises:
        InputError: not found, another network, or an incomplete file.
    """
    from foundation_adapters.vggt import Sizes, Vggt

    found = checkpoints.Published.of(model, "VGGT", "facebook/VGGT-1B")
    sizes = Sizes.of(found)
    return found.filled(lambda: Vggt(sizes), _UNUSED)
