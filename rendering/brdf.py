"""How a surface reflects light: Lambert's diffuse term and the GGX microfacet highlight.

The functions are compiled by numba and take scalars, so that the shading kernel inlines them. Cosines are those of
unit vectors and are expected in [0, 1].
"""

from __future__ import annotations

import math

from numba import njit


@njit(cache=True, fastmath=True, inline="always")
def lambert() -> float:
    """The diffuse BRDF of a white surface, 1 / pi."""
    return 1.0 / math.pi


@njit(cache=True, fastmath=True)
def fresnel_schlick(f0: float, cos_view_half: float) -> float:
    """Reflectance of a smooth interface at an angle, from its reflectance `f0` at normal incidence (Schlick, 1994)."""
    m = min(max(1.0 - cos_view_half, 0.0), 1.0)
    return f0 + (1.0 - f0) * m * m * m * m * m


@njit(cache=True, fastmath=True)
def ggx(roughness: float, f0: float, cos_light: float, cos_view: float, cos_half: float, cos_view_half: float) -> float:
    """The GGX microfacet BRDF, D G2 F / (4 cos_light cos_view), with the height-correlated Smith term.

    Walter et al., EGSR 2007; Heitz, JCGT 2014. `roughness` is perceptual: the GGX width alpha is its square.
    Returns 0 where light or view lie below the surface.
    """
    if cos_light <= 0.0 or cos_view <= 0.0:
        return 0.0
    a2 = roughness * roughness * roughness * roughness
    t = cos_half * cos_half * (a2 - 1.0) + 1.0
    d = a2 / (math.pi * t * t)
    shadowing = cos_light * math.sqrt(cos_view * cos_view * (1.0 - a2) + a2)
    masking = cos_view * math.sqrt(cos_light * cos_light * (1.0 - a2) + a2)
    return d * fresnel_schlick(f0, cos_view_half) * 0.5 / max(shadowing + masking, 1e-9)
