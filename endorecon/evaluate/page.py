"""A study as one HTML page that needs nothing else."""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate import _plots as plot
from endorecon.evaluate.case import Case
from endorecon.evaluate.protocol import Evaluation
from endorecon.evaluate.study import Result, Study, Value, notes
from endorecon.evaluate.tables import conditions, number
from endorecon.evaluate.trajectory import align_poses, angles, position_errors
from endorecon.views import _drawing as draw
from endorecon.views import report
from rendering.mesh import Mesh, nearest_on

Float = NDArray[np.float64]
_KEY = (
    "AbsRel", "delta 1", "ATE (Sim3)", "ATE of the path", "Chamfer", "F-score at 2", "coverage at 2", "PSNR", "SSIM",
)  # fmt: skip
_STYLE = """
.true{fill:none;stroke:var(--ink);stroke-width:1.6;stroke-dasharray:5 3;opacity:.75}.gap{stroke:#e0a100;stroke-width:1;
opacity:.6}.mean{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}.spot{fill:#d0433b}.soft{color:var(--soft)}
.four{display:grid;grid-template-columns:repeat(4,1fr);gap:10px}.four figcaption{min-height:1.5em}
td.n,th.n{text-align:right;padding-right:14px}
.tiles b small{display:block;font-size:12px;font-weight:400;color:var(--soft)}
.key{display:inline-block;width:22px;border-top:2px solid var(--blue);vertical-align:middle;margin:0 5px}
.key.dash{border-top:2px dashed var(--ink);opacity:.75}h3{font-size:15px;margin:22px 0 6px;font-weight:600}
.scroll{overflow-x:auto}
"""


def page(study: Study) -> str:
    """The page: figures, protocols, and for each sequence errors over time, error maps, path and surface."""
    names = ", ".join(case.name for case in study.cases)
    body = [f"<header><h1>Evaluation of {_text(names)}</h1>{_against(study)}</header>", _tiles(study.standard)]
    for case, evaluation in zip(study.cases, study.evaluations, strict=True):
        if len(study.cases) > 1:
            body.append(f"<h2>{_text(case.name)}</h2>")
        body += [_left_out(case, evaluation), _over_time(case), _maps(case), _path(case), _surface(case)]
    body.append("<h2>All figures</h2>")
    body += [_table(result, study) for result in study.results]
    title = f"Evaluation of {names}"
    return report._PAGE.format(title=_text(title), style=report._STYLE + _STYLE, body="\n".join(b for b in body if b))


def _against(study: Study) -> str:
    truths = dict.fromkeys(f"{case.truth.name} ({case.truth_version})" for case in study.cases)
    context = dict.fromkeys(case.context for case in study.cases)
    return f"<p>Truth: {_text('; '.join(truths))}. Frames given to the model: {_text('; '.join(context))}.</p>"


def _tiles(result: Result) -> str:
    cells = ""
    for row in result.rows:
        if row.figure.name in _KEY and row.corrected is not None:
            name = row.figure.name + (f", {row.figure.unit}" if row.figure.unit else "")
            spread = ""
            if (i := row.corrected.interval) is not None:
                spread = f" <small>[{number(i.low)}, {number(i.high)}]</small>"
            cells += f"<div><b>{number(row.corrected.value)}{spread}</b><span>{_text(name)}</span></div>"
    return f"<div class='tiles'>{cells}</div>" if cells else ""


def _left_out(case: Case, evaluation: Evaluation) -> str:
    said = [f"left out: {reason}" for reason in evaluation.left_out] + notes(case)
    if evaluation.segments > 1:
        said.append(
            f"the longest of {evaluation.segments} segments alone is measured: {evaluation.frames_main_segment} of "
            f"{evaluation.frames} frames"
        )
    return "<ul class='warnings'>" + "".join(f"<li>{_text(s)}</li>" for s in said) + "</ul>" if said else ""


def _seconds(case: Case, numbers: Float) -> tuple[Float, str]:
    """Where frames of the truth lie on the time axis, and its unit."""
    path = case.truth.trajectory
    if path is None:
        return numbers.astype(float), "frames"
    return path.times_ns[numbers] / 1e9, "s"


def _depth_rows(case: Case) -> tuple[NDArray[np.int64], Float, float]:
    """Numbers of the frames, their AbsRel, and the one scale of the clip."""
    rows = case.depth_rows["clip"]
    return case.depth_numbers, rows.values[:, 0], float(rows.scales[0])


def _over_time(case: Case) -> str:
    plots = []
    if not case.has("depth"):
        numbers, error, _ = _depth_rows(case)
        if len(numbers) > 1:
            x, unit = _seconds(case, numbers)
            plots.append(plot.error_svg(x, error, "depth, AbsRel", "", unit, _chosen(error)))
    if not case.has("path"):
        ours, theirs = case.paths()
        x = theirs.times_ns / 1e9
        positions, _ = position_errors(ours, theirs)
        plots.append(plot.error_svg(x, positions, "position after the best similarity", case.unit or "units", "s"))
        turned = align_poses(ours, theirs).rotation @ ours.world_from_cam[:, :3, :3]
        rotations = angles(turned.transpose(0, 2, 1) @ theirs.world_from_cam[:, :3, :3])
        plots.append(plot.error_svg(x, np.degrees(rotations), "orientation", "deg", "s"))
    return f"<h2>Errors over time</h2><div class='many'>{''.join(plots)}</div>" if plots else ""


def _chosen(error: Float) -> dict[str, int]:
    """Positions of the worst, the median and the best frame."""
    order = np.argsort(error, kind="stable")
    return {"worst": int(order[-1]), "median": int(order[len(order) // 2]), "best": int(order[0])}


def _maps(case: Case) -> str:
    if case.has("depth"):
        return ""
    numbers, error, scale = _depth_rows(case)
    wanted = {int(numbers[i]): (word, float(error[i])) for word, i in reversed(_chosen(error).items())}
    frames = {f.number: f for f in case.depth_frames() if f.number in wanted}
    shown = {n: (*f.prediction(), f.truth) for n, f in frames.items()}
    depths = np.concatenate([t[t > 0][::32] for _, _, t in shown.values()])
    near, far = np.percentile(depths, [1, 99])
    shares = np.concatenate([(np.abs(d * scale - t)[m & (t > 0)] / t[m & (t > 0)])[::32] for d, m, t in shown.values()])
    most = plot.nice_ceiling(float(np.percentile(shares, 95)))
    rows = []
    for n, (word, value) in sorted(wanted.items(), key=lambda item: -item[1][1]):
        d, valid, t = shown[n]
        pictures = [("image", case.true_image(n))] if case.has_images else []
        pictures += [
            ("predicted depth", draw.painted_depth(d * scale, valid.astype(np.float32), near, far)),
            ("true depth", draw.painted_depth(t, (t > 0).astype(np.float32), near, far)),
            ("relative error", plot.painted_error(d * scale, t, valid & (t > 0), most)),
        ]
        cells = "".join(
            f"<figure>{draw.picture(draw.jpeg(plot.reduced(image), 90), name)}<figcaption>{name}</figcaption></figure>"
            for name, image in pictures
        )
        rows.append(f"<h3>{word}: frame {n}, AbsRel {value:.4f}</h3><div class='four'>{cells}</div>")
    legend = (
        f"<p class='legend'>depth <i>{near:.3g}</i><s style='background:{draw.ramp_css(draw.cv2.COLORMAP_TURBO)}'></s>"
        f"<i>{far:.3g} {case.unit}</i> &emsp; relative error <i>0</i>"
        f"<s style='background:{draw.ramp_css(plot.ERROR_COLORS)}'></s><i>{100 * most:g} %</i> &emsp; grey: none</p>"
    )
    return f"<h2>Error maps</h2>{''.join(rows)}{legend}"


def _path(case: Case) -> str:
    if case.has("path"):
        return ""
    ours, theirs = case.paths()
    _, fit = position_errors(ours, theirs)
    # as the first true camera sees it: x to the right, z ahead, y down
    first = np.linalg.inv(theirs.world_from_cam[0])
    a, b = (p @ first[:3, :3].T + first[:3, 3] for p in (fit.apply(ours.centres), theirs.centres))
    unit = case.unit or "units"
    above = plot.paths_svg(a[:, [0, 2]], b[:, [0, 2]], True, ("right", "ahead"), unit)
    behind = plot.paths_svg(a[:, [0, 1]], b[:, [0, 1]], False, ("right", "down"), unit)
    return (
        f"<h2>Camera path</h2><div class='two'><figure>{above}<figcaption>from above</figcaption></figure>"
        f"<figure>{behind}<figcaption>from behind</figcaption></figure></div><p class='note'><s class='key'></s>"
        f"estimated, after the best similarity (scale {fit.scale:.4g}); <s class='key dash'></s>true, green to red; "
        "amber lines join the same moments. Directions are those of the first true camera.</p>"
    )


def _surface(case: Case) -> str:
    if case.has("surface"):
        return ""
    ours, truth, d = case.aligned_mesh, case.true_mesh, case.distances
    most = plot.nice_ceiling(float(np.percentile(np.concatenate([d.accuracy, d.completeness]), 90)))
    assert case.truth.trajectory is not None
    poses = (case.paths()[1] if len(case.run.trajectory) else case.truth.trajectory).world_from_cam
    path = poses[:, :3, 3]
    near, seen = _near_seen(case)
    there = np.where(seen, nearest_on(ours, near.vertices).distance, np.nan)
    pictures = []
    shown = np.concatenate([case.seen.points[::5], ours.vertices[:: max(1, len(ours.vertices) // 20_000)]])
    views = plot.eyes(shown, path, poses, (0.0, 1.1))
    for name, mesh, values in (
        ("the estimated surface: distance to the true one", ours, nearest_on(truth, ours.vertices).distance),
        ("the true surface: distance to the estimated one", near, there),
    ):
        for eye in views:
            image = draw.jpeg(plot.surface_picture(mesh, values, most, eye, path), 90)
            pictures.append(f"<figure>{draw.picture(image, name)}<figcaption>{name}</figcaption></figure>")
    legend = (
        f"<p class='legend'>distance <i>0</i><s style='background:{draw.ramp_css(plot.DISTANCE_COLORS)}'></s>"
        f"<i>{most:g} {case.unit or 'units'} and more</i> &emsp; grey: never in view &emsp; white: the true path; seen "
        "as the cameras looked, from farther back, and from the side; surface that faces away is not drawn</p>"
    )
    return f"<h2>Surface</h2><div class='two'>{''.join(pictures)}</div>{legend}"


def _near_seen(case: Case) -> tuple[Mesh, NDArray[np.bool_]]:
    """The part of the true surface that lies near what was seen, and which of its vertices were in view."""
    from scipy.spatial import cKDTree

    mesh, seen = case.true_mesh, case.seen
    spacing = np.sqrt(seen.share * float(mesh.face_areas.sum()) / max(len(seen.points), 1))
    distance = cKDTree(seen.points).query(mesh.vertices)[0]
    edge = float(np.median(np.linalg.norm(mesh.vertices[mesh.faces[:, 0]] - mesh.vertices[mesh.faces[:, 1]], axis=1)))
    reach = 0.15 * float(np.linalg.norm(np.ptp(seen.points, axis=0)))
    keep = (distance < reach)[mesh.faces].all(1)
    return mesh.with_faces(keep), distance[np.unique(mesh.faces[keep])] < 2 * max(spacing, edge)


def _table(result: Result, study: Study) -> str:
    published = any(row.published for row in result.rows)
    names = list(result.outcomes) if 1 < len(result.outcomes) <= 6 else []
    head = "<tr><th>figure" + ("<th class='n'>as published" if published else "") + "<th class='n'>corrected"
    head += "".join(f"<th class='n'>{_text(name)}" for name in names)
    lines = []
    for row in result.rows:
        f = row.figure
        label = f"{f.name}, {f.unit}" if f.unit else f.name
        line = f"<tr><td>{_text(label)} {'↑' if f.better == 'higher' else '↓'}"
        line += f"<td class='n'>{_cell(row.published)}" if published else ""
        line += f"<td class='n'>{_cell(row.corrected)}"
        per = row.published or row.corrected
        line += "".join(f"<td class='n'>{number(per.each[n]) if per and n in per.each else ''}" for n in names)
        lines.append(line)
    differs = dict.fromkeys(r.figure.differs for r in result.rows if r.figure.differs and r.corrected)
    said = [f"corrected: {words}" for words in differs] + [line.strip() for line in conditions(result, study)]
    intervals = dict.fromkeys(
        v.interval.words for r in result.rows for v in (r.published, r.corrected) if v is not None and v.interval
    )
    said += [f"[ ]: {words}" for words in list(intervals)[:1]]
    items = "".join(f"<li>{_text(s)}</li>" for s in said)
    return (
        f"<h3>{_text(result.name)}: {_text(result.about)}</h3><div class='scroll'><table>{head}{''.join(lines)}</table>"
        f"</div><ul class='note'>{items}<li>{_text(result.source)}</li></ul>"
    )


def _cell(value: Value | None) -> str:
    if value is None:
        return "–"
    if value.interval is None:
        return number(value.value)
    ends = f"[{number(value.interval.low)}, {number(value.interval.high)}]"
    return f"{number(value.value)} <span class='soft'>{ends}</span>"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
