"""The endoscope's light on a surface, in torch: differentiable, batched, on any device.

The light that a camera at the origin sees of a point x with normal n (near-field light, as in EndoMapper's photometric
calibration, EndoPBR and LightNeuS; Kajiya's rendering equation with one small lamp, or several):

    L(x) = albedo / pi (sum_l E_l + E_ind) + k_s sum_l f_GGX(l, v, n) E_l
    E_l  = I_l cos^n(theta_l) / d_l^2 (n . l)                 Lambert's cosine, spot profile, inverse square
    v    = R(e w V(u) L)                                      exposure, white balance, vignette, response

The kernels of `rendering.light`, `.brdf` and `.shade` say the same for the phantom; tests hold the two together. All is
in the camera's frame. Lengths may have any unit, as long as they all have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rendering.light import SpotLight

PHYSICAL_FALLOFF = 2.0
"""Exponent of the distance in the fall-off of a small source."""
BRIGHTEST = 4.0
"""White is 1; above this a processor has long clipped (as `rendering.shade.Response`)."""
_LEAST_COSINE_VIEW, _LEAST_SQUARE = 1e-3, 1e-6


@dataclass(frozen=True)
class Light:
    """L small sources fixed to the camera; tensors, so that each can be optimised.

    Attributes:
        position: (L, 3), camera frame.
        axis: (L, 3) unit vectors, camera frame.
        exponent: (L,), of the spot profile cos(theta pi / 2 / cutoff)^exponent; 0 is an even beam.
        cutoff_rad: (L,), where the beam ends.
        intensity: (L, 3), linear rgb on the axis.
        falloff: (), exponent p of the distance; 2 by physics.
        reference: (), the distance at which a source with another fall-off is as bright as a physical one.
    """

    position: Tensor
    axis: Tensor
    exponent: Tensor
    cutoff_rad: Tensor
    intensity: Tensor
    falloff: Tensor
    reference: Tensor

    @staticmethod
    def of(spots: Sequence[SpotLight], falloff: float = PHYSICAL_FALLOFF, reference: float = 1.0) -> Light:
        """The same lights as the phantom's, float32."""
        rows = ([s.position_mm for s in spots], [s.axis for s in spots], [s.exponent for s in spots])
        more = ([s.cutoff_rad for s in spots], [s.intensity for s in spots], falloff, reference)
        return Light(*(torch.tensor(values, dtype=torch.float32) for values in (*rows, *more)))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """With all tensors moved or cast, as `Tensor.to`."""
        return replace(self, **{f.name: getattr(self, f.name).to(*args, **kwargs) for f in fields(self)})

    def arriving(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Unit directions to the sources (..., L, 3) from points (..., 3), and intensity that arrives (..., L, 3).

        The latter is I cos^n(theta) / d^2, without the cosine at the surface; with a fall-off p other than 2 it is
        I cos^n(theta) / (d^p r^(2 - p)), r the reference distance.
        """
        way = self.position - points[..., None, :]
        square = (way * way).sum(-1).clamp_min(_LEAST_SQUARE)
        direction = way * square.rsqrt()[..., None]
        profile = spot_profile(-(direction * self.axis).sum(-1), self.exponent, self.cutoff_rad)
        r2 = self.reference * self.reference
        share = profile / r2 * (square / r2) ** (-0.5 * self.falloff)
        return direction, share[..., None] * self.intensity


def spot_profile(cos_angle: Tensor, exponent: Tensor, cutoff_rad: Tensor) -> Tensor:
    """Share of the axial intensity that leaves at an angle from the axis, from the angle's cosine."""
    angle = torch.acos(cos_angle.clamp(-1 + 1e-6, 1 - 1e-6))
    inside = angle < cutoff_rad
    # Kept off zero where the beam has ended: the gradient of a power there would not be finite.
    base = torch.cos(torch.where(inside, angle, torch.zeros_like(angle)) * (0.5 * math.pi) / cutoff_rad)
    return torch.where(inside, base.clamp_min(1e-6) ** exponent, torch.zeros_like(base))


def lambert(albedo: Tensor) -> Tensor:
    """The diffuse BRDF, albedo / pi, 1 / sr."""
    return albedo / math.pi


def fresnel_schlick(f0: Tensor | float, cos_view_half: Tensor) -> Tensor:
    """Reflectance of a smooth interface at an angle, from that at normal incidence (Schlick, 1994)."""
    return f0 + (1 - f0) * (1 - cos_view_half).clamp(0, 1) ** 5


def ggx(
    roughness: Tensor, f0: Tensor | float, cos_light: Tensor, cos_view: Tensor, cos_half: Tensor, cos_view_half: Tensor
) -> Tensor:
    """The GGX microfacet BRDF, D G2 F / (4 cos_light cos_view), with the height-correlated Smith term, 1 / sr.

    Walter et al., EGSR 2007; Heitz, JCGT 2014. `roughness` is perceptual: the GGX width alpha is its square. All
    tensors broadcast; 0 where light or view lie below the surface.
    """
    a2 = roughness**4
    light, view = cos_light.clamp_min(1e-6), cos_view.clamp_min(1e-6)
    t = cos_half * cos_half * (a2 - 1) + 1
    d = a2 / (math.pi * t * t)
    shadowing = light * torch.sqrt(view * view * (1 - a2) + a2)
    masking = view * torch.sqrt(light * light * (1 - a2) + a2)
    value = d * fresnel_schlick(f0, cos_view_half) * 0.5 / (shadowing + masking).clamp_min(1e-9)
    return torch.where((cos_light > 0) & (cos_view > 0), value, torch.zeros_like(value))


@dataclass(frozen=True)
class Surface:
    """Points of a surface, seen from the camera at the origin; tensors that broadcast over (...).

    Attributes:
        points: (..., 3), camera frame.
        normals: (..., 3) unit, towards the camera's side.
        albedo: (..., 3), linear.
        roughness: (...,), perceptual, of the wet film's GGX highlight.
        specular: (...,), strength k_s of that highlight; 0 is dry.
        f0: reflectance of the film at normal incidence.
    """

    points: Tensor
    normals: Tensor
    albedo: Tensor
    roughness: Tensor
    specular: Tensor
    f0: Tensor | float = 0.04

    @staticmethod
    def of_world(
        world_from_cam: Tensor, points: Tensor, normals: Tensor, albedo: Tensor, roughness: Tensor, specular: Tensor,
        f0: Tensor | float = 0.04,
    ) -> Surface:  # fmt: skip
        """From points and normals in the world, (..., 3), and a pose (4, 4); normals are turned to the camera."""
        rotation, centre = world_from_cam[:3, :3], world_from_cam[:3, 3]
        x, n = (points - centre) @ rotation, normals @ rotation
        n = torch.where((n * x).sum(-1, keepdim=True) > 0, -n, n)
        return Surface(x, n, albedo, roughness, specular, f0)


def irradiance(light: Light, points: Tensor, normals: Tensor, share: Tensor | float = 1.0) -> Tensor:
    """Direct irradiance rgb (..., 3) at points with normals (..., 3); `share` (..., L) of each light that arrives."""
    direction, arriving = light.arriving(points)
    cosine = (direction * normals[..., None, :]).sum(-1).clamp_min(0) * share
    return (cosine[..., None] * arriving).sum(-2)


def radiance(
    light: Light, surface: Surface, indirect: Tensor | float = 0.0, share: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What leaves a surface towards the camera, diffuse and mirrored, linear rgb (..., 3) each; their sum is L.

    Args:
        light: the sources, camera frame.
        surface: the points.
        indirect: (..., 3) irradiance by way of other surfaces (`rendering.bounce`), or a smooth ambient one.
        share: (..., L), 0 where a source is in shadow.
    """
    direction, arriving = light.arriving(surface.points)
    n = surface.normals[..., None, :]
    eye = -surface.points * (surface.points * surface.points).sum(-1, keepdim=True).clamp_min(_LEAST_SQUARE).rsqrt()
    cos_light = (direction * n).sum(-1)
    arrives = (cos_light.clamp_min(0) * share)[..., None] * arriving
    diffuse = lambert(surface.albedo) * (arrives.sum(-2) + indirect)
    half = direction + eye[..., None, :]
    half = half * (half * half).sum(-1, keepdim=True).clamp_min(1e-12).rsqrt()
    cos_view = (surface.normals * eye).sum(-1).clamp_min(_LEAST_COSINE_VIEW)[..., None]
    mirrored = ggx(
        surface.roughness[..., None], surface.f0, cos_light, cos_view, (half * n).sum(-1).clamp(0, 1),
        (half * eye[..., None, :]).sum(-1).clamp(0, 1),
    )  # fmt: skip
    return diffuse, surface.specular[..., None] * (mirrored[..., None] * arrives).sum(-2)


@dataclass(frozen=True)
class CameraResponse:
    """From linear radiance to what is displayed: v = clip(shoulder(e w V L))^(1 / gamma).

    Attributes:
        gamma: (), exponent of the tone curve.
        shoulder: (), s in (1 - s) x + s (1 - exp(-x)): 0 clips highlights hard, 1 rolls them off.
        vignette: (), darkening at the image's corner, as a share.
    """

    gamma: Tensor
    shoulder: Tensor
    vignette: Tensor

    @staticmethod
    def of(gamma: float = 2.2, shoulder: float = 0.0, vignette: float = 0.0) -> CameraResponse:
        return CameraResponse(*(torch.tensor(float(v)) for v in (gamma, shoulder, vignette)))

    def vignetting(self, uv: Tensor) -> Tensor:
        """Factor (..., 1) at places (..., 2) in the image, -1 to 1 from border to border."""
        return 1 - self.vignette * 0.5 * (uv * uv).sum(-1, keepdim=True)

    def displayed(
        self, linear: Tensor, exposure: Tensor | float, uv: Tensor | None = None, clip: bool = True
    ) -> Tensor:
        """Displayed rgb in [0, 1] of linear radiance (..., 3).

        Args:
            linear: radiance.
            exposure: gain; (..., 3) or what broadcasts to it: exposure times white balance.
            uv: places in the image for the vignette, as in `vignetting`; None leaves it out.
            clip: False lets values pass 1 (with a straight end of the curve's slope), for a fit's gradient.
        """
        x = (linear * exposure).clamp(0, BRIGHTEST)
        if uv is not None:
            x = x * self.vignetting(uv)
        x = (1 - self.shoulder) * x + self.shoulder * (1 - torch.exp(-x))
        return (x.clamp(0, 1) if clip else x).clamp_min(1e-6) ** (1 / self.gamma)

    def linear(self, displayed: Tensor, exposure: Tensor | float = 1.0, uv: Tensor | None = None) -> Tensor:
        """The inverse of `displayed` for values in [0, 1] that are not clipped."""
        y = displayed.clamp(0, 1) ** self.gamma
        x = y / (1 - 0.5 * self.shoulder)
        for _ in range(8):  # Newton; the curve is smooth and rises, and is straight where the shoulder is 0
            error = (1 - self.shoulder) * x + self.shoulder * (1 - torch.exp(-x)) - y
            x = (x - error / ((1 - self.shoulder) + self.shoulder * torch.exp(-x)).clamp_min(1e-3)).clamp(0, 8)
        if uv is not None:
            x = x / self.vignetting(uv)
        return x / exposure


def image_places(width: int, height: int) -> Tensor:
    """(H, W, 2): places of an image's pixel centres as `CameraResponse` takes them, -1 to 1."""
    u = (torch.arange(width) + 0.5) / width * 2 - 1
    v = (torch.arange(height) + 0.5) / height * 2 - 1
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), -1)
