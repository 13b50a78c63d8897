"""The lamps' places beside the lens, in millimetres: how the light falls off tells how far away the tissue is, in them.

With a lamp in the lens itself the brightness of a scene twice as large is the same but for the exposure. A lamp that is
known to sit some millimetres beside it lights near tissue from the side, and far tissue from ahead. That is little: the
cue is weak, and often tells nothing; then this says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.run import Run
from endorecon.scales.base import Cut, NotObservableError, ScaleEstimate, input_of, pictures, shown_frames, unit_mm
from video_io.errors import InputError
from video_io.masks import field_of_view, specular

Float = NDArray[np.float64]

FRAMES, PIXELS = 36, 500
GAMMA = 2.2
LEAST_CONFIDENCE, LEAST_COSINE = 0.3, 0.3
# Sought: lamps beside the lens by these shares of the median distance; and in how many steps.
NEAREST_SHARE, FARTHEST_SHARE, STEPS = 0.01, 1.0, 47
GROUPS = 9  # pieces of the clip, each left out once (jackknife)
# Tissue is no Lambertian surface, and the depth has errors of its own, which the clip can't tell of itself. With exact
# depth three phantom clips were off by 21, 37 and 4 % (of the log); so this is a check of other sources, and never used
# to bring a run to millimetres (scales.MOST_LOG_STD).
FLOOR_STD, MOST_STD = 0.5, 0.7
# Lamps around the lens cancel: what is left, of second order, is less than what the depth's errors do. So the middle of
# the lamps has to lie off the lens by this share of the farthest.
LEAST_MIDDLE = 0.3
LEAST_GAIN = 0.002  # of the misfit, by which the best place is better than none
_SMOOTH_PX = 2.0


@dataclass(frozen=True)
class Samples:
    """What pixels show: N of them.

    Attributes:
        frame: (N,) number of the frame, from 0.
        point, normal: (N, 3) in the camera's frame, in the run's unit; the normal faces the camera.
        at: (N, 2) in the picture, from -1 to 1.
        log_light: (N,) log of the linear brightness.
    """

    frame: NDArray[np.int64]
    point: Float
    normal: Float
    at: Float
    log_light: Float


def measure(run: Run, lamps_mm: Float) -> ScaleEstimate:
    """From the brightness of some frames.

    Args:
        run: with depth, whose input is still there.
        lamps_mm: (L, 3) the lamps' places in the camera's frame: x right, y down, z forward.

    Raises:
        InputError: no lamp, or an input that is gone.
        NotObservableError: the light does not tell the scale.
    """
    lamps = np.asarray(lamps_mm, float).reshape(-1, 3)
    _check_beside(lamps)
    found, std = scale(sampled(run), lamps)
    return ScaleEstimate(f"the light of lamps at {_places(lamps)} mm from the lens", found * (unit_mm(run) or 1.0), std)


def scale(samples: Samples, lamps_mm: Float) -> tuple[float, float]:
    """Millimetres in the samples' unit, and the standard deviation of its log.

    Raises:
        NotObservableError: the light does not tell.
    """
    _check_beside(lamps_mm)
    middle = float(np.median(np.linalg.norm(samples.point, axis=1)))
    offset = float(np.linalg.norm(lamps_mm, axis=1).max())
    # From lamps next to the lens to lamps as far beside it as the tissue is away.
    sought = np.log(offset / middle) - np.log(np.geomspace(NEAREST_SHARE, FARTHEST_SHARE, STEPS))
    misfit = misfits(samples, lamps_mm, np.exp(sought))
    best, std = _jackknife(misfit, sought)
    gain = 1 - misfit.sum(0).min() / misfit.sum(0)[0]
    if not np.isfinite(best) or std > MOST_STD or gain < LEAST_GAIN:
        why = "differs from part to part" if gain >= LEAST_GAIN and np.isfinite(best) else "fits any large scale alike"
        raise NotObservableError(
            f"the light does not tell the scale: with lamps at {_places(lamps_mm)} mm the brightness of this clip "
            f"{why}; expected lamps far beside the lens, and tissue near it"
        )
    return float(np.exp(best)), float(np.hypot(std, FLOOR_STD))


def _check_beside(lamps: Float) -> None:
    far = float(np.linalg.norm(lamps, axis=1).max()) if len(lamps) and np.isfinite(lamps).all() else 0.0
    if far < 0.05:
        raise NotObservableError(
            "the light does not tell the scale of a lamp in the lens itself; expected lamps some millimetres beside it"
        )
    if np.linalg.norm(lamps.mean(0)) < LEAST_MIDDLE * far:
        raise NotObservableError(
            f"the light does not tell the scale: lamps at {_places(lamps)} mm surround the lens, and what each tells "
            "the others take back; expected lamps on one side of it"
        )


def _places(lamps: Float) -> str:
    return ", ".join(f"({x:g}, {y:g}, {z:g})" for x, y, z in lamps)


def misfits(samples: Samples, lamps_mm: Float, mm_per_unit: Float) -> Float:
    """(GROUPS, S): how badly the brightness of each piece of the clip fits with each of S scales.

    log light = a constant a frame + a smooth function of the place in the picture (vignetting, the lamps' beam) + the
    log of the light that arrives + albedo, which is what is left and robustly made small.
    """
    x, y = samples.at.T
    basis = np.stack([x, y, x * x, x * y, y * y, (x * x + y * y) ** 2], 1)
    count = int(samples.frame.max()) + 1
    group = samples.frame * GROUPS // count
    found = np.empty((GROUPS, len(mm_per_unit)))
    scale = None
    for s, mm in enumerate(mm_per_unit):
        left = _left_over(samples, samples.log_light - np.log(arriving(samples, lamps_mm / mm)), basis, count)
        if scale is None:
            scale = 1.4826 * float(np.median(np.abs(left))) + 1e-9
        cost = np.log1p((left / scale) ** 2)
        found[:, s] = np.bincount(group, cost, GROUPS)
    return found


def arriving(samples: Samples, lamps: Float) -> Float:
    """(N,) the light that arrives from lamps (L, 3), in the run's unit: inverse square, Lambert's cosine."""
    total = np.zeros(len(samples.point))
    for lamp in lamps:
        way = lamp - samples.point
        far = np.linalg.norm(way, axis=1)
        total += np.maximum((way * samples.normal).sum(1), 0.05 * far) / far**3
    return np.maximum(total, 1e-300)


def _left_over(samples: Samples, value: Float, basis: Float, count: int) -> Float:
    """What is left of (N,) values once each frame's mean and the robust fit of the basis (N, B) are taken out."""
    weight = np.ones(len(value))
    left = value
    for _ in range(4):
        total = np.maximum(np.bincount(samples.frame, weight, count), 1e-9)

        def free(v: Float, total: Float = total, weight: Float = weight) -> Float:
            return v - (np.bincount(samples.frame, weight * v, count) / total)[samples.frame]

        own = np.stack([free(b) for b in basis.T], 1)
        mine = free(value)
        root = np.sqrt(weight)[:, None]
        solved = np.linalg.lstsq(own * root, mine * root[:, 0], rcond=None)[0]
        left = mine - own @ solved
        scale = 1.4826 * float(np.median(np.abs(left))) + 1e-9
        weight = 1 / (1 + (left / scale) ** 2)
    return left


def _jackknife(misfit: Float, sought: Float) -> tuple[float, float]:
    """The best log scale and its standard deviation, each piece left out once; infinite where it lies at an end."""
    total = misfit.sum(0)
    found = np.array([_lowest(total, sought), *(_lowest(total - own, sought) for own in misfit)])
    if not np.isfinite(found).all():
        return np.inf, np.inf
    parts = found[1:]
    return float(found[0]), float(np.sqrt((GROUPS - 1) / GROUPS * ((parts - parts.mean()) ** 2).sum()))


def _lowest(cost: Float, sought: Float) -> float:
    at = int(cost.argmin())
    if at in (0, len(cost) - 1):
        return np.inf
    a, b, c = cost[at - 1 : at + 2]
    bend = a - 2 * b + c
    return float(sought[at] + (0.5 * (a - c) / bend if bend > 0 else 0.0) * (sought[at + 1] - sought[at]))


def sampled(run: Run) -> Samples:
    """Pixels of some frames: tissue that is sure in the run, no highlight, neither black nor clipped.

    Raises:
        InputError: the input is gone, or shows too little.
    """
    assert run.camera is not None
    path, own = input_of(run), shown_frames(run)
    if not path.exists():
        raise InputError(f"the run's input '{path}' is not there any more; the light is read from its pictures")
    chosen = [own[i] for i in np.unique(np.linspace(0, len(own) - 1, min(FRAMES, len(own))).astype(int))] if own else []
    cut, rng, parts = Cut.of(run), np.random.default_rng(0), []
    rays = run.camera.ray_map().astype(np.float64)
    width, height = cut.size
    at = run.camera.pixels() / [width, height] * 2 - 1
    for number, (index, picture) in enumerate(sorted(pictures(path, chosen).items())):
        x, y, w, h = (round(v) for v in cut.crop)
        rgb = cv2.resize(picture[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)
        depth, confidence = run.depth(index)
        point = rays * (depth / np.maximum(rays[..., 2], 0.05))[..., None]
        normal = normals(point)
        linear = ((rgb / 255.0) ** GAMMA).mean(-1)
        good = (confidence > LEAST_CONFIDENCE) & (depth > 0) & (rays[..., 2] > 0.05) & field_of_view(rgb)
        good &= ~specular(rgb) & (rgb.max(-1) < 245) & (rgb.min(-1) > 8)
        toward = -(normal * rays).sum(-1)
        good &= toward > LEAST_COSINE
        pixels = np.flatnonzero(good)
        if len(pixels) < PIXELS // 5:
            continue
        pixels = rng.choice(pixels, min(PIXELS, len(pixels)), replace=False)
        flat = [a.reshape(-1, a.shape[-1])[pixels] for a in (point, normal, at)]
        parts.append((np.full(len(pixels), number), *flat, np.log(linear.reshape(-1)[pixels])))
    if len(parts) < GROUPS:
        raise NotObservableError(
            f"the light does not tell the scale: only {len(parts)} of {len(chosen)} frames show enough tissue"
        )
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    numbers = np.unique(joined[0], return_inverse=True)[1]
    return Samples(numbers, *joined[1:])


def normals(point: Float) -> Float:
    """(H, W, 3) unit normals of points (H, W, 3) in the camera's frame, towards the camera."""
    smooth = cv2.GaussianBlur(point, (0, 0), _SMOOTH_PX)
    across = cv2.Sobel(smooth, cv2.CV_64F, 1, 0)
    down = cv2.Sobel(smooth, cv2.CV_64F, 0, 1)
    n = np.cross(across, down)
    n /= np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-12)
    return np.where((n * point).sum(-1, keepdims=True) > 0, -n, n)
