"""The base line of a stereo endoscope: depth matched in some of its pairs against the depth of the run.

Semi-global matching says about where; its fractions of a pixel are biased where tissue is smooth. So corners of the
left picture are then followed into the right one (Lucas and Kanade, 1981), from where the run's depth at that scale
puts them, and what is left along their epipolar lines corrects the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from endorecon.run import Run
from endorecon.scales.base import (
    INDEPENDENT,
    Cut,
    ScaleEstimate,
    input_of,
    mean_of_frames,
    pictures,
    shown_frames,
    unit_mm,
)
from video_io.datasets import layout_of, open_truth
from video_io.errors import InputError
from video_io.rig_files import read_rig, rectified_rig
from video_io.stereo import Matcher, Rig

Float = NDArray[np.float64]
Image = NDArray[np.uint8]

FRAMES = 12  # pairs that are matched, spread over the run
# Pixels that count: sure in the run; and their least share of a frame.
LEAST_CONFIDENCE, LEAST_SHARE = 0.2, 0.05
# Disparities, pixels: smaller ones tell too little, and larger ones than this share of the width are not sought.
LEAST_DISPARITY, MOST_DISPARITY = 3.0, 0.35
NEAREST_MM = 2.0
# Base lines are calibrated to some tenths of a per cent; matching without corners is biased by some tenths of a pixel.
FLOOR_STD, BIAS_PX = 0.005, 0.35
# Corners: how many, how near to each other, the least that count; pixels that they may leave their epipolar line, and
# miss where they began once they are followed back.
CORNERS, SPACING_PX, LEAST_CORNERS, OFF_LINE_PX, BACK_PX = 400, 6, 25, 1.0, 0.7


@dataclass(frozen=True)
class StereoPairs:
    """The pairs that belong to a run.

    Attributes:
        rig: the two cameras, of one eye's picture each; left is the eye from which the run was made.
        read: reads some frames, by their index in the source: left and right picture, (H, W, 3) uint8 RGB.
        offset: (x, y) of the left eye's picture in the source's.
        name: of where they come from, in words.
    """

    rig: Rig
    read: Callable[[list[int]], dict[int, tuple[Image, Image]]]
    offset: tuple[int, int]
    name: str


def open_pairs(run: Run, path: Path, rig: Path | None = None, baseline_mm: float | None = None) -> StereoPairs:
    """The stereo pairs of a run.

    Args:
        run: made from the left eye.
        path: a data set with stereo pairs; the run's own input, where its picture holds both eyes (left or upper half:
            the left eye); or the right eye's video or folder, frame by frame as the left one's.
        rig: stereo calibration; a data set brings its own.
        baseline_mm: instead of `rig`, where the pictures are rectified.

    Raises:
        InputError: nothing that can be read, no calibration, or pictures that do not fit the run.
    """
    path = path.expanduser()
    if not path.exists():
        raise InputError(f"the stereo input '{path}' does not exist; give a data set, a video or a folder of pictures")
    if path.is_dir() and layout_of(path) is not None and rig is None and baseline_mm is None:
        truth = open_truth(path)
        if truth.pairs is None:
            raise InputError(f"'{path}' ({truth.layout}) holds no calibrated stereo pairs; give --rig or --baseline-mm")
        pairs, count = truth.pairs, truth.frame_count
        return StereoPairs(
            pairs.rig,
            lambda indices: {i: pairs.read(i) for i in indices if i < count},
            (0, 0),
            f"the stereo pairs of '{path}'",
        )
    if (rig is None) == (baseline_mm is None):
        raise InputError("stereo pictures need their calibration: give one of --rig FILE and --baseline-mm MM")
    if baseline_mm is not None and not baseline_mm > 0:
        raise InputError(f"the base line is {baseline_mm:g} mm; expected a positive number")
    cut, given = Cut.of(run), input_of(run)
    if given.exists() and given.resolve() == path.resolve():
        (x, y, width, height), other = _halves(cut)
        read = _both_halves(path, (x, y, width, height), other)
    else:
        (x, y, width, height) = (0, 0, *cut.source)
        read = _two_inputs(given, path, cut.source)
    assert run.source_camera is not None
    left = run.source_camera.cropped(x, y, width, height)
    made = read_rig(rig, (width, height)) if rig is not None else rectified_rig(left, float(baseline_mm or 0))
    how = f"calibration '{rig}'" if rig is not None else f"base line {baseline_mm:g} mm"
    return StereoPairs(made, read, (x, y), f"the stereo pairs of '{path}' ({how})")


def measure(run: Run, pairs: StereoPairs, frames: int = FRAMES) -> ScaleEstimate:
    """From the median ratio of matched to reconstructed depth in each of some frames.

    Raises:
        InputError: frames in which too little can be matched, or pictures of another size.
    """
    assert run.camera is not None
    own = shown_frames(run)
    chosen = [own[i] for i in np.unique(np.linspace(0, len(own) - 1, min(frames, len(own))).astype(int))] if own else []
    reach = pairs.rig.left.focal_px * pairs.rig.baseline_mm  # disparity times depth
    matcher = Matcher(
        pairs.rig, max(reach / (MOST_DISPARITY * pairs.rig.left.width), NEAREST_MM), reach / LEAST_DISPARITY
    )
    at = Cut.of(run).original(run.camera.pixels()) - pairs.offset
    column, row = np.floor(at).astype(int).transpose(2, 0, 1)
    inside = (column >= 0) & (row >= 0) & (column < pairs.rig.left.width) & (row < pairs.rig.left.height)
    logs, spreads, blunt = [], [], []
    for index, (left, right) in sorted(pairs.read(chosen).items()):
        matched = matcher.depth(left, right)
        seen = np.where(inside, matched[np.where(inside, row, 0), np.where(inside, column, 0)], 0)
        depth, confidence = run.depth(index)
        good = (seen > 0) & (depth > 0) & (confidence > LEAST_CONFIDENCE)
        if good.mean() < LEAST_SHARE:
            continue
        ratio = np.log(seen[good] / depth[good])
        about = float(np.median(ratio))
        sharp = _by_corners(run, pairs, left, right, (depth, confidence), about)
        logs.append(about if sharp is None else sharp)
        blunt.append(BIAS_PX / float(np.median(reach / seen[good])) if sharp is None else 0.0)
        spreads.append(1.4826 * float(np.median(np.abs(ratio - about))))
    if not logs:
        raise InputError(
            f"{pairs.name} could be matched in none of {len(chosen)} frames; expected pictures of the run's own "
            "frames, left and right as the calibration has them"
        )
    middle, spread = mean_of_frames(logs)
    # Within a frame, the run's shape and the matches disagree over patches, of which some tens are independent.
    within = float(np.median(spreads)) / np.sqrt(10 * min(len(logs), INDEPENDENT))
    alone = float(np.median(spreads)) / np.sqrt(10) if len(logs) == 1 else 0.0
    log_std = float(np.sqrt(spread**2 + within**2 + alone**2 + np.mean(blunt) ** 2 + FLOOR_STD**2))
    source = f"{pairs.name}, {len(logs)} frames"
    return ScaleEstimate(source, float(np.exp(middle)) * (unit_mm(run) or 1.0), log_std)


def _by_corners(
    run: Run, pairs: StereoPairs, left: Image, right: Image, told: tuple[NDArray[np.float32], NDArray[np.float32]],
    log_scale: float,
) -> float | None:  # fmt: skip
    """The log of the scale, from corners that are followed from the left picture into the right one; None where there
    are too few. `told` are the run's depth and confidence, `log_scale` is where it starts."""
    import cv2

    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (left, right)]
    found = cv2.goodFeaturesToTrack(grey[0], CORNERS, 0.005, SPACING_PX)
    if found is None:
        return None
    start = found.reshape(-1, 2).astype(np.float32)  # OpenCV counts from the pixel's centre
    cut, (depth, confidence) = Cut.of(run), told
    column, row = np.floor(cut.working(start + 0.5 + np.float32(pairs.offset))).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < cut.size[0]) & (row < cut.size[1])
    start, column, row = start[inside], column[inside], row[inside]
    known = (depth[row, column] > 0) & (confidence[row, column] > LEAST_CONFIDENCE)
    start, z = start[known], depth[row, column][known].astype(float)
    rays = pairs.rig.left.rays(start + 0.5)
    point, pose = rays / rays[:, 2:] * z[:, None], pairs.rig.right_from_left

    def seen_at(log: float) -> tuple[Float, NDArray[np.bool_]]:
        return pairs.rig.right.project(np.exp(log) * point @ pose[:3, :3].T + pose[:3, 3])

    for _ in range(2):
        if len(start) < LEAST_CORNERS:
            return None
        (there, ahead), (next_to, _) = seen_at(log_scale), seen_at(log_scale + 1e-3)
        along = (next_to - there) / 1e-3
        guess = (there - 0.5).astype(np.float32)
        options = {"winSize": (15, 15), "maxLevel": 1, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
        moved, good, _ = cv2.calcOpticalFlowPyrLK(*grey, start, guess.copy(), **options)
        back, returned, _ = cv2.calcOpticalFlowPyrLK(*grey[::-1], moved, start.copy(), **options)
        miss = moved + 0.5 - there
        length = np.maximum((along**2).sum(1), 1e-9)
        step = (miss * along).sum(1) / length
        off = np.linalg.norm(miss - step[:, None] * along, axis=1)
        use = ahead & (good.ravel() > 0) & (returned.ravel() > 0) & (off < OFF_LINE_PX)
        use &= (np.linalg.norm(back - start, axis=1) < BACK_PX) & (length > LEAST_DISPARITY**2)
        if use.sum() < LEAST_CORNERS:
            return None
        log_scale += float(np.median(step[use]))
    return log_scale


def _halves(cut: Cut) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """The half of the source's picture in which the run's part lies, (x, y, width, height), and where the other one
    begins.

    Raises:
        InputError: the run was made from both halves, or from the right eye's.
    """
    (width, height), (x, y, w, h) = cut.source, cut.crop
    if x + w <= width / 2 + 2:
        return (0, 0, width // 2, height), (width - width // 2, 0)
    if y + h <= height / 2 + 2:
        return (0, 0, width, height // 2), (0, height - height // 2)
    if x >= width / 2 - 2 or y >= height / 2 - 2:
        raise InputError(
            "the run was made from the right eye's half of the picture; expected the left or the upper one; cut the "
            "video with `endorecon doctor --fix`, and reconstruct the left eye"
        )
    raise InputError(
        "the run's picture is not one half of its input's; expected both eyes side by side or one above the other; "
        "give the right eye's video"
    )


def _both_halves(path: Path, box: tuple[int, int, int, int], other: tuple[int, int]):  # type: ignore[no-untyped-def]
    x, y, w, h = box

    def read(indices: list[int]) -> dict[int, tuple[Image, Image]]:
        whole = pictures(path, indices)
        return {
            i: tuple(np.ascontiguousarray(p[b : b + h, a : a + w]) for a, b in ((x, y), other))  # type: ignore[misc]
            for i, p in whole.items()
        }

    return read


def _two_inputs(left: Path, right: Path, size: tuple[int, int]):  # type: ignore[no-untyped-def]
    if not left.exists():
        raise InputError(f"the run's own input '{left}' is not there any more; expected the left eye's pictures")

    def read(indices: list[int]) -> dict[int, tuple[Image, Image]]:
        ours, theirs = pictures(left, indices), pictures(right, indices)
        for picture in theirs.values():
            if picture.shape[1::-1] != size:
                raise InputError(
                    f"the right eye's picture is {picture.shape[1]} x {picture.shape[0]}, the left one's {size[0]} x "
                    f"{size[1]}; expected the same size"
                )
        return {i: (ours[i], theirs[i]) for i in indices if i in ours and i in theirs}

    return read

