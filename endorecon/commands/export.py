"""`endorecon export`: a run in the form that another program reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from endorecon.commands.base import OK, Bars, Out
from endorecon.exports import exports


@dataclass(frozen=True)
class Export:
    """Write a run for other programs: frames with poses, depth and masks, the surface, or the Gaussians.

    Example: endorecon export runs/colonoscopy --to nerfstudio -o colon_ns
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    to: Annotated[str, arg(metavar="|".join(exports()))]
    """The form; docs/exports.md says what is in each."""
    out: Out = None
    """A new or empty folder; by default exports/FORM in the run."""
    source: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """The video or folder that the run was made from, if it has moved."""
    every: int = 1
    """Take each n-th tracked frame."""
    full_size: bool = False
    """Pictures at the source's resolution instead of the run's working size."""


def run(command: Export) -> int:
    """Run the command; returns the exit code."""
    from endorecon.exports import find_export
    from endorecon.exports.base import Choice, Material, whole_folder
    from endorecon.run import read_run

    form = find_export(command.to)
    out = command.out or command.run / "exports" / command.to
    with Bars() as bars:
        material = Material(read_run(command.run), Choice(command.source, command.every, command.full_size), bars)
        with whole_folder(out) as folder:
            told = form.export(material, folder)
    print(f"{out}: {told.replace('{out}', str(out))}")
    return OK
