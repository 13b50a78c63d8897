"""Which frames are worth working on: exposure, blur, highlights, cuts, still and duplicate frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError
from video_io.frame import Frame

MIN_FRAMES = 3  # two frames alone can't be checked against anything
_BLACK_LEVEL = 16.0  # grey level below which 95 % of a black frame's pixels lie
_CONSTANT_SPREAD = 2.0  # grey levels of standard deviation that noise and compression leave on a constant frame
_THUMBNAIL = (40, 32)


@dataclass(frozen=True)
class Quality:
    """Figures of one frame, over its usable pixels.

    Attributes:
        sharpness: variance of the Laplacian of the grey image (Pech-Pacheco et al., ICPR 2000), grey levels squared;
            compare it within a clip only.
        brightness: mean grey level, 0 to 255.
        spread: standard deviation of the grey level.
        dark: share of pixels below 16.
        clipped: share of pixels with a channel at 250 or more.
        specular: share of pixels on highlights.
        usable: share of the image in `use_mask`.
        verdict: "" for a frame that can be used, otherwise why not: "black", "constant", "no field of view".
    """

    sharpness: float
    brightness: float
    spread: float
    dark: float
    clipped: float
    specular: float
    usable: float
    verdict: str

    def figures(self) -> dict[str, float]:
        """The numbers by name, without the verdict."""
        return {name: value for name, value in asdict(self).items() if name != "verdict"}


def assess(frame: Frame) -> Quality:
    """The quality of a frame whose masks are filled in (`masks.with_masks`)."""
    grey = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
    use = frame.use_mask.view(np.uint8)
    count = cv2.countNonZero(use)
    if count == 0:
        black = float(np.percentile(grey, 95)) < _BLACK_LEVEL
        verdict = "black" if black else "no field of view"
        return Quality(0.0, float(grey.mean()), float(grey.std()), 1.0 if black else 0.0, 0.0, 0.0, 0.0, verdict)
    mean, spread = (float(v.ravel()[0]) for v in cv2.meanStdDev(grey, mask=use))
    # The Laplacian of the border of the field of view is not sharpness.
    core = cv2.erode(use, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    _, laplacian_spread = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S), mask=core if core.any() else use)
    dark = cv2.countNonZero(cv2.compare(grey, 16, cv2.CMP_LT) & (use * 255)) / count
    r, g, b = cv2.split(frame.rgb)
    brightest = cv2.max(cv2.max(r, g), b)
    clipped = cv2.countNonZero(cv2.compare(brightest, 250, cv2.CMP_GE) & (use * 255)) / count
    highlights = cv2.countNonZero(cv2.bitwise_and(frame.specular_mask.view(np.uint8), use)) / count
    verdict = "black" if dark > 0.95 else "constant" if spread < _CONSTANT_SPREAD else ""
    sharpness = float(laplacian_spread.ravel()[0]) ** 2
    return Quality(sharpness, mean, spread, dark, clipped, highlights, count / use.size, verdict)


def is_cut(previous: Frame, current: Frame) -> bool:
    """Whether the scene changes between two consecutive frames, as an edit of the video does.

    Both the colours and the coarse picture must change: fast motion keeps the colours, and a change of the light
    keeps the picture.
    """
    if colour_change(previous, current) < 0.25:
        return False
    return likeness(previous, current) < 0.6


def likeness(previous: Frame, current: Frame) -> float:
    """Correlation of the two frames' coarse pictures, 1 for the same one."""
    return _correlation(_thumbnail(previous), _thumbnail(current))


def colour_change(previous: Frame, current: Frame) -> float:
    """Hellinger distance of the two frames' colour histograms, 0 (same) to 1 (nothing in common)."""
    return float(cv2.compareHist(_histogram(previous), _histogram(current), cv2.HISTCMP_BHATTACHARYYA))


def motion(previous: Frame, current: Frame) -> float:
    """Mean absolute difference of the two frames, grey levels, over pixels that both can use and without noise.

    0 for a duplicate; below about 0.5 the camera stands still and nothing moves.
    """
    a, b = (cv2.GaussianBlur(cv2.cvtColor(f.rgb, cv2.COLOR_RGB2GRAY), (5, 5), 0) for f in (previous, current))
    both = (previous.use_mask & current.use_mask).view(np.uint8)
    return float(cv2.mean(cv2.absdiff(a, b), mask=both)[0])


def is_duplicate(previous: Frame, current: Frame) -> bool:
    """Whether the second frame repeats the first, as frame-rate conversion and a frozen picture do."""
    return motion(previous, current) < 0.05


def check_clip(frames: Sequence[Frame]) -> None:
    """Raise InputError when a sample of a clip shows that nothing can be reconstructed from it.

    Args:
        frames: a sample spread over the clip, as read.

    Raises:
        InputError: fewer than `MIN_FRAMES` frames, all frames black, all of one colour, or all the same picture.
    """
    if len(frames) < MIN_FRAMES:
        raise InputError(
            f"the input gives {len(frames)} readable frame{'s' * (len(frames) != 1)}; expected a clip of a moving "
            f"camera ({MIN_FRAMES} frames at least, better dozens); give a longer clip"
        )
    grey = [
        cv2.resize(cv2.cvtColor(f.rgb, cv2.COLOR_RGB2GRAY), (320, 256), interpolation=cv2.INTER_AREA) for f in frames
    ]
    brightest = max(float(np.percentile(g, 99)) for g in grey)
    if brightest < _BLACK_LEVEL:
        raise InputError(
            f"the clip is black (the brightest of {len(frames)} frames looked at reaches grey level {brightest:.0f} of "
            "255); expected a lit picture of tissue; check the recording"
        )
    spread = max(float(g.std()) for g in grey)
    if spread < _CONSTANT_SPREAD:
        raise InputError(
            f"the clip shows one even colour (grey levels vary by {spread:.1f} at most); expected a picture of tissue; "
            "check the recording"
        )
    change = max(float(np.abs(g.astype(np.int16) - grey[0]).mean()) for g in grey[1:])
    if change < 0.05:
        raise InputError(
            f"all {len(frames)} frames looked at show the same picture; expected a clip of a moving camera; give the "
            "video itself and not a still image"
        )


def _thumbnail(frame: Frame) -> NDArray[np.float32]:
    small = cv2.resize(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), _THUMBNAIL, interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small.astype(np.float32), (5, 5), 0)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-6 else 1.0


def _histogram(frame: Frame) -> NDArray[np.float32]:
    hsv = cv2.cvtColor(np.ascontiguousarray(frame.rgb[::2, ::2]), cv2.COLOR_RGB2HSV)
    use = np.ascontiguousarray(frame.use_mask[::2, ::2]).view(np.uint8)
    bins = cv2.calcHist([hsv], [0, 1, 2], use if use.any() else None, [12, 6, 6], [0, 180, 0, 256, 0, 256])
    return bins / max(float(bins.sum()), 1.0)
