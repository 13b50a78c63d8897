"""New clips with truth from a run: a run that is the truth of a phantom, under a lamp that is made up."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from endorecon import cli
from endorecon.evaluate.light_audit import audit
from endorecon.evaluate.light_conditions import CONDITIONS
from endorecon.evaluate.light_run import run_places
from endorecon.evaluate.spoiled import spoiled_run
from endorecon.lighting import FOLDER, Lamp, Lighting
from endorecon.new_paths import NewPaths, longest_run
from endorecon.record import record_truth
from endorecon.resimulate import filled, resimulate
from endorecon.run import Run, read_run
from rendering.mesh import Caster, distances_to, read_ply, write_ply
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.datasets import clip_folders, open_truth
from video_io.errors import InputError

CAMERA = Camera.from_fov(128, 96, np.radians(80))
FRAMES = 12


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("tissue", 5, 16, CAMERA, 10.0, tmp_path_factory.mktemp("phantom") / "clip", extras=False)


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The phantom's true depth and poses, fused, with a lighting."""
    out = tmp_path_factory.mktemp("runs") / "tissue"
    spoiled_run(phantom, out)
    light(out)
    return read_run(out)


def light(path: Path) -> None:
    """A lamp in the lens, and tissue of one red but for a pattern; exposed so that it is neither black nor white."""
    mesh = read_ply(path / "scene" / "mesh.ply")
    trajectory = read_run(path).trajectory
    depth = read_run(path).depth(0)[0]
    usual = float(np.median(depth[depth > 0]))
    pattern = 0.15 * np.sin(8 * mesh.vertices.sum(1) / usual)[:, None]
    n, count = len(mesh.vertices), len(trajectory)
    Lighting(
        lamp=Lamp.single(), gamma=2.2, shoulder=0.3, vignette=0.1, frames=np.arange(count),
        exposure=np.full(count, 3.0 * usual**2), white_balance=np.ones((count, 3)),
        albedo=(np.array([0.6, 0.3, 0.25]) * (1 + pattern)).astype(np.float32), roughness=np.full(n, 0.3, np.float32),
        specular=np.full(n, 0.5, np.float32), observed=np.ones(n, np.float32), unit="mm",
    ).save(path / FOLDER)  # fmt: skip


@pytest.fixture(scope="module")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "tissue"
    resimulate(run, out, paths=2, frames=FRAMES, seed=3, fps=10.0)
    return out


def test_a_new_clip_has_the_layout_of_a_phantom(made: Path, phantom: Path) -> None:
    assert [path.name for path in clip_folders(made)] == ["path_00", "path_01"]
    for folder in clip_folders(made):
        held = {path.name for path in folder.iterdir()}
        assert held == {path.name for path in phantom.iterdir()} | {"mask"}
        truth = open_truth(folder)
        assert (truth.frame_count, truth.unit, truth.camera) == (FRAMES, "mm", CAMERA)
        assert np.diff(truth.times_ns).tolist() == [100_000_000] * (FRAMES - 1)
        capture = cv2.VideoCapture(str(folder / "video.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


def test_depth_is_that_of_the_surface_from_the_new_pose(made: Path, run: Run) -> None:
    mesh = read_ply(run.mesh_path)
    caster = Caster(mesh)
    truth = open_truth(made / "path_01")
    for number in (0, FRAMES - 1):
        depth, mask = truth.depth(number), truth.mask(number)
        assert np.array_equal(mask, depth > 0)
        assert mask.mean() > 0.9
        there = caster.cast(CAMERA, truth.trajectory.world_from_cam[number]).depth
        # 60,000 steps to the farthest, 1.2 times what is seen
        np.testing.assert_allclose(depth[mask], there[mask], atol=2e-5 * there.max() * 1.3)


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


def test_light_falls_with_the_square_of_the_distance(made: Path) -> None:
    """The lamp is in the lens: what a camera sees of one colour is as (r / d)^2 times the cosine."""
    truth = open_truth(made / "path_00")
    rgb, depth = truth.image(3).astype(float) / 255, truth.depth(3)
    assert 0.05 < np.median(rgb[depth > 0]) < 0.8
    linear = (rgb**2.2).sum(-1)
    near, far = (depth > 0) & (depth < np.percentile(depth, 20)), depth > np.percentile(depth, 80)
    assert np.median(linear[near]) > np.median(linear[far])


def test_a_hole_is_no_dark_tissue(run: Run, tmp_path: Path) -> None:
    holed = tmp_path / "holed"
    shutil.copytree(run.path, holed)
    mesh = read_ply(run.mesh_path)
    hit = Caster(mesh).cast(CAMERA, run.trajectory.world_from_cam[8])
    middle = mesh.vertices[mesh.faces[hit.faces[48, 64]]].mean(0)
    away = np.linalg.norm(mesh.vertices[mesh.faces].mean(1) - middle, axis=1)
    write_ply(mesh.with_faces(away > 0.09 * float(np.median(hit.depth))), holed / "scene" / "mesh.ply")
    light(holed)
    made = resimulate(read_run(holed), tmp_path / "made", frames=FRAMES, seed=1, fps=10.0)
    truth = open_truth(made.folders[0])
    holes = [(truth.image(n), ~truth.mask(n), truth.depth(n)) for n in range(FRAMES)]
    rgb, hole, depth = max(holes, key=lambda found: found[1].sum())
    assert 0.002 < hole.mean() < 0.1
    assert (depth[hole] == 0).all()
    inner = cv2.erode(hole.astype(np.uint8), np.ones((5, 5))) > 0
    grey = rgb[inner].astype(int)
    assert np.median(np.ptp(grey, axis=1)) < 12  # no colour, but for JPEG and noise
    ring = cv2.dilate(hole.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~hole
    assert np.median(grey) > 0.6 * np.median(rgb[ring].mean(1))
    assert made.seen[0] == pytest.approx(1 - hole.mean(), abs=0.02)


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
    with pytest.raises(InputError, match="the run's own path sees its surface in"):
        NewPaths(mesh, CAMERA, away)
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
    assert [place.scene for place in places] == ["run tissue"] * 2

    class Truth:
        name = "the truth"

        def estimate(self, frames):  # type: ignore[no-untyped-def]
            return type("Said", (), {"depth": [np.where(places[0].depth > 0, places[0].depth, 1)]})

    found = audit(places[:1], Truth(), CONDITIONS)
    rows = {row.condition: row for row in found.rows}
    assert found.figures()["light"]["slope"] == 0
    for name in ("far bright", "fall-off 0", "lamp right", "other paint", "even paint"):
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


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["simulate", "--from", str(run.path), "--frames", "8", "--fps", "10", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"result      {out / 'path_00'}" in printed and f"--truth {out}" in printed
