"""New clips with truth from a run: a ball seen from inside, whose depth and light are known by formula."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from endorecon import cli
from endorecon.evaluate.light_audit import audit
from endorecon.evaluate.light_conditions import CONDITIONS
from endorecon.evaluate.light_run import run_places
from endorecon.lighting import FOLDER, Lamp, Lighting
from endorecon.new_paths import NewPaths, longest_run
from endorecon.record import record_truth
from endorecon.resimulate import filled, resimulate
from endorecon.run import FrameRow, Run, RunWriter, read_run
from rendering.mesh import Mesh, distances_to, read_ply, write_ply
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.datasets import clip_folders, open_truth
from video_io.errors import InputError
from video_io.trajectory import Trajectory
from video_io.view import View

CAMERA = Camera.from_fov(128, 96, np.radians(80))
FRAMES = 12
RADIUS = 40.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The inside of a ball of 40 mm, of one red, a lamp in the lens; the camera goes to and fro about its middle."""
    out = tmp_path_factory.mktemp("runs") / "ball"
    ball = trimesh.creation.icosphere(5, RADIUS)
    mesh = Mesh(np.asarray(ball.vertices), np.asarray(ball.faces)[:, ::-1])
    poses = np.tile(np.eye(4), (16, 1, 1))
    poses[:, 0, 3], poses[:, 2, 3] = np.linspace(-6, 6, 16), np.linspace(-4, 4, 16) ** 2 / 4
    times = np.arange(16) * 100_000_000
    view = View(128, 96, (0, 0, 128, 96), 128, 96)
    with RunWriter(out, {"input": "ball"}) as writer:
        writer.camera(CAMERA, CAMERA, view, estimated=False)
        for n, pose in enumerate(poses):
            writer.depth(n, depth_in_ball(pose), np.ones((96, 128)))
        rows = [FrameRow(n, int(t), "tracked") for n, t in enumerate(times)]
        writer.finish(rows, Trajectory(times, poses), mesh, scale="mm: made")
    light(out)
    return read_run(out)


def light(path: Path) -> None:
    """Exposed so that the wall opposite, 40 mm away, is at half of white; no highlights, no vignette."""
    n = len(read_ply(path / "scene" / "mesh.ply").vertices)
    Lighting(
        lamp=Lamp.single(exponent=0.0), gamma=2.2, shoulder=0.0, vignette=0.0, frames=np.arange(16),
        exposure=np.full(16, 0.5**2.2 * np.pi * RADIUS**2 / 0.6), white_balance=np.ones((16, 3)),
        albedo=np.tile(np.array([0.6, 0.3, 0.25], np.float32), (n, 1)), roughness=np.full(n, 0.3, np.float32),
        specular=np.zeros(n, np.float32), observed=np.ones(n, np.float32), unit="mm",
    ).save(path / FOLDER)  # fmt: skip


def depth_in_ball(pose: np.ndarray) -> np.ndarray:
    """z of the ball's wall, (96, 128): |c + d r| = R for the unit ray r."""
    rays = CAMERA.ray_map().astype(float)
    along = rays @ pose[:3, :3].T @ pose[:3, 3]
    return (np.sqrt(along**2 - pose[:3, 3] @ pose[:3, 3] + RADIUS**2) - along) * rays[..., 2]


@pytest.fixture(scope="module")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "ball"
    resimulate(run, out, paths=2, frames=FRAMES, seed=3, fps=10.0)
    return out


def test_a_new_clip_has_the_layout_of_a_phantom(made: Path, tmp_path: Path) -> None:
    phantom = simulate("tissue", 5, 2, CAMERA, 10.0, tmp_path / "phantom", extras=False)
    assert [path.name for path in clip_folders(made)] == ["path_00", "path_01"]
    for folder in clip_folders(made):
        held = {path.name for path in folder.iterdir()}
        assert held == {path.name for path in phantom.iterdir()} | {"mask"}
        truth = open_truth(folder)
        assert (truth.frame_count, truth.unit, truth.camera) == (FRAMES, "mm", CAMERA)
        assert np.diff(truth.times_ns).tolist() == [100_000_000] * (FRAMES - 1)
        capture = cv2.VideoCapture(str(folder / "video.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


def test_depth_is_that_of_the_surface_from_the_new_pose(made: Path) -> None:
    truth = open_truth(made / "path_01")
    for number in (0, FRAMES - 1):
        depth, mask = truth.depth(number), truth.mask(number)
        assert mask.all() and (depth > 0).all()
        # An icosphere's faces lie up to 0.012 mm inside the ball.
        np.testing.assert_allclose(depth, depth_in_ball(truth.trajectory.world_from_cam[number]), rtol=1.5e-3)


def test_a_new_path_keeps_away_and_is_another(made: Path, run: Run) -> None:
    own, mesh = run.trajectory.world_from_cam[:, :3, 3], read_ply(run.mesh_path)
    nearest = distances_to(mesh, own)
    for folder in clip_folders(made):
        poses = open_truth(folder).trajectory.world_from_cam
        assert distances_to(mesh, poses[:, :3, 3]).min() > 0.65 * np.percentile(nearest, 10)
        beside = np.linalg.norm(poses[:, None, :3, 3] - own, axis=2).min(1)
        assert np.median(beside) > 0.01 * np.median(nearest)
        steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
        assert steps.max() < 0.2 * np.median(nearest)


def test_the_same_seed_gives_the_same_and_light_can_vary(made: Path, run: Run, tmp_path: Path) -> None:
    resimulate(run, tmp_path / "again", frames=FRAMES, seed=3, fps=10.0)
    resimulate(run, tmp_path / "lit", frames=FRAMES, seed=3, fps=10.0, vary_light=True)
    first = made / "path_00"
    for name in ("poses.txt", "depth/0004.png", "rgb/0004.jpg"):
        assert (tmp_path / "again" / "path_00" / name).read_bytes() == (first / name).read_bytes()
    assert (tmp_path / "lit/path_00/depth/0004.png").read_bytes() == (first / "depth/0004.png").read_bytes()
    lit, usual = (cv2.imread(str(p / "rgb/0004.jpg")).astype(int) for p in (tmp_path / "lit/path_00", first))
    assert np.abs(lit - usual).mean() > 3


def test_light_is_the_lamps(made: Path) -> None:
    """Lambert, inverse square: red is (0.5^2.2 R^2 cos / d^2)^(1/2.2), cos = (R^2 + d^2 - c^2) / (2 R d) from the
    triangle of the ball's middle, the lens (c from it) and the wall."""
    truth = open_truth(made / "path_00")
    poses = truth.trajectory.world_from_cam
    number = int(np.argmax(np.linalg.norm(poses[:, :3, 3], axis=1)))
    pose = poses[number]
    d = depth_in_ball(pose) / CAMERA.ray_map()[..., 2]
    cosine = (RADIUS**2 + d**2 - pose[:3, 3] @ pose[:3, 3]) / (2 * RADIUS * d)
    expected = 0.5 * (RADIUS**2 * cosine / d**2) ** (1 / 2.2)
    rgb = cv2.blur(truth.image(number).astype(np.float32) / 255, (7, 7))  # the noise
    assert np.ptp(expected) > 0.03  # more than the tolerance below
    np.testing.assert_allclose(rgb[8:-8, 8:-8, 0], expected[8:-8, 8:-8], atol=0.012)
    # albedo 0.6 to 0.3, as displayed
    assert np.median(rgb[..., 1] / rgb[..., 0]) == pytest.approx(0.5 ** (1 / 2.2), abs=0.02)


def test_a_hole_is_no_dark_tissue(run: Run, tmp_path: Path) -> None:
    holed = tmp_path / "holed"
    shutil.copytree(run.path, holed)
    mesh = read_ply(run.mesh_path)
    away = np.linalg.norm(mesh.vertices[mesh.faces].mean(1) - [0, 0, RADIUS], axis=1)
    write_ply(mesh.with_faces(away > 8), holed / "scene" / "mesh.ply")
    light(holed)
    made = resimulate(read_run(holed), tmp_path / "made", frames=FRAMES, seed=1, fps=10.0)
    truth = open_truth(made.folders[0])
    holes = [(truth.image(n), ~truth.mask(n), truth.depth(n)) for n in range(FRAMES)]
    rgb, hole, depth = max(holes, key=lambda found: found[1].sum())
    # 16 mm of the 67 mm across that are seen 40 mm away at 80 degrees: pi 8^2 / (67 * 50) = 0.06, from nearer more
    assert 0.02 < hole.mean() < 0.13
    assert (depth[hole] == 0).all()
    inner = cv2.erode(hole.astype(np.uint8), np.ones((5, 5))) > 0
    grey = rgb[inner].astype(int)
    assert np.median(np.ptp(grey, axis=1)) < 12  # no colour, but for JPEG and noise
    ring = cv2.dilate(hole.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~hole
    assert np.median(grey) > 0.6 * np.median(rgb[ring].mean(1))
    assert made.seen[0] == pytest.approx(1 - hole.mean(), abs=1e-6)


def test_filling() -> None:
    rgb = np.full((32, 40, 3), (90, 60, 30), np.uint8)
    known = np.ones((32, 40), bool)
    known[10:20, 10:30] = False
    rgb[~known] = 0
    out = filled(rgb, known)
    assert np.array_equal(out[known], rgb[known])
    # 0.3 * 90 + 0.6 * 60 + 0.1 * 30
    assert np.abs(out[~known].astype(int) - 66).max() <= 1
    assert filled(rgb, np.ones_like(known)) is rgb


def test_the_longest_stretch() -> None:
    assert longest_run(np.array([False, True, True, False, True, True, True])) == (4, 7)
    assert longest_run(np.array([True, False])) == (0, 1)
    assert longest_run(np.zeros(3, bool)) == (0, 0)


def test_a_path_without_surface_is_refused(run: Run) -> None:
    mesh = read_ply(run.mesh_path)
    away = run.trajectory.world_from_cam.copy()
    away[:, :3, :3] = away[:, :3, :3] @ np.diag([1.0, -1.0, -1.0])  # looks back
    half = mesh.with_faces(mesh.vertices[mesh.faces].mean(1)[:, 2] > 5)
    with pytest.raises(InputError, match="the run's own path sees its surface in"):
        NewPaths(half, CAMERA, away)
    with pytest.raises(InputError, match="found 1 poses"):
        NewPaths(mesh, CAMERA, away[:1])


def test_learning_from_it_takes_what_is_known(made: Path) -> None:
    recording = record_truth(made / "path_00")
    assert recording.known and len(recording) == FRAMES
    truth = open_truth(made / "path_00")
    z = CAMERA.scaled(64, 48).ray_map()[24, 32, 2]
    middle = truth.depth(2)[48:50, 64:66].mean()
    assert recording.distance[2, 24, 32] * z == pytest.approx(middle, rel=0.01)
    assert set(np.unique(recording.confidence).tolist()) <= {0.0, 1.0}
    assert not recording.mask[2][~truth.mask(2)].any()


def test_a_run_can_be_audited(run: Run) -> None:
    places = list(run_places(run, 2))
    assert [place.scene for place in places] == ["run ball"] * 2

    class Truth:
        name = "the truth"

        def estimate(self, frames):  # type: ignore[no-untyped-def]
            return type("Said", (), {"depth": [np.where(places[0].depth > 0, places[0].depth, 1)]})

    found = audit(places[:1], Truth(), CONDITIONS)
    rows = {row.condition: row for row in found.rows}
    assert found.figures()["light"]["slope"] == 0
    for name in ("far bright", "fall-off 0", "lamp right", "other paint"):
        assert rows[name].light > 0.05, name
    assert rows["1 stop up"].light == 0


def test_what_is_missing_is_said(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run.path, bare)
    shutil.rmtree(bare / FOLDER)
    assert cli.main(["simulate", "--from", str(bare), "--out", str(tmp_path / "a")]) == 2
    assert "holds no lighting" in capsys.readouterr().err
    assert cli.main(["simulate", "--from", str(run.path), "--paths", "0", "--out", str(tmp_path / "b")]) == 2
    assert "expected at least 1 path of 2 frames" in capsys.readouterr().err
    assert cli.main(["simulate", "--from", str(run.path), "--out", str(bare)]) == 2
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(InputError, match="nor a folder in it holds ground truth"):
        clip_folders(tmp_path / "bare" / "depth")
    with pytest.raises(InputError, match="does not exist"):
        clip_folders(tmp_path / "nothing")


def test_the_audit_of_a_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "audit.jpg"
    given = ["evaluate", str(run.path), "--audit", "light", "--places", "1", "--picture", str(picture), "--json"]
    assert cli.main(given) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["scenes"], told["places"]) == ("tiny", ["run ball"], 1)
    assert [row["condition"] for row in told["rows"]] == [condition.name for condition in CONDITIONS]
    assert picture.stat().st_size > 10_000


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["simulate", "--from", str(run.path), "--frames", "8", "--fps", "10", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"result      {out / 'path_00'}" in printed and f"--truth {out}" in printed
