"""Light between surfaces, against the integrating sphere and against plain path tracing."""

from __future__ import annotations

import numpy as np
import pytest

from rendering.bounce import BOUNCES, Bounces, cosine_directions, traced_irradiance
from rendering.light import SpotLight, pack_lights
from rendering.mesh import Mesh
from rendering.phantom import anatomy as anatomies
from rendering.phantom.material import Material, mean_albedo
from rendering.phantom.paths import OrbitPath
from rendering.phantom.render import Look, Renderer
from rendering.phantom.scene import Anatomy
from rendering.phantom.surfaces import ellipsoid
from video_io.camera import Camera

PLAIN = Material(
    base=(0.5, 0.25, 0.1), mottle=(0.1, 0.1, 0.1), mottle_share=0, vessel_share=0, speckle_share=0, bump_slope=0,
    fine_slope=0, film=0,
)  # fmt: skip
EVEN = SpotLight(exponent=0.0, cutoff_rad=3.2)


def sphere() -> Renderer:
    part = ellipsoid((0, 0, 0), 10 * np.eye(3), ("any",), np.random.default_rng(0), 0.0, 1.0, 96, inside=True)
    return Renderer(Anatomy.of("sphere", [part], OrbitPath(np.zeros(3), 1, (1, 2), (0, 1)), 10, 1))


def test_an_integrating_sphere_multiplies_light_by_one_over_one_less_albedo() -> None:
    camera, renderer = Camera.from_fov(80, 64, 1.5), sphere()
    direct, full = (
        renderer.render(camera, np.eye(4), Look((PLAIN,), (EVEN,), 1, interreflection=i)).linear_rgb for i in (0.0, 1.0)
    )
    # 1 / (1 - 0.5), 1 / (1 - 0.25), 1 / (1 - 0.1)
    assert (full / direct).reshape(-1, 3).mean(0) == pytest.approx([2.0, 1.333333, 1.111111], rel=1e-3)


def test_directions_fall_off_with_the_cosine() -> None:
    rng = np.random.default_rng(0)
    normal = np.repeat(np.array([[0.6, 0.0, -0.8]], np.float32), 20_000, 0)
    way = np.empty_like(normal)
    cosine_directions(normal, rng.random((20_000, 2), np.float32), way)
    assert np.linalg.norm(way, axis=1) == pytest.approx(1, abs=1e-5)
    cosine = (way * normal).sum(1)
    # density cos / pi over the half sphere: E[cos] = 2/3, E[cos^2] = 1/2
    assert cosine.min() > 0 and cosine.mean() == pytest.approx(2 / 3, abs=0.01)
    assert (cosine**2).mean() == pytest.approx(0.5, abs=0.01)


def slow_irradiance(renderer: Renderer, point: np.ndarray, normal: np.ndarray, light: SpotLight, albedo: np.ndarray):
    """The same integral, a path at a time, in plain numpy."""
    anatomy, rng, paths = renderer.anatomy, np.random.default_rng(5), 1500
    vertices, lift = anatomy.vertices.astype(float), 1e-4 * anatomy.scale_mm
    total = np.zeros(3)

    def first(origin: np.ndarray, way: np.ndarray) -> tuple[int, float]:
        hit = renderer._scene.run(origin[None].astype(np.float32), way[None].astype(np.float32), output=1)
        return int(np.asarray(hit["primID"])[0]), float(np.asarray(hit["tfar"])[0])

    for _ in range(paths):
        origin, n, weight = point + lift * normal, normal, np.ones(3)
        for bounce in range(BOUNCES):
            way = np.array([2.0, 0, 0])
            while not 0 < way @ way <= 1:
                way = rng.uniform(-1, 1, 3)
            way = n + way / np.linalg.norm(way)
            way /= np.linalg.norm(way)
            face, t = first(origin, way)
            a, b, c = vertices[anatomy.faces[face]]
            n = np.cross(b - a, c - a)
            n /= np.linalg.norm(n) * (1 if n @ way < 0 else -1)
            origin = origin + t * way + lift * n
            weight = weight * albedo[anatomy.face_part[face]]
            to_light = np.asarray(light.position_mm) - origin
            far = np.linalg.norm(to_light)
            face, t = first(origin, to_light / far)
            if face < 0 or t > 0.999 * far:
                e = max(n @ to_light, 0) / far**3 * np.asarray(light.intensity)
                total += weight * e / (1 - albedo[0] if bounce == BOUNCES - 1 else 1)
    return total / paths


def test_paths_agree_with_plain_path_tracing() -> None:
    rng = np.random.default_rng(3)
    renderer = Renderer(anatomies.build("passage", rng))
    camera, pose = Camera.from_fov(40, 32, 1.4), renderer.anatomy.path.poses(rng, 2, 30)[0]
    light = SpotLight(tuple(pose[:3, 3]), exponent=0.0, cutoff_rad=3.2)
    origin = pose[:3, 3].astype(np.float32)
    rays = np.ascontiguousarray(camera.ray_map()[[8, 24], [30, 10]] @ pose[:3, :3].T.astype(np.float32))
    _, points, _, normals, _, _ = renderer._cast(origin, rays)
    albedo, a = mean_albedo((PLAIN,)), renderer.anatomy
    fast = np.mean(
        [
            traced_irradiance(
                renderer._scene, a.vertices, a.faces, a.face_part, np.float32(1e-4 * a.scale_mm), points, normals,
                pack_lights((light,), np.eye(4)), albedo, np.random.default_rng(seed),
            )
            for seed in range(100)
        ],
        0,
    )  # fmt: skip
    for point, normal, found in zip(points, normals, fast, strict=True):
        slow = slow_irradiance(renderer, point.astype(float), normal.astype(float), light, albedo.astype(float))
        # 1500 paths against 3200
        assert found == pytest.approx(slow, rel=0.1)


def test_paths_that_are_kept_bring_what_paths_drawn_anew_bring() -> None:
    """A half sphere: of its own light on itself, by two lamps' places, after one, two and three bounces."""
    a = sphere().anatomy
    keep = a.vertices[a.faces].mean(1)[:, 2] > -2
    mesh, pose = Mesh(a.vertices, a.faces[keep]), np.eye(4)
    bounces = Bounces(mesh, np.tile([0.5, 0.25, 0.1], (len(a.vertices), 1)))
    points, normals = np.array([[0, 0, 10.0], [6.0, 0, 8.0]]), np.array([[0, 0, -1.0], [-0.6, 0, -0.8]])
    kept = bounces.paths(points, normals, np.random.default_rng(4), 500)
    for shift in (0.0, 3.0):
        pose[0, 3] = shift
        anew = bounces.orders(points, normals, (EVEN,), pose, np.random.default_rng(4), 500)
        assert bounces.orders_by(kept, (EVEN,), pose) == pytest.approx(anew, rel=2e-3)
        assert (anew > 0).all()
    second = bounces.orders_by(kept.of(np.array([1])), (EVEN,), pose)
    assert second == pytest.approx(anew[:, 1:], rel=2e-3)
    bounces.paint(np.tile([0.25, 0.125, 0.05], (len(a.vertices), 1)))
    # half the albedo: 1/2, 1/4, 1/8 of the light
    assert (bounces.orders_by(kept, (EVEN,), pose) / anew).mean((1, 2)) == pytest.approx([0.5, 0.25, 0.125], rel=2e-3)
