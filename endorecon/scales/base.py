"""What an estimate of a run's scale is, and how pixels of the source meet the run's depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from video_io.errors import InputError
from video_io.files import parse_json, read_text

if TYPE_CHECKING:
    from endorecon.run import Run

Float = NDArray[np.float64]
PICKED_PX = 1.0  # how exactly a point is picked, in source pixels
# Confidence is 1 / (1 + (std / 0.1)^2) of the log depth (foundation_adapters.estimator).
_HALF_CONFIDENCE_STD = 0.1
_Z90 = 1.645
# Frames of a clip err alike: their spread tells the error of the mean as that of this many independent ones.
INDEPENDENT = 4


@dataclass(frozen=True)
class ScaleEstimate:
    """How long a unit of the run is.

    Attributes:
        source: where it comes from, in words; the same source replaces its earlier estimate.
        mm_per_unit: millimetres in a unit of the run as it was reconstructed (not as it may have been scaled since).
        log_std: standard deviation of its log, that is about its relative error.
    """

    source: str
    mm_per_unit: float
    log_std: float

    @property
    def interval(self) -> tuple[float, float]:
        """Millimetres in a unit, with 90 % probability."""
        reach = float(np.exp(_Z90 * self.log_std))
        return self.mm_per_unit / reach, self.mm_per_unit * reach

    def misses(self, other: ScaleEstimate) -> float:
        """By how many standard deviations two estimates lie apart."""
        apart = abs(float(np.log(self.mm_per_unit / other.mm_per_unit)))
        return apart / max(float(np.hypot(self.log_std, other.log_std)), 1e-9)


class NotObservableError(InputError):
    """What was given does not tell the scale: not a mistake, but nothing to go by."""


def unit_mm(run: Run) -> float | None:
    """Millimetres in a unit of the run as it was reconstructed, by the estimate in use; None while up to scale."""
    value = run.info.get("unit_mm")
    return float(value) if value else None


def log_depth_std(confidence: ArrayLike) -> Float:
    """The standard deviation of the log depth that confidences in (0, 1] stand for."""
    sure = np.clip(np.asarray(confidence, float), 1e-3, 1.0)
    return _HALF_CONFIDENCE_STD * np.sqrt(1 / sure - 1)


@dataclass(frozen=True)
class Cut:
    """How the source's whole picture became the working image: the part `crop` (x, y, width, height), resized."""

    source: tuple[int, int]
    crop: tuple[float, float, float, float]
    size: tuple[int, int]

    @staticmethod
    def of(run: Run) -> Cut:
        """What camera.json says of it.

        Raises:
            InputError: the run has no camera.json.
        """
        if run.camera is None:
            raise InputError(f"the run in '{run.path}' has no camera.json; reconstruct again")
        view = parse_json(read_text(run.path / "camera.json"))["view"]
        source = int(view["source_width"]), int(view["source_height"])
        x, y, w, h = (float(v) for v in view["crop"])
        return Cut(source, (x, y, w, h), (int(view["width"]), int(view["height"])))

    def working(self, pixels: ArrayLike) -> Float:
        """Pixels (..., 2) of the source's picture as those of the working image."""
        x, y, w, h = self.crop
        return (np.asarray(pixels, float) - [x, y]) * np.array(self.size) / [w, h]

    def original(self, pixels: ArrayLike) -> Float:
        """Pixels (..., 2) of the working image as those of the source's picture."""
        x, y, w, h = self.crop
        return np.asarray(pixels, float) * [w, h] / np.array(self.size) + [x, y]

    def check(self, pixels: ArrayLike) -> Float:
        """`working`, of pixels that have to lie inside.

        Raises:
            InputError: one of them lies outside the part that was reconstructed.
        """
        found = self.working(pixels)
        outside = ((np.floor(found) < 0) | (np.floor(found) >= self.size)).any(-1)
        if outside.any():
            u, v = np.asarray(pixels, float).reshape(-1, 2)[int(np.argmax(outside.reshape(-1)))]
            x, y, w, h = self.crop
            raise InputError(
                f"the point ({u:g}, {v:g}) lies outside the part of the image that was reconstructed, "
                f"{x:g} to {x + w:g} by {y:g} to {y + h:g}; pick one inside"
            )
        return found


def check_frame(run: Run, frame: int) -> None:
    """Raise InputError where a frame does not belong to the segment that the trajectory and the mesh show."""
    main = run.info.get("main_segment", 0)
    if any(row.index == frame and row.segment != main for row in run.rows):
        raise InputError(
            f"frame {frame} is not in segment {main}, the one that the trajectory and the mesh show, and each segment "
            "has a unit of its own; pick the points in a frame of that one"
        )


def shown_frames(run: Run) -> list[int]:
    """Indices of the frames that have depth and belong to the segment that the trajectory shows, rising."""
    main = run.info.get("main_segment", 0)
    tracked = {row.index for row in run.rows if row.status == "tracked" and row.segment == main}
    return [index for index in run.depth_indices if index in tracked]


def mean_of_frames(logs: ArrayLike) -> tuple[float, float]:
    """The robust mean of a log a frame (N,), and its standard deviation: the frames' own spread counts as that of a few
    independent ones, as neighbours err alike."""
    values = np.asarray(logs, float)
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle))) if len(values) > 1 else 0.0
    return middle, spread / float(np.sqrt(min(len(values), INDEPENDENT)))


def input_of(run: Run) -> Path:
    """The input that the run was made from, as it was named."""
    return Path(str(run.info.get("config", {}).get("input", ""))).expanduser()


def pictures(path: Path, indices: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Some frames of an input, by their index: (H, W, 3) uint8 RGB.

    Raises:
        InputError: an input that can't be read.
    """
    from video_io.sources import open_source

    wanted, found = set(indices), {}
    for frame in open_source(path).frames():
        if frame.index in wanted:
            found[frame.index] = frame.rgb
        if not wanted or frame.index >= max(wanted):
            break
    return found
