"""From a video to a scene: read, estimate, track, refine, fuse, save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from endorecon.ahead import ahead
from endorecon.clock import Clock
from endorecon.run import FrameRow
from endorecon.spool import Spool
from endorecon.tracking.closing import Closed, close_loops
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.observation import Observation, Refused
from endorecon.tracking.refine import FocalPrior, Refined, refine
from endorecon.tracking.tracker import Tracker
from endorecon.tracking.verdict import Verdict, frame_grade, judge
from video_io.clip import Clip
from video_io.frame import Frame
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from endorecon.scenes.tsdf import TsdfScene
    from foundation_adapters.estimator import Estimator, Geometry
    from rendering.mesh import Mesh

WINDOW = 8  # frames that the network sees at once
Progress = Callable[[str, int, int | None], None]


class Watcher(Protocol):
    """What watches a reconstruction; it never changes it."""

    def observed(self, observation: Observation) -> None: ...
    def refused(self, refused: Refused) -> None: ...
    def refined(self, trajectory: Trajectory) -> None: ...
    def mesh(self, mesh: Mesh) -> None: ...


@dataclass
class Result:
    """What came of a clip.

    Attributes:
        rows: a line for every frame that was read, in order.
        closed: the loops that were closed, and the segments that they joined.
        segments: the refined segments; poses of different segments can't be compared.
        verdicts: how far each of them can be trusted.
        main: the segment that the trajectory and the mesh show: the one with most frames.
        trajectory: poses of the main segment.
        mesh: its surface; scene_warnings: what happened while it was fused.
        interrupted: whether the user ended it early.
        skipped: (index, reason) of each frame that could not be decoded.
    """

    rows: list[FrameRow] = field(default_factory=list)
    closed: Closed = field(default_factory=Closed)
    segments: list[Refined] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    main: int = 0
    trajectory: Trajectory = field(default_factory=lambda: Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4))))
    mesh: Mesh | None = None
    scene_warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
    skipped: list[tuple[int, str]] = field(default_factory=list)


def reconstruct(
    clip: Clip,
    estimator: Estimator,
    tracker: Tracker,
    make_scene: Callable[[float], TsdfScene],
    save: Callable[[Observation], None],
    watcher: Watcher,
    spool: Spool,
    clock: Clock,
    progress: Progress,
    focal: FocalPrior | None = None,
) -> Result:
    """Reconstruct a clip in two passes: place every frame; then, with loops closed and all refined together, fuse.

    Args:
        clip: the input, with its camera.
        estimator: frames to depth, its spread, and relative pose.
        tracker: fresh; keeps a map for each segment of the clip.
        make_scene: an empty scene for a median depth.
        save: takes each placed frame with its final depth and pose.
        watcher: is told what happens.
        spool: keeps placed frames and the network's depth between the passes.
        clock: adds up the seconds of each stage.
        progress: called with a stage's name, frames done, and how many there are, where that is known.
        focal: what was known of the focal length before the clip's motion was looked at; None if it was given.
    """
    result = Result()
    try:
        for window, geometry in ahead(estimates(clip, estimator, clock)):
            for frame, depth, spread, guess in zip(
                window, geometry.depth, geometry.log_std, geometry.previous_from_cam, strict=True
            ):
                net = NetworkDepth.of(depth, spread, tracker.camera)
                with clock.stage("track"):
                    placed = tracker.place(frame, net, guess)
                if isinstance(placed, Observation):
                    with clock.stage("save"):
                        spool.keep(frame, net)
                with clock.stage("view"):
                    watcher.observed(placed) if isinstance(placed, Observation) else watcher.refused(placed)
                result.rows.append(FrameRow.of(placed))
                progress("tracking", len(result.rows), clip.source.frame_count)
    except KeyboardInterrupt:
        # What there is gets refined, fused and saved; a second interrupt ends that too.
        result.interrupted = True
    result.skipped = list(clip.source.skipped)
    with clock.stage("loops"):
        result.closed = close_loops(tracker, spool.read)
        result.rows = [replace(row, segment=result.closed.number(row.segment)) for row in result.rows]
    with clock.stage("refine"):
        result.segments = [refine(segment, focal) for segment in tracker.segments]
    with clock.stage("judge"):
        result.verdicts = [judge(scene, found) for scene, found in zip(tracker.segments, result.segments, strict=True)]
    result.main = max(range(len(tracker.segments)), key=lambda s: len(tracker.segments[s]), default=0)
    scene, poses = None, {}
    for final in ahead(finals(tracker, result, spool, clock), 4):
        with clock.stage("save"):
            save(final)
        if final.segment == result.main:
            poses[final.frame.time_ns] = final.world_from_cam
            with clock.stage("fuse"):
                scene = scene or make_scene(_median_depth(final))
                scene.integrate(final)
        progress("fusing", len(poses), len(tracker.placed))
    if scene is not None:
        result.trajectory = Trajectory(np.array(list(poses)), np.stack(list(poses.values())))
        with clock.stage("mesh"):
            result.mesh, result.scene_warnings = scene.mesh(), scene.warnings
        del scene  # the views need room of their own
        with clock.stage("view"):
            watcher.refined(result.trajectory)
            watcher.mesh(result.mesh)
    return result


def estimates(clip: Clip, estimator: Estimator, clock: Clock) -> Iterator[tuple[list[Frame], Geometry]]:
    """The clip's frames window by window, each with what the network says of them."""
    geometry = None
    for window in clock.each("read", windows(clip.frames())):
        with clock.stage("estimate"):
            geometry = estimator.estimate(window, geometry)
        yield window, geometry


def finals(tracker: Tracker, result: Result, spool: Spool, clock: Clock) -> Iterator[Observation]:
    """Every placed frame again, with its refined pose and its corrected depth; its row is brought up to date."""
    rows = {row.index: k for k, row in enumerate(result.rows)}
    for frame, net in clock.each("read again", spool):
        segment, number = tracker.placed[frame.index]
        refined, row = result.segments[segment], result.rows[rows[frame.index]]
        figures = {
            **row.figures,
            "refined_residual_px": float(refined.residual_px[number]),
            "expected_error_percent": (expected := float(result.verdicts[segment].frame_percent[number])),
        }
        grade = frame_grade(expected) if result.verdicts[segment].grade else ""
        result.rows[rows[frame.index]] = replace(row, figures=figures, grade=grade)
        with clock.stage("correct"):
            final = net.observe(
                frame, refined.camera, refined.world_from_cam[number], refined.corrections[number],
                segment, row.is_keyframe, figures,
            )  # fmt: skip
        yield final


def windows(frames: Iterable[Frame], size: int = WINDOW) -> Iterator[list[Frame]]:
    """Consecutive frames in groups; the last group may be smaller."""
    window: list[Frame] = []
    for frame in frames:
        window.append(frame)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _median_depth(observation: Observation) -> float:
    valid = observation.confidence > 0
    return float(np.median(observation.depth[valid])) if valid.any() else 1.0
