"""Do depth, poses and camera belong together? Points of one frame, moved into another, must lie on its depth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.datasets import Truth

Float = NDArray[np.float64]
Depth = NDArray[np.float32]

POINTS = 6000  # a frame
_SPARSE = 0.02  # share of pixels with depth, below which depth is single points
_NEAR_PX = 3.0
_BEHIND = 0.1  # points this share of the depth behind the surface are hidden by it
_FLAT = 0.1  # depth that changes by more than this share from a pixel to the next is an edge, and says nothing there


@dataclass(frozen=True)
class Agreement:
    """How well frames agree; arrays over points.

    Attributes:
        along: difference in z between a moved point and the depth that is stored where it falls, in the truth's unit.
        px: distance from where a point started to where it comes back from there, pixels; for single points, from
            where it falls to the nearest stored one.
        moved_px: how far each point moves in the image from one frame to the other; without motion nothing is shown.
        pairs: how many pairs of frames, or of images for stereo pairs, were looked at.
        how: `poses` or `stereo`.
    """

    along: Float
    px: Float
    moved_px: Float
    pairs: int
    how: str

    @property
    def median(self) -> float:
        """Median of the difference in z."""
        return float(np.median(self.along))

    @property
    def median_px(self) -> float:
        """Median distance in the image, pixels."""
        return float(np.median(self.px))


def agreement(truth: Truth, pairs: int = 6) -> Agreement | None:
    """Points of a frame against the depth of another, over `pairs` pairs spread over the clip; None without both.

    With poses the second frame is another moment; without, the right image of a stereo pair that has depth of its own.

    Raises:
        InputError: a file of depth that can't be read.
    """
    if truth.camera is None or truth.read_depth is None or not truth.frame_count:
        return None
    found = []
    how = "poses"
    if truth.trajectory is not None and truth.frame_count > 1:
        poses = truth.trajectory.world_from_cam
        for first, second in _chosen(truth.frame_count, pairs):
            moved = np.linalg.inv(poses[second]) @ poses[first]
            depths = truth.depth(first), truth.depth(second)
            found.append(compare(depths[0], depths[1], truth.camera, truth.camera, moved))
    elif truth.pairs is not None and truth.pairs.read_right_depth is not None:
        how, rig = "stereo", truth.pairs.rig
        for index in range(min(pairs, truth.frame_count)):
            left, right = truth.depth(index), truth.pairs.read_right_depth(index)
            found.append(compare(left, right, rig.left, rig.right, rig.right_from_left))
    kept = [pair for pair in found if len(pair[0])]
    if not kept:
        return None
    along, px, moved_px = (np.concatenate(values) for values in zip(*kept, strict=True))
    return Agreement(along, px, moved_px, len(kept), how)


def compare(
    first: Depth | None, second: Depth | None, camera: Camera, other: Camera, other_from_camera: Float
) -> tuple[Float, Float, Float]:
    """Differences in z and in pixels, and how far points move in the image.

    Points of `first` (z, 0 = none) are looked at where they fall on depth of `second`.
    """
    empty = np.zeros(0), np.zeros(0), np.zeros(0)
    if first is None or second is None or not first.any() or not second.any():
        return empty
    pixels, z = _points(first)
    rays = camera.rays(pixels)
    good = np.isfinite(rays).all(-1) & (rays[..., 2] > 1e-6)
    pixels, points = pixels[good], rays[good] / rays[good][:, 2:] * z[good][:, None]
    moved = points @ other_from_camera[:3, :3].T + other_from_camera[:3, 3]
    at, seen = other.project(moved)
    pixels, moved, at = pixels[seen], moved[seen], at[seen]
    if not len(at):
        return empty
    if (second > 0).mean() < _SPARSE:
        return _against_points(second, pixels, at, moved[:, 2])
    there, known = _sampled(second, at)
    known &= moved[:, 2] < there * (1 + _BEHIND)
    if not known.any():
        return empty
    rays = other.rays(at[known])
    back = (rays / rays[:, 2:] * there[known][:, None] - other_from_camera[:3, 3]) @ other_from_camera[:3, :3]
    again, visible = camera.project(back)
    px = np.linalg.norm(again - pixels[known], axis=1)
    shift = np.linalg.norm(at[known] - pixels[known], axis=1)
    return np.abs(moved[known, 2] - there[known])[visible], px[visible], shift[visible]


def _chosen(count: int, pairs: int) -> list[tuple[int, int]]:
    """Pairs of frames: neighbours, and some further apart, up to ten frames."""
    apart = max(1, min(10, count // 2))
    starts = np.unique(np.linspace(0, count - 1 - apart, max(pairs // 2, 1)).round().astype(int)).tolist()
    return [(s, s + step) for s in starts for step in sorted({1, apart})]


def _points(depth: Depth) -> tuple[Float, Float]:
    """Centres of pixels that have depth, (N, 2), and their depth (N,), thinned out evenly."""
    rows, columns = np.nonzero(depth > 0)
    if len(rows) > POINTS:
        take = np.random.default_rng(0).permutation(len(rows))[:POINTS]
        rows, columns = rows[take], columns[take]
    return np.stack([columns, rows], -1) + 0.5, depth[rows, columns].astype(float)


def _sampled(depth: Depth, at: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Depth between pixels, bilinear, and where all four neighbours have some and lie on one surface."""
    x, y = (at - 0.5).T.astype(np.float32)
    value = cv2.remap(depth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()
    kernel = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(depth, kernel), cv2.dilate(depth, kernel)
    smooth = ((low > 0) & (high < (1 + _FLAT) * np.maximum(low, 1e-6))).astype(np.uint8)
    known = cv2.remap(smooth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE).ravel() > 0
    return value.astype(float), known


def _against_points(depth: Depth, pixels: Float, at: Float, z: Float) -> tuple[Float, Float, Float]:
    from scipy.spatial import KDTree

    rows, columns = np.nonzero(depth > 0)
    distance, nearest = KDTree(np.stack([columns, rows], -1) + 0.5).query(at)
    known = distance < _NEAR_PX
    shift = np.linalg.norm(at - pixels, axis=1)
    return np.abs(z - depth[rows, columns][nearest])[known], distance[known], shift[known]
