"""`endorecon relight`: a run's frames under another light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from endorecon.commands.base import OK, Bars, File, Out

Lights = Literal["same", "moved", "wide", "second", "no-highlights", "albedo", "depth", "normals", "sheet"]


@dataclass(frozen=True)
class Relight:
    """Show a run's frames under another light, as a video and three stills beside it.

    The light is estimated first where the run has none yet (`endorecon light`).

    Example: endorecon relight runs/colonoscopy --light moved -o moved.mp4
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    light: Lights = "moved"
    """The lamp as it is, circling to the side, with a wide beam, with a second one; no highlights; albedo, depth or
    normals alone; or a sheet (.jpg) of all of them."""
    out: Out = None
    """The video to write, .mp4; by default LIGHT.mp4 in the run's folder `lighting`."""
    input: File = None
    """The video or folder of the run, if it was moved."""
    fps: float = 30.0
    """Frames a second of the video."""
    every: int = 1
    """Take each n-th frame."""


def run(command: Relight) -> int:
    """Run the command; returns the exit code."""
    from endorecon.lighting import FOLDER
    from endorecon.relight import lighting_of, sheet, write_clip
    from endorecon.run import read_run

    found, ending = read_run(command.run), ".jpg" if command.light == "sheet" else ".mp4"
    out = command.out or command.run / FOLDER / f"{command.light}{ending}"
    with Bars() as bars:
        lighting = lighting_of(found, command.input, bars)
        if command.light == "sheet":
            sheet(found, lighting, out, command.input)
            frames, names = 3, []
        else:
            frames, names = write_clip(
                found, lighting, command.light, out, command.input, command.fps, command.every, bars
            )  # fmt: skip
    for sentence in lighting.warnings:
        print(f"note        {sentence}")
    print(f"{frames} frames in {out}" + "".join(f"\nstill       {name}" for name in names))
    return OK
