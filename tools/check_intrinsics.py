"""How well focal lengths are found without calibration: python tools/check_intrinsics.py CLIPS [--only NAME ...].

Renders short phantom clips into the folder CLIPS (those that are there are kept): five anatomies, focal lengths from 60
to 140 % of the usual one, and clips on which the camera only turns or only goes straight on. Each is tracked and
refined as `endorecon reconstruct` and `endorecon adapt` do it without --camera. Prints the true focal length, what was
found by the first frames and by the whole clip, how sure the program says it is, and whether it says that the motion
shows the focal length at all. With --learn, each is also reconstructed as `endorecon adapt` does it, and its intrinsics
are learned by the reprojection loss (`foundation_adapters/clip_camera.py`). With --video VIDEO FOCAL_PX ... other
recordings are measured, whose focal length in pixels of their own image is known.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.clock import Clock
from endorecon.job import find_intrinsics
from endorecon.reconstruct import settle_all, track
from endorecon.record import open_clip, reconstructed
from endorecon.tracking.refine import is_shown
from endorecon.tracking.tracker import Tracker
from endorecon.views.base import Views
from endorecon.work import Work
from foundation_adapters.clip_camera import learn_camera
from foundation_adapters.estimator import Estimator, load_estimator
from rendering.phantom.clip import Clip as Phantom
from rendering.phantom.clip import Video, prepare
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.errors import InputError
from video_io.sources import open_source

FRAMES, FPS = 72, 30.0
LONG_FRAMES = 150


@dataclass(frozen=True)
class Case:
    """A clip to render: its anatomy and seed, its focal length over the usual one, and how the camera moves."""

    scene: str
    seed: int
    factor: float
    motion: str = "hand"
    frames: int = FRAMES

    @property
    def name(self) -> str:
        return f"{self.scene}_{self.seed}_{round(100 * self.factor)}_{self.motion}"


CASES = (
    Case("colon", 701, 0.6), Case("passage", 702, 0.75), Case("abdomen", 703, 0.9), Case("tissue", 704, 1.0),
    Case("plaster", 705, 1.0), Case("colon", 706, 1.1), Case("passage", 707, 1.25), Case("abdomen", 708, 1.4),
    Case("colon", 709, 0.8, frames=LONG_FRAMES), Case("tissue", 710, 1.4, frames=LONG_FRAMES),
    Case("colon", 711, 1.0, "turn"), Case("abdomen", 712, 1.0, "turn"), Case("colon", 713, 1.0, "straight"),
    Case("abdomen", 714, 1.0, "straight"), Case("passage", 715, 1.0, "straight"),
)  # fmt: skip


def phantom(case: Case) -> Phantom:
    camera = Camera.from_fov(320, 256, np.radians(65 if case.scene in ("abdomen", "tissue") else 95))
    clip = prepare(case.scene, case.seed, case.frames, camera.with_focal_scale(case.factor), FPS)
    if case.motion == "hand":
        return clip
    first, steps = clip.poses[0], np.arange(case.frames) / FPS
    poses = np.tile(first, (case.frames, 1, 1))
    if case.motion == "turn":
        # To and fro by fourteen degrees, as a hand looks round.
        turn = 0.25 * np.stack([np.sin(1.7 * steps), 0.8 * np.sin(2.3 * steps), 0.5 * np.sin(1.1 * steps)], 1)
        poses[:, :3, :3] = first[:3, :3] @ Rotation.from_rotvec(turn).as_matrix()
    else:
        # Along the optical axis, by a third of the distance to what lies ahead.
        distance, _ = clip.renderer.distances(camera.scaled(40, 32), first)
        poses[:, :3, 3] += first[:3, 2] * (steps / steps[-1])[:, None] * np.median(distance) / 3
    return replace(clip, poses=poses)


def render(case: Case, folder: Path) -> tuple[Path, float]:
    """The video of a case, and its focal length."""
    path, clip = folder / f"{case.name}.mp4", None
    if not path.is_file():
        clip, part = phantom(case), folder / f"{case.name}.part.mp4"
        with Video(part, clip.camera.width, clip.camera.height, FPS) as video:
            for frame in clip.frames():
                video.write(frame.rgb)
        part.rename(path)
    usual = Camera.from_fov(320, 256, np.radians(65 if case.scene in ("abdomen", "tissue") else 95))
    return path, usual.focal_px * case.factor


@dataclass(frozen=True)
class Found:
    """Focal lengths in pixels of the source, by the start, the first frames, and the whole clip; how sure the last is,
    whether the first frames and the whole clip have shown it, and the seconds that it took."""

    start: float
    first: float
    whole: float
    log_std: float
    first_shown: bool
    shown: bool
    seconds: float


def measure(path: Path, estimator: Estimator, max_frames: int | None) -> Found:
    begun = time.monotonic()
    source = open_source(path, 1, max_frames, FPS)
    clip = Clip.of(source)
    work = Path(tempfile.mkdtemp(prefix="intrinsics_"))
    try:
        with Work(work, {}, overwrite=True) as between:
            found = find_intrinsics(clip, estimator, None)
            clip = clip.with_camera(found.camera)
            tracker, clock = Tracker(found.camera, focal=found.prior), Clock()
            result = track(clip, estimator, tracker, Views(), between, clock, lambda *_: None)
            if not result.rows or not tracker.segments:
                raise InputError("nothing could be tracked")
            settle_all(tracker, result, between, clock, found.prior)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    used = result.segments[result.main]
    scale = clip.view.crop[2] / clip.view.width
    return Found(
        found.prior.focal_px * scale, found.camera.focal_px * scale, used.camera.focal_px * scale, used.log_focal_std,
        "how they move" in found.note, is_shown(used.log_focal_std, found.prior), time.monotonic() - begun,
    )  # fmt: skip


def learn(path: Path, true: float, estimator: Estimator, max_frames: int | None) -> str:
    """What the images say of the camera, in a line; of the longest segment, whether its frames could be adapted to or
    not."""
    clip = open_clip(path, None, 1, max_frames, FPS)
    with tempfile.TemporaryDirectory(prefix="intrinsics_") as work:
        clip, intrinsics, _, kept, _ = reconstructed(clip, estimator, Path(work))
    prior = intrinsics.prior
    recording = max((k.recording(path.stem) for k in kept.values()), key=len)
    begun = time.monotonic()
    found = learn_camera(recording, prior.focal_px, prior.log_std)
    scale, camera = clip.view.crop[2] / clip.view.width, found.camera
    off = camera.centre_px - np.array([camera.width, camera.height]) / 2
    return (
        f"    learned {camera.focal_px * scale:8.1f} {100 * (camera.focal_px * scale / true - 1):+6.2f}%"
        f" said {100 * found.log_focal_std:.2f} %, principal point {off[0]:+.1f} {off[1]:+.1f} px from the middle"
        f" ({found.centre_std[0]:.1f} {found.centre_std[1]:.1f})"
        f"  {'observable' if found.observable else 'not observable'} {time.monotonic() - begun:6.1f}"
    )


def given(video: Sequence[str]) -> Iterator[tuple[str, Path, float]]:
    """Names, paths and focal lengths of --video."""
    for path, focal in zip(video[::2], video[1::2], strict=True):
        yield Path(path).parent.name, Path(path), float(focal)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--video", nargs="*", default=())
    parser.add_argument("--max-frames", type=int, default=None)
    parser.add_argument("--learn", action="store_true", help="from the images themselves, too, as endorecon adapt does")
    args = parser.parse_args()
    args.clips.mkdir(parents=True, exist_ok=True)
    estimator = load_estimator()
    cases = () if args.video else tuple(case for case in CASES if not args.only or case.name in args.only)
    print("clip                      true px   start   first   whole     said   off/said  grade", flush=True)
    made = ((case.name, *render(case, args.clips)) for case in cases)
    for name, path, true in chain(given(args.video), made):
        try:
            found = measure(path, estimator, args.max_frames)
        except InputError as error:
            print(f"{name:24s} {true:8.1f}   {error}")
            continue
        off, said = math.log(found.whole / true), f"{100 * found.log_std:6.2f} %"
        print(
            f"{name:24s} {true:8.1f} {100 * (found.start / true - 1):+6.1f}% {100 * (found.first / true - 1):+6.1f}%"
            f" {100 * (found.whole / true - 1):+6.2f}% {said} {off / found.log_std:+10.2f}"
            f"  {'observable' if found.shown else 'not observable'} {found.seconds:6.1f}", flush=True,
        )  # fmt: skip
        if args.learn:
            print(learn(path, true, estimator, args.max_frames), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
