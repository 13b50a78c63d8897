"""Adapters on disk: peft's own folder and a card beside it, written whole or not at all, read wholly or refused.

peft fills a model with what a file has and leaves the rest as it was drawn; it does not know what the weights were that
an adapter was trained on. Here both are checked: every tensor of the adapter is there and has its shape, no other is,
all are finite, and the base is bit for bit the one that the card names.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation_adapters.adapters import TASKS, adapter_tensors, method_of
from video_io.errors import InputError
from video_io.files import parse_json, read_text

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "card.json"
_UNKNOWN = "not recorded"
MOST_MB = 2000  # of the tensors


@dataclass(frozen=True)
class Card:
    """What an adapter is, for whom it is, and what it may be used for.

    Attributes:
        base: name of the network that it adapts, as --model takes it.
        fingerprint: of the base's weights; see `fingerprint`.
        licence: of the adapter. Its base has its own.
        tasks: what it is for, of "depth" and "pose".
        method: "gdvlora", "dvlora", "lora" or "dora".
        about: a sentence for the person who finds it: from what it was trained, for which endoscope.
        training: what a trainer wants to record: clips, steps, seed, versions.
    """

    base: str = _UNKNOWN
    fingerprint: str = _UNKNOWN
    licence: str = _UNKNOWN
    tasks: tuple[str, ...] = TASKS
    method: str = _UNKNOWN
    about: str = ""
    training: dict[str, Any] = field(default_factory=dict)


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits of the SHA-256 of a base's weights, the same with and without adapters around it.

    Left out are modules that an adapter replaces as a whole (peft's modules_to_save), those without published weights
    (where the network has `published`, all others), and counters of batch norms. The adapters must not be merged.
    """
    import torch
    from peft.utils.other import ModulesToSaveWrapper

    replaced = tuple(f"{name}." for name, m in model.named_modules() if isinstance(m, ModulesToSaveWrapper))
    published = getattr(model, "published", ("",))
    digest = hashlib.sha256()
    for name, tensor in sorted(_base_tensors(model, replaced or ("\0",))):
        if not name.startswith(published):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _base_tensors(model: nn.Module, without: tuple[str, ...] = ("\0",)) -> list[tuple[str, Tensor]]:
    """Names as in the bare network, and tensors, of what is not an adapter's; none whose path begins with `without`."""
    own = set(adapter_tensors(model))
    return [
        (name.removeprefix("base_model.model.").replace(".base_layer.", "."), tensor)
        for name, tensor in model.state_dict().items()
        if not (name in own or ".modules_to_save." in name or name.startswith(without))
        and not name.endswith("num_batches_tracked")
    ]


def save_adapter(
    model: PeftModel,
    folder: Path,
    base: str,
    licence: str,
    adapter: str = "default",
    tasks: Sequence[str] = TASKS,
    about: str = "",
    training: dict[str, Any] | None = None,
) -> Card:
    """Write one adapter of a model as peft does, and its card; the folder appears, or changes, only once all is there.

    Args:
        model: what `get_peft_model` gave, unmerged.
        folder: where; for a set of one task beside others `FOLDER/depth` or `FOLDER/pose`.
        base, licence, tasks, about, training: see `Card`.
        adapter: the adapter's name in peft.

    Returns:
        The card.

    Raises:
        InputError: no such adapter, a merged model, or a folder that can't be written.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors import SafetensorError

    if adapter not in model.peft_config:
        raise InputError(f"no adapter '{adapter}' to save: the model has {', '.join(model.peft_config)}")
    if any(m.merged for m in model.modules() if isinstance(m, BaseTunerLayer)):
        raise InputError("a merged adapter can't be saved: call unmerge_adapter first")
    _check_names(model)
    card = Card(
        base,
        fingerprint(model),
        licence,
        tuple(tasks),
        method_of(model.peft_config[adapter]),
        about,
        dict(training or {}),
    )
    folder = folder.expanduser()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(model, adapter, card, work)
            _swap(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # the latter where the disk is full
        raise InputError(
            f"no adapter can be written to {folder} ({error}): free space or take another place"
        ) from error
    return card


def _check_names(model: PeftModel) -> None:
    """peft tells what belongs to which adapter by parts of the tensors' paths: it would leave out a module's."""
    parts = {part for name, _ in _base_tensors(model) for part in name.split(".")}
    clash = sorted(parts & set(model.peft_config))
    if clash:
        raise InputError(
            f"an adapter named '{clash[0]}' can't be saved, as the network has a module of that name: "
            f"call it {clash[0]}_task"
        )


def _write(model: PeftModel, adapter: str, card: Card, folder: Path) -> None:
    """Both of peft's files at the folder's top, and the card, readable by all and on the disk."""
    config = model.peft_config[adapter]
    given, config.base_model_name_or_path = config.base_model_name_or_path, card.base
    try:
        model.save_pretrained(str(folder), selected_adapters=[adapter], save_embedding_layers=False)
    finally:
        config.base_model_name_or_path = given
    inner = folder / adapter
    if inner.is_dir():  # peft gives adapters that aren't called "default" a folder of their own
        for path in inner.iterdir():
            path.replace(folder / path.name)
        inner.rmdir()
    (folder / CARD).write_text(json.dumps(asdict(card), indent=2) + "\n")
    # peft leaves a form to be filled in; this is what is known.
    (folder / "README.md").write_text(_readme(card))
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _swap(work: Path, folder: Path) -> None:
    if not folder.exists():
        work.rename(folder)
        return
    # Sets of other tasks may lie in it: its files are replaced one by one, the card last.
    for name in sorted((p.name for p in work.iterdir()), key=lambda n: n == CARD):
        (work / name).replace(folder / name)


def _readme(card: Card) -> str:
    tasks = " and ".join(card.tasks)
    return (
        f"# An adapter of endorecon ({card.method}) for {tasks}\n\n{card.about or 'No description.'}\n\n"
        f"- base: {card.base}, weights {card.fingerprint}\n- licence: {card.licence}\n\n"
        f"    endorecon reconstruct VIDEO --model {card.base} --adapter THIS_FOLDER\n"
    )


def adapter_sets(folder: Path) -> dict[tuple[str, ...], Path]:
    """The sets of tensors in a folder: one for all tasks at its top, or one a task in `depth` and `pose`.

    Raises:
        InputError: no adapter there; says what there is.
    """
    folder = folder.expanduser()
    if _holds_adapter(folder):
        return {read_card(folder).tasks: folder}
    found = {(task,): folder / task for task in TASKS if _holds_adapter(folder / task)}
    if not found:
        held = "no such folder" if not folder.is_dir() else ", ".join(sorted(p.name for p in folder.iterdir())[:6])
        raise InputError(
            f"{folder} is no adapter ({held or 'empty'}): expected a folder with {CONFIG} and {WEIGHTS}, or with such "
            f"folders {' and '.join(TASKS)}"
        )
    return found


def _holds_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def read_card(folder: Path) -> Card:
    """The card of an adapter; where there is none (an adapter that peft alone has saved) one that knows nothing.

    Raises:
        InputError: the card is not what `save_adapter` writes.
    """
    path = folder.expanduser() / CARD
    if not path.is_file():
        return Card()
    try:
        told = parse_json(read_text(path))
        card = Card(**{f.name: told[f.name] for f in fields(Card)})
        if not isinstance(card.tasks, list) or not all(isinstance(task, str) for task in card.tasks):
            raise ValueError(f"its tasks are {card.tasks!r:.50}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no card of an adapter ({error!r}): copy the adapter's folder again") from error
    tasks = tuple(card.tasks)
    if not tasks or set(tasks) - set(TASKS):
        raise InputError(f"{path} names the tasks {list(tasks)}: expected some of {list(TASKS)}")
    return Card(**asdict(card) | {"tasks": tasks})


def saved_modules(folder: Path) -> set[str]:
    """The modules that an adapter has learnt as a whole.

    Raises:
        InputError: its configuration can't be read.
    """
    path = folder.expanduser() / CONFIG
    try:
        return set(parse_json(read_text(path)).get("modules_to_save") or ())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no configuration of an adapter ({_line(error)}): copy the adapter's folder again"
        ) from error


def load_adapter(network: nn.Module, folder: Path, base: str, adapter: str = "default") -> PeftModel:
    """Put an adapter around a network, wholly or not at all; where it is refused the network is as it was.

    Args:
        network: the base, not adapted.
        folder: one set, with `adapter_config.json` and `adapter_model.safetensors`.
        base: the network's name, for what is said; the weights themselves are held against the card.
        adapter: its name in peft from now on.

    Returns:
        The adapted model in eval mode, frozen.

    Raises:
        InputError: a file that is missing, broken or not finite; an adapter for another network or another version.
    """
    folder = folder.expanduser()
    card, tensors = read_card(folder), _tensors(folder / WEIGHTS)
    broken = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    if broken:
        raise InputError(f"the adapter in {folder} has values that are no numbers (in {broken}): train it again")
    model = _inject(network, folder, adapter, card, base)
    try:
        _check_fit(model, adapter, tensors, card, folder, base)
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, tensors, adapter_name=adapter)
    except BaseException:
        _strip(network)
        raise
    return model.eval().requires_grad_(False)


def merged(model: PeftModel, folder: Path) -> nn.Module:
    """The network with its active adapter in its weights, for inference.

    Raises:
        InputError: the result is not finite.
    """
    try:
        # Not merge_and_unload: peft's fails for learnt modules that are more than one layer.
        model.merge_adapter(safe_merge=True)
    except ValueError as error:
        raise InputError(f"the adapter in {folder} can't be merged ({error}): train it again") from error
    network = model.get_base_model()
    _strip(network, learnt=True)
    return network.eval().requires_grad_(False)


def _strip(network: nn.Module, learnt: bool = False) -> None:
    """Take off all that peft has put into a network, half done or not; `learnt` keeps what modules have learnt."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(module, name, child.get_base_layer())
            elif isinstance(child, ModulesToSaveWrapper):
                kept = child.modules_to_save[child.active_adapters[0]] if learnt else child.original_module
                setattr(module, name, kept)
    # Left behind, it would make peft think that the next adapter is one more.
    network.__dict__.pop("peft_config", None)


def _inject(network: nn.Module, folder: Path, adapter: str, card: Card, base: str) -> PeftModel:
    from foundation_adapters import gdv_lora  # noqa: F401 - makes its method known to peft

    try:
        from peft import PeftConfig, get_peft_model

        kind = parse_json(read_text(folder / CONFIG))["peft_type"]
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # the last of names peft does not know
        raise InputError(
            f"{folder / CONFIG} is no configuration of an adapter ({_line(error)}): copy the adapter's folder again"
        ) from error
    config.inference_mode, config.base_model_name_or_path = True, None
    if getattr(config, "megatron_config", None) is not None:
        # peft would import the module that the file names.
        raise InputError(f"{folder / CONFIG} asks for Megatron, which is not used here: train the adapter without it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of names; what matters is checked below
            return get_peft_model(network, config, adapter)
    except (ValueError, TypeError, AttributeError, NotImplementedError, ImportError) as error:
        _strip(network)
        raise InputError(
            f"the {kind} adapter in {folder}, for '{card.base}', does not fit '{base}' ({_line(error)}): use the "
            "network that it was trained for"
        ) from error


def _check_fit(model: PeftModel, adapter: str, tensors: dict[str, Tensor], card: Card, folder: Path, base: str) -> None:
    missing, foreign, shapes = _differences(model, adapter, tensors)
    if missing or foreign or shapes:
        raise InputError(
            f"the adapter in {folder}, for '{card.base}', does not fit '{base}' ({len(missing)} tensors missing, "
            f"{len(foreign)} foreign, {len(shapes)} of another shape, first: {(missing + foreign + shapes)[0]}): use "
            "the network that it was trained for, or copy the folder again"
        )
    if card.fingerprint != _UNKNOWN and (found := fingerprint(model)) != card.fingerprint:
        raise InputError(
            f"the adapter in {folder} was trained on another version of '{card.base}' (its weights are "
            f"{card.fingerprint}, those of '{base}' {found}): use that version, or train the adapter again on this one"
        )


def _differences(model: PeftModel, adapter: str, found: dict[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """What the file lacks, what it has too much, and what has another shape."""
    from peft import get_peft_model_state_dict

    want = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    missing = sorted(want.keys() - found.keys())
    shapes = sorted(k for k in want.keys() & found.keys() if want[k].shape != found[k].shape)
    return missing, sorted(found.keys() - want.keys()), shapes


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}: expected the weights of the adapter as safetensors")
    try:
        if (size_mb := path.stat().st_size / 1e6) > MOST_MB:
            raise ValueError(f"it has {size_mb:.0f} MB, and no adapter has more than {MOST_MB}")
        return load_file(str(path))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} is broken ({_line(error)}): copy the adapter's folder again") from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
