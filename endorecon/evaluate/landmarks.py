"""Files of landmarks and targets: points that are known both in a run and in the CT."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError
from video_io.files import read_text

if TYPE_CHECKING:
    from endorecon.run import Run

Float = NDArray[np.float64]
_CT = ("ct_x", "ct_y", "ct_z")
_WORLD = ("x", "y", "z")
_PICKED = ("frame", "u", "v")
_EXPECTED = (
    "a first line name,x,y,z,ct_x,ct_y,ct_z (points of the run's mesh) or name,frame,u,v,ct_x,ct_y,ct_z (pixels)"
)
_MOST_MB = 10


@dataclass(frozen=True)
class Landmarks:
    """Points in a run and in the CT.

    Attributes:
        names: N names.
        run: (N, 3) in the run's world and unit.
        ct: (N, 3) in the CT, mm.
    """

    names: tuple[str, ...]
    run: Float
    ct: Float

    def __len__(self) -> int:
        return len(self.names)


def read_landmarks(path: str | Path, run: Run) -> Landmarks:
    """Read a CSV file whose first line names the columns.

    Columns `ct_x ct_y ct_z` are the point in the CT, mm. Where it is in the run is told either by `x y z`, in the
    coordinates of the run's mesh, or by `frame u v`: the index of a frame and a pixel of the source's image, whose
    depth in the run is used. `name` is optional. Lines that begin with `#` are skipped.

    Raises:
        InputError: a file that is missing, has other columns or no numbers, or a pixel that can't be used.
    """
    path = Path(path).expanduser()
    rows = _rows(path)
    picked = all(name in rows[0] for name in _PICKED) if rows else False
    columns = (*(_PICKED if picked else _WORLD), *_CT)
    names, values = [], []
    for number, row in enumerate(rows, 1):
        if missing := [c for c in columns if c not in row]:
            raise InputError(f"'{path}' has no column '{missing[0]}'; expected {_EXPECTED}")
        try:
            numbers = [float(row[c]) for c in columns]
        except (TypeError, ValueError):
            numbers = [math.nan]
        if not all(math.isfinite(v) and abs(v) < 1e9 for v in numbers):
            raise InputError(f"'{path}', point {number}: expected numbers in the columns {', '.join(columns)}")
        names.append(row.get("name") or str(number))
        values.append(numbers)
    if not rows:
        raise InputError(f"'{path}' holds no points; expected {_EXPECTED}")
    table = np.array(values)
    points = np.stack([_picked(run, path, row) for row in values]) if picked else table[:, :3]
    return Landmarks(tuple(names), points, table[:, 3:])


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        lines = [
            line
            for line in read_text(path, _MOST_MB).splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        ]
        return [{str(k).strip().lower(): v for k, v in row.items() if k is not None} for row in csv.DictReader(lines)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"'{path}' can't be read as a CSV file ({error}); expected {_EXPECTED}") from error


def _picked(run: Run, path: Path, row: list[float]) -> Float:
    from endorecon.scales.length import picked_point

    frame = int(row[0])
    at = {r.index: r.time_ns for r in run.rows if r.status == "tracked"}.get(frame)
    pose = np.flatnonzero(run.trajectory.times_ns == at) if at is not None else []
    if len(pose) == 0:
        raise InputError(f"'{path}' names frame {frame}, which the run has not tracked; pick the point in another one")
    main = run.info.get("main_segment", 0)
    if any(r.index == frame and r.segment != main for r in run.rows):
        raise InputError(f"'{path}' names frame {frame}, which is not in the run's main segment; pick another one")
    local, _ = picked_point(run, frame, *run.depth(frame), (row[1], row[2]))
    world_from_cam = run.trajectory.world_from_cam[pose[0]]
    return world_from_cam[:3, :3] @ local + world_from_cam[:3, 3]
