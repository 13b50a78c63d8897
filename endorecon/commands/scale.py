"""`endorecon scale`: a run in millimetres, by something known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import OK, Count, File
from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.run import Run
    from endorecon.scales import ScaleEstimate

Millimetres = Annotated[float | None, arg(metavar="MM", help_behavior_hint="")]
Points = Annotated[tuple[float, ...] | None, arg(metavar="X Y X Y", help_behavior_hint="")]


@dataclass(frozen=True)
class Scale:
    """Bring a run to millimetres by something known, and list what was known with its disagreement (docs/scale.md).

    Example: endorecon scale runs/video --length-mm 5 --frame 120 --points 300 210 352 214
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made. Without anything else the estimates so far are listed."""
    length_mm: Millimetres = None
    """A known length between two points of an image."""
    instrument_mm: Millimetres = None
    """The diameter of an instrument's shaft, across which the points were picked; or by the data set's own masks."""
    frame: Count = None
    """The frame in which the points were picked."""
    points: Points = None
    """Two points, in pixels of the source's image; of an instrument also four, two along each edge."""
    mask: File = None
    """Instead of points: a picture of the frame's size that is white on the instrument."""
    stereo: File = None
    """Stereo pictures: a data set with pairs, the run's own input where it shows both eyes, or the right eye's."""
    rig: File = None
    """Their calibration: OpenCV's YAML or XML (M1 D1 M2 D2 R T), or StereoCalibration.ini."""
    baseline_mm: Millimetres = None
    """Instead of a calibration, for rectified pictures: the distance of the two lenses."""
    ct: File = None
    """The surface of a CT in mm: STL, PLY or OBJ."""
    landmarks: File = None
    """Points in the run and in the CT, as `endorecon budget` takes them."""
    lamps_mm: Annotated[tuple[float, ...] | None, arg(metavar="X Y Z", help_behavior_hint="")] = None
    """The lamps' places from the lens: right, down, ahead; three numbers each. A weak cue."""
    model_percent: Annotated[float | None, arg(metavar="PERCENT", help_behavior_hint="")] = None
    """Of a run with a depth model that gives millimetres: by how much its scale is usually off."""
    poses: File = None
    """The path of a tracker or a robot, in a TUM file with the times of the clip."""
    poses_unit: Literal["mm", "cm", "m"] = "mm"
    """Unit of its lengths."""


def run(command: Scale) -> int:
    """Run the command; returns the exit code."""
    from endorecon.run import read_run
    from endorecon.scales import add_estimate, estimates, lines
    from endorecon.scales.base import NotObservableError

    run, made, unseen = read_run(command.run), [], []
    for measure in _asked(command):
        try:
            made.append(measure(run))
        except NotObservableError as error:
            unseen.append(str(error))
    if made:
        run = add_estimate(run, *made)
    print(f"scale: {run.info.get('scale', 'up to scale')}")
    for line in (*lines(estimates(run)), *unseen):
        print(f"  {line}")
    return OK


def _asked(command: Scale) -> Iterator[Callable[[Run], ScaleEstimate]]:
    """What measures the scale by each thing that was given; all are checked before the first is used."""
    from endorecon.scales import ct, light, model, poses, stereo

    found = [*_picked(command)]
    if command.stereo is not None:
        place, rig, base = command.stereo, command.rig, command.baseline_mm
        found.append(lambda run: stereo.measure(run, stereo.open_pairs(run, place, rig, base)))
    elif command.rig is not None or command.baseline_mm is not None:
        raise InputError("--rig and --baseline-mm belong to stereo pictures; give those with --stereo")
    if command.ct is not None:
        file, landmarks = command.ct, command.landmarks
        found.append(lambda run: ct.measure(run, file, landmarks))
    elif command.landmarks is not None:
        raise InputError("--landmarks are points in a CT; give its surface with --ct")
    if (lamps := command.lamps_mm) is not None:
        if not lamps or len(lamps) % 3:
            raise InputError(f"--lamps-mm has {len(lamps)} numbers; expected three for each lamp, X Y Z")
        found.append(lambda run: light.measure(run, lamps))
    if (percent := command.model_percent) is not None:
        found.append(lambda run: model.measure(run, percent))
    if command.poses is not None:
        path, unit, name = poses.read_path(command.poses), command.poses_unit, str(command.poses)
        found.append(lambda run: poses.measure(run, path, unit, name))
    yield from found


def _picked(command: Scale) -> Iterator[Callable[[Run], ScaleEstimate]]:
    """Of what was picked in an image: a length, the shaft of an instrument."""
    import numpy as np

    from endorecon.scales import instrument, length

    mm, diameter, frame, points = command.length_mm, command.instrument_mm, command.frame, command.points
    if mm is None and diameter is None:
        if (frame, points, command.mask) != (None, None, None):
            raise InputError(
                "a known length needs all of --length-mm MM, --frame N and --points X Y X Y, and an instrument "
                "--instrument-mm MM instead of --length-mm"
            )
        return
    if mm is not None:
        if frame is None or points is None or len(points) != 4:
            raise InputError("a known length needs all of --length-mm MM, --frame N and --points X Y X Y")
        first, second = (points[0], points[1]), (points[2], points[3])
        yield lambda run: length.measure(run, mm, frame, first, second)
    if diameter is None:
        return
    if points is None and command.mask is None:
        if frame is not None:
            raise InputError("an instrument in a frame needs --points or --mask too; without --frame, masks are sought")
        yield lambda run: instrument.measure_own_masks(run, diameter)
    elif frame is None or (points is not None and command.mask is not None):
        raise InputError("an instrument needs --instrument-mm MM, --frame N, and one of --points and --mask")
    elif points is not None:
        if len(points) not in (4, 8):
            raise InputError(f"--points has {len(points)} numbers; expected X Y of two or of four points")
        picked = np.reshape(points, (-1, 2))
        yield lambda run: instrument.measure(run, diameter, frame, picked)
    else:
        file = command.mask
        assert file is not None
        yield lambda run: instrument.measure_mask(run, diameter, frame, instrument.read_mask(file), str(file))
