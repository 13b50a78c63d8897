"""Images in; depth, pose and intrinsics out: foundation networks and their adapters.

For users of `peft`, `from foundation_adapters import GDVLoraConfig` makes GDV-LoRA one of its methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foundation_adapters.gdv_lora import GDVLoraConfig, GDVLoraModel

__all__ = ["GDVLoraConfig", "GDVLoraModel"]


def __getattr__(name: str) -> Any:
    # peft takes seconds to import: only whoever asks for an adapter pays for it.
    if name in __all__:
        from foundation_adapters import gdv_lora

        return getattr(gdv_lora, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
