"""PyTorch itself; in bfloat16 where the processor multiplies it natively."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from foundation_adapters.network import Network, Prediction
    from foundation_adapters.runtimes import Runtime

NEEDS = ("torch",)
ABOUT = "PyTorch, bfloat16 where the processor has it"


def build(network: Network, half_precision: bool | None = None) -> Runtime:
    """See `runtimes.build`; `half_precision` says whether in bfloat16, by default where that is fast."""
    import torch

    use = has_fast_bfloat16() if half_precision is None else half_precision

    def run(image: Tensor, rays: Tensor) -> Prediction:
        with torch.autocast("cpu", torch.bfloat16, enabled=use):
            found = network(image, rays)
        return replace(found, description=found.description.float())

    return run


def has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; elsewhere it is slower than float32. It costs no accuracy
    that can be measured (docs/training.md)."""
    import torch

    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked and asked())
