"""The report of a run: one HTML page that needs nothing else, for people and for archives."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from endorecon.run import FrameRow, Run
from endorecon.tracking.observation import Observation, Refused
from endorecon.views import _drawing as draw
from endorecon.views._grades import graded
from rendering.mesh import Mesh, read_ply
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.trajectory import Trajectory

_MOST_PICTURES = 32
_MOST_ROWS = 60
_STAGE_TOTAL = "total"


class ReportView:
    """Keeps a few pictures while the run goes on, and writes the page when it is finished.

    Memory stays flat: whenever there are too many pictures, every other one goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pictures: dict[int, bytes] = {}
        self._every, self._count = 1, 0
        self._last: Frame | None = None

    def started(self, name: str, camera: Camera) -> None:
        pass

    def observed(self, seen: Observation) -> None:
        if self._count % self._every == 0:
            self._pictures[seen.frame.index] = draw.jpeg(seen.frame.rgb)
            if len(self._pictures) > _MOST_PICTURES:
                self._pictures = dict(list(self._pictures.items())[::2])
                self._every *= 2
        self._count += 1
        self._last = seen.frame

    def refused(self, refused: Refused) -> None:
        pass

    def refined(self, trajectory: Trajectory) -> None:
        pass

    def mesh(self, mesh: Mesh) -> None:
        pass

    def finished(self, run: Run) -> None:
        if self._last is not None:
            self._pictures[self._last.index] = draw.jpeg(self._last.rgb)
        write_report(run, self._pictures, self._path)


def write_report(run: Run, pictures: Mapping[int, bytes], path: Path) -> None:
    """Write the page.

    Args:
        run: a run whose files are written.
        pictures: JPEG images of some frames, by frame index.
        path: the page.

    Raises:
        InputError: the page can't be written.
    """
    page = _PAGE.format(
        title=_text(run.name),
        style=_STYLE,
        body="\n".join(
            [
                _head(run),
                _warnings(run),
                _pictures(run, pictures),
                _scene(run),
                _path(run),
                _figures(run),
                _speed_and_camera(run),
                _refused(run.rows),
                _details(run),
            ]
        ),
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"can't write the report '{path}' ({error.strerror}); the rest of the run is there") from error


# -- sections -----------------------------------------------------------------------------------------------------


def _head(run: Run) -> str:
    frames = run.info.get("frames", {})
    tracked, read = frames.get("tracked", 0), frames.get("read", 0)
    model = run.info.get("model", {})
    tiles = [
        ("frames tracked", f"{tracked} of {read}"),
        ("segments", frames.get("segments", 0)),
        ("key frames", frames.get("keyframes", 0)),
        ("length of the path", f"{run.trajectory.length:.4g} {_unit(run)}"),
        (f"depth model, {model.get('licence') or 'licence unknown'}", model.get("name", "")),
    ]
    if verdict := run.info.get("verdict"):
        tiles.insert(0, ("expected error of the path", _expected(verdict)))
    cells = "".join(f"<div><b>{_text(value)}</b><span>{_text(name)}</span></div>" for name, value in tiles)
    source = run.info.get("config", {}).get("input", "")
    return (
        f'<header><h1>{_text(run.name)} <em class="{_text(run.status)}">{_text(run.status)}</em></h1>'
        f"<p>{_text(source)}</p></header><div class='tiles'>{cells}</div>"
        f"<p class='scale'>Scale: {_text(run.info.get('scale', 'up to scale'))}.</p>"
    )


def _expected(verdict: Mapping[str, Any]) -> str:
    """The verdict as a tile shows it: the error that is expected, and its grade."""
    percent = float(verdict.get("path_error_percent", float("inf")))
    words = f"{percent:.2g} %" if np.isfinite(percent) else "unknown"
    return f"{words}, {verdict.get('grade', '')}"


def _warnings(run: Run) -> str:
    sentences = [str(w) for w in run.info.get("warnings", [])]
    if reason := run.info.get("reason"):
        sentences.insert(0, f"The run ended early: {reason}")
    if not sentences:
        return ""
    return "<ul class='warnings'>" + "".join(f"<li>{_text(s)}</li>" for s in sentences) + "</ul>"


def _pictures(run: Run, pictures: Mapping[int, bytes]) -> str:
    have = set(run.depth_indices)
    indices = sorted(index for index in pictures if index in have)
    if not indices:
        return ""
    chosen = list(dict.fromkeys([indices[0], indices[len(indices) // 2], indices[-1]]))
    depths = {index: run.depth(index) for index in chosen}
    values = np.concatenate([depth[(conf > 0) & (depth > 0)][::16] for depth, conf in depths.values()])
    near, far = np.percentile(values, [1, 99]) if len(values) else (1.0, 2.0)
    times = {row.index: row.time_ns / 1e9 for row in run.rows}
    columns = []
    for index in chosen:
        depth, confidence = depths[index]
        columns.append(
            f"<figure>{draw.picture(pictures[index], f'frame {index}')}"
            f"{draw.picture(draw.jpeg(draw.painted_depth(depth, confidence, near, far)), f'depth of frame {index}')}"
            f"{draw.picture(draw.jpeg(draw.painted_confidence(confidence)), f'confidence of frame {index}')}"
            f"<figcaption>frame {index}, {times.get(index, 0):.2f} s</figcaption></figure>"
        )
    legend = (
        f"<p class='legend'>depth <i>{near:.3g}</i><s style='background:{draw.ramp_css(cv2.COLORMAP_TURBO)}'></s>"
        f"<i>{far:.3g} {_unit(run)}</i> &emsp; confidence <i>0</i>"
        f"<s style='background:{draw.ramp_css(cv2.COLORMAP_VIRIDIS)}'></s><i>1</i></p>"
    )
    return f"<h2>Image, depth, confidence</h2><div class='three'>{''.join(columns)}</div>{legend}"


def _scene(run: Run) -> str:
    if run.mesh_path is None or not len(run.trajectory):
        return ""
    mesh = read_ply(run.mesh_path)
    if not len(mesh.faces):
        return ""
    images = [draw.mesh_picture(mesh, run.trajectory.centres, turn) for turn in (0.5, 2.1)]
    views = [f"<figure>{draw.picture(draw.jpeg(image), 'the surface from outside')}</figure>" for image in images]
    note = "The camera's path is blue; surface that faces away is not drawn."
    if (painted := graded(mesh, run)) is not None:
        images = [draw.mesh_picture(painted, run.trajectory.centres, turn) for turn in (0.5, 2.1)]
        views += [f"<figure>{draw.picture(draw.jpeg(image), 'the surface by grade')}</figure>" for image in images]
        note += " Below it is green, amber or red as the poses that saw it can be trusted, grey where none looked."
    return (
        f"<h2>Surface</h2><div class='two'>{''.join(views)}</div><p class='note'>{len(mesh.faces):,} triangles in "
        f"scene/mesh.ply. {note}</p>"
    )


def _path(run: Run) -> str:
    if len(run.trajectory) < 2:
        return ""
    keys = {row.time_ns for row in run.rows if row.is_keyframe}
    marked = [i for i, t in enumerate(run.trajectory.times_ns.tolist()) if t in keys]
    grade = {row.time_ns: row.grade for row in run.rows}
    grades = [grade.get(t, "") for t in run.trajectory.times_ns.tolist()]
    plots = "".join(
        f"<figure>{draw.path_svg(run.trajectory.centres, marked, grades, axes, names, _unit(run))}</figure>"
        for axes, names in (((0, 2), ("x", "z")), ((0, 1), ("x", "y")))
    )
    return (
        f"<h2>Camera path</h2><div class='two'>{plots}</div><p class='note'>The green spot is the start, the red one "
        "the end, small dots are key frames. The path is green, amber or red as its poses can be trusted. The axes are "
        "those of the first key frame's camera: x right, y down, z forward.</p>"
    )


def _figures(run: Run) -> str:
    names = list(dict.fromkeys(name for row in run.rows for name in row.figures))
    times = np.array([row.time_ns / 1e9 for row in run.rows])
    step = max(1, len(times) // 600)
    plots = []
    for name in names:
        values = np.array([row.figures.get(name, np.nan) for row in run.rows], float)
        if np.isfinite(values[::step]).sum() > 1:
            plots.append(draw.series_svg(times[::step], values[::step], name))
    return f"<h2>Quality over time</h2><div class='many'>{''.join(plots)}</div>" if plots else ""


def _speed_and_camera(run: Run) -> str:
    timings = {str(k): float(v) for k, v in run.info.get("timings_s", {}).items()}
    total = timings.get(_STAGE_TOTAL, sum(timings.values()))
    rows = []
    for name, seconds in sorted(timings.items(), key=lambda item: -item[1]):
        if name != _STAGE_TOTAL:
            share = 100 * seconds / total if total else 0
            bar = f"<s class='share' style='width:{min(share, 100):.0f}%'></s>"
            rows.append(f"<tr><td>{_text(name)}<td class='n'>{seconds:.2f} s<td class='wide'>{bar}")
    read = run.info.get("frames", {}).get("read", 0)
    speed = f"{read / total:.1f} frames a second, {total:.1f} s in all" if total and read else "not measured"
    camera = ""
    if run.source_camera is not None:
        values = run.source_camera.to_dict()
        how = "estimated from the images" if run.camera_estimated else "given"
        note = f" ({_text(run.camera_note)})" if run.camera_note else ""
        model = f"{values.pop('model')}, {values.pop('width')} × {values.pop('height')}"
        lines = "".join(f"<tr><td>{_text(k)}<td class='n'>{v:.6g}" for k, v in values.items())
        words = f"{_text(model)} pixels; {how}{note}"
        camera = f"<section><h2>Camera</h2><p class='note'>{words}</p><table>{lines}</table></section>"
    return (
        f"<div class='two'><section><h2>Time</h2><p class='note'>{speed}</p><table>{''.join(rows)}</table></section>"
        f"{camera}</div>"
    )


def _refused(rows: Sequence[FrameRow]) -> str:
    runs = []
    for (status, reason), group in groupby(rows, key=lambda row: (row.status, row.reason)):
        members = list(group)
        if status == "refused":
            runs.append((members[0], members[-1], len(members), reason))
    if not runs:
        return ""
    lines = "".join(
        f"<tr><td class='n'>{_span(first.index, last.index)}<td class='n'>{first.time_ns / 1e9:.2f} s"
        f"<td class='n'>{count}<td>{_text(reason)}"
        for first, last, count, reason in runs[:_MOST_ROWS]
    )
    more = f"<p class='note'>and {len(runs) - _MOST_ROWS} more; see frames.csv</p>" if len(runs) > _MOST_ROWS else ""
    return f"<h2>Refused frames</h2><table><tr><th>frames<th>from<th>count<th>reason{lines}</table>{more}"


def _details(run: Run) -> str:
    shown = {k: v for k, v in run.info.items() if k not in ("warnings", "timings_s", "frames")}
    lines = "".join(f"<tr><td>{_text(name)}<td>{_text(value)}" for name, value in _flat(shown))
    return (
        f"<details><summary>Configuration and versions</summary><table>{lines}</table></details>"
        f"<footer>Open the recording with <code>endorecon view {_text(run.path)}</code></footer>"
    )


# -- words --------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _unit(run: Run) -> str:
    return "mm" if run.unit == "mm" else "units"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_STYLE = """
:root{--ink:#1d2330;--soft:#667085;--paper:#fff;--card:#f5f6f8;--line:#dfe3ea;--blue:#2878c8;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--paper:#16181d;--card:#20242c;--line:#343a46;
--blue:#6cb6ff}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1060px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0;overflow-wrap:anywhere}h2{font-size:18px;margin:34px 0 10px}
header p,.scale,.note,footer,figcaption{color:var(--soft);margin:4px 0;overflow-wrap:anywhere}
h1 em{font:600 13px system-ui;padding:3px 9px;border-radius:9px;background:#e0a100;color:#fff;vertical-align:middle}
h1 em.finished{background:#2e9e5b}h1 em.failed{background:#d0433b}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:18px 0 6px}
.tiles div{background:var(--card);border-radius:10px;padding:10px 14px}.tiles b{display:block;font-size:19px;
overflow-wrap:anywhere}.tiles span{color:var(--soft);font-size:13px}
.warnings{background:#fff4d6;color:#5c4300;border-left:4px solid #e0a100;border-radius:6px;margin:16px 0;
padding:10px 14px 10px 32px}.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:16px}
.many{display:grid;grid-template-columns:repeat(auto-fit,minmax(290px,1fr));gap:14px}
.three{display:grid;grid-template-columns:repeat(3,1fr);gap:12px}figure{margin:0}
img{display:block;width:100%;border-radius:6px;margin-bottom:6px}figcaption{font-size:13px}
svg{width:100%;background:var(--card);border-radius:8px;display:block}svg text{font:11px system-ui;fill:var(--soft)}
.path,.line{fill:none;stroke:var(--blue);stroke-width:1.6}.path.green{stroke:#2e9e5b}.path.amber{stroke:#e0a100}
.path.red{stroke:#d0433b}.key{fill:var(--blue);opacity:.55}.start{fill:#2e9e5b}
.end{fill:#d0433b}.bar{stroke:var(--ink);stroke-width:2}.axis{fill:none;stroke:var(--line)}
.legend{color:var(--soft);font-size:13px}.legend s{display:inline-block;width:120px;height:9px;border-radius:4px;
margin:0 6px;vertical-align:middle}.legend i{font-style:normal}
table{border-collapse:collapse;width:100%;font-size:14px}td,th{text-align:left;padding:4px 8px 4px 0;
border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}th{color:var(--soft);font-weight:500}
.n{font-variant-numeric:tabular-nums;white-space:nowrap}.wide{width:50%}.share{display:block;height:10px;
background:var(--blue);border-radius:4px;margin-top:6px;min-width:1px}
details{margin-top:34px}summary{cursor:pointer;color:var(--soft)}footer{margin-top:26px}code{background:var(--card);
padding:2px 6px;border-radius:5px}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
{body}
</body></html>
"""
