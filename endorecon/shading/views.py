"""Frames as the refinement looks at them: the logarithm of the brightness, where it can be trusted, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from rendering.mesh import Caster, Mesh
from video_io.camera import Camera
from video_io.frame import Frame

Float = NDArray[np.float64]
Index = NDArray[np.int64]

# Of green and blue most is direct: what walls throw on each other is red.
CHANNELS = (0.0, 0.7, 0.3)
DARKEST, BRIGHTEST = 14, 240  # grey levels between which a pixel tells the light
EDGE_PX, HIGHLIGHT_PX = 3, 3  # that far from the edge of what can be used, and from a highlight
SHRINK = 2  # visibility is looked up in images this much smaller
SAME_DEPTH, IN_FRONT = 0.02, 0.05
LEAST_COSINE = 0.2  # places seen at a flatter angle do not count
NOISE, READ_NOISE = 0.03, 3.0  # of the log brightness, and in grey levels
_STEP = 1e-4  # of the distance, for slopes of the projection


@dataclass(frozen=True)
class View:
    """A frame and its pose.

    Attributes:
        frame: the image with its masks.
        world_from_cam: (4, 4).
    """

    frame: Frame
    world_from_cam: Float

    @cached_property
    def level(self) -> NDArray[np.float32]:
        """(H, W) grey levels."""
        return self.frame.rgb.astype(np.float32) @ np.array(CHANNELS, np.float32)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(H, W) True where the brightness tells the light."""
        top = self.frame.rgb[..., 1:].max(-1)
        good = self.frame.use_mask & (self.level > DARKEST) & (top < BRIGHTEST)
        good = cv2.erode(good.astype(np.uint8), np.ones((2 * EDGE_PX + 1,) * 2, np.uint8), borderValue=0)
        bright = self.frame.specular_mask.astype(np.uint8)
        bright = cv2.dilate(bright, np.ones((2 * HIGHLIGHT_PX + 1,) * 2, np.uint8))
        return (good > 0) & (bright == 0)

    def image(self, blur_px: float) -> NDArray[np.float32]:
        """(H, W, 4): log brightness after a blur, its slopes along x and y, and the inverse variance, 0 where the
        brightness tells nothing."""
        level = cv2.GaussianBlur(self.level, (0, 0), blur_px) if blur_px > 0 else self.level
        log = np.log(np.maximum(level, 1.0))
        kernel = np.array([-0.5, 0, 0.5], np.float32)
        slopes = cv2.filter2D(log, -1, kernel[None]), cv2.filter2D(log, -1, kernel[:, None])
        variance = NOISE**2 + (READ_NOISE / np.maximum(level, 1.0)) ** 2
        return np.stack([log, *slopes, np.where(self.usable, 1 / variance, 0).astype(np.float32)], -1)


class Sight:
    """Which vertices of a surface each view sees."""

    def __init__(self, mesh: Mesh, camera: Camera) -> None:
        self._caster = Caster(mesh)
        self._camera = camera.scaled(max(camera.width // SHRINK, 1), max(camera.height // SHRINK, 1))

    def of(self, view: View, vertices: Float, normals: Float) -> Index:
        """Numbers of the vertices in view, not hidden, and not seen at too flat an angle."""
        depth = self._caster.cast(self._camera, view.world_from_cam).depth
        points, towards = in_camera(view.world_from_cam, vertices, normals)
        at = np.flatnonzero(-(points * towards).sum(1) > LEAST_COSINE * np.linalg.norm(points, axis=1))
        uv, inside = self._camera.project(points[at])
        at, uv = at[inside], uv[inside]
        column = np.clip(uv[:, 0].astype(int), 0, self._camera.width - 1)
        row = np.clip(uv[:, 1].astype(int), 0, self._camera.height - 1)
        nearest = cv2.erode(np.where(depth > 0, depth, np.inf).astype(np.float32), np.ones((3, 3), np.uint8))
        z, there = points[at, 2], depth[row, column]
        flat = z / np.maximum(-(points[at] * towards[at]).sum(1) / np.linalg.norm(points[at], axis=1), LEAST_COSINE)
        pixel = flat / self._camera.focal_px
        seen = (there > 0) & (np.abs(there - z) < SAME_DEPTH * z + pixel)
        return at[seen & (nearest[row, column] > (1 - IN_FRONT) * z - 2 * pixel)]


def in_camera(world_from_cam: Float, vertices: Float, normals: Float) -> tuple[Float, Float]:
    """Points and directions (N, 3) in the camera frame."""
    rotation = world_from_cam[:3, :3]
    return (vertices - world_from_cam[:3, 3]) @ rotation, normals @ rotation


def movement(camera: Camera, points: Float, normals: Float) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Pixels (N, 2) of points in the camera frame, how they move (N, 2) with a unit along the normals, and whether they
    are in the image."""
    uv, inside = camera.project(points)
    step = _STEP * np.linalg.norm(points, axis=1, keepdims=True)
    moved, still = camera.project(points + step * normals)
    return uv, (moved - uv) / step, inside & still


def sample(image: NDArray[np.float32], uv: Float) -> NDArray[np.float32]:
    """(N, C) bilinear values at pixels (N, 2), whose (0.5, 0.5) is the middle of the first one."""
    height, width = image.shape[:2]
    x = np.clip(uv[:, 0] - 0.5, 0, width - 1.001)
    y = np.clip(uv[:, 1] - 0.5, 0, height - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    a, b = (x - column).astype(np.float32)[:, None], (y - row).astype(np.float32)[:, None]
    flat, at = image.reshape(height * width, -1), row * width + column
    top = flat[at] * (1 - a) + flat[at + 1] * a
    bottom = flat[at + width] * (1 - a) + flat[at + width + 1] * a
    return top * (1 - b) + bottom * b
