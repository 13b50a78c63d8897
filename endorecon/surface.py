"""Depth of the frames from the surface on which all of them have agreed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.densify import Correction, NetworkDepth
from endorecon.tracking.observation import Observation
from rendering.mesh import Caster, Mesh, nearest_on
from video_io.camera import Camera

if TYPE_CHECKING:
    from endorecon.scenes.base import Scene

# The surface is looked at in images this much smaller: what it changes in a frame's depth is smooth.
SHRINK = 4
# Seen at a flatter angle than this it is badly fused.
LEAST_COSINE = 0.2
# Where surface and frame differ by this much (of the log distance) each has half a say: something may have moved.
DOUBTED_GAP = 0.1
# The change is carried over small gaps, as far as this, in pixels of the smaller image.
REACH_PX = 2.0
AGAIN = 2  # times that frames are fused again
# What is wider than this share of the depth in what fusing again changes is taken back: steps are narrow, and each
# fusion flattens the surface a little.
WIDE = 0.1


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


def fused_again(
    mesh: Mesh,
    camera: Camera,
    frames: Callable[[Surface], Iterable[Observation]],
    make_scene: Callable[[float], Scene],
    times: int = AGAIN,
) -> Mesh:
    """The surface fused once more from frames that have been brought to it.

    Frames whose depths are bent or shifted against each other are fused to a surface that is blurred. Each of them is
    bent to the common surface, smoothly, so that it keeps its own detail, and the details then lie upon each other: a
    non-rigid alignment of all frames to their mean, as of images to an atlas (Joshi et al., NeuroImage 2004).

    Args:
        mesh, camera: the surface, and the camera that it was seen by.
        frames: gives the frames with their depth as a surface corrects it.
        make_scene: an empty scene for a median depth.
        times: how often.
    """
    first, depth = mesh, 0.0
    for _ in range(times):
        if not len(mesh.faces):
            return first
        scene: Scene | None = None
        for seen in frames(Surface(mesh, camera)):
            if scene is None:
                depth = seen.median_depth
                scene = make_scene(depth)
            scene.integrate(seen)
        if scene is None:
            return first
        mesh = scene.mesh()
    return anchored(mesh, first, WIDE * depth)


def anchored(mesh: Mesh, first: Mesh, width: float) -> Mesh:
    """A mesh moved along its normals so that in the mean over `width` (standard deviation, in the mesh's unit) it lies
    on another."""
    from endorecon.shading.operators import edges, neighbours, rings

    if not (len(mesh.faces) and len(first.faces)):
        return mesh
    x, normals = mesh.vertices.astype(np.float64), mesh.vertex_normals
    near = nearest_on(first, x)
    there = (near.distance < width).astype(np.float64)
    gap = there * ((near.point - x) * normals).sum(1)
    pairs = edges(mesh.faces)
    mean = neighbours(pairs, len(x))
    for _ in range(rings(width, float(((x[pairs[:, 0]] - x[pairs[:, 1]]) ** 2).sum(1).mean()))):
        gap, there = (gap + mean @ gap) / 2, (there + mean @ there) / 2
    moved = x + (gap / np.maximum(there, 1e-9))[:, None] * normals
    return replace(mesh, vertices=moved.astype(np.float32))
