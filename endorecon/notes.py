"""What a run has to say to the person who reads its report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from endorecon.reconstruct import Result, spoiled
from endorecon.run import FrameRow
from endorecon.scenes import scenes
from endorecon.tracking.motion import poor_motion
from endorecon.tracking.refine import FocalPrior, is_shown
from endorecon.tracking.verdict import explain, frame_grade
from video_io.clip import Clip
from video_io.faults import FROZEN
from video_io.frame import Frame
from video_io.sources.base import Source

BRIEF = 5  # frames
DEFORMING = "splats-deforming"
LEAST_FROZEN = 3  # repetitions in a row that are a frozen picture


def quick_findings(path: Path, source: Source, probes: list[Frame]) -> list[str]:
    """What the doctor sees at a glance and is sure of, in words.

    Args:
        path: the input.
        source: it, opened.
        probes: frames spread over the clip.
    """
    from video_io.case import pictures_of
    from video_io.doctor import examine

    found = examine(pictures_of(path, source, probes), quick=True)
    return [f"{finding.sentence} (doctor: {finding.kind}; {finding.mend})" for finding in found if finding.sure >= 0.8]


def warnings(clip: Clip, result: Result, prior: FocalPrior | None) -> list[str]:
    """Sentences that the person who reads the report should see."""
    found = list(clip.view.notes)
    rows = result.rows
    if result.skipped:
        some = ", ".join(f"{index} ({reason})" for index, reason in result.skipped[:3])
        more = ", ... (all of them in run.yaml)" if len(result.skipped) > 3 else ""
        found.append(f"{len(result.skipped)} frames could not be read and were left out: {some}{more}")
    refused = [row for row in rows if row.status == "refused"]
    if refused:
        common = max({row.reason for row in refused}, key=[row.reason for row in refused].count)
        found.append(f"{len(refused)} of {len(rows)} frames have no place, most often because {common}")
    counts = [sum(r.status == "tracked" and r.segment == s for r in rows) for s in range(len(result.segments))]
    if len(counts) > 1:
        found.append(
            f"the clip falls into {len(counts)} segments of {', '.join(map(str, counts))} frames whose poses can't be "
            f"compared; the trajectory and the mesh show segment {result.main}, the longest"
        )
    found += result.closed.notes
    if prior is not None:
        found.append(f"{focal_note(clip, result, prior)}; for measurements give --camera")
    found += faults(rows)
    found += trust(result)
    if words := _motion(result):
        found.append(words)
    found += result.scene_warnings
    if result.light is not None:
        found.append(result.light.sentence())
    if result.interrupted:
        found.append(f"the run was stopped after {len(rows)} frames")
    return found


def focal_note(clip: Clip, result: Result, prior: FocalPrior) -> str:
    """The focal length that was found, and whether the motion has shown it."""
    used = result.segments[result.main]
    focal = used.camera.focal_px * clip.view.crop[2] / clip.view.width
    shown = is_shown(used.log_focal_std, prior)
    how = f"give or take {100 * min(used.log_focal_std, prior.log_std):.2g} %"
    how = how if shown else f"a guess, {how}: the motion hardly shows it"
    return (
        f"the intrinsics were estimated (focal length {focal:.0f} px in the source's image, {how}; pinhole, no "
        "distortion)"
    )


def faults(rows: Sequence[FrameRow], most: int = 12) -> list[str]:
    """What is wrong with which frames, in words: refused ones and those that were placed all the same; at most `most`
    stretches, the longest."""
    rows, repeated = _without_repetitions(rows)
    everything = stretches(rows)
    joined = sorted(sorted(everything, key=lambda s: s.first - s.last)[:most], key=lambda s: s.first)
    found = [f"{_span(s.first, s.last)}: {s.reason}" for s in joined]
    if more := len(everything) - len(joined):
        found.append(f"... and {more} more stretches of doubtful frames (frames.csv)")
    if repeated:
        found.append(f"{repeated} frames repeat the one before them, as when a rate is converted; they were left out")
    return found


def _without_repetitions(rows: Sequence[FrameRow]) -> tuple[list[FrameRow], int]:
    """The rows without the reason of frames that repeat the one before once or twice, and how many those are."""
    found, count = [], 0
    for frozen, group in groupby(rows, key=lambda row: row.reason.startswith(FROZEN)):
        part = list(group)
        if frozen and len(part) < LEAST_FROZEN:
            part, count = [replace(row, reason="") for row in part], count + len(part)
        found += part
    return found, count


@dataclass(frozen=True)
class Stretch:
    """Frames, by index, with one reason."""

    first: int
    last: int
    reason: str


def stretches(rows: Sequence[FrameRow]) -> list[Stretch]:
    """Frames that follow each other and have the same reason, whatever numbers are in it.

    Events that come and go take a few frames, which look like something else: what lasts for no more than `BRIEF`
    frames beside a longer stretch belongs to it.
    """
    found: list[tuple[int, int, str]] = []  # first and last row, reason
    for key, group in groupby(range(len(rows)), key=lambda n: _kind(rows[n].reason)):
        part = list(group)
        if not key:
            continue
        if found and part[0] - found[-1][1] <= BRIEF and _kind(found[-1][2]) == key:
            found[-1] = found[-1][0], part[-1], found[-1][2]
        else:
            found.append((part[0], part[-1], rows[part[0]].reason))
    for at in sorted(range(len(found)), key=lambda n: found[n][1] - found[n][0]):
        first, last, _ = found[at]
        beside = [n for n in (at - 1, at + 1) if 0 <= n < len(found) and found[n][2]]
        beside = [n for n in beside if max(found[n][0] - last, first - found[n][1]) <= BRIEF]
        longest = max(beside, key=lambda n: found[n][1] - found[n][0], default=None)
        if last - first < BRIEF and longest is not None and found[longest][1] - found[longest][0] > last - first:
            found[longest] = min(first, found[longest][0]), max(last, found[longest][1]), found[longest][2]
            found[at] = first, last, ""
    return [Stretch(rows[a].index, rows[b].index, reason) for a, b, reason in found if reason]


def _kind(reason: str) -> str:
    """A reason without its figures, and without what follows from it."""
    return re.sub(r"[\d.]+", "#", reason.split("; ")[0])


def _span(first: int, last: int) -> str:
    return f"frame {first}" if first == last else f"frames {first}-{last}"


def trust(result: Result, most: int = 6) -> list[str]:
    """What the verdict on the main segment says, in words; at most `most` stretches of frames are named."""
    verdict, unsure = result.verdicts[result.main], spoiled(result.rows)
    if verdict.grade in ("green", ""):
        found: list[str] = []
    elif np.isfinite(verdict.path_percent):
        low, high = verdict.interval_percent
        found = [
            f"verdict {verdict.grade}: the camera's path is expected to be off by {verdict.path_percent:.2g} % of its "
            f"length ({low:.2g} to {high:.2g} % with 90 % probability), {verdict.extent_percent:.2g} % of its extent"
        ]
    else:
        found = [
            "verdict red: too few frames, or too little motion, to tell how good the poses are",
            "if the tissue moves before a still camera, try --poses fixed",
        ]
    found = [_advised(words) for words in (*found, *verdict.doubts)]
    # What is wrong with the pictures is said already.
    sound = (row for n, row in enumerate(result.rows) if not row.reason and n not in unsure)
    rows = [row for row in sound if row.grade and row.segment == result.main]
    named = bool(found) or any(row.grade == "red" for row in rows)
    own = [(row, frame_grade(row.figures.get("expected_error_percent", np.inf))) for row in rows]
    parts = explain([(row.index, grade, row.figures) for row, grade in own]) if named else []
    more = [f"... and {len(parts) - most} more stretches (frames.csv)"] if len(parts) > most else []
    return found + parts[:most] + more


def _advised(words: str) -> str:
    """The sentence, with the scene that suits tissue that moves, where there is one."""
    return f"{words} --scene {DEFORMING}" if words.endswith("--poses fixed") and DEFORMING in scenes() else words


def _motion(result: Result) -> str:
    """What the path does not show; of poses that were given as well."""
    centres = result.trajectory.centres
    if result.mesh is None or not len(centres) or not len(result.mesh.vertices):
        return poor_motion(result.trajectory.world_from_cam, 0.0) if len(centres) < 2 else ""
    far = float(np.median(np.linalg.norm(result.mesh.vertices - centres.mean(0), axis=1)))
    return poor_motion(result.trajectory.world_from_cam, far)
