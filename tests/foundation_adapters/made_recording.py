"""A recording by formula: a textured plane before a camera that slides and nears it, with exact poses and depth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation_adapters.recordings import Recording
from video_io.camera import Camera

PINHOLE = Camera.pinhole(96, 64, 70.0, 70.0, 48.0, 32.0)
FISHEYE = Camera("fisheye", 96, 64, (50.0, 50.0, 47.0, 33.0, -0.05, 0.01, 0.0, 0.0))
AWAY = 40.0


def texture(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) in [0.2, 1]."""
    return np.stack(
        [0.6 + 0.2 * np.sin(x / a + 1) + 0.2 * np.cos(y / b) for a, b in ((1.0, 1.6), (1.5, 1.1), (2.0, 2.6))], -1
    )


def made(
    camera: Camera = PINHOLE, frames: int = 12, name: str = "plane", lit: bool = True, tilt: float = 0.3
) -> Recording:
    """Frames of the plane z = 40 + tilt x, the light in the lens: brightness falls with the square of the distance."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3], poses[:, 2, 3] = np.linspace(-6, 6, frames), np.linspace(0, 6, frames)
    images, distances = [], []
    for pose in poses:
        full, small = (camera.scaled(camera.width // s, camera.height // s).ray_map().astype(float) for s in (1, 2))
        distance = [meet(rays, pose[:3, 3], tilt) for rays in (full, small)]
        point = pose[:3, 3] + full * distance[0][..., None]
        linear = 0.8 * texture(point[..., 0], point[..., 1])
        if lit:
            linear = linear * (30 / distance[0][..., None]) ** 2
        images.append(np.clip(255 * linear ** (1 / 2.2), 0, 255).round().astype(np.uint8))
        distances.append(distance[1].astype(np.float32))
    h, w = camera.height, camera.width
    return Recording(
        name, camera, np.stack(images), np.ones((frames, h, w), bool), np.stack(distances),
        np.full((frames, h // 2, w // 2), 0.9, np.float32), poses,
    )  # fmt: skip


def meet(rays: NDArray[np.float64], origin: NDArray[np.float64], tilt: float) -> NDArray[np.float64]:
    """How far along unit rays the plane is."""
    return (AWAY + tilt * origin[0] - origin[2]) / (rays[..., 2] - tilt * rays[..., 0])
