"""The methods of adaptation, side by side: how each is made, what of it learns when, and what the optimiser must get.

A trainer does the same for all of them:

    model = get_peft_model(network, adapter_config("gdvlora", default_targets(network, "depth")), adapter_name("depth"))
    optimiser = AdamW(parameter_groups(model), lr=1e-4)
    for phase in phases("gdvlora"):
        set_phase(model, phase)
        ...

with the network in eval mode throughout: in training mode its batch norms would learn the new images' statistics, and
the base would not stay what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from video_io.errors import InputError

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn

# What an adapter may be for; one set of tensors a task.
TASKS = ("depth", "pose")


@dataclass(frozen=True)
class Method:
    """One way to adapt a frozen network.

    Attributes:
        about: a line for the person who chooses.
        phases: the phases of its training, in order.
        make: rank, target modules and further options to a configuration of peft.
    """

    about: str
    phases: tuple[str, ...]
    make: Callable[..., PeftConfig]


def _gdvlora(rank: int, targets: Sequence[str], gated: bool, **more: Any) -> PeftConfig:
    from foundation_adapters.gdv_lora import GDVLoraConfig

    return GDVLoraConfig(r=rank, target_modules=list(targets), gated=gated, **more)


def _lora(rank: int, targets: Sequence[str], use_dora: bool, **more: Any) -> PeftConfig:
    from peft import LoraConfig

    # alpha = rank: the update is not scaled, as in the other methods.
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), use_dora=use_dora, **more)


METHODS: dict[str, Method] = {
    "gdvlora": Method(
        "gated and vector-scaled low-rank pair (Endo3DAC)",
        ("pair", "vectors"),
        lambda rank, targets, **more: _gdvlora(rank, targets, True, **more),
    ),
    "dvlora": Method(
        "vector-scaled low-rank pair, without a gate (EndoDAC)",
        ("pair", "vectors"),
        lambda rank, targets, **more: _gdvlora(rank, targets, False, **more),
    ),
    "lora": Method(
        "low-rank pair (Hu et al. 2021)", ("pair",), lambda rank, targets, **more: _lora(rank, targets, False, **more)
    ),
    "dora": Method(
        "low-rank pair for the direction and a magnitude a channel (Liu et al. 2024)",
        ("pair",),
        lambda rank, targets, **more: _lora(rank, targets, True, **more),
    ),
}


def adapter_config(
    method: str, targets: Sequence[str], rank: int = 4, heads: Sequence[str] = (), **more: Any
) -> PeftConfig:
    """The configuration for peft's `get_peft_model` or `add_adapter`.

    Args:
        method: a key of `METHODS`.
        targets: names, or ends of names, of the layers to adapt; `default_targets` lists them.
        rank: rank of the low-rank pair.
        heads: modules that learn as a whole and are saved with the adapter.
        more: options of the method's own configuration, for example init_vectors.

    Raises:
        InputError: an unknown method, a rank below 1, or nothing to adapt.
    """
    if rank < 1:
        raise InputError(f"an adapter of rank {rank}: give a rank of at least 1")
    if not targets:
        raise InputError("an adapter without target modules: name the layers to adapt")
    return _method(method).make(rank, targets, modules_to_save=list(heads) or None, **more)


def phases(method: str) -> tuple[str, ...]:
    """The phases of a method's training, in order.

    Raises:
        InputError: an unknown method.
    """
    return _method(method).phases


def _method(name: str) -> Method:
    if name not in METHODS:
        raise InputError(f"no adapter method '{name}': give one of {', '.join(METHODS)}")
    return METHODS[name]


def method_of(config: PeftConfig) -> str:
    """Which of `METHODS` a configuration is; another method of peft by its own name."""
    kind = str(config.peft_type.value).lower()
    if kind == "gdvlora":
        return "gdvlora" if config.gated else "dvlora"
    if kind == "lora":
        return "dora" if config.use_dora else "lora"
    return kind


def adapter_name(task: str) -> str:
    """The name in peft of a task's set of tensors.

    Not the bare task: peft tells the tensors of adapters apart by a part of their path, and takes what ends like the
    name of a head for that head; networks have modules of the tasks' names.
    """
    return f"{task}_task"


def default_targets(network: nn.Module, task: str | None = None) -> list[str]:
    """The layers to adapt: what is usual for a transformer, else every linear layer and 1 x 1 convolution.

    Args:
        network: a network of this package or of `transformers`, not yet adapted.
        task: only what serves this task, where the network tells (`parts`); None for all.
    """
    from torch import nn

    from foundation_adapters.gdv_lora import TARGETS, is_pointwise

    kind = getattr(getattr(getattr(network, "encoder", network), "config", None), "model_type", None)
    if kind in TARGETS:
        return TARGETS[kind]
    parts = getattr(network, "parts", {}).get(task, ("",))
    return [
        name
        for name, module in network.named_modules()
        if name.startswith(parts) and (isinstance(module, nn.Linear) or is_pointwise(module))
    ]


def adapter_tensors(model: nn.Module, adapter: str | None = None) -> dict[str, nn.Parameter]:
    """Every tensor that learns in some phase, by its full name: all of them belong in the optimiser from the start.

    An optimiser made of what requires a gradient just then would never see the tensors of a later phase. Those that
    are frozen in a phase have no gradient and are left alone by torch's optimisers.

    Args:
        adapter: one adapter's; None for those of all.
    """
    return {name: tensor for name, _, tensor in _tensors(model, adapter)}


def parameter_groups(model: nn.Module, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    """All of `adapter_tensors` for an optimiser: matrices and kernels with weight decay, vectors and gates without.

    Vectors, gates, magnitudes, biases and norms are neutral at another value than 0.
    """
    tensors = list({id(t): t for t in adapter_tensors(model).values()}.values())
    return [
        {"params": [t for t in tensors if t.ndim > 1], "weight_decay": weight_decay},
        {"params": [t for t in tensors if t.ndim <= 1], "weight_decay": 0.0},
    ]


def set_phase(model: nn.Module, phase: str, adapter: str | None = None) -> None:
    """Let learn what a phase lets learn, and the adapter's heads in every phase; all else of the adapter is frozen.

    Gradients of frozen tensors are dropped, so that the optimiser's next step can't move them.

    Args:
        phase: one of the method's `phases`.
        adapter: one adapter's; None for all that are active.

    Raises:
        InputError: a phase that the method does not have.
    """
    from foundation_adapters.gdv_lora import GDVLoraLayer

    for name in [adapter] if adapter else list(model.active_adapters):
        method = method_of(model.peft_config[name])
        if phase not in phases(method):
            raise InputError(f"{method} has no phase '{phase}': its phases are {', '.join(phases(method))}")
        for module in model.modules():
            if isinstance(module, GDVLoraLayer):
                module.set_phase(name, phase)
    for tensor in adapter_tensors(model).values():
        if not tensor.requires_grad:
            tensor.grad = None


@contextmanager
def adapter_rows(model: PeftModel, names: Sequence[str]) -> Iterator[None]:
    """Within it each row of a batch has its own adapter: several tasks in one pass of the frozen weights.

        model.base_model.set_adapter(["depth_task", "pose_task"])
        with adapter_rows(model, ["depth_task"] * n + ["pose_task"] * n):
            levels = model.backbone(torch.cat([image, image]))

    The heads then read their rows outside of it. For the whole network `model(..., adapter_names=names)` does the same.

    Raises:
        ValueError: an adapter that is not there, or a merged model.
    """
    with model.base_model._enable_peft_forward_hooks(adapter_names=list(names)):
        yield


def _tensors(model: nn.Module, adapter: str | None) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(name, adapter, tensor) of everything that an adapter adds to the model."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper
    from torch import nn

    for path, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer | ModulesToSaveWrapper):
            continue
        for attribute in module.adapter_layer_names:
            for name, item in getattr(module, attribute, {}).items():
                if adapter not in (None, name):
                    continue
                if isinstance(item, nn.Parameter):
                    yield f"{path}.{attribute}.{name}", name, item
                else:
                    for inner, tensor in item.named_parameters():
                        yield f"{path}.{attribute}.{name}.{inner}", name, tensor
