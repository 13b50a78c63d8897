"""Central cameras: intrinsics and distortion, rays and projection.

Axes: x right, y down, z forward. Pixel (0.5, 0.5) is the centre of the top-left pixel, so resizing multiplies
coordinates and cropping subtracts the offset. OpenCV puts that centre at (0, 0): `from_opencv` and `to_opencv` are
the one place where the half pixel is converted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

PARAMETERS: dict[str, tuple[str, ...]] = {
    "pinhole": ("fx", "fy", "cx", "cy"),
    "brown": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3"),
    "fisheye": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
    "omnidirectional": ("cx", "cy", "a0", "a2", "a3", "a4", "c", "d", "e", "f"),
}
_NEWTON_STEPS = 30


@dataclass(frozen=True)
class Camera:
    """A central camera for images of `width` x `height` pixels.

    Models and their parameters (`PARAMETERS` gives the order):

    - `pinhole`: fx fy cx cy.
    - `brown`: pinhole with Brown-Conrady distortion, in OpenCV's order k1 k2 p1 p2 k3.
    - `fisheye`: Kannala-Brandt as in OpenCV, theta_d = theta (1 + k1 theta^2 + ... + k4 theta^8).
    - `omnidirectional`: Scaramuzza (IROS 2006). With (x, y) = [[c, d], [e, f]]^-1 (u - cx, v - cy) and
      r^2 = x^2 + y^2, the ray is (x, y, a0 + a2 r^2 + a3 r^3 + a4 r^4). The usual calibration has f = 1; it is kept
      as a parameter so that unequal scaling stays inside the model.

    Raises:
        ValueError: an unknown model, a wrong number of parameters, or values that no camera has.
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.model not in PARAMETERS:
            raise ValueError(f"camera model '{self.model}' is not known; models are {', '.join(PARAMETERS)}")
        names = PARAMETERS[self.model]
        if len(self.params) != len(names):
            raise ValueError(
                f"a {self.model} camera has {len(names)} parameters ({' '.join(names)}), found {len(self.params)}"
            )
        object.__setattr__(self, "params", tuple(float(p) for p in self.params))
        if not np.all(np.isfinite(self.params)):
            raise ValueError(f"camera parameters must be finite numbers, found {self.params}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a camera's size must be positive, found {self.width} x {self.height}")
        if self.focal_px <= 0:
            raise ValueError(f"a focal length must be positive, found {self.focal_px:g} px")

    # -- making ---------------------------------------------------------------------------------------------------

    @staticmethod
    def pinhole(width: int, height: int, fx: float, fy: float, cx: float, cy: float) -> Camera:
        """A pinhole camera; all parameters in pixels."""
        return Camera("pinhole", width, height, (fx, fy, cx, cy))

    @staticmethod
    def from_fov(width: int, height: int, horizontal_fov_rad: float) -> Camera:
        """A centred pinhole camera with square pixels and the given horizontal field of view."""
        focal = width / 2 / np.tan(horizontal_fov_rad / 2)
        return Camera.pinhole(width, height, focal, focal, width / 2, height / 2)

    @staticmethod
    def from_opencv(
        width: int, height: int, matrix: ArrayLike, distortion: ArrayLike = (), fisheye: bool = False
    ) -> Camera:
        """From an OpenCV calibration: the 3 x 3 matrix and the distortion vector (4 or 5 values, 4 for fisheye).

        Raises:
            ValueError: a distortion vector of a length that is not supported.
        """
        k = np.asarray(matrix, float).reshape(3, 3)
        pinhole = (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)
        d = [float(v) for v in np.asarray(distortion, float).ravel()]
        if fisheye:
            if len(d) != 4:
                raise ValueError(f"an OpenCV fisheye camera has 4 distortion values, found {len(d)}")
            return Camera("fisheye", width, height, (*pinhole, *d))
        if not any(d):
            return Camera("pinhole", width, height, pinhole)
        if len(d) not in (4, 5):
            raise ValueError(f"an OpenCV camera with 4 or 5 distortion values is supported, found {len(d)}")
        return Camera("brown", width, height, (*pinhole, *(d + [0.0])[:5]))

    def to_opencv(self) -> tuple[Float, Float]:
        """The 3 x 3 matrix and distortion vector in OpenCV's convention (pinhole, brown and fisheye only)."""
        if self.model == "omnidirectional":
            raise ValueError("an omnidirectional camera has no OpenCV matrix")
        fx, fy, cx, cy, *d = self.params
        return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1.0]]), np.array(d)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Camera:
        """From `to_dict`'s form: model, width, height, and each parameter by name.

        Raises:
            ValueError: an unknown model or a missing entry.
        """
        model = values.get("model")
        if model not in PARAMETERS:
            raise ValueError(f"camera model '{model}' is not known; models are {', '.join(PARAMETERS)}")
        missing = [n for n in ("width", "height", *PARAMETERS[model]) if n not in values]
        if missing:
            raise ValueError(f"a {model} camera needs {', '.join(missing)}")
        return Camera(
            model, int(values["width"]), int(values["height"]), tuple(float(values[n]) for n in PARAMETERS[model])
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML: model, width, height, and each parameter by name."""
        named = dict(zip(PARAMETERS[self.model], self.params, strict=True))
        return {"model": self.model, "width": self.width, "height": self.height, **named}

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def centre_px(self) -> Float:
        """The principal point (2,), pixels."""
        at = PARAMETERS[self.model].index("cx")
        return np.array(self.params[at : at + 2])

    @property
    def focal_px(self) -> float:
        """Pixels a radian at the image centre: the focal length, averaged over x and y."""
        if self.model == "omnidirectional":
            _, _, a0, _, _, _, c, d, e, f = self.params
            return abs(a0) * float(np.sqrt(abs(c * f - d * e)))
        return float(np.sqrt(max(self.params[0], 0) * max(self.params[1], 0)))

    def pixels(self) -> Float:
        """The centre of every pixel, (height, width, 2)."""
        return np.stack(np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5), -1)

    def ray_map(self) -> NDArray[np.float32]:
        """Unit rays of every pixel, (height, width, 3), float32, read-only; NaN where the model has no ray."""
        return _ray_map(self)

    def rays(self, pixels: ArrayLike) -> Float:
        """Unit rays, (..., 3), of pixel positions (..., 2), camera frame; NaN where the model has no ray."""
        uv = np.asarray(pixels, float)
        if self.model == "omnidirectional":
            _, _, a0, a2, a3, a4, c, d, e, f = self.params
            xy = (uv - self.centre_px) @ np.linalg.inv([[c, d], [e, f]]).T
            r = np.linalg.norm(xy, axis=-1)
            return _unit(np.concatenate([xy, (a0 + a2 * r**2 + a3 * r**3 + a4 * r**4)[..., None]], -1))
        xy = (uv - self.centre_px) / np.array(self.params[:2])
        if self.model == "fisheye":
            theta_d = np.linalg.norm(xy, axis=-1)
            theta = _solve_angle(theta_d, np.array(self.params[4:]))
            safe = np.maximum(theta_d, 1e-12)
            return np.concatenate([xy * (np.sin(theta) / safe)[..., None], np.cos(theta)[..., None]], -1)
        if self.model == "brown":
            xy = _undistort_brown(xy, self.params[4:])
        return _unit(np.concatenate([xy, np.ones_like(xy[..., :1])], -1))

    def jacobian(self, pixels: ArrayLike) -> Float:
        """How the pixel moves with the unit ray, (..., 2, 3), pixels a radian, at pixel positions (..., 2).

        It is the derivative of the projection at the pixel's ray, which it maps to zero; NaN where there is no ray.
        """
        ray = self.rays(pixels)
        if self.model == "pinhole":
            fx, fy = self.params[:2]
            x, y, z = np.moveaxis(ray, -1, 0)
            nothing = np.zeros_like(z)
            rows = [[fx / z, nothing, -fx * x / z**2], [nothing, fy / z, -fy * y / z**2]]
            return np.moveaxis(np.array(rows), (0, 1), (-2, -1))
        # Central differences along two directions across the ray.
        away = np.where(np.abs(ray[..., :1]) < 0.7, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
        first = _unit(np.cross(ray, away))
        step, total = 1e-5, np.zeros((*ray.shape[:-1], 2, 3))
        for across in (first, np.cross(ray, first)):
            slope = (self.project(ray + step * across)[0] - self.project(ray - step * across)[0]) / (2 * step)
            total += slope[..., :, None] * across[..., None, :]
        return total

    def project(self, points: ArrayLike) -> tuple[Float, NDArray[np.bool_]]:
        """Pixel positions (..., 2) of points (..., 3) in the camera frame, and which of them the camera can see.

        A point is seen when it lies in front of the camera, on the valid branch of the distortion, and inside the
        image. Positions of unseen points are finite but mean nothing.
        """
        p = np.asarray(points, float)
        z = p[..., 2]
        if self.model in ("fisheye", "omnidirectional"):
            radius = np.hypot(p[..., 0], p[..., 1])
            angle = np.arctan2(radius, z)
        if self.model == "fisheye":
            limit = _angle_limit(self.params[4:])
            theta = np.minimum(angle, limit)
            theta_d = _distort_angle(theta, self.params[4:])
            uv = p[..., :2] * (theta_d / np.maximum(radius, 1e-12))[..., None] * self.params[:2] + self.centre_px
            seen = (angle < limit) & ((radius > 0) | (z > 0))
        elif self.model == "omnidirectional":
            _, _, a0, a2, a3, a4, c, d, e, f = self.params
            r = _solve_radius(angle, a0, a2, a3, a4)
            xy = p[..., :2] * (r / np.maximum(radius, 1e-12))[..., None]
            uv = np.nan_to_num(xy) @ np.array([[c, d], [e, f]]).T + self.centre_px
            seen = np.isfinite(r) & ((radius > 0) | (z > 0))
        else:
            xy = p[..., :2] / np.where(z > 1e-9, z, np.inf)[..., None]
            if self.model == "brown":
                xy, seen = _distort_brown(xy, self.params[4:])
                seen &= z > 1e-9
            else:
                seen = z > 1e-9
            uv = xy * np.array(self.params[:2]) + self.centre_px
        u, v = uv[..., 0], uv[..., 1]
        return uv, seen & (u >= 0) & (u <= self.width) & (v >= 0) & (v <= self.height)

    # -- changing -------------------------------------------------------------------------------------------------

    def scaled(self, width: int, height: int) -> Camera:
        """The camera of the same image resized to `width` x `height`."""
        return self._mapped(width / self.width, height / self.height, 0.0, 0.0, width, height)

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """The camera of the part of the image that starts at pixel column `x` and row `y`."""
        return self._mapped(1.0, 1.0, x, y, width, height)

    def with_focal_scale(self, scale: float) -> Camera:
        """The camera whose focal length is `scale` times this one's, the image and its centre unchanged."""
        names = PARAMETERS[self.model]
        stretched = ("c", "d", "e", "f") if self.model == "omnidirectional" else ("fx", "fy")
        return replace(
            self, params=tuple(p * scale if n in stretched else p for n, p in zip(names, self.params, strict=True))
        )

    def straightened(self) -> Camera:
        """A pinhole of this size and focal length: square pixels, its axis in the middle of the image."""
        return Camera.pinhole(
            self.width, self.height, self.focal_px, self.focal_px, self.width / 2, self.height / 2
        )

    def _mapped(self, sx: float, sy: float, x: float, y: float, width: int, height: int) -> Camera:
        factor = {"fx": sx, "fy": sy, "cx": sx, "cy": sy, "c": sx, "d": sx, "e": sy, "f": sy}
        offset = {"cx": x, "cy": y}
        if self.model != "omnidirectional":
            factor.pop("c"), factor.pop("d"), factor.pop("e"), factor.pop("f")
        params = tuple(
            (p - offset.get(n, 0.0)) * factor.get(n, 1.0)
            for n, p in zip(PARAMETERS[self.model], self.params, strict=True)
        )
        return Camera(self.model, width, height, params)


@lru_cache(maxsize=8)
def _ray_map(camera: Camera) -> NDArray[np.float32]:
    rays = camera.rays(camera.pixels()).astype(np.float32)
    rays.setflags(write=False)
    return rays


def _unit(v: Float) -> Float:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def _distort_angle(theta: Float, k: ArrayLike) -> Float:
    k1, k2, k3, k4 = np.asarray(k)
    t2 = theta * theta
    return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))


def _distort_angle_slope(theta: Float, k: ArrayLike) -> Float:
    k1, k2, k3, k4 = np.asarray(k)
    t2 = theta * theta
    return 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))


def _angle_limit(k: ArrayLike) -> float:
    """The largest angle up to which the fisheye polynomial still grows."""
    grid = np.linspace(0, np.pi, 2049)
    falling = np.flatnonzero(_distort_angle_slope(grid, k) <= 0)
    return float(grid[falling[0]]) if len(falling) else np.pi


def _solve_angle(theta_d: Float, k: Float) -> Float:
    """Invert the fisheye polynomial by Newton's method on its growing branch; NaN beyond it."""
    limit = _angle_limit(k)
    theta = np.minimum(theta_d, limit)
    for _ in range(_NEWTON_STEPS):
        slope = np.maximum(_distort_angle_slope(theta, k), 1e-3)
        theta = np.clip(theta - (_distort_angle(theta, k) - theta_d) / slope, 0, limit)
    return np.where(np.abs(_distort_angle(theta, k) - theta_d) < 1e-9, theta, np.nan)


def _solve_radius(angle: Float, a0: float, a2: float, a3: float, a4: float) -> Float:
    """The radius in the sensor plane that a ray at `angle` from the axis meets; NaN where there is none."""
    # r cos(angle) = sin(angle) (a0 + a2 r^2 + a3 r^3 + a4 r^4)
    s, c = np.sin(angle), np.cos(angle)
    r = np.abs(a0) * np.tan(np.minimum(angle, 1.2))
    for _ in range(_NEWTON_STEPS):
        g = s * (a0 + r * r * (a2 + r * (a3 + r * a4))) - c * r
        slope = s * r * (2 * a2 + r * (3 * a3 + 4 * a4 * r)) - c
        r = np.clip(r - g / np.where(np.abs(slope) < 1e-6, -1e-6, slope), 0, 4 * abs(a0))
    z = a0 + r * r * (a2 + r * (a3 + r * a4))
    # The second condition refuses the opposite direction, which satisfies the equation as well.
    solved = (np.abs(s * z - c * r) < 1e-6 * abs(a0)) & (s * r + c * z > 0)
    return np.where(solved, r, np.nan)


def _distort_brown(xy: Float, d: tuple[float, ...]) -> tuple[Float, NDArray[np.bool_]]:
    k1, k2, p1, p2, k3 = d
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    # Past the radius at which the distorted radius stops growing, far rays would fold back into the image.
    growing = 1 + r2 * (3 * k1 + r2 * (5 * k2 + r2 * 7 * k3)) > 0
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([xd, yd], -1), growing & (radial > 0)


def _undistort_brown(target: Float, d: tuple[float, ...]) -> Float:
    """Invert the Brown-Conrady distortion by Newton's method with a numerical 2 x 2 Jacobian."""
    xy, step = target.copy(), 1e-6
    for _ in range(_NEWTON_STEPS):
        value = _distort_brown(xy, d)[0]
        dx = (_distort_brown(xy + [step, 0], d)[0] - value) / step
        dy = (_distort_brown(xy + [0, step], d)[0] - value) / step
        error = target - value
        det = dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]
        det = np.where(np.abs(det) < 1e-6, 1e-6, det)
        xy = xy + np.clip(
            np.stack(
                [
                    error[..., 0] * dy[..., 1] - error[..., 1] * dy[..., 0],
                    dx[..., 0] * error[..., 1] - dx[..., 1] * error[..., 0],
                ],
                -1,
            )
            / det[..., None],
            -0.5,
            0.5,
        )
    value, growing = _distort_brown(xy, d)
    solved = growing & (np.linalg.norm(value - target, axis=-1) < 1e-8)
    return np.where(solved[..., None], xy, np.nan)
