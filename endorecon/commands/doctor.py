"""`endorecon doctor`: what an input is, how it will be read, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from endorecon.commands.base import OK, Folder

if TYPE_CHECKING:
    from video_io.case import Case
    from video_io.doctor import Finding


@dataclass(frozen=True)
class Doctor:
    """Say what an input is, how it will be read, and what is wrong with it: poses, units, depth, masks, frames, text.

    Example: endorecon doctor ../data/c3vd_trans_t1_a
    """

    input: Positional[Path]
    """A video file, a folder of images, or a folder of a data set, with depth, masks, poses and camera."""
    fix: Folder = None
    """Also write a clean copy into this folder, in the layout of `endorecon simulate`. The original is only read."""
    deidentify: Folder = None
    """Only write a copy without burnt-in text and metadata into this new folder, and list what was removed."""
    quick: bool = False
    """Leave out what needs every frame, as `reconstruct` does."""
    json: bool = False
    """Print JSON instead of text."""


def run(command: Doctor) -> int:
    """Run the command; returns the exit code."""
    if command.deidentify is not None:
        return _deidentify(command)
    from video_io.case import open_case
    from video_io.cleaning import write_clean
    from video_io.doctor import examine

    case = open_case(command.input)
    found = examine(case, command.quick)
    fixed = write_clean(case, found, command.fix) if command.fix is not None else None
    if command.json:
        import json

        told = {**_described(case), "findings": [finding.to_dict() for finding in found]}
        print(json.dumps({**told, **({"fixed": str(fixed)} if fixed else {})}, indent=2))
        return OK
    for name, value in _described(case).items():
        print(f"{name.replace('_', ' '):12} {value}")
    print()
    for finding in found:
        print(_in_words(finding))
    if not found:
        print("nothing is wrong with it, as far as can be told")
    if fixed is not None:
        put_right = ", ".join(dict.fromkeys(f.kind for f in found if f.repair)) or "nothing"
        print(f"\nclean copy   {fixed} (put right: {put_right})")
    return OK


def _in_words(finding: Finding) -> str:
    sure = "" if finding.sure >= 0.8 else " (a doubt)"
    evidence = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in finding.evidence.items())
    mend = f"\n    do        {finding.mend}" if finding.mend else ""
    return f"- {finding.kind}{sure}: {finding.sentence}\n    evidence  {evidence}; sure {finding.sure:.2f}{mend}"


def _described(case: Case) -> dict[str, Any]:
    """What the input is and how it will be read, in words by name."""
    from video_io.errors import InputError
    from video_io.view import plan_view

    source, facts = case.source, case.source.describe
    frames = f"{source.frame_count}" if source.frame_count is not None else "an unknown number of"
    rate = facts.get("rate") or facts.get("fps")
    codec = f", {facts['codec']}" if "codec" in facts else ""
    told: dict[str, Any] = {
        "input": str(case.path),
        "pictures": f"{facts.get('kind', 'images')}{codec}, {frames} frames of {source.width} x {source.height}"
        + (f", {float(rate):.4g} a second" if rate else ""),
    }
    try:
        view = plan_view(case.probes)
        told["read as"] = f"{view.width} x {view.height}" + "".join(f"; {note}" for note in view.notes)
    except InputError as error:
        told["read as"] = str(error)
    if case.layout:
        told["layout"] = case.layout
    if case.has_depth:
        told["depth"] = f"{len(case.depths) or source.frame_count} maps" + (
            f", {case.depth_scale:g} stored steps a mm" if case.layout == "phantom" else ""
        )
    if case.masks:
        told["masks"] = f"{len(case.masks)} in '{case.masks[0].parent.name}'"
    if case.poses is not None:
        told["poses"] = f"{len(case.poses.matrices)} in '{case.poses.path.name}', {case.poses_unit}"
    if case.camera is not None:
        told["camera"] = f"{case.camera.model}, focal length {case.camera.focal_px:.1f} px"
    return told


def _deidentify(command: Doctor) -> int:
    from video_io.deidentify import deidentify

    assert command.deidentify is not None
    clean = deidentify(command.input, command.deidentify)
    if command.json:
        import json

        print(json.dumps(clean.to_dict(), indent=2))
        return OK
    for what in clean.removed:
        print(f"removed      {what}")
    if not clean.removed:
        print("there was nothing to remove")
    print(f"clean copy   {clean.path}\nlook at it before you pass it on: faces and rare text are not looked for")
    return OK
