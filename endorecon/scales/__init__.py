"""What can tell a run's scale, a file each with a function `measure(run, ...) -> ScaleEstimate`; and what
becomes of a run once it is known: every length in it is brought to millimetres.

A monocular video has no scale. Each estimate that was ever made stays listed in run.yaml with its interval and its
disagreement from the one in use, which is the surest. One that is too vague to be used is listed all the same, and the
run stays up to scale.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from endorecon.run import Run, RunWriter, read_run
from endorecon.scales.base import ScaleEstimate, unit_mm
from video_io.errors import InputError

__all__ = ["ScaleEstimate", "add_estimate", "estimates", "lines"]
_STAGING = ".scaling"
# An estimate that is vaguer than this (standard deviation of its log) brings no run to millimetres; two that lie apart
# by more than so many standard deviations contradict each other.
MOST_LOG_STD, CONTRADICT = 0.3, 2.5
UNKNOWN, _VAGUE = "up to scale: nothing tells the length of its unit", " (too vague to be used: "


def estimates(run: Run) -> tuple[ScaleEstimate, ...]:
    """The estimates that run.yaml lists, the surest first."""
    listed = [
        ScaleEstimate(str(e["source"]), float(e["mm_per_unit"]), float(e["log_std"]))
        for e in run.info.get("scale_estimates", ())
    ]
    return tuple(sorted(listed, key=lambda e: e.log_std))


def add_estimate(run: Run, *made: ScaleEstimate) -> Run:
    """List estimates in run.yaml; by the surest of all that are listed, bring the run's lengths to millimetres.

    Trajectory, depth and mesh are written anew beside the old ones, which they replace at the end. The pictures of
    recording and report stay as they are, in the unit of the reconstruction; the report tells its length.

    Args:
        run: finished.
        made: in millimetres per unit of the run as it was reconstructed.

    Returns:
        The run, read again.

    Raises:
        InputError: the run is not finished, already in millimetres by its poses, or can't be written.
    """
    if run.status not in ("finished", "interrupted") or not len(run.trajectory):
        raise InputError(f"the run in '{run.path}' is not finished (status: {run.status}); reconstruct again")
    if run.unit == "mm" and unit_mm(run) is None:
        raise InputError(f"the run in '{run.path}' is in millimetres already ({run.info['scale']})")
    new = {e.source for e in made}
    listed = sorted([*(e for e in estimates(run) if e.source not in new), *made], key=lambda e: e.log_std)
    used = listed[0] if listed and listed[0].log_std <= MOST_LOG_STD else None
    factor = (used.mm_per_unit if used else 1.0) / (unit_mm(run) or 1.0)
    if factor != 1.0:
        _rescale(run, factor)
    info = {
        **_with_light(run.info, factor),
        "unit": "mm" if used else "up to scale",
        "unit_mm": used.mm_per_unit if used else None,
        "scale": in_words(listed, used, str(run.info.get("scale", ""))),
        "scale_estimates": _listing(listed, used),
    }
    _replace(run.path / "run.yaml", yaml.safe_dump(info, sort_keys=False, allow_unicode=True, width=110))
    if run.report_path is not None:
        page = run.report_path.read_text(encoding="utf-8")
        told = f"<p class='scale'>{_for_report(listed, used, info['scale'])}</p>"
        _replace(run.report_path, re.sub(r"<p class='scale'>.*?</p>", lambda _: told, page, count=1, flags=re.DOTALL))
    return read_run(run.path)


def in_words(listed: Sequence[ScaleEstimate], used: ScaleEstimate | None, before: str = "") -> str:
    """Where the scale comes from, for run.yaml: begins with "mm" or "up to scale"; `before` is what it was."""
    if used is None:
        vague = "; ".join(f"{e.source}: {_interval(e)}" for e in listed)
        unknown = before.split(_VAGUE)[0] if before.startswith("up to scale") else UNKNOWN
        return unknown + (f"{_VAGUE}{vague})" if vague else "")
    others = [e for e in listed if e is not used]
    off = ", ".join(f"{e.source}: {_off(e, used):+.2g} %" for e in others)
    words = f"mm: {used.source}, give or take {100 * used.log_std:.2g} %" + (f" (others differ: {off})" if off else "")
    if against := [e.source for e in others if e.misses(used) > CONTRADICT]:
        words += f"; contradicted by {' and '.join(against)}: one of them is wrong"
    return words


def lines(listed: Sequence[ScaleEstimate]) -> list[str]:
    """A line an estimate: its value, its interval, its disagreement from the first, where it comes from."""
    return [
        f"{e.mm_per_unit:.4g} mm a unit, {_interval(e)}, {_off(e, listed[0]):+.2f} % from the first: {e.source}"
        for e in listed
    ]


def _listing(listed: Sequence[ScaleEstimate], used: ScaleEstimate | None) -> list[dict[str, object]]:
    """The estimates as run.yaml has them."""
    first = used or (listed[0] if listed else None)
    return [
        {
            "source": e.source,
            "mm_per_unit": round(e.mm_per_unit, 9),
            "log_std": round(e.log_std, 6),
            "interval_90": [round(v, 9) for v in e.interval],
            "disagreement_percent": round(_off(e, first), 3),
            "contradicts": e.misses(first) > CONTRADICT,
        }
        for e in listed
        if first is not None
    ]


def _for_report(listed: Sequence[ScaleEstimate], used: ScaleEstimate | None, words: str) -> str:
    said = f"Scale: {words}."
    if used is not None:
        said += f" A unit on this page is {used.mm_per_unit:.4g} mm."
    told = [said, *(lines(listed) if len(listed) > 1 else ())]
    return "<br>".join(html.escape(line, quote=False) for line in told)


def _off(e: ScaleEstimate, other: ScaleEstimate) -> float:
    return 100 * (e.mm_per_unit / other.mm_per_unit - 1)


def _interval(e: ScaleEstimate) -> str:
    low, high = e.interval
    return f"{low:.3g} to {high:.3g} with 90 % probability"


def _with_light(info: dict[str, Any], factor: float) -> dict[str, Any]:
    """The values of run.yaml with the depth that the Gaussians' light is told for, in the new unit."""
    light = (info.get("splats") or {}).get("light")
    if not light:
        return info
    return {**info, "splats": {**info["splats"], "light": {**light, "usual_depth": light["usual_depth"] * factor}}}


def _replace(path: Path, text: str) -> None:
    """Write a file so that it changes at once or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"can't write '{path}' ({error.strerror}); free some space and try again") from error


def _rescale(run: Run, factor: float) -> None:
    """All lengths of the run times a factor. Nothing changes before everything is written."""
    from rendering.mesh import read_mesh

    staging = run.path / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        writer = RunWriter(staging, {})
        for index in run.depth_indices:
            depth, confidence = run.depth(index)
            writer.depth(index, depth * np.float32(factor), confidence)
        poses = run.trajectory.world_from_cam.copy()
        poses[:, :3, 3] *= factor
        replace(run.trajectory, world_from_cam=poses).write_tum(staging / "trajectory.tum")
        if run.mesh_path is not None:
            writer.mesh(read_mesh(run.mesh_path).transformed(np.eye(4), factor))
            _rescale_splats(run.path / "scene", staging / "scene", factor)
        _swap(run.path, staging, ["depth", "trajectory.tum"] + (["scene"] if run.mesh_path is not None else []))
    except OSError as error:
        raise InputError(f"can't write to '{run.path}' ({error.strerror}); free some space and try again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _rescale_splats(scene: Path, staging: Path, factor: float) -> None:
    if not (scene / "splats.ply").is_file():
        return
    from endorecon.scenes._motion import FILE, read_motion, write_motion
    from endorecon.scenes._splat_gloss import FILE as GLOSS
    from endorecon.scenes._splat_model import read_splats, write_splats

    splats = read_splats(scene / "splats.ply")
    for path in sorted(scene.glob("splats.*")):
        write_splats(splats.scaled(factor), staging / path.name)
    if (scene / FILE).is_file():
        write_motion(read_motion(splats, scene / FILE).scaled(factor), staging / FILE)
    if (scene / GLOSS).is_file():
        shutil.copyfile(scene / GLOSS, staging / GLOSS)  # directions and strengths have no unit


def _swap(folder: Path, staging: Path, names: Sequence[str]) -> None:
    """Put what is in `staging` in the place of what `folder` has under the same names: all of them, or none."""
    moved: list[tuple[Path, Path]] = []
    try:
        for name in names:
            for source, target in ((folder / name, staging / f"old_{name}"), (staging / name, folder / name)):
                source.rename(target)
                moved.append((source, target))
    except OSError:
        for source, target in reversed(moved):
            target.rename(source)
        raise
