"""Where the lamp stands, by the shadows that it casts.

Beside the lens it lights a little less than the lens sees: behind folds a dark seam follows their outline, as
wide as the lamp is far aside. Brightness elsewhere hardly tells the place: the beam's axis and profile change it alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from endorecon.light.evidence import WHITE, Evidence
from endorecon.light.model import NAMES, Estimate, Parts, lit, response, summed
from endorecon.light.solver import DOUBTED, PLAIN, Data, predict
from endorecon.lighting import in_the_way
from rendering.mesh import Caster

Float = NDArray[np.float64]

MOST_ASIDE, COARSE, FINE = 0.24, 0.02, 0.004  # in median distances: how far is searched, and in which steps
AHEAD = (-0.1, -0.05, 0.0, 0.05, 0.1)  # along the view, from where brightness has it
DARK_ERROR = 0.5  # of what is predicted for a shadow: the light between surfaces is not known better there
MOST_TOLD = 6.0  # of the log likelihood, by one observation
RARE = 2.0  # log of how much rarer a shadow is than something else that the model does not have
ALIKE = 20.0  # observations that err alike: shadows are patches
LEAST_TOLD = 30.0  # of the log likelihood, for shadows to be believed: with 11, by 64 places, a lamp was .6 mm off
LEAST_SHARE = 0.3  # of what is dark that they have to explain, else it is something else
BELIEVED_STD = 0.04  # of the place as brightness has it, in median distances
AROUND, MOST_DARKER = 8, 0.5  # points whose albedo is compared, and its log
LEAST_STD = 0.004
MOST_LIT = 3000  # observations in the light that are followed


@dataclass(frozen=True)
class Place:
    """The lamp's place in the camera frame, in median distances; `told` is the log likelihood over no shadows."""

    mean: Float
    std: Float
    told: float


def place_by_shadows(
    caster: Caster, evidence: Evidence, data: Data, at: Estimate, parts: Parts, fitted: Float
) -> Place | None:
    """The place whose shadows fit best; None where there are too few to tell.

    Args:
        caster: of the surface.
        evidence: observations beside jumps of depth, of any points.
        data: the same, with light between surfaces where that is in the model.
        at: the estimate, of albedos elsewhere.
        fitted: (M, 3) points that these are of.
    """
    at = with_albedo(evidence, data, at, fitted)
    eye, rotation = evidence.poses[evidence.frame, :3, 3], evidence.poses[evidence.frame, :3, :3]
    points = evidence.points[evidence.point]
    told = darker(data, at, parts)

    def shaded(place: Float, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        lamp = rotation[rows] @ (place * data.seen.unit) + eye[rows]
        return in_the_way(caster, points[rows], eye[rows], lamp)

    now = np.array([at.values[n] for n in "xyz"])
    # What lies in no shadow of lamps far aside lies in none of a nearer one.
    turns = np.exp(1j * np.pi / 4 * np.arange(8))
    everything = np.arange(len(points))
    far = [np.array([MOST_ASIDE * t.real, MOST_ASIDE * t.imag, now[2]]) for t in turns]
    some = np.flatnonzero(np.any([shaded(place, everything) for place in far], 0) & (told != 0))
    # Of those in the light a part stands for all.
    lit = some[told[some] < 0]
    rest = np.random.default_rng(0).permutation(lit)[:MOST_LIT]
    told[rest] *= len(lit) / max(len(rest), 1)
    some = np.concatenate([some[told[some] > 0], rest])

    def score(place: Float) -> float:
        # A direction in which no shadow is seen is left to brightness.
        belief = 0.5 * (((place - now) / BELIEVED_STD) ** 2).sum()
        return float(told[some[shaded(place, some)]].sum()) / ALIKE - belief

    steps = np.arange(-MOST_ASIDE, MOST_ASIDE + COARSE / 2, COARSE)
    coarse = [np.array([x, y, now[2]]) for x, y in product(steps, steps) if np.hypot(x, y) <= MOST_ASIDE]
    best = coarse[int(np.argmax([score(place) for place in coarse]))]
    near = np.arange(-2, 3) * COARSE / 2
    middle = [best + (x, y, z) for x, y, z in product(near, near, AHEAD)]
    best = middle[int(np.argmax([score(place) for place in middle]))]
    near = np.arange(-3, 4) * FINE
    fine = np.array([best + (x, y, z) for x, y, z in product(near, near, near[1:-1] * 3)])
    scores = np.array([score(place) for place in fine])
    if scores.max() < max(LEAST_TOLD, LEAST_SHARE * told[told > 0].sum() / ALIKE):
        return None
    mean, _ = _moments(fine, scores)
    along = FINE * np.arange(-20, 21)
    std = [_moments(along[:, None], np.array([score(mean + d * axis) for d in along]))[1][0] for axis in np.eye(3)]
    return Place(mean, np.maximum(std, LEAST_STD), float(scores.max()))


def _moments(places: Float, scores: Float) -> tuple[Float, Float]:
    """Mean and standard deviation (C,) of places (N, C) whose log likelihood this is."""
    weight = np.exp(scores - scores.max())
    weight /= weight.sum()
    mean = weight @ places
    return mean, np.sqrt(weight @ (places - mean) ** 2)


def with_albedo(evidence: Evidence, data: Data, at: Estimate, fitted: Float) -> Estimate:
    """The estimate with albedos of the evidence's points: the medians of what the frames say, as if nothing were in
    shadow, since most points are in few frames, as the camera goes by. So that a point that always is does not pass
    for black tissue, none is much darker than the tissue around it.
    """
    from scipy.spatial import cKDTree

    count = min(AROUND, len(fitted))
    near = cKDTree(fitted).query(evidence.points, k=count)[1].reshape(len(evidence.points), count)
    least = np.median(at.log_albedo[near], 1) - MOST_DARKER
    theta = torch.tensor([at.values[n] for n in NAMES], dtype=torch.float32)
    gain = torch.tensor(np.exp(at.log_gain), dtype=torch.float32)[data.seen.frame]
    bright, _ = lit(theta, data.seen, torch.ones(data.value.shape), PLAIN)
    radiant = response(theta).linear(torch.tensor(data.value, dtype=torch.float32), gain, data.seen.uv)
    log = torch.log(radiant.clamp_min(1e-6) / bright.clamp_min(1e-9)).numpy().astype(float)
    log[data.use == 0] = np.nan
    order = np.argsort(data.seen.point.numpy(), kind="stable")
    begins = np.searchsorted(data.seen.point.numpy()[order], np.arange(data.seen.counts[0] + 1))
    albedo = np.zeros((data.seen.counts[0], 3))
    for point in range(data.seen.counts[0]):
        own = log[order[begins[point] : begins[point + 1]]]
        for c in range(3):
            known = own[np.isfinite(own[:, c]), c]
            albedo[point, c] = np.median(known) if len(known) else least[point, c]
    return replace(at, log_albedo=np.maximum(albedo, least))


def darker(data: Data, at: Estimate, parts: Parts) -> Float:
    """(K,): how much likelier each observation is in shadow than in the light, as a log of the ratio; 0 where nothing
    is told."""
    bright, dark = predict(data, at, parts), in_shadow(data, at)
    use = data.use > 0

    def likelihood(shown: Float, sigma: Float) -> Float:
        square = ((data.value - shown) / sigma) ** 2
        return -np.log(sigma) - 0.5 * DOUBTED**2 * np.log1p(square / DOUBTED**2)

    apart = likelihood(dark, np.hypot(data.sigma, DARK_ERROR * dark)) - likelihood(np.minimum(bright, 1), data.sigma)
    # The wide belief in what is dark would take anything that the model has wrong; half way it is shadow.
    apart = np.where(data.value < 0.5 * (bright + dark), apart, np.minimum(apart, 0))
    each = np.where(use, apart, 0).sum(1) / np.maximum(use.sum(1), 1)
    return np.where(use.any(1), np.clip(each, -MOST_TOLD, MOST_TOLD) - RARE, 0)


def in_shadow(data: Data, at: Estimate) -> Float:
    """(K, 3) displayed values of the observations, were the lamp hidden: light between surfaces alone."""
    theta = torch.tensor([at.values[n] for n in NAMES], dtype=torch.float32)
    if data.seen.indirect is None:
        return np.zeros_like(data.value)
    albedo = torch.tensor(np.exp(at.log_albedo), dtype=torch.float32)[data.seen.point]
    bent = summed(data.seen.indirect, torch.exp(theta[NAMES.index("log_scale")]), data.seen.walls)
    gain = torch.tensor(np.exp(at.log_gain), dtype=torch.float32)[data.seen.frame]
    return response(theta).displayed(albedo / np.pi * bent, gain, data.seen.uv).numpy().astype(float)


def shadow_data(data: Data, channels: Sequence[int]) -> Data:
    """All values of the given channels that are not clipped count, however dark."""
    return replace(data, use=((data.value < WHITE) & np.isin(np.arange(3), list(channels))).astype(float))
