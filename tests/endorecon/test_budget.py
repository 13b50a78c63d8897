"""The error budget: known transforms and known errors are found, and a round tube is told to be ambiguous."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_run import write_run
from scipy.spatial.transform import Rotation

from endorecon.cli import main
from endorecon.evaluate.budget import _windows, evaluate_budget
from endorecon.evaluate.icp import Surface, exponential, icp
from endorecon.evaluate.landmarks import read_landmarks
from endorecon.evaluate.registration import fit_landmarks, register
from endorecon.evaluate.spoiled import spoiled_run
from endorecon.evaluate.swap import depth_scale, path_scale, place_by_poses, swap
from endorecon.run import read_run
from rendering.mesh import Mesh, read_mesh
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.datasets import open_truth
from video_io.errors import InputError
from video_io.trajectory import Similarity, Trajectory


def tube(bumps: float) -> Mesh:
    """80 mm long, radius 8 mm, normals inwards; with bumps it looks the same from no two places."""
    z, a = np.linspace(0, 80, 200)[:, None], np.linspace(0, 2 * np.pi, 72, endpoint=False)[None]
    shape = np.cos(3 * a + z / 15) * np.sin(z / 9) + np.exp(-(((z - 42) / 6) ** 2)) * np.cos(2 * a)
    r = 8 * (1 + bumps * (shape + 0.5 * np.cos(z / 5 + z * z / 600)))
    vertices = np.stack([r * np.cos(a), r * np.sin(a), z + 0 * a], -1).reshape(-1, 3)
    i, j = np.arange(199)[:, None] * 72, np.arange(72)[None]
    k = (j + 1) % 72
    quads = [[i + j, i + 72 + j, i + k], [i + k, i + 72 + j, i + 72 + k]]
    return Mesh(vertices, np.concatenate([np.stack(q, -1).reshape(-1, 3) for q in quads]))


def seen(ct: Mesh, scale: float, seed: int) -> tuple[Mesh, Similarity]:
    """The piece from 30 to 60 mm with .1 mm of noise, in a world of its own; and the transform back."""
    rng = np.random.default_rng(seed)
    middle = ct.vertices[ct.faces].mean(1)[:, 2]
    part = ct.with_faces((middle > 30) & (middle < 60))
    back = Similarity(scale, Rotation.random(random_state=seed).as_matrix(), rng.normal(0, 30, 3))
    noisy = part.vertices + rng.normal(0, 0.1, part.vertices.shape)
    return Mesh((noisy - back.translation) @ back.rotation / scale, part.faces), back


@pytest.fixture(scope="module")
def bumpy() -> Surface:
    return Surface(tube(0.12))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    camera = Camera.from_fov(96, 80, np.radians(95))
    return simulate("colon", 0, 16, camera, 6.0, tmp_path_factory.mktemp("budget") / "clip", extras=False)


# -- registration -------------------------------------------------------------------------------------------------


def test_what_lies_across_the_lumen(bumpy):
    # the lumen is 16 mm wide, and the normals were given inwards
    assert bumpy.signed and bumpy.width == pytest.approx(16.5, abs=0.5)
    flat = Mesh(np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0]]), np.array([[0, 1, 2]]))
    assert Surface(flat).width is None


@pytest.mark.parametrize(("scale", "with_scale"), [pytest.param(1.0, False, marks=pytest.mark.slow), (3.3, True)])
def test_a_known_transform_is_found_from_many_starts(bumpy, scale, with_scale):
    mesh, back = seen(bumpy.mesh, scale, 1)
    found = register(mesh, bumpy, with_scale, seed=5)
    points = mesh.vertices.astype(float)
    # .1 mm of noise in 4000 points
    assert np.abs(found.fit.apply(points) - back.apply(points)).max() < 0.1
    assert found.fit.scale == pytest.approx(scale, rel=2e-3)
    assert not found.ambiguous and found.sentence() == "no other place fits about as well"
    assert found.residual < 0.1 and found.inlier_share > 0.95


def test_a_round_tube_is_ambiguous():
    surface = Surface(tube(0.0))
    mesh, back = seen(surface.mesh, 1.0, 2)
    found = register(mesh, surface, False, seed=3)
    assert found.ambiguous and found.residual < 0.1
    # it may be turned all around, and slid by half a lumen or more
    assert np.ptp([a.turn_rad for a in found.alternatives]) > np.pi
    assert max(abs(a.slide) for a in found.alternatives) > 7
    said = found.sentence()
    assert "turned about its axis by" in said and "slid along its axis by" in said and "give landmarks" in said
    # with landmarks the place is found, and it is still told that the surface alone leaves it open
    landmarks = mesh.vertices[[0, 700, 1400, 2000]].astype(float)
    decided = register(mesh, surface, False, (landmarks, back.apply(landmarks)), seed=3)
    assert np.linalg.norm(decided.fit.apply(landmarks) - back.apply(landmarks), axis=1).max() < 0.5
    assert decided.ambiguous and "only the landmarks decide" in decided.sentence()


def test_icp_leaves_out_what_has_no_partner(bumpy):
    mesh, back = seen(bumpy.mesh, 1.0, 4)
    points, faces = mesh.sample(600)
    normals = mesh.face_normals[faces]
    points[:60] += 15  # floaters, a tenth of all
    start = Similarity(1.0, exponential(np.array([0.1, -0.05, 0.08])) @ back.rotation, back.translation + 0.5)
    found = icp(points, normals, bumpy, [start], with_scale=False)[0].fit
    assert np.abs(found.apply(points[60:]) - back.apply(points[60:])).max() < 0.15


def test_landmarks_that_fix_nothing():
    line = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2.0]])
    with pytest.raises(InputError, match="2 landmarks fix no transform"):
        fit_landmarks(line[:2], line[:2], True)
    with pytest.raises(InputError, match="lie on a line in the run"):
        fit_landmarks(line, line, True)


# -- the swap -----------------------------------------------------------------------------------------------------


def test_noise_in_the_path_does_not_shrink_the_scale():
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (2000, 1, 1))
    poses[:, :3, 3] = rng.normal(0, 1, (2000, 3))
    times = np.arange(2000)
    noisy = poses.copy()
    noisy[:, :3, 3] = poses[:, :3, 3] / 5 + rng.normal(0, 0.1, (2000, 3))  # half of the spread, in units of 5 mm
    scale, std = path_scale(Trajectory(times, noisy), Trajectory(times, poses))
    # fitted the other way round the scale would be 5 / (1 + .25) = 4; .1 of noise over a spread of .22 x sqrt(3 x 2000)
    assert scale == pytest.approx(5, rel=0.02) and std == pytest.approx(0.1 / (0.2236 * np.sqrt(6000)), rel=0.05)


def test_the_scale_of_depth():
    scale, std = depth_scale(np.log([4.0, 5.0, 6.25]))
    # the geometric mean; the logs are -.223, 0, .223 about it, whose deviation is .1822
    assert scale == pytest.approx(5) and std == pytest.approx(0.18220 / np.sqrt(3), abs=1e-4)


def test_a_turn_counts_by_what_it_moves():
    """Two poses turned against each other; only the first sees far points, so the place follows it."""
    poses = np.tile(np.eye(4), (2, 1, 1))
    turned = poses.copy()
    turned[1, :3, :3] = Rotation.from_rotvec([0, 0.1, 0]).as_matrix()
    far, near = 100 * np.eye(3), 0.1 * np.eye(3)
    place = place_by_poses(Trajectory([0, 1], turned), Trajectory([0, 1], poses), [far, near], 1.0)
    assert np.abs(place.rotation - np.eye(3)).max() < 1e-4


@pytest.mark.parametrize(
    ("pose_mm", "pose_kind", "depth_share", "depth_kind"),
    [(1.0, "jitter", 0.05, "patches"), (0.8, "drift", 0.04, "bias")],
)
def test_errors_put_in_are_found(clip, tmp_path, pose_mm, pose_kind, depth_share, depth_kind):
    put_in = spoiled_run(clip, tmp_path / "run", pose_mm, depth_share, pose_kind, depth_kind)
    ct = read_mesh(clip / "mesh.ply")
    found = swap(read_run(tmp_path / "run"), open_truth(clip), ct, with_scale=False, fuse=False)
    assert found.pose.rms == pytest.approx(put_in.pose, rel=0.15)
    assert found.depth.rms == pytest.approx(put_in.depth, rel=0.15)
    assert found.pose_share + found.depth_share == pytest.approx(1)


def test_what_was_not_put_in_is_not_found(clip, tmp_path):
    put_in = spoiled_run(clip, tmp_path / "depth", depth_share=0.06, depth_kind="bias")
    only = swap(read_run(tmp_path / "depth"), open_truth(clip), read_mesh(clip / "mesh.ply"), with_scale=False)
    assert put_in.pose < 1e-6 and only.pose.rms < 1e-3 and only.depth_share > 0.999
    # fused, the swap tells the same: with the true depth only the cost of fusing is left
    fused = {k: d.mean for k, d in only.surfaces.items()}
    assert fused["estimated/true"] == pytest.approx(fused["true/true"], rel=0.02)
    assert fused["estimated/estimated"] == pytest.approx(fused["true/estimated"], rel=0.02)
    assert fused["true/estimated"] > 3 * fused["true/true"]


# -- the command --------------------------------------------------------------------------------------------------


def test_a_run_of_its_own_scale_with_landmarks_and_targets(clip, tmp_path, capsys):
    world = Similarity(0.2, Rotation.from_rotvec([0.3, 1.0, -0.4]).as_matrix(), np.array([5.0, -3, 2]))
    spoiled_run(clip, tmp_path / "run", pose_mm=0.2, world=world)
    points = np.random.default_rng(0).choice(read_mesh(clip / "mesh.ply").vertices, 8, replace=False).astype(float)
    where = [",".join(f"{v:.9g}" for v in (*world.apply(p), *p)) for p in points]
    for name, rows in (("landmarks", where[:5]), ("targets", where[5:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y,z,ct_x,ct_y,ct_z", *rows]))
    (tmp_path / "ct.stl").write_bytes(_stl(read_mesh(clip / "mesh.ply")))
    given = ["budget", str(tmp_path / "run"), "--ct", str(tmp_path / "ct.stl"), "--json"]
    files = ["--landmarks", str(tmp_path / "landmarks.csv"), "--targets", str(tmp_path / "targets.csv")]
    assert main([*given, *files, "--truth", str(clip)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["align"] == "similarity" and told["registration"]["method"] == "landmarks"
    assert told["registration"]["scale"] == pytest.approx(5, rel=0.02)
    # targets that are exact: what is left is the registration's error, within a mm or so of a colon of decimetres
    assert told["targets"]["worst"] < 3 and told["targets"]["landmarks_mean"] < 1e-3
    assert told["surface"]["median"] < 0.5 and told["swap"]["depth"]["rms"] < 0.3
    assert told["lengths"][-1]["pieces"] == 1 and told["lengths"][-1]["share"] == 1
    assert main([*given[:-1], *files[:1], str(tmp_path / "targets.csv"), *files[2:]]) == 2
    assert "is also a landmark" in capsys.readouterr().err


def test_evaluate_with_a_ct_tells_the_budget(clip, tmp_path, capsys):
    spoiled_run(clip, tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "--ct", str(clip / "mesh.ply"), "--truth", str(clip)]) == 0
    told = capsys.readouterr().out
    assert "surface to CT" in told and "where the error comes from, 16 frames (true depth: truth)" in told
    assert max(map(len, told.splitlines())) < 160
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "0 truths; expected one truth" in capsys.readouterr().err
    assert "rigid, scale 1)" in told and "own fit" in told


def _stl(mesh: Mesh) -> bytes:
    facets = np.zeros(len(mesh.faces), [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    facets["v"] = mesh.vertices[mesh.faces]
    return b"\0" * 80 + np.uint32(len(facets)).tobytes() + facets.tobytes()


def test_pixels_of_a_frame_name_points(tmp_path):
    run = write_run(tmp_path / "run")
    # frame 1 lies at z = 1 and sees 11 everywhere; the source's image is twice the working size
    file = tmp_path / "points.csv"
    file.write_text("# picked\nname,frame,u,v,ct_x,ct_y,ct_z\nostium,1,64,48,1,2,3\n")
    found = read_landmarks(file, run)
    assert found.names == ("ostium",) and found.ct.tolist() == [[1, 2, 3]]
    assert found.run[0] == pytest.approx([0, 0, 12], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no points"),
        ("x,y,z\n1,2,3\n", "has no column 'ct_x'"),
        ("x,y,z,ct_x,ct_y,ct_z\n1,2,3,4,5,nan\n", "point 1: expected numbers"),
        ("x,y,z,ct_x,ct_y,ct_z\n1,2,3,4,5\n", "point 1: expected numbers"),
        ("frame,u,v,ct_x,ct_y,ct_z\n2,5,5,4,5,6\n", "names frame 2, which the run has not tracked"),
        ("frame,u,v,ct_x,ct_y,ct_z\n1,500,5,4,5,6\n", "lies outside"),
    ],
)
def test_files_of_points_that_can_not_be_used(tmp_path, text, said):
    run = write_run(tmp_path / "run")
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_landmarks(tmp_path / "points.csv", run)


def test_refusals(clip, tmp_path):
    run = write_run(tmp_path / "run").path
    with pytest.raises(InputError, match="up to scale, so a rigid registration can't fit"):
        evaluate_budget(run, clip / "mesh.ply", align="rigid")
    with pytest.raises(InputError, match="can't be guessed from its shape"):
        evaluate_budget(run, clip / "mesh.ply")
    spoiled_run(clip, tmp_path / "spoiled")
    moved = read_mesh(clip / "mesh.ply").transformed(np.eye(4), 1000)
    (tmp_path / "far.stl").write_bytes(_stl(moved))
    with pytest.raises(InputError, match="the true poses are not in the coordinates of the CT"):
        evaluate_budget(tmp_path / "spoiled", tmp_path / "far.stl", truth=clip)


def test_pieces_of_the_path():
    walked = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert [w.tolist() for w in _windows(walked, 0.5)] == [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7, 8]]
    assert [len(w) for w in _windows(walked, 1.0)] == [9]
    assert _windows(np.zeros(3), 0.5) == [] and len(_windows(np.zeros(3), 1.0)) == 1
