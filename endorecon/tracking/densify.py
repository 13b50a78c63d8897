"""From the network's depth to the depth of the run: scaled and bent to the landmarks that the frame sees.

The network's error in log distance is smooth over the image. It is modelled as a Gaussian process (Rasmussen and
Williams, 2006, eq. 2.23-2.24) over pixel position, observed where a landmark's distance is known from many views; its
posterior mean corrects the map, its posterior variance says how well the correction is known. It is carried by values
at a coarse grid of inducing points (the projected process approximation, section 8.3.4, eq. 8.26-8.27): nearer together
than the error's reach, they lose nothing that shows and cost a thirtieth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from endorecon.tracking.observation import Observation
from video_io.camera import Camera
from video_io.frame import Frame

Float = NDArray[np.float64]

REACH = 0.22  # correlation length of the network's error, as a share of the image width
ERROR_STD = 0.10  # of the network's log distance, after the best scale
SPACING = 0.75  # of the inducing points, in correlation lengths
NEAREST_NOISE = 0.01  # no landmark is trusted beyond one per cent
GRID = (12, 15)


@dataclass(frozen=True)
class Correction:
    """log(true distance / network distance) over the image: mean and standard deviation on a coarse grid."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @staticmethod
    def constant(log_scale: float) -> Correction:
        """One scale for the whole image, nothing else known."""
        return Correction(np.full(GRID, log_scale, np.float32), np.full(GRID, ERROR_STD, np.float32))

    def apply(
        self, distance: NDArray[np.float32], log_std: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Corrected distance (H, W) and its relative standard deviation."""
        size = (distance.shape[1], distance.shape[0])
        mean = cv2.resize(self.mean, size, interpolation=cv2.INTER_CUBIC)
        spread = cv2.resize(self.std, size, interpolation=cv2.INTER_LINEAR)
        # What the process has explained away is no longer uncertain; fine detail that it can't see still is.
        known = np.clip(spread / ERROR_STD, 0.3, 1.0)
        return distance * np.exp(mean), np.maximum(log_std * known, spread * 0.5)


@dataclass(frozen=True)
class NetworkDepth:
    """What the network says of one image: distance (H, W) along the unit rays, and its log's deviation."""

    distance: NDArray[np.float32]
    log_std: NDArray[np.float32]

    @staticmethod
    def of(depth: NDArray[np.float32], log_std: NDArray[np.float32], camera: Camera) -> NetworkDepth:
        """From z-depth; where the camera has no ray, the distance is 1 and its spread infinite.

        The spread is rounded to half precision, in which it is kept, so that it is the same whenever it is used.
        """
        z = camera.ray_map()[..., 2]
        good = np.isfinite(depth) & (depth > 0) & (z > 1e-3)
        distance = np.where(good, depth / np.where(good, z, 1.0), 1.0)
        spread = np.where(good, log_std, np.inf).astype(np.float16).astype(np.float32)
        return NetworkDepth(distance.astype(np.float32), spread)

    def observe(
        self,
        frame: Frame,
        camera: Camera,
        world_from_cam: Float,
        correction: Correction,
        segment: int,
        is_keyframe: bool,
        figures: dict[str, float],
    ) -> Observation:
        """The frame with its corrected depth, at its place."""
        distance, spread = correction.apply(self.distance, self.log_std)
        z = camera.ray_map()[..., 2]
        good = frame.use_mask & np.isfinite(spread) & np.isfinite(z)
        depth = np.where(good, distance * z, 0).astype(np.float32)
        spread = np.where(good, spread, np.inf).astype(np.float32)
        # One half where one standard deviation is a tenth of the depth.
        confidence = (1 / (1 + (spread / 0.1) ** 2)).astype(np.float32)
        frame = replace(frame, camera=camera)
        return Observation(frame, depth, confidence, spread, world_from_cam, segment, is_keyframe, figures)


def fit_correction(pixels: Float, log_ratio: Float, variance: Float, width: int, height: int) -> Correction:
    """Fit the correction to landmarks at `pixels` (N, 2) with log(true / network distance) and its variance (N,)."""
    if len(pixels) == 0:
        return Correction.constant(0.0)
    noise = variance + NEAREST_NOISE**2
    scale = _weighted_median(log_ratio, 1 / (noise + ERROR_STD**2))
    target = log_ratio - scale
    basis = _basis(width, height)
    among = _covariance(pixels, basis.points, REACH * width)
    weight = np.ones(len(pixels))
    for _ in range(3):
        # Reweighting makes the Gaussian noise robust: wrong landmarks lose their say.
        scaled = among * (weight / noise)[:, None]
        factor = cho_factor(basis.prior + scaled.T @ among, lower=True, check_finite=False)
        values = cho_solve(factor, scaled.T @ target, check_finite=False)
        error = (target - among @ values) ** 2
        weight = 1 / (1 + error / (4 * noise + 0.02**2))
    mean = scale + basis.across @ values
    left = cho_solve(factor, basis.across.T, check_finite=False)
    std = np.sqrt(np.maximum(basis.unexplained + np.einsum("ij,ji->i", basis.across, left), 1e-6))
    return Correction(mean.reshape(GRID).astype(np.float32), std.reshape(GRID).astype(np.float32))


@dataclass(frozen=True)
class _Basis:
    """The inducing points (M, 2) of an image size, their covariance (M, M), that of the correction's grid with them
    (G, M), and the variance on the grid that they can't carry (G,)."""

    points: Float
    prior: Float
    across: Float
    unexplained: Float


@lru_cache(maxsize=4)
def _basis(width: int, height: int) -> _Basis:
    reach = REACH * width
    columns, rows = (int(np.ceil(side / (SPACING * reach))) + 1 for side in (width, height))
    points = _mesh(np.linspace(0, width, columns), np.linspace(0, height, rows))
    grid = _mesh((np.arange(GRID[1]) + 0.5) * width / GRID[1], (np.arange(GRID[0]) + 0.5) * height / GRID[0])
    prior = _covariance(points, points, reach) + 1e-6 * ERROR_STD**2 * np.eye(len(points))
    across = _covariance(grid, points, reach)
    explained = np.einsum("ij,ji->i", across, np.linalg.solve(prior, across.T))
    return _Basis(points, prior, across, np.maximum(ERROR_STD**2 - explained, 0))


def _mesh(x: Float, y: Float) -> Float:
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def _covariance(a: Float, b: Float, reach: float) -> Float:
    squared = (a[:, None, 0] - b[None, :, 0]) ** 2 + (a[:, None, 1] - b[None, :, 1]) ** 2
    return ERROR_STD**2 * np.exp(-0.5 * squared / reach**2)


def _weighted_median(values: Float, weights: Float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
