"""`endorecon evaluate`: a run against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from endorecon.commands.base import OK, File, Folder
from video_io.errors import InputError


@dataclass(frozen=True)
class Evaluate:
    """Compare a run with the truth: camera path, depth and surface.

    Example: endorecon evaluate runs/video --truth ../data/traced_colon
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    truth: Folder = None
    """A folder with poses, depth and mesh: what `endorecon simulate` writes, a C3VD sequence, or SimCol3D."""
    ct: File = None
    """A CT's surface instead, mm: the error budget, as `endorecon budget` tells it (which has more options)."""
    json: bool = False
    """Print JSON instead of a table."""


def run(command: Evaluate) -> int:
    """Run the command; returns the exit code."""
    if command.ct is not None:
        from endorecon.commands import budget

        return budget.run(budget.Budget(command.run, command.ct, truth=command.truth, json=command.json))
    if command.truth is None:
        raise InputError("there is nothing to compare with: give --truth FOLDER, or --ct FILE for the error budget")
    from endorecon.evaluate.protocol import evaluate_run, table

    result = evaluate_run(command.run, command.truth)
    if command.json:
        import json

        print(json.dumps(result.to_dict(), indent=2))
    else:
        print(table(result))
    return OK
