"""`endorecon render`: a clip of a run's Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import OK, Bars, Out


@dataclass(frozen=True)
class Render:
    """Fly through a run's Gaussians (`reconstruct --scene splats`) and write what is seen as a video.

    Example: endorecon render runs/colonoscopy --path orbit -o orbit.mp4
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct --scene splats` has made."""
    out: Out = None
    """The video to write, .mp4; by default render.mp4 in the run."""
    path: Annotated[str, arg(metavar="original|orbit|FILE")] = "original"
    """The clip's own path, a circle about its middle, or a file with a TUM trajectory."""
    layer: Literal["color", "depth", "normals"] = "color"
    """What is shown."""
    fps: float = 30.0
    """Frames a second of the video."""


def run(command: Render) -> int:
    """Run the command; returns the exit code."""
    from endorecon.flight import fly
    from endorecon.run import read_run

    out = command.out or command.run / "render.mp4"
    with Bars() as bars:
        frames = fly(read_run(command.run), command.path, command.layer, out, command.fps, bars)
    print(f"{frames} frames in {out}")
    return OK
