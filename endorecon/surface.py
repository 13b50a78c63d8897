"""Depth of the frames from the surface on which all of them have agreed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.densify import Correction, NetworkDepth
from rendering.mesh import Caster, Mesh
from video_io.camera import Camera

# The surface is looked at in images this much smaller: what it changes in a frame's depth is smooth.
SHRINK = 4
# Seen at a flatter angle than this it is badly fused.
LEAST_COSINE = 0.2
# Where surface and frame differ by this much (of the log distance) each has half a say: something may have moved.
DOUBTED_GAP = 0.1
# The change is carried over small gaps, as far as this, in pixels of the smaller image.
REACH_PX = 2.0


class Surface:
    """A fused surface, prepared to be looked at by the camera whose frames it was fused from."""

    def __init__(self, mesh: Mesh, camera: Camera) -> None:
        self._caster = Caster(mesh)
        self._camera = camera.scaled(max(camera.width // SHRINK, 1), max(camera.height // SHRINK, 1))
        self._rays = self._camera.ray_map()

    def distance(self, world_from_cam: NDArray[np.float64]) -> NDArray[np.float32]:
        """(H, W) / 4: along the rays from a pose, 0 where there is no surface or it is seen too flatly."""
        hits = self._caster.cast(self._camera, world_from_cam)
        with np.errstate(invalid="ignore"):
            steep = -(hits.normals * self._rays).sum(-1) > LEAST_COSINE
            seen = (hits.faces >= 0) & steep & (self._rays[..., 2] > 1e-3)
            return np.where(seen, hits.depth / self._rays[..., 2], 0).astype(np.float32)

    def correct(self, net: NetworkDepth, correction: Correction, world_from_cam: NDArray[np.float64]) -> Correction:
        """The correction that brings a frame's depth to the surface, as far as the two do not contradict each other."""
        surface = self.distance(world_from_cam)
        size = (surface.shape[1], surface.shape[0])
        own = cv2.resize(np.log(net.distance), size, interpolation=cv2.INTER_AREA)
        own += cv2.resize(correction.mean, size, interpolation=cv2.INTER_CUBIC)
        seen = surface > 0
        gap = np.where(seen, np.log(np.where(seen, surface, 1)) - own, 0).astype(np.float32)
        weight = (seen / (1 + (gap / DOUBTED_GAP) ** 2)).astype(np.float32)
        # What is near and seen speaks for what is not.
        near, total = (cv2.GaussianBlur(x, (0, 0), REACH_PX) for x in (weight * gap, weight))
        change = weight * gap + (1 - weight) * np.where(seen, 0, near / np.maximum(total, 0.1))
        # Specks of surface in the air, as moving things leave them, say nothing of what is around them.
        change = cv2.medianBlur(change.astype(np.float32), 3)
        mean = own + change - cv2.resize(np.log(net.distance), size, interpolation=cv2.INTER_AREA)
        std = cv2.resize(correction.std, size, interpolation=cv2.INTER_LINEAR)
        return Correction(mean.astype(np.float32), std)
