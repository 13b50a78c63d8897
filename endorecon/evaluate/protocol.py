"""A run folder against a folder of truth: every figure, and what was left out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.depth import DepthErrors, DepthPair, depth_errors
from endorecon.evaluate.surface import SurfaceErrors, seen_points, surface_errors
from endorecon.evaluate.trajectory import TrajectoryErrors, align_poses, match, matched, trajectory_errors
from rendering.mesh import Mesh, read_mesh
from video_io.datasets import Truth, open_truth
from video_io.errors import InputError
from video_io.files import parse_json, read_text
from video_io.trajectory import Trajectory
from video_io.view import View

if TYPE_CHECKING:
    from endorecon.run import Run

DepthMap = tuple[NDArray[np.float32], NDArray[np.float32]]


class Reconstruction(Protocol):
    """What the evaluation needs of a run: its main segment, as poses of different segments can't be compared."""

    @property
    def name(self) -> str: ...
    @property
    def view(self) -> View: ...
    @property
    def indices(self) -> Sequence[int]:
        """Source index of each pose of the main segment."""
        ...

    @property
    def trajectory(self) -> Trajectory:
        """Poses of the main segment."""
        ...

    @property
    def segments(self) -> int: ...
    @property
    def frames(self) -> int:
        """Frames that were tried, tracked or refused."""
        ...

    def depth(self, index: int) -> DepthMap:
        """Depth and confidence of a frame by source index, working size."""
        ...

    def mesh(self) -> Mesh | None: ...


@dataclass(frozen=True)
class Evaluation:
    """All figures of a run; None where the truth has nothing to compare with.

    Attributes:
        run, truth: names.
        frames: frames that the run tried.
        frames_main_segment: frames placed in the longest segment, the one that is evaluated.
        segments: number of segments.
        depth: errors without scaling, with a scale a frame, and with one for the clip.
        trajectory: errors of the camera path.
        surface: errors of the mesh.
        left_out: what could not be compared and why, a sentence each.
        unit: of the truth's lengths: `mm`, or `up to scale`.
    """

    run: str
    truth: str
    frames: int
    frames_main_segment: int
    segments: int
    depth: tuple[DepthErrors, ...]
    trajectory: TrajectoryErrors | None
    surface: SurfaceErrors | None
    left_out: tuple[str, ...]
    unit: str = "mm"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "run": self.run,
            "truth": self.truth,
            "frames": self.frames,
            "frames_main_segment": self.frames_main_segment,
            "segments": self.segments,
            "unit": self.unit,
            "depth": {d.scaling: d.to_dict() for d in self.depth},
            "trajectory": self.trajectory.to_dict() if self.trajectory else None,
            "surface": self.surface.to_dict() if self.surface else None,
            "left_out": list(self.left_out),
        }


def evaluate(run: Reconstruction, truth: Truth) -> Evaluation:
    """All figures that the truth allows.

    Raises:
        InputError: nothing in common, values that are no numbers, or sizes that do not fit.
    """
    left_out: list[str] = []
    depth: tuple[DepthErrors, ...] = ()
    if truth.read_depth is None:
        left_out.append("depth: the truth has none")
    else:
        pairs = DepthPairs(run, truth)
        depth = tuple(depth_errors(pairs, scaling) for scaling in ("none", "frame", "clip"))
    path = None
    if truth.trajectory is None:
        left_out.append("trajectory: the truth has none")
    else:
        path = trajectory_errors(run.trajectory, truth.trajectory)
    surface = None
    mesh = run.mesh()
    if truth.mesh_path is None or truth.camera is None or truth.trajectory is None:
        left_out.append("surface: the truth has no mesh with poses and camera")
    elif mesh is None or not len(mesh.faces):
        left_out.append("surface: the run has no surface")
    else:
        surface = _surface(mesh, run, truth)
    return Evaluation(
        run.name, truth.name, run.frames, len(run.indices), run.segments, depth, path, surface, tuple(left_out),
        truth.unit,
    )  # fmt: skip


def _surface(mesh: Mesh, run: Reconstruction, truth: Truth) -> SurfaceErrors:
    assert truth.mesh_path and truth.camera and truth.trajectory
    true_mesh = read_mesh(truth.mesh_path)
    ours, theirs = matched(run.trajectory, truth.trajectory)
    fit = align_poses(ours, theirs)
    points, share, median_depth = seen_points(true_mesh, truth.camera, theirs)
    return surface_errors(
        mesh.transformed(fit.matrix, fit.scale), true_mesh, points, median_depth, scale=fit.scale, seen_share=share
    )


class DepthPairs:
    """(prediction, valid, truth) of each frame that both have, at the pixels of the truth; iteration starts anew."""

    def __init__(self, run: Reconstruction, truth: Truth) -> None:
        self.run, self.truth = run, truth
        if truth.trajectory is not None:
            ours, theirs = match(run.trajectory.times_ns, truth.trajectory.times_ns)
            self.frames = [(run.indices[i], int(j)) for i, j in zip(ours, theirs, strict=True)]
        else:
            self.frames = [(i, i) for i in run.indices if i < truth.frame_count]
        if not self.frames:
            raise InputError(
                f"no frame of the run {run.name} belongs to a frame of the truth {truth.name} by its time; "
                "expected a run of the same clip at the same frame rate"
            )

    def __iter__(self) -> Iterator[DepthPair]:
        for index, number in self.frames:
            truth = self.truth.depth(number)
            assert truth is not None
            depth, confidence = self.run.depth(index)
            size = (self.run.view.source_height, self.run.view.source_width)
            if truth.shape != size:
                raise InputError(
                    f"the run is of images of {size[1]} x {size[0]}, the truth {self.truth.name} has depth of "
                    f"{truth.shape[1]} x {truth.shape[0]}; expected the truth of the same clip at the same size"
                )
            yield (*at_source_pixels(depth, confidence > 0, self.run.view), truth)


def at_source_pixels(
    depth: NDArray[np.float32], valid: NDArray[np.bool_], view: View
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A working-size depth map at every pixel of the source: bilinear over the valid pixels, invalid outside the crop.

    z-depth stays as it is, since cropping and resizing do not turn the camera.

    Raises:
        InputError: a valid depth that is no positive number, or a map of another size than the view's.
    """
    if depth.shape != (view.height, view.width) or valid.shape != depth.shape:
        raise InputError(
            f"a depth map of the run is {depth.shape[1]} x {depth.shape[0]}, its camera.json says {view.width} x "
            f"{view.height}; expected both to agree"
        )
    bad = int(np.count_nonzero(~(np.isfinite(depth[valid]) & (depth[valid] > 0))))
    if bad:
        raise InputError(
            f"a depth map of the run has {bad} values that are no positive numbers where its confidence is above 0; "
            "a depth that is not known must have confidence 0"
        )
    x, y, w, h = view.crop
    if (x, y, w, h) == (0, 0, view.width, view.height) == (0, 0, view.source_width, view.source_height):
        return depth, valid
    # pixel (0.5, 0.5) is the centre of the first pixel; remap counts from it
    columns = ((np.arange(view.source_width) + 0.5 - x) * (view.width / w) - 0.5).astype(np.float32)
    rows = ((np.arange(view.source_height) + 0.5 - y) * (view.height / h) - 0.5).astype(np.float32)
    at = np.meshgrid(columns, rows)
    known = valid.astype(np.float32)
    border = {"interpolation": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    weight = cv2.remap(known, *at, **border)
    total = cv2.remap(np.where(valid, depth, np.float32(0)), *at, **border)
    inside = np.zeros((view.source_height, view.source_width), bool)
    inside[max(y, 0) : y + h, max(x, 0) : x + w] = True
    good = inside & (weight > 0.5)
    return np.where(good, total / np.maximum(weight, 1e-6), 0).astype(np.float32), good


class RunRecord:
    """A run folder as the evaluation sees it: the segment with most tracked frames.

    Raises:
        InputError: the run ended before it had cameras or poses, or its camera.json does not say what was cropped.
    """

    def __init__(self, run: Run) -> None:
        self._run, self.name, self.frames = run, run.name, len(run.rows)
        tracked = [row for row in run.rows if row.status == "tracked"]
        sizes = Counter(row.segment for row in tracked)
        self.segments = len(sizes)
        at = {int(t): i for i, t in enumerate(run.trajectory.times_ns)}
        main = sizes.most_common(1)[0][0] if sizes else 0
        rows = [row for row in tracked if row.segment == main and row.time_ns in at]
        if not rows:
            raise InputError(
                f"the run in '{run.path}' has no poses (status: {run.status}); expected tracked frames in frames.csv "
                "and their poses in trajectory.tum; reconstruct again"
            )
        self.indices = [row.index for row in rows]
        poses = [at[row.time_ns] for row in rows]
        self.trajectory = Trajectory(run.trajectory.times_ns[poses], run.trajectory.world_from_cam[poses])
        self.view = _read_view(run.path / "camera.json")

    def depth(self, index: int) -> DepthMap:
        """Depth and confidence of a frame by source index, working size."""
        return self._run.depth(index)

    def mesh(self) -> Mesh | None:
        """The run's surface, if it has one."""
        return read_mesh(self._run.mesh_path) if self._run.mesh_path else None


def _read_view(path: Path) -> View:
    try:
        v = parse_json(read_text(path))["view"]
        x, y, w, h = (int(n) for n in v["crop"])
        return View(int(v["source_width"]), int(v["source_height"]), (x, y, w, h), int(v["width"]), int(v["height"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{path}' does not say how the run's images were cut from the source ({error}); expected an entry 'view' "
            "as `endorecon reconstruct` writes it; reconstruct again"
        ) from error


def evaluate_run(run_dir: str | Path, truth_dir: str | Path) -> Evaluation:
    """Evaluate a run folder against a folder of truth in any known layout.

    Raises:
        InputError: a folder that is missing or of no known layout, or that can't be compared.
    """
    from endorecon.run import read_run

    return evaluate(RunRecord(read_run(run_dir)), open_truth(truth_dir))


def table(result: Evaluation) -> str:
    """The figures as text, one line each."""
    count = f"{result.segments} segment{'s' if result.segments != 1 else ''}"
    lines = [
        f"run {result.run} against {result.truth}: {result.frames_main_segment} of {result.frames} frames in the main "
        f"segment ({count})"
    ]
    lines += _depth_lines(result.depth)
    if (t := result.trajectory) is not None:
        unit = "mm" if result.unit == "mm" else ""
        lines += [
            "",
            f"trajectory, {t.poses} of {t.truth_poses} true poses, path {t.path_length:.4g} {unit or result.unit}",
            f"  ATE RMSE, Sim3 {t.ate_sim3:9.4f} {unit} = {t.ate_sim3_percent:.3f} % of the path (scale {t.scale:.4g})",
            f"  ATE RMSE, SE3  {t.ate_se3:9.4f} {unit} = {t.ate_se3_percent:.3f} % of the path",
            f"  RPE RMSE       {t.rpe_translation:9.4f} {unit}, {np.degrees(t.rpe_rotation_rad):.4f} deg "
            "from pose to pose",
            f"  orientation    {np.degrees(t.rotation_median_rad):9.4f} deg, median",
        ]
    if (s := result.surface) is not None:
        seen = f"{100 * s.seen_share:.1f} % of the true surface was in view"
        lines += ["", f"surface after alignment of the poses, {seen}"]
        for name, median, mean, percent in (
            ("run to truth (accuracy)", s.accuracy_median, s.accuracy_mean, s.accuracy_percent),
            ("truth to run (completeness)", s.completeness_median, s.completeness_mean, s.completeness_percent),
        ):
            lines.append(f"  {name:<28} median {median:.3f} mm = {percent:.2f} % of the depth, mean {mean:.3f} mm")
        scores = ", ".join(f"{v:.3f} at {k:g} mm" for k, v in s.f_score.items())
        lines.append(f"  {'F-score':<28} {scores}")
    lines += ["", *(f"left out: {reason}" for reason in result.left_out)] if result.left_out else []
    return "\n".join(lines)


def _depth_lines(depth: tuple[DepthErrors, ...]) -> list[str]:
    if not depth:
        return []
    share = f"{100 * depth[0].valid_share:.1f} % of the true pixels compared"
    lines = ["", f"depth, mean over {depth[0].frames} frames, {share}"]
    lines.append(f"  {'scale':<22}{'AbsRel':>8}{'SqRel':>9}{'RMSE':>9}{'RMSElog':>9}{'d1':>7}{'d2':>7}{'d3':>7}")
    names = {"none": "none", "frame": "median of each frame", "clip": "one for the clip"}
    for d in depth:
        lines.append(
            f"  {names[d.scaling]:<22}{d.abs_rel:>8.4f}{d.sq_rel:>9.3f}{d.rmse:>9.3f}{d.rmse_log:>9.4f}"
            f"{d.delta1:>7.3f}{d.delta2:>7.3f}{d.delta3:>7.3f}"
        )
    return lines
