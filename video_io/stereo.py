"""Depth from a calibrated stereo pair: rectification, semi-global matching (Hirschmüller, PAMI 2008), and fractions of
a pixel (`video_io.subpixel`).

The rectified cameras are pinholes with the line through both centres as x axis (Fusiello et al., MVA 2000); the images
are brought to them through our own camera models, so any lens will do. Depth comes back at the pixels of the left image
as it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.subpixel import sharpened

Float = NDArray[np.float64]
Image = NDArray[np.uint8]

NEAR_MM, FAR_MM = 20.0, 400.0
_BLOCK = 5
_UNIQUE_PERCENT = 5


@dataclass(frozen=True)
class Rig:
    """Two cameras that are fixed to each other.

    Attributes:
        left, right: of the images as they are recorded.
        right_from_left: (4, 4), mm.

    Raises:
        InputError: two cameras at the same place.
    """

    left: Camera
    right: Camera
    right_from_left: Float

    def __post_init__(self) -> None:
        if not 1e-3 < self.baseline_mm < 1e3:
            raise InputError(
                f"the cameras of the stereo pair are {self.baseline_mm:g} mm apart; expected some millimetres, as a "
                "stereo endoscope has; check the unit of the calibration"
            )

    @property
    def baseline_mm(self) -> float:
        """Distance of the two centres."""
        return float(np.linalg.norm(self.right_from_left[:3, 3]))


@dataclass(frozen=True)
class Pairs:
    """Stereo pairs of a data set.

    Attributes:
        rig: the two cameras.
        read: reads frame i: left and right image, (H, W, 3) uint8 RGB.
        read_right_depth: reads the right image's z-depth, mm; None where there is none.
    """

    rig: Rig
    read: Callable[[int], tuple[Image, Image]]
    read_right_depth: Callable[[int], NDArray[np.float32]] | None = None

    def depth(self, index: int) -> NDArray[np.float32]:
        """z-depth at the left image's pixels by matching, mm, 0 where there is none."""
        return self._matcher.depth(*self.read(index))

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.rig)


class Matcher:
    """Finds depth in stereo pairs of one rig.

    Args:
        rig: the cameras.
        near_mm, far_mm: depths that are looked for.
    """

    def __init__(self, rig: Rig, near_mm: float = NEAR_MM, far_mm: float = FAR_MM) -> None:
        self.rig, self._far = rig, far_mm
        self._from_left, self._from_right, self.camera = _rectified(rig)
        self._reach = self.camera.params[0] * rig.baseline_mm  # disparity times depth
        count = -(-int(np.ceil(self._reach / near_mm)) // 16) * 16
        self._sgm = cv2.StereoSGBM_create(
            minDisparity=0, numDisparities=max(count, 16), blockSize=_BLOCK, P1=24 * _BLOCK**2, P2=96 * _BLOCK**2,
            disp12MaxDiff=1, uniquenessRatio=_UNIQUE_PERCENT, speckleWindowSize=100, speckleRange=2,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
        )  # fmt: skip
        self._count = max(count, 16)
        self._left_map = _map(self.camera, self._from_left, rig.left)
        self._right_map = _map(self.camera, self._from_right, rig.right)
        self._back = _map(rig.left, self._from_left.T, self.camera)

    def depth(self, left: Image, right: Image) -> NDArray[np.float32]:
        """z-depth in the left camera, (H, W) float32 mm, at the pixels of the left image; 0 where there is none.

        Raises:
            InputError: images of another size than the cameras'.
        """
        for image, camera in ((left, self.rig.left), (right, self.rig.right)):
            if image.shape[:2] != (camera.height, camera.width):
                raise InputError(
                    f"an image of the stereo pair is {image.shape[1]} x {image.shape[0]}, its camera is for "
                    f"{camera.width} x {camera.height}; expected both to agree; take the calibration of these images"
                )
        # Without the border the matcher leaves the first columns out, as many as the largest disparity.
        rectified = [
            cv2.remap(image, *at, cv2.INTER_LINEAR) for image, at in ((left, self._left_map), (right, self._right_map))
        ]
        both = [cv2.copyMakeBorder(image, 0, 0, self._count, 0, cv2.BORDER_CONSTANT) for image in rectified]
        disparity = np.maximum(self._sgm.compute(*both)[:, self._count :], 0).astype(np.float32) / 16
        disparity = sharpened(*(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY).astype(np.float32) for i in rectified), disparity)
        seen = disparity > self._reach / self._far
        z = np.where(seen, self._reach / np.where(seen, disparity, 1), 0).astype(np.float32)
        rays = self.camera.ray_map()
        distance = z / rays[..., 2]
        # Nearest, since an average over an edge of the surface is on neither side of it.
        there = cv2.remap(distance, *self._back, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        cosine = np.nan_to_num(self.rig.left.ray_map()[..., 2])
        return np.maximum(there * cosine, 0).astype(np.float32)


def _rectified(rig: Rig) -> tuple[Float, Float, Camera]:
    """Rotations rectified_from_left and rectified_from_right, and the pinhole that both rectified images have."""
    rotation, shift = rig.right_from_left[:3, :3], rig.right_from_left[:3, 3]
    across = -rotation.T @ shift  # the right centre in the left frame
    x = across / np.linalg.norm(across)
    ahead = np.array([0, 0, 1.0]) + rotation.T @ [0, 0, 1.0]
    y = np.cross(ahead, x)
    y /= np.linalg.norm(y)
    from_left = np.stack([x, y, np.cross(x, y)])
    if from_left[0, 0] < 0:
        raise InputError(
            "the right camera of the stereo pair lies to the left of the left one; expected right_from_left with a "
            "negative shift along x; swap the images, or invert the transform"
        )
    focal = (rig.left.focal_px + rig.right.focal_px) / 2
    width, height = rig.left.width, rig.left.height
    ray = from_left @ rig.left.rays(np.array([width / 2, height / 2]))
    cx, cy = np.array([width, height]) / 2 - focal * ray[:2] / ray[2]
    return from_left, from_left @ rotation.T, Camera.pinhole(width, height, focal, focal, cx, cy)


def _map(target: Camera, target_from_source: Float, source: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each pixel of `target` where `source` sees it, as `cv2.remap` wants it (which counts from pixel centres)."""
    rays = np.nan_to_num(target.rays(target.pixels())) @ target_from_source  # transposed: from target to source
    at, seen = source.project(rays)
    at = np.where(seen[..., None], at - 0.5, -1e4).astype(np.float32)
    return np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
