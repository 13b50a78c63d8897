"""Published checkpoints: a hub id or a local folder, what it holds, under which licence, and its weights, whole."""

from __future__ import annotations

import json
import re
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
)
# Networks that give features and no depth.
ENCODERS = tuple(kind for _, kind in _KINDS)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


def is_checkpoint(model: str) -> bool:
    """Whether a --model is a hub id (owner/name) or a folder, and not a name of this program."""
    return "/" in model or Path(model).expanduser().is_dir()


def kind(model: str) -> str:
    """The type of model in a folder, by its config.json; for a hub id what its name says, else "depth_anything"."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        try:
            return str(parse_json(read_text(folder / "config.json"))["model_type"])
        except (OSError, ValueError, KeyError, TypeError):
            return "depth_anything"  # whose loader says what is wrong with the folder
    return next((kind for part, kind in _KINDS if part in model.lower()), "depth_anything")


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
        raise InputError(
            f"no folder '{where}', no copy in the Hugging Face cache, and the hub did not give it ({reason}): "
            f"on a machine with network run 'hf download {where} --local-dir FOLDER', bring FOLDER here and give it as "
            "--model; or use --model tiny, which is shipped"
        ) from error
