"""`endorecon budget`: a run against a CT, and where its error comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import OK, File, Folder


@dataclass(frozen=True)
class Budget:
    """Register a run to a CT, tell its distances and errors at targets, and how much is due to poses and to depth.

    Example: endorecon budget runs/video --ct model.stl --landmarks landmarks.csv --targets targets.csv
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    ct: Annotated[Path, arg(metavar="FILE")]
    """Surface of the CT in mm: STL, PLY or OBJ."""
    landmarks: File = None
    """Points that the registration begins with: name,x,y,z,ct_x,ct_y,ct_z or name,frame,u,v,ct_x,ct_y,ct_z."""
    targets: File = None
    """Points that take no part in it and show its error; the same columns."""
    truth: Folder = None
    """True poses, and depth if there is any, in the CT's coordinates; they split the error into poses and depth."""
    align: Literal["auto", "rigid", "similarity"] = "auto"
    """Keep the run's millimetres, or find a scale as well; auto: as the run's unit asks for."""
    json: bool = False
    """Print JSON instead of a table."""


def run(command: Budget) -> int:
    """Run the command; returns the exit code."""
    from endorecon.evaluate.budget import evaluate_budget, table

    result = evaluate_budget(command.run, command.ct, command.truth, command.landmarks, command.targets, command.align)
    if command.json:
        import json

        print(json.dumps(result.to_dict(), indent=2))
    else:
        print(table(result))
    return OK
