"""`endorecon models`: what depth models there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from endorecon.commands.base import OK, Folder


@dataclass(frozen=True)
class Models:
    """List the depth models, their size, licence and where they come from."""

    adapter: Folder = None
    """Tell what this adapter is for instead."""


def run(command: Models) -> int:
    """Run the command; returns the exit code."""
    if command.adapter is not None:
        return _about_adapter(command.adapter)
    from foundation_adapters.backbones import available

    for model in available():
        size = "" if model.size_mb is None else f", {model.size_mb:g} MB"
        print(f"{model.name}{size}\n    {model.about}\n    weights: {model.source}\n    licence: {model.licence}")
    return OK


def _about_adapter(folder: Path) -> int:
    from foundation_adapters.adapter_files import adapter_sets, read_card

    for path in adapter_sets(folder).values():
        card = read_card(path)
        print(f"{path}: {card.method} for {' and '.join(card.tasks)}")
        print(f"    {card.about or 'no description'}\n    model: {card.base} (weights {card.fingerprint})")
        print(f"    licence: {card.licence}")
    return OK
