"""Tissue that moves: a displacement of the anatomy's points in time, known everywhere.

    breathe   a wide part of the surface heaves and slides, once in three seconds
    pull      a small part is drawn out and aside as by a grasper, and let go, once in two seconds
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
MotionName = Literal["none", "breathe", "pull"]
NAMES = ("none", "breathe", "pull")
# Shares of the viewing distance: width of the part that moves, how far out of the surface and how far along it.
_SIZES = {"breathe": (0.6, 0.07, 0.03), "pull": (0.16, 0.06, 0.07)}
_PERIOD_S = {"breathe": 3.0, "pull": 2.0}


@dataclass(frozen=True)
class Motion:
    """u(x, t) = reach (1 - cos(2 pi t / period)) / 2 exp(-|x - centre|^2 / 2 width^2).

    Attributes:
        centre: (3,) of the part that moves, at rest. width_mm: its standard deviation.
        reach_mm: (3,) the largest displacement.
        period_s: from rest to rest.
    """

    centre: Float
    width_mm: float
    reach_mm: Float
    period_s: float

    def moved(self, points: NDArray[np.floating], time_s: float) -> Float:
        """Where points (..., 3) of the anatomy at rest are at a time."""
        square = ((points - self.centre) ** 2).sum(-1, keepdims=True)
        phase = 0.5 - 0.5 * np.cos(2 * np.pi * time_s / self.period_s)
        return points + phase * np.exp(-0.5 * square / self.width_mm**2) * self.reach_mm


def motion(name: MotionName, centre: Float, normal: Float, distance_mm: float, rng: np.random.Generator) -> Motion:
    """A motion of this kind about a point of the surface, seen from `distance_mm`; to the side it goes at random.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in _SIZES:
        raise ValueError(f"motion '{name}' is not known; there are {', '.join(NAMES)}")
    width, out, aside = (share * distance_mm for share in _SIZES[name])
    side = np.cross(normal, rng.normal(size=3))
    reach = out * normal + aside * side / np.linalg.norm(side)
    return Motion(centre, width, reach, _PERIOD_S[name])
