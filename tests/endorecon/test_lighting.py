"""What is known of a scene's light: kept in files, rendered, refused where it is another scene's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from endorecon.lighting import Lamp, Lighting, LitScene, barycentric, shade
from rendering.mesh import Mesh
from video_io.camera import Camera
from video_io.errors import InputError

CAMERA = Camera.from_fov(32, 24, math.radians(60))


def wall(z: float = 10.0) -> Mesh:
    """A square across the axis, facing the camera."""
    corners = np.array([[-20, -20, z], [20, -20, z], [20, 20, z], [-20, 20, z]], np.float32)
    return Mesh(corners, np.array([[0, 2, 1], [0, 3, 2]], np.int32))


def made(mesh: Mesh, **more: object) -> Lighting:
    n = len(mesh.vertices)
    values = {
        "lamp": Lamp.single(exponent=0.0, cutoff_rad=3.0, intensity=(100.0, 100.0, 100.0)), "gamma": 1.0,
        "shoulder": 0.0, "vignette": 0.0, "frames": np.array([0, 5]), "exposure": np.array([1.0, 0.5]),
        "white_balance": np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]),
        "albedo": np.tile(np.float32([0.5, 0.25, 0.1]), (n, 1)), "roughness": np.full(n, 0.4, np.float32),
        "specular": np.zeros(n, np.float32), "observed": np.ones(n, np.float32), **more,
    }  # fmt: skip
    return Lighting(**values)  # type: ignore[arg-type]


def test_a_lighting_comes_back_from_its_files(tmp_path: Path) -> None:
    told = {"observable": {"gamma": "2.2"}, "figures": {"gamma": np.float64(2.2)}, "warnings": ("dark",)}
    written = made(wall(), **told, bounces=3)
    written.save(tmp_path / "lighting")
    read = Lighting.load(tmp_path / "lighting")
    assert (read.gamma, read.bounces, read.unit, read.f0) == (1.0, 3, "up to scale", 0.04)
    assert read.warnings == ("dark",) and read.observable == {"gamma": "2.2"} and read.figures == {"gamma": 2.2}
    for name in ("frames", "exposure", "white_balance", "albedo", "roughness", "specular", "observed"):
        assert np.array_equal(getattr(read, name), getattr(written, name)), name
    assert np.array_equal(read.lamp.intensity, written.lamp.intensity) and read.lamp.falloff == 2.0


def test_missing_and_damaged_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no lighting"):
        Lighting.load(tmp_path)
    made(wall()).save(tmp_path)
    (tmp_path / "lighting.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        Lighting.load(tmp_path)


def test_a_wall_is_as_bright_as_it_should_be() -> None:
    seen = LitScene(made(wall()), wall()).view(CAMERA, np.eye(4), frame=5)
    middle = seen.linear_rgb[11:13, 15:17].mean((0, 1))
    # albedo / pi * 100 / 10^2, the centre of the image at a pixel's distance from it
    assert middle == pytest.approx(np.array([0.5, 0.25, 0.1]) / math.pi, rel=5e-3)
    assert seen.rgb[12, 16, 0] == pytest.approx(255 * 0.5 * 0.5 / math.pi, abs=1)
    assert seen.depth[12, 16] == pytest.approx(10, abs=1e-3)
    assert seen.normals[12, 16] == pytest.approx([0, 0, -1], abs=1e-5)
    # cos^4 at the image's border: cosine of the surface, of nothing else (even beam), and the distance squared
    cosine = CAMERA.ray_map()[12, 0, 2]
    assert seen.linear_rgb[12, 0, 0] / (0.5 / math.pi) == pytest.approx(cosine**3, rel=1e-3)


def test_another_lamp_and_another_exposure_are_used() -> None:
    scene = LitScene(made(wall()), wall())
    twice = Lamp.single(exponent=0.0, cutoff_rad=3.0, intensity=(200.0, 200.0, 200.0))
    one, other = scene.view(CAMERA, np.eye(4)), scene.view(CAMERA, np.eye(4), lamp=twice, gains=(2.0, 1.0, 1.0))
    assert other.linear_rgb / one.linear_rgb == pytest.approx(np.full((24, 32, 3), 2.0))
    assert int(other.rgb[12, 16, 1]) == pytest.approx(255 * 2 * 0.25 / math.pi, abs=1)


def test_the_film_is_left_out_where_highlights_are_not_wanted() -> None:
    wet = LitScene(made(wall(), specular=np.full(4, 0.5, np.float32)), wall())
    with_it, without = (wet.view(CAMERA, np.eye(4), highlights=h).linear_rgb[12, 16] for h in (True, False))
    # D F / (4 cos cos) G, all cosines 1: F0 / (4 pi alpha^2), alpha = 0.16; half strength; one source of E = 1
    assert with_it - without == pytest.approx(np.full(3, 0.5 * 0.04 / (4 * math.pi * 0.16**2)), rel=0.05)


def test_a_lighting_of_another_mesh_is_refused() -> None:
    lighting = made(wall())
    with pytest.raises(InputError, match="for a mesh of 4 vertices, the run's has 3"):
        LitScene(lighting, Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32)))


def test_points_are_shaded_as_the_scene_is() -> None:
    import torch

    light, points = made(wall()), torch.tensor([[0.0, 0.0, 10.0]])
    linear, shown = shade(
        light.lamp.torch(), light.response(), points, torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.25, 0.1]]),
        torch.tensor([0.4]), torch.tensor([0.0]), torch.eye(4), torch.tensor(light.gains(0), dtype=torch.float32),
    )  # fmt: skip
    assert linear[0].numpy() == pytest.approx(np.array([0.5, 0.25, 0.1]) / math.pi, rel=1e-4)
    assert torch.allclose(linear, shown)


def test_shares_of_corners() -> None:
    triangle = np.array([[[0, 0, 0], [4, 0, 0], [0, 2, 0]]], float)
    assert barycentric(triangle, np.array([[1.0, 0.5, 0.0]]))[0] == pytest.approx([0.5, 0.25, 0.25])
