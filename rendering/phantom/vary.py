"""Random cameras, lights and video processors: what may differ from one endoscope to another."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from rendering.light import SpotLight
from rendering.phantom.render import Look
from rendering.phantom.scene import Anatomy
from rendering.shade import Response
from video_io.camera import Camera


def random_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """Pinhole of 45 to 110 degrees across, or (30 %) a fisheye of 90 to 155; off-centre, pixels not quite square."""
    cx, cy = (
        width * (0.5 + np.clip(rng.normal(0, 0.03), -0.09, 0.09)),
        height * (0.5 + np.clip(rng.normal(0, 0.03), -0.09, 0.09)),
    )
    aspect = 1 + np.clip(rng.normal(0, 0.015), -0.04, 0.04)
    if rng.random() < 0.3:
        half = np.radians(rng.uniform(90, 155)) / 2
        k = (rng.uniform(-0.06, 0.06), rng.uniform(-0.01, 0.01), 0.0, 0.0)
        bent = half * (1 + k[0] * half**2 + k[1] * half**4)
        f = width / 2 / bent
        camera = Camera("fisheye", width, height, (f, f * aspect, cx, cy, *k))
        if np.isfinite(camera.ray_map()).all():
            return camera
        return Camera("fisheye", width, height, (f, f * aspect, cx, cy, 0.0, 0.0, 0.0, 0.0))
    f = width / 2 / math.tan(np.radians(rng.uniform(45, 110)) / 2)
    return Camera.pinhole(width, height, f, f * aspect, cx, cy)


def random_lights(rng: np.random.Generator) -> tuple[SpotLight, ...]:
    """One to three lights 0 to 4 mm from the optical centre, on one side, on both, or around the lens."""
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    start, offset = rng.uniform(0, 2 * np.pi), rng.uniform(0, 4)
    exponent = float(np.exp(rng.uniform(np.log(0.3), np.log(4))))
    cutoff = rng.uniform(np.radians(45), np.radians(150))
    tint = np.array([1.0, rng.uniform(0.85, 1.05), rng.uniform(0.75, 1.1)])
    lights = []
    for i in range(count):
        turn = start + 2 * np.pi * i / count + rng.normal(0, 0.1)
        tilt = rng.normal(0, 0.08, 2)
        axis = np.array([tilt[0], tilt[1], 1.0]) / np.linalg.norm([tilt[0], tilt[1], 1.0])
        position = (offset * np.cos(turn), offset * np.sin(turn), rng.uniform(-1, 0.2))
        intensity = tint * rng.uniform(0.6, 1.4)
        lights.append(SpotLight(tuple(map(float, position)), tuple(axis), exponent, cutoff, tuple(intensity)))
    return tuple(lights)


def random_look(rng: np.random.Generator, anatomy: Anatomy) -> Look:
    """Random materials, lights and textures. 8 % have no light between surfaces."""
    return Look(
        materials=anatomy.dressed(rng),
        lights=random_lights(rng),
        seed=int(rng.integers(1 << 24)),
        interreflection=0.0 if rng.random() < 0.08 else rng.uniform(0.55, 1.2),
        ambient=float(rng.uniform(0, 0.4)) if rng.random() < 0.3 else 0.0,
        shadows=bool(rng.random() < 0.2),
    )


def random_response(rng: np.random.Generator) -> Response:
    """A random video processor."""
    quantile = rng.uniform(0.3, 0.8)
    return Response(
        level=rng.uniform(0.32, 0.66) + 0.2 * (quantile - 0.5),
        quantile=quantile,
        gamma=rng.uniform(1.7, 2.5),
        shoulder=rng.uniform(0, 1),
        white_balance=tuple(np.exp(rng.normal(0, 0.07, 3))),
        vignette=rng.uniform(0, 0.5),
        read_noise=float(np.exp(rng.uniform(np.log(0.001), np.log(0.015)))),
        shot_noise=float(np.exp(rng.uniform(np.log(0.002), np.log(0.03)))),
        blur_px=rng.uniform(0, 0.9),
        lag=rng.uniform(0.5, 0.9),
    )


def field_mask(kind: str, camera: Camera, rng: np.random.Generator | None = None) -> NDArray[np.bool_]:
    """Where the optics show an image, (H, W) bool: `none` (everywhere), `circle`, `octagon` or `rounded`.

    With `rng` the size and place vary; without, the circle touches the longer pair of sides' midpoints less 2 %.
    """
    w, h = camera.width, camera.height
    cx, cy, size = w / 2, h / 2, 0.98
    if rng is not None:
        cx, cy, size = cx + rng.normal(0, 0.02) * w, cy + rng.normal(0, 0.02) * h, rng.uniform(0.85, 1.15)
    u, v = np.meshgrid(np.arange(w) + 0.5 - cx, np.arange(h) + 0.5 - cy)
    half = size * h / 2
    if kind == "none":
        return np.ones((h, w), bool)
    if kind == "circle":
        return u * u + v * v < half * half
    if kind == "octagon":
        side = size * w / 2
        return (np.abs(u) < side) & (np.abs(v) < half) & (np.abs(u) + np.abs(v) < 0.72 * (side + half))
    if kind == "rounded":
        mask = np.zeros((h, w), np.uint8)
        r = int(0.25 * half)
        x0, x1, y0, y1 = int(cx - size * w / 2) + r, int(cx + size * w / 2) - r, int(cy - half) + r, int(cy + half) - r
        cv2.rectangle(mask, (max(x0, 0), max(y0, 0)), (min(x1, w - 1), min(y1, h - 1)), 1, -1)
        return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))) > 0
    raise ValueError(f"field of view '{kind}' is not known; there are none, circle, octagon, rounded")
