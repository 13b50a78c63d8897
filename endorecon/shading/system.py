"""The quadratic model of what all views say of the heights of a surface's vertices, and its minimum.

Each vertex may move by h along its normal. What a view sees of it then changes by J (h, slopes of h along two
tangents): the picture is met elsewhere, the lamp comes nearer, the surface tilts. The vertex's albedo is whatever fits
best; it is eliminated, and so what is left of J are differences between views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Float = NDArray[np.float64]
Index = NDArray[np.int64]
PARTS = 3  # height, and slopes along two tangents
HUBER = 1.5  # standard deviations
_ITERATIONS, _TOLERANCE = 60, 1e-2


@dataclass(frozen=True)
class Sighting:
    """What one view says of the N vertices that it sees.

    Attributes:
        at: (N,) their numbers.
        residual: (N,) log brightness less the lamp's and the frame's share.
        change: (N, PARTS) of it with the height and its slopes.
        weight: (N,) inverse variance.
        uv: (N, 2) where they are in the image.
    """

    at: Index
    residual: Float
    change: Float
    weight: Float
    uv: Float


@dataclass(frozen=True)
class Summary:
    """What all views say of each vertex, once its albedo is eliminated.

    Attributes:
        curvature: (V, PARTS, PARTS), slope: (V, PARTS) of half the sum of squares.
        albedo: (V,) mean residual; albedo_change: (V, PARTS) of it with the height and its slopes.
        views: (V,) number of views.
    """

    curvature: Float
    slope: Float
    albedo: Float
    albedo_change: Float
    views: Float


def albedos(sightings: Sequence[Sighting], count: int) -> tuple[Float, Float, Float]:
    """(V,) weighted mean of the residuals of each vertex, the weights' sum, and the number of views."""
    from endorecon.shading.kernels import add_mean

    total, sums, views = np.zeros(count), np.zeros(count), np.zeros(count)
    for s in sightings:
        add_mean(s.at, s.residual, s.weight, total, sums, views)
    return sums / np.maximum(total, 1e-30), total, views


def summed(sightings: Sequence[Sighting], albedo: Float, least_views: int) -> Summary:
    """Sum over views with robust weights about the albedo (V,); a vertex with fewer than `least_views` says nothing."""
    from endorecon.shading.kernels import accumulate

    count = len(albedo)
    total, views = np.zeros(count), np.zeros(count)
    mean, change = np.zeros(count), np.zeros((count, PARTS))
    curvature, slope = np.zeros((count, PARTS, PARTS)), np.zeros((count, PARTS))
    for s in sightings:
        sums = (total, views, mean, change, curvature, slope)
        accumulate(s.at, s.residual, s.change, s.weight, albedo, HUBER, *sums)
    inverse = 1 / np.maximum(total, 1e-30)
    mean, change = mean * inverse, change * inverse[:, None]
    curvature -= total[:, None, None] * change[:, :, None] * change[:, None, :]
    slope -= total[:, None] * change * mean[:, None]
    enough = views >= least_views
    return Summary(curvature * enough[:, None, None], slope * enough[:, None], mean, change * enough[:, None], views)


def minimum(parts: Sequence[csr_array], curvature: Float, slope: Float, beside: csr_array, stiffness: Float) -> Float:
    """The heights (V,) at which the sum of all vertices' quadratic models, and of stiffness (beside h)^2, is least.

    Args:
        parts: (V, V) from the heights to their slopes along the two tangents.
        curvature, slope: (V, PARTS, PARTS) and (V, PARTS) of the models.
        beside: (V, V) from the heights to how far each lies beside its neighbours; stiffness (V,).
    """
    from scipy.sparse.linalg import LinearOperator, cg

    count, (across, along) = len(slope), parts
    across_t, along_t, beside_t = across.T.tocsr(), along.T.tocsr(), beside.T.tocsr()

    def back(told: Float) -> Float:
        return told[:, 0] + across_t @ told[:, 1] + along_t @ told[:, 2]

    def apply(h: Float) -> Float:
        values = np.stack([h, across @ h, along @ h], -1)
        return back(np.einsum("vij,vj->vi", curvature, values)) + beside_t @ (stiffness * (beside @ h))

    diagonal = curvature[:, 0, 0] + beside_t.multiply(beside_t) @ stiffness
    for k, (part, turned) in enumerate(((across, across_t), (along, along_t)), 1):
        diagonal += turned.multiply(turned) @ curvature[:, k, k] + 2 * part.diagonal() * curvature[:, 0, k]
    diagonal = np.maximum(diagonal, 1e-12 * diagonal.max())
    system = LinearOperator((count, count), apply, dtype=np.float64)
    scaled = LinearOperator((count, count), lambda h: h / diagonal, dtype=np.float64)
    found, _ = cg(system, -back(slope), rtol=_TOLERANCE, maxiter=_ITERATIONS, M=scaled)
    return found
