"""Poses from elsewhere: the files that hold them, which of them are refused and why, and what becomes of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from endorecon import cli
from endorecon.evaluate.protocol import RunRecord, evaluate
from endorecon.job import reconstruct_video
from endorecon.poses import kinds, open_poses
from endorecon.run import read_run
from endorecon.tracking.adjust import Problem, Sightlines
from endorecon.tracking.given import GivenPoses
from endorecon.tracking.settle import triangulate
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.datasets import open_truth
from video_io.errors import InputError
from video_io.sources import open_source
from video_io.trajectory import Trajectory

CAMERA = Camera.from_fov(192, 160, np.radians(80))
FRAMES = 20


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return simulate("passage", 3, FRAMES, CAMERA, 30.0, tmp_path_factory.mktemp("phantom") / "clip", extras=False)


@pytest.fixture(scope="module")
def truth(phantom) -> Trajectory:
    return open_truth(phantom).trajectory


def given(path: Path | str, input: Path, unit: str | None = None) -> GivenPoses:
    source = open_source(input)
    found, camera = open_poses(str(path), unit, source).find(
        Clip.of(source, CAMERA), CAMERA, False, input, lambda *_: None
    )
    assert found is not None and camera == CAMERA
    return found


def tum(path: Path, stamps, poses) -> Path:
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    rows = [[s, *p[:3, 3], *q] for s, p, q in zip(stamps, poses, quaternions, strict=True)]
    path.write_text("# a comment\n" + "\n".join(" ".join(f"{v:.9f}" for v in row) for row in rows) + "\n")
    return path


def c3vd(path: Path, poses) -> Path:
    path.write_text("\n".join(",".join(f"{v:.6f}" for v in pose.T.ravel()) for pose in poses) + "\n")
    return path


def colmap(path: Path, poses, names) -> Path:
    lines = ["# Image list with two lines of data per image:"]
    for number, (pose, name) in enumerate(zip(np.linalg.inv(poses), names, strict=True), 1):
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        lines += [" ".join(map(str, (number, w, x, y, z, *pose[:3, 3], 1, name))), "10.5 20.5 -1 30.5 40.5 7"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_sources_of_poses() -> None:
    assert kinds() == ["auto", "colmap", "file", "fixed"]


@pytest.mark.parametrize("kind", ["seconds", "numbers", "c3vd", "colmap from 0", "colmap from 1"])
def test_each_kind_of_file_gives_each_frame_its_pose(kind, phantom, truth, tmp_path) -> None:
    poses, path = truth.world_from_cam, tmp_path / "poses.txt"
    if kind == "seconds":
        tum(path, truth.times_ns / 1e9, poses)
    elif kind == "numbers":
        tum(path, range(FRAMES), poses)
    elif kind == "c3vd":
        c3vd(path, poses)
    else:
        begin = int(kind[-1])
        colmap(path, poses, [f"frame_{i + begin:04d}.png" for i in range(FRAMES)])
    found = given(path, phantom / "video.mp4")
    for index in (0, 7, FRAMES - 1):
        # pose.txt has six decimals.
        assert np.allclose(found.at(index, int(truth.times_ns[index])), poses[index], atol=2e-6)
    assert found.path.shape == (FRAMES, 4, 4)
    assert found.scale == f"up to scale: the unit is that of '{path}'"


def test_a_unit_makes_millimetres(phantom, truth, tmp_path) -> None:
    poses = truth.world_from_cam.copy()
    poses[:, :3, 3] /= 1000
    found = given(tum(tmp_path / "poses.txt", truth.times_ns / 1e9, poses), phantom / "video.mp4", "m")
    assert np.allclose(found.at(5, int(truth.times_ns[5])), truth.world_from_cam[5], atol=1e-5)
    assert found.scale.startswith("mm")


def test_poses_of_images_are_found_by_their_names(phantom, truth, tmp_path) -> None:
    names = sorted(path.name for path in (phantom / "rgb").iterdir())
    order = np.arange(FRAMES)[::-1]
    path = colmap(tmp_path / "images.txt", truth.world_from_cam[order], [f"left/{names[i]}" for i in order])
    assert np.allclose(given(path, phantom / "rgb").at(3, 0), truth.world_from_cam[3], atol=1e-9)


def test_an_extract_of_a_sequence_takes_the_lines_of_its_images(phantom, truth, tmp_path) -> None:
    """Images 0004 to 0009 of a sequence with 20 poses: frame 0 is line 4, counted from 0."""
    folder = tmp_path / "extract"
    folder.mkdir()
    for path in sorted((phantom / "rgb").iterdir())[4:10]:
        (folder / f"{path.stem}_color{path.suffix}").write_bytes(path.read_bytes())
    found = given(c3vd(tmp_path / "pose.txt", truth.world_from_cam), folder)
    assert np.allclose(found.at(0, 0), truth.world_from_cam[4], atol=2e-6)


def test_a_tracker_with_its_own_clock_is_interpolated(phantom, tmp_path) -> None:
    """Poses every 0.05 s that move 1 along x and turn by 0.1 about z. Frame 1, at 1/30 s, lies two thirds on."""
    poses = np.tile(np.eye(4), (16, 1, 1))
    poses[:, 0, 3] = np.arange(16)
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(0.1 * np.arange(16), [0, 0, 1])).as_matrix()
    keep = np.arange(16) != 8  # a dropped pose leaves a gap that is not bridged
    found = given(tum(tmp_path / "poses.txt", 0.05 * np.arange(16)[keep], poses[keep]), phantom / "video.mp4")
    pose = found.at(1, 33_333_333)
    assert pose[0, 3] == pytest.approx(0.6667, abs=1e-4)
    assert Rotation.from_matrix(pose[:3, :3]).magnitude() == pytest.approx(0.06667, abs=1e-4)
    assert found.at(12, 400_000_000) is None
    assert found.at(40, 1_333_333_333) is None


def scaled(poses):
    grown = poses.copy()
    grown[:, :3, :3] *= 2
    return grown


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path, poses: path.write_text(""), "it is empty"),
        (lambda path, poses: path.write_text("once upon a time\n"), "its first line is 'once upon a time'"),
        (lambda path, poses: path.write_bytes(b"\x89PNG\xff\xfe"), "can't be read as text"),
        (lambda path, poses: path.write_text("0 0 0 0 0 0 0 1\n1 2 3\n"), "line 2 is '1 2 3'"),
        (lambda path, poses: path.write_text("0 0 0 0 0 0 0 2\n"), "the quaternion in line 1 has length 2"),
        (lambda path, poses: path.write_text("1 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1\n"), "the times do not rise (line 2)"),
        (lambda path, poses: c3vd(path, poses[:12]), "holds 12 poses, but the clip has 20 frames"),
        (lambda path, poses: c3vd(path, poses.transpose(0, 2, 1)), "the matrices are transposed"),
        (lambda path, poses: c3vd(path, scaled(poses)), "it scales by 2"),
        (lambda path, poses: c3vd(path, poses @ np.diag([1.0, 1, -1, 1])), "it mirrors"),
        (lambda path, poses: tum(path, 100 + np.arange(20) / 30, poses), "from 100 to 100.633, but the clip reaches"),
        (lambda path, poses: colmap(path, poses[:3], ["a7001.png", "a7002.png", "a7003.png"]), "(a7001.png, ...)"),
    ],
)  # fmt: skip
def test_files_that_can_not_be_used_are_refused(write, words, phantom, truth, tmp_path) -> None:
    write(tmp_path / "poses.txt", truth.world_from_cam)
    with pytest.raises(InputError) as refused:
        open_poses(str(tmp_path / "poses.txt"), None, open_source(phantom / "video.mp4"))
    assert words in str(refused.value) and "expected" in str(refused.value)


def test_a_missing_file_is_one_line_and_exit_code_2(phantom, tmp_path, capsys) -> None:
    for options, words in (
        (["--poses", "nothing.txt"], "'--poses nothing.txt' is neither a file that exists nor"),
        (["--poses", "fixed", "--poses-unit", "mm"], "expected a unit only with a file of poses"),
    ):
        assert cli.main(["reconstruct", str(phantom / "video.mp4"), "-o", str(tmp_path / "run"), *options]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_landmarks_are_triangulated_from_known_poses() -> None:
    """Two cameras 1 apart along x see a point 4 ahead of the first one: inverse distance 1/4, no residual."""
    camera = Camera.pinhole(100, 100, 100, 100, 50, 50)
    pixels = np.array([[50.0, 50.0], [50.0 - 100 / 4, 50.0], [50.0 + 100 / 4, 50.0]])
    sight = Sightlines.of(camera, pixels[[0, 0]].astype(np.float32), pixels[1:].astype(np.float32), False)
    centre = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    problem = Problem(
        rotation=np.tile(np.eye(3), (2, 1, 1)), centre=centre, alpha=np.zeros(2), beta=np.zeros(2),
        fixed=np.ones(2, bool), host=np.zeros(2, np.int64), sight=sight, log_d=np.zeros(2), prior=np.zeros(2),
        prior_weight=np.ones(2), start=np.array([0, 1, 2]), frame=np.array([1, 1]),
    )  # fmt: skip
    inverse, information, residual = triangulate(problem, np.ones(2, bool))
    assert inverse == pytest.approx([0.25, 0.0])
    assert residual[0] < 1e-6
    # The second is seen on the wrong side, as from a point behind: it counts as endlessly far, 25 px off.
    assert residual[1] == pytest.approx(25 / np.sqrt(1 + 0.25**2), rel=0.1)
    assert information[0] > 0 and information[1] == 0


def run_with(phantom: Path, out: Path, poses: Path | str, **more):
    camera = phantom / "intrinsics.json"
    return read_run(reconstruct_video(phantom / "video.mp4", out, camera=camera, poses=str(poses), **more))


def test_a_run_with_given_poses_has_them_and_their_unit(phantom, truth, tmp_path) -> None:
    keep = ~np.isin(np.arange(FRAMES), (8, 9))
    path = tum(tmp_path / "poses.txt", truth.times_ns[keep] / 1e9, truth.world_from_cam[keep])
    run = run_with(phantom, tmp_path / "run", path, poses_unit="mm")
    assert np.allclose(run.trajectory.world_from_cam, truth.world_from_cam[keep], atol=1e-5)
    assert {row.index for row in run.rows if row.status == "refused"} == {8, 9}
    assert run.rows[8].reason == "'poses.txt' has no pose for it"
    assert run.unit == "mm" and run.info["scale"].startswith("mm: the poses of")
    assert run.info["poses"] == f"file: '{path}', 18 poses, by time"
    depth = {d.scaling: d.abs_rel for d in evaluate(RunRecord(run), open_truth(phantom)).depth}
    # The network alone is off by a factor; the poses' unit takes that away.
    assert depth["none"] < 0.12 and depth["none"] < 1.1 * depth["clip"]


@pytest.mark.parametrize("fault", ["turned", "axes", "other"])
def test_poses_that_do_not_fit_the_images_are_refused(fault, phantom, truth, tmp_path) -> None:
    poses = truth.world_from_cam
    if fault == "turned":  # camera-from-world
        poses = np.linalg.inv(poses)
    elif fault == "axes":  # y up, z backward
        poses = poses @ np.diag([1.0, -1, -1, 1])
    else:
        poses = poses[::-1]
    path = tum(tmp_path / "poses.txt", truth.times_ns / 1e9, poses)
    with pytest.raises(InputError, match=r"the poses do not fit the images \(median .* px; the images' own motion"):
        run_with(phantom, tmp_path / "run", path)
    assert not (tmp_path / "run").exists()


def test_a_still_camera_places_every_frame_at_the_same_pose(phantom, tmp_path) -> None:
    run = run_with(phantom, tmp_path / "run", "fixed")
    assert [row.status for row in run.rows] == ["tracked"] * FRAMES
    assert np.array_equal(run.trajectory.world_from_cam, np.tile(np.eye(4), (FRAMES, 1, 1)))
    assert run.unit == "up to scale" and run.info["poses"].startswith("fixed")
    depths = [float(np.median(run.depth(i)[0])) for i in range(FRAMES)]
    assert max(depths) < 1.5 * min(depths)


def test_a_number_of_thousands_of_digits_in_a_name_is_none() -> None:
    from endorecon.poses.file import _number

    assert (_number("frame_0012.png"), _number(f"frame_{'1' * 5000}.png"), _number("frame.png")) == (12, None, None)


def test_colmap_places_frames_or_says_that_it_can_not(tmp_path) -> None:
    # 9 mm over texture; on the 0.6 mm of the other tests' clip COLMAP's poses hang on the last bit of the images.
    moving = simulate("abdomen", 5, FRAMES, CAMERA, 30.0, tmp_path / "clip", extras=False)
    run = run_with(moving, tmp_path / "run", "colmap")
    assert run.info["poses"].startswith("colmap: SIFT and")
    assert all(row.reason == "COLMAP did not place it" for row in run.rows if row.status == "refused")
    # 0.9 % here; poses of another convention miss by half of the path
    assert evaluate(RunRecord(run), open_truth(moving)).trajectory.ate_sim3_percent < 4
    assert not [p.name for p in run.path.iterdir() if p.name.startswith(".")]
