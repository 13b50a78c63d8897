"""The shipped default network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foundation_adapters.network import Network

LICENCE = "Apache-2.0"
SIZE_MB = 9
SOURCE = "shipped; trained on the procedural phantom alone by tools/train_default.py"
ABOUT = "EfficientNet-Lite0 and a light decoder: depth, confidence, relative pose, intrinsics"
WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "tiny.safetensors"


def accepts(model: str) -> bool:
    return model == "tiny"


def base(path: Path = WEIGHTS) -> Network:
    """The network with its weights, as it was trained: what an adapter goes around.

    Raises:
        InputError: the file of weights is missing or another network's.
    """
    from foundation_adapters.network import Network, load_weights

    network = Network()
    load_weights(network, path)
    return network.eval().requires_grad_(False)


def build(model: str = "tiny", path: Path = WEIGHTS) -> Network:
    """The network with its weights, ready for inference.

    Raises:
        InputError: the file of weights is missing or another network's.
    """
    from foundation_adapters.network import fused

    return fused(base(path))
