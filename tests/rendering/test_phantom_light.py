"""Light, reflection and camera response, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rendering.brdf import fresnel_schlick, ggx
from rendering.light import SpotLight, arriving, pack_lights, spot_profile
from rendering.phantom.kernel import shade
from rendering.phantom.material import Material, pack_materials
from rendering.phantom.noise import fbm, noise, noise_gradient
from rendering.phantom.texture import F0, FILM, POOL_LEVEL, ROUGHNESS, SPECKLE_SHARE, VESSEL_SHARE
from rendering.shade import Response

LIGHT = SpotLight()
PLAIN = Material(
    base=(0.5, 0.25, 0.1), mottle_share=0, vessel_share=0, speckle_share=0, bump_slope=0, fine_slope=0, film=0
)  # fmt: skip


def radiance(
    point: tuple[float, ...], normal: tuple[float, ...], material: Material = PLAIN, light: SpotLight = LIGHT
) -> np.ndarray:
    """Radiance towards an eye at the origin, where the light is too."""
    out, albedo = np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)
    shade(
        np.array([point], np.float32), np.array([point], np.float32), np.array([normal], np.float32),
        np.zeros(1, np.int32), np.zeros(3), pack_materials((material,)), 1, pack_lights((light,), np.eye(4)),
        np.zeros((1, 0), np.float32), np.zeros((1, 3), np.float32), 0.004, out, albedo,
    )  # fmt: skip
    return out[0]


def test_half_the_distance_gives_four_times_the_light() -> None:
    near, far = radiance((0, 0, 10), (0, 0, -1)), radiance((0, 0, 20), (0, 0, -1))
    # albedo / pi * intensity / d^2 = 0.5 / pi / 100
    assert near[0] == pytest.approx(1.591549e-3, rel=1e-5)
    assert near / far == pytest.approx([4, 4, 4], rel=1e-5)


def test_a_surface_turned_by_60_degrees_gets_half_the_light() -> None:
    upright = radiance((0, 0, 10), (0, 0, -1))
    turned = radiance((0, 0, 10), (math.sqrt(0.75), 0, -0.5))
    assert turned / upright == pytest.approx([0.5, 0.5, 0.5], rel=1e-5)


def test_the_beam_falls_off_to_the_side() -> None:
    assert spot_profile(math.cos(math.pi / 3), 1.0, math.pi / 2) == pytest.approx(0.5)
    assert spot_profile(math.cos(math.pi / 3), 2.0, math.pi / 2) == pytest.approx(0.25)
    assert spot_profile(math.cos(1.0), 1.0, 0.9) == 0.0
    light = pack_lights((SpotLight(position_mm=(3.0, 0.0, 0.0)),), np.eye(4))[0]
    x, y, z, factor = arriving(light, 3.0, 0.0, 5.0)
    assert (x, y, z, factor) == pytest.approx((0, 0, -1, 1 / 25))


def test_lights_move_with_the_camera() -> None:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]], [10, 20, 30]
    row = pack_lights((SpotLight(position_mm=(0, 0, 2)),), pose)[0]
    assert row[:6] == pytest.approx([12, 20, 30, 1, 0, 0])


def test_ggx_at_normal_incidence() -> None:
    # alpha = 0.25: D = 1 / (pi 0.0625) = 5.09296; G2 / (4 cos cos) = 1/4; F = 0.04
    assert ggx(0.5, 0.04, 1.0, 1.0, 1.0, 1.0) == pytest.approx(0.0509296, rel=1e-5)
    assert fresnel_schlick(0.04, 0.5) == pytest.approx(0.04 + 0.96 / 32)
    assert ggx(0.5, 0.04, -0.1, 1.0, 1.0, 1.0) == 0.0


def directional(roughness: float, light: np.ndarray, view: np.ndarray, f0: float = 1.0) -> float:
    half = (light + view) / np.linalg.norm(light + view)
    return ggx(roughness, f0, light[2], view[2], half[2], float(view @ half))


def test_ggx_is_reciprocal() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.standard_normal((2, 3))
        a, b = np.abs(a) / np.linalg.norm(a), np.abs(b) / np.linalg.norm(b)
        assert directional(0.4, a, b, 0.04) == pytest.approx(directional(0.4, b, a, 0.04), rel=1e-9)


@pytest.mark.parametrize("roughness", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("angle", [0.0, 0.8, 1.4])
def test_ggx_reflects_no_more_than_arrives(roughness: float, angle: float) -> None:
    view = np.array([math.sin(angle), 0.0, math.cos(angle)])
    polar, azimuth = (np.arange(100) + 0.5) * math.pi / 200, (np.arange(100) + 0.5) * math.pi / 50
    total = 0.0
    for p in polar:
        for a in azimuth:
            light = np.array([math.sin(p) * math.cos(a), math.sin(p) * math.sin(a), math.cos(p)])
            total += directional(roughness, light, view) * light[2] * math.sin(p)
    total *= (math.pi / 200) * (math.pi / 50)
    assert 0.3 < total <= 1.0 + 2e-3


def test_a_wet_surface_shines_where_it_faces_the_light() -> None:
    wet = Material(**{**PLAIN.__dict__, "film": 1.0, "roughness": 0.5, "f0": 0.04})
    # The film adds ggx = 0.0509296 times the irradiance 1/100.
    assert radiance((0, 0, 10), (0, 0, -1), wet)[2] == pytest.approx(0.1 / math.pi / 100 + 0.000509296, rel=1e-4)


def test_material_columns_are_where_the_kernels_look() -> None:
    row = pack_materials(
        (Material(roughness=0.61, f0=0.62, film=0.63, pool_level=0.64, speckle_share=0.65, vessel_share=0.66),)
    )[0]
    found = [row[c] for c in (ROUGHNESS, F0, FILM, POOL_LEVEL, SPECKLE_SHARE, VESSEL_SHARE)]
    assert found == pytest.approx([0.61, 0.62, 0.63, 0.64, 0.65, 0.66])


def test_noise_has_the_gradient_it_claims() -> None:
    rng = np.random.default_rng(1)
    for x, y, z in rng.uniform(-20, 20, (40, 3)):
        value, gx, gy, gz = noise_gradient(x, y, z, 5)
        step = 1e-5
        numeric = [
            (noise_gradient(x + step * a, y + step * b, z + step * c, 5)[0] - value) / step
            for a, b, c in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        ]
        assert numeric == pytest.approx([gx, gy, gz], abs=2e-3)
        assert abs(noise(x, y, z, 5)) <= 1


def test_noise_is_the_same_everywhere() -> None:
    # Recorded once; a change would change every seeded clip.
    assert fbm(np.array([[0.3, 1.7, -2.2], [15.0, -8.5, 3.25]]), 1.0, 2, 11) == pytest.approx(NOISE, abs=1e-8)


NOISE = [-0.340149413, 0.032232262]


def test_exposure_brings_the_quantile_to_the_level() -> None:
    response = Response(
        level=0.5, quantile=0.5, gamma=2.0, shoulder=0, vignette=0, read_noise=0, shot_noise=0, blur_px=0, lag=0.75
    )
    image = np.full((16, 16, 3), 0.02, np.float32)
    gain = response.exposure(image)
    # 0.5 ** 2 / 0.02
    assert gain == pytest.approx(12.5, rel=1e-5)
    assert response.exposure(image, previous=12.5 * 16) == pytest.approx(12.5 * 8, rel=1e-5)
    shown = response.develop(image, gain, np.random.default_rng(0))
    # 127.5, which float32 may round either way
    assert set(np.unique(shown).tolist()) <= {127, 128}
    assert response.exposure(np.zeros((16, 16, 3), np.float32), 3.0) > 0


def test_noise_vignette_and_white_balance() -> None:
    image = np.full((64, 64, 3), 0.25, np.float32)
    response = Response(
        gamma=2.0, shoulder=0, vignette=0.5, read_noise=0.02, shot_noise=0, blur_px=0, white_balance=(1, 0.64, 1)
    )
    shown = response.develop(image, 1.0, np.random.default_rng(0)).astype(float)
    centre, corner = shown[28:36, 28:36], shown[:4, :4]
    assert centre[..., 0].mean() == pytest.approx(127.5, abs=2)
    assert centre[..., 1].mean() == pytest.approx(0.8 * 127.5, abs=2)
    assert corner[..., 0].mean() < 0.8 * centre[..., 0].mean()
    assert centre[..., 0].std() == pytest.approx(0.02 * 255, rel=0.25)
