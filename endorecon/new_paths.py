"""New ways of a camera through a reconstructed scene: as the hand went, but elsewhere, and only past what was seen.

A way follows the run's own path forwards or backwards, faster or slower, beside it and turned against it, all of it
smooth. Every pose is checked by ray casting: it keeps its distance from the surface, and sees surface from its front
nearly everywhere. Calmer and calmer ways are tried; where none is clear to its end, the longest clear piece is gone to
and fro.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, Slerp

from rendering.mesh import Caster, Mesh, distances_to
from rendering.phantom.paths import wobble
from video_io.camera import Camera
from video_io.errors import InputError

Float = NDArray[np.float64]

# Of the distance that the run's own path nearly always keeps.
SAFE_SHARE = 0.7
# How much less of a picture may be surface than of the run's own pictures, and what is always enough.
SEEN_LESS, SEEN_ENOUGH = 0.03, 0.97
_ATTEMPTS, _CALMER = 14, 0.82
_LOOKED_AT = 40  # poses of the run's path
_SMALL = 8  # times smaller than the pictures are the views that check a pose
# Of the median distance, and in rad: how far beside and turned a way of full sway is.
_BESIDE, _TURNED, _ROLLED = 0.14, 0.16, 0.35


@dataclass(frozen=True)
class Way:
    """A camera's way.

    Attributes:
        world_from_cam: (N, 4, 4).
        at: (N,) where on the run's path each pose is, as a number of a pose with its fraction.
        seen: the least share of a picture on it that is surface.
        sway: of the full liveliness, what it has.
    """

    world_from_cam: Float
    at: Float
    seen: float
    sway: float


class NewPaths:
    """Finds ways through a scene.

    Args:
        mesh: the scene's surface, its front towards where it was seen from.
        camera: of the pictures.
        world_from_cam: (M, 4, 4) the run's own path.
        picture: (H, W) bool, the part of the picture that shows anything; by default all of it.

    Raises:
        InputError: fewer than two poses, or a surface that they do not see.
    """

    def __init__(
        self, mesh: Mesh, camera: Camera, world_from_cam: Float, picture: NDArray[np.bool_] | None = None
    ) -> None:
        import cv2

        if len(world_from_cam) < 2 or not len(mesh.faces):
            raise InputError(
                f"new paths start from a path and a surface, found {len(world_from_cam)} poses and {len(mesh.faces)} "
                "faces; reconstruct a longer clip"
            )
        self._mesh, self._caster = mesh, Caster(mesh)
        self._camera = camera.scaled(max(camera.width // _SMALL, 8), max(camera.height // _SMALL, 8))
        size = (self._camera.width, self._camera.height)
        rays = self._camera.ray_map().reshape(-1, 3)
        inside = np.ones(len(rays), bool)
        if picture is not None:
            inside = cv2.resize(picture.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).ravel() > 0
        self._rays = rays[inside & np.isfinite(rays[:, 0])].astype(np.float64)
        self._own = _smooth(np.asarray(world_from_cam, float))
        looked = self._own[np.unique(np.linspace(0, len(self._own) - 1, _LOOKED_AT).round().astype(int))]
        shares, medians = zip(*(self._looked(pose) for pose in looked), strict=True)
        if max(shares) < 0.3:
            raise InputError(
                f"the run's own path sees its surface in {100 * max(shares):.0f} % of a picture at most; expected "
                "nearly all of it; reconstruct the clip again"
            )
        self.typical = float(np.nanmedian(medians))
        self.safe = SAFE_SHARE * float(np.percentile(distances_to(mesh, looked[:, :3, 3]), 10))
        self.least_seen = min(float(np.median(shares)) - SEEN_LESS, SEEN_ENOUGH)

    def find(self, rng: np.random.Generator, frames: int, fps: float = 30.0) -> Way:
        """A way of so many frames.

        Raises:
            InputError: not even the run's own path is clear.
        """
        best = Way(np.empty((0, 4, 4)), np.empty(0), 0.0, 0.0)
        for attempt in range(_ATTEMPTS):
            sway = _CALMER**attempt if attempt < _ATTEMPTS - 1 else 0.0
            poses, at = self._way(rng, frames, fps, sway)
            shares = np.array([self._looked(pose)[0] for pose in poses])
            clear = (shares >= self.least_seen) & (distances_to(self._mesh, poses[:, :3, 3]) >= self.safe)
            first, end = longest_run(clear)
            if end - first > len(best.at):
                best = Way(poses[first:end], at[first:end], float(shares[first:end].min()), sway)
            if len(best.at) == frames:
                break
        if len(best.at) < min(frames, max(2, int(fps / 3))):
            raise InputError(
                f"no camera path of {frames} frames stays clear of the surface and sees {100 * self.least_seen:.0f} % "
                "of surface in every picture; expected a run whose surface is nearly closed; reconstruct a longer clip"
            )
        there_and_back = np.concatenate([np.arange(len(best.at)), np.arange(len(best.at) - 2, 0, -1)])
        order = there_and_back[np.arange(frames) % len(there_and_back)]
        return Way(best.world_from_cam[order], best.at[order], best.seen, best.sway)

    def _way(self, rng: np.random.Generator, frames: int, fps: float, sway: float) -> tuple[Float, Float]:
        """Poses (frames, 4, 4) of one try, and where on the run's path they are."""
        last = len(self._own) - 1
        speed = rng.uniform(0.6, 1.4) * rng.choice([-1, 1])
        travelled = np.cumsum(np.maximum(1 + 0.3 * sway * wobble(rng, frames, fps, 1, 0.8)[:, 0], 0.2)) * speed
        at = rng.uniform(0, last) + travelled
        at = last - np.abs(at % (2 * last) - last)  # at an end it turns round
        shift = np.clip(rng.standard_normal(3) * 0.7 + wobble(rng, frames, fps, 3, 1.2), -2.5, 2.5)
        turn = np.clip(rng.standard_normal(3) * 0.5 + wobble(rng, frames, fps, 3, 1.0), -2.5, 2.5)
        offset = np.tile(np.eye(4), (frames, 1, 1))
        # Along its axis the camera moves by itself.
        offset[:, :3, 3] = sway * _BESIDE * self.typical * shift * [1, 1, 0.5]
        offset[:, :3, :3] = Rotation.from_rotvec(sway * turn * [_TURNED, _TURNED, _ROLLED]).as_matrix()
        return _between(self._own, at) @ offset, at

    def _looked(self, pose: Float) -> tuple[float, float]:
        """Of the picture at a pose the share that is surface seen from its front, and the median distance to it."""
        rays = self._rays @ pose[:3, :3].T
        distance, face = self._caster.along(pose[:3, 3], rays)
        hit = face >= 0
        front = np.zeros(len(rays), bool)
        front[hit] = (self._mesh.face_normals[face[hit]] * rays[hit]).sum(1) < 0
        return float(front.mean()), float(np.median(distance[front])) if front.any() else np.nan


def longest_run(clear: NDArray[np.bool_]) -> tuple[int, int]:
    """Begin and end of the longest stretch of True; (0, 0) where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], clear, [False]]).astype(np.int8)))
    if not len(edges):
        return 0, 0
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int(ends[longest])


def _smooth(poses: Float, frames: float = 1.0) -> Float:
    """Poses without the shaking of their estimates."""
    out = poses.copy()
    out[:, :3, 3] = gaussian_filter1d(poses[:, :3, 3], frames, axis=0, mode="nearest")
    return out


def _between(poses: Float, at: Float) -> Float:
    """Poses (N, 4, 4) at places (N,) between those of a path: straight lines, and the shortest turns."""
    n = np.arange(len(poses))
    out = np.tile(np.eye(4), (len(at), 1, 1))
    out[:, :3, 3] = np.stack([np.interp(at, n, poses[:, i, 3]) for i in range(3)], 1)
    out[:, :3, :3] = Slerp(n, Rotation.from_matrix(poses[:, :3, :3]))(np.clip(at, 0, n[-1])).as_matrix()
    return out
