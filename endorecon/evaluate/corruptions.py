"""What goes wrong in endoscopy, put into clips with truth: how much worse depth, camera path and surface become.

Every corruption of `video_io.corruptions` at every severity against the same clips clean. The score follows MedMNIST-C
(Di Salvo et al., 2024) and Hendrycks and Dietterich (ICLR 2019): a corruption's error summed over its severities,
divided by as many times the clean error, and the mean of that over the corruptions.

No clip is left out of a mean because a run failed on it. Where a run has no pose, the camera counts as one at rest, in
the middle of the true path; where it has no surface, nothing is near the true one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.corruption_results import CLEAN, DEPTH, RUN, Item, Results, Row
from endorecon.evaluate.depth import DepthPair, depth_errors
from endorecon.evaluate.protocol import RunRecord, at_source_pixels
from endorecon.evaluate.surface import SurfaceErrors, seen_points, surface_errors
from endorecon.evaluate.trajectory import align_poses, matched, trajectory_errors
from rendering.mesh import Mesh, read_mesh
from video_io import corruptions
from video_io.camera_files import write_camera
from video_io.clip import Clip
from video_io.corruptions import Image, corrupt_clip
from video_io.datasets import Truth, open_truth
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import open_source
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from foundation_adapters.estimator import Estimator

DEPTH_FRAMES = 10  # of a clip, evenly spaced, whose depth is looked at
NEAR = 0.05  # of the median depth: what still counts as the same surface
SURFACE_SAMPLES = 30_000
FPS = 30.0
PHANTOMS = (("colon", 901), ("passage", 902), ("abdomen", 903))
# Of one measurement and of each frame of its clip, on two cores: what is told before the clean clips tell better.
DEPTH_S, DEPTH_FRAME_S, RUN_S, RUN_FRAME_S = 0.3, 0.006, 2.0, 0.09
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Plan:
    """What a benchmark measures.

    Attributes:
        clips: folders with truth, in any layout of `video_io.datasets`.
        corruptions: names.
        severities: of 1 to 5.
        parts: `depth`: the network alone; `run`: a whole reconstruction, for camera path and surface.
        seed: of the corruptions; each clip gets its own from it.
        max_frames: of each clip, from its first frame.
    """

    clips: tuple[Path, ...]
    corruptions: tuple[str, ...]
    severities: tuple[int, ...] = corruptions.SEVERITIES
    parts: tuple[str, ...] = (DEPTH, RUN)
    seed: int = 0
    max_frames: int = 60

    def __post_init__(self) -> None:
        known = self.clip_names
        if double := next((name for name in known if known.count(name) > 1), None):
            raise InputError(f"two clips are called '{double}'; give each folder a name of its own")

    @property
    def clip_names(self) -> list[str]:
        """Of the clips, in order."""
        return [clip.resolve().name for clip in self.clips]

    def items(self) -> list[Item]:
        """All that is to be measured; first the clean clips, then severity by severity what is quick."""
        found = [Item(clip, CLEAN, 0, part) for part in self.parts for clip in self.clip_names]
        for part in self.parts:
            for severity in self.severities:
                for name in self.corruptions:
                    # A frame that is lost has no depth to compare, and the others are as they were.
                    if not (part == DEPTH and name == "dropped"):
                        found += [Item(clip, name, severity, part) for clip in self.clip_names]
        return found


def phantom_clips(folder: Path, frames: int, progress: Progress = lambda *_: None) -> tuple[Path, ...]:
    """Clips of the usual scenes, rendered into the folder; those that are there are kept."""
    from rendering.phantom.clip import simulate

    clips = [folder / f"{scene}_{seed}_{frames}" for scene, seed in PHANTOMS]
    for number, (clip, (scene, seed)) in enumerate(zip(clips, PHANTOMS, strict=True)):
        if not clip.is_dir():
            partial = clip.with_name(f".{clip.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            before = number * frames

            def told(done: int, before: int = before) -> None:
                progress("rendering", before + done, len(PHANTOMS) * frames)

            simulate(scene, seed, frames, None, FPS, partial, extras=False, progress=told)
            partial.rename(clip)
    return tuple(clips)


def outlook(plan: Plan, results: Results) -> str:
    """How much there is to do and about how long it takes, before anything is measured."""
    left = [item for item in plan.items() if item not in results.rows]
    frames = plan.max_frames
    seconds = sum(DEPTH_S + DEPTH_FRAME_S * frames if i.part == DEPTH else RUN_S + RUN_FRAME_S * frames for i in left)
    return (
        f"{len(left)} of {len(plan.items())} measurements to do on {len(plan.clips)} clips: "
        f"about {max(seconds / 60, 0.1):.2g} minutes on two free cores"
    )


def run(
    plan: Plan,
    results: Results,
    estimator: Estimator,
    reconstruct: Callable[[Path, Path, Path], Path],
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Results:
    """Measure what of the plan is not there yet.

    Args:
        plan: what to measure.
        results: what there is; rows are added to it.
        estimator: of the depth.
        reconstruct: turns a video, a run folder to make and a camera file into a run folder; raises InputError where
            the clip can't be reconstructed.
        progress: called with the part, items done, and how many there are.
        say: takes a sentence for the person at the keyboard.
    """
    known: dict[str, TestClip] = {}
    scratch = results.path.parent / "scratch"
    items = plan.items()
    for part in plan.parts:
        mine = [item for item in items if item.part == part]
        told = False
        for done, item in enumerate(mine):
            progress(part, done, len(mine))
            if item in results.rows:
                continue
            if item.corruption != CLEAN and not told:
                told = True
                say(_forecast(part, results, sum(i not in results.rows for i in mine)))
            if item.clip not in known:
                folder = next(path for path in plan.clips if path.resolve().name == item.clip)
                known[item.clip] = TestClip(folder, plan.max_frames)
            results.add(_measured(item, known[item.clip], plan.seed, estimator, reconstruct, scratch))
        progress(part, len(mine), len(mine))
    shutil.rmtree(scratch, ignore_errors=True)
    return results


def _forecast(part: str, results: Results, left: int) -> str:
    """How long the rest of a part will take, from what the clean clips took."""
    each = np.mean([r.seconds for i, r in results.rows.items() if i.part == part and i.corruption == CLEAN])
    return f"{left} measurements of {part} to go, {each:.1f} s each: about {max(left * each / 60, 0.1):.3g} minutes"


def _measured(
    item: Item, clip: TestClip, seed: int, estimator: Estimator, reconstruct: Callable[[Path, Path, Path], Path],
    scratch: Path,
) -> Row:  # fmt: skip
    begun = time.perf_counter()
    if item.part == DEPTH:
        figures, note = measure_depth(clip, clip.damaged(item, seed), estimator), ""
    else:
        figures, note = measure_run(clip, list(clip.damaged(item, seed)), reconstruct, scratch)
    return Row(item, figures, round(time.perf_counter() - begun, 2), note)


def check_clip(folder: Path, parts: Sequence[str]) -> Truth:
    """The truth of a clip that allows all parts to be measured.

    Raises:
        InputError: no truth, or no camera, depth, or, for reconstructions, poses.
    """
    truth = open_truth(folder)
    if truth.camera is None or truth.read_depth is None:
        raise InputError(f"'{folder}' has no camera or no depth; the benchmark needs both; choose other --clips")
    if RUN in parts and truth.trajectory is None:
        raise InputError(f"'{folder}' has no poses to compare with; give --depth-only or choose other --clips")
    return truth


class TestClip:
    """A clip with truth, its pictures in memory, and the way in which its clean pictures are worked on.

    Attributes:
        truth: as its folder has it.
        pictures: (H, W, 3) uint8 each.
        clean: how the clean pictures are cut and masked.
        camera: of a whole picture.
        times_ns: of the pictures.

    Raises:
        InputError: see `check_clip`; or no pictures.
    """

    __test__ = False  # not for pytest

    def __init__(self, folder: Path, max_frames: int) -> None:
        self.truth = check_clip(folder, (DEPTH,))
        assert self.truth.camera is not None
        source = open_source(folder, max_frames=max_frames)
        self.pictures = [frame.rgb for frame in source.frames()][: self.truth.frame_count]
        self.clean = Clip.of(source, self.truth.camera)
        self.camera, count = self.truth.camera, len(self.pictures)
        times = np.round(np.arange(count) * 1e9 / FPS).astype(np.int64)
        self.times_ns = times if self.truth.trajectory is None else self.truth.trajectory.times_ns[:count]

    @property
    def fps(self) -> float:
        """Frames a second."""
        return 1e9 / float(np.median(np.diff(self.times_ns))) if len(self.times_ns) > 1 else FPS

    @cached_property
    def path(self) -> Trajectory:
        """The true path over the pictures."""
        assert self.truth.trajectory is not None
        return Trajectory(self.times_ns, self.truth.trajectory.world_from_cam[: len(self.times_ns)])

    @cached_property
    def true_mesh(self) -> Mesh:
        """The true surface."""
        assert self.truth.mesh_path is not None
        return read_mesh(self.truth.mesh_path)

    @cached_property
    def seen(self) -> tuple[NDArray[np.float64], float, float]:
        """What of the true surface the whole clip saw, whatever a run has made of it; see `seen_points`."""
        return seen_points(self.true_mesh, self.camera, self.path, SURFACE_SAMPLES)

    def surface(self, mesh: Mesh | None, ours: Trajectory, theirs: Trajectory) -> SurfaceErrors | None:
        """Errors of a run's surface, aligned by its poses; None without one."""
        if mesh is None or not len(mesh.faces) or self.truth.mesh_path is None:
            return None
        fit, (points, share, depth) = align_poses(ours, theirs), self.seen
        moved = mesh.transformed(fit.matrix, fit.scale)
        near = (NEAR * depth,)
        return surface_errors(moved, self.true_mesh, points, depth, fit.scale, share, near, SURFACE_SAMPLES)

    def damaged(self, item: Item, seed: int) -> Iterator[tuple[int, Image]]:
        """The item's pictures, each with the number of the frame in whose place it stands."""
        if item.corruption == CLEAN:
            return iter(enumerate(self.pictures))
        return corrupt_clip(self.pictures, item.corruption, item.severity, seed + _number(item.clip), self.fps)


def _number(name: str) -> int:
    """Another seed for each clip, the same in every benchmark."""
    return sum((i + 1) * ord(c) for i, c in enumerate(name)) * 1000


def measure_depth(clip: TestClip, shown: Iterator[tuple[int, Image]], estimator: Estimator) -> dict[str, float]:
    """The network alone, camera given, each frame scaled by the median: abs_rel, delta1, over all pixels with truth.

    Its part of the picture and its masks are those of the clean clip.
    """
    chosen = {*np.unique(np.linspace(0, len(clip.pictures) - 1, DEPTH_FRAMES).round().astype(int)).tolist()}
    kept = [(number, rgb) for number, rgb in shown if number in chosen]
    pairs = _depth_pairs(clip, kept, estimator)
    errors = depth_errors(pairs, "frame")
    return {"abs_rel": errors.abs_rel, "delta1": errors.delta1, "frames": errors.frames}


def _depth_pairs(clip: TestClip, kept: Sequence[tuple[int, Image]], estimator: Estimator) -> list[DepthPair]:
    assert clip.clean.camera is not None
    z = clip.clean.camera.ray_map()[..., 2]
    pairs = []
    source = _Pictures(kept, clip.times_ns)
    for (number, _), frame in zip(kept, replace(clip.clean, source=source).frames(), strict=True):
        depth = estimator.estimate([frame]).depth[0]
        valid = np.isfinite(z) & (z > 1e-3) & (depth > 0)
        truth = clip.truth.depth(number)
        assert truth is not None
        pairs.append((*at_source_pixels(np.where(valid, depth, 1), valid, clip.clean.view), truth))
    return pairs


class _Pictures:
    """Pictures in memory as a source (see `Source`), as far as frames are asked for."""

    def __init__(self, pictures: Sequence[tuple[int, Image]], times_ns: NDArray[np.int64]) -> None:
        self._pictures, self._times = pictures, times_ns
        self.name, self.frame_count = "pictures", len(pictures)
        self.height, self.width = pictures[0][1].shape[:2]
        self.describe: dict[str, Any] = {}
        self.skipped: list[tuple[int, str]] = []

    def frames(self) -> Iterator[Frame]:
        for number, rgb in self._pictures:
            yield Frame.of(rgb, number, int(self._times[number]))

    def sample(self, count: int) -> list[Frame]:
        return list(self.frames())[:count]


def measure_run(
    clip: TestClip, shown: Sequence[tuple[int, Image]], reconstruct: Callable[[Path, Path, Path], Path], scratch: Path
) -> tuple[dict[str, float], str]:
    """A whole reconstruction of the pictures as a video, camera given: camera path and surface of its longest segment.

    Raises:
        KeyboardInterrupt: the reconstruction was stopped by hand.

    Returns:
        tracked_share: of the pictures shown;
        ate_percent: root mean square distance of the tracked camera centres after the best similarity, in % of the
        length of the true path; 0 where nothing is tracked;
        pose_error_percent: the same over all pictures shown, where each that is not tracked counts as a camera at rest
        in the middle of the path;
        surface_error_percent: 100 - the F-score in % at a twentieth of the median depth: how much of the run's surface
        is not near the true one, and how much of what the whole clip saw has no surface of the run near it;
        segments; red_share: of the tracked frames, those that the run itself grades red.
        And a sentence where there was no run.
    """
    from endorecon.run import read_run

    scratch.mkdir(parents=True, exist_ok=True)
    video, camera = scratch / "clip.mp4", scratch / "camera.json"
    height, width = (n // 2 * 2 for n in shown[0][1].shape[:2])  # as the codec needs
    write_video(video, [(number, rgb[:height, :width]) for number, rgb in shown], clip.fps)
    write_camera(camera, clip.camera.cropped(0, 0, width, height))
    try:
        run = read_run(reconstruct(video, scratch / "run", camera))
        if run.status == "interrupted":  # it has kept what it had, which is no measurement
            raise KeyboardInterrupt
        record = RunRecord(run)
        ours, theirs = matched(record.trajectory, clip.path)
        ate = trajectory_errors(ours, theirs).ate_sim3
    except InputError as error:
        return run_figures(clip, [n for n, _ in shown], 0, 0.0, None, 0), " ".join(str(error).split())
    surface = clip.surface(record.mesh(), ours, theirs)
    figures = run_figures(clip, [n for n, _ in shown], len(ours), ate, surface, record.segments)
    grades = [row.grade for row in run.rows if row.status == "tracked"]
    return {**figures, "red_share": grades.count("red") / max(len(grades), 1)}, ""


def run_figures(
    clip: TestClip, shown: Sequence[int], placed: int, ate: float, surface: SurfaceErrors | None, segments: int
) -> dict[str, float]:
    """See `measure_run`; `placed` of the pictures `shown` are tracked, `ate` off on average."""
    length, centres = clip.path.length, clip.path.centres[list(shown)]
    rest = float(np.sqrt(((centres - centres.mean(0)) ** 2).sum(1).mean()))
    missing = max(len(shown) - placed, 0)
    off = float(np.sqrt((placed * ate**2 + missing * rest**2) / len(shown)))
    figures = {
        "tracked_share": placed / len(shown),
        "ate_percent": 100 * ate / length,
        "pose_error_percent": 100 * off / length,
        "segments": float(segments),
    }
    if clip.truth.mesh_path is None:
        return figures
    if surface is None:
        return {**figures, "surface_error_percent": 100.0}
    (f_score,), (precision,), (recall,) = (s.values() for s in (surface.f_score, surface.precision, surface.recall))
    shares = {"precision": precision, "recall": recall, "accuracy_percent": surface.accuracy_percent}
    return {**figures, **shares, "surface_error_percent": 100 * (1 - f_score)}


def write_video(path: Path, shown: Sequence[tuple[int, Image]], fps: float) -> None:
    """The pictures as a video that keeps the times of lost frames free, coded so well that the codec adds nothing."""
    from rendering.phantom.clip import Video

    height, width = shown[0][1].shape[:2]
    with Video(path, width, height, fps, crf=8) as video:
        for number, rgb in shown:
            video.write(np.ascontiguousarray(rgb), number)
