"""`endorecon simulate`: a phantom clip with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from endorecon.commands.base import OK, Bars, File, Out

FieldOfView = Literal["none", "circle", "octagon", "rounded"]
MotionName = Literal["none", "breathe", "pull"]


@dataclass(frozen=True)
class Simulate:
    """Make a phantom clip with its exact depth, poses, camera and mesh.

    Example: endorecon simulate --scene passage --frames 120 --out passage
    """

    scene: str = "colon"
    """Kind of anatomy: colon, passage, abdomen, tissue or plaster."""
    out: Out = None
    """A new folder; by default phantoms/SCENE_SEED."""
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
