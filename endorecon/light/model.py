"""The unknowns of light and camera, and what they predict of the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from endorecon.light.evidence import Evidence
from endorecon.lighting import F0, Lamp
from rendering.bounce import BRIGHTEST
from rendering.physics import PHYSICAL_FALLOFF, CameraResponse, Light, Surface, radiance

Float = NDArray[np.float64]

CUTOFF_RAD = np.pi / 2


@dataclass(frozen=True)
class Unknown:
    """A quantity, what is believed of it beforehand, and where it stays.

    Attributes:
        mean, std: of the belief, before any image is looked at; the fit starts from the mean.
        least, most: bounds.
    """

    mean: float
    std: float
    least: float = -np.inf
    most: float = np.inf


# Lengths are in the median distance between lens and tissue. The lamp is believed near the lens, looking ahead; a video
# processor's gamma near the 2.2 of displays. `log_scale` is of the albedos, over those that light between surfaces was
# traced with: it shows by that light alone.
UNKNOWNS: dict[str, Unknown] = {
    "log_gamma": Unknown(np.log(2.2), 0.1, np.log(0.8), np.log(3.5)),
    "shoulder": Unknown(0.3, 0.25, 0.0, 1.0),
    "vignette": Unknown(0.05, 0.07, -0.1, 0.8),
    "falloff": Unknown(PHYSICAL_FALLOFF, 2.0, -1.0, 6.0),
    "exponent": Unknown(1.0, 1.0, 0.0, 12.0),
    "tilt_x": Unknown(0.0, 0.1, -0.6, 0.6),
    "tilt_y": Unknown(0.0, 0.1, -0.6, 0.6),
    "x": Unknown(0.0, 0.1, -0.6, 0.6),
    "y": Unknown(0.0, 0.1, -0.6, 0.6),
    "z": Unknown(0.0, 0.04, -0.4, 0.3),
    "half_x": Unknown(0.0, 0.1, -0.5, 0.5),
    "half_y": Unknown(0.0, 0.1, -0.5, 0.5),
    "log_scale": Unknown(0.0, 0.5, -3.0, 0.5),
    "log_film": Unknown(np.log(0.5), 1.5, np.log(1e-3), np.log(50.0)),
    "log_roughness": Unknown(np.log(0.35), 0.5, np.log(0.1), 0.0),
}
NAMES = tuple(UNKNOWNS)
PAIR = ("half_x", "half_y")
FILM = ("log_film", "log_roughness")
WIDENED = 0.08  # deviation of the log roughness by the blur of pixels and of normals, which the model does not have


@dataclass(frozen=True)
class Parts:
    """What is part of the model.

    Attributes:
        film: the wet film's highlight.
        pair: two sources to both sides of a middle, not one.
    """

    film: bool = False
    pair: bool = False


def start() -> dict[str, float]:
    """Every unknown at what is believed beforehand."""
    return {name: u.mean for name, u in UNKNOWNS.items()}


@dataclass(frozen=True)
class Estimate:
    """A state of the fit.

    Attributes:
        values: of the unknowns by name.
        log_albedo: (M, 3) of the points.
        log_gain: (F, 3) log of exposure times white balance.
        unit: the length in which positions are, in the scene's unit.
        covariance: of the free unknowns, in the order of `free`; empty before there is one.
        apart: by name, how far two estimates are from each other that have only the truth in common.
    """

    values: dict[str, float]
    log_albedo: Float
    log_gain: Float
    unit: float
    free: tuple[str, ...] = ()
    covariance: Float = field(default_factory=lambda: np.zeros((0, 0)))
    apart: dict[str, float] = field(default_factory=dict)

    def std(self, name: str) -> float:
        """Standard deviation of an unknown: noise, what estimates differ by, blur; 0 where it was not free."""
        if name not in self.free:
            return 0.0
        noise = np.sqrt(self.covariance[self.free.index(name), self.free.index(name)])
        blur = WIDENED if name == "log_roughness" else 0.0
        return float(np.hypot(np.hypot(noise, blur), self.apart.get(name, 0.0)))

    def against(self, other: Estimate) -> Estimate:
        """With what an estimate from other pixels or colours differs by."""
        return replace(self, apart={n: abs(self.values[n] - other.values[n]) for n in self.free})

    def lamp(self) -> Lamp:
        """The light, in the scene's unit; intensity 1 in all, shared by a pair."""
        v = self.values
        axis = np.array([v["tilt_x"], v["tilt_y"], 1.0])
        middle, half = np.array([v["x"], v["y"], v["z"]]), np.array([v["half_x"], v["half_y"], 0.0])
        at = np.stack([middle + half, middle - half]) if half.any() else middle[None]
        n = len(at)
        return Lamp(
            at * self.unit, np.tile(axis / np.linalg.norm(axis), (n, 1)), np.full(n, v["exponent"]),
            np.full(n, CUTOFF_RAD), np.full((n, 3), self.unit**2 / n), v["falloff"], self.unit,
        )  # fmt: skip

    def with_values(self, **values: float) -> Estimate:
        return replace(self, values={**self.values, **values})


@dataclass(frozen=True)
class Between:
    """Light between surfaces, traced.

    Attributes:
        orders: (BOUNCES, K, 3) float32 irradiance at the observations after one, two, ... bounces.
        walls: (3,) float32 mean albedo that it was traced with.
    """

    orders: NDArray[np.float32]
    walls: NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """Evidence as the model takes it: K rows, camera frame, lengths in `unit`.

    Attributes:
        indirect: (BOUNCES, K, 3) irradiance after one, two, ... bounces, of a lamp of intensity 1; or None.
        counts: of points and frames.
        walls: (3,) mean albedo that `indirect` was traced with.
    """

    points: Tensor
    normals: Tensor
    uv: Tensor
    indirect: Tensor | None
    point: Tensor
    frame: Tensor
    unit: float
    counts: tuple[int, int]
    walls: Tensor

    @staticmethod
    def of(evidence: Evidence, unit: float, between: Between | None = None) -> Seen:
        points, normals = evidence.in_camera
        traced = None if between is None else torch.tensor(between.orders)
        walls = torch.tensor(np.zeros(3) if between is None else between.walls)
        return Seen(
            torch.tensor(points / np.float32(unit)), torch.tensor(normals), torch.tensor(evidence.uv), traced,
            torch.tensor(evidence.point), torch.tensor(evidence.frame), unit,
            (len(evidence.points), len(evidence.frames)), walls,
        )  # fmt: skip

    def double(self) -> Seen:
        """With the geometry in float64."""
        names = ("points", "normals", "uv", "indirect", "walls")
        values = {n: getattr(self, n) for n in names}
        return replace(self, **{n: None if v is None else v.double() for n, v in values.items()})


def lit(theta: Tensor, seen: Seen, albedo: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
    """Diffuse and mirrored radiance (K, 3) of the unknowns (P,) in the order of NAMES and albedo (K, 3)."""
    v = dict(zip(NAMES, theta, strict=True))
    axis = torch.stack([v["tilt_x"], v["tilt_y"], torch.ones_like(v["x"])])
    half = torch.stack([v["half_x"], v["half_y"], torch.zeros_like(v["x"])])
    middle = torch.stack([v["x"], v["y"], v["z"]])
    one = torch.ones_like(v["x"])
    at = torch.stack([middle + half, middle - half]) if parts.pair else middle[None]
    n = len(at)
    light = Light(
        at, (axis / axis.norm()).expand(n, 3), v["exponent"].expand(n), (one * CUTOFF_RAD).expand(n),
        (one / n).expand(n, 3), v["falloff"], one,
    )  # fmt: skip
    strength = torch.exp(v["log_film"]) if parts.film else torch.zeros_like(one)
    rows = seen.points[:, 0]
    surface = Surface(
        seen.points, seen.normals, albedo, torch.exp(v["log_roughness"]).expand_as(rows), strength.expand_as(rows), F0
    )
    if seen.indirect is None:
        return radiance(light, surface)
    return radiance(light, surface, summed(seen.indirect, torch.exp(v["log_scale"]), seen.walls))


def summed(orders: Tensor, scale: Tensor, walls: Tensor) -> Tensor:
    """Indirect irradiance (K, 3) of albedos `scale` times those that gave `orders` (B, K, 3).

    s E_1 + s^2 E_2 + s^3 E_3 / (1 - s a), where the last stands for all further ones, as if they met the mean albedo a
    of the `walls` (3,).
    """
    further = 1 / (1 - (scale * walls.to(orders.dtype)).clamp(0, BRIGHTEST))
    total = scale * orders[0]
    for k in range(1, len(orders)):
        total = total + scale ** (k + 1) * orders[k] * (further if k == len(orders) - 1 else 1)
    return total


def response(theta: Tensor) -> CameraResponse:
    """The camera's response of the unknowns (P,)."""
    v = dict(zip(NAMES, theta, strict=True))
    return CameraResponse(torch.exp(v["log_gamma"]), v["shoulder"], v["vignette"])
