"""The part of a network that tells depth, ready to be adapted: what peft wraps, and one forward pass for all kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_adapters.adapters import adapter_config, adapter_name, adapter_tensors, default_targets, phases
from video_io.errors import InputError

FULL = "full"
# peft's name of the adapter that is trained.
NAME = adapter_name("depth")
Read = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Base:
    """A network to adapt.

    Attributes:
        network: as it was trained, frozen, in eval mode.
        read: network, images (B, 3, H, W) and half-size rays to log distance and log deviation, (B, H, W) each.
        heads: the modules whose every weight learns beside the adapter, the depth head as a rule.
        must_learn: whether the network says nothing of depth without trained heads.
    """

    network: nn.Module
    read: Read
    heads: tuple[str, ...]
    must_learn: bool = False


def load_base(model: str) -> Base:
    """The network that an adapter of this `model` goes around.

    Raises:
        InputError: an unknown model, or its weights can't be loaded.
    """
    from foundation_adapters.backbones import depth_anything, modules, tiny

    module = next((m for m in modules().values() if m.accepts(model)), None)
    if module is None:
        raise InputError(f"no model '{model}' to adapt: give tiny, a hub id (owner/name) or a folder with a checkpoint")
    if getattr(module, "MULTI_VIEW", False):
        raise cannot_adapt(model)
    if module is tiny:
        return Base(tiny.base(), read_network, ("distance",))
    if module is depth_anything:
        wrapper = depth_anything.build(model)
        return Base(wrapper.model, _ReadDepthAnything(wrapper), ())
    network = module.build(model)
    return Base(network, read_network, tuple(network.heads["depth"]), must_learn=True)


def cannot_adapt(model: str) -> InputError:
    """What to say of a network that sees several views at once."""
    return InputError(
        f"'{model}' sees several views at once and is used as it is: adapt tiny, or a Depth Anything V1 or V2, DINOv2 "
        "or DINOv3 checkpoint"
    )


def read_network(network: nn.Module, image: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Of a `Network` or a `VitNetwork`."""
    return network.full_distance(network.backbone(image), rays)


class _ReadDepthAnything:
    """Of Depth Anything, which is told z and says nothing of its errors."""

    def __init__(self, wrapper: Any):
        self._wrapper = wrapper

    def __call__(self, network: nn.Module, image: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        self._wrapper.model = network
        return self._wrapper(image, F.interpolate(torch.nan_to_num(rays), scale_factor=2, mode="bilinear"))


class Learner(nn.Module):
    """A base with what learns. Its forward pass is the only way through, so that accelerate can wrap it.

    Attributes:
        model: the adapted network (peft), or for "full" the network itself, on its own copy of the weights.
        method: a key of `adapters.METHODS`, or "full".
        tensors: everything that learns in some phase, by name.
    """

    def __init__(self, base: Base, method: str, rank: int, train_heads: bool = True):
        """Put an adapter around the base's network, which is changed in place; "full" lets all of depth's parts learn.

        Raises:
            InputError: an unknown method, a rank below 1.
        """
        super().__init__()
        self.method, self._read, self._must_learn = method, base.read, base.must_learn
        heads = base.heads if train_heads or base.must_learn else ()
        if method == FULL:
            self.model, parts = base.network, _parts(base)
            self.tensors = {n: p for n, p in self.model.named_parameters() if n.startswith(parts)}
        else:
            from peft import get_peft_model

            targets = _targets(base.network, method, heads)
            self.model = get_peft_model(base.network, adapter_config(method, targets, rank, heads), NAME)
            self.tensors = adapter_tensors(self.model)
        for tensor in self.tensors.values():
            tensor.requires_grad_(True)
        # In training mode batch norms would learn the new images' statistics.
        self.eval()

    def forward(self, image: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Log distance and log deviation, (B, H, W) float32 each."""
        network = self.model if self.method == FULL else self.model.get_base_model()
        log_distance, log_std = self._read(network, image, rays)
        return log_distance.float(), log_std.float()

    @property
    def phases(self) -> tuple[str, ...]:
        return ("all",) if self.method == FULL else phases(self.method)

    def set_phase(self, phase: str) -> None:
        """Let learn what this phase lets learn."""
        from foundation_adapters.adapters import set_phase

        if self.method != FULL:
            set_phase(self.model, phase)

    def groups(self, weight_decay: float, rate: float, full_rate: float) -> list[dict[str, Any]]:
        """Everything in `tensors` for an optimiser; vectors, gates, biases and norms without decay.

        Args:
            weight_decay: of matrices and kernels.
            rate: of learning, for what is new: an adapter, heads that had learnt nothing.
            full_rate: for what has learnt before: with "full" all, else the heads.

        Returns:
            Groups as torch takes them, each with its own rate as "rate" too.
        """
        tensors = {id(t): (name, t) for name, t in self.tensors.items()}.values()
        groups = []
        for learnt in (True, False):
            for matrices in (True, False):
                own = [t for n, t in tensors if self._has_learnt(n) == learnt and (t.ndim > 1) == matrices]
                speed = full_rate if learnt else rate
                decay = weight_decay if matrices else 0.0
                groups.append({"params": own, "weight_decay": decay, "lr": speed, "rate": speed})
        return groups

    def _has_learnt(self, name: str) -> bool:
        return self.method == FULL or (".modules_to_save." in name and not self._must_learn)

    def values(self) -> dict[str, Tensor]:
        """A copy of everything that learns."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def take(self, values: dict[str, Tensor]) -> None:
        """Set everything that learns."""
        for name, tensor in self.tensors.items():
            tensor.copy_(values[name])


def _targets(network: nn.Module, method: str, heads: tuple[str, ...]) -> list[str]:
    """The layers to adapt, but for those in heads that learn as a whole."""
    targets = [t for t in default_targets(network, "depth") if not t.startswith(heads or ("\0",))]
    if method != "dora":
        return targets
    # DoRA divides by the length of each output's weights, which is 0 where training has switched a channel off.
    layers = dict(network.named_modules())
    return [t for t in targets if t not in layers or bool((layers[t].weight.flatten(1).norm(dim=1) > 0).all())]


def _parts(base: Base) -> tuple[str, ...]:
    return tuple(f"{part}." for part in getattr(base.network, "parts", {}).get("depth", ())) or ("",)
