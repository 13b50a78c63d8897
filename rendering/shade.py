"""Surface x light x camera response -> image.

`direct` gives what the lights do at a point; `Response` turns the radiance of a view into the uint8 image that a
video processor shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from rendering.brdf import ggx
from rendering.light import arriving


@njit(cache=True, fastmath=True)
def direct(
    lights: NDArray, share: NDArray, x: float, y: float, z: float, nx: float, ny: float, nz: float,
    vx: float, vy: float, vz: float, roughness: float, f0: float, film: float,
) -> tuple[float, float, float, float, float, float]:  # fmt: skip
    """What the lights do at a point: irradiance rgb, and the radiance rgb that a film reflects to the eye.

    `lights` (L, 11) is from pack_lights, `share` (L,) or empty is how much of each arrives; n is the surface's normal,
    v the direction to the eye; `film` is the film's strength, `roughness` and `f0` its GGX parameters.
    """
    er, eg, eb, sr, sg, sb = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    cos_view = max(nx * vx + ny * vy + nz * vz, 1e-3)
    for j in range(lights.shape[0]):
        lx, ly, lz, factor = arriving(lights[j], x, y, z)
        e = factor * (nx * lx + ny * ly + nz * lz)
        if e <= 0.0:
            continue
        if share.size > 0:
            e *= share[j]
        er, eg, eb = er + e * lights[j, 8], eg + e * lights[j, 9], eb + e * lights[j, 10]
        if film > 0.0:
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            h = 1.0 / max(math.sqrt(hx * hx + hy * hy + hz * hz), 1e-6)
            cos_half = min(max((nx * hx + ny * hy + nz * hz) * h, 0.0), 1.0)
            cos_view_half = min(max((vx * hx + vy * hy + vz * hz) * h, 0.0), 1.0)
            s = e * film * ggx(roughness, f0, nx * lx + ny * ly + nz * lz, cos_view, cos_half, cos_view_half)
            sr, sg, sb = sr + s * lights[j, 8], sg + s * lights[j, 9], sb + s * lights[j, 10]
    return er, eg, eb, sr, sg, sb


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
