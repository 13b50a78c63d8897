"""Joint refinement of poses, of each key frame's depth scale and shift, of landmarks, and of the focal length.

The network's depth enters as a soft prior on each landmark's distance: log d = alpha_k + log(d_net + beta_k), with one
scale exp(alpha) and one shift beta a key frame (after FrozenRecon, Xu et al., ICCV 2023), while the images decide
wherever they can. Levenberg-Marquardt on the banded reduced system; key frames are in order of time, so that the band
is as wide as the longest track.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

from video_io.camera import Camera

Float = NDArray[np.float64]
Int = NDArray[np.int64]

_SLOPE_STEP = 1e-4
_NEXT_TO_NOTHING = 1e-6  # of a landmark's prior: a deviation of a thousand in its log distance
_LEAST_DAMPING = 1e-9  # with which a system whose scale is open can still be solved


@dataclass(frozen=True)
class Sightlines:
    """What a camera makes of pixels: those of the landmarks in their host frames (M), and the observed ones (O).

    Attributes:
        camera: with the focal length at which all of this holds.
        host_pixel, pixel: (M, 2) and (O, 2).
        ray, ray_slope: (M, 3) unit rays in the host frames, and their change with the log focal length.
        seen: (O, 3) observed unit rays.
        jacobian, jacobian_slope: (O, 2, 3) the camera's Jacobian there, and its change with the log focal length.
    """

    camera: Camera
    host_pixel: NDArray[np.float32]
    pixel: NDArray[np.float32]
    ray: Float
    ray_slope: Float
    seen: Float
    jacobian: Float
    jacobian_slope: Float

    @staticmethod
    def of(camera: Camera, host_pixel: NDArray[np.float32], pixel: NDArray[np.float32], slopes: bool) -> Sightlines:
        """Look along pixels; without `slopes` (the focal length is kept) those are zero."""
        ray, jacobian = camera.rays(host_pixel), np.ascontiguousarray(camera.jacobian(pixel))
        ray_slope, jacobian_slope = np.zeros_like(ray), np.zeros_like(jacobian)
        if slopes:
            longer, shorter = (camera.with_focal_scale(float(np.exp(step))) for step in (_SLOPE_STEP, -_SLOPE_STEP))
            ray_slope = (longer.rays(host_pixel) - shorter.rays(host_pixel)) / (2 * _SLOPE_STEP)
            change = (longer.jacobian(pixel) - shorter.jacobian(pixel)) / (2 * _SLOPE_STEP)
            jacobian_slope = np.ascontiguousarray(change)
        return Sightlines(camera, host_pixel, pixel, ray, ray_slope, camera.rays(pixel), jacobian, jacobian_slope)

    def refocused(self, step: float) -> Sightlines:
        """The same pixels seen by the camera whose log focal length is `step` longer."""
        camera = self.camera.with_focal_scale(float(np.exp(step)))
        return Sightlines.of(camera, self.host_pixel, self.pixel, True)


@dataclass(frozen=True)
class Problem:
    """Everything the refinement may move, and what it has to fit. F frames, M landmarks, O observations.

    Attributes:
        rotation, centre: (F, 3, 3) and (F, 3), world_from_cam.
        alpha, beta: (F,) log scale and shift of the frame's network depth; used where the frame hosts landmarks.
        fixed: (F,) bool, poses that stay.
        host: (M,) frame in which the landmark's ray is given.
        sight: rays of the landmarks and of the observations.
        log_d: (M,) log distance along the ray.
        prior, prior_weight: (M,) the network's log distance and the inverse variance of its error; weight 0: none.
        start: (M + 1,) observations of landmark m are start[m] .. start[m + 1].
        frame: (O,) the observing frame.
        anchored: whether the first host's log scale is held at `anchor`, give or take `anchor_std`; it fixes the unit
            where no pose but one is fixed.
        log_focal: log of the camera's focal length over the mean of its prior.
        log_focal_std: standard deviation of that prior; 0 keeps the focal length.
    """

    rotation: Float
    centre: Float
    alpha: Float
    beta: Float
    fixed: NDArray[np.bool_]
    host: Int
    sight: Sightlines
    log_d: Float
    prior: Float
    prior_weight: Float
    start: Int
    frame: Int
    robust_px: float = 1.0
    scale_drift_std: float = 0.1
    shift_std: float = 0.1
    anchored: bool = False
    anchor: float = 0.0
    anchor_std: float = 0.01
    log_focal: float = 0.0
    log_focal_std: float = 0.0


@dataclass(frozen=True)
class Adjusted:
    """What came out: the moved problem, each observation's residual in pixels, each landmark's information on its log
    distance from the images alone (inverse variance, 1 px noise), costs before and after, and the focal length's
    standard deviation (log; infinite where it was kept)."""

    problem: Problem
    residual_px: Float
    information: Float
    first_cost: float
    last_cost: float
    log_focal_std: float


def adjust(problem: Problem, iterations: int = 10, tolerance: float = 1e-4) -> Adjusted:
    """Move everything that is not fixed to the robust least-squares optimum near where it is."""
    p = problem
    layout = _layout(p)
    residual = np.zeros(len(p.frame))
    best = first = _cost(p, layout, residual)
    damping, focal_std = 1e-4, np.inf
    information = np.zeros(len(p.host))
    for _ in range(iterations):
        system = _System(p, layout, damping)
        information = system.landmark_hessian / (1 + damping) - p.prior_weight
        moved, focal_std = system.step(p, layout, damping)
        trial = _cost(moved, layout, residual)
        if trial < best:
            gain, best, p = (best - trial) / best, trial, moved
            damping = max(damping / 5, 1e-8)
            if gain < tolerance:
                break
        else:
            damping *= 10
            if damping > 1e3:
                break
    _cost(p, layout, residual)
    return Adjusted(p, residual, np.maximum(information, 0), first, best, focal_std)


def focal_std(problem: Problem) -> float:
    """Standard deviation of the log focal length by the images and its own prior alone, for 1 px of noise.

    The network's depth is not counted: its errors are alike over an image, so that thousands of landmarks which agree
    with it prove nothing; and where the camera goes straight on, a wrong focal length is a bent depth and nothing else.
    Nor, to speak of, is the damping of the search, which stiffens just the directions that the images leave open.
    """
    p = replace(problem, prior_weight=np.full(len(problem.host), _NEXT_TO_NOTHING))
    layout = _layout(p)
    try:
        return _System(p, layout, _LEAST_DAMPING).step(p, layout, _LEAST_DAMPING)[1]
    except np.linalg.LinAlgError:  # no positive definite system: all is open
        return p.log_focal_std


@dataclass(frozen=True)
class _Layout:
    """Where each frame's pose (6) and depth (2) parameters lie (-1: none), how many there are, the band's width, and
    the frames that host landmarks with a depth prior."""

    pose_at: Int
    depth_at: Int
    size: int
    width: int
    hosts: Int


def _layout(p: Problem) -> _Layout:
    frames = len(p.centre)
    is_host = np.zeros(frames, bool)
    is_host[p.host[p.prior_weight > 0]] = True
    # In order of time, each frame's pose and then its depth, so that what shares a landmark lies close together.
    end = np.cumsum(6 * ~p.fixed + 2 * is_host)
    begin = end - (6 * ~p.fixed + 2 * is_host)
    pose_at = np.where(p.fixed, -1, begin)
    depth_at = np.where(is_host, end - 2, -1)
    low, high = p.host.copy(), p.host.copy()
    landmark = np.repeat(np.arange(len(p.host)), np.diff(p.start))
    np.minimum.at(low, landmark, p.frame)
    np.maximum.at(high, landmark, p.frame)
    hosts = np.flatnonzero(is_host)
    spans = [0, *(end[high] - begin[low]), *(end[hosts[1:]] - begin[hosts[:-1]])]
    return _Layout(pose_at, depth_at, int(end[-1]), int(max(spans)), hosts)


def _cost(p: Problem, layout: _Layout, residual: Float) -> float:
    from endorecon.tracking.kernels import cost

    s = p.sight
    total = cost(
        p.rotation, p.centre, p.host, s.ray, p.log_d, p.start, p.frame, s.seen, s.jacobian, p.robust_px,
        p.prior, p.prior_weight, p.alpha, p.beta, residual,
    )  # fmt: skip
    # The kernel's robust costs behave as squares near zero; the priors below are squares throughout.
    hosts = layout.hosts
    total += float((np.diff(p.alpha[hosts]) ** 2).sum()) / p.scale_drift_std**2
    total += float((p.beta[hosts] ** 2).sum()) / _shift_std(p) ** 2
    if p.anchored and len(hosts):
        total += ((float(p.alpha[hosts[0]]) - p.anchor) / p.anchor_std) ** 2
    if p.log_focal_std > 0:
        total += (p.log_focal / p.log_focal_std) ** 2
    return float(total)


def _shift_std(p: Problem) -> float:
    return p.shift_std * float(np.exp(np.median(p.prior))) if len(p.prior) else 1.0


class _System:
    """The reduced normal equations at one point."""

    def __init__(self, p: Problem, layout: _Layout, damping: float) -> None:
        from endorecon.tracking.kernels import linearise

        landmarks, observations = len(p.host), len(p.frame)
        size = layout.size
        self.band, self.gradient, self.border = np.zeros((layout.width, size)), np.zeros(size), np.zeros(size)
        self.corner = np.zeros(2)
        self.coupling = np.zeros(6 * observations + 9 * landmarks)
        self.coupling_at = np.zeros(len(self.coupling), np.int64)
        self.landmark_hessian, self.landmark_gradient = np.zeros(landmarks), np.zeros(landmarks)
        s = p.sight
        linearise(
            p.rotation, p.centre, p.host, s.ray, s.ray_slope, p.log_d, p.start, p.frame, s.seen, s.jacobian,
            s.jacobian_slope, p.robust_px, p.prior, p.prior_weight, p.alpha, p.beta, layout.pose_at, layout.depth_at,
            damping, self.band, self.gradient, self.border, self.corner, self.coupling, self.coupling_at,
            self.landmark_hessian, self.landmark_gradient,
        )  # fmt: skip
        self._priors(p, layout)

    def _priors(self, p: Problem, layout: _Layout) -> None:
        """The network's scale changes slowly; its shift is small; the first scale fixes the unit."""
        at, hosts = layout.depth_at[layout.hosts], layout.hosts
        shift, drift = 1 / _shift_std(p) ** 2, 1 / p.scale_drift_std**2
        self.band[0, at + 1] += shift
        self.gradient[at + 1] += shift * p.beta[hosts]
        step = np.diff(p.alpha[hosts])
        self.band[0, at[:-1]] += drift
        self.band[0, at[1:]] += drift
        self.band[at[1:] - at[:-1], at[:-1]] -= drift
        self.gradient[at[:-1]] -= drift * step
        self.gradient[at[1:]] += drift * step
        if p.anchored and len(hosts):
            held = 1 / p.anchor_std**2
            self.band[0, at[0]] += held
            self.gradient[at[0]] += held * (p.alpha[hosts[0]] - p.anchor)

    def step(self, p: Problem, layout: _Layout, damping: float) -> tuple[Problem, float]:
        from endorecon.tracking.kernels import back_substitute, turn

        band = self.band.copy()
        band[0] = band[0] * (1 + damping) + 1e-9
        focal_std, focal_step = np.inf, 0.0
        if p.log_focal_std > 0:
            solved = solveh_banded(band, np.stack([self.gradient, self.border], 1), lower=True, check_finite=False)
            weight = 1 / p.log_focal_std**2
            left = self.corner[0] + weight - self.border @ solved[:, 1]
            right = self.corner[1] + weight * p.log_focal - self.border @ solved[:, 0]
            focal_std = float(1 / np.sqrt(max(left, 1e-12)))
            focal_step = float(-right / max(left * (1 + damping), 1e-12))
            delta = -solved[:, 0] - solved[:, 1] * focal_step
        else:
            delta = -solveh_banded(band, self.gradient, lower=True, check_finite=False)
        change = np.zeros(len(p.host))
        back_substitute(
            delta, focal_step, p.start, self.coupling, self.coupling_at,
            self.landmark_hessian, self.landmark_gradient, change,
        )  # fmt: skip
        rotation, centre, alpha, beta = p.rotation.copy(), p.centre.copy(), p.alpha.copy(), p.beta.copy()
        for f in np.flatnonzero(layout.pose_at >= 0):
            at = layout.pose_at[f]
            turn(rotation[f], delta[at : at + 3])
            centre[f] += delta[at + 3 : at + 6]
        alpha[layout.hosts] += delta[layout.depth_at[layout.hosts]]
        beta[layout.hosts] += delta[layout.depth_at[layout.hosts] + 1]
        log_d = p.log_d + np.clip(change, -1.0, 1.0)
        moved = replace(
            p, rotation=rotation, centre=centre, alpha=alpha, beta=beta, log_d=log_d,
            sight=p.sight.refocused(focal_step) if focal_step else p.sight, log_focal=p.log_focal + focal_step,
        )  # fmt: skip
        return moved, focal_std
