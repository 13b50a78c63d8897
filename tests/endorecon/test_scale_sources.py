"""Stereo, an instrument, a CT, the lamps, a metric model: each finds a scale that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from made_run import CAMERA, write_run
from test_budget import seen, tube

from endorecon import cli
from endorecon.run import FrameRow, Run, RunWriter, read_run
from endorecon.scales import add_estimate, ct, instrument, light, model, stereo
from endorecon.scales.base import NotObservableError, ScaleEstimate
from rendering.mesh import Mesh, write_ply
from rendering.phantom.clip import Video, prepare
from rendering.phantom.stereo import both_eyes, right_eye
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.rig_files import read_rig
from video_io.trajectory import Trajectory, align
from video_io.view import View

# -- an instrument ------------------------------------------------------------------------------------------------


def shaft(run: Run, radius: float, foot: tuple[float, float, float], axis: tuple[float, float, float]) -> np.ndarray:
    """Put a cylinder before frame 0 of the made-up run: its depth, by the quadratic equation of each ray. Returns the
    mask of the source's picture."""
    rays = CAMERA.rays(CAMERA.pixels())
    a, p = np.array(axis) / np.linalg.norm(axis), np.array(foot, float)
    v, q = rays - (rays @ a)[..., None] * a, p - p @ a * a
    b, c = v @ q, q @ q - radius**2
    inside = b**2 - (v * v).sum(-1) * c
    hit = inside > 0
    distance = (b - np.sqrt(np.where(hit, inside, 0))) / (v * v).sum(-1)
    depth = np.where(hit, distance * rays[..., 2], 40.0).astype(np.float32)
    np.savez(run.path / "depth" / "000000.npz", depth=depth, confidence=np.full(depth.shape, 0.99, np.float16))
    return cv2.resize(hit.astype(np.uint8), (128, 96), interpolation=cv2.INTER_NEAREST) > 0


def rim(run: Run, radius: float, foot, axis, along: float, side: float) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Where, in the source's picture, one silhouette edge of the cylinder is seen."""
    a, p = np.array(axis) / np.linalg.norm(axis), np.array(foot, float)
    at = p + along * a
    q = at - at @ a * a
    far = np.linalg.norm(q)
    across = np.cross(a, q / far)
    # The tangent from the origin touches where the radius is at a right angle to it.
    touch = at - q * radius**2 / far**2 + side * across * radius * np.sqrt(1 - radius**2 / far**2)
    return CAMERA.project(touch)[0] * 2


@pytest.mark.parametrize("axis", [(1, 0.2, 0), (0.8, 0.3, 0.6)])
def test_the_width_of_a_shaft_is_found_from_four_points_and_from_a_mask(tmp_path: Path, axis) -> None:  # type: ignore[no-untyped-def]
    run, foot = write_run(tmp_path / "run"), (0.5, 0.3, 12.0)
    mask = shaft(run, 1.6, foot, axis)
    picked = [rim(run, 1.6, foot, axis, along, side) for side in (1, -1) for along in (-2, 3)]
    found = instrument.measure(run, 8.0, 0, np.array(picked))
    assert found.mm_per_unit == pytest.approx(8.0 / 3.2, rel=0.01)  # exact but for the pixels of the depth
    two = instrument.measure(run, 8.0, 0, np.array([rim(run, 1.6, foot, axis, 0, side) for side in (1, -1)]))
    assert two.mm_per_unit == pytest.approx(8.0 / 3.2, rel=0.06) and two.log_std > found.log_std
    by_mask = instrument.measure_mask(run, 8.0, 0, mask, "mask.png")
    assert by_mask.mm_per_unit == pytest.approx(8.0 / 3.2, rel=0.06)  # the mask's edge is good to half a working pixel
    assert by_mask.misses(found) < 2


def test_what_is_no_instrument(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for message, call in (
        ("expected a positive number", lambda: instrument.measure(run, -5, 0, np.array([(60, 50), (70, 50)]))),
        ("pick its two sides", lambda: instrument.measure(run, 5, 0, np.array([(60, 50), (61, 50)]))),
        ("3 points were picked", lambda: instrument.measure(run, 5, 0, np.ones((3, 2)))),
        ("no straight shaft", lambda: instrument.measure_mask(run, 5, 0, np.zeros((96, 128), bool), "m")),
        ("is 4 x 4", lambda: instrument.measure_mask(run, 5, 0, np.zeros((4, 4), bool), "m")),
        ("has no masks", lambda: instrument.measure_own_masks(run, 5)),
    ):
        with pytest.raises(InputError, match=message):
            call()


# -- stereo -------------------------------------------------------------------------------------------------------

EYE = Camera.from_fov(160, 128, np.radians(80))
FRAMES, BASE_MM, UNIT = 6, 4.0, 2.5  # a unit of the run is 2.5 mm


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom filmed by two eyes (both.mp4, right.mp4, left.mp4), and a run of the left one from the exact truth."""
    folder = tmp_path_factory.mktemp("pair")
    clip = prepare("tissue", 3, FRAMES, EYE, 5.0)
    with Video(folder / "both.mp4", 320, 128, 5.0, crf=8) as video:
        for picture in both_eyes(clip, BASE_MM):
            video.write(picture)
    for name, eye in (("left", clip), ("right", right_eye(clip, BASE_MM))):
        with Video(folder / f"{name}.mp4", 160, 128, 5.0, crf=8) as video:
            for frame in eye.frames():
                video.write(frame.rgb)
    depths = [frame.depth for frame in clip.frames()]
    for name, whole, box in (("both", (320, 128), (0, 0, 160, 128)), ("left", (160, 128), (0, 0, 160, 128))):
        view = View(*whole, box, 160, 128)
        with RunWriter(folder / f"run_{name}", {"input": str(folder / f"{name}.mp4")}) as writer:
            writer.camera(EYE, view.source_camera(EYE), view, estimated=False)
            for index, depth in enumerate(depths):
                writer.depth(index, depth / UNIT, np.where(depth > 0, 0.9, 0))
            times = np.arange(FRAMES) * 200_000_000
            rows = [FrameRow(i, int(t), "tracked", figures={"depth_scale": 0.5}) for i, t in enumerate(times)]
            poses = clip.poses.copy()
            poses[:, :3, 3] /= UNIT
            writer.finish(rows, Trajectory(times, poses), model="tiny")
    return folder


def test_stereo_pictures_tell_the_scale(pair: Path) -> None:
    run = read_run(pair / "run_both")
    found = stereo.measure(run, stereo.open_pairs(run, pair / "both.mp4", baseline_mm=BASE_MM))
    assert found.mm_per_unit == pytest.approx(UNIT, rel=0.02) and found.log_std < 0.03
    # The same from two videos and a calibration file.
    f, cx, cy = EYE.params[0], EYE.params[2] - 0.5, EYE.params[3] - 0.5
    matrix = f"!!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [{f}, 0, {cx}, 0, {f}, {cy}, 0, 0, 1]\n"
    turn = "!!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [1, 0, 0, 0, 1, 0, 0, 0, 1]\n"
    shift = f"!!opencv-matrix\n   rows: 3\n   cols: 1\n   dt: d\n   data: [{-BASE_MM}, 0, 0]\n"
    (pair / "rig.yml").write_text(f"%YAML:1.0\n---\nM1: {matrix}M2: {matrix}R: {turn}T: {shift}")
    assert read_rig(pair / "rig.yml", (160, 128)).baseline_mm == pytest.approx(BASE_MM)
    left = read_run(pair / "run_left")
    again = stereo.measure(left, stereo.open_pairs(left, pair / "right.mp4", rig=pair / "rig.yml"))
    assert again.mm_per_unit == pytest.approx(UNIT, rel=0.02)
    wrong = stereo.measure(left, stereo.open_pairs(left, pair / "right.mp4", baseline_mm=2 * BASE_MM))
    assert wrong.mm_per_unit == pytest.approx(2 * UNIT, rel=0.04)


def test_stereo_that_can_not_be_used(pair: Path) -> None:
    run = read_run(pair / "run_left")
    for message, arguments in (
        ("does not exist", (pair / "none.mp4",)),
        ("need their calibration", (pair / "right.mp4",)),
        ("expected a positive number", (pair / "right.mp4", None, -1.0)),
        ("not one half of its input's", (pair / "left.mp4", None, 4.0)),
        ("can't be used: it has no M1, M2, R, T", (pair / "right.mp4", pair / "run_left" / "camera.json")),
    ):
        with pytest.raises(InputError, match=message):
            stereo.open_pairs(run, *arguments)
    other = stereo.open_pairs(run, pair / "both.mp4", baseline_mm=4.0)
    with pytest.raises(InputError, match="the right eye's picture is 320 x 128"):
        stereo.measure(run, other)


# -- a CT ---------------------------------------------------------------------------------------------------------


def test_a_ct_tells_the_scale(tmp_path: Path) -> None:
    run, whole = write_run(tmp_path / "run"), tube(0.12)
    part, back = seen(whole, 3.3, 1)
    write_ply(whole, tmp_path / "ct.ply")
    write_ply(part, run.path / "scene" / "mesh.ply")
    points = part.vertices[[100, 900, 1500, 1900]]
    rows = [",".join(f"{v:.6f}" for v in (*p, *back.apply(p))) for p in points]
    (tmp_path / "points.csv").write_text("x,y,z,ct_x,ct_y,ct_z\n" + "\n".join(rows))
    with pytest.raises(InputError, match=r"none\.ply"):
        ct.measure(run, tmp_path / "none.ply")
    found = ct.measure(run, tmp_path / "ct.ply", tmp_path / "points.csv")
    assert found.mm_per_unit == pytest.approx(3.3, rel=0.005) and found.log_std < 0.02


def test_landmarks_hold_where_a_sheet_would_shrink(tmp_path: Path) -> None:
    """Nearly flat tissue lies on a CT at any scale; five points picked to half a millimetre know better."""
    run, rng = write_run(tmp_path / "run"), np.random.default_rng(3)
    side, step = 60, 1.0
    y, x = np.mgrid[:side, :side] * step
    z = 0.4 * np.sin(x / 9) * np.cos(y / 11)
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    halves = ((side, side + 1), (side + 1, 1))
    faces = np.concatenate([np.stack([corner, corner + a, corner + b], 1) for a, b in halves])
    whole = Mesh(np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32), faces.astype(np.int32))
    inner = (np.abs(whole.vertices[faces].mean(1)[:, :2] - 30) < 15).all(1)
    used, where = np.unique(faces[inner], return_inverse=True)
    part = Mesh(whole.vertices[used] / np.float32(2.5), where.reshape(-1, 3).astype(np.int32))
    write_ply(whole, tmp_path / "ct.ply")
    write_ply(part, run.path / "scene" / "mesh.ply")
    at = rng.permutation(len(used))[:5]
    picked = whole.vertices[used[at]] + rng.normal(0, 0.5, (5, 3))
    rows = [",".join(f"{v:.6f}" for v in (*p, *q)) for p, q in zip(part.vertices[at], picked, strict=True)]
    (tmp_path / "points.csv").write_text("x,y,z,ct_x,ct_y,ct_z\n" + "\n".join(rows))
    found = ct.measure(run, tmp_path / "ct.ply", tmp_path / "points.csv")
    low, high = found.interval
    assert low < 2.5 < high and 0.005 < found.log_std < 0.06


def test_what_landmarks_tell_of_scale() -> None:
    """The interval holds as often as it says: five points picked to a tenth of their spread."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        points = rng.normal(size=(5, 3))
        picked = 2 * points + rng.normal(0, 0.2, points.shape)
        held += abs(np.log(align(points, picked, True).scale / 2)) < 1.645 * ct.landmark_std(points, picked)
    assert 0.85 < held / 400 < 0.95  # 0.9 as stated; 400 draws tell it to 0.015


@pytest.mark.parametrize(
    ("a", "b", "value", "std"),
    [
        ((0.0, 0.1), (0.1, 0.1), 0.05, 0.1 / 2**0.5),
        ((0.0, 0.01), (0.1, 0.01), 0.05, 0.05),
        ((0.0, 1.0), (1.0, 3.0), 0.1, 0.9**0.5),
    ],
)
def test_two_values_become_one(a: tuple[float, float], b: tuple[float, float], value: float, std: float) -> None:
    """By hand: the second pair lies 7.07 deviations apart, and so its deviation of .00707 becomes .05."""
    assert ct.weighed(a, b) == pytest.approx((value, std))


# -- the lamps ----------------------------------------------------------------------------------------------------


def lit(lamps_mm: np.ndarray, unit_mm: float, seed: int = 0) -> light.Samples:
    """Random surface points seen in 18 frames from 8 to 60 mm away, lit by lamps; 20 % of albedo."""
    rng, count = np.random.default_rng(seed), 18 * 300
    at = rng.uniform(-1, 1, (count, 2))
    ray = np.concatenate([at * [0.9, 0.7], np.ones((count, 1))], 1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    point = ray * np.exp(rng.uniform(np.log(8), np.log(60), (count, 1))) / unit_mm
    normal = -ray + rng.normal(0, 0.4, (count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    facing = (normal * ray).sum(1) < -0.3
    frame = np.repeat(np.arange(18), 300)[facing]
    made = light.Samples(frame, point[facing], normal[facing], at[facing], np.zeros(facing.sum()))
    seen = np.log(light.arriving(made, lamps_mm / unit_mm)) + rng.normal(0, 0.2, facing.sum())
    # exposure a frame, and vignetting
    seen += rng.normal(0, 0.5, 18)[frame] - 0.3 * (made.at**2).sum(1)
    return replace(made, log_light=seen)


def test_a_lamp_beside_the_lens_tells_the_scale_weakly_and_one_in_the_lens_does_not() -> None:
    lamp = np.array([[4.0, 0.0, 0.0]])
    samples = lit(lamp, 2.5)
    found = light.scale(samples, lamp)
    assert abs(np.log(found[0] / 2.5)) < 0.4 and 0.5 <= found[1] < 0.75
    with pytest.raises(NotObservableError, match="surround the lens"):
        light.scale(samples, np.array([[2.0, 0, 0], [-2.0, 0, 0]]))
    with pytest.raises(NotObservableError, match="in the lens itself"):
        light.scale(samples, np.zeros((1, 3)))
    with pytest.raises(NotObservableError, match="does not tell the scale"):
        light.scale(lit(np.array([[0.05, 0.0, 0.0]]), 2.5), lamp)


# -- a metric model, and what is listed ----------------------------------------------------------------------------


def test_a_metric_model(pair: Path) -> None:
    run = read_run(pair / "run_left")  # its depth was scaled by 0.5: a unit is 2 mm of the network's
    found = model.measure(run, 20.0)
    assert found.mm_per_unit == pytest.approx(2.0) and found.log_std == pytest.approx(np.log(1.2))
    with pytest.raises(InputError, match="expected more than 0"):
        model.measure(run, 0)


def test_a_vague_estimate_is_listed_but_not_used(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run.path / "report.html").write_text("<p class='scale'>Scale</p>")
    vague, sure = ScaleEstimate("the light", 3.0, 0.5), ScaleEstimate("a ruler", 2.0, 0.01)
    told = add_estimate(run, vague)
    assert told.unit == "up to scale" and told.trajectory.centres[-1, 2] == 4
    assert told.info["scale"] == (
        "up to scale: nothing of known length is in view (too vague to be used: the light: 1.32 to 6.83 with 90 % "
        "probability)"
    )
    both = add_estimate(told, sure, ScaleEstimate("a robot", 2.3, 0.02))
    assert both.unit == "mm" and both.trajectory.centres[-1, 2] == 8
    listed = both.info["scale_estimates"]
    assert [e["contradicts"] for e in listed] == [False, True, False]
    assert listed[0]["interval_90"] == pytest.approx([1.967371, 2.033171])
    assert "contradicted by a robot: one of them is wrong" in both.info["scale"]
    assert (run.path / "report.html").read_text().count("<br>") == 3
    yaml.safe_load((run.path / "run.yaml").read_text())


def test_the_command_says_what_is_missing(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(pair / "run_left")
    for arguments, words in (
        (["--rig", "a.yml"], "--rig and --baseline-mm belong to stereo"),
        (["--landmarks", "a.csv"], "give its surface with --ct"),
        (["--lamps-mm", "1", "2"], "three for each lamp"),
        (["--instrument-mm", "5", "--frame", "0"], "needs --points or --mask too"),
        (["--instrument-mm", "5", "--frame", "0", "--points", "1", "2"], "of two or of four points"),
        (["--frame", "3"], "--length-mm MM, --frame N and --points"),
    ):
        assert cli.main(["scale", run, *arguments]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["scale", run, "--lamps-mm", "0", "0", "0"]) == 0
    assert "the light does not tell the scale" in capsys.readouterr().out
