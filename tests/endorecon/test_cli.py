"""The command line: what it prints, its exit codes, and that a person never sees a stack trace."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from made_run import write_run

from endorecon import cli, commands
from endorecon.commands.base import named_input
from endorecon.run import FrameRow, RunWriter
from video_io.datasets import open_truth
from video_io.view import View


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], *([name] for name in commands.names())):
        with pytest.raises(SystemExit) as end:
            cli.main([*command, "--help"])
        assert end.value.code == 0
    printed = capsys.readouterr().out
    options = "--camera --model --adapter --accept-licence --every --max-frames --live --truth --json -o"
    for option in options.split():
        assert option in printed


@pytest.mark.parametrize("arguments", [[], ["reconstruct"], ["reconstruct", "a.mp4", "--every", "x"], ["dance"]])
def test_a_wrong_call_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["view", "{tmp}"], "holds no run.yaml; give a folder that `endorecon reconstruct` has made"),
        (["view", "{run}"], "has no recording (status: finished)"),
        (["view", "{run}", "--report"], "has no report (status: finished)"),
        (["evaluate", "{run}", "--truth", "{tmp}/nothing"], "nothing"),
        (["simulate", "--scene", "moon", "--out", "{tmp}/moon"], "scene 'moon' is not known"),
        (["models", "--adapter", "{tmp}"], "is no adapter (run): expected a folder with adapter_config.json"),
        (["simulate", "--camera", "{tmp}/none.json", "--out", "{tmp}/x"], "none.json' does not exist"),
    ],
)
def test_input_that_can_not_be_used_is_told_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    assert cli.main([a.format(tmp=tmp_path, run=run.path) for a in arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.err.startswith("endorecon: ")
    assert "Traceback" not in said.err


def test_as_a_program_it_exits_with_the_same_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "endorecon.cli", "view", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"endorecon: '{tmp_path}' holds no run.yaml")


def test_ctrl_c_is_no_stack_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(command: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("endorecon.commands.models.run", interrupted)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "endorecon: stopped\n"


def test_an_adapter_tells_what_it_is_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from foundation_adapters.adapter_files import Card

    card = Card("tiny", "0123456789abcdef", "CC-BY-4.0", ("depth",), "gdvlora", "For the blue scope.")
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "card.json").write_text(json.dumps(asdict(card)))
    assert cli.main(["models", "--adapter", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: gdvlora for depth",
        "    For the blue scope.",
        "    model: tiny (weights 0123456789abcdef)",
        "    licence: CC-BY-4.0",
    ]


def test_models_are_listed_with_their_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "tiny" in printed and "licence: Apache-2.0" in printed and "depth_anything" in printed


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom clip of three frames, made by the command."""
    out = tmp_path_factory.mktemp("phantom") / "clip"
    assert cli.main(["simulate", "--scene", "colon", "--frames", "3", "-o", str(out)]) == 0
    return out


def test_simulate_writes_a_clip_with_its_truth(clip: Path) -> None:
    truth = open_truth(clip)
    assert truth.frame_count == 3 and truth.trajectory is not None and len(truth.trajectory) == 3
    assert (clip / "video.mp4").is_file()


def test_simulate_replaces_nothing(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--frames", "3", "-o", str(clip)]) == 2
    assert str(clip) in capsys.readouterr().err


def test_evaluate_of_the_truth_finds_no_error(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run folder that holds the true depth and poses, doubled: no error is left once the scale is found."""
    truth = open_truth(clip)
    assert truth.camera is not None and truth.trajectory is not None
    whole = View(320, 256, (0, 0, 320, 256), 320, 256)
    with RunWriter(tmp_path / "run", {}) as run:
        run.camera(truth.camera, truth.camera, whole, estimated=False)
        for index in range(3):
            depth = truth.depth(index)
            assert depth is not None
            run.depth(index, 2 * depth, depth > 0)
        rows = [FrameRow(i, int(t), "tracked") for i, t in enumerate(truth.trajectory.times_ns)]
        run.finish(rows, truth.trajectory.transformed(np.eye(4), 2.0))
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.path), "--truth", str(clip), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["depth"]["frame"]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert figures["depth"]["none"]["abs_rel"] == pytest.approx(1, abs=1e-6)
    assert figures["trajectory"]["ate_sim3"] == pytest.approx(0, abs=1e-4)
    assert cli.main(["evaluate", str(run.path), "--truth", str(clip)]) == 0
    assert "AbsRel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "name"),
    [("a/colonoscopy.mp4", "colonoscopy"), ("demo", "demo"), (".", Path.cwd().name), ("x/frames", "frames")],
)
def test_the_run_is_named_after_its_input(given: str, name: str) -> None:
    assert named_input(Path(given))[1] == name


def test_the_demo_clip_is_there() -> None:
    assert named_input(Path("demo"))[0].is_file()
