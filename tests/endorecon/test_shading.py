"""A surface from the light: scenes that are lit by a point at the lens, with albedo, exposure and tone curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from endorecon.job import reconstruct_video
from endorecon.run import read_run
from endorecon.shading.lamp import Lamp
from endorecon.shading.operators import edges, gradient, graph_laplacian, neighbours, rings, tangents, vertex_normals
from endorecon.shading.problem import Errors
from endorecon.shading.refine import refine_surface
from endorecon.shading.step import Settings
from endorecon.shading.views import View, movement, sample
from rendering.mesh import Caster, Mesh
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

Float = NDArray[np.float64]
# As free as a surface may be whose poses are exact.
FREE = Settings(
    correlated=3, height_std=0.1, tilt_std_rad=0.3, extents=(0.018,) * 6, wide=float("inf"), most_move=0.1
)
CAMERA = Camera.from_fov(160, 128, np.radians(80))
FAR_MM, BUMP_MM, WIDTH_MM = 40.0, 2.0, 5.0
GAMMA = 2.2


def wall(height_mm: float, spacing_mm: float) -> Mesh:
    """A wall at 40 mm that faces the camera, with a bump towards it."""
    axis = np.arange(-24, 24 + spacing_mm / 2, spacing_mm)
    x, y = np.meshgrid(axis, axis)
    z = FAR_MM - height_mm * np.exp(-(x**2 + y**2) / (2 * WIDTH_MM**2))
    n = len(axis)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    a, b, c, d = corner, corner + 1, corner + n, corner + n + 1
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)])
    return Mesh(np.stack([x, y, z], -1).reshape(-1, 3), faces, np.full((n * n, 3), 128, np.uint8))


def noisy_wall() -> Mesh:
    true = wall(BUMP_MM, 1.0)
    z = np.random.default_rng(1).normal(0, 0.3, len(true.vertices))
    return Mesh(true.vertices + np.stack([0 * z, 0 * z, z], -1), true.faces, true.colors)


def albedo(points: Float) -> Float:
    """Blotches and fine speckles."""
    x, y = points[..., 0], points[..., 1]
    blotches, speckles = np.sin(0.31 * x + 1) * np.sin(0.27 * y), np.sin(2.1 * x + 0.7 * y) * np.sin(1.9 * y)
    return 0.4 * np.exp(0.3 * blotches + 0.12 * speckles)


def film(mesh: Mesh, frames: int = 24, lamp_at: Float | None = None, seed: int = 0) -> list[View]:
    """Views of a mesh on a curve, lit from the lens, or from a point in the world."""
    caster, rng, views = Caster(mesh), np.random.default_rng(seed), []
    rays = CAMERA.ray_map().astype(np.float64)
    for t in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        pose = np.eye(4)
        pose[:3, 3] = 11 * np.cos(t), 9 * np.sin(t), 5 * np.sin(2 * t)
        hits = caster.cast(CAMERA, pose)
        points = rays * (hits.depth / rays[..., 2])[..., None] + pose[:3, 3]
        way = (pose[:3, 3] if lamp_at is None else lamp_at) - points
        d = np.maximum(np.linalg.norm(way, axis=-1), 1)
        cosine = np.maximum((way * hits.normals).sum(-1) / d, 0)
        light = albedo(points) * cosine * (FAR_MM / d) ** 2 * np.exp(0.2 * np.sin(3 * t))
        grey = np.where(hits.depth > 0, 255 * np.clip(light, 0, 1) ** (1 / GAMMA), 0)
        rgb = np.clip(grey[..., None] + rng.normal(0, 1, (*grey.shape, 3)), 0, 255).astype(np.uint8)
        views.append(View(Frame(len(views), 0, rgb, hits.depth > 0, np.zeros(grey.shape, bool), CAMERA), pose))
    return views


@pytest.fixture(scope="module")
def bump() -> list[View]:
    return film(wall(BUMP_MM, 0.5))


def heights(mesh: Mesh, inside_mm: float = 12.0) -> Float:
    """How far each vertex near the middle is off the true wall along z."""
    x, y, z = mesh.vertices.astype(np.float64).T
    near = (np.abs(x) < inside_mm) & (np.abs(y) < inside_mm)
    return (z - FAR_MM + BUMP_MM * np.exp(-(x**2 + y**2) / (2 * WIDTH_MM**2)))[near]


def test_a_bump_that_was_missed_is_found(bump: list[View]) -> None:
    """The flat wall is off by .57 mm in the mean; the bump is 2 mm high."""
    flat = wall(0.0, 1.0)
    assert np.abs(heights(flat)).mean() == pytest.approx(0.57, abs=0.03)
    found = refine_surface(flat, CAMERA, bump, FREE)
    assert found.kept, found.reason
    assert np.abs(heights(found.mesh)).mean() < 0.3
    assert found.mesh.vertices.shape == flat.vertices.shape


def test_the_lamp_is_found(bump: list[View]) -> None:
    """One over gamma for the cosine, two over gamma for the distance."""
    lamp = refine_surface(wall(BUMP_MM, 1.0), CAMERA, bump).lamp
    assert lamp is not None
    assert lamp.falloff == pytest.approx(2 / GAMMA, rel=0.1)
    assert lamp.cosine == pytest.approx(1 / GAMMA, rel=0.2)


def test_noise_of_the_surface_is_taken_out(bump: list[View]) -> None:
    """Vertices off by .3 mm, .25 in the mean."""
    noisy = noisy_wall()
    found = refine_surface(noisy, CAMERA, bump, FREE)
    assert found.kept
    assert np.abs(heights(found.mesh)).mean() < 0.5 * np.abs(heights(noisy)).mean()


def test_another_lamp_is_recognised() -> None:
    """A lamp that stays on the ceiling: the brightness of a place does not change as the endoscope moves."""
    flat = wall(0.0, 1.0)
    found = refine_surface(flat, CAMERA, film(wall(BUMP_MM, 0.5), lamp_at=np.array([5.0, -8.0, -15.0])))
    assert not found.kept
    assert "lamp" in found.reason
    np.testing.assert_array_equal(found.mesh.vertices, flat.vertices)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_frames_are_said(bump: list[View], count: int) -> None:
    flat = wall(0.0, 1.0)
    found = refine_surface(flat, CAMERA, bump[:count])
    assert not found.kept
    assert f"{count} frame" in found.sentence()
    assert found.mesh is flat


@pytest.mark.parametrize("grey", [0, 255])
def test_black_and_clipped_frames_are_said(bump: list[View], grey: int) -> None:
    views = [View(Frame.of(np.full_like(v.frame.rgb, grey), camera=CAMERA), v.world_from_cam) for v in bump]
    found = refine_surface(wall(0.0, 1.0), CAMERA, views)
    assert not found.kept
    assert "too dark or clipped" in found.sentence()


def test_the_colours_are_those_of_the_tissue(bump: list[View]) -> None:
    """Twice the log albedo is worth twice the log colour over gamma, wherever the lamp was."""
    found = refine_surface(noisy_wall(), CAMERA, bump, FREE).mesh
    near = (np.abs(found.vertices[:, :2]) < 15).all(1)
    true = np.log(albedo(found.vertices[near].astype(np.float64))) / GAMMA
    seen = np.log(found.colors[near, 1].astype(np.float64))
    assert np.std((seen - seen.mean()) - (true - true.mean())) < 0.03


@pytest.mark.parametrize("better", [True, False])
def test_the_frames_decide_whether_what_was_fused_again_is_taken(bump: list[View], better: bool) -> None:
    """A wall with the bump is better than a flat one, and the flat one worse."""
    mesh, again = wall(0.0, 1.0), wall(BUMP_MM, 0.8)
    if not better:
        mesh, again = again, mesh
    found = refine_surface(mesh, CAMERA, bump, Settings(extents=()), again)
    assert found.again == found.kept == better
    assert found.mesh is mesh or better
    assert len(found.residuals) == 2
    assert ("fused again" in found.sentence()) == better


# -- the parts ----------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_plane() -> None:
    """The slope of 3 x - 2 y on a wall is (3, -2) wherever there are neighbours all around, and at the border too."""
    mesh = wall(0.0, 4.0)
    x = mesh.vertices.astype(np.float64)
    normals = vertex_normals(x, mesh.faces)
    np.testing.assert_allclose(normals, np.broadcast_to([0, 0, -1.0], x.shape), atol=1e-12)
    across = tangents(normals)
    g = gradient(x, mesh.faces, across)
    values = 3 * x[:, 0] - 2 * x[:, 1]
    slope = (g[0] @ values)[:, None] * across[:, 0] + (g[1] @ values)[:, None] * across[:, 1]
    np.testing.assert_allclose(slope, np.broadcast_to([3.0, -2.0, 0.0], slope.shape), atol=1e-9)


def test_edges_neighbours_and_the_graph() -> None:
    """Two triangles of a square: five edges; the first corner has two neighbours or three."""
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    pairs = edges(faces)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    np.testing.assert_allclose(neighbours(pairs, 4) @ np.array([0.0, 3.0, 6.0, 9.0]), [4.5, 5.0, 4.0, 4.5])
    values = np.array([0.0, 1.0, 3.0, 7.0])
    laplacian = graph_laplacian(pairs, np.ones(5), 4)
    assert values @ (laplacian @ values) == pytest.approx(1 + 9 + 4 + 36 + 16)


def test_the_slopes_of_the_shading() -> None:
    """Against differences: a point moved along its normal, and a surface tilted."""
    rng = np.random.default_rng(0)
    lamp = Lamp(0.45, 0.9, (0.0, 0.0, 0.0, 0.0), (1.0, -0.5, 0.2))
    points = rng.normal(0, 5, (50, 3)) + [0, 0, 40]
    normals = rng.normal(0, 0.3, (50, 3)) + [0, 0, -1]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    told = lamp.shade(points, normals)
    step = 1e-5
    moved = (lamp.shade(points + step * normals, normals).value - told.value) / step
    np.testing.assert_allclose(told.by_height, moved, atol=1e-4)
    across = tangents(normals)
    for k in range(2):
        tilted = normals - step * across[:, k]  # a height that grows along a tangent turns the normal against it
        tilted /= np.linalg.norm(tilted, axis=1, keepdims=True)
        change = (lamp.shade(points, tilted).value - told.value) / step
        np.testing.assert_allclose((told.by_slope * across[:, k]).sum(1), change, atol=1e-4)


def test_the_inverse_square() -> None:
    """From 20 to 40 mm: a quarter of the light, 2 / 2.2 of its log on the screen."""
    lamp = Lamp(1 / GAMMA, 2 / GAMMA)
    value = lamp.shade(np.array([[0, 0, 20.0], [0, 0, 40.0]]), np.array([[0, 0, -1.0]] * 2)).value
    assert value[0] - value[1] == pytest.approx(np.log(4) / 2.2)


def test_where_a_point_moves_in_the_image() -> None:
    """f = 160 / 2 / tan 40 deg = 95.34: at 40 mm one millimetre to the right is 2.3835 px."""
    uv, moves, inside = movement(CAMERA, np.array([[0.0, 0.0, 40.0]]), np.array([[1.0, 0.0, 0.0]]))
    assert inside.all()
    np.testing.assert_allclose(uv, [[80.0, 64.0]])
    np.testing.assert_allclose(moves, [[2.3835, 0.0]], atol=1e-3)


def test_pixels_are_met_at_their_middles() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)[..., None]
    seen = sample(image, np.array([[0.5, 0.5], [1.0, 0.5], [2.5, 1.5]]))[:, 0]
    np.testing.assert_allclose(seen, [0, 0.5, 6], atol=5e-3)


def test_surfaces_are_compared_where_both_are_seen() -> None:
    """Of three cells one sees both: there .3 / 1 against .2 / 2, with the lesser weight; elsewhere nothing counts."""
    one = Errors(np.array([[[0.3, 9.0, 0.0]]]), np.array([[[1.0, 1.0, 0.0]]]))
    other = Errors(np.array([[[0.2, 0.0, 7.0]]]), np.array([[[2.0, 0.0, 1.0]]]))
    assert one.compared(other) == pytest.approx(3.0)
    assert one.mean == pytest.approx(9.3 / 2)


def test_how_far_rings_smooth() -> None:
    """On a wall with edges of 1 and sqrt 2 (mean square 4 / 3), four rings spread a point with the variance 4 / 3."""
    mesh = wall(0.0, 1.0)
    x = mesh.vertices.astype(np.float64)
    pairs = edges(mesh.faces)
    square = float(((x[pairs[:, 0]] - x[pairs[:, 1]]) ** 2).sum(1).mean())
    assert square == pytest.approx(4 / 3, rel=0.01)
    assert rings(1.2, square) == 4
    mean, spread = neighbours(pairs, len(x)), (np.linalg.norm(x[:, :2], axis=1) < 0.1).astype(np.float64)
    for _ in range(4):
        spread = (spread + mean @ spread) / 2
    assert spread.sum() == pytest.approx(1.0)
    assert spread @ x[:, 0] ** 2 == pytest.approx(4 / 3)


def test_an_unknown_refinement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="knows none and light, found 'dark'"):
        reconstruct_video(tmp_path / "clip.mp4", tmp_path / "run", refine="dark")


@pytest.mark.slow
def test_a_run_says_what_the_light_did(tmp_path: Path) -> None:
    """From a phantom's video to the run folder: the record, the sentence and the surface."""
    clip = simulate("colon", 3, 16, Camera.from_fov(160, 128, np.radians(95)), 10.0, tmp_path / "clip", extras=False)
    run = reconstruct_video(clip / "video.mp4", tmp_path / "run", clip / "intrinsics.json", refine="light")
    info = read_run(run).info
    assert info["light"]["views"] + info["light"]["held_out"] >= 12
    assert any("refined by the light" in warning for warning in info["warnings"])
    assert 0.2 < info["light"]["lamp"]["falloff"] < 1.5
