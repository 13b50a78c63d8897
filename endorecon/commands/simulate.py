"""`endorecon simulate`: a phantom clip with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from endorecon.commands.base import OK, Bars, File, Out

From = Annotated[Path | None, arg(name="from", metavar="RUN", help_behavior_hint="")]
FieldOfView = Literal["none", "circle", "octagon", "rounded"]
MotionName = Literal["none", "breathe", "pull"]


@dataclass(frozen=True)
class Simulate:
    """Make a phantom clip with its exact depth, poses, camera and mesh; or new clips with truth from a run.

    Example: endorecon simulate --scene passage --frames 120 --out passage

    A run's own scene along new camera paths: endorecon simulate --from runs/colonoscopy --paths 3
    """

    run: From = None
    """A run with a lighting (`endorecon light RUN`): its surface, tissue and light are filmed along new paths, in place
    of a phantom. Its camera is taken, and --scene, --camera, --field-of-view and --extras have no effect."""
    paths: int = 1
    """How many new paths of a run, a folder each: path_00, path_01, ..."""
    vary_light: bool = False
    """Another lamp position, beam, exposure and white balance on each new path of a run."""
    scene: str = "colon"
    """Kind of anatomy: colon, passage, abdomen, tissue or plaster."""
    out: Out = None
    """A new folder; by default phantoms/SCENE_SEED, or phantoms/RUN_SEED."""
    frames: int = 90
    """Length of the clip."""
    seed: int = 0
    """Everything random follows from it."""
    fps: float = 30.0
    """Frames a second."""
    camera: File = None
    """Camera to film with, in any form that `reconstruct --camera` takes; by default a pinhole of 320 x 256 pixels."""
    field_of_view: FieldOfView = "none"
    """The part of the image that the optics fill."""
    extras: bool = False
    """Also write normals and albedo."""
    motion: MotionName = "none"
    """What the tissue does: nothing, it breathes, or a part of it is pulled; tracks.npz then tells how points move."""
    still: bool = False
    """Whether the camera stands still."""


def run(command: Simulate) -> int:
    """Run the command; returns the exit code."""
    if command.run is not None:
        return _from_run(command, command.run)
    from rendering.phantom.clip import simulate
    from video_io.camera_files import read_camera

    camera = read_camera(command.camera) if command.camera else None
    out = command.out or Path("phantoms") / f"{command.scene}_{command.seed}"
    with Bars() as bars:
        path = simulate(
            command.scene,
            command.seed,
            command.frames,
            camera,
            command.fps,
            out,
            command.field_of_view,
            command.extras,
            progress=lambda done: bars("rendering", done, command.frames),
            motion=command.motion,
            still=command.still,
        )
    run = f"runs/{path.name}"
    print(f"result      {path}")
    print(f"reconstruct endorecon reconstruct {path / 'video.mp4'} --camera {path / 'intrinsics.json'} --out {run}")
    print(f"compare     endorecon evaluate {run} --truth {path}")
    return OK


def _from_run(command: Simulate, path: Path) -> int:
    from endorecon.resimulate import resimulate
    from endorecon.run import read_run

    run = read_run(path)
    out = command.out or Path("phantoms") / f"{run.name}_{command.seed}"
    with Bars() as bars:
        made = resimulate(
            run, out, command.paths, command.frames, command.seed, command.fps, command.vary_light, progress=bars
        )
    for note in made.notes:
        print(f"note: {note}")
    for folder, seen in zip(made.folders, made.seen, strict=True):
        print(f"result      {folder} (at least {100 * seen:.0f} % of each picture is known surface)")
    print(f"learn       endorecon adapt VIDEO --truth {out} -o adapters/{run.name}")
    return OK
