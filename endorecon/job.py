"""A whole job: from a path that the user gives to a finished run folder."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endorecon.ahead import ahead
from endorecon.clock import Clock
from endorecon.notes import quick_findings, warnings
from endorecon.poses import PoseSource, open_poses
from endorecon.poses.base import SCALE_UNKNOWN
from endorecon.reconstruct import Improve, Progress, Result, reconstruct, windows
from endorecon.run import RunWriter, check_free, read_run
from endorecon.scenes import find_scene
from endorecon.scenes.base import USUAL, Scene, Setting, SplatChoice
from endorecon.tracking.calibrate import Estimates, calibrate
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.given import GivenPoses
from endorecon.tracking.refine import MOST_LOG_FOCAL, FocalPrior
from endorecon.tracking.settle import settle
from endorecon.tracking.tracker import Tracker
from endorecon.work import FILE, PROGRAM, Work, check_same, identity, is_unfinished, program
from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.clip import PROBES, Clip
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import Source, open_source

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
    scene: str = "tsdf",
    splat_minutes: float = 5.0,
    splat_choice: SplatChoice = USUAL,
    refine: str = "none",
    live: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Reconstruct a video file, a folder of images or a data set into a run folder (docs/run_folder.md).

    Where that folder holds a run that was killed, the run goes on where it was, to the same result.

    Args:
        input, out: the video or folder; the run folder to make.
        camera: calibration of the input's whole image; without it the data set's is taken, or one is estimated.
        model, adapter, accept_licence: depth model and its adapter, as `load_estimator` takes them.
        poses, poses_unit: where the camera's poses come from, as `open_poses` takes them.
        every, max_frames, fps: which frames, and the rate of inputs that have no times.
        scene: a name in `endorecon.scenes`; splat_minutes, splat_choice: time to train Gaussians for, and how.
        refine: `light` improves the fused surface by the endoscope's own light, `none` leaves it.
        live, overwrite: open a viewer that shows the work; replace the run that `out` holds.
        progress: called with a stage's name, frames done, and how many there are, where that is known.
        say: takes a sentence for the person at the keyboard.

    Returns:
        The run folder.

    Raises:
        InputError: input, camera, model, poses or output that can't be used.
    """
    clock, begun, out = Clock(), time.perf_counter(), Path(out).expanduser()
    options = {
        "input": str(input), "camera": camera, "model": model, "adapter": adapter, "poses": poses,
        "poses_unit": poses_unit, "every": every, "max_frames": max_frames, "fps": fps, "scene": scene,
        "splat_minutes": splat_minutes, "splat_choice": asdict(splat_choice), "refine": refine,
    }  # fmt: skip
    make_scene, improve = _scene_maker(scene, splat_minutes, splat_choice), _improver(refine)
    go_on = is_unfinished(out) and not overwrite
    if not go_on:
        check_free(out, overwrite)
    with clock.stage("open"):
        source = open_source(input, every, max_frames, fps)
        clip, doubts = _looked_at(input, source, camera)
        pose_source = open_poses(poses, poses_unit, source)
        from threadpoolctl import threadpool_limits

        # The model is loaded once the input is known to be good, so that a wrong one is answered at once.
        asked = _asked(options)
        if go_on:
            check_same(out, asked)
        estimator = make_estimator(model, adapter, accept_licence)
        import_views()
    # The many small systems that tracking solves are slower on several threads than on one.
    with (
        Work(out, asked, overwrite) as work,
        RunWriter(out, {**options, "source": source.describe}, overwrite or go_on) as run,
        threadpool_limits(1, "blas"),
    ):
        if work.resumed:
            say(f"going on with the unfinished run in '{out}', of which {len(work.spool)} frames are there")
        with clock.stage("open"):
            intrinsics = work.kept("intrinsics") or find_intrinsics(clip, estimator, camera)
            work.keep("intrinsics", intrinsics)
        with clock.stage("poses"):
            given, intrinsics = _given_poses(pose_source, clip, estimator, intrinsics, work.folder, progress)
        clip, view = clip.with_camera(intrinsics.camera), _views(run.path, live)
        view.started(source.name, intrinsics.camera)
        tracker = Tracker(intrinsics.camera, given=given, focal=intrinsics.prior)
        setting = Setting(run.path / "scene", 60 * splat_minutes, splat_choice, progress, work.keep, work.kept)
        result = reconstruct(
            clip, estimator, tracker, lambda depth: make_scene(depth, setting),
            lambda o: run.depth(o.frame.index, o.depth, o.confidence), view, work, clock, progress, intrinsics.prior,
            improve,
        )  # fmt: skip
        finish_run(run, clip, result, given, intrinsics, estimator, work.resumed, clock, begun, doubts.result())
        view.finished(read_run(run.path))
    return run.path


def _looked_at(input: Path, source: Source, camera: Path | None) -> tuple[Clip, Future[list[str]]]:
    """The clip, and what seems wrong with it: half a second on one core, and not needed before the end."""
    probes = source.sample(PROBES)
    doubts = ThreadPoolExecutor(1, "doctor").submit(quick_findings, input, source, probes)
    return Clip.of(source, read_camera(camera) if camera else source.camera, probes), doubts


def finish_run(
    run: RunWriter, clip: Clip, result: Result, given: GivenPoses | None, intrinsics: Intrinsics, estimator: Estimator,
    resumed: int, clock: Clock, begun: float, notes: Sequence[str] = (), **more: Any,
) -> None:  # fmt: skip
    """Write what is known at the end; `notes` and `more` are further warnings and values for run.yaml.

    Raises:
        InputError: not one frame was placed.
    """
    if not result.segments:
        raise nothing_placed(result)
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
        warnings=[*(given.warnings if given else ()), *notes, *warnings(clip, result, intrinsics.prior)],
        main_segment=result.main,
        verdict=None if given else result.verdicts[result.main].to_dict(),
        loops=[loop.to_dict() for loop in result.closed.loops],
        skipped=[[index, reason] for index, reason in result.skipped],
        **({"splats": result.splat_figures} if result.splats is not None else {}),
        **({"light": result.light.to_dict()} if result.light is not None else {}),
        resumed=resumed,
        timings={**clock.seconds, "total": time.perf_counter() - begun},
        **more,
    )


def _scene_maker(scene: str, splat_minutes: float, choice: SplatChoice) -> Callable[[float, Setting], Scene]:
    if not splat_minutes > 0:
        raise InputError(f"--splat-minutes is a time to train for, found {splat_minutes:g}; give a positive number")
    make_scene = find_scene(scene)
    for option, chosen, fit in (
        ("--surfels", choice.surfels, ("splats", "splats-deforming")),
        (f"--splat-growth {choice.growth}", choice.growth != USUAL.growth, ("splats",)),
        ("--splat-poses", choice.poses, ("splats",)),
    ):
        if chosen and scene not in fit:
            raise InputError(f"{option} says nothing to the scene '{scene}'; give it with --scene {' or '.join(fit)}")
    return make_scene


def _improver(refine: str) -> Improve | None:
    if refine not in ("none", "light"):
        raise InputError(f"--refine knows none and light, found '{refine}'")
    if refine == "none":
        return None
    from endorecon.shading.refine import refine_surface

    return refine_surface


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same for a run to go on: the options, the files that they name, and the program."""
    files = {
        name + FILE: identity(Path(str(options[name])).expanduser())
        for name in ("input", "camera", "model", "adapter", "poses")
        if options[name] is not None
    }
    paths = {name: str(Path(options[name]).expanduser().resolve()) for name in ("input", "camera") if options[name]}
    return {**options, **paths, **files, PROGRAM: program()}


def nothing_placed(result: Result) -> InputError:
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


def make_estimator(model: str, adapter: Path | None, accept_licence: bool) -> Estimator:
    import torch

    from foundation_adapters.estimator import load_estimator

    # Tracking keeps one core busy beside the network.
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    return load_estimator(model, adapter, accept_licence)


def find_intrinsics(clip: Clip, estimator: Estimator, given: Path | None, closely: bool = False) -> Intrinsics:
    """The given camera; or one that starts from what is usual and what the frames look like, settled by motion:
    roughly, as the refinement of the whole clip has the last word, or `closely`."""
    if clip.camera is not None:
        return Intrinsics(clip.camera, f"given: {given or 'it comes with the data set'}")
    start, spread = start_camera(clip, estimator)
    prior = FocalPrior(start.focal_px, spread)
    found = calibrate(clip.with_camera(start).frames(), _depths(estimator), start, prior, closely)
    how = "and how they move" if found.observable else "alone: they move too little to show the focal length"
    return Intrinsics(found.camera, f"estimated from the look of the images {how}", prior)


def start_camera(clip: Clip, estimator: Estimator) -> tuple[Camera, float]:
    """A first camera and the standard deviation of its log focal length: the usual one and the network's, weighted."""
    # The source's pixels are square; those of the working image, whose sides are multiples of 32, need not be.
    _, _, width, height = clip.view.crop
    usual = Camera.from_fov(width, height, USUAL_FOV_RAD).scaled(clip.view.width, clip.view.height)
    looks, _ = estimator.estimate_camera(clip.probes(8))
    weight = USUAL_FOCAL_STD**2 / (USUAL_FOCAL_STD**2 + NETWORK_FOCAL_STD**2)
    # No lens is further from the usual than by this, whatever a network says.
    ratio = np.clip(looks.focal_px / usual.focal_px, np.exp(-MOST_LOG_FOCAL), np.exp(MOST_LOG_FOCAL))
    camera = usual.with_focal_scale(float(ratio) ** weight)
    return camera, float((USUAL_FOCAL_STD**-2 + NETWORK_FOCAL_STD**-2) ** -0.5)


def import_views() -> None:
    """Import what the recording needs (half a second) beside the first frames' work."""

    def work() -> None:
        from endorecon.views import report, rerun  # noqa: F401

    # The recorder's own log would print lines of its own where the disk is full, which the run says in a sentence.
    os.environ.setdefault("RUST_LOG", "off")
    threading.Thread(target=work, name="import views", daemon=True).start()


def _views(path: Path, live: bool):  # type: ignore[no-untyped-def]
    from endorecon.views.base import Views
    from endorecon.views.report import ReportView
    from endorecon.views.rerun import RerunView

    return Views([RerunView(path / "recording.rrd", live), ReportView(path / "report.html")])
