"""A recording for the Rerun viewer; the only file that imports rerun."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from endorecon.rows import Rising
from endorecon.run import Run
from endorecon.tracking.observation import Observation, Posed, Refused
from endorecon.views import _coverage, _grades
from endorecon.views._drawing import frustum
from endorecon.views._streams import Streams
from endorecon.views.viewer import APPLICATION, Hub, LiveViewer
from rendering.mesh import Mesh
from video_io.camera import Camera
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from endorecon.scenes._motion import MovingSplats
    from endorecon.scenes._splat_model import Splats

PLOTS = ("inlier_share", "residual_px", "landmarks", "sharpness")  # shown first, of what tracking measures
GAUGES = ("frames_a_second", "latency_ms", "dropped")  # of a live run
_SEGMENT_COLORS = ((79, 195, 247), (255, 183, 77), (174, 213, 129), (240, 98, 146), (186, 104, 200), (255, 241, 118))
_UNSEEN_COLOR = (239, 83, 80)
_KEYFRAME_COLOR = (224, 224, 224, 110)
_FIGURES_AT_ONCE = 10
# Of a run that goes on the file gets what is logged in pieces of so many seconds: for each piece the writer remembers
# 1.5 kB up to the end, which in pieces of the usual 0.2 s were 300 MB an hour.
_PIECE_S, _PIECE_BYTES, _FIGURES_AT_ONCE_RUNNING = 10.0, 8 << 20, 200
_POINT_STRIDE = 6
_MOMENTS = 100  # of Gaussians that move, 1 MB each
_PATH_WIDTH, _FRUSTUM_WIDTH, _POINT_SIZE = -2.0, -0.75, -1.5  # negative: in screen points, whatever the scene's unit


class RerunView:
    """Writes `recording.rrd`, and shows it as it grows where `live` is asked for.

    About 3 ms a frame at 320 x 256. Images are JPEG, depth is half precision at half size: about 80 kB a frame.

    Args:
        path: the recording.
        live: whether to open the viewer now.
        say: takes a sentence for the person, such as the address of the viewer on a machine without a screen.
        running: whether it is a run that goes on, whose recording may end before the run does.
        hub: its server, to which all goes as well; it may be slow, and end.
    """

    def __init__(
        self,
        path: Path,
        live: bool = False,
        say: Callable[[str], None] = print,
        running: bool = False,
        hub: Hub | None = None,
    ) -> None:
        self._path, self._running, self._hub = path, running, hub
        self._live = live
        self._say = say
        self._rec: rr.RecordingStream | Streams | None = None
        self._camera: Camera | None = None
        # time_ns -> frame index, segment, key frame
        self._placed: MutableMapping[int, tuple[int, ...]] = Rising(3) if running else {}
        self._last: tuple[int, NDArray[np.float64]] | None = None  # segment and centre
        self._reach = 1.0  # typical depth, the measure of drawn sizes
        self._far = 0.0
        self._mesh: Mesh | None = None
        self._has_splats = False
        self._viewer: LiveViewer | None = None
        self._so_far: dict[int, array[float]] = {}  # centres of key frames by segment
        self._figures: dict[str, list[tuple[int, int, float]]] = {}  # index, time_ns, value; not yet sent
        self._names: set[str] = set()

    def started(self, name: str, camera: Camera) -> None:
        identity = f"{name}-{time.time_ns()}"
        batches = _batches() if self._running else None
        rec = rr.RecordingStream(APPLICATION, recording_id=identity, batcher_config=batches)
        sinks: list[rr.FileSink | rr.GrpcSink] = [rr.FileSink(str(self._path))]
        if self._live and (viewer := self._open_viewer()):
            sinks.append(rr.GrpcSink(viewer.address))
        rec.set_sinks(*sinks)
        if self._running:
            rec = Streams(rec, self._path.parent, self._hub, partial(_to_viewer, identity), self._say)
        rec.send_recording_name(name)
        rec.log("world", rr.ViewCoordinates.RDF, static=True)
        self._rec, self._camera = rec, camera

    def observed(self, seen: Observation) -> None:
        rec, frame = self._rec, seen.frame
        if rec is None:
            return
        if not self._placed:
            self._begin(seen)
        self._at(frame.index, frame.time_ns)
        rec.log("world/camera", _transform(seen.world_from_cam))
        rec.log("world/camera/image", rr.EncodedImage(contents=_jpeg(frame.rgb[..., ::-1]), media_type="image/jpeg"))
        if self._live or self._running:
            self._depth(seen)
        self._extend_path(seen)
        for name, value in seen.figures.items():
            self._figures.setdefault(name, []).append((frame.index, frame.time_ns, value))
        if len(self._placed) % (_FIGURES_AT_ONCE_RUNNING if self._running else _FIGURES_AT_ONCE) == 0:
            self._send_figures()
        self._placed[frame.time_ns] = (frame.index, seen.segment, seen.is_keyframe)

    def final(self, seen: Observation) -> None:
        """The depth of the end takes the place of the one that was there while the run was watched; but not in a
        live run, whose recording is long as it is."""
        if self._rec is not None and not self._running and seen.frame.time_ns in self._placed:
            self._at(seen.frame.index, seen.frame.time_ns)
            self._depth(seen)

    def posed(self, seen: Posed) -> None:
        """A frame has its place, and no depth."""
        rec, frame = self._rec, seen.frame
        if rec is None or not self._placed:
            return
        self._at(frame.index, frame.time_ns)
        rec.log("world/camera", _transform(seen.world_from_cam))
        rec.log("world/camera/image", rr.EncodedImage(contents=_jpeg(frame.rgb[..., ::-1]), media_type="image/jpeg"))
        self._extend_path(seen)

    def gauges(self, index: int, time_ns: int, figures: Mapping[str, float], state: str) -> None:
        """How a live run fares: figures by name, and its state in words."""
        if self._rec is None:
            return
        self._at(index, time_ns)
        for name, value in figures.items():
            self._rec.log(f"live/{name}", rr.Scalars(value))
        self._rec.log("state", rr.TextDocument(state, media_type="text/markdown"))
        if isinstance(self._rec, Streams):
            self._rec.check()

    def refused(self, refused: Refused) -> None:
        if self._rec is None:
            return
        self._at(refused.index, refused.time_ns)
        self._rec.log("refused", rr.TextLog(refused.reason, level=rr.TextLogLevel.WARN))
        self._last = None

    def refined(self, trajectory: Trajectory) -> None:
        """Replace the poses, the path and the key frames; frames that were never observed are left out."""
        rec = self._rec
        known = [(i, *self._placed[t]) for i, t in enumerate(trajectory.times_ns.tolist()) if t in self._placed]
        if rec is None or not known:
            return
        rows = [row for row, *_ in known]
        poses = trajectory.world_from_cam[rows]
        rec.send_columns(
            "world/camera",
            indexes=[
                rr.TimeColumn("frame", sequence=[index for _, index, _, _ in known]),
                rr.TimeColumn("video_time", duration=trajectory.times_ns[rows] / 1e9),
            ],
            columns=rr.Transform3D.columns(translation=poses[:, :3, 3], mat3x3=poses[:, :3, :3]),
        )
        segments = np.array([segment for _, _, segment, _ in known])
        strips = [poses[segments == s, :3, 3] for s in np.unique(segments)]
        colors = [_segment_color(int(s)) for s in np.unique(segments)]
        rec.log("world/path", rr.LineStrips3D(strips, colors=colors, radii=_PATH_WIDTH), static=True)
        frusta = [strip for pose, (*_, key) in zip(poses, known, strict=True) if key for strip in self._edges(pose)]
        rec.log("world/keyframes", rr.LineStrips3D(frusta, colors=_KEYFRAME_COLOR, radii=_FRUSTUM_WIDTH), static=True)

    def mesh(self, mesh: Mesh) -> None:
        self._mesh = mesh
        if self._live and self._rec is not None:
            self._rec.log("world/mesh", _mesh(mesh))
        if isinstance(self._rec, Streams):
            # To the viewer alone: the file gets the surface of the end. Not as static data: a full server lets go of
            # what is old, but among the static data of the oldest first, and that is the camera.
            viewer = self._rec.viewer_only()
            viewer.log("world/mesh", _mesh(mesh), stays=True)
            viewer.log("world/coverage", _mesh(_coverage.painted(mesh)), stays=True)
            rim = rr.LineStrips3D(_coverage.rim(mesh), colors=_UNSEEN_COLOR, radii=-1.0)
            viewer.log("world/unseen", rim, stays=True)
            # The path by its key frames, for those who look later than the server remembers each step.
            before = rr.LineStrips3D(
                [np.reshape(strip, (-1, 3)) for strip in self._so_far.values()],
                colors=[_segment_color(segment) for segment in self._so_far], radii=_PATH_WIDTH,
            )  # fmt: skip
            viewer.log("world/path_before", before, stays=True)

    def splats(self, splats: Splats | MovingSplats) -> None:
        if self._rec is not None:
            if hasattr(splats, "at"):
                self._send_motion(splats)
            else:
                self._rec.log("world/splats", _splats(splats), static=True)
            self._has_splats = True
            self._rec.send_blueprint(_layout(PLOTS, splats=True), make_active=True, make_default=True)

    def _send_motion(self, splats: MovingSplats) -> None:
        """Gaussians that move: their looks once, where they are at the times of frames, so that time plays them."""
        assert self._rec is not None
        self._rec.log("world/splats", rr.GaussianSplats3D.from_fields(colors=splats.rest.colors), static=True)
        frames = sorted((index, time_ns) for time_ns, (index, _, _) in self._placed.items())
        for index, time_ns in frames[:: -(-len(frames) // _MOMENTS)]:
            self._at(index, time_ns)
            now = splats.at(time_ns)
            place = rr.GaussianSplats3D.from_fields(
                centers=now.means, scales=np.exp(now.scales), quaternions=now.quats[:, [1, 2, 3, 0]]
            )
            self._rec.log("world/splats", place)

    def finished(self, run: Run) -> None:
        if self._rec is None:
            return
        if self._mesh is not None and len(self._mesh.faces):
            self._rec.log("world/mesh", _mesh(self._mesh), static=True)
            if (painted := _grades.graded(self._mesh, run)) is not None:
                self._rec.log("world/mesh_grades", _mesh(painted), static=True)
        self._send_figures()
        self._grade_path(run)
        if isinstance(self._rec, Streams):
            self._rec.send_blueprint(_layout(PLOTS, splats=self._has_splats), make_active=True, make_default=True)
        elif self._names and not self._names.issuperset(PLOTS):
            shown = [*(n for n in PLOTS if n in self._names), *sorted(self._names.difference(PLOTS))][: len(PLOTS)]
            self._rec.send_blueprint(_layout(shown, splats=self._has_splats), make_active=True, make_default=True)
        self._rec.flush()
        self._rec.disconnect()
        self._rec = None
        if self._viewer is not None and self._viewer.page:
            self._viewer.close()  # a browser keeps what it has got; a window stays open by itself

    # -- inside ---------------------------------------------------------------------------------------------------

    def _open_viewer(self) -> LiveViewer | None:
        self._viewer = LiveViewer.start()
        if self._viewer is None:
            self._say("the viewer did not start; the recording is written all the same")
        elif self._viewer.page:
            self._say(f"no screen found; watch at {self._viewer.page} in a browser on this machine")
        return self._viewer

    def _begin(self, seen: Observation) -> None:
        """What needs the first frame: sizes to draw in, the camera's frustum, the layout."""
        assert self._rec is not None and self._camera is not None
        valid = seen.depth[seen.confidence > 0]
        self._reach = float(np.median(valid)) if valid.size else 1.0
        camera = self._camera
        # The viewer draws pinholes only; another lens keeps its focal length at the centre.
        pinhole = rr.Pinhole(
            focal_length=camera.params[:2] if camera.model in ("pinhole", "brown", "fisheye") else camera.focal_px,
            principal_point=camera.centre_px,
            width=camera.width,
            height=camera.height,
            image_plane_distance=0.3 * self._reach,
        )
        self._rec.log("world/camera/image", pinhole, static=True)
        gauges = isinstance(self._rec, Streams)
        self._rec.send_blueprint(_layout(GAUGES if gauges else PLOTS, gauges), make_active=True, make_default=True)

    def _at(self, index: int, time_ns: int) -> None:
        assert self._rec is not None
        self._rec.set_time("frame", sequence=index)
        self._rec.set_time("video_time", duration=time_ns / 1e9)

    def _depth(self, seen: Observation) -> None:
        """A frame's depth, confidence and points, at the time that was set."""
        rec = self._rec
        assert rec is not None
        depth = np.where(seen.confidence > 0, seen.depth, 0)[::2, ::2].astype(np.float16)
        if (shown := depth[depth > 0]).size:
            self._far = max(self._far, float(np.percentile(shown[::7], 98)))
        rec.log("depth", rr.DepthImage(depth, colormap="turbo", depth_range=(0.0, max(self._far, 1e-6))))
        painted = cv2.applyColorMap((seen.confidence[::2, ::2] * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
        rec.log("confidence", rr.EncodedImage(contents=_jpeg(painted), media_type="image/jpeg"))
        rec.log("world/camera/points", _points(seen))

    def _send_figures(self) -> None:
        """Plots grow in steps of some frames: one call for many values costs what one value costs."""
        assert self._rec is not None
        for name, values in self._figures.items():
            index, time_ns, value = np.array(values, float).T
            frame = rr.TimeColumn("frame", sequence=index.astype(int))
            times = [frame, rr.TimeColumn("video_time", duration=time_ns / 1e9)]
            self._rec.send_columns(f"figures/{name}", indexes=times, columns=rr.Scalars.columns(scalars=value))
        self._names |= self._figures.keys()
        self._figures.clear()

    def _extend_path(self, seen: Observation | Posed) -> None:
        assert self._rec is not None
        centre = seen.world_from_cam[:3, 3]
        if self._last is not None and self._last[0] == seen.segment:
            step = rr.LineStrips3D([[self._last[1], centre]], colors=_segment_color(seen.segment), radii=_PATH_WIDTH)
            self._rec.log("world/path", step)
        if seen.is_keyframe:
            self._so_far.setdefault(seen.segment, array("f")).extend(centre)
            frustum = rr.LineStrips3D(
                self._edges(seen.world_from_cam), colors=_KEYFRAME_COLOR, radii=_FRUSTUM_WIDTH
            )
            self._rec.log("world/keyframes", frustum)
        self._last = (seen.segment, centre)

    def _edges(self, world_from_cam: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        assert self._camera is not None
        return frustum(self._camera, world_from_cam, 0.12 * self._reach)

    def _grade_path(self, run: Run) -> None:
        """Colour the path as its poses can be trusted."""
        assert self._rec is not None
        grade = {row.time_ns: row.grade for row in run.rows}
        grades = [grade.get(t, "") for t in run.trajectory.times_ns.tolist()]
        if not any(grades):
            return
        strips, colors = [], []
        for name, stretch in groupby(range(1, len(grades)), key=lambda n: grades[n]):
            steps = list(stretch)
            strips.append(run.trajectory.centres[steps[0] - 1 : steps[-1] + 1])
            colors.append(_grades.COLORS[name] if name else _SEGMENT_COLORS[0])
        self._rec.log("world/path", rr.LineStrips3D(strips, colors=colors, radii=_PATH_WIDTH), static=True)


def _layout(figures: Sequence[str], live: bool = False, splats: bool = False) -> rrb.Blueprint:
    """Scene on the left, pictures on the right, figures below: everything at once. `live` is a run's that goes on, with
    what was seen of the surface beside it."""
    begin, now = rrb.TimeRangeBoundary.infinite(), rrb.TimeRangeBoundary.cursor_relative()
    so_far = rrb.VisibleTimeRanges(
        [rrb.VisibleTimeRange(timeline, start=begin, end=now) for timeline in ("frame", "video_time")]
    )
    in_space = partial(rrb.Spatial3DView, origin="world", background=[24, 26, 31], line_grid=False)
    scene = in_space(
        name="Scene",
        # The surface in the colours of its grades lies where the surface does: one of the two is shown.
        overrides={
            "world/path": so_far,
            "world/keyframes": so_far,
            "world/mesh_grades": rrb.EntityBehavior(visible=False),
            "world/coverage": rrb.EntityBehavior(visible=False),
            # Gaussians lie on the surface too.
            "world/mesh": rrb.EntityBehavior(visible=not splats),
        },
    )
    pictures = rrb.Vertical(
        rrb.Spatial2DView(origin="world/camera/image", contents="world/camera/image", name="Image"),
        rrb.Spatial2DView(origin="depth", name="Depth"),
        rrb.Spatial2DView(origin="confidence", name="Confidence"),
    )
    no_legend = rrb.PlotLegend(visible=False)
    plots = [
        rrb.TimeSeriesView(
            origin=f"{'live' if live else 'figures'}/{name}", name=name.replace("_", " "), plot_legend=no_legend
        )
        for name in figures
    ]
    plots.append(rrb.TextLogView(origin="refused", name="Refused frames"))
    above, shares = [scene, pictures], [3, 1]
    if live:
        plots.append(rrb.TextDocumentView(origin="state", name="State"))
        seen = ["world/coverage", "world/unseen", "world/path_before"]
        above, shares = [scene, in_space(name="Coverage (green: well seen)", contents=seen), pictures], [5, 3, 2]
    return rrb.Blueprint(
        rrb.Vertical(rrb.Horizontal(*above, column_shares=shares), rrb.Horizontal(*plots), row_shares=[4, 1]),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.TimePanel(state="collapsed", timeline="frame"),
    )


def _transform(world_from_cam: NDArray[np.float64]) -> rr.Transform3D:
    return rr.Transform3D(translation=world_from_cam[:3, 3], mat3x3=world_from_cam[:3, :3])


def _jpeg(bgr: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _points(seen: Observation) -> rr.Points3D:
    """Some of the frame's surface points in their colours, in the camera's frame: they follow when it is refined."""
    assert seen.frame.camera is not None
    part = np.s_[_POINT_STRIDE // 2 :: _POINT_STRIDE, _POINT_STRIDE // 2 :: _POINT_STRIDE]
    rays = seen.frame.camera.ray_map()[part]
    depth = seen.depth[part]
    keep = (seen.confidence[part] > 0) & (rays[..., 2] > 0.05)
    local = rays[keep] * (depth[keep] / rays[keep][:, 2])[:, None]
    return rr.Points3D(local.astype(np.float32), colors=seen.frame.rgb[part][keep], radii=_POINT_SIZE)


def _mesh(mesh: Mesh) -> rr.Mesh3D:
    return rr.Mesh3D(
        vertex_positions=mesh.vertices,
        triangle_indices=mesh.faces.astype(np.uint32),
        vertex_normals=mesh.vertex_normals.astype(np.float32),
        vertex_colors=mesh.colors,
        # The side that was filmed: so a tube seen from outside shows its inner wall and the path in it.
        face_rendering=rr.components.MeshFaceRendering.Front,
    )


def _splats(splats: Splats) -> rr.GaussianSplats3D:
    n, kept = len(splats), splats.shN.shape[1]
    harmonics = np.zeros((n, 15, 3), np.float32)
    harmonics[:, :kept] = splats.shN
    return rr.GaussianSplats3D(
        splats.means, scales=np.exp(splats.scales), quaternions=splats.quats[:, [1, 2, 3, 0]], colors=splats.colors,
        sh_coefficients=harmonics if kept else None,
    )  # fmt: skip


def _segment_color(segment: int) -> tuple[int, int, int]:
    return _SEGMENT_COLORS[segment % len(_SEGMENT_COLORS)]


def _batches() -> rr.ChunkBatcherConfig:
    """How a long recording is cut into pieces."""
    batches = rr.ChunkBatcherConfig.DEFAULT()
    batches.flush_tick, batches.flush_num_bytes = _PIECE_S, _PIECE_BYTES
    return batches


def _to_viewer(identity: str, address: str) -> rr.RecordingStream:
    rec = rr.RecordingStream(APPLICATION, recording_id=identity)
    rec.set_sinks(rr.GrpcSink(address))
    return rec


def write_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """A recording of a training's figures over its steps.

    Args:
        rows: figures by name, each row with its "step".
        path: the recording to write.
    """
    rec = rr.RecordingStream(APPLICATION, recording_id=f"training-{time.time_ns()}")
    rec.set_sinks(rr.FileSink(str(path)))
    for name in dict.fromkeys(name for row in rows for name in row if name != "step"):
        had = [(int(row["step"]), float(row[name])) for row in rows if name in row]
        steps, values = np.array(had).T
        times = [rr.TimeColumn("step", sequence=steps.astype(int))]
        rec.send_columns(f"training/{name}", indexes=times, columns=rr.Scalars.columns(scalars=values))
    rec.flush()
    rec.disconnect()
