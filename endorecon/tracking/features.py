"""Points that can be found again: detection and sparse optical flow on tissue.

Tissue is smooth, wet, and lit by a lamp that moves with the lens. So points are sought and followed in an image whose
local brightness and contrast are taken out, never on highlights, and each step is checked by following it back
(forward-backward error, Kalal et al., ICPR 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.frame import Frame

Points = NDArray[np.float32]

WINDOW_PX = 15
LEVELS = 3
FORWARD_BACKWARD_PX = 1.0
BORDER_PX = 4
NOISE_FLOOR = 8.0  # grey levels
# A highlight: the least channel rises by this share of the most, and so many grey levels; points as near are on it.
SHINE_WHITE, SHINE_LEVELS, SHINE_REACH_PX = 0.6, 6.0, 4


@dataclass(frozen=True)
class FeatureImage:
    """An image made ready for flow.

    Attributes:
        normalised: (H, W) uint8, local mean 128.
        grey: (H, W) float32, the green channel, lightly smoothed.
        usable: (H, W) uint8, 255 where a point may lie.
    """

    normalised: NDArray[np.uint8]
    grey: NDArray[np.float32]
    usable: NDArray[np.uint8]


def feature_image(frame: Frame) -> FeatureImage:
    """Take local brightness and contrast out of the green channel, in which vessels stand out best."""
    size = (0, 0)
    green = frame.rgb[..., 1].astype(np.float32)
    smooth = cv2.GaussianBlur(green, size, 1.0)
    valid = frame.use_mask.astype(np.float32)
    # Means are taken over usable pixels only, so that the black border casts no halo.
    weight = np.maximum(cv2.GaussianBlur(valid, size, 8), 1e-3)
    mean = cv2.GaussianBlur(smooth * valid, size, 8) / weight
    detail = (smooth - mean) * valid
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, size, 8) / weight)
    # The floor keeps flat, dark, noisy regions flat: corners of the sensor's noise are never found again.
    normalised = np.clip(128 + 40 * detail / (contrast + NOISE_FLOOR), 0, 255).astype(np.uint8)
    blocked = (~frame.use_mask | frame.specular_mask).astype(np.uint8)
    blocked[:BORDER_PX], blocked[-BORDER_PX:], blocked[:, :BORDER_PX], blocked[:, -BORDER_PX:] = 1, 1, 1, 1
    usable = np.where(cv2.dilate(blocked, np.ones((7, 7), np.uint8)) > 0, 0, 255).astype(np.uint8)
    return FeatureImage(normalised, cv2.GaussianBlur(green, size, 0.7), usable)


def detect(image: FeatureImage, existing: Points, count: int, spacing_px: float) -> Points:
    """Up to `count` new corner points (N, 2), pixels, at least `spacing_px` from each other and from `existing`."""
    mask = image.usable.copy()
    for x, y in existing:
        cv2.circle(mask, (int(x), int(y)), int(spacing_px), 0, -1)
    if count <= 0 or not mask.any():
        return np.zeros((0, 2), np.float32)
    found = cv2.goodFeaturesToTrack(image.normalised, count, 0.005, spacing_px, mask=mask, blockSize=7)
    if found is None:
        return np.zeros((0, 2), np.float32)
    # OpenCV counts from the pixel's centre.
    return found.reshape(-1, 2).astype(np.float32) + 0.5


def follow(
    source: FeatureImage, target: FeatureImage, points: Points, guess: Points | None = None
) -> tuple[Points, NDArray[np.bool_]]:
    """Follow `points` (N, 2) from `source` to `target` by pyramidal Lucas-Kanade flow.

    Returns:
        The positions in `target`, and which of them passed the way back, lie on usable tissue and inside the image.
    """
    if not len(points):
        return points.copy(), np.zeros(0, bool)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)
    options = {"winSize": (WINDOW_PX, WINDOW_PX), "criteria": criteria, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    start = (points - 0.5).reshape(-1, 1, 2)
    begin = start.copy() if guess is None else (guess - 0.5).astype(np.float32).reshape(-1, 1, 2)
    ahead, found, _ = cv2.calcOpticalFlowPyrLK(
        source.normalised, target.normalised, start, begin.copy(), maxLevel=LEVELS, **options
    )
    # The way back starts where it should end, so it needs no coarse levels.
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(
        target.normalised, source.normalised, ahead, start.copy(), maxLevel=1, **options
    )
    moved = ahead.reshape(-1, 2) + 0.5
    error = np.linalg.norm((back - start).reshape(-1, 2), axis=1)
    height, width = target.usable.shape
    at = np.floor(moved).astype(int)
    inside = (at[:, 0] >= 0) & (at[:, 1] >= 0) & (at[:, 0] < width) & (at[:, 1] < height)
    column, row = np.clip(at[:, 0], 0, width - 1), np.clip(at[:, 1], 0, height - 1)
    good = (found.ravel() > 0) & (found_back.ravel() > 0) & (error < FORWARD_BACKWARD_PX)
    return moved.astype(np.float32), good & inside & (target.usable[row, column] > 0)


def shine(frame: Frame, pixels: Points) -> float:
    """Share of the pixels (N, 2) that lie on a bright spot of the lamp's colour, or beside it: highlights, of which
    those that are not bright enough for the mask move with the lamp all the same.

    A highlight adds the same light to all channels; tissue that is paler does not.
    """
    if not len(pixels):
        return 0.0
    unit, half = frame.width / 320, (frame.width // 2, frame.height // 2)
    small = cv2.resize(frame.rgb, half, interpolation=cv2.INTER_AREA).astype(np.float32)
    risen = small - cv2.GaussianBlur(small, (0, 0), 4 * unit)
    least, most = risen.min(axis=2), risen.max(axis=2)
    white = ((least > SHINE_WHITE * most) & (least > SHINE_LEVELS)).astype(np.uint8)
    side = 2 * max(round(SHINE_REACH_PX * unit / 2), 1) + 1
    near = cv2.dilate(white, np.ones((side, side), np.uint8))
    at = np.clip((pixels / 2).astype(int), 0, np.array(half) - 1)
    return float(near[at[:, 1], at[:, 0]].mean())


def sample(image: NDArray[np.floating], pixels: Points) -> NDArray[np.float32]:
    """Bilinear values of an image (H, W) at pixels (N, 2)."""
    if not len(pixels):
        return np.zeros(0, np.float32)
    at = (pixels - 0.5).astype(np.float32).reshape(-1, 1, 2)
    return cv2.remap(image.astype(np.float32), at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()
