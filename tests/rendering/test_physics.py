"""Light on a surface in torch: against numbers worked out by hand, and against the phantom's kernels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rendering.brdf import fresnel_schlick as kernel_schlick
from rendering.brdf import ggx as kernel_ggx
from rendering.light import SpotLight, arriving, pack_lights
from rendering.light import spot_profile as kernel_profile
from rendering.physics import (
    CameraResponse,
    Light,
    Surface,
    fresnel_schlick,
    ggx,
    image_places,
    irradiance,
    radiance,
    spot_profile,
)
from rendering.shade import Response, direct

DOWN = [0.0, 0.0, -1.0]


def f(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def seen(point: list[float], normal: list[float], light: Light, specular: float = 0.0) -> np.ndarray:
    surface = Surface(f(*point), f(*normal), f(0.5, 0.25, 0.1), torch.tensor(0.5), torch.tensor(specular))
    diffuse, mirrored = radiance(light.to(torch.float64), surface)
    return (diffuse + mirrored).numpy()


def test_half_the_distance_gives_four_times_the_light() -> None:
    light = Light.of((SpotLight(),))
    near, far = seen([0, 0, 10], DOWN, light), seen([0, 0, 20], DOWN, light)
    assert near[0] == pytest.approx(0.5 / math.pi / 100, rel=1e-6)
    assert near / far == pytest.approx([4, 4, 4], rel=1e-6)


def test_another_falloff_agrees_at_its_reference_distance() -> None:
    light = Light.of((SpotLight(),), falloff=3.0, reference=10.0)
    # 1 / (d^3 r^-1) at d = r = 10: 1e-2; at d = 20: 10 / 8000
    assert irradiance(light, torch.tensor([0.0, 0, 10]), torch.tensor(DOWN))[0] == pytest.approx(1e-2, rel=1e-5)
    assert irradiance(light, torch.tensor([0.0, 0, 20]), torch.tensor(DOWN))[0] == pytest.approx(1.25e-3, rel=1e-5)


def test_grazing_light_brings_nothing_and_sixty_degrees_half() -> None:
    light = Light.of((SpotLight(exponent=0.0, cutoff_rad=3.0),))
    upright = seen([0, 0, 10], DOWN, light)
    assert seen([0, 0, 10], [math.sqrt(0.75), 0, -0.5], light) / upright == pytest.approx([0.5] * 3, rel=1e-6)
    assert seen([0, 0, 10], [1, 0, 0], light, specular=1.0) == pytest.approx([0, 0, 0], abs=1e-12)


def test_reflection_is_reciprocal() -> None:
    r, light, view = torch.tensor(0.4), f(0.9, 0.3, 0.7), f(0.2, 0.8, 0.7)
    half, along = f(0.9, 0.8, 1.0), f(0.6, 0.5, 1)
    assert ggx(r, 0.04, light, view, half, along) == pytest.approx(ggx(r, 0.04, view, light, half, along).numpy())


@pytest.mark.parametrize("roughness", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("cos_view", [0.2, 0.7, 1.0])
def test_no_more_light_is_reflected_than_arrives(roughness: float, cos_view: float) -> None:
    """A mirror of reflectance 1 and any roughness, under a half sphere of even light: at most 1, and most of it."""
    u, v = torch.meshgrid(*((torch.arange(400, dtype=torch.float64) + 0.5) / 400,) * 2, indexing="ij")
    # half vectors drawn by D cos: pdf of l is D cos_half / (4 cos_view_half)
    cos_half = torch.sqrt((1 - u) / (u * (roughness**4 - 1) + 1))
    sine = torch.sqrt(1 - cos_half**2)
    eye = torch.tensor([math.sqrt(1 - cos_view**2), 0, cos_view], dtype=torch.float64)
    half = torch.stack([sine * torch.cos(2 * math.pi * v), sine * torch.sin(2 * math.pi * v), cos_half], -1)
    along = (half * eye).sum(-1)
    light = 2 * along[..., None] * half - eye
    t = cos_half**2 * (roughness**4 - 1) + 1
    density = roughness**4 / (math.pi * t * t) * cos_half / (4 * along.clamp_min(1e-9))
    value = ggx(torch.tensor(roughness), 1.0, light[..., 2], torch.tensor(cos_view), cos_half, along.clamp(0, 1))
    total = torch.where(along > 0, value * light[..., 2].clamp_min(0) / density, torch.zeros_like(value)).mean()
    assert 0.3 < total <= 1.001


def test_exposure_is_linear_and_the_response_is_undone() -> None:
    x = torch.tensor([[0.02, 0.1, 0.3], [0.5, 0.7, 0.9]])
    flat = CameraResponse.of(gamma=1.0)
    assert torch.allclose(flat.displayed(x, 0.5), 0.5 * x)
    curve, uv = CameraResponse.of(2.2, 0.5, 0.2), torch.tensor([[0.0, 0.0], [0.9, -0.8]])
    assert torch.allclose(curve.linear(curve.displayed(x, 0.8, uv), 0.8, uv), x, atol=1e-5)
    # twice the exposure is half the radiance for the same value
    assert torch.allclose(curve.linear(torch.tensor([0.5]), 2.0), curve.linear(torch.tensor([0.5])) / 2)


def test_the_response_is_the_phantoms() -> None:
    rng = np.random.default_rng(0)
    linear = rng.uniform(0, 1.5, (24, 32, 3)).astype(np.float32)
    clean = {"read_noise": 0, "shot_noise": 0, "blur_px": 0}
    made = Response(gamma=2.2, shoulder=0.5, vignette=0.3, white_balance=(1.1, 1.0, 0.8), **clean)
    expected = made.develop(linear, 0.7, rng)
    curve, gain = CameraResponse.of(2.2, 0.5, 0.3), 0.7 * torch.tensor([1.1, 1.0, 0.8])
    shown = curve.displayed(torch.tensor(linear), gain, image_places(32, 24))
    assert np.abs(shown.numpy() * 255 - expected).max() <= 0.51


def test_the_reflection_is_the_kernels() -> None:
    rng = np.random.default_rng(1)
    cosines = rng.uniform(0.05, 1, (50, 4))
    for rough in (0.2, 0.6):
        expected = [kernel_ggx(rough, 0.05, *row) for row in cosines]
        assert ggx(torch.tensor(rough), 0.05, *torch.tensor(cosines).T).numpy() == pytest.approx(expected, rel=1e-4)
    assert fresnel_schlick(0.04, f(0.5)).item() == pytest.approx(kernel_schlick(0.04, 0.5))
    angles = rng.uniform(0, 2.0, 50)
    expected = [kernel_profile(math.cos(a), 1.7, 1.6) for a in angles]
    found = spot_profile(torch.cos(torch.tensor(angles)), torch.tensor(1.7), torch.tensor(1.6))
    assert found.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_shading_is_the_kernels() -> None:
    rng = np.random.default_rng(2)
    spots = (
        SpotLight((2.0, 0.5, -1.0), (0.0, 0.6, 0.8), 1.5, 1.9, (1.0, 0.9, 0.8)),
        SpotLight((-2.0, 0.0, 0.0), intensity=(0.5, 0.6, 0.7)),
    )
    points = rng.uniform(-8, 8, (40, 3)) + [0, 0, 20]
    normals = rng.normal(size=(40, 3)) * 0.4 - [0, 0, 1]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    albedo = rng.uniform(0.1, 0.9, (40, 3))
    packed = pack_lights(spots, np.eye(4))
    rough, film = torch.full((40,), 0.3), torch.full((40,), 0.8)
    surface = Surface(*map(torch.tensor, (points, normals, albedo)), rough, film, 0.05)
    diffuse, mirrored = (x.numpy() for x in radiance(Light.of(spots).to(torch.float64), surface))
    for i, (x, n) in enumerate(zip(points, normals, strict=True)):
        eye = -x / np.linalg.norm(x)
        *e, r, g, b = direct(packed, np.empty(0), *x, *n, *eye, 0.3, 0.05, 0.8)
        assert diffuse[i] == pytest.approx(albedo[i] / math.pi * e, rel=2e-4, abs=1e-9)
        assert mirrored[i] == pytest.approx([r, g, b], rel=2e-4, abs=1e-9)
    x, y, z, factor = arriving(packed[0], *points[0])
    way, share = Light.of(spots).arriving(torch.tensor(points[0], dtype=torch.float32))
    assert way[0].numpy() == pytest.approx([x, y, z], abs=1e-5)
    assert share[0, 0].item() == pytest.approx(factor, rel=1e-4)


def test_every_quantity_has_a_gradient() -> None:
    light = Light.of((SpotLight((1.0, 0.5, -0.5), exponent=1.0),)).to(torch.float64)
    inputs = [
        light.position, light.axis, light.exponent, light.intensity, light.falloff, f(1.0, 2.0, 15.0),
        f(0.1, 0.2, -0.97), f(0.5, 0.3, 0.2), torch.tensor(0.3).double(), torch.tensor(1.0).double(),
        torch.tensor(2.2).double(), torch.tensor(0.4).double(), torch.tensor(0.2).double(),
    ]  # fmt: skip

    def shown(position, axis, exponent, intensity, falloff, point, normal, albedo, rough, film, *curve):
        lamp = Light(position, axis, exponent, light.cutoff_rad, intensity, falloff, light.reference)
        diffuse, mirrored = radiance(lamp, Surface(point, normal, albedo, rough, film))
        return CameraResponse(*curve).displayed(diffuse + mirrored, 500.0, f(0.3, 0.4))

    for x in inputs:
        x.requires_grad_()
    assert torch.autograd.gradcheck(shown, inputs)
    shown(*inputs).sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in inputs)
