"""`endorecon light`: the light, the response and the material of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from endorecon.commands.base import OK, Bars, File


@dataclass(frozen=True)
class Light:
    """Estimate the endoscope's light, the camera's response, and albedo and roughness of the surface, from a run.

    The result goes into the run's folder `lighting`; `endorecon relight` shows the run by it.

    Example: endorecon light runs/colonoscopy
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    input: File = None
    """The video or folder of the run, if it was moved."""
    direct_only: bool = False
    """Leave the light out that surfaces throw at each other: faster, for open surfaces."""


def run(command: Light) -> int:
    """Run the command; returns the exit code."""
    from endorecon.light.estimate import estimate_lighting
    from endorecon.lighting import FOLDER
    from endorecon.run import read_run

    with Bars() as bars:
        found = estimate_lighting(read_run(command.run), command.input, not command.direct_only, bars)
    found.save(command.run / FOLDER)
    print(f"result      {command.run / FOLDER}")
    for name, sentence in found.observable.items():
        print(f"{name:<15} {sentence}")
    for name, sentence in found.fixed.items():
        print(f"{name:<15} by convention {sentence}")
    for sentence in found.warnings:
        print(f"note        {sentence}")
    print(f"relight     endorecon relight {command.run} --light moved")
    return OK
