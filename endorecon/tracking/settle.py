"""Given poses held against the images: do they fit, and what is their unit?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.adjust import Problem, adjust
from endorecon.tracking.calibrate import Estimates
from endorecon.tracking.given import GivenPoses
from endorecon.tracking.tracker import Tracker, TrackerSettings
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

Float = NDArray[np.float64]

FRAMES = (32, 64, 96)
LEAST_FRAMES = 4
# Landmarks whose log distance is known this well tell the unit, if there are so many.
KNOWN_STD, LEAST_KNOWN = 0.3, 30
# Poses that landmarks miss by more, in pixels of an image 320 wide, are those of another clip, time or convention, or
# of no use. On four phantom clips transposed, inverted, turned, reversed and foreign poses miss by 3.5 px or more, true
# ones by 0.2 to 0.7 px, as the tracker's own do (which are the measure where the images are bad).
MOST_PX, MOST_TIMES = 3.0, 4.0
UNIT_NOT_SEEN = (
    "the given poses move too little to tell their unit from the depth model's: depth and path may not fit together"
)
# Where the focal length is only estimated, the one that suits the poses best is sought in steps of its log.
FOCAL_STEPS = np.linspace(-0.4, 0.4, 17)


def settle(
    given: GivenPoses, frames: Iterator[Frame], estimates: Estimates, camera: Camera, focal_free: bool
) -> tuple[GivenPoses, Camera]:
    """Hold the poses against the images where the camera moves, and find their unit by triangulation.

    Args:
        given: the poses; returned as they are where the tissue is not at rest.
        frames: the clip's frames at the working size, with their camera, from the beginning.
        estimates: gives each of some consecutive frames with what the network says of its depth.
        camera: the working camera.
        focal_free: whether its focal length is only estimated; the one that suits the poses best is then taken.

    Returns:
        The poses with `log_scale` and `fit_px`, and the camera. `log_scale` stays 0 where the camera moves too little.

    Raises:
        InputError: the landmarks that can be followed contradict the poses.
    """
    fit = _fit(given, frames, estimates, camera, focal_free) if given.rigid else None
    if fit is None:
        return given, camera
    if fit.given_px > max(MOST_PX * camera.width / 320, MOST_TIMES * fit.own_px):
        raise InputError(
            f"the poses do not fit the images (median {fit.given_px:.1f} px; the images' own motion fits to "
            f"{fit.own_px:.1f} px): is it the right clip, camera-to-world, and x right, y down, z forward? Correct the "
            "poses, or leave out --poses"
        )
    given = replace(given, fit_px=fit.given_px)
    if fit.known >= LEAST_KNOWN:
        given = replace(given, log_scale=fit.log_scale)
    else:
        given = replace(given, warnings=(*given.warnings, UNIT_NOT_SEEN))
    return given.scaled(float(np.exp(-given.log_scale))) if given.free_unit else given, fit.camera


@dataclass(frozen=True)
class _Fit:
    """Median residuals in pixels with the given poses and with the tracker's own; the median log scale of the landmarks
    whose distance is known, how many those are, and the camera with which all of this holds."""

    given_px: float
    own_px: float
    log_scale: float
    known: int
    camera: Camera


def _fit(
    given: GivenPoses, frames: Iterator[Frame], estimates: Estimates, camera: Camera, focal_free: bool
) -> _Fit | None:
    """Follow landmarks until enough of them have a known distance; None where they can't be followed."""
    moving = _from_motion(given, frames)
    tracker, poses, read, fit = Tracker(camera, TrackerSettings(look=0)), {}, 0, None
    for count in FRAMES:
        more = list(islice(moving, count - read))
        if not more:
            break
        read += len(more)
        for frame, net in estimates(more):
            tracker.place(frame, net)
            pose = given.at(frame.index, frame.time_ns)
            if pose is not None and frame.index in tracker.placed:
                poses[tracker.placed[frame.index]] = pose
        fit = _compare(tracker, poses, focal_free)
        if fit is not None and fit.known >= LEAST_KNOWN:
            break
    return fit


def _from_motion(given: GivenPoses, frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames from where the camera first moves: one that stands tells neither a fit nor a unit."""
    start = given.path[0, :3, 3]
    far = 0.02 * np.linalg.norm(given.path[:, :3, 3] - start, axis=1).max()
    waiting: list[Frame] = []
    for frame in frames:
        pose = given.at(frame.index, frame.time_ns)
        if pose is None and not waiting:
            continue
        waiting = [*waiting[-8:], frame]
        if pose is not None and np.linalg.norm(pose[:3, 3] - start) >= far:
            break
    yield from waiting
    yield from frames


def _compare(tracker: Tracker, poses: dict[tuple[int, int], Float], focal_free: bool) -> _Fit | None:
    """Hold the poses, by (segment, number in its map), against the longest segment; None where it is too short."""
    segment = max(range(len(tracker.segments)), key=lambda s: len(tracker.segments[s]), default=-1)
    numbers = sorted(number for s, number in poses if s == segment)
    if len(numbers) < LEAST_FRAMES:
        return None
    problem, members, _ = tracker.segments[segment].problem(list(range(len(tracker.segments[segment]))), fixed=1)
    has = np.isin(members, numbers)
    landmark = np.repeat(np.arange(len(problem.host)), np.diff(problem.start))
    used = has[problem.frame] & has[problem.host[landmark]]
    if used.sum() < LEAST_KNOWN:
        return None
    own = float(np.median(adjust(problem).residual_px[used]))
    rotation, centre = problem.rotation.copy(), problem.centre.copy()
    for at in np.flatnonzero(has):
        pose = poses[segment, int(members[at])]
        rotation[at], centre[at] = pose[:3, :3], pose[:3, 3]
    problem = replace(problem, rotation=rotation, centre=centre)
    best: _Fit | None = None
    for step in FOCAL_STEPS if focal_free else (0.0,):
        sight = problem.sight.refocused(float(step)) if step else problem.sight
        inverse, information, residual = triangulate(replace(problem, sight=sight), used)
        known = (information > 1 / KNOWN_STD**2) & (inverse > 0)
        scale = float(np.median(-np.log(inverse[known]) - problem.prior[known])) if known.any() else 0.0
        fit = _Fit(float(np.median(residual[used])), own, scale, int(known.sum()), sight.camera)
        if best is None or fit.given_px < best.given_px:
            best = fit
    return best


def triangulate(problem: Problem, used: NDArray[np.bool_]) -> tuple[Float, Float, Float]:
    """Where landmarks lie on their rays, from the poses of the problem alone and its `used` (O,) observations.

    A landmark at inverse distance q is seen along x = u + q v, which is linear in q; robust, by reweighting.

    Returns:
        The inverse distances (M,), 0 where a landmark is not in front of the camera; the information on their log,
        for 1 px of noise (M,); the residuals (O,) in pixels.
    """
    p, count = problem, len(problem.host)
    landmark = np.repeat(np.arange(count), np.diff(p.start))
    host, turn = p.host[landmark], p.rotation[p.frame]
    u = np.einsum("oji,ojk,ok->oi", turn, p.rotation[host], p.sight.ray[landmark])
    v = np.einsum("oji,oj->oi", turn, p.centre[host] - p.centre[p.frame])
    ju, jv = (np.einsum("oij,oj->oi", p.sight.jacobian, x) for x in (u, v))
    weight = used.astype(float)
    for _ in range(12):
        top, bottom = (np.bincount(landmark, weight * (jv * x).sum(1), count) for x in (-ju, jv))
        inverse = np.maximum(top, 0) / np.maximum(bottom, 1e-300)
        x = u + inverse[landmark, None] * v
        far = np.linalg.norm(x, axis=1)
        ahead = (x * p.sight.seen).sum(1) > 0
        # A point behind the camera fits nothing: it misses by as much as the image is wide.
        residual = np.linalg.norm(ju + inverse[landmark, None] * jv, axis=1) / np.maximum(far, 1e-12)
        residual = np.where(ahead, residual, np.maximum(residual, p.sight.camera.width))
        weight = used / (1 + residual**2) / np.maximum(far, 1e-12) ** 2
    information = np.bincount(landmark, weight * (jv**2).sum(1), count) * inverse**2
    return inverse, information, residual
