"""What each part of the tracking is worth: python tools/ablation.py [--data FOLDER] [--clips ...].

Tracks clips with truth, intrinsics given: as the program does; without the network (every distance begins at the same
value, and nothing is known of it); without the joint refinement of the whole clip; and without any joint refinement,
so that each frame rests on landmarks at the network's distances. Then the depth (AbsRel, one scale for the clip) of the
network, of the network corrected by the landmarks, and with the other views' patches too, which is the program's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.depth import depth_errors
from endorecon.evaluate.protocol import at_source_pixels
from endorecon.evaluate.trajectory import trajectory_errors
from endorecon.tracking.dense import ManyViews
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.refine import refine
from endorecon.tracking.tracker import Tracker
from foundation_adapters.estimator import load_estimator
from video_io.clip import Clip
from video_io.datasets import open_truth
from video_io.sources import open_source
from video_io.trajectory import Trajectory

CLIPS = ("traced_colon", "traced_sinus", "traced_lap")
VARIANTS = ("the program", "without the network", "without the last refinement", "without any joint refinement")


class Alone(Tracker):
    """A tracker whose windows are never refined."""

    def _refine_window(self, scene) -> None:  # type: ignore[no-untyped-def]
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--clips", nargs="*", default=CLIPS)
    args = parser.parse_args()
    print(f"{'':42} {'tracked':>8} {'ATE %':>7} {'rot deg':>8}")
    for name in args.clips:
        clip, frames, nets, truth = opened(args.data / name)
        for variant in VARIANTS:
            share, ate, turn = track(clip, frames, nets, truth, variant)
            print(f"{name + ', ' + variant:42} {100 * share:7.0f}% {ate:7.3f} {turn:8.3f}", flush=True)
        for told, abs_rel in depths(clip, frames, nets, truth):
            print(f"{name + ', depth ' + told:42} {'':8} AbsRel {abs_rel:8.4f}", flush=True)
    return 0


def opened(folder: Path):  # type: ignore[no-untyped-def]
    """A clip with its camera, its frames, what the network says of each, and its truth."""
    estimator, truth = load_estimator(), open_truth(folder)
    video = folder / "video.mp4"
    clip = Clip.of(open_source(video if video.is_file() else folder), truth.camera)
    frames = list(clip.frames())
    parts = [estimator.estimate(frames[at : at + 8]) for at in range(0, len(frames), 8)]
    nets = [
        NetworkDepth.of(depth, spread, clip.camera)
        for part in parts
        for depth, spread in zip(part.depth, part.log_std, strict=True)
    ]
    return clip, frames, nets, truth


def depths(clip: Clip, frames, nets, truth):  # type: ignore[no-untyped-def]
    """What is corrected by what, and the error of the depth in the longest segment."""
    tracker = Tracker(clip.camera)
    for frame, net in zip(frames, nets, strict=True):
        tracker.place(frame, net)
    best = max(range(len(tracker.segments)), key=lambda s: len(tracker.segments[s]))
    refined = refine(tracker.segments[best])
    placed = [(k, tracker.placed[f.index][1]) for k, f in enumerate(frames) if tracker.placed[f.index][0] == best]
    at = {number: k for k, number in placed}
    views = ManyViews(refined.camera, refined.world_from_cam, lambda number: frames[at[number]])
    z = clip.camera.ray_map()[..., 2]

    def corrected(told: str, k: int, number: int):  # type: ignore[no-untyped-def]
        if told == "of the network":
            return nets[k].distance
        correction = refined.corrections[number]
        if told == "with the other views":
            correction = views.sharpen(number, nets[k], frames[k].use_mask, correction)
        return correction.apply(nets[k].distance, nets[k].log_std)[0]

    class Pairs:
        def __init__(self, told: str) -> None:
            self.told = told

        def __iter__(self):  # type: ignore[no-untyped-def]
            for k, number in placed:
                valid = np.isfinite(z) & (z > 1e-3) & np.isfinite(nets[k].log_std)
                depth = np.where(valid, corrected(self.told, k, number) * z, 1)
                yield (*at_source_pixels(depth, valid, clip.view), truth.depth(frames[k].index))

    for told in ("of the network", "with the landmarks", "with the other views"):
        yield told, depth_errors(Pairs(told), "clip").abs_rel


def track(clip: Clip, frames, nets, truth, variant: str) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    """Share of the frames in the longest segment, its path error in per cent, and its median rotation error."""
    tracker = (Alone if variant == VARIANTS[3] else Tracker)(clip.camera)
    for frame, net in zip(frames, nets, strict=True):
        if variant == VARIANTS[1]:
            net = NetworkDepth(np.full_like(net.distance, 50.0), np.ones_like(net.log_std))
        tracker.place(frame, net)
    if not tracker.segments:
        return 0.0, np.nan, np.nan
    best = max(range(len(tracker.segments)), key=lambda s: len(tracker.segments[s]))
    scene = tracker.segments[best]
    poses = np.stack([scene.pose(number) for number in range(len(scene))])
    if variant in VARIANTS[:2]:
        poses = refine(scene).world_from_cam
    index = [i for i, (segment, _) in tracker.placed.items() if segment == best]
    times = np.array([frame.time_ns for frame in frames if frame.index in set(index)])
    found = trajectory_errors(Trajectory(times, poses), truth.trajectory)
    return len(scene) / len(frames), found.ate_sim3_percent, float(np.degrees(found.rotation_median_rad))


if __name__ == "__main__":
    raise SystemExit(main())
