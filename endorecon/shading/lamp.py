"""What the lamp beside the lens makes of a surface's brightness, in logarithms, as far as a clip shows it.

    log I = log albedo + exposure of the frame + c log cos(n, l) - f log d + profile(ray)

of a surface point at distance d from the lamp, to which l points, with normal n. For a Lambert surface, a point lamp
and a camera of gamma g, c = 1 / g and f = 2 / g; light that walls throw on each other makes both smaller. They and
the profile (the beam's and the lens's fall-off to the side) are fitted to how the brightness of the same places changes
from frame to frame: each place's albedo, whatever it is, drops out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
PROFILE = 4  # terms
LEAST_COSINE = 0.1
_TERMS = 2 + PROFILE
# What is usual, and how sure that is, of: falloff (two over gamma, less by what walls throw on each other), cosine less
# half of it, and the profile. So many observations say no more than one: what the model lacks is the same for many.
USUAL_FALLOFF, FALLOFF_STD, COSINE_STD, PROFILE_STD = 0.9, 0.3, 0.1, 0.5
CORRELATED = 300.0
_ROUNDS = 6
_SPREAD = 0.05  # of the log brightness, from where a place counts less


class Shading(NamedTuple):
    """The log brightness that the lamp gives to N points, and how it changes with them."""

    value: Float  # (N,)
    by_height: Float  # (N,) a unit along the normal
    by_slope: Float  # (N, 3) as the surface tilts: a scalar product with the gradient of the height


@dataclass(frozen=True)
class Lamp:
    """A lamp fixed to the camera.

    Attributes:
        cosine, falloff: the exponents c and f above.
        profile: (PROFILE,) of the direction: 1 - cos of the angle from the axis, its square, x and y.
        position: (3,) in the camera frame, in the unit of the scene.
        explained: share of the changes of brightness, beyond each frame's exposure, that it explains.
    """

    cosine: float = 0.0
    falloff: float = 0.0
    profile: tuple[float, ...] = (0.0,) * PROFILE
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    explained: float = 0.0

    def packed(self) -> Float:
        """Cosine, fall-off, profile and position, as the kernels take them."""
        return np.array([self.cosine, self.falloff, *self.profile, *self.position])

    def shade(self, points: Float, normals: Float) -> Shading:
        """Of points (N, 3) and unit normals (N, 3) in the camera frame."""
        way = np.asarray(self.position) - points
        d = np.linalg.norm(way, axis=1)
        way = way / d[:, None]
        cosine = np.maximum((way * normals).sum(1), LEAST_COSINE)
        profile = profile_terms(points) @ np.asarray(self.profile)
        value = self.cosine * np.log(cosine) - self.falloff * np.log(d) + profile
        by_height = (self.falloff * cosine - self.cosine * (1 - cosine**2) / cosine) / d
        across = way - (way * normals).sum(1, keepdims=True) * normals
        return Shading(value, by_height, -self.cosine * across / cosine[:, None])


def profile_terms(points: Float) -> Float:
    """(N, PROFILE) of the directions of points (N, 3) in the camera frame."""
    ray = points / np.linalg.norm(points, axis=1, keepdims=True)
    side = 1 - ray[:, 2]
    return np.stack([side, side**2, ray[:, 0], ray[:, 1]], -1)


def features(points: Float, normals: Float, position: Float) -> Float:
    """(N, 2 + PROFILE): what the log brightness of points in the camera frame is a weighted sum of."""
    way = position - points
    d = np.linalg.norm(way, axis=1)
    cosine = np.maximum((way * normals).sum(1) / d, LEAST_COSINE)
    return np.concatenate([np.log(cosine)[:, None], -np.log(d)[:, None], profile_terms(points)], 1)


def fit_lamp(brightness: Float, terms: Float, weights: Float) -> Lamp:
    """The lamp that explains best how the brightness of places changes between frames.

    Args:
        brightness: (F, S) log brightness of S places in F frames.
        terms: (F, S, 2 + PROFILE) from `features`.
        weights: (F, S) inverse variances; 0 where a place is not seen.
    """
    robust = weights
    found, exposure = np.zeros(_TERMS), np.zeros(len(brightness))
    for _ in range(_ROUNDS):
        found, exposure = _solve(brightness, terms, robust)
        left = _without_albedo(brightness - terms @ found - exposure[:, None], robust)
        robust = weights / (1 + (left / _SPREAD) ** 2)
    _, alone = _solve(brightness, terms[..., :0], robust)
    before = _without_albedo(brightness - alone[:, None], robust)
    after = _without_albedo(brightness - terms @ found - exposure[:, None], robust)
    explained = 1 - float((robust * after**2).sum() / max((robust * before**2).sum(), 1e-30))
    return Lamp(float(found[0]), float(found[1]), tuple(found[2:].tolist()), explained=explained)


def _usual() -> tuple[Float, Float]:
    """The matrix and the right side of what is usual."""
    rows = np.zeros((_TERMS, _TERMS))
    rows[0, :2] = np.array([1, -0.5]) / COSINE_STD
    rows[1, 1] = 1 / FALLOFF_STD
    rows[2:, 2:] = np.eye(PROFILE) / PROFILE_STD
    right = np.zeros(_TERMS)
    right[1] = USUAL_FALLOFF / FALLOFF_STD
    return rows.T @ rows, rows.T @ right


def _without_albedo(values: Float, weights: Float) -> Float:
    """Values (F, S) less the weighted mean of each place."""
    return values - (weights * values).sum(0) / np.maximum(weights.sum(0), 1e-30)


def _solve(brightness: Float, terms: Float, weights: Float) -> tuple[Float, Float]:
    """Weighted least squares for the terms' factors and each frame's exposure, with the albedo of each place eliminated
    (its weighted mean is taken out of all columns)."""
    count, known = len(brightness), terms.shape[2]
    total = np.maximum(weights.sum(0), 1e-30)
    weighted = weights[..., None] * terms
    sums = weighted.sum(0)
    top = np.einsum("fsk,fsl->kl", weighted, terms) - (sums / total[:, None]).T @ sums
    cross = weighted.sum(1).T - (sums / total[:, None]).T @ weights.T
    frames = np.diag(weights.sum(1)) - (weights / total) @ weights.T
    means = (weights * brightness).sum(0) / total
    right = np.concatenate([
        np.einsum("fsk,fs->k", weighted, brightness) - sums.T @ means,
        (weights * brightness).sum(1) - weights @ means,
    ])  # fmt: skip
    if known:
        prior, wanted = _usual()
        top, right[:known] = top + CORRELATED * prior, right[:known] + CORRELATED * wanted
    matrix = np.block([[top, cross], [cross.T, frames]])
    # all exposures may grow if all albedos fall: the smallest solution is as good as any
    solution = np.linalg.lstsq(matrix, right, rcond=1e-10)[0]
    return solution[:known], solution[known : known + count]
