"""Optical flow between two frames, on small grey pictures: how far things move, whether anything can be followed at
all, and whether something before the lens bends the picture.

Lengths are in pixels of an image 320 wide, whatever the frames' size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.frame import Frame

WIDTH = 160
_UNIT = 320 / WIDTH
_REACH, _LEVEL, _SPREAD = 12.0, 128.0, 40.0  # of the structures that are followed; what their contrast is brought to
_RETURN_PX = 2.0  # forward and backward flow agree
_STEP = 4  # pixels between the places at which the flow is compared with a smooth one
_BLURS = (0.4, 0.6, 0.8, 1.1, 1.5, 2.0, 2.7, 3.5, 4.5)  # sigma
_LEAST = 64  # places

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Small:
    """A frame as flow sees it.

    Attributes:
        grey: (H, WIDTH) uint8.
        use: (H, WIDTH) bool, where the frame shows something, away from the border of the field of view.
    """

    grey: NDArray[np.uint8]
    use: NDArray[np.bool_]

    @staticmethod
    def of(frame: Frame) -> Small:
        """The frame, whose masks are filled in."""
        size = (WIDTH, max(round(WIDTH * frame.height / frame.width), 16))
        grey = cv2.resize(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        use = cv2.resize(frame.use_mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return Small(grey, use > 0)

    @cached_property
    def core(self) -> NDArray[np.bool_]:
        """(H, WIDTH): `use` without a margin of 5 px at the border of the field of view, which does not move."""
        return cv2.erode(self.use.view(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0


def movement_px(a: Small, b: Small) -> float:
    """Median length of the flow from a to b."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(a.grey, b.grey, None)
    return _UNIT * float(np.median(np.linalg.norm(flow, axis=-1)))


def followed_share(a: Small, b: Small) -> float:
    """Share of the picture whose flow from a to b leads back to where it began, of what stays in view; 0 for none.

    Two views of one scene have a flow and its inverse (Sundaram et al., ECCV 2010); between two scenes there is none.
    """
    first, second = _structures(a.grey.astype(np.float32), a.use), _structures(b.grey.astype(np.float32), b.use)
    there, back = _flow(first, second), _flow(second, first)
    row, column = np.mgrid[0 : first.shape[0], 0 : first.shape[1]].astype(np.float32)
    x, y = column + there[..., 0], row + there[..., 1]
    returned = cv2.remap(back, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = a.core & (x >= 0) & (y >= 0) & (x < WIDTH) & (y < first.shape[0])
    if np.count_nonzero(seen) < _LEAST:
        return 0.0
    return float(np.mean(np.linalg.norm(there + returned, axis=-1)[seen] * _UNIT < _RETURN_PX))


def bending_px(sharp: Small, soft: Small) -> float:
    """How far the flow from a sharp frame to a soft one a few frames later departs from a smooth one; median.

    The sharp one is blurred until both have the same detail, so that being out of focus does not count. What the
    camera's motion does to a picture is smooth but for the edges of things: a polynomial of third degree. A film or a
    drop on the lens refracts every part of the picture its own way.
    """
    first, second = (picture.grey.astype(np.float32) for picture in (sharp, soft))
    flow = _UNIT * _flow(_structures(_as_soft(first, second), sharp.use), _structures(second, soft.use))
    row, column = np.mgrid[0 : first.shape[0] : _STEP, 0 : first.shape[1] : _STEP]
    seen = (sharp.core & soft.core)[row, column]
    if np.count_nonzero(seen) < _LEAST:
        return 0.0
    x, y, found = column[seen] / WIDTH - 0.5, row[seen] / WIDTH - 0.5, flow[row[seen], column[seen]]
    terms = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=1)
    weight = np.ones(len(x))
    for _ in range(5):  # Geman-McClure's loss or one like it, by reweighting
        smooth = np.linalg.lstsq(terms * weight[:, None], found * weight[:, None], rcond=None)[0]
        off = np.linalg.norm(found - terms @ smooth, axis=1)
        weight = 1 / np.sqrt(1 + (off / 2) ** 2)
    return float(np.median(off))


def _flow(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Float32:
    """Flow from a to b, (H, W, 2), pixels (Kroeger et al., ECCV 2016)."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, None)


def _structures(grey: Float32, use: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture without its brightness, and always of the same contrast."""
    weight = use.astype(np.float32)
    level = cv2.GaussianBlur(grey * weight, (0, 0), _REACH) / np.maximum(cv2.GaussianBlur(weight, (0, 0), _REACH), 1e-3)
    high = (grey - level) * weight
    return np.clip(_LEVEL + _SPREAD * high / (high.std() + 1e-3), 0, 255).astype(np.uint8)


def _as_soft(picture: Float32, soft: Float32) -> Float32:
    """The picture blurred until it has no more detail than the other."""
    aim, found = _detail(soft), picture
    for sigma in _BLURS:
        blurred = cv2.GaussianBlur(picture, (0, 0), sigma)
        if _detail(blurred) < aim:
            break
        found = blurred
    return found


def _detail(grey: Float32) -> float:
    return float(np.std(grey - cv2.GaussianBlur(grey, (0, 0), 0.8)) / (grey.mean() + 10))
