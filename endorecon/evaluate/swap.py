"""How much of a run's error is due to its poses and how much to its depth: each in turn is replaced by the truth.

The swap of Mangulabnan et al. (arXiv 2310.14364): {true pose, estimated depth}, {estimated pose, true depth}, and both
estimated, each fused and measured against the true surface; and besides, as fusing averages errors away, how far each
moves the points that the pixels see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.protocol import RunRecord
from endorecon.evaluate.trajectory import align_poses, match
from rendering.mesh import Caster, Mesh, distances_to
from video_io.camera import Camera
from video_io.datasets import Truth
from video_io.errors import InputError
from video_io.trajectory import Similarity, Trajectory, align

if TYPE_CHECKING:
    from endorecon.run import Run

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
_FRAMES, _FUSED = 240, 48  # that are compared, and that are fused: at most so many, evenly spaced
_PIXELS = 1500  # a frame, of which the displacement is taken
_SAMPLES = 50_000


@dataclass(frozen=True)
class Distances:
    """Distances of points spread over a surface to the CT's, mm."""

    mean: float
    median: float
    p95: float
    rmse: float

    @staticmethod
    def of(values: Float) -> Distances:
        """The figures of distances (N,)."""
        rmse = float(np.sqrt(np.mean(values**2)))
        return Distances(float(values.mean()), float(np.median(values)), float(np.percentile(values, 95)), rmse)


@dataclass(frozen=True)
class Displacement:
    """How far an error moves the points that the pixels see, mm: root mean square and median."""

    rms: float
    median: float

    @staticmethod
    def of(values: Float) -> Displacement:
        """The figures of distances (N,)."""
        return Displacement(float(np.sqrt(np.mean(values**2))), float(np.median(values)))


@dataclass(frozen=True)
class Swap:
    """The error of a run, taken apart.

    Attributes:
        pose: displacement that the poses' errors cause where the depth is true.
        depth: displacement that the depths' errors cause where the poses are true.
        both: displacement with both.
        pose_share, depth_share: of the sum of both mean squares; they add up to 1.
        shared: mean square of both less the sum of the two, as a share of that sum: above 0 the errors add up, below 0
            they cancel.
        surfaces: distances to the true surface once fused, by `pose` / `depth`: `true/true` (what fusing itself costs),
            `true/estimated`, `estimated/true`, `estimated/estimated`; None where nothing could be fused.
        registration: displacement between the place that the registration found and the one that the true poses tell.
        frames: frames compared.
        place: from the run's world to the truth's, by its poses. A run that is up to scale has one scale for both, the
            mean of that of its path and that of its depth, by their certainty.
        scale_gap: by how much the depth's scale exceeds the path's: whose error that is can't be told; 0 in mm.
        true_depth: where it comes from: `truth`, or `CT seen from the true poses`.
    """

    pose: Displacement
    depth: Displacement
    both: Displacement
    pose_share: float
    depth_share: float
    shared: float
    surfaces: dict[str, Distances | None]
    registration: Displacement | None
    frames: int
    place: Similarity
    scale_gap: float
    true_depth: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        values = asdict(self)
        values["place"] = {"scale": self.place.scale, "ct_from_run": self.place.matrix.tolist()}
        return values


@dataclass(frozen=True)
class _View:
    """A frame at working size: z-depths (H, W) in mm, 0 = none; poses in the truth's world."""

    estimated: Float32
    confidence: Float32
    true: Float32
    estimated_pose: Float
    true_pose: Float


def swap(
    run: Run, truth: Truth, ct: Mesh, with_scale: bool, registered: Similarity | None = None, fuse: bool = True
) -> Swap:
    """Take the error of a run apart.

    Args:
        run: with depth, poses and camera.
        truth: true poses in the CT's coordinates, in mm; true depth, or else the CT as seen from the true poses.
        ct: the true surface.
        with_scale: whether the run's unit is found by the poses, or its lengths are kept.
        registered: what the registration found, to be compared.
        fuse: whether the surfaces are fused and measured too.

    Raises:
        InputError: no poses, another clip, or a truth that lies elsewhere than the CT.
    """
    frames = _Frames(run, truth, ct, with_scale)
    stats = {"pose": [], "depth": [], "both": [], "registration": []}  # type: dict[str, list[Float]]
    for view in frames.views():
        _displacements(view, frames, registered, stats)
    if not any(len(v) for v in stats["both"]):
        raise InputError("no pixel has both true and estimated depth; expected the truth of the same clip")
    joined = {name: np.concatenate(v) if v else np.zeros(0) for name, v in stats.items()}
    square = {name: float(np.mean(v**2)) if len(v) else 0.0 for name, v in joined.items()}
    total = max(square["pose"] + square["depth"], 1e-30)
    surfaces = {}
    if fuse:
        for pose in ("true", "estimated"):
            for depth in ("true", "estimated"):
                surfaces[f"{pose}/{depth}"] = _fused(frames, ct, pose == "true", depth == "true")
    return Swap(
        pose=Displacement.of(joined["pose"]),
        depth=Displacement.of(joined["depth"]),
        both=Displacement.of(joined["both"]),
        pose_share=square["pose"] / total,
        depth_share=square["depth"] / total,
        shared=(square["both"] - total) / total,
        surfaces=surfaces,
        registration=Displacement.of(joined["registration"]) if registered else None,
        frames=len(frames.pairs),
        place=frames.place,
        scale_gap=frames.scale_gap,
        true_depth=frames.true_depth,
    )


def place_by_poses(run: Trajectory, truth: Trajectory, points: list[Float], scale: float) -> Similarity:
    """The transform from the run's world to the truth's that fits the poses of the same moments.

    Least squares over what the cameras see: a turn counts by how far it moves those points, not by how long the path
    happens to be.

    Args:
        run, truth: N poses each.
        points: for each pose, what its camera truly sees, (M, 3) in the camera's frame, mm.
        scale: mm a unit of the run.
    """
    pairs = zip(run.world_from_cam, truth.world_from_cam, points, strict=True)
    moved = [(p @ e[:3, :3].T + scale * e[:3, 3], p @ t[:3, :3].T + t[:3, 3]) for e, t, p in pairs]
    fit = align(np.concatenate([a for a, _ in moved]), np.concatenate([b for _, b in moved]), with_scale=False)
    return Similarity(scale, fit.rotation, fit.translation)


def path_scale(run: Trajectory, truth: Trajectory) -> tuple[float, float]:
    """mm a unit of the run by its path, and the standard error of its logarithm.

    The true centres are fitted to the run's and not the other way round: the run's are those with errors, and noise
    would shrink the scale, which then would be held against the depth.
    """
    fit = align_poses(truth, run)
    off = fit.apply(truth.centres) - run.centres
    spread = np.sqrt(((run.centres - run.centres.mean(0)) ** 2).sum())
    return 1 / fit.scale, float(np.sqrt((off**2).mean()) / spread)


def depth_scale(log_ratios: Float) -> tuple[float, float]:
    """mm a unit of the run by its depth, and the standard error of its logarithm.

    Args:
        log_ratios: log of true over estimated depth, the median of each frame, (N,).
    """
    return float(np.exp(log_ratios.mean())), float(log_ratios.std() / np.sqrt(len(log_ratios)))


class _Frames:
    """The frames that the run and the truth share, evenly thinned out."""

    def __init__(self, run: Run, truth: Truth, ct: Mesh, with_scale: bool) -> None:
        self.record, self.truth, self.caster = RunRecord(run), truth, Caster(ct)
        if truth.trajectory is None or truth.unit != "mm":
            raise InputError(f"the truth {truth.name} has no poses in mm; the swap of poses and depth needs them")
        if run.camera is None or run.source_camera is None:
            raise InputError(f"the run in '{run.path}' has no camera.json; reconstruct again")
        ours, theirs = match(self.record.trajectory.times_ns, truth.trajectory.times_ns)
        if len(ours) < 3:
            raise InputError(
                f"{len(ours)} frames of the run belong to true poses by their times; expected 3 or more: "
                "is this the truth of the same clip, at the same frame rate?"
            )
        mine, true = (
            Trajectory(t.times_ns[i], t.world_from_cam[i])
            for t, i in ((self.record.trajectory, ours), (truth.trajectory, theirs))
        )
        if true.length < 1e-9 or mine.length < 1e-9:
            raise InputError("the camera stands still in the truth or in the run; expected a moving camera")
        chosen = np.unique(np.linspace(0, len(ours) - 1, min(_FRAMES, len(ours))).astype(int)).tolist()
        self.pairs = [(self.record.indices[ours[i]], int(theirs[i])) for i in chosen]
        self.camera = run.camera
        self.true_camera = self.record.view.camera(truth.camera or run.source_camera)
        self.true_depth = "truth" if truth.read_depth else "CT seen from the true poses"
        true_poses = [true.world_from_cam[i] for i in chosen]
        self._check_world(true_poses)
        points = [self._seen(number, pose) for (_, number), pose in zip(self.pairs, true_poses, strict=True)]
        few = [Trajectory(t.times_ns[chosen], t.world_from_cam[chosen]) for t in (mine, true)]
        self.scale_gap, scale = 0.0, 1.0
        if with_scale:
            (by_path, path_std), (by_depth, depth_std) = path_scale(*few), depth_scale(self._log_ratios(true_poses))
            self.scale_gap = by_depth / by_path - 1
            trust = np.maximum([path_std, depth_std], 1e-7) ** -2.0
            scale = float(np.exp(np.average(np.log([by_path, by_depth]), weights=trust)))
        self.place = place_by_poses(few[0], few[1], points, scale)
        moved = few[0].transformed(self.place.matrix, self.place.scale)
        self.poses = list(zip(moved.world_from_cam, true_poses, strict=True))

    def _seen(self, number: int, pose: Float, count: int = 300) -> Float:
        depth = self._true_depth(number, pose)
        known = np.flatnonzero(depth.ravel() > 0)
        points = _points(self.true_camera, depth, known[:: -(-len(known) // count) or 1])
        return points[np.isfinite(points).all(1)]

    def _log_ratios(self, poses: list[Float]) -> Float:
        """The median log ratio of true and estimated depth of each frame that has both."""
        found = []
        for (index, number), pose in zip(self.pairs, poses, strict=True):
            (depth, confidence), true = self.record.depth(index), self._true_depth(number, pose)
            both = (confidence > 0) & (depth > 0) & (true > 0) if depth.shape == true.shape else np.zeros(0, bool)
            if both.any():
                found.append(np.median(np.log(true[both]) - np.log(depth[both])))
        if not found:
            raise InputError("no pixel has both true and estimated depth; expected the truth of the same clip")
        return np.array(found)

    def views(self, most: int = _FRAMES) -> Iterator[_View]:
        """The frames, thinned out to `most` of them."""
        for i in np.unique(np.linspace(0, len(self.pairs) - 1, min(most, len(self.pairs))).astype(int)).tolist():
            (index, number), (estimated, true) = self.pairs[i], self.poses[i]
            depth, confidence = self.record.depth(index)
            if depth.shape != (self.camera.height, self.camera.width):
                raise InputError(f"the depth of frame {index} and camera.json differ in size; reconstruct again")
            good = (confidence > 0) & np.isfinite(depth) & (depth > 0)
            scaled = np.where(good, depth * np.float32(self.place.scale), 0).astype(np.float32)
            yield _View(scaled, np.where(good, confidence, 0), self._true_depth(number, true), estimated, true)

    def _true_depth(self, number: int, pose: Float) -> Float32:
        stored = self.truth.depth(number)
        if stored is None:
            return self.caster.cast(self.true_camera, pose).depth
        view = self.record.view
        if stored.shape != (view.source_height, view.source_width):
            raise InputError(
                f"the run is of images of {view.source_width} x {view.source_height}, the truth has depth of "
                f"{stored.shape[1]} x {stored.shape[0]}; expected the truth of the same clip at the same size"
            )
        x, y, w, h = view.crop
        columns = np.floor(x + (np.arange(view.width) + 0.5) * (w / view.width)).astype(int)
        rows = np.floor(y + (np.arange(view.height) + 0.5) * (h / view.height)).astype(int)
        # the nearest, as a mean across an edge would be a depth that nothing has
        inside = (columns >= 0) & (columns < stored.shape[1]), (rows >= 0) & (rows < stored.shape[0])
        depth = stored[rows.clip(0, stored.shape[0] - 1)][:, columns.clip(0, stored.shape[1] - 1)]
        return np.where(inside[1][:, None] & inside[0][None], np.nan_to_num(depth), 0).astype(np.float32)

    def _check_world(self, poses: list[Float]) -> None:
        """Raise InputError unless the true cameras see the CT where the true depth says that it is."""
        off, seen = [], []
        small = self.true_camera.scaled(max(self.true_camera.width // 4, 8), max(self.true_camera.height // 4, 8))
        for k in np.unique(np.linspace(0, len(self.pairs) - 1, 5).astype(int)).tolist():
            cast = self.caster.cast(small, poses[k]).depth
            seen.append(float((cast > 0).mean()))
            full = self._true_depth(self.pairs[k][1], poses[k])
            rows = ((np.arange(small.height) + 0.5) * full.shape[0] / small.height).astype(int)
            columns = ((np.arange(small.width) + 0.5) * full.shape[1] / small.width).astype(int)
            true = full[rows][:, columns]
            both = (cast > 0) & (true > 0)
            off.append(np.abs(cast[both] / true[both] - 1))
        median = float(np.median(np.concatenate(off))) if sum(map(len, off)) else np.inf
        if np.mean(seen) < 0.1 or median > 0.1:
            off_by = f"see it {100 * median:.0f} % too near or far"
            what = "see hardly anything of it" if np.mean(seen) < 0.1 else off_by
            raise InputError(
                f"the true poses are not in the coordinates of the CT: the true cameras {what}; bring the CT or the "
                "truth to the other's coordinates, in mm"
            )


def _displacements(view: _View, frames: _Frames, registered: Similarity | None, stats: dict[str, list[Float]]) -> None:
    known = np.flatnonzero((view.confidence > 0).ravel() & (view.true > 0).ravel())
    known = known[:: -(-len(known) // _PIXELS) or 1]
    true = _points(frames.true_camera, view.true, known)
    estimated = _points(frames.camera, view.estimated, known)
    good = np.isfinite(true).all(1) & np.isfinite(estimated).all(1)
    true, estimated = true[good], estimated[good]
    target = _to_world(view.true_pose, true)
    for name, pose, points in (
        ("pose", view.estimated_pose, true),
        ("depth", view.true_pose, estimated),
        ("both", view.estimated_pose, estimated),
    ):
        stats[name].append(np.linalg.norm(_to_world(pose, points) - target, axis=1))
    if registered is not None:
        # from the truth's world back into the run's, and from there to where the registration puts it
        placed = _to_world(view.estimated_pose, estimated)
        own = (placed - frames.place.translation) @ frames.place.rotation / frames.place.scale
        stats["registration"].append(np.linalg.norm(registered.apply(own) - placed, axis=1))


def _points(camera: Camera, depth: Float32, pixels: NDArray[np.intp]) -> Float:
    rays = camera.ray_map().reshape(-1, 3)[pixels].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return rays * (depth.ravel()[pixels, None] / rays[:, 2:])


def _to_world(pose: Float, points: Float) -> Float:
    return points @ pose[:3, :3].T + pose[:3, 3]


def _fused(frames: _Frames, ct: Mesh, true_pose: bool, true_depth: bool) -> Distances | None:
    """Fuse one combination and measure it."""
    from endorecon.scenes.tsdf import TsdfScene

    scene: TsdfScene | None = None
    for view in frames.views(_FUSED):
        depth = view.true if true_depth else view.estimated
        confidence = (depth > 0).astype(np.float32) if true_depth else view.confidence
        if scene is None:
            if not (view.true > 0).any():
                continue
            scene = TsdfScene.for_depth(float(np.median(view.true[view.true > 0])))
        camera = frames.true_camera if true_depth else frames.camera
        pose = view.true_pose if true_pose else view.estimated_pose
        scene.integrate_depth(np.zeros((*depth.shape, 3), np.uint8), depth, confidence, camera, pose)
    mesh = scene.mesh() if scene else None
    if mesh is None or len(mesh.faces) == 0:
        return None
    return Distances.of(distances_to(ct, mesh.sample(_SAMPLES)[0]))
