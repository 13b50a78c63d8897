"""A video to frames that a depth network can be adapted on: poses and depth that many views have agreed on.

Or, of a clip with truth, those that are known.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.clock import Clock
from endorecon.job import Intrinsics, find_intrinsics
from endorecon.notes import focal_note
from endorecon.reconstruct import Progress, Result, reconstruct
from endorecon.tracking.observation import Observation
from endorecon.tracking.refine import FocalPrior
from endorecon.tracking.tracker import Tracker
from endorecon.tracking.verdict import frame_grade
from endorecon.views.base import Views
from endorecon.work import Work
from foundation_adapters.recordings import LEAST_FRAMES, Recording
from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.clip import Clip
from video_io.datasets import open_truth
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import open_source

if TYPE_CHECKING:
    from foundation_adapters.estimator import Estimator


@dataclass(frozen=True)
class Recorded:
    """What came of a video.

    Attributes:
        recordings: its stretches, a world each.
        notes: sentences for the person: what was left out, and why.
        seconds: that it took.
    """

    recordings: list[Recording]
    notes: list[str]
    seconds: float


@dataclass
class Kept:
    """Frames of one segment, as they come."""

    camera: Camera
    rgb: list[NDArray[np.uint8]] = field(default_factory=list)
    mask: list[NDArray[np.bool_]] = field(default_factory=list)
    distance: list[NDArray[np.float32]] = field(default_factory=list)
    confidence: list[NDArray[np.float32]] = field(default_factory=list)
    pose: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, seen: Observation) -> None:
        self.take(seen.frame, seen.depth, seen.confidence, seen.world_from_cam)

    def take(
        self, frame: Frame, depth: NDArray[np.float32], sure: NDArray[np.float32], world_from_cam: NDArray[np.float64]
    ) -> None:
        half = (self.camera.width // 2, self.camera.height // 2)
        z = self.camera.ray_map()[..., 2]
        with np.errstate(invalid="ignore"):
            distance = np.where((sure > 0) & (z > 1e-3), depth / z, 0)
        # Known where all four pixels are.
        known = cv2.resize((distance > 0).astype(np.float32), half, interpolation=cv2.INTER_AREA) > 0.99
        small = cv2.resize(distance.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        small = np.where(known, small, 0).astype(np.float32)
        confidence = cv2.resize(sure, half, interpolation=cv2.INTER_AREA)
        self.rgb.append(frame.rgb)
        self.mask.append(frame.use_mask & ~frame.specular_mask)
        self.distance.append(small)
        self.confidence.append(np.where(small > 0, confidence, 0).astype(np.float32))
        self.pose.append(world_from_cam)

    def recording(self, name: str) -> Recording:
        return Recording(
            name, self.camera, np.stack(self.rgb), np.stack(self.mask), np.stack(self.distance),
            np.stack(self.confidence), np.stack(self.pose).astype(float),
        )  # fmt: skip


def record(
    input: Path,
    estimator: Estimator,
    work: Path,
    camera: Path | None = None,
    every: int = 1,
    max_frames: int | None = None,
    fps: float = 30.0,
    progress: Progress = lambda *_: None,
) -> Recorded:
    """Reconstruct a video with the present model, and keep what is trusted of it.

    Args:
        input: a video file or a folder of images.
        work: a folder for what waits between the passes.
        camera: calibration of the input's whole image; without it the data set's, or an estimated one.
        every, max_frames, fps: which frames; see `open_source`.
        progress: called with a stage's name, frames done, and how many there are.

    Raises:
        InputError: an input that shows nothing, is too short or static, or whose poses can't be trusted.
    """
    clip = open_clip(input, camera, every, max_frames, fps)
    clip, intrinsics, result, kept, seconds = reconstructed(clip, estimator, work, camera, progress)
    found = _trusted(kept, result, input.name)
    if not found:
        raise InputError(f"nothing can be learnt from '{input}': {_why(result, kept)}")
    notes = _notes(result, found, input.name)
    if intrinsics.prior is not None:
        begun = time.monotonic()
        found, focal = _with_learned_camera(found, clip, result, intrinsics.prior)
        seconds += time.monotonic() - begun
        notes.append(f"{input.name}: {focal}; better with --camera")
    return Recorded(found, notes, seconds)


def open_clip(input: Path, camera: Path | None, every: int, max_frames: int | None, fps: float) -> Clip:
    """The input with the given camera, or with the data set's."""
    source = open_source(input, every, max_frames, fps)
    return Clip.of(source, read_camera(camera) if camera else source.camera)


def reconstructed(
    clip: Clip, estimator: Estimator, work: Path, camera: Path | None = None, progress: Progress = lambda *_: None
) -> tuple[Clip, Intrinsics, Result, dict[int, Kept], float]:
    """The clip with its camera, what was known of that, the result, the frames of each segment that are kept, and the
    seconds that it took."""
    from threadpoolctl import threadpool_limits

    from endorecon.scenes.tsdf import TsdfScene

    clock, kept = Clock(), dict[int, Kept]()
    with Work(work, {}, overwrite=True) as between, threadpool_limits(1, "blas"):
        intrinsics = find_intrinsics(clip, estimator, camera)
        clip = clip.with_camera(intrinsics.camera)
        tracker = Tracker(intrinsics.camera, focal=intrinsics.prior)

        def keep(seen: Observation) -> None:
            if frame_grade(seen.figures["expected_error_percent"]) != "red":
                kept.setdefault(seen.segment, Kept(seen.frame.camera)).add(seen)

        result = reconstruct(
            clip, estimator, tracker, TsdfScene.for_depth, keep, Views(), between, clock, progress, intrinsics.prior
        )
    if result.interrupted:
        raise KeyboardInterrupt
    return clip, intrinsics, result, kept, sum(clock.seconds.values())


def _with_learned_camera(
    found: list[Recording], clip: Clip, result: Result, prior: FocalPrior
) -> tuple[list[Recording], str]:
    """The recordings with the camera that their images tell, and a sentence on it; as the reconstruction has found it
    where they do not tell it better. The longest stretch has the first word, which the others start from."""
    from foundation_adapters.clip_camera import learn_camera

    known, changed, told = prior, list(found), focal_note(clip, result, prior)
    run_std = result.segments[result.main].log_focal_std
    for number in sorted(range(len(found)), key=lambda n: -len(found[n])):
        learned = learn_camera(found[number], known.focal_px, known.log_std)
        if (known is prior and not learned.observable) or learned.log_focal_std > run_std:
            continue
        changed[number] = learned.recording
        if known is prior:
            known = FocalPrior(learned.camera.focal_px, learned.log_focal_std)
            scale = clip.view.crop[2] / clip.view.width
            told = (
                f"the intrinsics were learned from the images (focal length {known.focal_px * scale:.0f} px in the "
                f"source's image, give or take {100 * known.log_std:.2g} %)"
            )
    return changed, told


def record_truth(folder: Path, every: int = 1, max_frames: int | None = None) -> Recording:
    """The frames of a clip with truth, in any layout that has camera, poses and depth, for learning with supervision.

    Args:
        folder: of the clip.
        every, max_frames: which frames; see `open_source`.

    Raises:
        InputError: no truth, or no camera, poses, depth or pictures in it; fewer than `LEAST_FRAMES` frames.
    """
    truth = open_truth(folder)
    if truth.camera is None or truth.trajectory is None or truth.read_depth is None:
        raise InputError(
            f"'{folder}' lacks camera, poses or depth; expected a clip as `endorecon simulate` writes it; or give it "
            "as a recording, which needs no truth"
        )
    source = open_source(folder, every, max_frames)
    clip = Clip.of(source, truth.camera)
    assert clip.camera is not None
    kept = Kept(clip.camera)
    x, y, w, h = clip.view.crop
    for frame in clip.frames():
        depth = truth.depth(frame.index)
        assert depth is not None
        # By the nearest pixel: a mean over an edge would lie in the air.
        depth = cv2.resize(depth[y : y + h, x : x + w], (frame.width, frame.height), interpolation=cv2.INTER_NEAREST)
        kept.take(frame, depth, (depth > 0).astype(np.float32), truth.trajectory.world_from_cam[frame.index])
    if len(kept.rgb) < LEAST_FRAMES:
        raise InputError(
            f"'{folder}' has {len(kept.rgb)} frames with truth, {LEAST_FRAMES} are needed; give a longer clip"
        )
    return replace(kept.recording(truth.name), known=True)


def _trusted(kept: dict[int, Kept], result: Result, name: str) -> list[Recording]:
    """Segments of enough frames whose poses are not graded red."""
    found = []
    for number, segment in sorted(kept.items()):
        if len(segment.rgb) < LEAST_FRAMES or result.verdicts[number].grade == "red":
            continue
        recording = segment.recording(name)
        if not any(len(near) for near in recording.neighbours):
            continue
        found.append(recording)
    return found


def _why(result: Result, kept: dict[int, Kept]) -> str:
    reasons = [row.reason for row in result.rows if row.status == "refused"]
    total = len(result.rows)
    placed = total - len(reasons)
    if placed < LEAST_FRAMES:
        common = max(reasons, key=reasons.count) if reasons else "no frame was read"
        return (
            f"{placed} of its {total} frames could be placed ({common}), {LEAST_FRAMES} are needed; give a longer clip "
            "of tissue with some texture"
        )
    if all(v.grade == "red" for v in result.verdicts):
        return (
            "its camera path can't be trusted (verdict red: too little motion or texture); give a clip in which the "
            "camera moves past tissue at rest"
        )
    largest = max((len(k.rgb) for k in kept.values()), default=0)
    return (
        f"no stretch of it has {LEAST_FRAMES} trusted frames (the longest has {largest}) between which the camera "
        "moves enough; give a clip in which it moves"
    )


def _notes(result: Result, found: Sequence[Recording], name: str) -> list[str]:
    used, total = sum(map(len, found)), len(result.rows)
    notes = [f"{name}: {used} of {total} frames are learnt from"]
    if len(result.segments) > 1:
        lengths = ", ".join(str(len(r)) for r in found)
        notes.append(
            f"{name}: it falls into {len(result.segments)} segments (a cut, or lost track); used: {lengths} frames"
        )
    if result.skipped:
        notes.append(f"{name}: {len(result.skipped)} frames could not be read and were left out")
    return notes
