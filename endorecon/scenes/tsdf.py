"""A surface as a truncated signed distance field in sparse voxel blocks.

After Curless and Levoy (SIGGRAPH 1996) with hashed blocks (Niessner et al., SIGGRAPH Asia 2013); the uncertainty of a
depth sets the slope of its distance ramp as in Liu et al. (MICCAI 2020). Each pixel counts as a small plane, so that
the surfaces of a tube seen obliquely are neither pushed outwards nor torn.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from endorecon.scenes._relief import smoothed
from rendering.mesh import Mesh, without_small_parts
from video_io.camera import Camera
from video_io.frame import Frame

if TYPE_CHECKING:
    from endorecon.scenes.base import Setting

VOXELS_A_DEPTH = 64
# The ramp of a pixel is two standard deviations of its depth to either side, so near folds stay thin and the ramps of
# frames whose errors differ still overlap. With errors of 5 %, 4 voxels for all doubled the fused surface's error.
TRUNCATION_VOXELS = 16
LOG_STD = 0.06
SMOOTHING_PX = 4.0
FAR_DEPTHS = 6.0
_LOOKUP_SIZE = 512
_LOOKUP_MARGIN_PX = 8


def make(median_depth: float, setting: Setting) -> TsdfScene:
    """An empty scene for a clip with this median depth."""
    return TsdfScene.for_depth(median_depth)


class Observed(Protocol):
    """What a scene needs of an observation: `endorecon.tracking.observation.Observation` fits."""

    @property
    def frame(self) -> Frame: ...
    @property
    def depth(self) -> NDArray[np.float32]: ...
    @property
    def confidence(self) -> NDArray[np.float32]: ...
    @property
    def world_from_cam(self) -> NDArray[np.float64]: ...


class TsdfScene:
    """A surface that grows with each observation, in bounded memory.

    Attributes:
        voxel: edge length of a voxel, in the unit of depth and poses; it doubles whenever `max_blocks` is reached.
        warnings: what happened that the user should know, a sentence each.
        frames: observations integrated so far.
    """

    def __init__(
        self,
        voxel: float,
        truncation: float | None = None,
        max_blocks: int = 20_000,
        reference_depth: float | None = None,
        smoothing_px: float = SMOOTHING_PX,
        reserved: bool = False,
    ) -> None:
        """An empty scene.

        Args:
            voxel: edge length of a voxel.
            truncation: largest distance at which the signed distance is cut off; 16 voxels unless given.
            max_blocks: most blocks of 8 x 8 x 8 voxels that are kept, 7 KB each.
            reference_depth: the depth at which a pixel counts once: nearer ones count more, since the error of a
                depth grows with it. 64 voxels unless given.
            smoothing_px: width of the relief that is not believed where it is low (`_relief.smoothed`); 0 for none.
            reserved: take the memory for `max_blocks` now, so that it does not grow with the scene.

        Raises:
            ValueError: a size that is not positive.
        """
        truncation = TRUNCATION_VOXELS * voxel if truncation is None else truncation
        reference_depth = VOXELS_A_DEPTH * voxel if reference_depth is None else reference_depth
        if not (voxel > 0 and truncation >= voxel and reference_depth > 0 and max_blocks >= 8):
            raise ValueError(
                "a TSDF needs voxel > 0, truncation >= voxel, reference depth > 0 and at least 8 blocks, found "
                f"{voxel:g}, {truncation:g}, {reference_depth:g} and {max_blocks}"
            )
        self.voxel, self.truncation, self.reference_depth = float(voxel), float(truncation), float(reference_depth)
        self.max_blocks, self.smoothing_px, self.frames = max_blocks, smoothing_px, 0
        self._reserved = reserved
        self.warnings: list[str] = []
        self._allocate()

    @staticmethod
    def for_depth(median_depth: float, max_blocks: int = 20_000, reserved: bool = False) -> TsdfScene:
        """An empty scene whose voxels suit a clip with this median depth."""
        return TsdfScene(median_depth / VOXELS_A_DEPTH, max_blocks=max_blocks, reserved=reserved)

    @property
    def blocks(self) -> int:
        """Blocks in use."""
        return self._count

    def integrate(self, observation: Observed) -> None:
        """Add an observation; its frame must carry a camera.

        Raises:
            ValueError: no camera, arrays that do not fit the image, or a pose that is not finite.
        """
        frame = observation.frame
        if frame.camera is None:
            raise ValueError(f"frame {frame.index} has no camera; a scene needs one to place its depth")
        self.integrate_depth(
            frame.rgb,
            observation.depth,
            observation.confidence,
            frame.camera,
            observation.world_from_cam,
            log_std=getattr(observation, "log_std", None),
            specular_mask=frame.specular_mask,
        )

    def integrate_depth(
        self,
        rgb: NDArray[np.uint8],
        depth: NDArray[np.float32],
        confidence: NDArray[np.float32],
        camera: Camera,
        world_from_cam: NDArray[np.float64],
        log_std: NDArray[np.float32] | None = None,
        specular_mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one image.

        Args:
            rgb: (H, W, 3) colours.
            depth: (H, W) z-depth, same unit as the voxels.
            confidence: (H, W) in [0, 1]; 0 is invalid.
            camera: the camera of this image size.
            world_from_cam: (4, 4) pose.
            log_std: (H, W) standard deviation of log depth; the surer a depth, the steeper and shorter its distance
                ramp. 0.06 everywhere unless given.
            specular_mask: (H, W), True on highlights, whose colour hardly counts.

        Raises:
            ValueError: arrays that do not fit the camera, or a pose that is not finite.
        """
        from endorecon.scenes import _tsdf_kernels as kernels

        shape = (camera.height, camera.width)
        log_std = np.broadcast_to(np.float32(LOG_STD), shape) if log_std is None else log_std
        specular_mask = np.zeros(shape, np.bool_) if specular_mask is None else specular_mask
        pose = np.ascontiguousarray(world_from_cam, np.float64)
        _check(shape, pose, rgb=rgb, depth=depth, confidence=confidence, log_std=log_std, specular_mask=specular_mask)
        rays = camera.ray_map()
        depth, confidence, log_std = (np.ascontiguousarray(a, np.float32) for a in (depth, confidence, log_std))
        if self.smoothing_px > 0:
            depth = smoothed(depth, confidence, log_std, self.smoothing_px)
        surfels = np.empty((*shape, kernels.SURFEL), np.float32)
        far = FAR_DEPTHS * self.reference_depth
        limits = (2 * self.voxel, self.truncation)
        kernels.measure_surfels(depth, confidence, log_std, rays, self.reference_depth, far, *limits, surfels)
        touched = self._touch(surfels, rays, pose, 1.0 / camera.focal_px)
        pinhole, lookup, scale = _projection(camera)
        kernels.integrate(
            touched, self._coordinates, self._tsdf, self._weights, self._colors, surfels,
            np.ascontiguousarray(rgb), np.ascontiguousarray(specular_mask), np.linalg.inv(pose),
            self.voxel, pinhole, lookup, scale,
        )  # fmt: skip
        self.frames += 1

    def mesh(self, min_weight: float = 0.1, min_faces: int = 200) -> Mesh:
        """The surface so far.

        Args:
            min_weight: voxels with less weight are left out: 1 is a sure pixel seen square-on at the reference depth.
            min_faces: connected parts of fewer faces are left out.
        """
        from endorecon.scenes._marching_cubes import extract

        n = self._count
        points, faces, colors, weight = extract(
            self._coordinates[:n], self._tsdf[:n], self._weights[:n], self._colors[:n], self._keys, self._rows,
            self.voxel, max(min_weight, 1e-6),
        )  # fmt: skip
        return without_small_parts(Mesh(points, faces, colors, weight), min_faces)

    # -- storage --------------------------------------------------------------------------------------------------

    def _allocate(self) -> None:
        # zero pages are not committed before they are written, so an unused part of the cap costs nothing
        from endorecon.scenes._tsdf_kernels import EMPTY, VOXELS

        n = self.max_blocks
        self._tsdf = np.zeros((n, VOXELS), np.float32)
        self._weights = np.zeros((n, VOXELS), np.float32)
        self._colors = np.zeros((n, VOXELS, 3), np.uint16)
        for array in (self._tsdf, self._weights, self._colors) if self._reserved else ():
            array.fill(0)
        self._coordinates = np.zeros((n, 3), np.int32)
        self._stamps = np.full(n, -1, np.int64)
        slots = 1 << int(np.ceil(np.log2(2 * n)))
        self._keys, self._rows = np.full(slots, EMPTY), np.zeros(slots, np.int32)
        self._count = 0

    def _touch(
        self, surfels: NDArray[np.float32], rays: NDArray[np.float32], pose: NDArray[np.float64], pixel: float
    ) -> NDArray[np.int32]:
        """Rows of the blocks near the measured surface; makes room by coarsening when they do not fit."""
        from endorecon.scenes._tsdf_kernels import SIDE, touch

        touched = np.empty(self.max_blocks, np.int32)
        while True:
            self._count, number = touch(
                surfels, rays, pose, SIDE * self.voxel, pixel, self._keys, self._rows,
                self._coordinates, self._count, self._stamps, self.frames, touched,
            )  # fmt: skip
            if number >= 0:
                return touched[:number]
            self._coarsen()

    def _coarsen(self) -> None:
        from endorecon.scenes._tsdf_kernels import coarsen

        old = (self._coordinates, self._count, self._tsdf, self._weights, self._colors)
        self._allocate()
        self._count = coarsen(
            *old, self._keys, self._rows, self._coordinates, self._tsdf, self._weights, self._colors
        )
        self.warnings.append(
            f"the scene outgrew {self.max_blocks} blocks after {self.frames} frames: "
            f"voxels were doubled from {self.voxel:.3g} to {2 * self.voxel:.3g}"
        )
        self.voxel *= 2
        self.truncation *= 2


def _check(shape: tuple[int, int], pose: NDArray[np.float64], **maps: NDArray) -> None:
    for name, values in maps.items():
        if values.shape[:2] != shape:
            raise ValueError(f"{name} is {values.shape}, the camera's image is {shape}")
    if pose.shape != (4, 4) or not np.all(np.isfinite(pose)):
        raise ValueError("a pose must be a finite 4 x 4 matrix; refuse the frame instead of integrating it")


@lru_cache(maxsize=4)
def _projection(camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32], np.float32]:
    """How the kernels project: (pinhole parameters, look-up table, its scale); the table is empty for a pinhole.

    The table holds pixel positions over the stereographic plane (x, y) / (r + z), NaN where the camera sees nothing.
    """
    if camera.model == "pinhole":
        return np.array(camera.params, np.float32), np.empty((0, 0, 2), np.float32), np.float32(0)
    rays = camera.ray_map().reshape(-1, 3)
    rays = rays[np.isfinite(rays[:, 2]) & (rays[:, 2] > -0.9)].astype(np.float64)
    reach = 1.05 * float(np.abs(rays[:, :2] / (1 + rays[:, 2:])).max())
    axis = np.linspace(-reach, reach, _LOOKUP_SIZE)
    a, b = np.meshgrid(axis, axis)
    square = a * a + b * b
    # seen a little beyond the border, so that interpolation reaches the last pixel
    m = _LOOKUP_MARGIN_PX
    wider = camera.cropped(-m, -m, camera.width + 2 * m, camera.height + 2 * m)
    pixels, seen = wider.project(np.stack([2 * a, 2 * b, 1 - square], -1))
    table = np.where(seen[..., None], pixels - m, np.nan).astype(np.float32)
    return np.zeros(4, np.float32), table, np.float32((_LOOKUP_SIZE - 1) / (2 * reach))
