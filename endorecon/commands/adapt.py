"""`endorecon adapt`: an adapter for a new endoscope."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import INTERRUPTED, OK, Bars, Count, File, Out, named_input
from video_io.errors import InputError

Clips = Annotated[tuple[Path, ...], arg(metavar="FOLDER...", help_behavior_hint="")]


@dataclass(frozen=True)
class Adapt:
    """Adapt a depth model to an endoscope, from nothing but its recordings.

    Example: endorecon adapt recordings/*.mp4 -o adapters/my_scope

    From clips with truth too (`simulate --from`): endorecon adapt a.mp4 --truth phantoms/a_0 -o adapters/my_scope
    """

    recordings: Positional[tuple[Path, ...]] = ()
    """Videos, or folders of images, of one endoscope: the camera moves past tissue that is mostly at rest."""
    truth: Clips = ()
    """Folders of clips with truth, or folders of such folders, whose depth is learnt from as it is; with recordings or
    without."""
    out: Out = None
    """Where to write the adapter, for `reconstruct --adapter`; by default adapters/NAME, after the first recording."""
    camera: File = None
    """Calibration of all recordings, in any form that `reconstruct --camera` takes."""
    model: str = "tiny"
    """Depth model to adapt, as `reconstruct --model` takes it."""
    accept_licence: bool = False
    """Use weights whose licence forbids commercial use."""
    method: Literal["gdvlora", "dvlora", "lora", "dora"] = "gdvlora"
    """Kind of adapter."""
    rank: int = 4
    """Its rank."""
    minutes: float = 15.0
    """Time for all of it: reconstructions, then training."""
    every: int = 1
    """Use every n-th frame."""
    max_frames: Count = None
    """Stop after this many used frames of each recording; by default after as many as there is time for."""
    fps: float = 30.0
    """Frames a second of a folder of images; a video has its own times."""
    seed: int = 0
    """Every draw of the training follows from it."""
    overwrite: bool = False
    """Replace the adapter that the output folder holds."""
    tensorboard: bool = False
    """Write the training's figures for TensorBoard too, as they come: into `.NAME.adapting/tensorboard` beside the
    output, and in the end into it."""


def run(command: Adapt) -> int:
    """Run the command; returns the exit code."""
    if not command.recordings and not command.truth:
        raise InputError("no recordings: give videos or folders of images, or clips with truth with --truth")
    given = [named_input(path) for path in command.recordings]
    out = command.out or Path("adapters") / (given[0][1] if given else command.truth[0].resolve().name)
    from endorecon.adapt import adapt_videos
    from video_io.datasets import clip_folders

    try:
        with Bars() as bars:
            made = adapt_videos(
                [path for path, _ in given],
                out,
                camera=command.camera,
                model=command.model,
                accept_licence=command.accept_licence,
                method=command.method,
                rank=command.rank,
                minutes=command.minutes,
                every=command.every,
                max_frames=command.max_frames,
                fps=command.fps,
                seed=command.seed,
                overwrite=command.overwrite,
                tensorboard=command.tensorboard,
                progress=bars,
                truth=[clip for path in command.truth for clip in clip_folders(path)],
            )
    except KeyboardInterrupt:
        print("endorecon: stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    for note in made.notes:
        print(f"note: {note}")
    before, after = made.figures["before"], made.figures["after"]
    other = "their reconstruction" if command.recordings else "the truth"
    print(
        f"held-out frames: depth differs from {other} by {100 * after:.1f} % with the adapter, "
        f"{100 * before:.1f} % without"
    )
    other = "" if command.model == "tiny" else f" --model {command.model}"
    print(f"\nadapter  {made.folder}\nuse it   endorecon reconstruct VIDEO{other} --adapter {made.folder}")
    return OK
