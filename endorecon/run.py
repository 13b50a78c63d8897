"""The run folder: what a reconstruction leaves on disk, written and read (docs/run_folder.md is its description)."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import yaml
from numpy.typing import NDArray

from endorecon import __version__
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import parse_json, parse_yaml, read_npz, read_text
from video_io.trajectory import Trajectory
from video_io.view import View

if TYPE_CHECKING:
    from endorecon.tracking.observation import Observation, Refused
    from rendering.mesh import Mesh

FORMAT = 1
STATUSES = ("running", "finished", "interrupted", "failed")
_FILES = ("run.yaml", "trajectory.tum", "frames.csv", "camera.json", "recording.rrd", "report.html")
_FOLDERS = ("depth", "scene")
WORK = ".work"  # what an unfinished run keeps (endorecon/work.py)
_FIXED = ("index", "time_s", "status", "reason", "segment", "keyframe", "grade")
_PACKAGES = ("torch", "numpy", "opencv-python", "numba", "transformers", "av", "rerun-sdk")

Depth = NDArray[np.float32]


@dataclass(frozen=True)
class FrameRow:
    """A line of frames.csv.

    Attributes:
        index: position of the frame in the source.
        time_ns: time in the source.
        status: "tracked" or "refused".
        reason: why it was refused, or what is wrong with it though it was tracked.
        segment: number of the segment that its pose belongs to; for a refused frame the one that was open.
        is_keyframe: whether the joint refinement rests on it.
        figures: quality figures by name.
        grade: how far its pose can be trusted: "green", "amber" or "red"; empty where that was not judged.
    """

    index: int
    time_ns: int
    status: str
    reason: str = ""
    segment: int = 0
    is_keyframe: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    grade: str = ""

    @staticmethod
    def of(placed: Observation | Refused) -> FrameRow:
        """The line of a frame that tracking has placed or refused."""
        figures = dict(placed.figures)
        if (frame := getattr(placed, "frame", None)) is None:
            return FrameRow(placed.index, placed.time_ns, "refused", placed.reason, placed.segment, False, figures)
        at = frame.index, frame.time_ns
        return FrameRow(*at, "tracked", placed.reason, placed.segment, placed.is_keyframe, figures)


class RunWriter:
    """Writes a run folder; each file appears whole or not at all.

    Make it once the input is known to be good: with `overwrite` the earlier run goes when this one begins.
    As a context manager it closes the run's status on the way out: an exception that passes through leaves
    `interrupted` (KeyboardInterrupt) or `failed` with the reason in run.yaml; a run that holds nothing yet is removed.

    Args:
        out: the folder; made if need be. It must be empty or new, unless `overwrite` is given and it holds a run,
            whose files are then removed.
        config: what the run was asked to do, plain values.
        overwrite: whether an earlier run may be replaced.

    Raises:
        InputError: the folder holds a run or other files, or can't be written.
    """

    def __init__(self, out: str | Path, config: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path = Path(out).expanduser()
        self._made = not self.path.exists()
        check_free(self.path, overwrite)
        self._info: dict[str, Any] = {
            "format": FORMAT,
            "status": "running",
            "started": _now(),
            "versions": _versions(),
            "config": dict(config),
        }
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            if overwrite:
                _remove_run(self.path)
            for folder in _FOLDERS:
                (self.path / folder).mkdir(exist_ok=True)
        self._save_info()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or self._info["status"] != "running":
            return
        expected = isinstance(error, InputError | KeyboardInterrupt)
        if expected and not any((self.path / "depth").glob("*.npz")):
            self._discard()
            return
        self._info["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        self._info["reason"] = str(error) or type(error).__name__
        with suppress(InputError):  # the disk is full or gone, which is what `error` already tells
            self._save_info()

    # -- writing --------------------------------------------------------------------------------------------------

    def camera(self, working: Camera, source: Camera, view: View, estimated: bool, note: str = "") -> None:
        """Write camera.json: the cameras of the working and of the source's whole image, and what lies between."""
        cut = {
            "source_width": view.source_width,
            "source_height": view.source_height,
            "crop": list(view.crop),
            "width": view.width,
            "height": view.height,
        }
        values = {**working.to_dict(), "estimated": estimated, "note": note, "source": source.to_dict(), "view": cut}
        self._write("camera.json", json.dumps(values, indent=2) + "\n")

    def depth(self, index: int, depth: Depth, confidence: NDArray[np.floating]) -> None:
        """Write depth and confidence, both (H, W), of the frame with this index; a second call replaces the first."""
        with self._writing(), _replacing(self.path / _depth_name(index)) as path, open(path, "wb") as file:
            # Not compressed: the low bits of depth are noise, which costs 10 to 60 ms a frame to save a third.
            np.savez(file, depth=np.asarray(depth, np.float32), confidence=np.asarray(confidence, np.float16))

    def read_depth(self, index: int) -> tuple[Depth, NDArray[np.float32]]:
        """Depth and confidence (H, W), float32, as written by `depth`."""
        return _read_depth(self.path, index)

    def mesh(self, mesh: Mesh) -> None:
        """Write scene/mesh.ply."""
        from rendering.mesh import write_ply

        with self._writing(), _replacing(self.path / "scene" / "mesh.ply") as path:
            write_ply(mesh, path)

    def finish(
        self,
        rows: Sequence[FrameRow],
        trajectory: Trajectory,
        mesh: Mesh | None = None,
        *,
        status: str = "finished",
        scale: str = "up to scale",
        model: str = "",
        licence: str = "",
        warnings: Sequence[str] = (),
        timings: Mapping[str, float] | None = None,
        **more: Any,
    ) -> None:
        """Write what is known at the end, and run.yaml last.

        Args:
            rows: a line for every frame that was read, in order.
            trajectory: the poses of the tracked frames.
            mesh: the scene; None if there is none.
            status: "finished", or "interrupted" where the person stopped it.
            scale: where the unit of lengths comes from, "up to scale" or beginning with "mm".
            model: name of the depth model; `licence` is its licence.
            warnings: sentences for the person who reads the report.
            timings: seconds by stage.
            more: further plain values for run.yaml, by name.

        Raises:
            InputError: the folder can't be written any more, or the disk is full.
        """
        if status not in STATUSES:
            raise ValueError(f"a run's status is one of {', '.join(STATUSES)}, found '{status}'")
        self._write("frames.csv", _frames_csv(rows))
        with self._writing(), _replacing(self.path / "trajectory.tum") as path:
            trajectory.write_tum(path)
        if mesh is not None:
            self.mesh(mesh)
        tracked = [row for row in rows if row.status == "tracked"]
        self._info |= {
            "status": status,
            "ended": _now(),
            "model": {"name": model, "licence": licence},
            "unit": "mm" if scale.startswith("mm") else "up to scale",
            "scale": scale,
            "frames": {
                "read": len(rows),
                "tracked": len(tracked),
                "refused": len(rows) - len(tracked),
                "keyframes": sum(row.is_keyframe for row in rows),
                "segments": len({row.segment for row in tracked}),
            },
            "timings_s": {name: round(float(seconds), 3) for name, seconds in (timings or {}).items()},
            "warnings": [str(w) for w in warnings],
            **more,
        }
        self._save_info()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _save_info(self) -> None:
        self._write("run.yaml", yaml.safe_dump(_plain(self._info), sort_keys=False, allow_unicode=True, width=110))

    def _write(self, name: str, text: str) -> None:
        with self._writing(), _replacing(self.path / name) as path:
            path.write_text(text, encoding="utf-8")

    def _discard(self) -> None:
        """Take away a folder in which nothing was saved, so that the next try finds it free."""
        _remove_run(self.path)
        if self._made and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"can't write to the output folder '{self.path}' ({reason}); what is already there is kept; "
                "free some space or choose another folder with --out"
            ) from error


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes:
        path: the folder.
        info: run.yaml as plain values.
        rows: the lines of frames.csv.
        trajectory: poses of the tracked frames; empty where the run ended before it was written.
        camera: the camera of the depth images; None where the run ended before it was known.
        source_camera: the camera of the source's whole image.
        camera_estimated: whether the intrinsics were estimated from the images.
        camera_note: how they were found.
    """

    path: Path
    info: dict[str, Any]
    rows: tuple[FrameRow, ...]
    trajectory: Trajectory
    camera: Camera | None
    source_camera: Camera | None
    camera_estimated: bool
    camera_note: str

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def status(self) -> str:
        return str(self.info.get("status", "failed"))

    @property
    def unit(self) -> str:
        """ "mm" or "up to scale"."""
        return str(self.info.get("unit", "up to scale"))

    @property
    def mesh_path(self) -> Path | None:
        return _existing(self.path / "scene" / "mesh.ply")

    @property
    def recording_path(self) -> Path | None:
        return _existing(self.path / "recording.rrd")

    @property
    def report_path(self) -> Path | None:
        return _existing(self.path / "report.html")

    @cached_property
    def depth_indices(self) -> tuple[int, ...]:
        """Indices of the frames that have depth, rising."""
        return tuple(sorted(int(p.stem) for p in (self.path / "depth").glob("*.npz") if p.stem.isdigit()))

    def depth(self, index: int) -> tuple[Depth, NDArray[np.float32]]:
        """Depth and confidence (H, W), float32, of the frame with this index; z, in the trajectory's unit.

        Raises:
            InputError: the run has no depth for this frame, or the file is damaged.
        """
        return _read_depth(self.path, index)


def read_run(path: str | Path) -> Run:
    """Read a run folder; parts that an interrupted run has not written are empty or None.

    Raises:
        InputError: the folder is no run, or a file in it is damaged.
    """
    path = Path(path).expanduser()
    if not (path / "run.yaml").is_file():
        found = "holds no run.yaml" if path.is_dir() else "is a file" if path.exists() else "does not exist"
        raise InputError(f"'{path}' {found}; give a folder that `endorecon reconstruct` has made")
    try:
        info = parse_yaml(read_text(path / "run.yaml"))
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise InputError(f"'{path / 'run.yaml'}' is not of format {FORMAT}; reconstruct again with this version")
        rows = _read_frames(path / "frames.csv")
        tum = path / "trajectory.tum"
        trajectory = Trajectory.read_tum(tum) if tum.is_file() else Trajectory(np.zeros(0, int), np.zeros((0, 4, 4)))
        camera = parse_json(read_text(path / "camera.json")) if (path / "camera.json").is_file() else None
        working, source = (Camera.from_dict(camera), Camera.from_dict(camera["source"])) if camera else (None, None)
    except InputError:
        raise
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the run in '{path}' is damaged ({reason}); reconstruct again with --overwrite") from error
    estimated, note = (bool(camera.get("estimated")), str(camera.get("note", ""))) if camera else (False, "")
    return Run(path, info, rows, trajectory, working, source, estimated, note)


def holds_run(path: str | Path) -> bool:
    """Whether the folder holds a run, whatever its status."""
    return (Path(path).expanduser() / "run.yaml").is_file()


def check_free(out: Path, overwrite: bool) -> None:
    """Raise InputError unless a run may be written to this folder; what an unfinished run keeps is no obstacle."""
    if out.exists() and not out.is_dir():
        raise InputError(f"the output '{out}' is a file; give the name of a folder with --out")
    if holds_run(out):
        if not overwrite:
            raise InputError(
                f"the output folder '{out}' already holds a run; look at it with `endorecon view {out}`, "
                "give another folder with --out, or replace it with --overwrite"
            )
    elif out.is_dir() and (other := sorted(p.name for p in out.iterdir() if p.name != WORK)):
        raise InputError(
            f"the output folder '{out}' holds other files ('{other[0]}' and {len(other) - 1} more) and no run; "
            "give a new or an empty folder with --out"
        )


def _remove_run(path: Path) -> None:
    """Remove the files of a run, and nothing else."""
    for name in (*_FILES, *(f".{name}.partial" for name in _FILES)):
        (path / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place when the block ends well."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _depth_name(index: int) -> str:
    return f"depth/{index:06d}.npz"


def _read_depth(path: Path, index: int) -> tuple[Depth, NDArray[np.float32]]:
    file = path / _depth_name(index)
    try:
        depth, confidence = map(read_npz(file, most_mb=400).__getitem__, ("depth", "confidence"))
        return depth.astype(np.float32), confidence.astype(np.float32).reshape(depth.reshape(depth.shape[:2]).shape)
    except FileNotFoundError as error:
        raise InputError(f"the run in '{path}' has no depth for frame {index}; frames.csv lists its frames") from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"'{file}' is damaged; reconstruct again with --overwrite") from error


def _frames_csv(rows: Sequence[FrameRow]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*_FIXED, *names])
    for row in rows:
        time_s, key = f"{row.time_ns / 1e9:.9f}", int(row.is_keyframe)
        fixed = [row.index, time_s, row.status, row.reason, row.segment, key, row.grade]
        values = [row.figures.get(name, math.nan) for name in names]
        table.writerow([*fixed, *("" if math.isnan(v) else f"{v:.6g}" for v in values)])
    return text.getvalue()


def _read_frames(path: Path) -> tuple[FrameRow, ...]:
    if not path.is_file():
        return ()
    rows = []
    for line in csv.DictReader(io.StringIO(read_text(path))):
        figures = {name: float(value) for name, value in line.items() if name not in _FIXED and value}
        time_ns, key = round(float(line["time_s"]) * 1e9), line["keyframe"] == "1"
        index, segment, grade = int(line["index"]), int(line["segment"]), line.get("grade") or ""
        rows.append(FrameRow(index, time_ns, line["status"], line["reason"], segment, key, figures, grade))
    return tuple(rows)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {"endorecon": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    """Only what YAML has words for: paths become text, arrays and tuples lists, numpy numbers numbers."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
