"""What tells a run's scale, and what becomes of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_run import trajectory, write_run
from scipy.spatial.transform import Rotation

from endorecon import cli
from endorecon.run import Run, read_run
from endorecon.scales import _swap, add_estimate, estimates, length, poses
from endorecon.scales.base import ScaleEstimate
from rendering.mesh import read_mesh
from video_io.errors import InputError
from video_io.trajectory import Trajectory

# Frame 0 sees a plane at depth 10; the source's focal length is 64 / tan(0.6) = 93.548 px: 40 px are 4.27586 units.
UNITS = 4.27586


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "run")


def test_a_known_length(run: Run) -> None:
    found = length.measure(run, 8.55172, 0, (60, 50), (100, 50))
    assert found.mm_per_unit == pytest.approx(2.0, rel=1e-4)
    # Confidence 0.5 is a standard deviation of 0.1 at both ends; 1 px at both ends of 40: sqrt(0.01 + 2 / 1600)
    assert found.log_std == pytest.approx(0.10607, rel=1e-3)
    assert found.source == "a known length of 8.55172 mm in frame 0 from (60, 50) to (100, 50)"


def tracker(scale: float, noise: float = 0.0) -> Trajectory:
    """The run's path in another world, with a curve so that it has a scale in all directions."""
    own = trajectory()
    new = np.tile(np.eye(4), (len(own), 1, 1))
    turn = Rotation.from_rotvec([0.3, -0.5, 1.0]).as_matrix()
    shift = noise * np.array([[1, 0, 0], [-1, 0, 0], [-1, 0, 0], [1, 0, 0]])
    new[:, :3, :3] = turn @ own.world_from_cam[:, :3, :3]
    new[:, :3, 3] = scale * (own.centres + shift) @ turn.T + [5, 6, 7]
    return Trajectory(own.times_ns, new)


def test_the_path_of_a_tracker(run: Run) -> None:
    assert poses.measure(run, tracker(2.5), "mm", "t").mm_per_unit == pytest.approx(2.5)
    assert poses.measure(run, tracker(0.25), "cm", "t").mm_per_unit == pytest.approx(2.5)
    found = poses.measure(run, tracker(2.5, 0.1), "mm", "t")
    # Off by 0.25 mm everywhere, on a path of spread 2.5 * sqrt((2.0625 + ... centres 0, 1, 3, 4: variance 2.5) + 0.01)
    assert found.log_std == pytest.approx(0.25 / (2.5 * np.sqrt(2.51)) / 2, rel=0.02)
    with pytest.raises(InputError, match="0 poses of 't' have the time of a frame"):
        poses.measure(run, Trajectory(tracker(1).times_ns + 10**12, tracker(1).world_from_cam), "mm", "t")


def test_everything_is_brought_to_millimetres(run: Run) -> None:
    depth, confidence = run.depth(0)
    after = add_estimate(run, ScaleEstimate("a ruler", 2.0, 0.05))
    assert after.unit == "mm" and after.info["scale"] == "mm: a ruler, give or take 5 %"
    assert after.trajectory.centres[-1].tolist() == [0, 0, 8]  # 4 units
    assert np.array_equal(after.depth(0)[0], 2 * depth) and np.array_equal(after.depth(0)[1], confidence)
    assert read_mesh(after.mesh_path).vertices[:, 2].tolist() == [40] * 4
    assert after.rows == run.rows and after.info["warnings"] == run.info["warnings"]
    assert not [p for p in after.path.iterdir() if p.name.startswith(".")]


def test_gaussians_are_brought_to_millimetres_too(run: Run) -> None:
    from endorecon.scenes._splat_model import Splats, read_splats, write_splats

    own = Splats(
        np.float32([[0, 0, 10], [1, 2, 8]]), np.float32([[1, 0, 0, 0]] * 2), np.zeros((2, 3), np.float32),
        np.zeros(2, np.float32), np.zeros((2, 1, 3), np.float32), np.zeros((2, 0, 3), np.float32),
    )  # fmt: skip
    for name in ("splats.ply", "splats.splat"):
        write_splats(own, run.path / "scene" / name)
    scaled = add_estimate(run, ScaleEstimate("a ruler", 2.0, 0.01))
    found = read_splats(scaled.path / "scene" / "splats.ply")
    np.testing.assert_allclose(found.means, 2 * own.means)
    np.testing.assert_allclose(found.scales, np.log(2), rtol=1e-6)
    assert (scaled.path / "scene" / "splats.splat").stat().st_size == 2 * 32


def test_nothing_is_lost_where_the_exchange_fails(run: Run) -> None:
    """The last thing to be exchanged can't be: a folder without a new one."""
    before = (run.path / "trajectory.tum").read_text()
    staging = run.path / ".scaling"
    (staging / "depth").mkdir(parents=True)
    (staging / "trajectory.tum").write_text("new")
    with pytest.raises(OSError):
        _swap(run.path, staging, ["depth", "trajectory.tum", "scene"])
    assert (run.path / "trajectory.tum").read_text() == before
    assert len(read_run(run.path).depth_indices) == 4 and read_run(run.path).mesh_path is not None


def test_a_length_in_another_segment_is_refused(run: Run) -> None:
    other = replace(run, info={**run.info, "main_segment": 1})
    with pytest.raises(InputError, match="frame 0 is not in segment 1"):
        length.measure(other, 1.0, 0, (60, 50), (100, 50))


def test_the_report_says_where_the_scale_comes_from(run: Run) -> None:
    report = run.path / "report.html"
    report.write_text("<h1>a</h1><p class='scale'>Scale: up to scale\n.</p><p class='scale'>other</p>")
    add_estimate(run, ScaleEstimate("a ruler <1>", 2.0, 0.05))
    told = "Scale: mm: a ruler &lt;1&gt;, give or take 5 %. A unit on this page is 2 mm."
    assert report.read_text() == f"<h1>a</h1><p class='scale'>{told}</p><p class='scale'>other</p>"


def test_the_surest_estimate_is_used_and_all_are_listed(run: Run) -> None:
    once = add_estimate(run, ScaleEstimate("a ruler", 2.0, 0.05))
    vague = add_estimate(once, ScaleEstimate("a tool", 2.2, 0.2))
    assert vague.trajectory.centres[-1, 2] == 8
    assert vague.info["scale"] == "mm: a ruler, give or take 5 % (others differ: a tool: +10 %)"
    sure = add_estimate(vague, ScaleEstimate("a robot", 2.1, 0.01))
    assert sure.trajectory.centres[-1, 2] == pytest.approx(8.4)
    assert [e.source for e in estimates(sure)] == ["a robot", "a ruler", "a tool"]
    assert [e["disagreement_percent"] for e in sure.info["scale_estimates"]] == [0.0, -4.762, 4.762]
    # An estimate made on the scaled run is of the units that it was reconstructed in.
    assert length.measure(sure, 2.0 * UNITS, 0, (60, 50), (100, 50)).mm_per_unit == pytest.approx(2.0, rel=1e-3)


def test_what_can_not_tell_a_scale(run: Run) -> None:
    for message, arguments in (
        ("expected a positive number", (0.0, 0, (60, 50), (100, 50))),
        ("pick two that are farther", (1.0, 0, (60, 50), (61, 50))),
        ("lies outside the part of the image", (1.0, 0, (60, 50), (200, 50))),
        ("has no depth at", (1.0, 0, (60, 50), (2, 50))),
        ("has no depth for frame 2", (1.0, 2, (60, 50), (100, 50))),
    ):
        with pytest.raises(InputError, match=message):
            length.measure(run, *arguments)


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker(3.0).write_tum(tmp_path / "robot.tum")
    assert cli.main(["scale", str(run.path)]) == 0
    assert capsys.readouterr().out.startswith("scale: up to scale")
    told = ["--length-mm", "8.55172", "--frame", "0", "--points", "60", "50", "100", "50"]
    assert cli.main(["scale", str(run.path), *told, "--poses", str(tmp_path / "robot.tum")]) == 0
    out = capsys.readouterr().out
    assert f"scale: mm: the path in '{tmp_path / 'robot.tum'}', give or take 0.01 %" in out and "-33.33 %" in out
    assert read_run(run.path).trajectory.centres[-1, 2] == pytest.approx(12)
    (tmp_path / "notes.txt").write_text("no poses\n")
    for name, words in (("none.tum", "No such file"), ("notes.txt", "expected 8 numbers")):
        assert cli.main(["scale", str(run.path), "--poses", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["scale", str(run.path), "--length-mm", "3"]) == 2
    assert "needs all of --length-mm MM, --frame N and --points" in capsys.readouterr().err
