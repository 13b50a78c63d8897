"""Light, response and material, found again in frames that were rendered by known ones; and clips that tell nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from endorecon.light.doubts import Told, check_fits
from endorecon.light.estimate import WITHOUT_BOUNCES, Fits, estimate, fit_light, smooth_normals
from endorecon.light.evidence import Sight, gather
from endorecon.light.exposures import measured_again
from endorecon.light.material import painted
from endorecon.lighting import Lamp, Lighting, LitScene
from rendering.mesh import Mesh
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

CAMERA = Camera.from_fov(96, 80, math.radians(80))
LAMP = Lamp.single((1.2, -0.8, -0.3), (0.08, -0.05, 0.9955), exponent=1.4, intensity=(400.0, 400.0, 400.0))


@cache
def folds() -> Mesh:
    """A height field with folds, 12 to 25 mm before the camera."""
    n = 61
    x, y = np.meshgrid(np.linspace(-25, 25, n), np.linspace(-25, 25, n))
    z = 20 + 3 * np.sin(x / 3.1) * np.cos(y / 3.7) + 0.008 * (x**2 - y**2)
    at = np.arange(n * n).reshape(n, n)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, 1:].ravel(), at[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([a, d, c], 1)])
    return Mesh(np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32), faces.astype(np.int32))


@cache
def truth(film: float = 0.6) -> Lighting:
    mesh = folds()
    x, y, _ = mesh.vertices.T.astype(float)
    pattern = 0.5 + 0.3 * np.sin(x / 2.2) * np.sin(y / 1.7)
    n = len(mesh.vertices)
    return Lighting(
        LAMP, 2.2, 0.3, 0.1, np.arange(10), np.geomspace(1.0, 1.6, 10), np.ones((10, 3)),
        (pattern[:, None] * [0.9, 0.5, 0.4]).astype(np.float32), np.full(n, 0.3, np.float32),
        np.full(n, film, np.float32), np.ones(n, np.float32),
    )  # fmt: skip


def poses() -> list[np.ndarray]:
    """A camera that goes ahead, to the side and turns."""
    made = []
    for t in np.linspace(0, 1, 10):
        pose = np.eye(4)
        a, b = 0.25 * math.sin(5 * t), 0.2 * math.cos(4 * t)
        turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
        tip = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
        pose[:3, :3] = turn @ tip
        pose[:3, 3] = [4 * math.sin(6 * t), 3 * math.cos(5 * t) - 3, 7 * t - 3]
        made.append(pose)
    return made


@cache
def sights(film: float = 0.6) -> tuple[Sight, ...]:
    scene, made = LitScene(truth(film), folds()), []
    for number, pose in enumerate(poses()):
        rgb = scene.view(CAMERA, pose, frame=number).rgb
        made.append(Sight(replace(Frame.of(rgb, number), camera=CAMERA), pose))
    return tuple(made)


@cache
def fits() -> Fits:
    mesh = folds()
    return fit_light(mesh, gather(mesh, mesh.vertex_normals, sights(), 500), bounces=False)


def test_the_light_is_found_again() -> None:
    best = fits().best
    lamp = best.lamp()
    assert len(lamp.position) == 1
    assert lamp.position[0] == pytest.approx(LAMP.position[0], abs=0.4)
    assert fits().joint.values["falloff"] == pytest.approx(2.0, abs=0.12)
    assert fits().falloff.values["falloff"] == pytest.approx(2.0, abs=0.12)
    assert best.std("x") < 0.1


def test_the_response_is_found_again() -> None:
    import torch

    best, x = fits().best, torch.linspace(0.02, 1, 50)
    found = replace(truth(), gamma=float(np.exp(best.values["log_gamma"])), shoulder=best.values["shoulder"]).response()
    shown = truth().response().displayed(x, 1.0)
    gaps = [float((found.displayed(s * x, 1.0) - shown).abs().max()) for s in np.geomspace(0.7, 1.4, 60)]
    assert min(gaps) < 0.03


def test_albedo_and_roughness_are_found_again() -> None:
    mesh = folds()
    found = estimate(mesh, sights(), bounces=False, points=500)
    seen = found.observed > np.median(found.observed)
    ratio = (found.albedo / truth().albedo)[seen]
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.07
    assert np.median(found.roughness) == pytest.approx(0.3, abs=0.1)  # the blur of a coarse image widens it
    # by convention, as there is no light between surfaces in the model
    assert np.quantile(found.albedo.max(1), 0.95) == pytest.approx(0.6, rel=0.2)
    assert "roughness" in found.observable and "albedo's scale" in found.fixed
    assert found.exposure / found.exposure[0] == pytest.approx(truth().exposure, rel=0.1)


@pytest.mark.slow
def test_what_there_is_no_highlight_for_is_said() -> None:
    found = estimate(folds(), sights(0.0), bounces=False, points=300)
    assert not found.specular.any() and "roughness" in found.fixed
    assert any("no highlights" in sentence for sentence in found.warnings)


def test_albedo_stays_below_one_without_losing_its_colour() -> None:
    mesh, fitted = folds(), fits()
    told = Told({"albedo's scale": "told"}, {}, ())
    wet = replace(fitted, scale=10 * fitted.scale)
    usual, pale = (painted(mesh, mesh.vertex_normals, sights(), f, told, "mm", lambda *_: None) for f in (fitted, wet))
    seen = usual.observed > np.median(usual.observed)
    assert np.quantile(pale.albedo[seen].max(1), 0.98) == pytest.approx(0.99, abs=0.01)
    tint = [(v.albedo[seen, 0] / v.albedo[seen, 2])[v.albedo[seen].max(1) < 0.98] for v in (usual, pale)]
    assert np.median(tint[1]) == pytest.approx(np.median(tint[0]), rel=0.05)
    assert not usual.warnings and "scale was brought down" in pale.warnings[0]
    assert "albedo's scale" in usual.observable and "albedo's scale" not in pale.observable
    assert pale.fixed["albedo's scale"] == "98 % of what is well measured has an albedo below 1"


def test_without_light_between_surfaces_where_that_explains_no_lamp(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(found: Fits) -> Told:
        if found.tracer is not None:
            raise InputError("another lamp")
        return check_fits(found)

    monkeypatch.setattr("endorecon.light.doubts.check_fits", refused)
    found = estimate(folds(), sights()[::2], points=200)
    assert found.bounces == 0 and found.warnings[-1] == WITHOUT_BOUNCES


def test_exposure_and_white_balance_are_measured_in_the_scenes_pictures() -> None:
    mesh, true = folds(), truth()
    tint = np.array([[1.08, 0.97, 1.0]]) * np.linspace(0.9, 1.15, 10)[:, None]
    wrong = replace(true, exposure=np.full(10, 1.3), white_balance=tint)
    found = measured_again(wrong, mesh, mesh.vertex_normals, sights())
    gains = found.exposure[:, None] * found.white_balance
    assert gains == pytest.approx(np.repeat(true.exposure[:, None], 3, 1), rel=0.02)
    # A frame in which nothing can be compared keeps what it had.
    dark = [replace(s, frame=replace(s.frame, rgb=np.zeros_like(s.frame.rgb))) for s in sights()]
    kept = measured_again(wrong, mesh, mesh.vertex_normals, dark)
    assert kept.exposure[:, None] * kept.white_balance == pytest.approx(1.3 * tint)


def test_frames_that_tell_nothing_are_refused() -> None:
    mesh, seen = folds(), list(sights())
    with pytest.raises(InputError, match="in 1 frame: expected at least 3"):
        estimate(mesh, seen[:1])
    for level, said in ((0, "are black; expected a lit picture"), (255, "are clipped to white")):
        plain = [replace(s, frame=replace(s.frame, rgb=np.full_like(s.frame.rgb, level))) for s in seen]
        with pytest.raises(InputError, match=said):
            estimate(mesh, plain)
    with pytest.raises(InputError, match="mesh is empty"):
        estimate(mesh.with_faces(np.zeros(len(mesh.faces), bool)), seen)


@pytest.mark.slow
def test_another_lamp_is_recognised() -> None:
    """The room is lit evenly: what is near is no brighter than what is far."""
    scene, made = LitScene(truth(0.0), folds()), []
    for number, pose in enumerate(poses()):
        albedo = scene.view(CAMERA, pose).albedo
        rgb = (255 * np.clip(albedo * 0.8, 0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)
        made.append(Sight(replace(Frame.of(rgb, number), camera=CAMERA), pose))
    with pytest.raises(InputError, match="brightness does not fall with the distance"):
        estimate(folds(), made, bounces=False, points=300)


def test_normals_are_smoothed_over_neighbours() -> None:
    """A plane with steps, as marching cubes leave them."""
    mesh, rng = folds(), np.random.default_rng(0)
    bumpy = mesh.vertices * [1, 1, 0] + rng.normal(0, 0.05, mesh.vertices.shape)
    found = [smooth_normals(replace(mesh, vertices=bumpy), rounds)[:, 2] for rounds in (0, 4)]
    before, after = (np.degrees(np.arccos(np.abs(z))) for z in found)
    assert np.median(after) < 0.5 * np.median(before)


def test_the_fast_model_and_its_slopes_agree_with_the_plain_one() -> None:
    """The kernel that the fit runs, against `rendering.physics`: values, and slopes by central differences."""
    from endorecon.light import model, solver

    evidence = gather(folds(), folds().vertex_normals, sights(), 60)
    unit = float(np.median(evidence.distance))
    rng = np.random.default_rng(0)
    traced = model.Between(rng.random((3, len(evidence.point), 3), np.float32), np.full(3, 0.4, np.float32))
    for parts, between in ((model.Parts(film=True, pair=True), traced), (model.Parts(film=True), None)):
        data = solver.Data.of(evidence, unit, between, highlights=True)
        values = {**model.start(), "x": 0.1, "y": -0.06, "half_x": 0.05, "half_y": 0.02, "tilt_x": 0.1, "tilt_y": -0.05}
        counts = len(evidence.points), len(evidence.frames)
        at = model.Estimate(values, *(0.3 * rng.normal(size=(n, 3)) - 0.5 for n in counts), unit)
        shown, by_albedo, by_gain, by_free = solver._linearised(data, at, model.NAMES, parts)
        plain, h = solver.reference(data, at, parts), 1e-5
        assert np.abs(shown - plain).max() < 1e-6
        for k, name in enumerate(model.NAMES):
            ends = (solver.reference(data, at.with_values(**{name: values[name] + d}), parts) for d in (h, -h))
            slope = np.subtract(*ends) / (2 * h)
            assert np.abs(by_free[..., k] - slope).max() < 1e-4 * max(1.0, np.abs(slope).max()), name
        up = solver.reference(data, replace(at, log_albedo=at.log_albedo + h), parts)
        assert np.abs(by_albedo - (up - plain) / h).max() < 1e-3
        up = solver.reference(data, replace(at, log_gain=at.log_gain + h), parts)
        assert np.abs(by_gain - (up - plain) / h).max() < 1e-3


@pytest.mark.slow
def test_with_light_between_surfaces_lamp_and_albedo_are_found_again() -> None:
    """A pale, folded wall; the phantom's own figures are in docs/light.md."""
    mesh, made = folds(), []
    pale = replace(truth(0.0), albedo=np.minimum(1.6 * truth().albedo, 0.9), bounces=3)
    scene = LitScene(pale, mesh)
    for number, pose in enumerate(poses()):
        rgb = scene.view(CAMERA, pose, frame=number).rgb
        made.append(Sight(replace(Frame.of(rgb, number), camera=CAMERA), pose))
    found = estimate(mesh, made, points=300)
    assert found.bounces == 3
    assert found.lamp.position[0] == pytest.approx(LAMP.position[0], abs=0.5)
    seen = found.observed > np.median(found.observed)
    ratio = np.median((found.albedo / pale.albedo)[seen], 0)
    assert ratio / ratio.mean() == pytest.approx(np.ones(3), abs=0.1)  # each colour's walls and light agree


def test_walls_and_their_light_agree_at_once() -> None:
    """A cavity in which each wall sees half of what others throw: put in too pale or dark, the true albedo comes out.

    Lit by 1, a wall of albedo a is as bright as a (1 + a / 2 + (a / 2)^2 + (a / 2)^3 / (1 - a)): 0.6 as
    0.6 (1 + 0.3 + 0.09 + 0.0675) = 0.8745.
    """
    import torch

    from endorecon.light.between import Walls
    from endorecon.light.model import Estimate, Seen, start

    evidence = gather(folds(), folds().vertex_normals, sights()[:3], 30)
    m = len(evidence.points)
    ahead, one = torch.tensor([[0.0, 0.0, 1.0]]).repeat(m, 1), torch.ones(m, 3)
    for believed in (0.3, 0.85):
        walls = Walls(folds(), evidence, np.full((m, 3), np.log(believed)))
        walls.scale = 1.0
        thrown = [believed / 2, (believed / 2) ** 2, (believed / 2) ** 3]
        seen = Seen(
            ahead, -ahead, torch.zeros(m, 2), torch.stack([o * one for o in thrown]), torch.arange(m),
            torch.zeros(m, dtype=torch.long), 1.0, (m, 1), torch.full((3,), believed),
        )  # fmt: skip
        bright = 1 + thrown[0] + thrown[1] + thrown[2] / (1 - believed)
        found = Estimate({**start(), "falloff": 2.0}, np.full((m, 3), np.log(0.8745 / bright)), np.zeros((1, 3)), 1.0)
        walls.agree(seen, found)
        assert np.exp(walls.log) == pytest.approx(0.6, rel=1e-3)


def test_light_between_walls_is_wrong_alike_wherever_the_lamp_is() -> None:
    """Few paths: what they miss at a point is much the same for two places of the lamp, so albedo takes it."""
    from endorecon.light.between import Web
    from rendering.bounce import Bounces

    mesh, pale = folds(), np.full((len(folds().vertices), 3), 0.6)
    evidence = gather(mesh, mesh.vertex_normals, sights()[3:5], 60)
    tracer = Bounces(mesh, pale)
    few, many = (Web(tracer, evidence, 60, n).traced(LAMP).orders.sum(0)[:, 0] for n in (16, 2000))
    wrong = np.log(few / many)
    ways = [wrong[evidence.frame == f] for f in (0, 1)]
    both = np.intersect1d(*(evidence.point[evidence.frame == f] for f in (0, 1)))
    pairs = [w[np.isin(evidence.point[evidence.frame == f], both)] for f, w in enumerate(ways)]
    assert np.std(pairs[0] - pairs[1]) < 0.5 * np.std(pairs[0])
