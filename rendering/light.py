"""The endoscope's light: small sources near the lens, inverse square fall-off, a spot profile."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

LIGHT_COLUMNS = 11
"""position (3), axis (3), exponent, cut-off angle, radiant intensity rgb (3)."""


@dataclass(frozen=True)
class SpotLight:
    """A point source fixed to the camera.

    Its radiant intensity at an angle theta from the axis is `intensity * cos(theta * pi / 2 / cutoff_rad) ** exponent`,
    and zero beyond the cut-off.

    Attributes:
        position_mm: in the camera frame.
        axis: unit vector in the camera frame.
        exponent: how quickly the beam falls off to the side; 0 is an even beam.
        cutoff_rad: where the beam ends.
        intensity: linear rgb, on the axis.
    """

    position_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    exponent: float = 1.0
    cutoff_rad: float = math.pi / 2
    intensity: tuple[float, float, float] = (1.0, 1.0, 1.0)


def pack_lights(lights: tuple[SpotLight, ...], world_from_cam: NDArray[np.float64]) -> NDArray[np.float32]:
    """The lights in the world, one row each (L, LIGHT_COLUMNS), as the kernels take them."""
    rows = np.zeros((len(lights), LIGHT_COLUMNS), np.float32)
    rotation, centre = world_from_cam[:3, :3], world_from_cam[:3, 3]
    for row, light in zip(rows, lights, strict=True):
        row[0:3] = rotation @ np.asarray(light.position_mm) + centre
        row[3:6] = rotation @ np.asarray(light.axis)
        row[6:8] = light.exponent, light.cutoff_rad
        row[8:11] = light.intensity
    return rows


@njit(cache=True, fastmath=True)
def spot_profile(cos_angle: float, exponent: float, cutoff_rad: float) -> float:
    """Share of the axial intensity that leaves at an angle from the axis."""
    angle = math.acos(min(max(cos_angle, -1.0), 1.0))
    if angle >= cutoff_rad:
        return 0.0
    return math.cos(angle * (0.5 * math.pi) / cutoff_rad) ** exponent


@njit(cache=True, fastmath=True)
def arriving(light: NDArray, x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """Direction to a packed light from a point, and the light's factor there: profile over squared distance.

    The irradiance of a surface is this factor times the intensity times the cosine at the surface.
    """
    lx, ly, lz = light[0] - x, light[1] - y, light[2] - z
    d2 = max(lx * lx + ly * ly + lz * lz, 1e-6)
    inverse = 1.0 / math.sqrt(d2)
    lx, ly, lz = lx * inverse, ly * inverse, lz * inverse
    cos_angle = -(lx * light[3] + ly * light[4] + lz * light[5])
    return lx, ly, lz, spot_profile(cos_angle, light[6], light[7]) / d2
