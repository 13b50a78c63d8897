"""`endorecon evaluate` on other programs' files and on several sequences, and what it writes."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from endorecon.cli import main
from endorecon.evaluate.open import open_cases
from endorecon.evaluate.page import page
from endorecon.evaluate.predictions import Files
from endorecon.evaluate.study import study
from endorecon.evaluate.tables import as_latex, number, text
from rendering.mesh import Caster, Mesh, write_ply
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory

FRAMES, WIDTH, HEIGHT = 12, 32, 24
CAMERA = Camera.pinhole(WIDTH, HEIGHT, 30, 30, 16, 12)


def wall() -> Mesh:
    """A bent sheet some 40 mm before the camera."""
    x, y = np.meshgrid(np.linspace(-40, 40, 41), np.linspace(-40, 40, 41))
    z = 40 + 4 * np.sin(x / 8) + 3 * np.cos(y / 6)
    at = np.arange(x.size).reshape(x.shape)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, 1:].ravel(), at[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([a, d, c], 1)])
    return Mesh(np.stack([x, y, z], -1).reshape(-1, 3), faces)


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    """A folder in the phantom's layout: a camera that moves sideways before the wall."""
    folder = tmp_path_factory.mktemp("truth") / "clip"
    for name in ("depth", "rgb"):
        (folder / name).mkdir(parents=True)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    t = np.arange(FRAMES) / FRAMES
    poses[:, :3, 3] = np.stack([8 * t, 3 * t**2, 2 * np.sin(3 * t)], 1)
    poses[:, :3, :3] = Rotation.from_rotvec(np.stack([0 * t, 0.1 * t, 0 * t], 1)).as_matrix()
    path = Trajectory(np.round(np.arange(FRAMES) * 1e9 / 30).astype(np.int64), poses)
    path.write_tum(folder / "poses.txt")
    caster = Caster(wall())
    rng = np.random.default_rng(0)
    for i, pose in enumerate(poses):
        depth = caster.cast(CAMERA, pose).depth
        cv2.imwrite(str(folder / "depth" / f"{i:04d}.png"), np.round(depth * 400).astype(np.uint16))
        cv2.imwrite(str(folder / "rgb" / f"{i:04d}.png"), rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    values = {**CAMERA.to_dict(), "depth_scale": 400}
    (folder / "intrinsics.json").write_text(json.dumps(values))
    write_ply(wall(), folder / "mesh.ply")
    return folder


def true_depths(truth: Path) -> list[np.ndarray]:
    return [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) / 400 for p in sorted((truth / "depth").iterdir())]


@pytest.fixture
def predictions(truth, tmp_path) -> Path:
    """Another program's files: depth maps a quarter as large, a path in another unit, its mesh, renderings."""
    folder = tmp_path / "theirs"
    for name in ("depth", "images"):
        (folder / name).mkdir(parents=True)
    for i, depth in enumerate(true_depths(truth)):
        np.save(folder / "depth" / f"{i:04d}.npy", (0.25 * depth * (1 + 0.02 * np.sin(i))).astype(np.float32))
        image = cv2.imread(str(truth / "rgb" / f"{i:04d}.png"))
        cv2.imwrite(str(folder / "images" / f"{i:04d}.png"), cv2.GaussianBlur(image, (3, 3), 0))
    path = Trajectory.read_tum(truth / "poses.txt")
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = Rotation.from_rotvec([0.3, 1, -0.5]).as_matrix(), [1, 2, 3]
    path.transformed(turn, 0.25).write_tum(folder / "trajectory.tum")
    write_ply(wall().transformed(turn, 0.25), folder / "mesh.ply")
    return folder


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


class Checker(HTMLParser):
    """Whether tags match, and what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures, self.fetched = 0, []

    def handle_starttag(self, tag, attributes):
        self.pictures += tag in ("img", "svg")
        self.fetched += [v for k, v in attributes if k in ("src", "href") and not str(v).startswith("data:")]
        if tag not in ("meta", "img", "tr", "td", "th"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def test_everything_of_another_program(truth, predictions, tmp_path, capsys):
    out = [f"--{kind}={tmp_path / f'x.{kind}'}" for kind in ("csv", "latex", "html")]
    protocols = ("af", "snippet5", "endonerf", "nflba", "seq_affine")
    assert run(predictions, "--truth", truth, "--json", *out, "--protocol", *protocols) == 0
    found = json.loads(capsys.readouterr().out)
    # what a run's JSON has had from the beginning
    assert found["depth"]["clip"]["scale"] == pytest.approx(4, rel=0.02) and found["depth"]["none"]["abs_rel"] > 0.7
    assert found["trajectory"]["ate_sim3"] < 1e-4 and found["trajectory"]["scale"] == pytest.approx(4, rel=1e-5)
    assert found["surface"]["f_score"]["1.0"] > 0.999 and found["left_out"] == []
    assert set(found["protocols"]) == {"standard", *protocols}
    figure = found["protocols"]["af"]["figures"]["AbsRel"]
    # a scale for each image takes the 2 % away
    assert figure["published"] < 1e-3 < 0.005 < figure["corrected"]
    low, high = figure["corrected_interval"]
    assert low < figure["corrected"] < high and "blocks" in figure["corrected_interval_by"]
    sequence = found["protocols"]["af"]["sequences"]["theirs"]
    assert sequence["frames"] == sequence["frames_in_truth"] == FRAMES
    assert sequence["valid_share"] == 1 and sequence["truth_version"] == "phantom"
    assert "not stated" in sequence["frames_given"] and "median scale for each image" in sequence["alignment"]
    assert found["protocols"]["standard"]["figures"]["PSNR"]["corrected"] > 10
    assert any("no LPIPS" in note for note in found["protocols"]["standard"]["sequences"]["theirs"]["notes"])

    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    row = next(r for r in rows if (r["protocol"], r["sequence"], r["figure"]) == ("af", "all", "AbsRel"))
    assert float(row["corrected"]) == pytest.approx(figure["corrected"]) and float(row["corrected_low"]) < low * 1.01
    latex = (tmp_path / "x.latex").read_text()
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 6 and "$\\delta_1$ $\\uparrow$" in latex
    assert all(
        line.count("&") == 7 for line in latex.split("\\begin{tabular}")[2].splitlines() if line.endswith("\\\\")
    )

    checker = Checker()
    checker.feed((tmp_path / "x.html").read_text())
    # three errors over time, two paths; three frames of four maps; four views of the surface
    assert checker.open == [] and checker.fetched == [] and checker.pictures == 5 + 12 + 4


def test_the_table_shows_published_and_corrected_side_by_side(truth, predictions, capsys):
    assert run(predictions, "--truth", truth, "--protocol", "af", "--context", "1 image", "--truth-version", "v2") == 0
    shown = capsys.readouterr().out
    assert "as published                   corrected" in shown and "frames given to the model: 1 image" in shown
    assert (
        "truth: clip (v2)" in shown and "valid share: 100.00 %" in shown and "says nothing of other sequences" in shown
    )


def test_disparity_scale_and_crop(truth, tmp_path, capsys):
    """Maps of inverse depth in 16 bits, half the size, of the part from (8, 4) on."""
    (tmp_path / "maps").mkdir()
    for i, depth in enumerate(true_depths(truth)):
        part = 1 / depth[4:24, 8:32][::2, ::2]
        cv2.imwrite(str(tmp_path / "maps" / f"{i}.png"), np.round(part * 1e6).astype(np.uint16))
    options = ("--disparity", "--depth-scale", 1e-6, "--crop", 8, 4, 24, 20)
    assert run(tmp_path / "maps", "--truth", truth, "--json", *options) == 0
    found = json.loads(capsys.readouterr().out)["depth"]["none"]
    assert found["abs_rel"] < 0.03 and found["scale"] == 1
    assert found["valid_share"] == pytest.approx(24 * 20 / (WIDTH * HEIGHT))
    assert run(tmp_path / "maps", "--truth", truth, "--crop", 20, 0, 24, 20) == 2
    assert "does not lie in the truth's 32 x 24 pixels" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_value_that_is_no_number_fails_and_names_the_frame(truth, predictions, bad, capsys):
    depth = np.load(predictions / "depth" / "0007.npy")
    depth[3, 4] = bad
    np.save(predictions / "depth" / "0007.npy", depth)
    assert run(predictions, "--truth", truth) == 2
    shown = capsys.readouterr().err
    assert "frame 7: 1 of 768 values" in shown and "write 0 where there is no depth" in shown and shown.count("\n") == 1


def test_depth_read_with_eight_bits_is_refused(truth, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    for i, depth in enumerate(true_depths(truth)):
        cv2.imwrite(str(tmp_path / "maps" / f"{i}.png"), np.round(depth).astype(np.uint8))
    assert run("--depth", tmp_path / "maps", "--truth", truth) == 2
    assert "has 8 bits a pixel; expected 16 bits" in capsys.readouterr().err


def test_some_frames_by_the_numbers_in_their_names(truth, predictions, capsys):
    for i in range(0, FRAMES, 2):
        (predictions / "depth" / f"{i:04d}.npy").unlink()
    assert run("--depth", predictions / "depth", "--truth", truth) == 0
    shown = capsys.readouterr().out
    assert "mean over 6 frames" in shown and "6 of the truth's 12 frames are there" in shown
    assert run("--depth", predictions / "depth", "--truth", truth, "--protocol", "af") == 0
    assert "frames: 6 of the truth's 12" in capsys.readouterr().out
    (predictions / "depth" / "0001.npy").rename(predictions / "depth" / "first.npy")
    assert run("--depth", predictions / "depth", "--truth", truth) == 2
    assert "'first.npy' has no number of one of them" in capsys.readouterr().err


def test_a_path_with_frame_numbers_or_other_times(truth, predictions, tmp_path, capsys):
    path = Trajectory.read_tum(predictions / "trajectory.tum")
    numbers = np.array([0, 1, 2, 4, 7, 8, 11])
    Trajectory(numbers * 1_000_000_000, path.world_from_cam[numbers]).write_tum(tmp_path / "numbers.tum")
    assert run(tmp_path / "numbers.tum", "--truth", truth) == 0
    shown = capsys.readouterr().out
    assert "trajectory, 7 of 12 true poses" in shown and "taken as the numbers of the truth's frames" in shown
    Trajectory(path.times_ns + 10**15, path.world_from_cam).write_tum(tmp_path / "late.tum")
    assert run(tmp_path / "late.tum", "--truth", truth) == 0
    assert "poses were taken in order" in capsys.readouterr().out
    Trajectory(path.times_ns[:5] + 10**15, path.world_from_cam[:5]).write_tum(tmp_path / "part.tum")
    assert run(tmp_path / "part.tum", "--truth", truth) == 2
    assert "are not those of clip" in capsys.readouterr().err


def test_a_mesh_alone_lies_in_the_truths_world(truth, tmp_path, capsys):
    moved = np.eye(4)
    moved[2, 3] = 1.5
    write_ply(wall().transformed(moved), tmp_path / "ours.ply")
    half = np.arange(len(wall().faces)) % 2 == 0
    np.save(tmp_path / "ignore.npy", half)
    arguments = (tmp_path / "ours.ply", "--truth", truth, "--ignore", tmp_path / "ignore.npy")
    assert run(*arguments, "--html", tmp_path / "x.html", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["surface"]["accuracy_median"] == pytest.approx(1.4, abs=0.15) and found["depth"] == {}
    assert found["surface"]["ignored_share"] == pytest.approx(0.5, abs=0.02)
    assert found["left_out"] == ["depth: there are no predicted depth maps", "trajectory: there are no predicted poses"]
    (tmp_path / "ignore.txt").write_text("0\n1\n99999\n")
    assert run(*arguments[:-1], tmp_path / "ignore.txt") == 2
    assert "does not fit the 3200 faces" in capsys.readouterr().err


def test_several_sequences(truth, predictions, tmp_path):
    """Three programs' maps, off by 0, 10 and 20 % on half of the image: intervals are over sequences."""
    for name, off in (("a", 0.0), ("b", 0.1), ("c", 0.2)):
        (tmp_path / name).mkdir()
        for i, depth in enumerate(true_depths(truth)):
            depth[:, :8] *= 1 + off
            np.save(tmp_path / name / f"{i}.npy", depth.astype(np.float32))
    cases = open_cases([tmp_path / n for n in "abc"], [truth], Files(), context="1")
    result = study(cases, ["af"])
    row = result.standard.rows[0]
    # the median ratio is 1, so a quarter of the pixels is off: 0, 2.5 and 5 %
    assert row.corrected.value == pytest.approx(0.025, abs=1e-3)
    assert row.corrected.each["c"] == pytest.approx(0.05, abs=1e-3)
    assert row.corrected.interval.by == "sequences" and row.corrected.interval.units == 3
    assert set(result.to_dict()) == {"runs", "protocols"} and len(result.to_dict()["runs"]) == 3
    shown = text(result)
    assert "over 3 sequences, so few" in shown and "3 sequences" in shown and " c" in shown
    assert as_latex(result).count("midrule") == 4 and "Evaluation of a, b, c" in page(result)


def test_what_does_not_belong_together(truth, predictions, tmp_path, capsys):
    for arguments, words in (
        ((), "nothing to evaluate was named"),
        ((predictions,), "1 runs and 0 truths"),
        ((predictions, predictions, "--truth", truth, truth, truth), "2 runs and 3 truths"),
        ((predictions, predictions, "--truth", truth), "two of the runs have the same name"),
        ((predictions, "--truth", truth, "--protocol", "nonsense"), "no protocol 'nonsense'"),
        ((tmp_path / "nowhere", "--truth", truth), "does not exist"),
        ((truth / "intrinsics.json", "--truth", truth), "neither a run nor a file that can be evaluated"),
        ((predictions / "mesh.ply", "--truth", truth, "--protocol", "af"), "nothing that protocol 'af' could measure"),
        (("--path", truth / "intrinsics.json", "--truth", truth), "can't be read as a path"),
        ((predictions, "--truth", truth, "--csv", truth / "mesh.ply" / "x.csv"), "can't write"),
    ):
        assert run(*arguments) == 2
        shown = capsys.readouterr().err
        assert words in shown and shown.count("\n") == 1, shown
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no run\.yaml and nothing that can be evaluated"):
        open_cases([tmp_path / "empty"], [truth], Files())


def test_protocols_are_listed(capsys):
    assert run("--protocol", "list") == 0
    shown = capsys.readouterr().out
    assert "snippet5" in shown and "endogslam" in shown and shown.startswith("standard")


def test_numbers_are_short():
    assert [number(v) for v in (0.0123456, 12.3456, 123.456, 12345.6, 0.00001234, 0)] == [
        "0.0123", "12.346", "123.46", "12346", "1.23e-05", "0.0000",
    ]  # fmt: skip
