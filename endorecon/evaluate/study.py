"""Sequences measured by protocols: every figure with its interval, as published and corrected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from endorecon.evaluate import protocols as slot
from endorecon.evaluate.bootstrap import Interval, interval
from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Figure, Outcome, Sample, summary
from endorecon.evaluate.protocol import Evaluation, evaluate_case
from video_io.errors import InputError


@dataclass(frozen=True)
class Value:
    """A figure over all sequences, its interval, and the figure of each sequence by name."""

    value: float
    interval: Interval | None
    each: dict[str, float]


@dataclass(frozen=True)
class Row:
    """A line of a protocol's table; None in a column that has nothing to say."""

    figure: Figure
    published: Value | None
    corrected: Value | None


@dataclass(frozen=True)
class Result:
    """What a protocol found.

    Attributes:
        name, about, source: of the protocol.
        rows: its figures.
        outcomes: by sequence.
        skipped: by sequence, why the protocol could not be applied.
    """

    name: str
    about: str
    source: str
    rows: tuple[Row, ...]
    outcomes: dict[str, Outcome]
    skipped: dict[str, str]


@dataclass(frozen=True)
class Study:
    """All of it.

    Attributes:
        cases: the sequences.
        evaluations: the figures of each, by kind of alignment.
        results: of our own protocol, which is always there, and of those asked for.
    """

    cases: tuple[Case, ...]
    evaluations: tuple[Evaluation, ...]
    results: tuple[Result, ...]

    @property
    def standard(self) -> Result:
        return self.results[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: of one run, its `Evaluation` with `protocols`; of several, `runs` and `protocols`."""
        tables = {result.name: _plain(result, self.cases) for result in self.results}
        runs = [
            {**e.to_dict(), "frames_given": c.context, "truth_version": c.truth_version, "notes": notes(c)}
            for c, e in zip(self.cases, self.evaluations, strict=True)
        ]
        return _finite({**runs[0], "protocols": tables} if len(runs) == 1 else {"runs": runs, "protocols": tables})


def notes(case: Case) -> list[str]:
    """What was taken for granted when the predictions were read, and what one has to know of the truth."""
    return [*getattr(case.run, "notes", ()), *case.truth.notes]


def study(cases: Sequence[Case], asked: Sequence[str] = ()) -> Study:
    """Measure sequences by our own protocol and by those asked for.

    Raises:
        InputError: no such protocol, one that fits none of the sequences, or whatever the metrics refuse.
    """
    if len({case.name for case in cases}) < len(cases):
        raise InputError("two of the runs have the same name; rename one folder, as results are told by name")
    modules = {name: slot.protocol(name) for name in dict.fromkeys([slot.STANDARD, *asked])}
    skipped = {name: _skipped(module.NEEDS, cases) for name, module in modules.items()}
    for name, reasons in skipped.items():
        if len(reasons) == len(cases):
            raise InputError(f"there is nothing that protocol '{name}' could measure: {next(iter(reasons.values()))}")
    evaluations = tuple(evaluate_case(case) for case in cases)
    results = []
    for name, module in modules.items():
        outcomes = {case.name: module.measure(case) for case in cases if case.name not in skipped[name]}
        results.append(Result(name, module.ABOUT, module.SOURCE, _rows(outcomes), outcomes, skipped[name]))
    return Study(tuple(cases), evaluations, tuple(results))


def _skipped(needs: Sequence[str], cases: Sequence[Case]) -> dict[str, str]:
    """By sequence, why there is nothing of what a protocol needs."""
    found = {}
    for case in cases:
        reasons = [case.has(need) for need in needs]
        if all(reasons):
            found[case.name] = "; ".join(dict.fromkeys(reasons))
    return found


def _rows(outcomes: dict[str, Outcome]) -> tuple[Row, ...]:
    """The figures in the order of the first sequence that has them; each over the sequences that have it."""
    figures = {f.name: f for outcome in reversed(outcomes.values()) for f in reversed(outcome.figures)}
    rows = []
    for name, figure in reversed(figures.items()):
        same = {n: f for n, o in outcomes.items() for f in o.figures if f.name == name}
        published = {n: f.published for n, f in same.items() if f.published is not None}
        corrected = {n: f.corrected for n, f in same.items() if f.corrected is not None}
        rows.append(Row(figure, _value(published, figure, name), _value(corrected, figure, name)))
    return tuple(rows)


def _value(samples: dict[str, Sample], figure: Figure, name: str) -> Value | None:
    if not samples:
        return None
    for sequence, sample in samples.items():
        if not all(map(math.isfinite, sample.values.tolist())):
            at = next(i for i, v in enumerate(sample.values.tolist()) if not math.isfinite(v))
            raise InputError(f"{name} of {sequence} is no number at value {at} of its {sample.over}; look at that one")
    values = list(samples.values())
    total = summary(values, figure.pool)
    return Value(total, interval(values, figure.pool), {n: s.value for n, s in samples.items()})


def _plain(result: Result, cases: Sequence[Case]) -> dict[str, Any]:
    context = {case.name: case for case in cases}
    return {
        "about": result.about,
        "source": result.source,
        "figures": {row.figure.name: _plain_row(row) for row in result.rows},
        "sequences": {
            name: {
                "alignment": o.alignment,
                "corrected_alignment": o.corrected_alignment,
                "frames": o.frames,
                "frames_in_truth": context[name].truth.frame_count,
                "frames_given": context[name].context,
                "valid_share": o.valid_share,
                "truth": context[name].truth.name,
                "truth_version": context[name].truth_version,
                "notes": list(o.notes),
            }
            for name, o in result.outcomes.items()
        },
        "skipped": result.skipped,
    }


def _plain_row(row: Row) -> dict[str, Any]:
    plain: dict[str, Any] = {"unit": row.figure.unit, "better": row.figure.better, "differs": row.figure.differs}
    for column in ("published", "corrected"):
        if (value := getattr(row, column)) is None:
            plain[column] = None
            continue
        plain[column] = value.value
        plain[f"{column}_by_sequence"] = value.each
        found = value.interval
        plain[f"{column}_interval"] = [found.low, found.high] if found else None
        plain[f"{column}_interval_by"] = found.words if found else None
    return plain


def _finite(value: Any) -> Any:
    """The same with None for what is not finite, as JSON has no word for it."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
