"""A whole live job: from a source that the user names to a finished run folder."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from endorecon.clock import Clock
from endorecon.job import find_intrinsics, finish_run, import_views, make_estimator, nothing_placed
from endorecon.live import depth_of, live
from endorecon.mapping import Mapper
from endorecon.memory import return_large_blocks
from endorecon.pace import Gauges, Pace
from endorecon.reconstruct import Progress, Result, fuse, settle_all
from endorecon.rows import Rising
from endorecon.run import RunWriter, check_free, holds_run, read_run
from endorecon.tracking.tracker import Tracker, TrackerSettings
from endorecon.watching import Watching
from endorecon.work import Work
from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.frame import Frame
from video_io.running import RunningClip, RunningSource
from video_io.streams import shown

if TYPE_CHECKING:
    from endorecon.views.base import Views
    from endorecon.views.viewer import Hub
    from foundation_adapters.estimator import Estimator

Say = Callable[[str], None]
Screen = Literal["window", "web", "none"]
LOOPBACK = "127.0.0.1"
# Of the surface that is shown, 86 MB, taken at the start: what an hour needs has to be there at its beginning.
MOST_BLOCKS = 12_000


@dataclass(frozen=True)
class Asked:
    """What a live run was asked to do.

    Attributes:
        source: a device, an address, a file, or - for standard input.
        out: the run folder to make.
        camera: calibration of the source's whole image (of one eye); None: it is estimated.
        model, adapter, accept_licence: as `load_estimator` takes them.
        stereo: "none", or how two views share the picture: "sbs" side by side, "tb" top and bottom.
        record: keep what comes in as it comes.
        screen: where to watch.
        bind: address at which the viewer's server listens.
        timeout_s: longest wait for a connection, and longest silence of it.
        overwrite: replace the run that `out` holds.
    """

    source: str
    out: Path
    camera: Path | None = None
    model: str = "tiny"
    adapter: Path | None = None
    accept_licence: bool = False
    stereo: Literal["none", "sbs", "tb"] = "none"
    record: bool = False
    screen: Screen = "none"
    bind: str = LOOPBACK
    timeout_s: float = 10.0
    overwrite: bool = False


def live_video(
    asked: Asked, progress: Progress = lambda *_: None, say: Say = lambda _: None, stop: threading.Event | None = None
) -> Path:
    """Reconstruct what a running source shows, until it ends or is stopped, into a run folder (docs/run_folder.md).

    Args:
        asked: what to do.
        progress: of the work at the end; called with a stage's name, frames done, and how many there are.
        say: takes a sentence for the person.
        stop: ends it, as SIGINT and SIGTERM do.

    Returns:
        The run folder.

    Raises:
        InputError: a source, camera, model or output that can't be used, or nothing in it could be placed.
    """
    clock, begun, out = Clock(), time.perf_counter(), asked.out.expanduser()
    stop = stop or threading.Event()
    return_large_blocks()
    with _signals(stop):
        check_free(out, asked.overwrite)
        camera = read_camera(asked.camera) if asked.camera else None
        source = RunningSource(asked.source, asked.stereo, asked.timeout_s, say, stop)
        if not source.is_file:
            source.begin()  # what waits in the connection would be old when it is wanted
        try:
            with clock.stage("open"):
                estimator = make_estimator(asked.model, asked.adapter, asked.accept_licence)
                import_views()
            return _run(asked, out, source, camera, estimator, clock, begun, progress, say, stop)
        finally:
            source.reader.stop()


def _run(
    asked: Asked, out: Path, source: RunningSource, camera: Camera | None, estimator: Estimator, clock: Clock,
    begun: float, progress: Progress, say: Say, stop: threading.Event,
) -> Path:  # fmt: skip
    from threadpoolctl import threadpool_limits

    from endorecon.scenes.tsdf import TsdfScene

    config = {**vars(asked), "source": shown(asked.source), "live": source.describe}
    if asked.overwrite and holds_run(out):
        for old in out.glob("stream*.mkv"):
            old.unlink()
    with (
        RunWriter(out, {"input": config.pop("source"), **config}, asked.overwrite) as run,
        Work(out, {"live": shown(asked.source)}, overwrite=True) as work,
        threadpool_limits(1, "blas"),
    ):
        if asked.record:
            source.record(run.path)
        with clock.stage("look"):
            clip = RunningClip.look(source, camera, say, stop)
            if clip is None:
                raise KeyboardInterrupt
            intrinsics = find_intrinsics(clip, estimator, asked.camera, closely=True)
            clip = replace(clip, camera=intrinsics.camera)
            warm_up(clip, estimator)
            source.forget()
            if stop.is_set():
                raise KeyboardInterrupt
        views, hub = _views(run.path, asked, say)
        views.started(source.name, intrinsics.camera)
        pace, gauges, watching = Pace(), Gauges(), Watching(list(views.views), say)
        make_scene = partial(TsdfScene.for_depth, max_blocks=MOST_BLOCKS, reserved=True)
        mapper = Mapper(work.spool, make_scene, watching.mesh, pace, say)
        # What key frames look like is worked out behind tracking, by the mapper.
        tracker = Tracker(intrinsics.camera, TrackerSettings(look=0))
        tracker.placed = Rising(2)
        watching.start(), mapper.start(), source.begin()
        say("tracking; Ctrl-C ends it")
        with clock.stage("track"), _side_by_side():
            rows = live(clip, estimator, tracker, mapper, watching, pace, gauges, stop, say, progress)
        source.reader.stop()
        mapper.finish()
        seen = watching.finish()
        say(f"{len(rows)} frames came to tracking; refining what is there")
        result = Result(rows=list(rows))
        if not tracker.placed:
            raise nothing_placed(result)
        settle_all(tracker, result, work, clock, intrinsics.prior)
        watcher = views if seen else type(views)()
        fuse(
            tracker, result, TsdfScene.for_depth, lambda o: run.depth(o.frame.index, o.depth, o.confidence),
            watcher, work, clock, progress,
        )  # fmt: skip
        told, figures = _summary(source, gauges, pace, mapper)
        finish_run(run, clip, result, None, intrinsics, estimator, 0, clock, begun, told, live=figures)
        watcher.finished(read_run(run.path))
        if hub is not None and hub.web_port:
            hub.close()  # a browser keeps what it has got
    return run.path


def warm_up(clip: RunningClip, estimator: Estimator) -> None:
    """Do once what is compiled when it is first done, so that tracking does not wait for it: half a minute after an
    installation, next to nothing later."""
    from endorecon.scenes.tsdf import TsdfScene
    from endorecon.tracking.densify import fit_correction
    from endorecon.tracking.refine import evidence

    first = clip.probes(1)[0]
    net = depth_of(estimator, first, small=False)
    depth_of(estimator, first, small=True)
    tracker, scene = Tracker(first.camera), None
    for shift in range(3):
        rgb = np.roll(first.rgb, 2 * shift, axis=1)
        frame = Frame(shift, shift, rgb, first.use_mask, np.zeros_like(first.specular_mask), first.camera)
        placed = tracker.place(frame, net)
        depth = getattr(placed, "depth", None)
        if depth is None:
            continue
        scene = scene or TsdfScene.for_depth(max(float(np.median(depth)), 1e-6))
        scene.integrate(placed)
        scene.mesh()
        segment, number = tracker.placed[shift]
        pose = tracker.segments[segment].pose(number)
        fit_correction(*evidence(tracker.segments[segment], number, pose), first.width, first.height)
    for segment in tracker.segments:
        if len(segment) > 2:
            tracker._refine_window(segment)


def _summary(
    source: RunningSource, gauges: Gauges, pace: Pace, mapper: Mapper
) -> tuple[list[str], dict[str, Any]]:
    """How the run fared: sentences for the report, and figures for run.yaml."""
    reading, reader = gauges.overall(), source.reader
    figures: dict[str, Any] = {
        "frames_a_second": round(reading.rate, 2),
        "latency_p50_ms": round(1e3 * reading.latency_p50_s, 1),
        "latency_p95_ms": round(1e3 * reading.latency_p95_s, 1),
        "received": reader.received,
        "dropped": reading.dropped,
        "passed_over": reader.passed_over,
        "damaged": reader.damaged,
        "reconnected": reader.reconnected,
        "quality_step": pace.number,
        "quality_changes": pace.changes,
        "most_waiting": {"read": source.inbox.longest, "map": mapper.inbox.longest},
    }
    told = []
    if source.recorder is not None:
        figures["recorded"] = [path.name for path in source.recorder.files]
        if source.recorder.ended:
            told.append(source.recorder.ended)
    if reading.dropped:
        told.append(f"{reading.dropped} of {reader.received} frames were dropped, as the machine could not keep up")
    if reader.damaged:
        told.append(f"{reader.damaged} damaged frames were left out")
    if reader.reconnected:
        times = "once" if reader.reconnected == 1 else f"{reader.reconnected} times"
        told.append(f"the connection was lost and made again {times}")
    if mapper.failed:
        told.append(mapper.failed)
    if mapper.full:
        told.append("the disk was nearly full: depth was kept for a part of the run only")
    return told, figures


def _views(path: Path, asked: Asked, say: Say) -> tuple[Views, Hub | None]:
    from endorecon.views.base import Views
    from endorecon.views.report import ReportView
    from endorecon.views.rerun import RerunView
    from endorecon.views.viewer import Hub, has_screen

    hub = None
    if asked.screen == "window" and not has_screen():
        say("no screen found; give --web to watch in a browser")
    elif asked.screen != "none":
        if asked.bind != LOOPBACK:
            say(
                f"the viewer listens at {asked.bind}: whoever can reach this machine there sees the patient's video, "
                "without a password and without encryption"
            )
        hub = Hub.start(asked.screen == "web", asked.bind)
        if hub is None:
            say("the viewer did not start; the run goes on without")
        elif hub.page:
            say(f"watch at {hub.page}")
        else:
            say(f"a closed window is opened again by: endorecon view {hub.address}")
    recording = RerunView(path / "recording.rrd", say=say, running=True, hub=hub)
    return Views([recording, ReportView(path / "report.html")]), hub


@contextmanager
def _side_by_side() -> Iterator[None]:
    """What suits many threads: each of them on one core in OpenCV, and the interpreter's lock handed on sooner."""
    import cv2

    threads, interval = cv2.getNumThreads(), sys.getswitchinterval()
    cv2.setNumThreads(1)
    sys.setswitchinterval(0.001)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        sys.setswitchinterval(interval)


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the run in good order; a second SIGINT ends the program."""

    def ended(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {}
    with suppress(ValueError):  # not on the main thread: then there are none to be taken
        before = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
