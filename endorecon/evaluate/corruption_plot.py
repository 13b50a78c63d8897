"""The corruption benchmark as a picture: how many times the clean error, by corruption, severity and part; SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from endorecon.evaluate.corruption_results import UNITS, Results, Score, scores
from endorecon.evaluate.corruptions import Plan

_ROW, _COLUMN, _NAMES, _TOP, _GAP = 20, 42, 120, 88, 26
# From as good as clean to ten times as bad, by the logarithm.
_SHADES = ((255, 255, 255), (254, 217, 142), (236, 112, 66), (165, 22, 40), (60, 5, 30))
_WORST = 10.0


def svg(results: Results, plan: Plan) -> str:
    """The picture; one block of columns a part, its last column the mean over the severities."""
    found = scores(results, plan)
    names = [name for name in plan.corruptions if any(name in score.errors for score in found)]
    block = _COLUMN * (len(plan.severities) + 1) + _GAP
    width, height = _NAMES + block * len(found), _TOP + _ROW * (len(names) + 1) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    lines.append(_text(8, 16, "error, times that of the clean clips, by severity"))
    for row, name in enumerate(names):
        lines.append(_text(_NAMES - 8, _TOP + _ROW * (row + 0.7), name.replace("_", " "), "end"))
    lines.append(_text(_NAMES - 8, _TOP + _ROW * (len(names) + 0.7), "mean", "end", bold=True))
    for number, score in enumerate(found):
        lines += _block(score, names, plan.severities, _NAMES + number * block)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _block(score: Score, names: Sequence[str], severities: Sequence[int], left: float) -> list[str]:
    clean = f"{score.clean:.3g}"
    lines = [
        _text(left, 36, score.part, bold=True),
        _text(left, 50, UNITS[score.part]),
        _text(left, 64, f"clean {clean}"),
    ]
    heads = [*(str(s) for s in severities), "mean"]
    lines += [_text(left + _COLUMN * (i + 0.5), _TOP - 7, head, "middle") for i, head in enumerate(heads)]
    for row, name in enumerate(names):
        if name not in score.errors:
            lines.append(_text(left + _COLUMN * len(heads) / 2, _TOP + _ROW * (row + 0.7), "does not apply", "middle"))
            continue
        values = [score.errors[name][s] / score.clean for s in severities] + [score.relative[name]]
        for column, value in enumerate(values):
            lines += _cell(left + _COLUMN * column, _TOP + _ROW * row, value, column == len(severities))
    foot = _TOP + _ROW * len(names)
    lines += _cell(left + _COLUMN * len(severities), foot, score.mean, True)
    return lines


def _cell(x: float, y: float, value: float, bold: bool) -> list[str]:
    red, green, blue = shade(value)
    ink = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 130 else "black"
    label = f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{_COLUMN - 1}" height="{_ROW - 1}" fill="rgb({red},{green},{blue})" '
        'stroke="#ddd"/>',
        _text(x + _COLUMN / 2, y + 0.7 * _ROW, label, "middle", ink, bold),
    ]


def shade(ratio: float) -> tuple[int, int, int]:
    """White for what is not worse than clean, darker with its logarithm."""
    at = min(max(math.log(max(ratio, 1e-9)) / math.log(_WORST), 0.0), 1.0) * (len(_SHADES) - 1)
    low = min(int(at), len(_SHADES) - 2)
    red, green, blue = (
        round(a + (b - a) * (at - low)) for a, b in zip(_SHADES[low], _SHADES[low + 1], strict=True)
    )  # fmt: skip
    return red, green, blue


def _text(x: float, y: float, words: str, anchor: str = "start", ink: str = "black", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{ink}"{weight}>{words}</text>'
