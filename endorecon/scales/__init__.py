"""What can tell a run's scale, a file each with a function `measure(run, ...) -> ScaleEstimate`; and what
becomes of a run once it is known: every length in it is brought to millimetres.

A monocular video has no scale. Each estimate that was ever made stays listed in run.yaml with its disagreement from the
one in use, which is the surest.
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

__all__ = ["ScaleEstimate", "add_estimate", "estimates"]
_STAGING = ".scaling"


def estimates(run: Run) -> tuple[ScaleEstimate, ...]:
    """The estimates that run.yaml lists, the surest first."""
    listed = [
        ScaleEstimate(str(e["source"]), float(e["mm_per_unit"]), float(e["log_std"]))
        for e in run.info.get("scale_estimates", ())
    ]
    return tuple(sorted(listed, key=lambda e: e.log_std))


def add_estimate(run: Run, estimate: ScaleEstimate) -> Run:
    """List an estimate in run.yaml; if it is the surest, bring the run's lengths to millimetres by it.

    Trajectory, depth and mesh are written anew beside the old ones, which they replace at the end. The pictures of
    recording and report stay as they are, in the unit of the reconstruction; the report tells its length.

    Args:
        run: finished.
        estimate: in millimetres per unit of the run as it was reconstructed.

    Returns:
        The run, read again.

    Raises:
        InputError: the run is not finished, already in millimetres by its poses, or can't be written.
    """
    if run.status not in ("finished", "interrupted") or not len(run.trajectory):
        raise InputError(f"the run in '{run.path}' is not finished (status: {run.status}); reconstruct again")
    if run.unit == "mm" and unit_mm(run) is None:
        raise InputError(f"the run in '{run.path}' is in millimetres already ({run.info['scale']})")
    listed = sorted([*(e for e in estimates(run) if e.source != estimate.source), estimate], key=lambda e: e.log_std)
    used = listed[0]
    factor = used.mm_per_unit / (unit_mm(run) or 1.0)
    if factor != 1.0:
        _rescale(run, factor)
    others = [e for e in listed if e is not used]
    info = {
        **_with_light(run.info, factor),
        "unit": "mm",
        "unit_mm": used.mm_per_unit,
        "scale": f"mm: {used.source}, give or take {100 * used.log_std:.2g} %" + _disagreement(used, others),
        "scale_estimates": [
            {
                "source": e.source,
                "mm_per_unit": round(e.mm_per_unit, 9),
                "log_std": round(e.log_std, 6),
                "disagreement_percent": round(100 * (e.mm_per_unit / used.mm_per_unit - 1), 3),
            }
            for e in listed
        ],
    }
    _replace(run.path / "run.yaml", yaml.safe_dump(info, sort_keys=False, allow_unicode=True, width=110))
    if run.report_path is not None:
        line = f"Scale: {info['scale']}. A unit on this page is {used.mm_per_unit:.4g} mm."
        page = run.report_path.read_text(encoding="utf-8")
        told = f"<p class='scale'>{html.escape(line, quote=False)}</p>"
        _replace(run.report_path, re.sub(r"<p class='scale'>.*?</p>", lambda _: told, page, count=1, flags=re.DOTALL))
    return read_run(run.path)


def _with_light(info: dict[str, Any], factor: float) -> dict[str, Any]:
    """The values of run.yaml with the depth that the Gaussians' light is told for, in the new unit."""
    light = (info.get("splats") or {}).get("light")
    if not light:
        return info
    return {**info, "splats": {**info["splats"], "light": {**light, "usual_depth": light["usual_depth"] * factor}}}


def _disagreement(used: ScaleEstimate, others: Sequence[ScaleEstimate]) -> str:
    if not others:
        return ""
    off = ", ".join(f"{e.source}: {100 * (e.mm_per_unit / used.mm_per_unit - 1):+.2g} %" for e in others)
    return f" (others differ: {off})"


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
    from endorecon.scenes._splat_model import read_splats, write_splats

    splats = read_splats(scene / "splats.ply")
    for path in sorted(scene.glob("splats.*")):
        write_splats(splats.scaled(factor), staging / path.name)
    if (scene / FILE).is_file():
        write_motion(read_motion(splats, scene / FILE).scaled(factor), staging / FILE)


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
