"""The intrinsics of one clip, learned from its images by the reprojection loss, where no camera is given.

EndoDAC (Cui et al. 2024) lets a network say focal lengths and principal point and trains it by the loss of warped
images. A clip has one camera, so here they are four numbers of the clip, and least squares takes the place of gradient
steps: what is the same in the images of two frames is brought together by the camera, the poses of all frames, and the
shape of each depth map, on which only a coarse grid is free (as in FrozenRecon, Xu et al. 2023). The curvature of the
loss then tells what the images say of the camera, and what they do not.

Depth is held along z: where the camera only slides or goes straight on, each focal length then has a scene that fits
exactly, and the curvature says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foundation_adapters.recordings import Recording
from video_io.camera import Camera

Float = NDArray[np.float64]

FRAMES, NEAR = 16, (1, 2, 4)
ITERATIONS = 12
# Nodes of the grid on a depth map's logarithm, and how far they are moved, as far as is known beforehand.
GRID, GRID_STD = (5, 6), 0.1
# Neighbouring pixels err alike, which least squares does not know: true over stated errors on eight phantom clips.
OVERCONFIDENCE = 4.0
# What was known of the focal length before has to be at least this much surer afterwards.
_SURER = 0.8
# What is known of a clip's camera: nearly square pixels, the principal point near the middle (shares of the sides).
ASPECT_STD, CENTRE_STD = 0.005, 0.02
_SCATTER = 0.5  # of evened images, whose own deviation is 1, between frames
_WINDOW = 15  # over which brightness and contrast are taken out
_LEAST_PIXELS, _MOST_PIXELS = 200, 6000
_CAMERA, _TWIST = 4, 6


@dataclass(frozen=True)
class ClipCamera:
    """What the images of a clip say of its camera.

    Attributes:
        camera: a pinhole of the recording's size.
        log_focal_std: standard deviation of the log of the focal length, the images' word and what was known before.
        observable: whether the images have made the focal length surer than it was.
        centre_std: of the principal point, pixels in x and y.
        recording: with this camera, and with poses and distances that go with it.
    """

    camera: Camera
    log_focal_std: float
    observable: bool
    centre_std: tuple[float, float]
    recording: Recording


def learn_camera(recording: Recording, prior_focal_px: float, prior_log_std: float) -> ClipCamera:
    """Learn the intrinsics of a recording's clip from its images.

    Args:
        recording: what a reconstruction with a first guess has found; a pinhole.
        prior_focal_px, prior_log_std: what was known of the focal length (of the recording's pixels) before the motion
            was looked at.

    Raises:
        ValueError: the recording's camera is no pinhole.
    """
    if recording.camera.model != "pinhole":
        raise ValueError(f"the camera is a {recording.camera.model}; only a pinhole's intrinsics are learned")
    problem = _Problem(recording, prior_focal_px, prior_log_std)
    for _ in range(ITERATIONS):
        if problem.improve() < 1e-4:
            break
    return problem.found()


@dataclass
class _State:
    """log f, log aspect, principal point; poses; the logs that depth maps are changed by at the grid's nodes."""

    camera: Float
    pose: Float
    grid: Float

    def moved(self, step: Float) -> _State:
        n, g = len(self.pose), self.grid.shape[1]
        own = step[_CAMERA:].reshape(n, _TWIST + g)
        pose = self.pose.copy()
        pose[:, :3, 3] += np.einsum("nij,nj->ni", pose[:, :3, :3], own[:, :3])
        pose[:, :3, :3] = pose[:, :3, :3] @ Rotation.from_rotvec(own[:, 3:6]).as_matrix()
        return _State(self.camera + step[:_CAMERA], pose, self.grid + own[:, _TWIST:])


class _Problem:
    """Least squares over pairs of frames."""

    def __init__(self, recording: Recording, prior_focal_px: float, prior_log_std: float):
        self.recording = recording
        self.numbers = np.unique(np.linspace(0, len(recording) - 1, min(FRAMES, len(recording))).round().astype(int))
        n, (height, width) = len(self.numbers), recording.distance.shape[1:]
        self.size = np.array([recording.camera.width, recording.camera.height], float)
        fx, fy, cx, cy = recording.camera.params
        self.prior_mean = np.array([np.log(prior_focal_px), np.log(fx / fy), cx, cy])
        self.prior_std = np.array([prior_log_std, ASPECT_STD, *(CENTRE_STD * self.size)])
        # Every second pixel of the maps or fewer, whose pixels are two of the image's wide.
        stride = max(2, int(np.ceil(np.sqrt(height * width / _MOST_PIXELS))))
        v, u = np.mgrid[0:height:stride, 0:width:stride].reshape(2, -1)
        self.pixels = np.stack([2.0 * u + 1, 2.0 * v + 1], 1)
        self.weights = _bilinear(self.pixels / self.size)
        rays = recording.camera.rays(self.pixels)[:, 2]
        distance = recording.distance[self.numbers][:, v, u]
        known = (distance > 0) & (recording.confidence[self.numbers][:, v, u] > 0.2)
        self.z = np.where(known, distance, 1) * rays
        self.typical = float(np.median(self.z[known])) if known.any() else 1.0
        looks = [_evened(recording.rgb[k], recording.mask[k]) for k in self.numbers]
        self.looks = [np.dstack([a, *_gradient(a), m]) for a, m in looks]
        self.own = np.stack([_sampled(look, self.pixels) for look in self.looks])
        self.good = known & (self.own[..., 3] > 0.99)
        focal = np.log(np.sqrt(fx * fy))
        self.state = _State(
            np.array([focal, *self.prior_mean[1:]]),
            recording.world_from_cam[self.numbers].astype(float).copy(),
            np.zeros((n, GRID[0] * GRID[1])),
        )
        self.pairs = [(t, s) for t in range(n) for d in NEAR for s in (t - d, t + d) if 0 <= s < n]
        self.damping, self.cost = 1e-3, np.inf

    # One step. -------------------------------------------------------------------------------------------------------

    def improve(self) -> float:
        """A step of Levenberg and Marquardt; returns by how much the camera has moved, in its prior deviations."""
        hessian, gradient, cost = self.normal(self.state, GRID_STD)
        for _ in range(4):
            damped = hessian + self.damping * np.diag(np.diag(hessian))
            step = -np.linalg.solve(damped, gradient)
            new = self.state.moved(step)
            after = self.normal(new, GRID_STD, only_cost=True)[2]
            if after < cost:
                self.state, self.damping = new, self.damping / 5
                return float(np.abs(step[:_CAMERA] / self.prior_std).max())
            self.damping *= 10
        return 0.0

    def normal(
        self, state: _State, grid_std: float, only_cost: bool = False, trust: float = 1.0
    ) -> tuple[Float, Float, float]:
        """Hessian (of Gauss and Newton), gradient and cost: the images', weighed by `trust`, and what was known."""
        n, own = len(state.pose), _TWIST + state.grid.shape[1]
        count = _CAMERA + n * own
        hessian, gradient, cost = np.zeros((count, count)), np.zeros(count), 0.0
        for target, source in self.pairs:
            found = self.residuals(state, target, source, only_cost)
            if found is None:
                continue
            residual, slope = found
            weight, loss = _robust(residual)
            cost += trust * loss
            if only_cost:
                continue
            at = np.r_[
                0:_CAMERA, _CAMERA + target * own : _CAMERA + (target + 1) * own,
                _CAMERA + source * own : _CAMERA + source * own + _TWIST,
            ]  # fmt: skip
            weighted = slope * (trust * weight[:, None])
            hessian[np.ix_(at, at)] += weighted.T @ slope
            gradient[at] += weighted.T @ residual
        mean, precision = self.known_before(state, grid_std)
        cost += 0.5 * float((precision * mean**2).sum())
        hessian[np.diag_indices(count)] += precision
        return hessian, gradient + precision * mean, cost

    def known_before(self, state: _State, grid_std: float) -> tuple[Float, Float]:
        """What is known without the images: how far each number is from it, and its precision."""
        n, g = state.grid.shape
        off = np.zeros((n, _TWIST + g))
        precision = np.zeros((n, _TWIST + g))
        off[:, _TWIST:], precision[:, _TWIST:] = state.grid, grid_std**-2
        # The world is the first frame's; the others' poses are free, but not without bounds.
        precision[:, :3], precision[:, 3:_TWIST] = (0.5 * self.typical) ** -2, 0.5**-2
        precision[0, :_TWIST] *= 1e8
        camera = state.camera - self.prior_mean
        return np.r_[camera, off.ravel()], np.r_[self.prior_std**-2, precision.ravel()]

    def residuals(self, state: _State, target: int, source: int, only: bool) -> tuple[Float, Float | None] | None:
        """Differences of a target's pixels and what the source shows there, and their slopes by the camera, the
        target's pose and grid, and the source's pose; None where too few are seen."""
        fx, fy, cx, cy = _params(state.camera)
        good = self.good[target]
        pixels, weights = self.pixels[good], self.weights[good]
        z = self.z[target][good] * np.exp(weights @ state.grid[target])
        x = np.stack([(pixels[:, 0] - cx) / fx * z, (pixels[:, 1] - cy) / fy * z, z], 1)
        source_from_target = np.linalg.inv(state.pose[source]) @ state.pose[target]
        turn = source_from_target[:3, :3]
        p = x @ turn.T + source_from_target[:3, 3]
        deep = np.maximum(p[:, 2], 1e-3 * self.typical)
        uv = np.stack([fx * p[:, 0] / deep + cx, fy * p[:, 1] / deep + cy], 1)
        inside = (p[:, 2] > 1e-2 * self.typical) & (uv > 2).all(1) & (uv < self.size - 2).all(1)
        seen = _sampled(self.looks[source], np.where(inside[:, None], uv, 0))
        keep = inside & (seen[:, 3] > 0.99)
        if keep.sum() < _LEAST_PIXELS:
            return None
        residual = seen[keep, 0] - self.own[target][good][keep, 0]
        if only:
            return residual, None
        x, p, uv, z, weights = x[keep], p[keep], uv[keep], z[keep], weights[keep]
        # Half of the source's and half of the target's gradient: second order (ESM, Benhimane and Malis 2004).
        image = 0.5 * (seen[keep, 1:3] + self.own[target][good][keep, 1:3])
        by_p = np.stack(
            [
                image[:, 0] * fx / p[:, 2], image[:, 1] * fy / p[:, 2],
                -(image[:, 0] * fx * p[:, 0] + image[:, 1] * fy * p[:, 1]) / p[:, 2] ** 2,
            ], 1,
        )  # fmt: skip
        by_x = by_p @ turn
        # log f, half of the log aspect to each side, principal point: by the source's projection and the target's rays.
        own = image * (uv - [cx, cy])
        rays = by_x[:, :2] * x[:, :2]
        apart = own - rays
        by_centre = image - by_x[:, :2] * z[:, None] / [fx, fy]
        camera = np.column_stack([apart.sum(1), 0.5 * (apart[:, 0] - apart[:, 1]), by_centre])
        of_target = np.hstack([by_x, np.cross(x, by_x), (by_x * x).sum(1)[:, None] * weights])
        of_source = np.hstack([-by_p, -np.cross(p, by_p)])
        return residual, np.hstack([camera, of_target, of_source])

    # What came of it. ------------------------------------------------------------------------------------------------

    def found(self) -> ClipCamera:
        std = self.deviations()
        fx, fy, cx, cy = _params(self.state.camera)
        camera = Camera.pinhole(int(self.size[0]), int(self.size[1]), fx, fy, cx, cy)
        observable = bool(std[0] < _SURER * self.prior_std[0])
        return ClipCamera(camera, float(std[0]), observable, (float(std[2]), float(std[3])), self.changed(camera))

    def deviations(self) -> Float:
        """Of the camera's four numbers, with every shape of the coarse grid allowed: the network's depth, whose errors
        are alike over an image, proves nothing."""
        hessian, _, _ = self.normal(self.state, 1.0, trust=OVERCONFIDENCE**-2)
        return np.sqrt(np.diag(np.linalg.inv(hessian))[:_CAMERA])

    def changed(self, camera: Camera) -> Recording:
        """The recording with the camera, and poses and distances that go with it; those of frames that were not
        looked at by those of their neighbours."""
        old, n = self.recording, len(self.recording)
        small = camera.scaled(camera.width // 2, camera.height // 2)
        was = old.camera.scaled(small.width, small.height).ray_map()[..., 2]
        h, w = was.shape
        at = (np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).reshape(-1, 2) + 0.5) / [w, h]
        weights = _bilinear(at)
        delta = np.linalg.inv(old.world_from_cam[self.numbers]) @ self.state.pose
        distance, pose = np.zeros_like(old.distance), old.world_from_cam.copy()
        for k in range(n):
            right = int(np.clip(np.searchsorted(self.numbers, k), 1, len(self.numbers) - 1))
            a, b = self.numbers[right - 1], self.numbers[right]
            share = float(np.clip((k - a) / (b - a), 0, 1))
            grid = (1 - share) * self.state.grid[right - 1] + share * self.state.grid[right]
            distance[k] = old.distance[k] * was / small.ray_map()[..., 2] * np.exp(weights @ grid).reshape(h, w)
            pose[k] = old.world_from_cam[k] @ _between(delta[right - 1], delta[right], share)
        return replace(old, camera=camera, distance=distance, world_from_cam=pose)


def _params(camera: Float) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy: focal lengths are positive whatever the numbers are."""
    log_focal, log_aspect, cx, cy = camera
    return float(np.exp(log_focal + log_aspect / 2)), float(np.exp(log_focal - log_aspect / 2)), float(cx), float(cy)


def _between(a: Float, b: Float, share: float) -> Float:
    """A small motion between two."""
    turn = (1 - share) * Rotation.from_matrix(a[:3, :3]).as_rotvec() + share * Rotation.from_matrix(
        b[:3, :3]
    ).as_rotvec()
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), (1 - share) * a[:3, 3] + share * b[:3, 3]
    return found


def _bilinear(at: Float) -> Float:
    """(N, nodes): the weights of the grid's nodes at places (N, 2) in [0, 1]."""
    rows, columns = GRID
    parts = []
    for place, count in ((at[:, 1], rows), (at[:, 0], columns)):
        parts.append(np.maximum(0, 1 - np.abs(place[:, None] * (count - 1) - np.arange(count))))
    return (parts[0][:, :, None] * parts[1][:, None, :]).reshape(len(at), -1)


def _evened(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The image without the brightness and contrast of each neighbourhood, which the moving light changes; and where
    that can be told."""
    grey = cv2.GaussianBlur(rgb[..., 1].astype(np.float32), (0, 0), 1.0)
    good = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    share = cv2.blur(good, (_WINDOW, _WINDOW)) + 1e-3
    mean = cv2.blur(grey * good, (_WINDOW, _WINDOW)) / share
    square = cv2.blur((grey - mean) ** 2 * good, (_WINDOW, _WINDOW)) / share
    return (grey - mean) / np.sqrt(square + 9.0), good


def _gradient(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """By central differences, a pixel."""
    return cv2.Scharr(image, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(image, cv2.CV_32F, 0, 1) / 32


def _sampled(image: NDArray[np.float32], pixels: Float) -> NDArray[np.float32]:
    """Channels (N, C) at pixels (N, 2), linearly; OpenCV's centre of the first pixel is 0."""
    at = (pixels - 0.5).astype(np.float32)
    return cv2.remap(image, at[:, None, 0], at[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def _robust(residual: Float) -> tuple[Float, float]:
    """Weights of residuals and their cost by Geman and McClure."""
    square = (residual / _SCATTER) ** 2
    return 1 / (_SCATTER * (1 + square)) ** 2, 0.5 * float((square / (1 + square)).sum())
