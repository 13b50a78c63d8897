"""The brightness audit: how much of a model's depth follows the light and not the shape.

The same places are shown under other light, other paint and other exposure (`light_conditions`), and what the model
says of them is compared with the truth and with what it says under the usual light. A model that reads shape alone says
the same every time.

The slope tells the direction. Where a network turns brightness into distance by the inverse square law, light that is
e times as bright makes it say e^-1/2 of the distance: slope -0.5. It is the least squares slope of the change of log
depth by the change of log light, over the pixels, each picture's means taken out, so that neither a depth's unknown
scale nor the exposure counts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.depth import depth_figures
from endorecon.evaluate.light_conditions import CONDITIONS, STANDARD, Condition, Place, Shown
from video_io.frame import Frame

if TYPE_CHECKING:
    from foundation_adapters.estimator import Estimator

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int | None], None]

# Light below this share of the picture's median is black in the picture, whatever it is.
DARKEST = 0.01
# Where light differs by less than this (of its log), it moves nothing whose slope could be told.
LEAST_CHANGE = 0.1
_LEAST_Z = 1e-3  # of a unit ray, and of a depth
_WORDS = {"light": "other light", "tissue": "other paint", "camera": "other exposure"}


@dataclass(frozen=True)
class Row:
    """What a model says under a condition, means over the places.

    Attributes:
        condition, about, group: of the condition.
        abs_rel: of its depth against the truth, each picture scaled by the ratio of medians.
        light: root mean square change of log light against the usual light, each picture's mean taken out.
        change: root mean square change of the log of its depth against what it says in the usual light, likewise.
        scale: mean absolute change of the log of its median depth.
        slope: of the change of log depth by the change of log light; NaN where the light hardly changes.
        share: of the change of log depth, as variance, that a line by the change of log light accounts for.
    """

    condition: str
    about: str
    group: str
    abs_rel: float
    light: float
    change: float
    scale: float
    slope: float
    share: float


@dataclass(frozen=True)
class Audit:
    """The audit of a model.

    Attributes:
        model: name, with its adapter.
        scenes: what it was shown.
        places: how many.
        rows: a condition each, the usual light first.
    """

    model: str
    scenes: tuple[str, ...]
    places: int
    rows: tuple[Row, ...]

    def figures(self) -> dict[str, dict[str, float]]:
        """By group of conditions: mean AbsRel as a multiple of the usual light's, mean change, and the slope, whose
        weights are the changes of light."""
        usual = self.rows[0].abs_rel
        found = {}
        for group in _WORDS:
            rows = [row for row in self.rows if row.group == group]
            if not rows:
                continue
            told = [(row.slope, row.light**2) for row in rows if math.isfinite(row.slope)]
            slope = sum(s * w for s, w in told) / sum(w for _, w in told) if told else math.nan
            found[group] = {
                "times_abs_rel": float(np.mean([row.abs_rel for row in rows])) / usual if usual else math.nan,
                "change": float(np.mean([row.change for row in rows])),
                "slope": slope,
            }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None where there is no number."""
        return {
            "model": self.model, "scenes": list(self.scenes), "places": self.places,
            "groups": {k: _plain(v) for k, v in self.figures().items()}, "rows": [_plain(asdict(r)) for r in self.rows],
        }  # fmt: skip

    def csv(self) -> str:
        """A line a condition."""
        rows = [_plain(asdict(row)) for row in self.rows]
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return text.getvalue()

    def text(self) -> str:
        """A table for the terminal."""
        heads = ("condition", "AbsRel", "light", "depth", "scale", "slope", "share")
        lines = [
            f"brightness audit of {self.model}: {self.places} places in {len(self.scenes)} scenes",
            f"{heads[0]:<14}" + "".join(f"{h:>9}" for h in heads[1:]),
        ]
        for r in self.rows:
            first = r.condition == STANDARD
            values = [r.abs_rel] + [math.nan if first else v for v in (r.light, r.change, r.scale, r.slope, r.share)]
            lines.append(f"{r.condition:<14}" + "".join(f"{_cell(v, k):>9}" for k, v in enumerate(values)))
        for group, found in self.figures().items():
            slope = "" if math.isnan(found["slope"]) else f", slope {found['slope']:+.3f}"
            lines.append(
                f"{_WORDS[group]}: AbsRel {found['times_abs_rel']:.2f} times the usual, depth moves by "
                f"{100 * found['change']:.1f} %{slope}"
            )
        lines.append("light, depth: rms change of the log; slope: of log depth by log light, 0 shape, -0.5 light alone")
        return "\n".join(lines)


@dataclass(frozen=True)
class Seen:
    """A place under a condition with what the model said, for the picture.

    Attributes:
        shown: the picture.
        depth: (H, W), as the model said it, its median that of the truth.
        truth: (H, W), 0 where there is none.
    """

    place: Place
    condition: Condition
    shown: Shown
    depth: Float32
    truth: Float32


def audit(
    places: Iterable[Place],
    estimator: Estimator,
    conditions: Sequence[Condition] = CONDITIONS,
    progress: Progress = lambda *_: None,
    total: int | None = None,
    watch: Callable[[Seen], None] = lambda _: None,
) -> Audit:
    """Show places under all conditions to a model.

    Args:
        conditions: the first is the usual light.
        progress: called with "audit", places done, and `total`.
        watch: is shown everything, place by place.

    Raises:
        ValueError: the first condition is not the usual light; no place.
    """
    if not conditions or conditions[0].name != STANDARD:
        raise ValueError(f"the first condition is to be '{STANDARD}'")
    sums: list[list[Float]] = [[] for _ in conditions]
    scenes: list[str] = []
    for number, place in enumerate(places, 1):
        scenes.append(place.scene)
        # A depth is said of all that the lens sees.
        seen = (place.depth > 0) & (np.nan_to_num(place.camera.ray_map()[..., 2]) > _LEAST_Z)
        truth = place.depth[seen]
        before: tuple[Float, Float] | None = None
        for condition, found in zip(conditions, sums, strict=True):
            shown = place.show(condition)
            depth = estimator.estimate([Frame.of(shown.rgb, 0, 0, place.camera)]).depth[0]
            said = np.maximum(depth[seen].astype(np.float64), _LEAST_Z)
            log_depth, log_light = np.log(said), _log_light(shown.light[seen])
            before = before or (log_depth, log_light)
            found.append(_figures(said, truth, log_depth - before[0], log_light - before[1]))
            scale = np.median(truth) / np.median(said)
            watch(Seen(place, condition, shown, np.where(seen, depth * scale, 0).astype(np.float32), place.depth))
        progress("audit", number, total)
    if not scenes:
        raise ValueError("an audit needs a place to look at")
    rows = tuple(_row(condition, np.array(found)) for condition, found in zip(conditions, sums, strict=True))
    return Audit(estimator.name, tuple(dict.fromkeys(scenes)), len(scenes), rows)


def _log_light(light: Float32) -> Float:
    usual = float(np.median(light))
    return np.log(np.maximum(light.astype(np.float64), DARKEST * max(usual, 1e-30)))


def _figures(said: Float, truth: Float32, depth: Float, light: Float) -> Float:
    """AbsRel, |change of scale|, and the second moments of the changes: depth, light, both."""
    scale = float(np.median(depth))
    d, b = depth - depth.mean(), light - light.mean()
    error = depth_figures(said * (np.median(truth) / np.median(said)), truth)[0]
    return np.array([error, abs(scale), (d * d).mean(), (b * b).mean(), (d * b).mean()])


def _row(condition: Condition, found: Float) -> Row:
    error, scale, dd, bb, db = found.mean(0).tolist()
    told = math.sqrt(bb) > LEAST_CHANGE
    return Row(
        condition.name, condition.about, condition.group, error, math.sqrt(bb), math.sqrt(dd), scale,
        db / bb if told else math.nan, db * db / (bb * dd) if told and dd > 0 else math.nan,
    )  # fmt: skip


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _cell(value: float, column: int) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:+.3f}" if column == 4 else f"{value:.2f}" if column == 5 else f"{value:.3f}"
