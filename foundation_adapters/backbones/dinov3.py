"""DINOv3 (Siméoni et al. 2025), its vision transformers, as the encoder of adapted heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation_adapters import checkpoints

if TYPE_CHECKING:
    from foundation_adapters.vit import VitNetwork

LICENCE = "DINOv3 License: Meta's own, with conditions on use and on passing it on"
SIZE_MB = None
SOURCE = "--model HUB_ID or FOLDER, for example facebook/dinov3-vits16-pretrain-lvd1689m (the hub asks for consent)"
ABOUT = "DINOv3 ViT as an encoder; its heads come with --adapter: depth, confidence, relative pose, intrinsics"
# It has no depth of its own.
NEEDS_ADAPTER = True

_CLASSES = {"dinov3_vit": "DINOv3ViTBackbone"}
_LICENCES = {f"facebook/dinov3-vit{size}16-pretrain-lvd1689m": LICENCE for size in ("s", "b", "l")}


def accepts(model: str) -> bool:
    return checkpoints.is_checkpoint(model) and checkpoints.kind(model) in _CLASSES


def licence(model: str) -> str:
    return checkpoints.licence_of(model, _LICENCES)


def build(model: str) -> VitNetwork:
    """The encoder with its published weights, and heads that have learnt nothing yet.

    Raises:
        InputError: not found, no network, another architecture, or an incomplete file.
    """
    return checkpoints.encoder(model, _CLASSES, "DINOv3 ViT", "facebook/dinov3-vits16-pretrain-lvd1689m")
