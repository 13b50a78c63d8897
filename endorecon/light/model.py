"""The unknowns of light and camera, and what they predict of the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from endorecon.light.evidence import Evidence
from endorecon.lighting import F0, Lamp
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
# processor's gamma near the 2.2 of displays. `indirect` is the gain of the light between surfaces.
UNKNOWNS: dict[str, Unknown] = {
    "log_gamma": Unknown(np.log(2.2), 0.3, np.log(0.8), np.log(3.5)),
    "shoulder": Unknown(0.3, 0.4, 0.0, 1.0),
    "vignette": Unknown(0.05, 0.1, -0.2, 0.9),
    "falloff": Unknown(PHYSICAL_FALLOFF, 2.0, -1.0, 6.0),
    "exponent": Unknown(1.0, 2.0, 0.0, 12.0),
    "tilt_x": Unknown(0.0, 0.2, -1.0, 1.0),
    "tilt_y": Unknown(0.0, 0.2, -1.0, 1.0),
    "x": Unknown(0.0, 0.15, -0.6, 0.6),
    "y": Unknown(0.0, 0.15, -0.6, 0.6),
    "z": Unknown(0.0, 0.05, -0.4, 0.3),
    "half_x": Unknown(0.0, 0.1, -0.5, 0.5),
    "half_y": Unknown(0.0, 0.1, -0.5, 0.5),
    "indirect": Unknown(1.0, 0.7, 0.0, 4.0),
    "log_film": Unknown(np.log(0.5), 1.5, np.log(1e-3), np.log(50.0)),
    "log_roughness": Unknown(np.log(0.35), 0.5, np.log(0.1), 0.0),
}
NAMES = tuple(UNKNOWNS)
PAIR = ("half_x", "half_y")
FILM = ("log_film", "log_roughness")


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
    """

    values: dict[str, float]
    log_albedo: Float
    log_gain: Float
    unit: float
    free: tuple[str, ...] = ()
    covariance: Float = field(default_factory=lambda: np.zeros((0, 0)))

    def std(self, name: str) -> float:
        """Standard deviation of an unknown; 0 where it was not free."""
        if name not in self.free:
            return 0.0
        return float(np.sqrt(self.covariance[self.free.index(name), self.free.index(name)]))

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
class Seen:
    """Evidence as the model takes it: K rows, camera frame, lengths in `unit`.

    Attributes:
        indirect: (K, 3) irradiance by way of other surfaces, of a lamp of intensity 1 (in `unit`).
    """

    points: Tensor
    normals: Tensor
    uv: Tensor
    indirect: Tensor
    point: Tensor
    frame: Tensor
    unit: float

    @staticmethod
    def of(evidence: Evidence, unit: float, indirect: NDArray[np.float32] | None = None) -> Seen:
        points, normals = evidence.in_camera
        bent = np.zeros_like(points) if indirect is None else indirect
        return Seen(
            torch.tensor(points / np.float32(unit)), torch.tensor(normals), torch.tensor(evidence.uv),
            torch.tensor(bent), torch.tensor(evidence.point), torch.tensor(evidence.frame), unit,
        )  # fmt: skip


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
    return radiance(light, surface, v["indirect"] * seen.indirect)


def response(theta: Tensor) -> CameraResponse:
    """The camera's response of the unknowns (P,)."""
    v = dict(zip(NAMES, theta, strict=True))
    return CameraResponse(torch.exp(v["log_gamma"]), v["shoulder"], v["vignette"])
