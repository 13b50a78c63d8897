"""DINOv2 (Oquab et al. 2023), with and without registers (Darcet et al. 2023), as the encoder of adapted heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation_adapters import checkpoints

if TYPE_CHECKING:
    from foundation_adapters.vit import VitNetwork

LICENCE = "Apache-2.0"
SIZE_MB = None
SOURCE = "--model HUB_ID or FOLDER, for example facebook/dinov2-small or facebook/dinov2-with-registers-small"
ABOUT = "DINOv2 ViT as an encoder; its heads come with --adapter: depth, confidence, relative pose, intrinsics"
# It has no depth of its own.
NEEDS_ADAPTER = True

_CLASSES = {"dinov2": "Dinov2Backbone", "dinov2_with_registers": "Dinov2WithRegistersBackbone"}
_LICENCES = {
    f"facebook/dinov2-{registers}{size}": "Apache-2.0"
    for registers in ("", "with-registers-")
    for size in ("small", "base", "large")
}


def accepts(model: str) -> bool:
    return checkpoints.is_checkpoint(model) and checkpoints.kind(model) in _CLASSES


def licence(model: str) -> str:
    return checkpoints.licence_of(model, _LICENCES)


def build(model: str) -> VitNetwork:
    """The encoder with its published weights, and heads that have learnt nothing yet.

    Raises:
        InputError: not found, no network, another architecture, or an incomplete file.
    """
    return checkpoints.encoder(model, _CLASSES, "DINOv2", "facebook/dinov2-small")
