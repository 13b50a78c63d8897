"""`endorecon scale`: a run in millimetres, by something known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import OK, Count, File
from video_io.errors import InputError


@dataclass(frozen=True)
class Scale:
    """Bring a run to millimetres by something known, and list what was known with its disagreement.

    Example: endorecon scale runs/video --length-mm 5 --frame 120 --points 300 210 352 214
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made. Without anything else the estimates so far are listed."""
    length_mm: Annotated[float | None, arg(metavar="MM", help_behavior_hint="")] = None
    """A known length, such as the diameter of an instrument, between two points of an image."""
    frame: Count = None
    """The frame in which the points were picked."""
    points: Annotated[tuple[float, float, float, float] | None, arg(metavar="X Y X Y", help_behavior_hint="")] = None
    """The two points, in pixels of the source's image."""
    poses: File = None
    """The path of a tracker or a robot, in a TUM file with the times of the clip."""
    poses_unit: Literal["mm", "cm", "m"] = "mm"
    """Unit of its lengths."""


def run(command: Scale) -> int:
    """Run the command; returns the exit code."""
    from endorecon.run import read_run
    from endorecon.scales import add_estimate, estimates, length, poses

    run, picked = read_run(command.run), (command.length_mm, command.frame, command.points)
    if any(value is not None for value in picked):
        if command.length_mm is None or command.frame is None or command.points is None:
            raise InputError("a known length needs all of --length-mm MM, --frame N and --points X Y X Y")
        first, second = command.points[:2], command.points[2:]
        run = add_estimate(run, length.measure(run, command.length_mm, command.frame, first, second))
    if command.poses is not None:
        path = poses.read_path(command.poses)
        run = add_estimate(run, poses.measure(run, path, command.poses_unit, str(command.poses)))
    print(f"scale: {run.info.get('scale', 'up to scale')}")
    listed = estimates(run)
    for e in listed:
        off = 100 * (e.mm_per_unit / listed[0].mm_per_unit - 1)
        print(f"  {e.mm_per_unit:10.5g} mm a unit, give or take {100 * e.log_std:4.2g} %, {off:+6.2f} %  {e.source}")
    return OK
