"""From a video to a scene: read, estimate, track, refine, fuse, save.

What is done is kept in the work folder. A run that was killed finds there what the network had said of each frame, and
the tracker's state as it was a few frames before; all the rest follows from these again, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from endorecon.ahead import ahead
from endorecon.clock import Clock
from endorecon.run import FrameRow
from endorecon.spool import Shelf
from endorecon.surface import Surface, fused_again
from endorecon.tracking.closing import Closed, close_loops
from endorecon.tracking.dense import ManyViews
from endorecon.tracking.densify import Correction, NetworkDepth
from endorecon.tracking.observation import Observation, Refused
from endorecon.tracking.refine import FocalPrior, Refined, refine
from endorecon.tracking.tracker import Tracker
from endorecon.tracking.verdict import Verdict, judge
from endorecon.work import Work
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.faults import AGAINST_WALL, COVERED, FILLED
from video_io.frame import Frame
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from endorecon.scenes._motion import MovingSplats
    from endorecon.scenes._splat_model import Splats
    from endorecon.scenes.base import Scene
    from endorecon.shading.refine import Refinement
    from foundation_adapters.estimator import Estimator
    from rendering.mesh import Mesh

WINDOW = 8  # frames that the network sees at once
# The tracker's state is kept this often: its size grows with the clip, so the interval does too.
KEEP_FRAMES, KEEP_SHARE = 128, 0.1
Measured = tuple[Frame, NetworkDepth, NDArray[np.float64]]  # a frame, its depth, and a guess of previous_from_cam
Place = tuple[Camera, NDArray[np.float64], Correction]  # the camera, its pose, and what corrects the network's depth
ONSET_FRAMES = 5  # in which something comes before the lens, or goes
T = TypeVar("T")
# The fused surface, by the light of its frames; `again` is that surface once they have been fused again.
Improve = Callable[..., "Refinement"]
Progress = Callable[[str, int, int | None], None]


class Watcher(Protocol):
    """What watches a reconstruction; it never changes it."""

    def observed(self, observation: Observation) -> None: ...
    def refused(self, refused: Refused) -> None: ...
    def refined(self, trajectory: Trajectory) -> None: ...
    def final(self, seen: Observation) -> None: ...
    def mesh(self, mesh: Mesh) -> None: ...
    def splats(self, splats: Splats | MovingSplats) -> None: ...


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
        light: what came of refining it by the light; None where that was not asked for.
        splats: its Gaussians and how good they are, where the scene has some.
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
    light: Refinement | None = None
    splats: Splats | MovingSplats | None = None
    splat_figures: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def place(self, segment: int, number: int) -> Place:
        """Where frame `number` of a segment is, by its refined pose."""
        refined = self.segments[segment]
        return refined.camera, refined.world_from_cam[number], refined.corrections[number]


def reconstruct(
    clip: Clip,
    estimator: Estimator,
    tracker: Tracker,
    make_scene: Callable[[float], Scene],
    save: Callable[[Observation], None],
    watcher: Watcher,
    work: Work,
    clock: Clock,
    progress: Progress,
    focal: FocalPrior | None = None,
    improve: Improve | None = None,
) -> Result:
    """Reconstruct a clip: place every frame; then, with loops closed and all refined together, sharpen and fuse.

    Args:
        clip: the input, with its camera.
        estimator: frames to depth, its spread, and relative pose.
        tracker: fresh; keeps a map for each segment of the clip.
        make_scene: an empty scene for a median depth.
        save: takes each placed frame with its final depth and pose.
        watcher: is told what happens.
        work: keeps frames and the network's depth between the passes, and what an earlier process has done of this.
        clock: adds up the seconds of each stage.
        progress: called with a stage's name, frames done, and how many there are, where that is known.
        focal: what was known of the focal length before the clip's motion was looked at; None if it was given.
        improve: refines the fused surface.
    """
    if (refined := work.kept("refined")) is not None:
        tracker.placed, result = refined
        show(result.rows, clip, work, lambda index: result.place(*tracker.placed[index]), watcher)
    else:
        result = track(clip, estimator, tracker, watcher, work, clock, progress)
        settle_all(tracker, result, work, clock, focal)
        with clock.stage("keep"):
            work.keep("refined", (tracker.placed, result))
    fuse(tracker, result, make_scene, save, watcher, work, clock, progress, improve)
    return result


def settle_all(tracker: Tracker, result: Result, work: Work, clock: Clock, focal: FocalPrior | None) -> None:
    """The last word on all poses: close loops, refine each segment, judge it."""
    with clock.stage("loops"):
        result.closed = close_loops(tracker, work.spool.at)
        result.rows = [replace(row, segment=result.closed.number(row.segment)) for row in result.rows]
    with clock.stage("refine"):
        result.segments = [refine(segment, focal) for segment in tracker.segments]
    with clock.stage("judge"):
        figures = figures_of(tracker, result.rows)
        judged = zip(tracker.segments, result.segments, figures, strict=True)
        result.verdicts = [judge(scene, found, own, focal is None) for scene, found, own in judged]
    result.main = max(range(len(tracker.segments)), key=lambda s: len(tracker.segments[s]), default=0)


def figures_of(tracker: Tracker, rows: Iterable[FrameRow]) -> list[list[Mapping[str, float]]]:
    """For each segment, the figures of its frames in the order in which they are in its map."""
    found: list[list[Mapping[str, float]]] = [[{}] * len(scene) for scene in tracker.segments]
    for row in rows:
        if row.index in tracker.placed:
            segment, number = tracker.placed[row.index]
            found[segment][number] = row.figures
    return found


def fuse(
    tracker: Tracker,
    result: Result,
    make_scene: Callable[[float], Scene],
    save: Callable[[Observation], None],
    watcher: Watcher,
    work: Work,
    clock: Clock,
    progress: Progress,
    improve: Improve | None = None,
) -> None:
    """The trajectory of all placed frames, and the scene of those whose depth was kept, with the poses as they are in
    the end: their depth is sharpened by each other and fused, and then saved as the surface has it."""
    update_rows(tracker, result)
    main = [row for row in result.rows if tracker.placed.get(row.index, (-1, 0))[0] == result.main]
    if poses := {row.time_ns: result.place(*tracker.placed[row.index])[1] for row in main}:
        result.trajectory = Trajectory(np.array(list(poses)), np.stack(list(poses.values())))
    scene, surface, shelf = None, None, Shelf(work.folder / "corrections")
    count = min(len(work.spool), len(tracker.placed))
    for done, seen in enumerate(ahead(sharpened(tracker, result, shelf, work, clock), 4), 1):
        if seen.segment == result.main:
            with clock.stage("fuse"):
                scene = scene or make_scene(seen.median_depth)
                scene.integrate(seen)
        progress("fusing", done, count)
    if scene is not None:
        with clock.stage("mesh"):
            result.mesh, result.scene_warnings = scene.mesh(), scene.warnings
            result.splats, result.splat_figures = getattr(scene, "splats", None), getattr(scene, "figures", {})
            rigid = getattr(scene, "rigid", True) and (tracker.given is None or tracker.given.rigid)
            del scene  # the views need room of their own
        if rigid:
            with clock.stage("light"):
                refine_by_light(tracker, result, make_scene, shelf, work, clock, improve)
        with clock.stage("mesh"):
            if len(result.mesh.faces) and rigid:
                surface = Surface(result.mesh, result.segments[result.main].camera)
        with clock.stage("view"):
            watcher.refined(result.trajectory)
            watcher.mesh(result.mesh)
            if result.splats is not None:
                watcher.splats(result.splats)
    for done, final in enumerate(ahead(finals(tracker, result, surface, shelf, work, clock), 4), 1):
        with clock.stage("save"):
            save(final)
        with clock.stage("view"):
            watcher.final(final)
        progress("saving", done, count)


def track(
    clip: Clip, estimator: Estimator, tracker: Tracker, watcher: Watcher, work: Work, clock: Clock, progress: Progress
) -> Result:
    """Place every frame of the clip, from where an earlier process had come to."""
    result = Result()
    if (state := work.kept("tracked")) is not None:
        result.rows = state["rows"]
        tracker.restore(state["tracker"])
        show(result.rows, clip, work, tracker.place_of, watcher)
    kept_at = len(result.rows)
    try:
        for window in ahead(measured(clip, estimator, work, kept_at, clock)):
            for frame, net, guess in window:
                with clock.stage("track"):
                    placed = tracker.place(frame, net, guess)
                with clock.stage("view"):
                    watcher.observed(placed) if isinstance(placed, Observation) else watcher.refused(placed)
                result.rows.append(FrameRow.of(placed))
                progress("tracking", len(result.rows), clip.source.frame_count)
            if len(result.rows) >= max(kept_at + KEEP_FRAMES, (1 + KEEP_SHARE) * kept_at):
                kept_at = len(result.rows)
                with clock.stage("keep"):
                    work.keep("tracked", {"rows": result.rows, "tracker": tracker.state()})
    except KeyboardInterrupt:
        # What there is gets refined, fused and saved; a second interrupt ends that too.
        result.interrupted = True
    result.skipped = list(clip.source.skipped)
    return result


def measured(clip: Clip, estimator: Estimator, work: Work, first: int, clock: Clock) -> Iterator[list[Measured]]:
    """The clip's frames from number `first` on, in groups, each with what the network says of it: as it was kept, or
    estimated now and kept.

    What the network says of a frame's motion hangs on the window before, and so whole windows count as kept.
    """
    spool = work.spool
    kept, whole = len(spool), len(spool) // WINDOW * WINDOW

    def again(begin: int) -> Iterator[Measured]:
        for frame, net, guess in islice(spool.read(begin), whole - begin):
            yield replace(frame, camera=clip.camera), net, guess

    yield from windows(clock.each("read again", again(min(first, whole))))
    geometry, number = None, whole
    for window in clock.each("read", windows(clip.frames(whole))):
        with clock.stage("estimate"):
            if geometry is None and whole:
                geometry = estimator.estimate([frame for frame, *_ in again(whole - WINDOW)])
            geometry = estimator.estimate(window, geometry)
        found = []
        for frame, depth, spread, guess in zip(
            window, geometry.depth, geometry.log_std, geometry.previous_from_cam, strict=True
        ):
            net = NetworkDepth.of(depth, spread, clip.camera)
            if number >= kept:
                with clock.stage("keep"):
                    spool.keep(frame, net, guess)
            if number >= first:
                found.append((frame, net, guess))
            number += 1
        yield found


def show(rows: list[FrameRow], clip: Clip, work: Work, place: Callable[[int], Place], watcher: Watcher) -> None:
    """Tell the watcher of frames that an earlier process has placed or refused."""
    for row, (frame, net, _) in zip(rows, work.spool.read(), strict=False):
        figures = dict(row.figures)
        if row.status == "refused":
            watcher.refused(Refused(row.index, row.time_ns, row.reason, row.segment, figures))
        else:
            frame = replace(frame, camera=clip.camera)
            watcher.observed(net.observe(frame, *place(row.index), row.segment, row.is_keyframe, figures))


def update_rows(tracker: Tracker, result: Result) -> None:
    """Bring the row of every placed frame up to date: how it fits after refinement, and how far it can be trusted."""
    unsure = spoiled(result.rows)
    for k, row in enumerate(result.rows):
        if row.index not in tracker.placed:
            continue
        segment, number = tracker.placed[row.index]
        expected = float(result.verdicts[segment].frame_percent[number])
        grade = result.verdicts[segment].frame_grade(number)
        figures = {
            **row.figures,
            "refined_residual_px": float(result.segments[segment].residual_px[number]),
            "expected_error_percent": expected,
        }
        result.rows[k] = replace(row, figures=figures, grade="red" if grade and k in unsure else grade)


def sharpened(tracker: Tracker, result: Result, shelf: Shelf, work: Work, clock: Clock) -> Iterator[Observation]:
    """Every placed frame that was kept, with its refined pose and the depth to which other views have agreed; what
    corrects it is put on the shelf."""
    unsure = {result.rows[k].index for k in spoiled(result.rows) if 0 <= k < len(result.rows)}
    views = many_views(tracker, result, work, unsure)
    for frame, net, _ in clock.each("read again", work.spool.read()):
        if frame.index not in tracker.placed:
            continue
        segment, number = tracker.placed[frame.index]
        with clock.stage("compare"):
            camera, pose, correction = result.place(segment, number)
            correction = views[segment].sharpen(number, net, frame.use_mask, correction)
            shelf.put(np.stack([correction.mean, correction.std]))
            seen = net.observe(frame, camera, pose, correction, segment, False, {})
        yield seen


def finals(
    tracker: Tracker, result: Result, surface: Surface | None, shelf: Shelf, work: Work, clock: Clock
) -> Iterator[Observation]:
    """The same frames, with their final depth."""
    rows, corrections = {row.index: row for row in result.rows}, shelf.all()
    for frame, net, _ in clock.each("read again", work.spool.read()):
        if frame.index not in tracker.placed:
            continue
        segment, number = tracker.placed[frame.index]
        row = rows[frame.index]
        with clock.stage("correct"):
            camera, pose, _ = result.place(segment, number)
            correction = Correction(*next(corrections))
            if surface is not None and segment == result.main:
                correction = surface.correct(net, correction, pose)
            final = net.observe(frame, camera, pose, correction, segment, row.is_keyframe, dict(row.figures))
        yield final


def refine_by_light(
    tracker: Tracker,
    result: Result,
    make_scene: Callable[[float], Scene],
    shelf: Shelf,
    work: Work,
    clock: Clock,
    improve: Improve | None,
) -> None:
    """Put the refined surface in the place of the fused one, if that is wanted and there is any."""
    from endorecon.shading.refine import MOST_VIEWS, Refinement
    from endorecon.shading.views import View

    if improve is None or result.mesh is None or not len(result.mesh.faces):
        return
    if tracker.given is not None and not tracker.given.rigid:
        result.light = Refinement(result.mesh, False, "the tissue moves before a still camera")
        return
    unsure = {result.rows[k].index for k in spoiled(result.rows) if 0 <= k < len(result.rows)}
    main = [(index, n) for index, (segment, n) in sorted(tracker.placed.items()) if segment == result.main]
    good = [(index, n) for index, n in main if index in work.spool and index not in unsure]
    chosen = np.unique(np.linspace(0, len(good) - 1, min(MOST_VIEWS, len(good))).astype(int)).tolist()
    poses = result.segments[result.main].world_from_cam
    views = [View(work.spool.at(good[k][0])[0], poses[good[k][1]]) for k in chosen]
    camera, again = result.segments[result.main].camera, None
    if result.splats is None:  # Gaussians would have to be trained again

        def brought_to(surface: Surface) -> Iterator[Observation]:
            frames = finals(tracker, result, surface, shelf, work, clock)
            return (seen for seen in frames if seen.segment == result.main)

        again = fused_again(result.mesh, camera, brought_to, make_scene)
    result.light = improve(result.mesh, camera, views, again=again)
    result.mesh = result.light.mesh


def many_views(tracker: Tracker, result: Result, work: Work, useless: set[int]) -> list[ManyViews]:
    """For each segment, its frames as views that sharpen each other's depth; `useless` are indices in the source, and
    so are those of frames that were not kept."""
    index = {place: index for index, place in tracker.placed.items() if index in work.spool}
    nothing = {-1, *useless}
    return [
        ManyViews(
            refined.camera,
            refined.world_from_cam,
            lambda number, segment=segment: work.spool.at(index[segment, number])[0],
            frozenset(n for n in range(len(refined.world_from_cam)) if index.get((segment, n), -1) in nothing),
        )
        for segment, refined in enumerate(result.segments)
    ]


def spoiled(rows: list[FrameRow]) -> set[int]:
    """Numbers of the rows whose pose can't be judged by how the landmarks agree: fluid, the wall, or a tool is before
    the lens, or comes or goes. They bend or hide the view of all landmarks alike."""
    struck = [n for n, row in enumerate(rows) if row.reason.startswith((COVERED, AGAINST_WALL, FILLED))]
    return {n for at in struck for n in range(at - ONSET_FRAMES, at + ONSET_FRAMES + 1)}


def windows(frames: Iterable[T], size: int = WINDOW) -> Iterator[list[T]]:
    """Consecutive frames in groups; the last group may be smaller."""
    window: list[T] = []
    for frame in frames:
        window.append(frame)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
