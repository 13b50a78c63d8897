"""Motion blur: light gathered while the camera shifts, turns and advances; jerk after jerk."""

from __future__ import annotations

import cv2
import numpy as np

from video_io import levels
from video_io.corruptions import Effect, Image

GROUP = "camera"
ABOUT = "the camera moves while the shutter is open: it shifts, turns and advances"

_LENGTH = (3.0, 6.0, 11.0, 18.0, 28.0)  # of the path in the middle, px of an image 320 wide
_HALVINGS = 4  # 16 places on the path


def begin(rgb: Image, severity: int, rng: np.random.Generator) -> Effect:
    """See the package."""
    height, width = rgb.shape[:2]
    length = _LENGTH[severity - 1] * width / 320
    heading, swing, phase = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 2.5), rng.uniform(0, 2 * np.pi, 2)
    turn, zoom = rng.uniform(-1, 1), rng.uniform(-0.7, 0.7)

    def effect(rgb: Image, time_s: float) -> Image:
        # The first frame is in the middle of a jerk; between two of them the camera almost rests.
        now = length * (0.55 + 0.45 * np.cos(2 * np.pi * swing * time_s))
        way = heading + 0.9 * np.sin(1.3 * time_s + phase[0]) - 0.9 * np.sin(phase[0])
        # Velocity of a pixel: shift + (zoom, turn) times its place from the middle; at the corner half as much again.
        a, b = (np.array([zoom, turn]) * now / width).tolist()
        shift = now * np.array([np.cos(way), np.sin(way)])
        motion = np.array([[a, -b, shift[0]], [b, a, shift[1]], [0, 0, 0]])
        centre = np.array([[1, 0, width / 2 - 0.5], [0, 1, height / 2 - 0.5], [0, 0, 1]])
        motion = centre @ motion @ np.linalg.inv(centre)
        light = levels.linear(rgb)
        # The mean over a path is the mean over its halves, of which each is half as long, and so on.
        for k in range(_HALVINGS):
            half = motion * 0.5 ** (k + 2)
            light = 0.5 * (_moved(light, half) + _moved(light, -half))
        return levels.display(light)

    return effect


def _moved(light: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The picture after a small motion, exp(motion) to second order."""
    put = (np.eye(3) + motion + motion @ motion / 2)[:2]
    size = (light.shape[1], light.shape[0])
    return cv2.warpAffine(light, put, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
