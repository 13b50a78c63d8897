"""The corruption benchmark: what it measures, how it scores, and that a stopped one goes on."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_run import write_run

from endorecon import cli
from endorecon.evaluate import corruption_plot, corruption_results
from endorecon.evaluate.corruption_results import CLEAN, DEPTH, RUN, Item, Results, Row, scores, table, to_csv, to_dict
from endorecon.evaluate.corruptions import (
    Plan,
    TestClip,
    _number,
    measure_depth,
    outlook,
    run,
    run_figures,
    write_video,
)
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.sources import open_source

FRAMES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    camera = Camera.from_fov(160, 128, np.radians(65))
    return simulate("tissue", 31, FRAMES, camera, 30.0, tmp_path_factory.mktemp("clips") / "tissue", extras=False)


class Truthful:
    """An estimator that says the truth where the picture is as it was, and halves the depth where its green is not."""

    def __init__(self, clip: TestClip) -> None:
        self.clip = clip

    def estimate(self, frames):  # type: ignore[no-untyped-def]
        (frame,) = frames
        true, clean = self.clip.truth.depth(frame.index), self.clip.pictures[frame.index]
        changed = np.abs(frame.rgb.astype(int) - clean).max(2) > 12

        class Found:
            depth = np.where(changed, 0.5, 1.0)[None] * true[None]

        return Found()


def given(tmp_path: Path, values: dict[Item, dict[str, float]]) -> Results:
    results = Results.open(tmp_path, {"model": "tiny"})
    for item, figures in values.items():
        results.add(Row(item, figures, 0.1))
    return results


def test_clean_pictures_are_what_the_truth_says(folder: Path) -> None:
    clip = TestClip(folder, FRAMES)
    assert len(clip.pictures) == FRAMES and clip.fps == pytest.approx(30, rel=1e-3)
    figures = measure_depth(clip, clip.damaged(Item("tissue", CLEAN, 0, DEPTH), 0), Truthful(clip))
    assert figures == {"abs_rel": pytest.approx(0, abs=1e-6), "delta1": pytest.approx(1), "frames": 10}


def test_what_is_covered_is_wrong_and_more_with_severity(folder: Path) -> None:
    clip = TestClip(folder, FRAMES)
    errors = [
        measure_depth(clip, clip.damaged(Item("tissue", "blood", severity, DEPTH), 0), Truthful(clip))["abs_rel"]
        for severity in (1, 3, 5)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_lost_frames_keep_their_place_in_the_video(folder: Path, tmp_path: Path) -> None:
    clip = TestClip(folder, FRAMES)
    shown = list(clip.damaged(Item("tissue", "dropped", 5, RUN), 0))
    assert 1 <= len(shown) < FRAMES
    write_video(tmp_path / "clip.mp4", shown, 30.0)
    frames = list(open_source(tmp_path / "clip.mp4").frames())
    assert [round(frame.time_ns * 30 / 1e9) for frame in frames] == [number for number, _ in shown]
    assert np.abs(frames[0].rgb.astype(float) - shown[0][1]).mean() < 2.5


def test_untracked_frames_count_as_a_camera_at_rest(folder: Path) -> None:
    """Of four places on a line, 1 apart, the middle is 1.118 off on average; with two of them tracked to 0.1 the mean
    square is (2 * 0.01 + 2 * 1.25) / 4, of a path 3 long."""
    clip = TestClip(folder, FRAMES)
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = np.arange(4)
    clip.path = replace(clip.path, times_ns=clip.path.times_ns[:4], world_from_cam=poses)
    half = run_figures(clip, [0, 1, 2, 3], 2, 0.1, None, 2)
    assert half["tracked_share"] == 0.5
    assert half["pose_error_percent"] == pytest.approx(100 * np.sqrt((2 * 0.01 + 2 * 1.25) / 4) / 3)
    assert half["ate_percent"] == pytest.approx(100 * 0.1 / 3)
    nothing = run_figures(clip, [0, 1, 2, 3], 0, 0.0, None, 0)
    assert nothing["pose_error_percent"] == pytest.approx(100 * np.sqrt(1.25) / 3)
    assert nothing["surface_error_percent"] == 100


def test_the_score_is_relative_to_clean(tmp_path: Path) -> None:
    """Clean 0.1; smoke 0.2 and 0.4, that is 3 times; fog 0.1 and 0.1, once; 2 on average. A corruption that was not
    measured at every severity is in no mean."""
    at = [("smoke", 1, 0.2), ("smoke", 2, 0.4), ("fog", 1, 0.1), ("fog", 2, 0.1), ("blood", 1, 9.0)]
    values = {Item("a", name, severity, DEPTH): {"abs_rel": error} for name, severity, error in at}
    results = given(tmp_path, {Item("a", CLEAN, 0, DEPTH): {"abs_rel": 0.1}, **values})
    plan = Plan((tmp_path / "a",), ("smoke", "fog", "blood", "dropped"), (1, 2), (DEPTH,))
    (score,) = scores(results, plan)
    assert score.clean == pytest.approx(0.1) and score.mean == pytest.approx(2)
    assert score.relative == {"smoke": pytest.approx(3), "fog": pytest.approx(1)}
    said = table(results, plan)
    assert "depth, AbsRel: clean 0.100, corrupted 2.00 times that" in said
    assert said.index("smoke") < said.index("fog") and "blood" not in said


def test_the_mean_is_over_all_clips(tmp_path: Path) -> None:
    items = {Item(clip, "fog", 1, RUN): {"pose_error_percent": error} for clip, error in (("a", 1.0), ("b", 5.0))}
    results = given(tmp_path, items)
    assert np.isnan(results.mean("pose_error_percent", RUN, "fog", 1, ["a", "b", "c"]))
    assert results.mean("pose_error_percent", RUN, "fog", 1, ["a", "b"]) == 3


def test_a_stopped_benchmark_goes_on(folder: Path, tmp_path: Path) -> None:
    plan = Plan((folder,), ("white_balance", "dropped"), (2,), (DEPTH,), max_frames=FRAMES)
    facts = {"model": "truthful", "seed": 0}
    estimator, said = Truthful(TestClip(folder, FRAMES)), []

    def reconstruct(*_: Path) -> Path:
        raise AssertionError("depth needs no reconstruction")

    first = run(plan, Results.open(tmp_path, facts), estimator, reconstruct, say=said.append)
    # clean and white balance: what is lost has no depth
    assert [(i.corruption, i.severity) for i in first.rows] == [(CLEAN, 0), ("white_balance", 2)]
    assert len(said) == 1 and "1 measurements of depth to go" in said[0]
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"item": {"clip": "tis')  # cut short
    again = Results.open(tmp_path, facts)
    assert again.rows == first.rows
    assert "0 of 2 measurements to do" in outlook(plan, again)
    run(plan, again, None, reconstruct)  # nothing is measured
    assert Results.open(tmp_path, facts).rows == first.rows
    with pytest.raises(InputError, match="holds results of another benchmark \\(model truthful, now tiny\\)"):
        Results.open(tmp_path, {"model": "tiny"})
    assert Results.open(tmp_path, {"model": "tiny"}, overwrite=True).rows == {}


def test_another_clip_of_the_same_name_is_told(tmp_path: Path) -> None:
    Results.open(tmp_path, {}, {"a": "1"})
    Results.open(tmp_path, {}, {"b": "2"})
    with pytest.raises(InputError, match="holds results of another benchmark \\(a 1, now 3\\)"):
        Results.open(tmp_path, {}, {"a": "3"})


def test_a_failed_reconstruction_counts(folder: Path, tmp_path: Path) -> None:
    def reconstruct(*_: Path) -> Path:
        raise InputError("none of the frames could be placed")

    plan = Plan((folder,), ("fog",), (5,), (RUN,), max_frames=FRAMES)
    results = run(plan, Results.open(tmp_path, {}), None, reconstruct)
    row = results.rows[Item("tissue", "fog", 5, RUN)]
    assert row.note == "none of the frames could be placed" and row.figures["tracked_share"] == 0
    assert row.figures["surface_error_percent"] == 100
    assert not (tmp_path / "scratch").exists()


def test_a_reconstruction_stopped_by_hand_is_no_measurement(folder: Path, tmp_path: Path) -> None:
    def reconstruct(video: Path, out: Path, camera: Path) -> Path:
        told = write_run(out).path / "run.yaml"
        told.write_text(told.read_text().replace("status: finished", "status: interrupted"))
        return out

    results = Results.open(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        run(Plan((folder,), ("fog",), (5,), (RUN,), max_frames=FRAMES), results, None, reconstruct)
    assert not results.rows


def test_every_clip_has_a_seed_of_its_own() -> None:
    assert _number("ab") == (97 + 2 * 98) * 1000 != _number("ba")
    with pytest.raises(InputError, match="two clips are called 'a'"):
        Plan((Path("x/a"), Path("y/a")), ("fog",))


def test_files_for_others(tmp_path: Path) -> None:
    values = {
        Item("a", CLEAN, 0, DEPTH): {"abs_rel": 0.1}, Item("a", "smoke", 1, DEPTH): {"abs_rel": 0.2},
        Item("a", CLEAN, 0, RUN): {"pose_error_percent": 1.0, "tracked_share": 1.0},
        Item("a", "smoke", 1, RUN): {"pose_error_percent": 30.0, "tracked_share": 0.5},
        Item("a", "dropped", 1, RUN): {"pose_error_percent": 1.5, "tracked_share": 1.0},
    }  # fmt: skip
    results, plan = given(tmp_path, values), Plan((tmp_path / "a",), ("smoke", "dropped"), (1,))
    assert to_csv(results).splitlines()[:2] == [
        "part,corruption,severity,clip,figure,value,note",
        "depth,clean,0,a,abs_rel,0.1,",
    ]
    told = json.loads(json.dumps(to_dict(results, plan)))
    assert told["model"] == "tiny" and told["scores"][1]["relative"] == {"smoke": 30.0, "dropped": 1.5}
    picture = corruption_plot.svg(results, plan)
    words = [e.text for e in ET.fromstring(picture).iter() if e.tag.endswith("text")]
    assert "2.00" in words and "30" in words and "1.50" in words and "does not apply" in words
    assert corruption_plot.shade(1.0) == (255, 255, 255) == corruption_plot.shade(0.3)
    assert corruption_plot.shade(10.0) == corruption_plot.shade(99.0) == (60, 5, 30)
    assert "50" in table(results, plan).split("longest segment")[1]
    assert corruption_results.UNITS.keys() == corruption_results.SCORED.keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to measure: give --corruptions"),
        (["--corruptions", "--only", "rain"], "corruption 'rain' is not known; give some of blood, bubbles"),
        (["--corruptions", "--severities", "7"], "severity 7 is not known; give some of 1, 2, 3, 4, 5"),
        (["--corruptions", "--frames", "3"], "clips of 3 frames are too short"),
        (["--corruptions", "--depth-only", "--clips", "{tmp}"], "holds no ground truth of a known layout"),
    ],
)
def test_wrong_calls_are_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["benchmark", *out, *(a.format(tmp=tmp_path) for a in arguments)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1] and said[-1].startswith("endorecon: ")


@pytest.mark.weights
def test_the_command_measures_depth(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--only", "fog", "--severities", "5", "--frames", "12", "--depth-only", "--csv", str(tmp_path / "all.csv")]
    assert cli.main(["benchmark", "--corruptions", "--clips", str(folder), "-o", str(tmp_path / "out"), *more]) == 0
    said = capsys.readouterr()
    assert "2 of 2 measurements to do on 1 clips" in said.err and "fog" in said.out
    assert (tmp_path / "out" / "corruptions.svg").is_file()
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 2 * 3


@pytest.mark.slow
@pytest.mark.weights
def test_whole_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = simulate("colon", 32, 40, None, 30.0, tmp_path / "colon", extras=False)
    more = ["--only", "frozen", "dropped", "--severities", "2", "--frames", "40", "--json"]
    assert cli.main(["benchmark", "--corruptions", "--clips", str(clip), "-o", str(tmp_path / "out"), *more]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {(m["item"]["corruption"], m["item"]["part"]): m["figures"] for m in told["measurements"]}
    assert found["clean", "run"]["tracked_share"] > 0.9 and found["clean", "run"]["pose_error_percent"] < 5
    assert found["dropped", "run"]["tracked_share"] > 0.7
    assert found["frozen", "run"]["tracked_share"] < 0.95  # what is frozen can't be placed
    assert ("dropped", "depth") not in found
