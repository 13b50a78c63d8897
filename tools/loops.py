"""What loops are worth: python tools/loops.py CLIPS [--seed 42] [--frames 3000] [--fps 30] [--black A B].

Renders a phantom clip into the folder CLIPS (one that is there is kept), on which the camera advances, withdraws and
comes back; tracks its video with the intrinsics given; and refines it without and with loops. Says how far the end has
drifted (after the best similarity of the first quarter), the error of the whole path, which loops are false (the truth
knows), and what a frame costs at the start and at the end, in processor time: of tracking alone, beside the same last
frames tracked by a tracker that knows nothing of those before (what is seen costs more or less, too). With --black the
frames from A to before B are blackened, so that tracking is lost there: the parts have to be joined.

`tools/long_run.py` does the same with the whole program, and kills it.
"""

from __future__ import annotations

import argparse
import copy
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.reconstruct import windows
from endorecon.spool import Spool
from endorecon.tracking.closing import Closed, close_loops
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.observation import Observation
from endorecon.tracking.refine import refine
from endorecon.tracking.tracker import Tracker
from foundation_adapters.estimator import load_estimator
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.datasets import open_truth
from video_io.sources import open_source
from video_io.trajectory import Trajectory, align

# A loop is false where it contradicts the truth by more than this: turn, and position as a share of the distance.
FALSE_RAD, FALSE_SHARE = np.radians(5.0), 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    clip_arguments(parser)
    parser.add_argument("--black", type=int, nargs=2, default=(0, 0))
    args = parser.parse_args()
    folder = clip_of(args)
    truth = open_truth(folder)
    frames = args.clips / f".{folder.name}_frames"
    frames.unlink(missing_ok=True)
    spool = Spool(frames)
    try:
        tracker, seconds = track(folder, truth.camera, spool, range(*args.black))
        count = max(len(seconds) // 10, 1)
        # The first frames pay for the compilation of the kernels.
        start, end = np.mean(seconds[count : 2 * count]), np.mean(seconds[-count:])
        afresh = track_afresh(tracker, spool, 2 * count)[-count:]
        print(f"tracking a frame: {1e3 * start:.1f} ms in the second tenth, {1e3 * end:.1f} ms in the last ("
              f"{end / start:.2f} times); the last tenth by a fresh tracker {1e3 * np.mean(afresh):.1f} ms ("
              f"{end / np.mean(afresh):.2f} times)")  # fmt: skip
        print(f"segments of {[len(scene) for scene in tracker.segments]} frames, "
              f"{[len(scene.keyframes) for scene in tracker.segments]} key frames; {peak()}")  # fmt: skip
        alone = copy.deepcopy(tracker)
        report("tracked", alone, truth.trajectory)
        report("refined without loops", refined(alone), truth.trajectory)
        before, at = copy.deepcopy(tracker), time.process_time()
        closed = close_loops(tracker, spool.at)
        spent = time.process_time() - at
    finally:
        spool.close()
        frames.unlink()
    print(f"closing: {spent:.1f} s, {1e3 * spent / max(len(tracker.placed), 1):.1f} ms a frame; {peak()}")
    print(*closed.notes, sep="\n")
    false_loops(closed, before, truth.trajectory)
    report("loops, pose graph", tracker, truth.trajectory)
    at = time.process_time()
    report("refined with loops", refined(tracker), truth.trajectory)
    print(f"refinement with loops: {time.process_time() - at:.1f} s; {peak()}")
    return 0


def track(folder: Path, camera: Camera, spool: Spool, black: range) -> tuple[Tracker, list[float]]:
    """Track a clip's video; each frame's seconds."""
    clip = Clip.of(open_source(folder / "video.mp4"), camera)
    tracker, estimator, seconds, geometry = Tracker(clip.camera), load_estimator(), [], None
    for window in windows(clip.frames()):
        window = [replace(f, rgb=np.zeros_like(f.rgb)) if f.index in black else f for f in window]
        geometry = estimator.estimate(window, geometry)
        for frame, depth, spread, guess in zip(
            window, geometry.depth, geometry.log_std, geometry.previous_from_cam, strict=True
        ):
            net, at = NetworkDepth.of(depth, spread, clip.camera), time.process_time()
            placed = tracker.place(frame, net, guess)
            seconds.append(time.process_time() - at)
            if isinstance(placed, Observation):
                spool.keep(frame, net, guess)
        if window[-1].index % 240 < 8:
            print(f"  frame {window[-1].index}: {peak()}", flush=True)
    return tracker, seconds


def clip_arguments(parser: argparse.ArgumentParser) -> None:
    """What tells the phantom clip of there and back, as `clip_at` takes it."""
    parser.add_argument("clips", type=Path)
    parser.add_argument("--scene", default="colon")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 160))
    parser.add_argument("--clip", type=Path, help="of `endorecon simulate`, in place of the rendered one")


def clip_of(args: argparse.Namespace) -> Path:
    """The folder of the clip that the arguments tell."""
    args.clips.mkdir(parents=True, exist_ok=True)
    return args.clip or clip_at(args.clips, args.scene, args.seed, args.frames, args.fps, *args.size)


def clip_at(clips: Path, scene: str, seed: int, frames: int, fps: float, width: int, height: int) -> Path:
    """The folder of a clip, which is rendered unless it is there."""
    folder = clips / f"{scene}_{seed}_{frames}_{fps:g}fps_{width}x{height}"
    if not (folder / "video.mp4").is_file():
        made = folder.with_name(f".{folder.name}")  # one that is half done is no clip
        shutil.rmtree(made, ignore_errors=True)
        simulate(scene, seed, frames, Camera.from_fov(width, height, np.radians(90)), fps, made, extras=False)
        made.rename(folder)
    return folder


def track_afresh(tracker: Tracker, spool: Spool, count: int) -> list[float]:
    """Seconds of each of the last `count` frames that were placed, by a new tracker."""
    fresh, seconds = Tracker(tracker.camera), []
    for frame, net, *_ in spool.read(max(len(spool) - count, 0)):
        at = time.process_time()
        fresh.place(replace(frame, camera=tracker.camera), net)
        seconds.append(time.process_time() - at)
    return seconds


def refined(tracker: Tracker) -> Tracker:
    """The tracker with each segment's poses refined."""
    for scene in tracker.segments:
        poses = refine(scene).world_from_cam
        scene.rotation, scene.centre = poses[:, :3, :3].copy(), poses[:, :3, 3].copy()
    return tracker


def matched(tracker: Tracker, segment: int, truth: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """A segment's centres and the true ones."""
    placed = sorted((index, number) for index, (s, number) in tracker.placed.items() if s == segment)
    return tracker.segments[segment].centre[[n for _, n in placed]], truth.centres[[i for i, _ in placed]]


def report(what: str, tracker: Tracker, truth: Trajectory) -> None:
    """Print the error of the longest segment."""
    segment = max(range(len(tracker.segments)), key=lambda s: len(tracker.segments[s]))
    found, true = matched(tracker, segment, truth)
    length = np.linalg.norm(np.diff(true, axis=0), axis=1).sum()
    off = np.linalg.norm(align(found, true, True).apply(found) - true, axis=1)
    ate = float(np.sqrt((off**2).mean()))
    quarter = max(len(found) // 4, 3)
    drift = np.linalg.norm(align(found[:quarter], true[:quarter], True).apply(found) - true, axis=1)
    last = float(np.sqrt((drift[-quarter // 2 :] ** 2).mean()))
    print(f"{what:22}: {len(found)} frames, ATE {ate:.3f} mm = {100 * ate / length:.3f} % of {length:.0f} mm; first "
          f"quarter laid over: end {last:.3f} mm, most {drift.max():.3f} mm")  # fmt: skip


def false_loops(closed: Closed, tracker: Tracker, truth: Trajectory) -> None:
    """Print how many loops contradict the truth; the tracker is the one from before they were closed."""
    turns, shifts = [], []
    for loop in closed.loops:
        segment, number = tracker.placed[loop.first]
        scene = tracker.segments[segment]
        found, true = matched(tracker, segment, truth)
        scale = align(found, true, True).scale
        far = np.linalg.norm(scene.points(scene.sights[number].landmark) - scene.centre[number], axis=1)
        between = np.linalg.inv(truth.world_from_cam[loop.first]) @ truth.world_from_cam[loop.second]
        turn = between[:3, :3].T @ loop.first_from_second[:3, :3]
        turns.append(Rotation.from_matrix(turn).magnitude())
        off = scale * loop.first_from_second[:3, 3] - between[:3, 3]
        shifts.append(np.linalg.norm(off) / (scale * np.median(far)))
    if not turns:
        print("no loop")
        return
    wrong = (np.array(turns) > FALSE_RAD) | (np.array(shifts) > FALSE_SHARE)
    joins = sum(loop.joins for loop in closed.loops)
    print(f"{len(turns)} loops, {joins} between segments, {wrong.sum()} false; median error "
          f"{np.degrees(np.median(turns)):.2f} degrees and {100 * np.median(shifts):.1f} % of the distance, most "
          f"{np.degrees(np.max(turns)):.2f} and {100 * np.max(shifts):.1f}")  # fmt: skip


def peak() -> str:
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


if __name__ == "__main__":
    raise SystemExit(main())
