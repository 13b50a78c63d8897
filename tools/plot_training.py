"""Draw the curves of a training run as SVG: python tools/plot_training.py LOG.csv OUT.svg."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

CURVES = (("distance", "#b2182b"), ("gradient", "#2166ac"), ("pose", "#1b7837"), ("focal", "#762a83"))
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 50, 30


def smooth(values: list[float], window: int = 5) -> list[float]:
    """Mean of the last `window` values."""
    return [
        sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1])
        for i in range(len(values))
    ]


def draw(rows: list[dict[str, str]]) -> str:
    """The SVG of loss against minutes, linear axes."""
    minutes = [float(row["seconds"]) / 60 for row in rows]
    top = 0.4
    x = [LEFT + m / minutes[-1] * (WIDTH - LEFT - 10) for m in minutes]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    for tick in (0, 0.1, 0.2, 0.3, 0.4):
        y = HEIGHT - BOTTOM - tick / top * (HEIGHT - BOTTOM - 10)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - 10}" stroke="#ddd"/><text x="18" y="{y + 4:.1f}">{tick}</text>'
        )
    for tick in range(0, int(minutes[-1]) + 1, 10):
        at = LEFT + tick / minutes[-1] * (WIDTH - LEFT - 10)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick} min</text>')
    for number, (name, colour) in enumerate(CURVES):
        values = smooth([min(float(row[name]), top) for row in rows])
        y = [HEIGHT - BOTTOM - v / top * (HEIGHT - BOTTOM - 10) for v in values]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{WIDTH - 90}" y="{24 + 15 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        raise SystemExit(2)
    with Path(sys.argv[1]).open() as file:
        Path(sys.argv[2]).write_text(draw(list(csv.DictReader(file))))
