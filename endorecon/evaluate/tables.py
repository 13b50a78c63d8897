"""A study as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io

from endorecon.evaluate.bootstrap import Interval
from endorecon.evaluate.protocol import table
from endorecon.evaluate.study import Result, Row, Study, Value, notes

_MOST_COLUMNS = 5


def number(value: float) -> str:
    """Four significant digits, no exponent where it can be helped."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.{max(0, 5 - len(str(int(abs(value)))))}f}"


def text(study: Study) -> str:
    """What the command prints."""
    one = len(study.cases) == 1
    blocks = [table(study.evaluations[0])] if one else [_sequences(study)]
    for case in study.cases:
        blocks += [f"note: {note}" if one else f"note, {case.name}: {note}" for note in notes(case)]
    for result in study.results:
        if one and result is study.standard:
            blocks.append(_intervals(result))
        else:
            blocks.append(_result(result, study))
    return "\n\n".join(b for b in blocks if b)


def _intervals(result: Result) -> str:
    """The intervals of our own figures of one run, whose values stand above."""
    rows = [r for r in result.rows if r.corrected is not None and r.corrected.interval is not None]
    if not rows:
        return ""
    lines = ["how sure, with one scale for the clip and after the best similarity"]
    for row in rows:
        assert row.corrected is not None
        lines.append(f"  {_label(row):<24}{_cell(row.corrected):>28}")
    lines.append(f"  [ ] {_words(rows)}")
    return "\n".join(lines)


def _words(rows: list[Row]) -> str:
    """How the intervals of these rows were found; block lengths may differ."""
    found = [v.interval for r in rows for v in (r.published, r.corrected) if v is not None and v.interval is not None]
    if found[0].by == "sequences":
        return found[0].words
    lengths = sorted({i.units for i in found})
    span = f"{lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else f"{lengths[0]}"
    return Interval(0, 0, "blocks", 0, found[0].level).words.replace("blocks of 0", f"blocks of {span} frames")


def _sequences(study: Study) -> str:
    lines = [f"{len(study.cases)} sequences"]
    for case, e in zip(study.cases, study.evaluations, strict=True):
        count = f"{e.segments} segment{'s' if e.segments != 1 else ''}"
        lines.append(f"  {case.name} against {e.truth}: {e.frames_main_segment} of {e.frames} frames ({count})")
        lines += [f"    left out: {reason}" for reason in e.left_out]
    return "\n".join(lines)


def _result(result: Result, study: Study) -> str:
    has_published = any(r.published for r in result.rows)
    lines = [f"protocol {result.name}: {result.about}"]
    names = list(result.outcomes) if 1 < len(result.outcomes) <= _MOST_COLUMNS else []
    head = f"  {'':<24}" + (f"{'as published':>28}" if has_published else "") + f"{'corrected':>28}"
    lines.append(head + "".join(f"{name[:14]:>16}" for name in names))
    for row in result.rows:
        line = f"  {_label(row):<24}" + (f"{_cell(row.published):>28}" if has_published else "")
        line += f"{_cell(row.corrected):>28}"
        per = row.published or row.corrected
        lines.append(line + "".join(f"{number(per.each[n]) if per and n in per.each else '':>16}" for n in names))
    if with_interval := [r for r in result.rows for v in (r.published, r.corrected) if v is not None and v.interval]:
        lines.append(f"  [ ] {_words(with_interval)}")
    for differs in dict.fromkeys(r.figure.differs for r in result.rows if r.figure.differs and r.corrected):
        which = ", ".join(r.figure.name for r in result.rows if r.figure.differs == differs)
        lines.append(f"  corrected {which}: {differs}")
    lines += conditions(result, study)
    return "\n".join(lines)


def conditions(result: Result, study: Study) -> list[str]:
    """Under which conditions the figures hold: lines, the same of several sequences once."""
    cases = {case.name: case for case in study.cases}
    found: dict[str, list[str]] = {}
    for name, o in result.outcomes.items():
        case = cases[name]
        said = [("alignment", o.alignment or o.corrected_alignment)]
        if o.alignment and o.corrected_alignment not in (o.alignment, "the same"):
            said.append(("alignment, corrected", o.corrected_alignment))
        said.append(("frames", f"{o.frames} of the truth's {case.truth.frame_count}"))
        said += [("frames given to the model", case.context)]
        if o.valid_share == o.valid_share:
            said.append(("valid share", f"{100 * o.valid_share:.2f} % of the true pixels"))
        said.append(("truth", f"{case.truth.name} ({case.truth_version})"))
        said += [("note", note) for note in o.notes]
        for key, words in said:
            found.setdefault(f"{key}: {words}", []).append(name)
    for name, reason in result.skipped.items():
        found.setdefault(f"skipped: {reason}", []).append(name)
    total = len(result.outcomes) + len(result.skipped)
    return [f"  {words}{'' if len(who) == total else ' [' + ', '.join(who) + ']'}" for words, who in found.items()]


def _label(row: Row) -> str:
    return f"{row.figure.name}, {row.figure.unit}" if row.figure.unit else row.figure.name


def _cell(value: Value | None) -> str:
    if value is None:
        return "-"
    spread = f" [{number(value.interval.low)}, {number(value.interval.high)}]" if value.interval else ""
    return number(value.value) + spread


def as_csv(study: Study) -> str:
    """One line a protocol, sequence (`all` for all of them) and figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["protocol", "sequence", "figure", "unit", "published", "published_low", "published_high", "corrected",
         "corrected_low", "corrected_high", "interval_by", "frames", "frames_in_truth", "valid_share", "frames_given",
         "alignment", "corrected_alignment", "truth", "truth_version"]
    )  # fmt: skip
    cases = {case.name: case for case in study.cases}
    for result in study.results:
        for row in result.rows:
            found = next((v.interval for v in (row.published, row.corrected) if v and v.interval), None)
            frames = sum(o.frames for o in result.outcomes.values())
            line = [result.name, "all", row.figure.name, row.figure.unit, *_three(row.published)]
            writer.writerow([*line, *_three(row.corrected), found.words if found else "", frames, *[""] * 7])
            for name, o in result.outcomes.items():
                values = [
                    f"{v.each[name]:.9g}" if v is not None and name in v.each else ""
                    for v in (row.published, row.corrected)
                ]
                if not any(values):
                    continue
                share = f"{o.valid_share:.6f}" if o.valid_share == o.valid_share else ""
                case = cases[name]
                writer.writerow(
                    [result.name, name, row.figure.name, row.figure.unit, values[0], "", "", values[1], "", "", "",
                     o.frames, case.truth.frame_count, share, case.context, o.alignment, o.corrected_alignment,
                     case.truth.name, case.truth_version]
                )  # fmt: skip
    return out.getvalue()


def _three(value: Value | None) -> list[str]:
    if value is None:
        return ["", "", ""]
    ends = [value.interval.low, value.interval.high] if value.interval else []
    return [f"{v:.9g}" for v in (value.value, *ends)] + [""] * (2 - len(ends))


def as_latex(study: Study) -> str:
    """A table a protocol: figures by column; a line as published, one corrected, and one a sequence (booktabs)."""
    return "\n\n".join(_latex(result, study) for result in study.results) + "\n"


def _latex(result: Result, study: Study) -> str:
    head = " & ".join(
        f"{_tex(_label(r))} ${'uparrow' if r.figure.better == 'higher' else 'downarrow'}$".replace("$up", "$\\up")
        .replace("$down", "$\\down")
        for r in result.rows
    )  # fmt: skip
    lines = [f"% {result.about}"]
    lines += [f"%{line}" for line in conditions(result, study)]
    lines += [f"\\begin{{tabular}}{{l{'r' * len(result.rows)}}}", "\\toprule", f" & {head} \\\\", "\\midrule"]
    for label, column in ((result.name, "published"), ("corrected", "corrected")):
        values = [getattr(row, column) for row in result.rows]
        if not any(values):
            continue
        lines.append(f"{_tex(label)} & " + " & ".join(number(v.value) if v else "--" for v in values) + " \\\\")
        if any(v and v.interval for v in values):
            ends = [
                f"{{\\scriptsize [{number(v.interval.low)}, {number(v.interval.high)}]}}" if v and v.interval else ""
                for v in values
            ]
            lines.append(" & " + " & ".join(ends) + " \\\\")
    if len(result.outcomes) > 1:
        lines.append("\\midrule")
        for name in result.outcomes:
            values = [row.published or row.corrected for row in result.rows]
            cells = [number(v.each[name]) if v and name in v.each else "--" for v in values]
            lines.append(f"{_tex(name)} & " + " & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _tex(words: str) -> str:
    for char in "\\&%$#_{}":
        words = words.replace(char, {"\\": "\\textbackslash "}.get(char, f"\\{char}"))
    return words.replace("delta ", "$\\delta_") + "$" if words.startswith("delta ") else words
