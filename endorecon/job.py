"""A whole job: from a path that the user gives to a finished run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from endorecon.ahead import ahead
from endorecon.clock import Clock
from endorecon.poses import PoseSource, open_poses
from endorecon.poses.base import SCALE_UNKNOWN
from endorecon.reconstruct import Progress, Result, reconstruct, windows
from endorecon.run import RunWriter, holds_run, read_run
from endorecon.spool import Spool
from endorecon.tracking.calibrate import SURER, Estimates, calibrate
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.given import GivenPoses
from endorecon.tracking.refine import FocalPrior
from endorecon.tracking.settle import settle
from endorecon.tracking.tracker import Tracker
from endorecon.tracking.verdict import explain
from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.clip import Clip
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import open_source

if TYPE_CHECKING:
    from foundation_adapters.estimator import Estimator

# Endoscopes see 55 to 100 degrees across the image, most of them.
USUAL_FOV_RAD, USUAL_FOCAL_STD = np.radians(75.0), 0.3
# Of the network's log focal length, on phantom scenes that it was not trained on (docs/training.md).
NETWORK_FOCAL_STD = 0.25


@dataclass(frozen=True)
class Intrinsics:
    """The camera of the working image, where it comes from, and what was known of its focal length before the motion
    was looked at (None: it was given)."""

    camera: Camera
    note: str
    prior: FocalPrior | None = None


def reconstruct_video(
    input: Path,
    out: Path,
    camera: Path | None = None,
    model: str = "tiny",
    adapter: Path | None = None,
    accept_licence: bool = False,
    poses: str = "auto",
    poses_unit: str | None = None,
    every: int = 1,
    max_frames: int | None = None,
    fps: float = 30.0,
    live: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Path:
    """Reconstruct a video file or a folder of images into a run folder (docs/run_folder.md).

    Args:
        input: the video or folder.
        out: the run folder to make.
        camera: calibration of the input's whole image; without it the intrinsics are estimated.
        model, adapter, accept_licence: depth model and its adapter, as `load_estimator` takes them.
        poses, poses_unit: where the camera's poses come from, as `open_poses` takes them.
        every, max_frames, fps: which frames, and the rate of inputs that have no times.
        live: open a viewer that shows the work.
        overwrite: replace the run that `out` holds.
        progress: called with a stage's name, frames done, and how many there are, where that is known.

    Returns:
        The run folder.

    Raises:
        InputError: input, camera, model, poses or output that can't be used.
    """
    if holds_run(out) and not overwrite:
        RunWriter(out, {}, overwrite)  # says what to do, before any work is done
    clock, begun = Clock(), time.perf_counter()
    with clock.stage("open"):
        source = open_source(input, every, max_frames, fps)
        clip = Clip.of(source, read_camera(camera) if camera else None)
        pose_source = open_poses(poses, poses_unit, source)
        # Loaded once the input is known to be good, so that a wrong one is answered at once.
        from threadpoolctl import threadpool_limits

        from endorecon.scenes.tsdf import TsdfScene

        estimator = _estimator(model, adapter, accept_licence)
        intrinsics = find_intrinsics(clip, estimator, camera)
    config = {
        "input": str(input), "camera": camera, "model": model, "adapter": adapter, "poses": poses,
        "poses_unit": poses_unit, "every": every, "max_frames": max_frames, "fps": fps, "source": source.describe,
    }  # fmt: skip
    # The many small systems that tracking solves are slower on several threads than on one.
    with RunWriter(out, config, overwrite) as run, Spool(run.path) as spool, threadpool_limits(1, "blas"):
        with clock.stage("poses"):
            given, intrinsics = _given_poses(pose_source, clip, estimator, intrinsics, run.path, progress)
        clip, view = clip.with_camera(intrinsics.camera), _views(run.path, live)
        view.started(source.name, intrinsics.camera)
        tracker = Tracker(intrinsics.camera, given=given)
        result = reconstruct(
            clip, estimator, tracker, TsdfScene.for_depth, lambda o: run.depth(o.frame.index, o.depth, o.confidence),
            view, spool, clock, progress, intrinsics.prior,
        )  # fmt: skip
        if not tracker.placed:
            raise _nothing_placed(result)
        used = result.segments[result.main].camera
        run.camera(used, clip.view.source_camera(used), clip.view, intrinsics.prior is not None, intrinsics.note)
        run.finish(
            result.rows,
            result.trajectory,
            result.mesh,
            status="interrupted" if result.interrupted else "finished",
            scale=given.scale if given else SCALE_UNKNOWN,
            poses=given.note if given else "auto: tracked in the images",
            model=estimator.name,
            licence=estimator.licence,
            warnings=[*(given.warnings if given else ()), *warnings(clip, result, intrinsics)],
            main_segment=result.main,
            verdict=None if given else result.verdicts[result.main].to_dict(),
            skipped=[[index, reason] for index, reason in result.skipped],
            timings={**clock.seconds, "total": time.perf_counter() - begun},
        )
        view.finished(read_run(run.path))
    return run.path


def _nothing_placed(result: Result) -> InputError:
    reasons = [row.reason for row in result.rows]
    return InputError(
        f"none of the {len(reasons)} frames could be placed "
        f"({max(reasons, key=reasons.count) if reasons else 'no frame was read'}); "
        "expected sharp pictures of tissue with some texture; check the recording, or choose a part of it"
    )


def _given_poses(
    source: PoseSource, clip: Clip, estimator: Estimator, intrinsics: Intrinsics, folder: Path, progress: Progress
) -> tuple[GivenPoses | None, Intrinsics]:
    """The poses that the tracker need not find, held against the images; and the camera that they were found with."""
    free = intrinsics.prior is not None
    given, camera = source.find(clip.with_camera(intrinsics.camera), intrinsics.camera, free, folder, progress)
    if given is None:
        return None, intrinsics
    free = free and camera == intrinsics.camera  # otherwise the source has found the focal length
    given, camera = settle(given, clip.with_camera(camera).frames(), _depths(estimator), camera, free)
    note = intrinsics.note + (", and the given poses" if camera != intrinsics.camera else "")
    return given, replace(intrinsics, camera=camera, note=note)


def _depths(estimator: Estimator) -> Estimates:
    """Frames to what the network says of each."""

    def estimates(frames: Sequence[Frame]) -> Iterator[tuple[Frame, NetworkDepth]]:
        for window, geometry in ahead((w, estimator.estimate(w)) for w in windows(frames)):
            for frame, depth, log_std in zip(window, geometry.depth, geometry.log_std, strict=True):
                yield frame, NetworkDepth.of(depth, log_std, frame.camera)

    return estimates


def _estimator(model: str, adapter: Path | None, accept_licence: bool) -> Estimator:
    import torch

    from foundation_adapters.estimator import load_estimator

    # Tracking keeps one core busy beside the network.
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    return load_estimator(model, adapter, accept_licence)


def find_intrinsics(clip: Clip, estimator: Estimator, given: Path | None) -> Intrinsics:
    """The given camera; or one that starts from what is usual and what the frames look like, settled by motion."""
    if clip.camera is not None:
        return Intrinsics(clip.camera, f"given: {given}")
    start, spread = start_camera(clip, estimator)
    prior = FocalPrior(start.focal_px, spread)
    found = calibrate(clip.with_camera(start).frames(), _depths(estimator), start, prior)
    how = "and how they move" if found.observable else "alone: they move too little to show the focal length"
    return Intrinsics(found.camera, f"estimated from the look of the images {how}", prior)


def start_camera(clip: Clip, estimator: Estimator) -> tuple[Camera, float]:
    """A first camera and the standard deviation of its log focal length: the usual one and the network's, weighted."""
    # The source's pixels are square; those of the working image, whose sides are multiples of 32, need not be.
    _, _, width, height = clip.view.crop
    usual = Camera.from_fov(width, height, USUAL_FOV_RAD).scaled(clip.view.width, clip.view.height)
    looks, _ = estimator.estimate_camera(clip.probes(8))
    weight = USUAL_FOCAL_STD**2 / (USUAL_FOCAL_STD**2 + NETWORK_FOCAL_STD**2)
    camera = usual.with_focal_scale((looks.focal_px / usual.focal_px) ** weight)
    return camera, float((USUAL_FOCAL_STD**-2 + NETWORK_FOCAL_STD**-2) ** -0.5)


def _views(path: Path, live: bool):  # type: ignore[no-untyped-def]
    # The recorder's own log would print lines of its own where the disk is full, which the run says in a sentence.
    os.environ.setdefault("RUST_LOG", "off")
    from endorecon.views.base import Views
    from endorecon.views.report import ReportView
    from endorecon.views.rerun import RerunView

    return Views([RerunView(path / "recording.rrd", live), ReportView(path / "report.html")])


def warnings(clip: Clip, result: Result, intrinsics: Intrinsics) -> list[str]:
    """Sentences that the person who reads the report should see."""
    found = list(clip.view.notes)
    rows, used = result.rows, result.segments[result.main]
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
    if intrinsics.prior is not None:
        focal = used.camera.focal_px * clip.view.crop[2] / clip.view.width
        sure = used.log_focal_std < SURER * intrinsics.prior.log_std
        how = f"give or take {100 * used.log_focal_std:.1g} %" if sure else "a guess: the motion does not show it"
        found.append(
            f"the intrinsics were estimated (focal length {focal:.0f} px in the source's image, {how}; pinhole, no "
            "distortion); for measurements give --camera"
        )
    found += trust(result)
    if _still(result):
        found.append("the camera hardly moved: depth and shape rest on the depth model alone, not on parallax")
    found += result.scene_warnings
    if result.interrupted:
        found.append(f"the run was stopped after {len(rows)} frames")
    return found


def trust(result: Result, most: int = 6) -> list[str]:
    """What the verdict on the main segment says, in words; at most `most` stretches of frames are named."""
    verdict = result.verdicts[result.main]
    if verdict.grade in ("green", ""):
        found = []
    elif np.isfinite(verdict.path_percent):
        low, high = verdict.interval_percent
        found = [
            f"verdict {verdict.grade}: the camera's path is expected to be off by {verdict.path_percent:.2g} % of its "
            f"length ({low:.2g} to {high:.2g} % with 90 % probability)"
        ]
    else:
        found = ["verdict red: too few frames, or too little motion, to tell how good the poses are"]
    rows = [row for row in result.rows if row.grade and row.segment == result.main]
    named = found or any(row.grade == "red" for row in rows)
    stretches = explain([(row.index, row.grade, row.figures) for row in rows]) if named else []
    more = [f"... and {len(stretches) - most} more stretches (frames.csv)"] if len(stretches) > most else []
    return found + stretches[:most] + more


def _still(result: Result) -> bool:
    """Whether the path's extent is less than two per cent of the depth of what was seen."""
    centres = result.trajectory.centres
    if result.mesh is None or len(centres) < 2 or not len(result.mesh.vertices):
        return len(centres) < 2
    extent = np.linalg.norm(np.ptp(centres, axis=0))
    far = np.median(np.linalg.norm(result.mesh.vertices - centres.mean(0), axis=1))
    return bool(extent < 0.02 * far)
