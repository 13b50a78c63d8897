"""GDV-LoRA, gated and vector-scaled low-rank adaptation, as a method of `peft`.

A frozen linear layer or 1 x 1 convolution W of an endoscopy network gets

    y = W x + g (Lv B) (Lu A) x

where A (r x in, Kaiming) and B (out x r, zero) are a LoRA pair (Hu et al. 2021), Lu and Lv are diagonal: a vector u on
the rank side and v on the output side (DV-LoRA; Cui et al., EndoDAC, 2024), and g is the layer's learned gate (Cui et
al., Endo3DAC, 2025, which does not publish the gate's equation: here it is one number a layer, so that the update can
be merged into W).

**Two phases.** First the pair learns, then the vectors and the gate (`PHASES`). In the first phase the gate stays at 1:
g and B have one scale between them, and a gate that came near 0 would stop the gradient of a pair that has not learnt
anything yet. In the second phase A and B are frozen directions and the gate is the one number that tells how much of a
layer's update is used, a step that v could only make with all its entries at once. Its neutral value is 1, as is that
of u and v (unless they start as published, Kaiming): let no weight decay pull them to 0.

**One set a task over one frozen base.** The sets are adapters with names of their own:

    model = get_peft_model(network, GDVLoraConfig(target_modules=[...]), "depth_task")
    model.add_adapter("pose_task", GDVLoraConfig(target_modules=[...]))
    model.set_adapter("pose_task")                                       # one task a pass, or
    model(torch.cat([image, image]), adapter_names=["depth_task"] * n + ["pose_task"] * n)   # both in one

The activations of the tasks part at the first adapted layer, so no arithmetic behind it can be shared; what is shared
is every frozen weight, in memory and, with a name a row of the batch, in one pass that applies each W once to all rows.

Importing this module makes the method known to `peft`: PeftModel.from_pretrained, save_pretrained, merge_adapter,
merge_and_unload, disable_adapter, add_adapter and set_adapter work as for its own methods.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import register_peft_method
from peft.utils.other import AuxiliaryTrainingWrapper, get_pattern_key
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "gdvlora"
# The tensors of an adapter that learn in each phase of the training; "all" is peft's habit, without a schedule.
PHASES: dict[str, tuple[str, ...]] = {
    "pair": ("gdvlora_A", "gdvlora_B"),
    "vectors": ("gdvlora_u", "gdvlora_v", "gdvlora_gate"),
    "all": ("gdvlora_A", "gdvlora_B", "gdvlora_u", "gdvlora_v", "gdvlora_gate"),
}
# As in EndoDAC: both layers of the perceptron of each transformer block, nothing of the attention.
TARGETS = {
    "depth_anything": ["fc1", "fc2"],
    "dinov2": ["fc1", "fc2"],
    "dinov2_with_registers": ["fc1", "fc2"],
    "dinov3_vit": ["up_proj", "down_proj"],
}
BASE = "__base__"


def _add_peft_type(name: str) -> None:
    """Give peft's closed enumeration of methods one more member; it has no way of its own to be extended."""
    if name in PeftType._value2member_map_:
        return
    member = str.__new__(PeftType, name)
    member._name_, member._value_ = name, name
    type.__setattr__(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member


_add_peft_type(NAME.upper())


@dataclass
class GDVLoraConfig(PeftConfig):
    """What an adapter is; the names are those of peft's own configurations.

    Attributes:
        r: rank of the pair.
        target_modules: names (or ends of names) of the linear layers and 1 x 1 convolutions to adapt, or a regular
            expression; without it the perceptrons of the transformers that are known (`TARGETS`).
        exclude_modules: the same, for what not to adapt.
        gated: whether there is a gate; DV-LoRA has none.
        init_vectors: "ones", so that the first phase is plain LoRA; or "kaiming", uniform in [-1, 1], as EndoDAC's.
        rank_pattern: name (or regular expression) of a layer to its own rank.
        layers_to_transform, layers_pattern: adapt only these of a list of layers; see peft.LoraConfig.
        modules_to_save: modules that learn as a whole and are saved with the adapter, for example heads.

    Raises:
        ValueError: a rank below 1 or an unknown start of the vectors.
    """

    r: int = field(default=4, metadata={"help": "Rank."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers not to adapt."})
    gated: bool = field(default=True, metadata={"help": "Learn a gate a layer; without it this is DV-LoRA."})
    init_vectors: Literal["ones", "kaiming"] = field(default="ones", metadata={"help": "Start of the vectors."})
    rank_pattern: dict[str, int] = field(default_factory=dict, metadata={"help": "Ranks of single layers."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Indices of layers."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the list of layers."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules that learn as a whole."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType(NAME.upper())
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if self.r < 1:
            raise ValueError(f"r is a rank, at least 1; found {self.r}")
        if self.init_vectors not in ("ones", "kaiming"):
            raise ValueError(f"init_vectors is 'ones' or 'kaiming', found '{self.init_vectors}'")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("layers_to_transform needs a list of target_modules, found a regular expression")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("layers_pattern needs layers_to_transform")


class GDVLoraLayer(nn.Module, BaseTunerLayer):
    """A frozen layer with any number of adapters; what they add is summed over the active ones.

    Attributes:
        gdvlora_A: (r, in) by adapter; `gdvlora_B` (out, r), `gdvlora_u` (r,), `gdvlora_v` (out,), `gdvlora_gate` (1,).
        phase: which of them learn, by adapter; a key of `PHASES`.
        row_adapters: the adapter of each row of the batch; None where all rows have the active ones.
    """

    # All names begin with the prefix of the method: peft finds an adapter's tensors by it.
    adapter_layer_names = PHASES["all"]
    other_param_names = ("r", "phase")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: GDVLoraConfig, r: int):
        super().__init__()
        self.base_layer = base_layer
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        self.r: dict[str, int] = {}
        self.phase: dict[str, str] = {}
        self.row_adapters: Sequence[str] | None = None
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._weight_before_merge: Tensor | None = None
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, r)

    def update_layer(self, adapter_name: str, config: GDVLoraConfig, r: int) -> None:
        """Add an adapter, which changes nothing as long as its B is zero."""
        outputs, inputs = self.get_base_layer().weight.shape[:2]
        self.r[adapter_name], self.phase[adapter_name] = r, "all"
        self.gdvlora_A[adapter_name] = nn.Parameter(torch.empty(r, inputs))
        self.gdvlora_B[adapter_name] = nn.Parameter(torch.zeros(outputs, r))
        self.gdvlora_u[adapter_name] = nn.Parameter(torch.ones(r))
        self.gdvlora_v[adapter_name] = nn.Parameter(torch.ones(outputs))
        if config.gated:
            self.gdvlora_gate[adapter_name] = nn.Parameter(torch.ones(1))
        nn.init.kaiming_uniform_(self.gdvlora_A[adapter_name], a=math.sqrt(5))
        if config.init_vectors == "kaiming":
            # Kaiming with a = sqrt(5) of a column of one input.
            nn.init.uniform_(self.gdvlora_u[adapter_name], -1, 1)
            nn.init.uniform_(self.gdvlora_v[adapter_name], -1, 1)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def factors(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """g Lv B (out, r) and Lu A (r, in): scaling the small matrices costs less than scaling activations."""
        left = self.gdvlora_v[adapter_name]
        if adapter_name in self.gdvlora_gate:
            left = left * self.gdvlora_gate[adapter_name]
        right = self.gdvlora_u[adapter_name]
        return left[:, None] * self.gdvlora_B[adapter_name], right[:, None] * self.gdvlora_A[adapter_name]

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """What the adapter adds to the weight, in the weight's shape."""
        left, right = self.factors(adapter_name)
        return (left @ right).reshape(self.get_base_layer().weight.shape)

    def set_phase(self, adapter_name: str, phase: str) -> None:
        """Let only the tensors of a phase learn, also after the adapter was disabled or switched and is back."""
        if adapter_name not in self.phase:
            return
        self.phase[adapter_name] = phase
        for name in self.adapter_layer_names:
            if adapter_name in (tensors := getattr(self, name)):
                tensors[adapter_name].requires_grad_(adapter_name in self.active_adapters and name in PHASES[phase])

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make adapters the active ones; they learn (within their phase) unless in inference mode."""
        super().set_adapter(adapter_names, inference_mode=inference_mode)
        self._freeze_outside_phase()

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Freeze adapters or let them learn, within their phase."""
        super().set_requires_grad(adapter_names, requires_grad)
        self._freeze_outside_phase()

    def _freeze_outside_phase(self) -> None:
        for name in self.adapter_layer_names:
            for adapter_name, tensor in getattr(self, name).items():
                if name not in PHASES[self.phase[adapter_name]]:
                    tensor.requires_grad_(False)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add adapters (by default the active ones) to the base weight.

        Raises:
            ValueError: with `safe_merge`, where the result is not finite; the weight is then as before.
        """
        names = [n for n in check_adapters_to_merge(self, adapter_names) if n in self.gdvlora_A]
        if not names:
            return
        weight = self.get_base_layer().weight
        with torch.no_grad():
            total = weight + sum(self.get_delta_weight(name).to(weight.dtype) for name in names)
            if safe_merge and not torch.isfinite(total).all():
                raise ValueError(f"the weight merged with {', '.join(names)} is not finite: the adapter is broken")
            # Kept, so that unmerging gives the base back bit for bit.
            if self._weight_before_merge is None:
                self._weight_before_merge = weight.detach().clone()
            weight.data = total
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Give the base weight back exactly as it was."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        weight = self.get_base_layer().weight
        weight.data = self._weight_before_merge.to(weight.device)
        self._weight_before_merge = None
        self.merged_adapters.clear()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        if self.row_adapters is not None:
            return self._add_by_row(x, result)
        for name in self.active_adapters:
            if name in self.gdvlora_A:
                result = result + self._delta(x, name).to(result.dtype)
        return result

    def _add_by_row(self, x: Tensor, result: Tensor) -> Tensor:
        if len(self.row_adapters) != len(x):
            raise ValueError(f"adapter_names has {len(self.row_adapters)} names for a batch of {len(x)} rows")
        for name in dict.fromkeys(self.row_adapters):
            if name in self.gdvlora_A:
                rows = torch.tensor([i for i, n in enumerate(self.row_adapters) if n == name], device=x.device)
                result = result.index_add(0, rows, self._delta(x[rows], name).to(result.dtype))
        return result

    def _delta(self, x: Tensor, adapter_name: str) -> Tensor:
        raise NotImplementedError

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def __repr__(self) -> str:
        return f"{NAME}." + super().__repr__()


class GDVLoraLinear(GDVLoraLayer):
    """Around nn.Linear: x is (..., in)."""

    def _delta(self, x: Tensor, adapter_name: str) -> Tensor:
        left, right = self.factors(adapter_name)
        return F.linear(F.linear(x.to(right.dtype), right), left)


class GDVLoraPointwise(GDVLoraLayer):
    """Around nn.Conv2d with a kernel of 1 x 1: x is (B, in, H, W)."""

    def _delta(self, x: Tensor, adapter_name: str) -> Tensor:
        left, right = self.factors(adapter_name)
        base = self.get_base_layer()
        reduced = F.conv2d(x.to(right.dtype), right[:, :, None, None], None, base.stride, base.padding)
        return F.conv2d(reduced, left[:, :, None, None])


class GDVLoraModel(BaseTuner):
    """What `get_peft_model` puts around a network."""

    prefix = f"{NAME}_"
    tuner_layer_cls = GDVLoraLayer
    target_module_mapping = TARGETS

    def _create_and_replace(
        self,
        config: GDVLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), current_key), config.r)
        if isinstance(target, GDVLoraLayer):
            target.update_layer(adapter_name, config, rank)
            return
        new = _layer_class(target, current_key)(target, adapter_name, config, rank)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(child, AuxiliaryTrainingWrapper):
            # peft copies the weight of what it unwraps, which a module of several layers does not have.
            setattr(parent, child_name, new_module)
            return
        super()._replace_module(parent, child_name, new_module, child)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """During a call with `adapter_names` (one a row of the batch), tell every layer."""
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        unknown = sorted(set(names) - {BASE} - set(self.peft_config))
        if unknown:
            raise ValueError(f"no adapter '{unknown[0]}': there are {', '.join(sorted(self.peft_config))} and {BASE}")
        layers = [module for module in self.modules() if isinstance(module, GDVLoraLayer)]
        if any(layer.merged for layer in layers):
            raise ValueError("adapter_names needs an unmerged model: call unmerge_adapter first")
        if self.training and any(getattr(module, "gradient_checkpointing", False) for module in self.modules()):
            # It computes the layers again in the backward pass, when the names are forgotten.
            raise ValueError("adapter_names does not go with gradient checkpointing: switch that off")
        try:
            for layer in layers:
                layer.row_adapters = names
            yield
        finally:
            for layer in layers:
                layer.row_adapters = None

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Refuse files that lack tensors: peft itself leaves what is missing as it was drawn.

        Raises:
            ValueError: a tensor of the adapter is not in the file, or one of the file not in the model.
        """
        found = super()._remap_adapter_state_dict_for_load(
            model=model, config=config, adapter_name=adapter_name, state_dict=state_dict
        )
        own = {k for k in model.state_dict() if f".{cls.prefix}" in k and k.endswith(f".{adapter_name}")}
        given = {k for k in found if f".{cls.prefix}" in k}
        if given != own:
            first = sorted(given ^ own)[0]
            raise ValueError(
                f"the adapter's file lacks {len(own - given)} tensors of this model and has {len(given - own)} others "
                f"(first: {first}): it was made for another network or is incomplete"
            )
        return found


def _layer_class(target: nn.Module, key: str) -> type[GDVLoraLayer]:
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    if isinstance(base, nn.Linear):
        return GDVLoraLinear
    if is_pointwise(base):
        return GDVLoraPointwise
    raise ValueError(
        f"'{key}' ({type(base).__name__}) can't be adapted: GDV-LoRA adapts linear layers and 1 x 1 convolutions; "
        "leave it out of target_modules or name it in exclude_modules"
    )


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a 1 x 1 convolution whose outputs see all inputs."""
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


if PeftType(NAME.upper()) not in PEFT_TYPE_TO_TUNER_MAPPING:
    register_peft_method(name=NAME, config_cls=GDVLoraConfig, model_cls=GDVLoraModel)
