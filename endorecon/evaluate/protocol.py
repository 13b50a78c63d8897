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

from endorecon.evaluate.depth import DepthErrors, DepthPair, errors_of
from endorecon.evaluate.surface import SurfaceErrors, summed_up
from endorecon.evaluate.trajectory import TrajectoryErrors, match, trajectory_errors
from rendering.mesh import Mesh, read_mesh
from video_io.datasets import Truth, open_truth
from video_io.errors import InputError
from video_io.files import parse_json, read_text
from video_io.trajectory import Trajectory
from video_io.view import View

if TYPE_CHECKING:
    from endorecon.evaluate.case import Case
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
    from endorecon.evaluate.case import Case

    return evaluate_case(Case(run, truth, {}, {}))


def evaluate_case(case: Case) -> Evaluation:
    """The same of a sequence that may have a set of faces to ignore; errors as of `evaluate`."""
    run, truth = case.run, case.truth
    left_out = [
        f"{'trajectory' if part == 'path' else part}: {reason}"
        for part in ("depth", "path", "surface")
        if (reason := case.has(part))
    ]
    depth: tuple[DepthErrors, ...] = ()
    if not case.has("depth"):
        depth = tuple(errors_of(rows, scaling) for scaling, rows in case.depth_rows.items())
    path = None
    if not case.has("path") and truth.trajectory is not None:
        path = trajectory_errors(run.trajectory, truth.trajectory)
    surface = None
    if not case.has("surface"):
        seen, mesh = case.seen, case.true_mesh
        ignored = 0.0 if case.ignore is None else float(mesh.face_areas[case.ignore].sum() / mesh.face_areas.sum())
        surface = summed_up(case.distances, seen.median_depth, case.fit.scale, seen.share, ignored_share=ignored)
    return Evaluation(
        run.name, truth.name, run.frames, len(run.indices), run.segments, depth, path, surface, tuple(left_out),
        truth.unit,
    )  # fmt: skip


def frame_pairs(run: Reconstruction, truth: Truth) -> list[tuple[int, int]]:
    """(index in the run, number in the truth) of each frame that both have depth of.

    By time where both have poses; else by index, as of a folder of depth maps.

    Raises:
        InputError: nothing in common.
    """
    if truth.trajectory is not None and len(run.trajectory) and not getattr(run, "by_number", False):
        ours, theirs = match(run.trajectory.times_ns, truth.trajectory.times_ns)
        frames = [(run.indices[i], int(j)) for i, j in zip(ours, theirs, strict=True)]
    else:
        frames = [(i, i) for i in run.indices if i < truth.frame_count]
    if not frames:
        raise InputError(
            f"no frame of the run {run.name} belongs to a frame of the truth {truth.name} by its time; "
            "expected a run of the same clip at the same frame rate"
        )
    return frames


class DepthPairs:
    """(prediction, valid, truth) of each frame that both have, at the pixels of the truth; iteration starts anew."""

    def __init__(self, run: Reconstruction, truth: Truth) -> None:
        self.run, self.truth = run, truth
        self.frames = frame_pairs(run, truth)

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
            yield (*at_source_pixels(depth, confidence > 0, self.run.view, f"frame {number}: "), truth)


def check_map(depth: NDArray[np.float32], valid: NDArray[np.bool_], view: View, where: str = "") -> None:
    """Raise InputError, whose sentence begins with `where`, unless all valid depths are positive numbers and fit."""
    if depth.shape != (view.height, view.width) or valid.shape != depth.shape:
        raise InputError(
            f"{where}a depth map of the run is {depth.shape[1]} x {depth.shape[0]}, its camera.json says "
            f"{view.width} x {view.height}; expected both to agree"
        )
    bad = int(np.count_nonzero(~(np.isfinite(depth[valid]) & (depth[valid] > 0))))
    if bad:
        raise InputError(
            f"{where}a depth map of the run has {bad} values that are no positive numbers where its confidence is "
            "above 0; a depth that is not known must have confidence 0"
        )


def at_source_pixels(
    depth: NDArray[np.float32], valid: NDArray[np.bool_], view: View, where: str = ""
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A working-size depth map at every pixel of the source: bilinear over the valid pixels, invalid outside the crop.

    z-depth stays as it is, since cropping and resizing do not turn the camera.

    Args:
        where: what stands before the sentence of an error, such as the frame.

    Raises:
        InputError: a valid depth that is no positive number, or a map of another size than the view's.
    """
    check_map(depth, valid, view, where)
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
        self._run, self.name, self.frames, self.unit = run, run.name, len(run.rows), run.unit
        model = (run.info.get("model") or {}).get("name") or "model not stated"
        placed = (run.info.get("frames") or {}).get("tracked", "all")
        self.context = f"1 a depth map ({model}); scales and poses refined over the {placed} frames tracked"
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
        if (np.diff(poses) <= 0).any():
            raise InputError(
                f"frames.csv in '{run.path}' is not in the order of time; expected it as it was written; reconstruct "
                "again"
            )
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
        for name, values in (("F-score", s.f_score), ("coverage of the whole", s.coverage)):
            lines.append(f"  {name:<28} {', '.join(f'{v:.3f} at {k:g} mm' for k, v in values.items())}")
        lines += [
            f"  {'Chamfer, Hausdorff 95':<28} {s.chamfer:.3f} mm, {s.hausdorff95:.3f} mm",
            f"  {'normals':<28} median {np.degrees(s.normal_median_rad):.2f} deg, consistency "
            f"{s.normal_consistency:.3f}",
        ]
        if s.ignored_share:
            lines.append(f"  {100 * s.ignored_share:.1f} % of the true surface was told to be ignored")
    lines += ["", *(f"left out: {reason}" for reason in result.left_out)] if result.left_out else []
    return "\n".join(lines)


def _depth_lines(depth: tuple[DepthErrors, ...]) -> list[str]:
    if not depth:
        return []
    share = f"{100 * depth[0].valid_share:.1f} % of the true pixels compared"
    lines = ["", f"depth, mean over {depth[0].frames} frames, {share}"]
    heads = "".join(f"{n:>9}" for n in ("SqRel", "RMSE", "RMSElog")) + "".join(f"{n:>7}" for n in ("d1", "d2", "d3"))
    lines.append(f"  {'scale':<22}{'AbsRel':>8}{heads}{'L1':>9}")
    names = {"none": "none", "frame": "median of each frame", "clip": "one for the clip"}
    for d in depth:
        lines.append(
            f"  {names[d.scaling]:<22}{d.abs_rel:>8.4f}{d.sq_rel:>9.3f}{d.rmse:>9.3f}{d.rmse_log:>9.4f}"
            f"{d.delta1:>7.3f}{d.delta2:>7.3f}{d.delta3:>7.3f}{d.l1:>9.3f}"
        )
    return lines
