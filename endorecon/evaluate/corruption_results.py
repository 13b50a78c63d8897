"""Results of the corruption benchmark: kept in a file as they come, and what follows from them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.evaluate.corruptions import Plan

CLEAN = "clean"
DEPTH, RUN = "depth", "run"
# The figure of each part that the score is made of, and which measurement gives it.
SCORED = {
    "depth": ("abs_rel", DEPTH), "pose": ("pose_error_percent", RUN), "surface": ("surface_error_percent", RUN),
}  # fmt: skip
UNITS = {"depth": "AbsRel", "pose": "% of the path", "surface": "100 - F-score, %"}
_RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Item:
    """One measurement: a clip, what is done to it, and what is looked at."""

    clip: str
    corruption: str
    severity: int
    part: str


@dataclass(frozen=True)
class Row:
    """What an item gave: figures by name (see `measure_depth` and `measure_run`), and how long it took."""

    item: Item
    figures: dict[str, float]
    seconds: float
    note: str = ""


@dataclass
class Results:
    """Measured rows, kept in a file as they come, so that a benchmark that was stopped goes on.

    Attributes:
        facts: what the figures depend on besides the items: model, program, seed, frames.
        rows: by item.
    """

    path: Path
    facts: dict[str, Any]
    rows: dict[Item, Row] = field(default_factory=dict)

    @staticmethod
    def open(
        folder: Path, facts: dict[str, Any], clips: dict[str, str] | None = None, overwrite: bool = False
    ) -> Results:
        """Those that the folder holds. `clips` tells by their names what tells them from others.

        Raises:
            InputError: the folder holds results of another model, program, choice of frames or clip of the same name;
                or can't be written.
        """
        path = folder / _RESULTS
        results = Results(path, facts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = path.read_text().splitlines() if path.is_file() and not overwrite else []
            parsed = [line for text in lines if (line := _parsed(text)) is not None]
            if parsed:
                seen = parsed[0].pop("clips")
                _check_facts(path, parsed[0], facts)
                _check_facts(path, {**(clips or {}), **seen}, clips or {})
                clips = seen | (clips or {})
                for line in parsed[1:]:
                    row = Row(Item(**line["item"]), line["figures"], line["seconds"], line["note"])
                    results.rows[row.item] = row
            # Written anew, so that a line that was cut short when the last benchmark was stopped is gone.
            told = [
                json.dumps({**facts, "clips": clips or {}}),
                *(json.dumps(asdict(row)) for row in results.rows.values()),
            ]
            partial = path.with_suffix(".part")
            partial.write_text("\n".join(told) + "\n")
            os.replace(partial, path)
        except OSError as error:
            raise InputError(
                f"can't write results to '{folder}' ({error.strerror or error}); choose another folder with --out"
            ) from error
        except (KeyError, TypeError) as error:
            raise InputError(
                f"'{path}' holds no results of this benchmark; give --overwrite or another folder with --out"
            ) from error
        return results

    def add(self, row: Row) -> None:
        """Keep a row, on disk as well."""
        self.rows[row.item] = row
        with open(self.path, "a") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def mean(self, figure: str, part: str, corruption: str, severity: int, clips: Sequence[str]) -> float:
        """Mean of a figure over those of the clips whose truth allows it; NaN where none does or one is missing yet."""
        rows = [self.rows.get(Item(clip, corruption, severity, part)) for clip in clips]
        if not all(rows):
            return float("nan")
        values = [row.figures[figure] for row in rows if row and figure in row.figures]
        return float(np.mean(values)) if values else float("nan")


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return json.loads(text)
    except ValueError:
        return None  # cut short when the benchmark was stopped


def _check_facts(path: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    for name, value in asked.items():
        if found.get(name) != value:
            raise InputError(
                f"'{path}' holds results of another benchmark ({name} {found.get(name)}, now {value}); "
                "give --overwrite or another folder with --out"
            )


@dataclass(frozen=True)
class Score:
    """How a part fares under the corruptions.

    Attributes:
        part: depth, pose or surface; figure: what is counted of it.
        clean: mean of the figure over the clean clips.
        errors: by corruption and severity, the mean over the clips.
        relative: by corruption, its errors summed over the severities, divided by as many clean ones.
        mean: of `relative` over the corruptions.
    """

    part: str
    figure: str
    clean: float
    errors: dict[str, dict[int, float]]
    relative: dict[str, float]
    mean: float


def scores(results: Results, plan: Plan) -> list[Score]:
    """Of each part, over the corruptions that were measured at every severity asked for."""
    found = []
    for part, (figure, measured) in SCORED.items():
        clean = results.mean(figure, measured, CLEAN, 0, plan.clip_names)
        if measured not in plan.parts or np.isnan(clean):
            continue
        errors = {
            name: {s: results.mean(figure, measured, name, s, plan.clip_names) for s in plan.severities}
            for name in plan.corruptions
        }
        errors = {name: row for name, row in errors.items() if np.isfinite([*row.values()]).all()}
        relative = {name: float(np.mean([*row.values()])) / clean for name, row in errors.items()}
        mean = float(np.mean([*relative.values()])) if relative else float("nan")
        found.append(Score(part, figure, clean, errors, relative, mean))
    return found


def table(results: Results, plan: Plan) -> str:
    """Every part's errors by corruption and severity, as text."""
    lines = []
    for score in scores(results, plan):
        what = f"{score.part}, {UNITS[score.part]}: clean {_number(score.clean)}, corrupted {score.mean:.2f} times that"
        head = "".join(f"{s:>9}" for s in plan.severities)
        lines += [what, f"  {'severity':<16}{head}{'times clean':>13}"]
        for name, row in sorted(score.errors.items(), key=lambda pair: -score.relative[pair[0]]):
            lines.append(
                f"  {name:<16}" + "".join(f"{_number(row[s]):>9}" for s in plan.severities)
                + f"{score.relative[name]:>13.2f}"
            )  # fmt: skip
        lines.append("")
    if RUN in plan.parts:
        lines += [_shares(results, plan, "tracked_share", "frames in the longest segment"), ""]
        lines += [_shares(results, plan, "red_share", "tracked frames that the run itself grades red")]
    return "\n".join(lines).rstrip()


def _shares(results: Results, plan: Plan, figure: str, what: str) -> str:
    """A share by corruption and severity, in %."""
    clean = results.mean(figure, RUN, CLEAN, 0, plan.clip_names)
    lines = [f"{what}, %: clean {100 * clean:.0f}"]
    lines.append(f"  {'severity':<16}" + "".join(f"{s:>9}" for s in plan.severities))
    for name in plan.corruptions:
        shares = [100 * results.mean(figure, RUN, name, s, plan.clip_names) for s in plan.severities]
        if np.isfinite(shares).all():
            lines.append(f"  {name:<16}" + "".join(f"{share:>9.0f}" for share in shares))
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def to_csv(results: Results) -> str:
    """One line a measurement and figure."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["part", "corruption", "severity", "clip", "figure", "value", "note"])
    for item, row in results.rows.items():
        for name, value in row.figures.items():
            out.writerow([item.part, item.corruption, item.severity, item.clip, name, f"{value:.6g}", row.note])
    return text.getvalue()


def to_dict(results: Results, plan: Plan) -> dict[str, Any]:
    """Plain values for JSON: scores, and every measurement."""
    return {
        **results.facts,
        "clips": list(plan.clip_names),
        "scores": [asdict(score) for score in scores(results, plan)],
        "measurements": [asdict(row) for row in results.rows.values()],
    }
