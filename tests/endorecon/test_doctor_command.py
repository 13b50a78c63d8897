"""`endorecon doctor` from the command line, and its quick part in a run's warnings."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from endorecon.cli import main
from endorecon.notes import quick_findings
from video_io.sources import open_source


def _folder(path: Path, numbers: range | list[int]) -> Path:
    path.mkdir()
    texture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (96, 200, 3), dtype=np.uint8), (0, 0), 3)
    texture = (texture * np.array([0.5, 0.6, 1.0])).astype(np.uint8)  # BGR: tissue is red
    for number in numbers:
        cv2.imwrite(str(path / f"{number:04d}.png"), texture[:, 2 * number : 2 * number + 128])
    return path


def test_it_tells_what_is_missing_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder(tmp_path / "clip", [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13])
    assert main(["doctor", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == "images, 12 frames of 128 x 96, 30 a second"
    [finding] = told["findings"]
    assert finding["kind"] == "missing_frames" and finding["frames"] == [[4, 4]]
    assert finding["evidence"] == {"images": 12, "expected": 14, "step": 1, "missing": 2}


def test_it_says_that_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(_folder(tmp_path / "clip", range(12)))]) == 0
    assert "nothing is wrong with it" in capsys.readouterr().out


def test_it_writes_a_clean_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder(tmp_path / "clip", range(12))
    assert main(["doctor", str(folder), "--fix", str(tmp_path / "out")]) == 0
    assert "clean copy" in capsys.readouterr().out
    assert len(list((tmp_path / "out/rgb").iterdir())) == 12
    assert main(["doctor", str(folder), "--deidentify", str(tmp_path / "private")]) == 0
    assert (tmp_path / "private/removed.json").is_file()


def test_what_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "nothing.mp4")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_reconstruct_hears_of_it(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "clip", [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13])
    source = open_source(folder)
    [sentence] = quick_findings(folder, source, source.sample(24))
    assert "2 images are missing" in sentence and "doctor: missing_frames" in sentence
