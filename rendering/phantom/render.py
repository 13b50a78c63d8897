"""Ray casting of an anatomy and its shading: linear radiance with exact distance, normals and albedo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rendering.bounce import PATHS
from rendering.light import SpotLight, pack_lights
from rendering.phantom.indirect import indirect_irradiance
from rendering.phantom.kernel import mean_irradiance, shade, surface_points
from rendering.phantom.material import Material, mean_albedo, pack_materials
from rendering.phantom.scene import Anatomy
from video_io.camera import Camera

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """How an anatomy is dressed and lit.

    Attributes:
        materials: one a part.
        lights: fixed to the camera.
        seed: of the textures.
        interreflection: what the albedo is multiplied by for the light that surfaces pass on to each other; 0: none.
        ambient: irradiance from everywhere, as a share of the mean direct irradiance.
        shadows: whether rays to the lights are cast.
        paths: from each place that light between surfaces is traced at; its noise is 17 % there with 32 of them.
    """

    materials: tuple[Material, ...]
    lights: tuple[SpotLight, ...]
    seed: int
    interreflection: float = 1.0
    ambient: float = 0.0
    shadows: bool = False
    paths: int = PATHS


@dataclass(frozen=True)
class Rendered:
    """A view before the camera's response.

    Attributes:
        linear_rgb: (H, W, 3) float32 radiance.
        distance: (H, W) float32, mm along the unit ray; 0 where there is no surface.
        normals: (H, W, 3) float32, camera frame, towards the camera's side; of the geometry, without the relief of
            the shading.
        albedo: (H, W, 3) float32, linear.
        inside_out: share of the pixels that see a surface from within the tissue.
    """

    linear_rgb: Float32
    distance: Float32
    normals: Float32
    albedo: Float32
    inside_out: float


class Renderer:
    """Casts rays into one anatomy. Building it takes the time; views are then cheap.

    Args:
        anatomy: as it is now.
        rest: (V, 3) its vertices while the tissue is at rest, which the texture goes by; the same unless given.
    """

    def __init__(self, anatomy: Anatomy, rest: Float32 | None = None) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.anatomy, self._rest = anatomy, rest
        self._scene = EmbreeScene()
        # Embree reads these arrays in place, so they are kept.
        self._mesh = TriangleMesh(self._scene, anatomy.vertices, anatomy.faces)

    def displaced(self, moved: Float) -> Renderer:
        """The same anatomy with its vertices (V, 3) moved."""
        return Renderer(self.anatomy.displaced(moved), self.anatomy.vertices if self._rest is None else self._rest)

    def rest_points(self, camera: Camera, world_from_cam: Float) -> Float32:
        """(H, W, 3) where the points that a camera sees are while the tissue is at rest; not a number for none."""
        rays, valid = _world_rays(camera, world_from_cam)
        _, _, rest, _, parts, _ = self._cast(world_from_cam[:3, 3], rays)
        rest[~valid | (parts < 0)] = np.nan
        return rest.reshape(camera.height, camera.width, 3)

    def _cast(
        self, origin: Float32, rays: Float32
    ) -> tuple[Float32, Float32, Float32, Float32, NDArray[np.int32], int]:
        """Distance (0 where nothing is met), points, the same at rest, normals, parts (-1 likewise), and the number
        seen from behind."""
        n = len(rays)
        origins = np.broadcast_to(origin.astype(np.float32), (n, 3)).copy()
        hit = self._scene.run(origins, rays, output=1)
        primitive = np.asarray(hit["primID"], np.int32)
        distance = np.where(primitive >= 0, hit["tfar"], 0).astype(np.float32)
        points, normals = np.zeros((n, 3), np.float32), np.zeros((n, 3), np.float32)
        parts = np.empty(n, np.int32)
        a = self.anatomy
        behind = surface_points(
            primitive,
            hit["u"],
            hit["v"],
            distance,
            origin,
            rays,
            a.faces,
            a.normals,
            a.face_part,
            points,
            normals,
            parts,
        )
        rest = points
        if self._rest is not None:
            corners = self._rest[a.faces[np.maximum(primitive, 0)]]
            u, v = np.float32(hit["u"])[:, None], np.float32(hit["v"])[:, None]
            rest = (1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2]
        return distance, points, rest, normals, parts, behind

    def distances(self, camera: Camera, world_from_cam: Float) -> tuple[Float32, float]:
        """Distance (H, W) along the rays, and the share of the pixels that see a surface from within the tissue."""
        rays, valid = _world_rays(camera, world_from_cam)
        distance, *_, behind = self._cast(world_from_cam[:3, 3], rays)
        return np.where(valid, distance, 0).reshape(camera.height, camera.width), behind / max(len(rays), 1)

    def render(self, camera: Camera, world_from_cam: Float, look: Look) -> Rendered:
        """The view of `camera` at `world_from_cam`."""
        shape = (camera.height, camera.width)
        rays, valid = _world_rays(camera, world_from_cam)
        eye = world_from_cam[:3, 3]
        distance, points, rest, normals, parts, behind = self._cast(eye, rays)
        parts[~valid] = -1
        distance[~valid] = 0
        lights = pack_lights(look.lights, world_from_cam)
        materials = pack_materials(look.materials)
        indirect = np.zeros((len(rays), 3), np.float32)
        if look.ambient > 0:
            even = look.ambient * mean_irradiance(points, normals, parts, lights, 37)
            indirect += even * np.array([1.0, 0.85, 0.8], np.float32)
        if look.interreflection > 0:
            indirect += indirect_irradiance(
                self._scene, self.anatomy, shape, points, normals, parts, eye, lights,
                look.interreflection * mean_albedo(look.materials), np.random.default_rng(look.seed),
                look.paths,
            )  # fmt: skip
        shadow = self._shadows(lights, points, normals, parts) if look.shadows else np.zeros((len(rays), 0), np.float32)
        linear, albedo = np.zeros((len(rays), 3), np.float32), np.zeros((len(rays), 3), np.float32)
        shade(
            points, rest, normals, parts, eye, materials, look.seed, lights, shadow, indirect,
            1.0 / camera.focal_px, linear, albedo,
        )  # fmt: skip
        in_camera = (normals @ world_from_cam[:3, :3].astype(np.float32)).reshape(*shape, 3)
        return Rendered(
            linear.reshape(*shape, 3), distance.reshape(shape), in_camera, albedo.reshape(*shape, 3), behind / len(rays)
        )

    def _shadows(self, lights: Float32, points: Float32, normals: Float32, parts: NDArray[np.int32]) -> Float32:
        """Share (N, L) of each light that arrives at the points: 0 or 1."""
        share = np.ones((len(points), len(lights)), np.float32)
        for row, light in zip(share.T, lights, strict=True):
            start = points + normals * np.float32(1e-3 * self.anatomy.scale_mm)
            way = light[:3] - start
            far = np.linalg.norm(way, axis=1)
            way = (way / np.maximum(far, 1e-9)[:, None]).astype(np.float32)
            free = self._scene.run(start.astype(np.float32), way, output=1)
            row[(np.asarray(free["primID"]) >= 0) & (np.asarray(free["tfar"]) < far * 0.999)] = 0
            row[parts < 0] = 0
        return share


def _world_rays(camera: Camera, world_from_cam: Float) -> tuple[Float32, NDArray[np.bool_]]:
    rays = camera.ray_map().reshape(-1, 3)
    valid = np.isfinite(rays[:, 0])
    world = rays @ world_from_cam[:3, :3].T.astype(np.float32)
    world[~valid] = (0, 0, 1)
    return np.ascontiguousarray(world), valid
