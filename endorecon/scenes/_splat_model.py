"""Gaussians as they are trained and stored: seeding from a surface, rendering, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from endorecon.scenes._splat_gloss import FILE as GLOSS
from endorecon.scenes._splat_gloss import mirrored, read_gloss, seeded
from endorecon.scenes._splat_light import Light
from rendering.mesh import Caster, Mesh
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import read_bytes

if TYPE_CHECKING:
    import torch

    from rendering.splat import Layers

Floats = NDArray[np.float32]
C0 = 0.28209479177387814  # the first harmonic: colour = C0 sh0 + 1/2
THINNESS = 0.01  # of a surfel for viewers that know no surfels
FLATNESS = 0.2  # thickness of a seeded Gaussian over its width: it lies on a surface
OPACITY = 0.5
NAMES = ("means", "quats", "scales", "opacities", "sh0", "shN")
MOST_MB = 4000  # of a file of Gaussians


@dataclass(frozen=True)
class SplatView:
    """A frame that the Gaussians are to look like.

    Attributes:
        index, time_ns: of the frame in the source.
        rgb: (H, W, 3) uint8.
        use_mask: (H, W) the pixels that show tissue.
        depth, confidence: (H, W) measured z-depth, float32, and how far it is believed, float16, 0 for not.
        camera: pinhole or fisheye.
        world_from_cam: (4, 4).
    """

    index: int
    time_ns: int
    rgb: NDArray[np.uint8]
    use_mask: NDArray[np.bool_]
    depth: Floats
    confidence: NDArray[np.float16]
    camera: Camera
    world_from_cam: NDArray[np.float64]


@dataclass(frozen=True)
class Splats:
    """N Gaussians as numpy arrays, float32, in the form that files hold and that training changes.

    Attributes:
        means: (N, 3) world. quats: (N, 4) wxyz. scales: (N, 3) log of the standard deviations.
        opacities: (N,) logits. sh0: (N, 1, 3), shN: (N, K - 1, 3) harmonics of the colour, channels last.
        surfels: whether they are to be rendered as flat ones, whose third axis is the normal.
        gloss: (N, 5) the lobes of their highlights (`_splat_gloss`); None for none. Files of Gaussians don't hold them.
    """

    means: Floats
    quats: Floats
    scales: Floats
    opacities: Floats
    sh0: Floats
    shN: Floats
    surfels: bool = False
    gloss: Floats | None = None

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Of the harmonics."""
        return int(np.sqrt(self.shN.shape[1] + 1)) - 1

    @property
    def colors(self) -> NDArray[np.uint8]:
        """(N, 4) RGBA of the harmonics' mean, and opacity."""
        rgb = np.clip(C0 * self.sh0[:, 0] + 0.5, 0, 1)
        alpha = 1 / (1 + np.exp(-self.opacities[:, None]))
        return np.rint(255 * np.concatenate([rgb, alpha], 1)).astype(np.uint8)

    def flattened(self) -> Splats:
        """The same as surfels, the shortest axis the third and so thin that any viewer shows them flat."""
        import torch

        from rendering.splat.reference import quaternion_matrix

        turns = quaternion_matrix(torch.from_numpy(self.quats)).numpy()
        axis = self.scales.argmin(1)
        # The axes in turn, so that the frame stays right-handed.
        order = (axis[:, None] + np.array([1, 2, 3])) % 3
        turns = np.take_along_axis(turns, order[:, None, :].repeat(3, 1), 2)
        scales = np.take_along_axis(self.scales, order, 1)
        scales[:, 2] = scales[:, :2].min(1) + np.float32(np.log(THINNESS))
        from scipy.spatial.transform import Rotation

        quats = np.roll(Rotation.from_matrix(turns).as_quat(), 1, 1).astype(np.float32)
        return replace(self, quats=quats, scales=scales, surfels=True)

    def scaled(self, factor: float) -> Splats:
        """The same in a world whose lengths are `factor` times as long."""
        scales = self.scales + np.float32(np.log(factor))
        return replace(self, means=self.means * np.float32(factor), scales=scales)

    def moved(self, shift: NDArray[np.floating]) -> Splats:
        """The same at another place, by (3,)."""
        return replace(self, means=(self.means + shift).astype(np.float32))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays as tensors, by name."""
        import torch

        names = NAMES if self.gloss is None else (*NAMES, "gloss")
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in names}

    def render(self, camera: Camera, world_from_cam: NDArray[np.float64]) -> Layers:
        """What a camera sees of them, without gradients; every layer without the leading axis."""
        import torch

        from rendering.splat import Layers

        with torch.no_grad():
            view = torch.from_numpy(np.linalg.inv(world_from_cam))
            layers = rasterize_raw(
                self.tensors(), camera, view, self.degree, median=True, normals=True, surfels=self.surfels
            )
        return Layers(*(None if layer is None else layer[0] for layer in layers))


def rasterize_raw(
    raw: dict[str, torch.Tensor], camera: Camera, cam_from_world: torch.Tensor, degree: int, **options: object
) -> Layers:
    """`rasterize` of parameters in the form of `Splats`, seen by one camera at a pose (4, 4).

    Raises:
        ValueError: a camera that is neither pinhole nor fisheye.
    """
    import torch

    from rendering.splat import rasterize

    if camera.model not in ("pinhole", "fisheye"):
        raise ValueError(f"Gaussians are seen by a pinhole or a fisheye camera, found {camera.model}")
    fx, fy, cx, cy, *radial = camera.params
    k = torch.tensor([[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]], dtype=torch.float32)
    sh0 = raw["sh0"]
    if "gloss" in raw:
        # Colours are 1/2 + C0 sh0 + ..., so what is mirrored is more of the mean.
        sh0 = sh0 + (mirrored(raw["gloss"], raw["means"], cam_from_world) / C0)[:, None, None]
    colors = torch.cat([sh0, raw["shN"]], 1) if degree else sh0
    return rasterize(
        raw["means"], raw["quats"], torch.exp(raw["scales"]), torch.sigmoid(raw["opacities"]), colors,
        cam_from_world[None], k, camera.width, camera.height, sh_degree=degree, camera_model=camera.model,
        radial_coeffs=torch.tensor([radial]) if radial else None, backend="cpu", **options,
    )  # type: ignore[arg-type]  # fmt: skip


# -- seeding ------------------------------------------------------------------------------------------------------


def seed(
    views: Sequence[SplatView], mesh: Mesh | None, number: int, degree: int, light: Light | None = None,
    gloss: bool = False,
) -> Splats:  # fmt: skip
    """Gaussians on the surface that the views show, as dense as their pixels see it.

    Args:
        views: at least one.
        mesh: the fused surface; where a view sees none of it, its measured depth says where the point is.
        number: about how many.
        light: what the views' colours are seen with.
        gloss: whether they are to have highlights.

    Raises:
        InputError: no pixel has a depth.
    """
    rng = np.random.default_rng(0)
    caster = Caster(mesh) if mesh is not None and len(mesh.faces) else None
    parts = [_points(view, caster, number // len(views) + 1, rng, light) for view in views]
    points, colors, normals = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if len(points) < 4:
        raise InputError(
            f"Gaussians begin on measured depth, and {len(views)} frames have {len(points)} pixels with one; "
            "choose another part of the clip, or --scene tsdf"
        )
    seeds = seed_points(points, colors, degree, normals)
    return replace(seeds, gloss=seeded(normals)) if gloss else seeds


def seed_points(points: NDArray, colors: NDArray, degree: int, normals: NDArray | None = None) -> Splats:
    """Gaussians at points (N, 3), at least four, as wide as it is to their neighbours, with colours (N, 3) of 0 to 255;
    flat where the surface's normals (N, 3) are known."""
    from scipy.spatial import cKDTree

    # Points of several views that fall together are thinned out by their distance to the nearest.
    gap = np.sqrt((cKDTree(points).query(points, 4)[0][:, 1:] ** 2).mean(1))
    gap = np.maximum(gap, 1e-3 * np.median(gap))
    scales = np.log(np.stack([gap, gap, (1.0 if normals is None else FLATNESS) * gap], 1))
    turns = np.tile([1.0, 0, 0, 0], (len(points), 1)) if normals is None else quaternions(normals)
    return Splats(
        points.astype(np.float32),
        turns.astype(np.float32),
        scales.astype(np.float32),
        np.full(len(points), np.log(OPACITY / (1 - OPACITY)), np.float32),
        # Not quite black, which has no gradient: what is negative is cut off.
        ((np.maximum(colors, 1) / 255 - 0.5) / C0)[:, None].astype(np.float32),
        np.zeros((len(points), (degree + 1) ** 2 - 1, 3), np.float32),
    )


def surface_depth(view: SplatView, caster: Caster | None) -> tuple[Floats, Floats]:
    """Depth of the fused surface, or else as measured, 0 for none; and normals (H, W, 3), camera frame."""
    known = (view.confidence > 0) & (view.depth > 0)
    depth = np.where(known, view.depth, 0).astype(np.float32)
    normals = -view.camera.ray_map() if caster is None else None
    if caster is not None:
        hits = caster.cast(view.camera, view.world_from_cam)
        # Where the surface has a hole one may look through it on to another: hardly nearer, much farther.
        good = (hits.depth > 0) & ~(known & (hits.depth > 1.5 * depth))
        depth = np.where(good, hits.depth, depth)
        normals = np.where(good[..., None], hits.normals, -view.camera.ray_map())
    return depth, normals


def _points(
    view: SplatView, caster: Caster | None, number: int, rng: np.random.Generator, light: Light | None
) -> tuple[NDArray, NDArray, NDArray]:  # fmt: skip
    depth, normals = surface_depth(view, caster)
    rays = view.camera.ray_map()
    rows = np.flatnonzero((depth > 0) & view.use_mask & (rays[..., 2] > 0.05))
    rows = rng.permutation(rows)[:number]
    ray = rays.reshape(-1, 3)[rows].astype(float)
    local = ray * (depth.reshape(-1)[rows] / ray[:, 2])[:, None]
    pose = view.world_from_cam
    normal = normals.reshape(-1, 3)[rows] @ pose[:3, :3].T
    colors = view.rgb.reshape(-1, 3)[rows].astype(float)
    if light is not None:
        colors = colors / light.factor(depth).reshape(-1, 1)[rows]
    return local @ pose[:3, :3].T + pose[:3, 3], colors, normal


def quaternions(normals: NDArray) -> NDArray:
    """Rotations wxyz that turn the z axis to the normals (N, 3)."""
    n = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    # An axis and its opposite are the same to a Gaussian: the nearer to z is taken.
    n = n * np.where(n[:, 2:] < 0, -1, 1)
    q = np.stack([1 + n[:, 2], -n[:, 1], n[:, 0], np.zeros(len(n))], 1)
    return q / np.linalg.norm(q, axis=1, keepdims=True)


# -- files --------------------------------------------------------------------------------------------------------


def write_splats(splats: Splats, path: Path) -> None:
    """Write a `.ply` (the standard 3DGS form), a `.compressed.ply` (SuperSplat's) or a `.splat`, told by the name."""
    from endorecon.scenes._splat_files import encoded

    compressed = path.suffixes[-2:-1] == [".compressed"]
    path.write_bytes(encoded(splats, "splat" if path.suffix == ".splat" else "compressed" if compressed else "ply"))


def read_scene(folder: Path) -> Splats:
    """The Gaussians of a run's scene, with their highlights where it has some.

    Raises:
        InputError: files that can't be read, or that do not belong together.
    """
    splats = read_splats(folder / "splats.ply")
    return replace(splats, gloss=read_gloss(folder / GLOSS, len(splats)))


def read_splats(path: Path) -> Splats:
    """Read a standard 3DGS PLY.

    Raises:
        InputError: a file that can't be read, or that holds something else.
    """
    try:
        data = read_bytes(path, MOST_MB)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"the Gaussians in {path} can't be read ({reason}); check the path") from error
    from endorecon.scenes._splat_files import SURFELS

    head, mark, body = data.partition(b"end_header\n")
    lines = [line.rstrip("\r").split() for line in head.decode("ascii", "replace").split("\n")]
    plain = ["property", "float"], ["property", "float32"]
    names = [line[2] for line in lines if len(line) == 3 and line[:2] in plain]
    elements = [line[1:] for line in lines if line[:1] == ["element"]]
    rest = sum(name.startswith("f_rest_") for name in names)
    wanted = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", *(f"scale_{i}" for i in range(3)),
              *(f"rot_{i}" for i in range(4)), *(f"f_rest_{i}" for i in range(rest))]  # fmt: skip
    if not mark or ["format", "binary_little_endian", "1.0"] not in lines:
        raise _foreign(path, "is no binary PLY")
    if any(name == "chunk" for name, *_ in elements):
        raise _foreign(path, "is a compressed PLY, which is for viewers")
    if missing := [name for name in wanted if name not in names]:
        raise _foreign(path, f"has no {missing[0]}")
    if len(elements) != 1 or sum(line[:1] == ["property"] for line in lines) != len(names):
        raise _foreign(path, "holds more than Gaussians of plain numbers")
    told = elements[0][-1]
    count = int(told) if told.isdecimal() else -1
    if count < 0 or rest not in (0, 9, 24, 45) or len(body) < 4 * count * len(names):
        raise InputError(
            f"{path} is cut short or of another form ({len(body)} bytes for {told[:20]} Gaussians of {len(names)} "
            "values); export it again"
        )
    table = np.frombuffer(body, "<f4", count * len(names)).reshape(count, len(names))
    if not (table := table[np.isfinite(table).all(1)]).size:
        raise _foreign(path, f"holds {count} Gaussians, none of them of finite numbers")
    pick = lambda *columns: np.ascontiguousarray(table[:, [names.index(c) for c in columns]])  # noqa: E731
    harmonics = pick(*(f"f_rest_{i}" for i in range(rest))).reshape(len(table), 3, rest // 3).transpose(0, 2, 1)
    return Splats(
        pick("x", "y", "z"), pick(*(f"rot_{i}" for i in range(4))), pick(*(f"scale_{i}" for i in range(3))),
        pick("opacity")[:, 0], pick("f_dc_0", "f_dc_1", "f_dc_2")[:, None], np.ascontiguousarray(harmonics),
        SURFELS in head,
    )  # fmt: skip


def _foreign(path: Path, found: str) -> InputError:
    return InputError(f"{path} {found}; expected Gaussians in the standard 3DGS form, as scene/splats.ply of a run")
