"""What the phantom's surfaces are made of: colours, vessels, pools, bumps, wetness."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """A procedural tissue. Colours are linear rgb; frequencies are in 1 / mm; slopes and shares have no unit.

    Attributes:
        base, mottle: the two colours that a low-frequency pattern mixes.
        vessel: colour of the vessels, drawn along the zero lines of a noise.
        pool: colour of what lies on the tissue (blood, stool, mucus), where a noise exceeds `pool_level`.
        bump_slope, fine_slope: steepness of the coarse and the fine relief that only the shading sees.
        film: strength of the wet film's highlight; 0 is dry.
        f0: reflectance of the film or metal at normal incidence.
    """

    base: Colour = (0.6, 0.25, 0.2)
    mottle: Colour = (0.5, 0.2, 0.15)
    vessel: Colour = (0.3, 0.05, 0.04)
    pool: Colour = (0.2, 0.02, 0.02)
    mottle_frequency: float = 0.1
    mottle_share: float = 0.5
    vessel_frequency: float = 0.1
    vessel_width: float = 0.06
    vessel_share: float = 0.5
    pool_frequency: float = 0.05
    pool_level: float = 2.0
    speckle_frequency: float = 2.0
    speckle_share: float = 0.05
    bump_frequency: float = 0.3
    bump_slope: float = 0.1
    fine_frequency: float = 2.0
    fine_slope: float = 0.05
    roughness: float = 0.3
    f0: float = 0.03
    film: float = 1.0


def pack_materials(materials: tuple[Material, ...]) -> NDArray[np.float32]:
    """One row a material, the fields in their order, colours as three columns."""
    return np.array([np.hstack([getattr(m, f.name) for f in fields(Material)]) for m in materials], np.float32)


def mean_albedo(materials: tuple[Material, ...]) -> NDArray[np.float32]:
    """(M, 3): about the mean of each texture, without vessels and pools."""
    return np.array(
        [
            (1 - 0.5 * m.mottle_share) * np.array(m.base) + 0.5 * m.mottle_share * np.array(m.mottle)
            for m in materials
        ],
        np.float32,
    )


# Hue, saturation and value ranges (as displayed) of the tissues, wider than life: a colour must not tell a distance.
PALETTE: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "mucosa": ((-0.03, 0.06), (0.30, 0.72), (0.60, 1.00)),
    "fat": ((0.08, 0.15), (0.30, 0.75), (0.70, 1.00)),
    "liver": ((-0.04, 0.04), (0.35, 0.80), (0.18, 0.50)),
    "pale": ((0.02, 0.16), (0.04, 0.30), (0.75, 1.00)),
    "peritoneum": ((-0.03, 0.08), (0.18, 0.60), (0.50, 0.95)),
    "livid": ((0.75, 0.97), (0.10, 0.45), (0.40, 0.90)),
    "plaster": ((0.02, 0.10), (0.15, 0.55), (0.75, 1.00)),
    "any": ((-0.06, 0.14), (0.05, 0.75), (0.20, 1.00)),
    "plastic": ((0.0, 1.0), (0.0, 0.7), (0.08, 0.9)),
    "metal": ((0.5, 0.7), (0.0, 0.12), (0.2, 0.6)),
}


def colour(rng: np.random.Generator, kind: str) -> Colour:
    """A random linear rgb of a `PALETTE` entry."""
    h, s, v = (rng.uniform(*bounds) for bounds in PALETTE[kind])
    return linear(colorsys.hsv_to_rgb(h % 1.0, s, v))


def linear(displayed: Colour) -> Colour:
    """Linear rgb of a displayed rgb, by the 2.2 power that displays follow closely."""
    r, g, b = (float(c) ** 2.2 for c in displayed)
    return r, g, b


def tissue(rng: np.random.Generator, kind: str, scale_mm: float) -> Material:
    """A random material of a `PALETTE` entry for a scene of a typical viewing distance of `scale_mm`."""
    base = np.array(colour(rng, kind))
    if kind in ("metal", "plastic"):
        metal = kind == "metal"
        return Material(
            base=tuple(base * (0.5 if metal else 1.0)), mottle=tuple(base * 0.4), vessel_share=0.0, speckle_share=0.02,
            mottle_share=rng.uniform(0, 0.4), mottle_frequency=8 / scale_mm, fine_slope=rng.uniform(0, 0.04),
            bump_slope=0.0, roughness=rng.uniform(0.2, 0.5), f0=rng.uniform(0.2, 0.6) if metal else 0.04, film=1.0,
        )  # fmt: skip
    plaster = kind == "plaster"
    other = base * rng.uniform(0.55, 1.1) * rng.uniform(0.8, 1.15, 3)
    red = np.array(linear((rng.uniform(0.3, 0.75), rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.3))))
    if rng.random() < 0.15:
        red = np.array(linear((rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.6))))
    pool = colour(rng, "fat") if rng.random() < 0.4 else linear((rng.uniform(0.15, 0.6), rng.uniform(0, 0.1), 0.05))
    wet = 0.0 if rng.random() < (0.5 if plaster else 0.2) else float(np.exp(rng.uniform(np.log(0.2), np.log(4.0))))
    has_vessels = rng.random() < (0.1 if plaster else 0.7)
    return Material(
        base=tuple(base),
        mottle=tuple(np.clip(other, 0, 0.98)),
        vessel=tuple(np.minimum(red, base)),
        pool=pool,
        mottle_frequency=np.exp(rng.uniform(np.log(0.8), np.log(12))) / scale_mm,
        mottle_share=rng.uniform(0, 0.15 if plaster else 0.9),
        vessel_frequency=np.exp(rng.uniform(np.log(1.2), np.log(7))) / scale_mm,
        vessel_width=rng.uniform(0.02, 0.09),
        vessel_share=rng.uniform(0.2, 0.9) if has_vessels else 0.0,
        pool_frequency=rng.uniform(0.8, 4) / scale_mm,
        pool_level=rng.uniform(0.35, 0.8) if not plaster and rng.random() < 0.25 else 3.0,
        speckle_frequency=np.exp(rng.uniform(np.log(15), np.log(120))) / scale_mm,
        speckle_share=rng.uniform(0, 0.03 if plaster else 0.25),
        bump_frequency=np.exp(rng.uniform(np.log(2), np.log(15))) / scale_mm,
        bump_slope=rng.uniform(0, 0.03) if plaster else rng.uniform(0, 0.3) * rng.uniform(0.3, 1),
        fine_frequency=np.exp(rng.uniform(np.log(15), np.log(90))) / scale_mm,
        fine_slope=rng.uniform(0, 0.03) if plaster else rng.uniform(0, 0.3) * rng.uniform(0.1, 1),
        roughness=rng.uniform(0.16, 0.55),
        f0=rng.uniform(0.02, 0.05),
        film=wet,
    )
