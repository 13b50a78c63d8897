"""What is known of a scene's light and material, and how the scene looks by it.

`Lighting` is the result of `endorecon.light.estimate.estimate_lighting(run)`, kept in RUN/lighting/: the lamp and the
camera's response, each frame's exposure, and per vertex of RUN/scene/mesh.ply albedo and roughness. `LitScene` renders
it from any pose, by that lamp or another; `shade` is the same for given points, differentiable. The equations are in
`rendering.physics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from rendering.mesh import Caster, Mesh
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import parse_yaml, read_text

if TYPE_CHECKING:
    from torch import Tensor

    from rendering.light import SpotLight
    from rendering.physics import CameraResponse, Light

FOLDER = "lighting"  # in a run
FORMAT = 1
F0 = 0.04
"""Reflectance of a wet film at normal incidence (water 0.02, mucus a little more); by convention, as only its product
with the film's strength shows."""
SHADOW_LIFT = 0.01
"""Share of the way to the lens at which a point's way to the lamp begins."""
Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Lamp:
    """The light on the endoscope: L small sources fixed to the camera, float64, camera frame, in the scene's unit.

    Attributes:
        position: (L, 3).
        axis: (L, 3), unit.
        exponent: (L,), of the spot profile cos(theta pi / 2 / cutoff)^exponent.
        cutoff_rad: (L,).
        intensity: (L, 3), linear rgb on the axis.
        falloff: exponent of the distance.
        reference: distance at which a lamp of another fall-off is as bright as a physical one.
    """

    position: Float
    axis: Float
    exponent: Float
    cutoff_rad: Float
    intensity: Float
    falloff: float = 2.0
    reference: float = 1.0

    def __post_init__(self) -> None:
        for name, shape in (("position", (-1, 3)), ("axis", (-1, 3)), ("exponent", -1), ("cutoff_rad", -1)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64).reshape(shape))
        object.__setattr__(self, "intensity", np.asarray(self.intensity, np.float64).reshape(-1, 3))

    @staticmethod
    def single(
        position: ArrayLike = (0.0, 0.0, 0.0), axis: ArrayLike = (0.0, 0.0, 1.0), exponent: float = 1.0,
        cutoff_rad: float = math.pi / 2, intensity: ArrayLike = (1.0, 1.0, 1.0), falloff: float = 2.0,
        reference: float = 1.0,
    ) -> Lamp:  # fmt: skip
        """One source."""
        rows = (np.asarray([v], float) for v in (position, axis, exponent, cutoff_rad, intensity))
        return Lamp(*rows, falloff, reference)

    def with_second(self, other: Lamp) -> Lamp:
        """The sources of both; the fall-off is this one's."""
        names = ("position", "axis", "exponent", "cutoff_rad", "intensity")
        return replace(self, **{n: np.concatenate([getattr(self, n), getattr(other, n)]) for n in names})

    def torch(self) -> Light:
        """As `rendering.physics` takes it, float32."""
        import torch

        from rendering.physics import Light

        names = ("position", "axis", "exponent", "cutoff_rad", "intensity", "falloff", "reference")
        return Light(*(torch.as_tensor(getattr(self, n), dtype=torch.float32) for n in names))

    def spots(self) -> tuple[SpotLight, ...]:
        """As the phantom takes it; its fall-off is the physical one."""
        from rendering.light import SpotLight

        rows = zip(self.position, self.axis, self.exponent, self.cutoff_rad, self.intensity, strict=True)
        return tuple(SpotLight(_row(p), _row(a), float(n), float(c), _row(i)) for p, a, n, c, i in rows)


@dataclass(frozen=True)
class Lighting:
    """The light and the material of a run.

    Attributes:
        lamp: the light.
        gamma, shoulder, vignette: the camera's response (`rendering.physics.CameraResponse`).
        frames: (F,) indices of the frames that exposure is known for, rising.
        exposure: (F,) gain of each.
        white_balance: (F, 3) gains of each; their mean over the frames is about 1.
        albedo: (V, 3) float32 linear, of the vertices of the run's mesh.
        roughness: (V,) float32, of the wet film's highlight.
        specular: (V,) float32, strength of that highlight; 0 is dry.
        observed: (V,) float32, how much light was measured at each vertex; 0: albedo carried over from neighbours.
        bounces: how often light is reflected between surfaces in this model; 0: direct light only.
        f0: reflectance of the film at normal incidence.
        unit: of lengths: "mm" or "up to scale".
        observable: what the images told of each quantity, a sentence each, by its name.
        fixed: what was fixed by convention, a sentence each, by its name.
        figures: values and standard deviations by name.
        warnings: what a person should know before using it.
    """

    lamp: Lamp
    gamma: float
    shoulder: float
    vignette: float
    frames: NDArray[np.int64]
    exposure: Float
    white_balance: Float
    albedo: Float32
    roughness: Float32
    specular: Float32
    observed: Float32
    bounces: int = 0
    f0: float = F0
    unit: str = "up to scale"
    observable: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def usual_exposure(self) -> float:
        """The median gain, for views that are no frame."""
        return float(np.median(self.exposure))

    def gains(self, frame: int | None = None) -> Float:
        """(3,) exposure times white balance of the frame with this index, or the nearest known; None: the usual one."""
        if frame is None:
            return self.usual_exposure * self.white_balance.mean(0)
        at = int(np.argmin(np.abs(self.frames - frame)))
        return self.exposure[at] * self.white_balance[at]

    def response(self) -> CameraResponse:
        """The camera's response for `rendering.physics`."""
        from rendering.physics import CameraResponse

        return CameraResponse.of(self.gamma, self.shoulder, self.vignette)

    def displayed(self, linear_rgb: Float32, gains: ArrayLike) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 of radiance (H, W, 3) of a whole image at these gains (3,)."""
        import torch

        from rendering.physics import image_places

        h, w = linear_rgb.shape[:2]
        gain = torch.as_tensor(np.asarray(gains, np.float32))
        shown = self.response().displayed(torch.as_tensor(np.ascontiguousarray(linear_rgb)), gain, image_places(w, h))
        return (shown.numpy() * 255 + 0.5).astype(np.uint8)

    def save(self, folder: Path) -> None:
        """Write `lighting.safetensors` and `lighting.yaml` into the folder, which is made if need be.

        Raises:
            InputError: it can't be written.
        """
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        arrays |= {f"lamp.{name}": np.ascontiguousarray(getattr(self.lamp, name)) for name in _LAMP}
        plain: dict[str, Any] = {"format": FORMAT, **{n: getattr(self, n) for n in _VALUES}}
        plain |= {n: {str(k): _plain(v) for k, v in getattr(self, n).items()} for n in _TABLES}
        plain |= {"warnings": list(self.warnings), "falloff": self.lamp.falloff, "reference": self.lamp.reference}
        plain["lamp"] = {n: getattr(self.lamp, n).tolist() for n in _LAMP}  # to be read by a person
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(arrays, folder / "lighting.safetensors")
            text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
            (folder / "lighting.yaml").write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"can't write to '{folder}' ({error.strerror or error}); free some space or make the run writable"
            ) from error

    @staticmethod
    def load(folder: Path) -> Lighting:
        """Read what `save` has written.

        Raises:
            InputError: nothing there, or a damaged file.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        if not is_lighting(folder):
            raise InputError(f"'{folder}' holds no lighting; estimate it with `endorecon light RUN`")
        try:
            plain = parse_yaml(read_text(folder / "lighting.yaml"))
            if not isinstance(plain, dict) or plain.get("format") != FORMAT:
                raise ValueError(f"not of format {FORMAT}")
            arrays = load_file(folder / "lighting.safetensors")
            lamp = Lamp(*(arrays[f"lamp.{n}"] for n in _LAMP), float(plain["falloff"]), float(plain["reference"]))
            values = {n: type(_EXAMPLES[n])(plain[n]) for n in _VALUES}
            tables = {n: dict(plain[n]) for n in _TABLES}
            return Lighting(
                lamp=lamp, **values, **tables, **{n: arrays[n] for n in _ARRAYS}, warnings=tuple(plain["warnings"])
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise InputError(f"the lighting in '{folder}' is damaged ({reason}); estimate it again") from error


_ARRAYS = ("frames", "exposure", "white_balance", "albedo", "roughness", "specular", "observed")
_LAMP = ("position", "axis", "exponent", "cutoff_rad", "intensity")
_TABLES = ("observable", "fixed", "figures")
_EXAMPLES: dict[str, Any] = {"gamma": 2.2, "shoulder": 0.0, "vignette": 0.0, "bounces": 0, "f0": F0, "unit": "mm"}
_VALUES = tuple(_EXAMPLES)


def is_lighting(folder: Path) -> bool:
    """Whether a lighting was saved in this folder."""
    return (folder / "lighting.yaml").is_file() and (folder / "lighting.safetensors").is_file()


def shade(
    light: Light, response: CameraResponse, points: Tensor, normals: Tensor, albedo: Tensor, roughness: Tensor,
    specular: Tensor, world_from_cam: Tensor, gains: Tensor | float, *, f0: float = F0, uv: Tensor | None = None,
    indirect: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Linear radiance and displayed value (N, 3) of points as a camera sees them; differentiable in every tensor.

    Args:
        light, response: `Lighting.lamp.torch()` and `Lighting.response()`.
        points, normals: (N, 3), world; normals are turned to the camera.
        albedo: (N, 3) linear. roughness, specular: (N,).
        world_from_cam: (4, 4).
        gains: (3,) `Lighting.gains`, or what broadcasts to (N, 3).
        f0: of the film.
        uv: (N, 2) places in the image for the vignette; None leaves it out.
        indirect: (N, 3) irradiance by way of other surfaces.
    """
    from rendering.physics import Surface, radiance

    surface = Surface.of_world(world_from_cam, points, normals, albedo, roughness, specular, f0)
    diffuse, mirrored = radiance(light, surface, indirect)
    linear = diffuse + mirrored
    return linear, response.displayed(linear, gains, uv)


@dataclass(frozen=True)
class LitView:
    """What a camera sees of a lit scene.

    Attributes:
        rgb: (H, W, 3) uint8, as displayed.
        linear_rgb: (H, W, 3) float32 radiance; mirrored: (H, W, 3), its part that is mirrored by the film.
        depth: (H, W) float32 z; 0 where there is no surface.
        normals: (H, W, 3) float32, camera frame, towards the camera.
        albedo: (H, W, 3) float32, linear.
        roughness: (H, W) float32.
        reached: (H, W) float32, the share of the lamp's sources that light the place; 0 is in shadow.
    """

    rgb: NDArray[np.uint8]
    linear_rgb: Float32
    mirrored: Float32
    depth: Float32
    normals: Float32
    albedo: Float32
    roughness: Float32
    reached: Float32


class LitScene:
    """A mesh with its lighting, prepared for many views.

    Args:
        lighting: of this mesh.
        mesh: the run's.
        bounces: whether light that surfaces throw at each other is traced, where the lighting was estimated with it.
        normals: (V, 3) of the mesh's vertices, by default its own.

    Raises:
        InputError: the lighting is another mesh's.
    """

    def __init__(
        self, lighting: Lighting, mesh: Mesh, bounces: bool = True, normals: Float | None = None
    ) -> None:  # fmt: skip
        if len(lighting.albedo) != len(mesh.vertices):
            raise InputError(
                f"the lighting is for a mesh of {len(lighting.albedo)} vertices, the run's has {len(mesh.vertices)}; "
                "estimate it again with `endorecon light RUN`"
            )
        self.lighting, self.mesh = lighting, mesh
        self._caster = Caster(mesh)
        self._normals = (mesh.vertex_normals if normals is None else normals).astype(np.float32)
        self._bounces = None
        if bounces and lighting.bounces > 0:
            from rendering.bounce import Bounces

            self._bounces = Bounces(mesh, lighting.albedo)

    def view(
        self, camera: Camera, world_from_cam: Float, lamp: Lamp | None = None, frame: int | None = None,
        gains: ArrayLike | None = None, highlights: bool = True, samples: int = 1,
    ) -> LitView:  # fmt: skip
        """Render what `camera` sees from a pose, cast shadows included.

        Args:
            lamp: another lamp than the estimated one.
            frame: index of a frame whose exposure is used; `gains` (3,) sets it instead. Without both: the usual one.
            highlights: False leaves the mirrored light out.
            samples: a pixel gathers light from so many rays in each direction; depth, normals and material are those
                of its middle.
        """
        pose, lamp, light = np.asarray(world_from_cam, float), lamp or self.lighting.lamp, self.lighting
        seen = self._rays(camera, pose, lamp, highlights)
        radiant, film = seen["linear_rgb"], seen["mirrored"]
        if samples > 1:
            width, height = camera.width, camera.height
            fine = self._rays(camera.scaled(samples * width, samples * height), pose, lamp, highlights)
            there = fine["depth"] > 0

            def gathered(values: NDArray[Any]) -> Float32:
                return values.reshape(height, samples, width, samples, -1).mean((1, 3))

            share = gathered(there.astype(np.float32))
            known = (share > 0) & (seen["depth"] > 0)[..., None]
            radiant, film = (
                np.where(known, gathered(fine[n]) / np.maximum(share, 1e-6), seen[n])
                for n in ("linear_rgb", "mirrored")
            )
        shown = light.displayed(radiant, light.gains(frame) if gains is None else gains)
        shown[seen["depth"] == 0] = 0
        return LitView(shown, **seen | {"linear_rgb": radiant, "mirrored": film})

    def room(self, world_from_cam: Float, direction: Float) -> float:
        """How far it is from the lens to the surface along a unit direction (3,) of the camera frame; inf: none."""
        pose = np.asarray(world_from_cam, float)
        return float(self._caster.along(pose[:3, 3], (pose[:3, :3] @ direction)[None])[0][0])

    def _rays(self, camera: Camera, pose: Float, lamp: Lamp, highlights: bool) -> dict[str, Float32]:
        """All of a `LitView` but the display, a ray a pixel."""
        import torch

        from rendering.physics import Surface, radiance

        shape, n = (camera.height, camera.width), camera.height * camera.width
        at, points, normals, corners, share, z = self._hits(camera, pose)
        names = ("albedo", "roughness", "specular")
        albedo, rough, wet = (_mixed(getattr(self.lighting, name), corners, share) for name in names)
        indirect: Any = 0.0
        if self._bounces is not None and len(at):
            indirect = torch.as_tensor(self._bounces.image(shape, at, points, normals, lamp.spots(), pose))
        rows = (pose, points, normals, albedo, rough, wet)
        floats = (torch.as_tensor(np.ascontiguousarray(v, np.float32)) for v in rows)
        surface = Surface.of_world(*floats, self.lighting.f0)
        reached = unshadowed(self._caster, points, pose, lamp)
        diffuse, mirrored = radiance(lamp.torch(), surface, indirect, torch.as_tensor(reached))
        mirrored = mirrored if highlights else torch.zeros_like(mirrored)

        def image(values: NDArray[Any]) -> Float32:
            out = np.zeros((n, *values.shape[1:]), np.float32)
            out[at] = values
            return out.reshape(*shape, *values.shape[1:])

        return {
            "linear_rgb": image((diffuse + mirrored).numpy()), "mirrored": image(mirrored.numpy()), "depth": image(z),
            "normals": image(surface.normals.numpy()), "albedo": image(albedo), "roughness": image(rough),
            "reached": image(reached.mean(1)),
        }  # fmt: skip

    def _hits(self, camera: Camera, pose: Float) -> tuple[NDArray[np.int64], Float, Float, NDArray[Any], Float, Float]:
        """Pixels that see the mesh: their numbers, points, smooth normals, corners and shares of these, and z."""
        rays = camera.ray_map().reshape(-1, 3).astype(np.float64)
        known = np.flatnonzero(np.isfinite(rays[:, 0]))
        distance, face = self._caster.along(pose[:3, 3], rays[known] @ pose[:3, :3].T)
        known, distance, face = known[face >= 0], distance[face >= 0], face[face >= 0]
        points = pose[:3, 3] + distance[:, None] * (rays[known] @ pose[:3, :3].T)
        corners = self.mesh.faces[face]
        share = barycentric(self.mesh.vertices[corners].astype(np.float64), points)
        normals = _mixed(self._normals, corners, share).astype(np.float64)
        away = (normals * (points - pose[:3, 3])).sum(1) > 0
        normals *= np.where(away, -1, 1)[:, None] / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        return known, points, normals, corners, share, distance * rays[known, 2]


def unshadowed(caster: Caster, points: Float, world_from_cam: Float, lamp: Lamp) -> Float32:
    """(N, L): 1 where a source reaches a point (N, 3) that the camera sees, 0 where the surface is in its way."""
    eye = np.broadcast_to(world_from_cam[:3, 3], points.shape)
    places = lamp.position @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
    hidden = [in_the_way(caster, points, eye, np.broadcast_to(place, points.shape)) for place in places]
    return 1 - np.stack(hidden, 1).astype(np.float32)


def in_the_way(caster: Caster, points: Float, eyes: Float, lamps: Float) -> NDArray[np.bool_]:
    """(N,): whether the surface is between points and lamps, (N, 3) each, world.

    The way is followed from a little before the point, seen from the eye (N, 3), where nothing can be: on the surface
    itself its own facets would shade it.
    """
    start = points + SHADOW_LIFT * (eyes - points)
    way = lamps - start
    reach = np.linalg.norm(way, axis=1)
    distance, face = caster.along(start, way / np.maximum(reach, 1e-12)[:, None])
    return (face >= 0) & (distance < reach)


def barycentric(triangles: Float, points: Float) -> Float:
    """Shares (N, 3) of a triangle's corners (N, 3, 3) at points (N, 3) in it; in [0, 1], sum 1."""
    a, ab, ac = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    ap = points - a
    bb, bc, cc = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    pb, pc = (ap * ab).sum(1), (ap * ac).sum(1)
    det = np.maximum(bb * cc - bc * bc, 1e-30)
    u, v = (cc * pb - bc * pc) / det, (bb * pc - bc * pb) / det
    share = np.clip(np.stack([1 - u - v, u, v], 1), 0, 1)
    return share / share.sum(1, keepdims=True)


def _mixed(values: NDArray[Any], corners: NDArray[Any], share: Float) -> NDArray[Any]:
    picked = values[corners]
    return (picked * (share if values.ndim == 1 else share[..., None])).sum(1).astype(np.float32)


def _row(values: Float) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
