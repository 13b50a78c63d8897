"""Published checkpoints: a hub id or a local folder, what it holds, under which licence, and its weights, whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_io.errors import InputError
from video_io.files import parse_json, read_text

if TYPE_CHECKING:
    from torch import nn

    from foundation_adapters.vit import VitNetwork

UNKNOWN_LICENCE = "not known to this program: see the checkpoint's model card"
# Part of a hub id, in lower case, to the type that its config.json has. The first that fits.
_KINDS = (
    ("dinov3-vit", "dinov3_vit"),
    ("dinov2-with-registers", "dinov2_with_registers"),
    ("dinov2", "dinov2"),
    ("/da3", "depth_anything_3"),
    ("depth-anything-3", "depth_anything_3"),
    ("vggt", "vggt"),
)
# Of other networks than Depth Anything V1 and V2.
OTHERS = tuple(kind for _, kind in _KINDS)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


def is_checkpoint(model: str) -> bool:
    """Whether a --model is a hub id (owner/name) or a folder, and not a name of this program."""
    return "/" in model or Path(model).expanduser().is_dir()


def kind(model: str) -> str:
    """The type of model in a folder, by its config.json; for a hub id what its name says, else "depth_anything"."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        try:
            return _told_kind(parse_json(read_text(folder / "config.json")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "depth_anything"  # whose loader says what is wrong with the folder
    return next((kind for part, kind in _KINDS if part in model.lower()), "depth_anything")


def _told_kind(config: dict[str, Any]) -> str:
    if "model_type" in config:
        return str(config["model_type"])
    # Published by other libraries than transformers.
    if "DepthAnything3" in json.dumps(config) or str(config.get("model_name", "")).startswith("da3"):
        return "depth_anything_3"
    return "vggt" if {"img_size", "patch_size", "embed_dim"} <= set(config) else "depth_anything"


def licence_of(model: str, known: dict[str, str]) -> str:
    """The licence of a checkpoint's weights: of a hub id that is known, else what the model card in the folder says.

    Args:
        known: hub ids in lower case (or the part of them after the owner, for a folder of that name) to licences.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return known.get(model.lower(), UNKNOWN_LICENCE)
    try:
        front = _FRONT_MATTER.match(read_text(folder / "README.md"))
    except (OSError, ValueError):
        front = None
    told = dict(re.findall(r"^(license|license_name): *[\"']?([^\s\"']+)", front[1], re.MULTILINE)) if front else {}
    if told.get("license") not in (None, "other"):
        return told["license"]
    by_name = {name.split("/")[-1]: licence for name, licence in known.items()}
    return told.get("license_name") or by_name.get(folder.resolve().name.lower(), UNKNOWN_LICENCE)


def load(model: str, classes: dict[str, str], family: str, example: str, **options: Any) -> nn.Module:
    """Load a network from a local folder or, if there is no such folder, from the Hugging Face hub or its cache.

    Only safetensors are read, and only if every tensor of the network is there.

    Args:
        classes: type of model, as in config.json, to the name of the class of `transformers`.
        family, example: for what is said: "Depth Anything", and a hub id of it.
        options: for `from_pretrained`.

    Returns:
        The network in eval mode, frozen.

    Raises:
        InputError: not found, no network, another architecture, or an incomplete file.
    """
    where, folder = model, Path(model).expanduser()
    if folder.is_dir():
        _check_folder(folder, classes, family)
    elif where.count("/") != 1 or where.startswith((".", "/", "~")):
        raise InputError(
            f"no folder {where}: give a folder with config.json and model.safetensors, or a hub id such as {example}"
        )
    network, told = _load(str(folder) if folder.is_dir() else where, folder.is_dir(), classes, family, options)
    if told["missing_keys"] or told["mismatched_keys"]:
        first = sorted(str(k) for k in (*told["missing_keys"], *told["mismatched_keys"]))[0]
        raise InputError(
            f"the checkpoint {where} lacks parts of the network (first: {first}): download it again in full"
        )
    return network.eval().requires_grad_(False)


def encoder(model: str, classes: dict[str, str], family: str, example: str) -> VitNetwork:
    """A published encoder, its tokens read after four blocks, with heads that have learnt nothing yet; see `load`.

    Raises:
        InputError: as `load`.
    """
    from foundation_adapters.vit import VitNetwork, stages

    published = load(model, classes, family, example)
    # The checkpoint is a bare encoder: which of its blocks are read is ours to say.
    published.out_indices = stages(published.config.num_hidden_layers)
    return VitNetwork(published).eval()


def source_of(model: str) -> str:
    return "folder" if Path(model).expanduser().is_dir() else "Hugging Face hub"


def _check_folder(folder: Path, classes: dict[str, str], family: str) -> None:
    config = folder / "config.json"
    if not config.is_file() or not list(folder.glob("*.safetensors")):
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise InputError(f"{folder} holds {held}: expected config.json and model.safetensors of a {family} checkpoint")
    try:
        found = parse_json(read_text(config)).get("model_type")
    except json.JSONDecodeError as error:
        raise InputError(f"{config} is not JSON ({error}): download the checkpoint again") from error
    if found not in classes:
        raise InputError(
            f"{folder} holds a model of type '{found}': expected {' or '.join(repr(c) for c in classes)} ({family}, as "
            "published for transformers)"
        )


def _load(where: str, local: bool, classes: dict[str, str], family: str, options: dict) -> tuple[nn.Module, dict]:
    from safetensors import SafetensorError

    try:
        import transformers

        network_class = getattr(transformers, classes[kind(where)])
    except (ImportError, AttributeError) as error:
        raise InputError(f"{family} needs a newer 'transformers': pip install -U transformers") from error
    try:
        return network_class.from_pretrained(
            where, use_safetensors=True, local_files_only=local, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local:
            raise InputError(
                f"the checkpoint in {where} can't be read ({reason}): download it again in full"
            ) from error
        raise unreachable(where, reason) from error


def unreachable(where: str, reason: str) -> InputError:
    """What to say of a hub id whose files can't be had."""
    return InputError(
        f"no folder '{where}', no copy in the Hugging Face cache, and the hub did not give it ({reason}): "
        f"on a machine with network run 'hf download {where} --local-dir FOLDER', bring FOLDER here and give it as "
        "--model; or use --model tiny, which is shipped"
    )


# -- checkpoints of networks that transformers does not know -----------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A checkpoint's files.

    Attributes:
        where: as it was asked for.
        config: what its config.json says.
        shapes: of its tensors, by name, without the prefix that all of them have.
        files: the file that holds each of them.
        prefix: what stands before every name in the files.
    """

    where: str
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    files: dict[str, Path]
    prefix: str

    @staticmethod
    def of(model: str, family: str, example: str, prefix: str = "") -> Published:
        """Find the files in a local folder or, if there is no such folder, on the Hugging Face hub or in its cache.

        Raises:
            InputError: not found, no network, or not files of safetensors.
        """
        from safetensors import SafetensorError, safe_open

        folder = Path(model).expanduser()
        if not folder.is_dir():
            folder = _fetched(model, example)
        config = folder / "config.json"
        weights = sorted(folder.glob("*.safetensors"))
        if not config.is_file() or not weights:
            held = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
            raise InputError(
                f"{folder} holds {held}: expected config.json and model.safetensors of a {family} checkpoint"
            )
        shapes: dict[str, tuple[int, ...]] = {}
        files: dict[str, Path] = {}
        try:
            told = parse_json(read_text(config))
            for path in weights:
                with safe_open(str(path), "pt") as file:
                    for name in file.keys():  # noqa: SIM118 (no mapping)
                        shapes[name.removeprefix(prefix)] = tuple(file.get_slice(name).get_shape())
                        files[name.removeprefix(prefix)] = path
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"the checkpoint in {model} can't be read ({error}): download it again in full") from error
        return Published(model, told, shapes, files, prefix)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor that has to be there.

        Raises:
            InputError: it is not.
        """
        if name not in self.shapes:
            raise InputError(
                f"the checkpoint {self.where} lacks parts of the network (first: {name}): download it again in full"
            )
        return self.shapes[name]

    def count(self, name: str) -> int:
        """How many modules of a list have tensors: their names are `name`.0, `name`.1, ..."""
        found = {n.removeprefix(name + ".").split(".")[0] for n in self.shapes if n.startswith(name + ".")}
        return len(found)

    def filled(self, make: Callable[[], nn.Module], unused: Sequence[str]) -> nn.Module:
        """A network with these weights: all of its tensors or none.

        Args:
            make: makes the network; called where tensors have no memory.
            unused: beginnings of the names of tensors of parts that the network does without.

        Returns:
            The network in eval mode, frozen.

        Raises:
            InputError: a tensor is missing, of another shape, or of no known part.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        with torch.device("meta"):
            network = make()
        own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        for name, shape in own.items():
            if self.shape(name) != shape:
                raise InputError(
                    f"the checkpoint {self.where} is of another network: {name} is {self.shape(name)}, expected {shape}"
                )
        foreign = sorted(n for n in self.shapes if n not in own and not n.startswith(tuple(unused)))
        if foreign:
            raise InputError(
                f"the checkpoint {self.where} holds parts of another network (first: {foreign[0]}): this program does "
                "not know its version"
            )
        state = {}
        try:
            for path in sorted(set(self.files.values())):
                with safe_open(str(path), "pt") as file:
                    mine = [name for name in own if self.files[name] == path]
                    state |= {name: file.get_tensor(self.prefix + name).float() for name in mine}
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"the checkpoint in {self.where} can't be read ({error}): download it again in full"
            ) from error
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)


def _fetched(model: str, example: str) -> Path:
    """The folder of a hub id's files in the cache, fetched if need be."""
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise InputError(
            f"no folder {model}: give a folder with config.json and model.safetensors, or a hub id such as {example}"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(model, allow_patterns=["config.json", "README.md", "*.safetensors"]))
    except (OSError, ValueError, RuntimeError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise unreachable(model, reason) from error
