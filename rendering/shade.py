"""Surface x light x camera response -> image.

`shade` computes linear radiance at ray hits; `Response` turns it into the uint8 image that a video processor shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from rendering.brdf import ggx, lambert
from rendering.light import arriving
from rendering.phantom.texture import F0, FILM, ROUGHNESS, albedo_at, bumped


@njit(cache=True, fastmath=True)
def shade(
    hits: NDArray, normals: NDArray, material_ids: NDArray, eye: NDArray, materials: NDArray, seed: int, lights: NDArray,
    shadow: NDArray, virtual: NDArray, near2: float, ambient: NDArray, pixel_rad: float, out: NDArray, out_albedo: NDArray,
) -> None:  # fmt: skip
    """Linear radiance towards the eye at ray hits.

    Args:
        hits, normals: (N, 3) float32, world; the normals point to the eye's side.
        material_ids: (N,) rows of `materials` (see pack_materials); negative where the ray met nothing.
        lights: (L, 11) from pack_lights. `shadow` (L, N): share of each light that arrives; (0, 0) for no shadows.
        virtual: (V, 9) position, normal, flux rgb of lit patches that stand for the first bounce.
        near2: squared distance, mm^2, below which a virtual light grows no stronger.
        ambient: (3,) irradiance that arrives from everywhere.
        pixel_rad: angle of a pixel, for the width of details.
        out, out_albedo: (N, 3) float32, written.
    """
    for i in range(hits.shape[0]):
        if material_ids[i] < 0:
            continue
        m = materials[material_ids[i]]
        x, y, z = hits[i, 0], hits[i, 1], hits[i, 2]
        vx, vy, vz = eye[0] - x, eye[1] - y, eye[2] - z
        d = math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx / d, vy / d, vz / d
        gx, gy, gz = normals[i, 0], normals[i, 1], normals[i, 2]
        facing = max(gx * vx + gy * vy + gz * vz, 0.15)
        footprint = d * pixel_rad / math.sqrt(facing)
        r, g, b, pool = albedo_at(m, x, y, z, footprint, seed)
        out_albedo[i, 0], out_albedo[i, 1], out_albedo[i, 2] = r, g, b
        nx, ny, nz = bumped(m, x, y, z, gx, gy, gz, footprint, seed, pool)
        cos_view = max(nx * vx + ny * vy + nz * vz, 1e-3)
        roughness = m[ROUGHNESS] * (1.0 - 0.5 * pool)
        er, eg, eb = ambient[0], ambient[1], ambient[2]
        sr, sg, sb = 0.0, 0.0, 0.0
        for j in range(lights.shape[0]):
            lx, ly, lz, factor = arriving(lights[j], x, y, z)
            cos_light = nx * lx + ny * ly + nz * lz
            if cos_light <= 0.0 or factor <= 0.0:
                continue
            if shadow.shape[0] > 0:
                factor *= shadow[j, i]
            e = factor * cos_light
            er, eg, eb = er + e * lights[j, 8], eg + e * lights[j, 9], eb + e * lights[j, 10]
            if m[FILM] > 0.0:
                hx, hy, hz = lx + vx, ly + vy, lz + vz
                h = 1.0 / max(math.sqrt(hx * hx + hy * hy + hz * hz), 1e-6)
                cos_half = min(max((nx * hx + ny * hy + nz * hz) * h, 0.0), 1.0)
                cos_view_half = min(max((vx * hx + vy * hy + vz * hz) * h, 0.0), 1.0)
                s = e * m[FILM] * ggx(roughness, m[F0], cos_light, cos_view, cos_half, cos_view_half)
                sr, sg, sb = sr + s * lights[j, 8], sg + s * lights[j, 9], sb + s * lights[j, 10]
        for j in range(virtual.shape[0]):
            px, py, pz = virtual[j, 0] - x, virtual[j, 1] - y, virtual[j, 2] - z
            d2 = px * px + py * py + pz * pz
            cos_here = nx * px + ny * py + nz * pz
            cos_there = -(virtual[j, 3] * px + virtual[j, 4] * py + virtual[j, 5] * pz)
            e = max(cos_here, 0.0) * max(cos_there, 0.0) / ((d2 + 1e-6) * (d2 + near2))
            er, eg, eb = er + e * virtual[j, 6], eg + e * virtual[j, 7], eb + e * virtual[j, 8]
        out[i, 0] = r * lambert() * er + sr
        out[i, 1] = g * lambert() * eg + sg
        out[i, 2] = b * lambert() * eb + sb


@dataclass(frozen=True)
class Response:
    """A video processor: exposure, white balance, tone curve, lens and sensor defects.

    Attributes:
        level: display value in (0, 1) to which automatic exposure brings the `quantile` of the luminance.
        gamma: exponent of the tone curve.
        shoulder: 0 clips highlights hard, 1 rolls them off as 1 - exp(-x).
        white_balance: gains rgb.
        vignette: darkening at the image corner, as a share.
        read_noise, shot_noise: standard deviations at black, and at white above that, in display units.
        blur_px: standard deviation of the lens's blur.
        lag: share of the old exposure that a new frame keeps.
    """

    level: float = 0.45
    quantile: float = 0.5
    gamma: float = 2.2
    shoulder: float = 0.5
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vignette: float = 0.1
    read_noise: float = 0.004
    shot_noise: float = 0.01
    blur_px: float = 0.5
    lag: float = 0.8

    def exposure(self, linear_rgb: NDArray[np.float32], previous: float | None = None) -> float:
        """The gain of a frame, from its brightness and the gain of the frame before (None at the start)."""
        luminance = linear_rgb[::4, ::4] @ np.array([0.3, 0.6, 0.1], np.float32)
        lit = luminance[luminance > 0]
        at_quantile = float(np.quantile(lit, self.quantile)) if lit.size else 1.0
        wanted = self.level**self.gamma / max(at_quantile, 1e-12)
        if previous is None:
            return wanted
        return float(np.exp(self.lag * np.log(previous) + (1 - self.lag) * np.log(wanted)))

    def develop(self, linear_rgb: NDArray[np.float32], exposure: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The displayed image (H, W, 3) uint8 of linear radiance (H, W, 3) float32."""
        h, w = linear_rgb.shape[:2]
        # Far over white nothing is gained, and the blur would spread a highlight into a blot.
        x = np.minimum(linear_rgb * (np.array(self.white_balance, np.float32) * np.float32(exposure)), np.float32(4.0))
        if self.blur_px > 0.15:
            x = cv2.GaussianBlur(x, (0, 0), self.blur_px)
        x *= _vignette(w, h, self.vignette)[..., None]
        if self.shoulder > 0:
            x = (1 - self.shoulder) * x + self.shoulder * (1 - np.exp(-x))
        x = cv2.pow(np.clip(x, 0, 1), 1 / self.gamma)
        noise = rng.standard_normal(x.shape, np.float32)
        x += noise * (self.read_noise + self.shot_noise * np.sqrt(x))
        return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


def _vignette(width: int, height: int, strength: float) -> NDArray[np.float32]:
    u = (np.arange(width) + 0.5) / width * 2 - 1
    v = (np.arange(height) + 0.5) / height * 2 - 1
    return (1 - strength * 0.5 * (u[None] ** 2 + v[:, None] ** 2)).astype(np.float32)
