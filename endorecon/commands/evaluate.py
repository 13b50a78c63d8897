"""`endorecon evaluate`: a run against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from endorecon.commands.base import OK


@dataclass(frozen=True)
class Evaluate:
    """Compare a run with the truth: camera path, depth and surface.

    Example: endorecon evaluate runs/video --truth ../data/traced_colon
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    truth: Path
    """A folder with poses, depth or mesh: what `endorecon simulate` writes, or one sequence of a data set
    (docs/datasets.md)."""
    json: bool = False
    """Print JSON instead of a table."""


def run(command: Evaluate) -> int:
    """Run the command; returns the exit code."""
    from endorecon.evaluate.protocol import evaluate_run, table

    result = evaluate_run(command.run, command.truth)
    if command.json:
        import json

        print(json.dumps(result.to_dict(), indent=2))
    else:
        print(table(result))
    return OK
