"""From recordings to an adapter, on a phantom clip with the shipped network; and what is said of bad recordings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from endorecon import cli
from endorecon.adapt import adapt_videos
from endorecon.record import Recorded, record
from foundation_adapters.adaptation import Config
from foundation_adapters.adapter_files import read_card
from foundation_adapters.estimator import load_estimator
from foundation_adapters.recordings import Recording
from rendering.phantom.clip import Video, simulate
from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.clip import Clip
from video_io.errors import InputError
from video_io.sources import open_source

CAMERA = Camera.from_fov(192, 160, np.radians(80))
QUICK = Config(steps=12, checks=3, sizes=(1.0,), warmup=3, frames=3, average=0.8)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("colon", 3, 24, CAMERA, 30.0, tmp_path_factory.mktemp("phantom") / "clip", extras=False)


def write(path: Path, pictures: list[np.ndarray]) -> Path:
    height, width = pictures[0].shape[:2]
    with Video(path, width, height, 30.0) as video:
        for picture in pictures:
            video.write(np.ascontiguousarray(picture))
    return path


def test_stopped_and_called_again_makes_an_adapter(phantom: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def stop(stage: str, done: int, total: int | None) -> None:
        stages.append(stage)
        if (stage, done) == ("adapting", 5):
            raise KeyboardInterrupt

    given = {"inputs": [phantom / "video.mp4"], "out": tmp_path / "scope", "camera": phantom / "intrinsics.json"}
    with pytest.raises(KeyboardInterrupt):
        adapt_videos(**given, progress=stop, config=QUICK)
    assert "tracking" in stages
    assert not (tmp_path / "scope").exists()
    stages.clear()
    made = adapt_videos(**given, progress=lambda stage, *_: stages.append(stage), config=QUICK)
    # The reconstruction was kept, and so were the first five steps.
    assert stages == ["adapting"] * 7
    assert made.folder == tmp_path / "scope"
    assert sorted(p.name for p in made.folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "card.json", "training.rrd",
        "training_log.csv",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["scope"]
    card = read_card(made.folder)
    assert (card.base, card.tasks, card.method) == ("tiny", ("depth",), "gdvlora")
    assert card.training["recordings"] == card.training["held_out"] == ["video.mp4"]
    assert card.training["figures"]["after"] == made.figures["after"] < made.figures["before"]
    assert "held-out frames" in card.about
    assert made.notes[0].startswith("video.mp4: 24 of 24 frames")
    frames = list(Clip.of(open_source(phantom / "video.mp4", max_frames=3), CAMERA).frames())[:1]
    with_adapter, alone = (load_estimator("tiny", a).estimate(frames).depth for a in (made.folder, None))
    assert 1e-4 < np.abs(np.log(with_adapter / alone)).mean() < 0.5


def test_what_is_trusted_of_a_recording(phantom: Path, tmp_path: Path) -> None:
    got = record(phantom / "video.mp4", load_estimator(), tmp_path, phantom / "intrinsics.json")
    (recording,) = got.recordings
    assert recording.camera == CAMERA
    assert len(recording) == 24
    assert any(len(near) for near in recording.neighbours)
    known = recording.distance > 0
    assert known.mean() > 0.7
    assert (recording.confidence[known] > 0).all()
    assert list(tmp_path.iterdir()) == []


def test_supervised_by_clips_with_truth(phantom: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    made = adapt_videos([], tmp_path / "known", config=QUICK, truth=[phantom], progress=lambda s, *_: stages.append(s))
    assert set(stages) == {"adapting"}  # nothing is reconstructed
    card = read_card(made.folder)
    assert "1 rendered clips with it (19 frames)" in card.about and "nearer to the truth" in card.about
    assert card.training["recordings"] == card.training["held_out"] == ["clip"]
    assert made.figures["after"] < made.figures["before"]
    rows = (made.folder / "training_log.csv").read_text().splitlines()
    at = rows[0].split(",").index("photometric")
    assert rows[0].startswith("step") and all(row.split(",")[at] == "" for row in rows[1:])


@pytest.mark.slow
def test_a_recording_and_clips_with_truth_together(phantom: Path, tmp_path: Path) -> None:
    made = adapt_videos(
        [phantom / "video.mp4"], tmp_path / "both", camera=phantom / "intrinsics.json", config=QUICK, truth=[phantom]
    )
    card = read_card(made.folder)
    assert "1 recordings without truth and 1 rendered clips with it" in card.about
    assert "nearer to their reconstructions" in card.about
    assert card.training["recordings"] == ["clip", "video.mp4"] and card.training["held_out"] == ["video.mp4"]


def test_truth_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["adapt", "--truth", str(tmp_path), "-o", str(tmp_path / "scope")]) == 2
    assert "nor a folder in it holds ground truth" in capsys.readouterr().err


def pictures_of(kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    texture = rng.integers(40, 200, (64, 96, 3), dtype=np.uint8)
    if kind == "black":
        return [np.zeros((64, 96, 3), np.uint8)] * 12
    if kind == "still":
        return [texture] * 12
    return [np.roll(texture, step, 1) for step in range(5)]  # short


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("black", "the clip is black"),
        ("still", "show the same picture"),
        ("short", "nothing can be learnt from"),
        ("missing", "does not exist"),
    ],
)
def test_bad_recordings_end_with_2_and_one_sentence(
    kind: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{kind}.mp4"
    if kind != "missing":
        write(path, pictures_of(kind))
    assert cli.main(["adapt", str(path), "-o", str(tmp_path / "scope"), "--minutes", "0.1"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said
    assert not (tmp_path / "scope").exists()


def test_of_many_recordings_bad_ones_are_left_out_and_none_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(write(tmp_path / f"{kind}.mp4", pictures_of(kind))) for kind in ("black", "still")]
    assert cli.main(["adapt", *paths, "-o", str(tmp_path / "scope")]) == 2
    said = capsys.readouterr().err
    assert (
        "nothing can be learnt from any of the 2 recordings; the first: black.mp4 is left out: the clip is black"
        in said
    )


def test_folders_that_hold_something_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("")
    assert cli.main(["adapt", "a.mp4", "-o", str(tmp_path / "full"), "--overwrite"]) == 2
    assert "holds thesis.doc, or give a new folder" in capsys.readouterr().err
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "adapter_config.json").write_text("{}")
    assert cli.main(["adapt", "a.mp4", "-o", str(tmp_path / "old")]) == 2
    assert "holds an adapter: add --overwrite to replace it" in capsys.readouterr().err


def test_wrong_numbers_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["adapt", "a.mp4", "-o", str(tmp_path / "a"), "--minutes", "0"]) == 2
    assert "give a positive time" in capsys.readouterr().err
    assert cli.main(["adapt"]) == 2
    assert "no recordings" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cut_parts_a_recording_into_segments(phantom: Path, tmp_path: Path) -> None:
    import cv2

    other = simulate("passage", 6, 20, CAMERA, 30.0, tmp_path / "other", extras=False)
    pictures = [
        cv2.imread(str(path))[..., ::-1] for folder in (phantom, other) for path in sorted((folder / "rgb").iterdir())
    ]
    video = write(tmp_path / "cut.mp4", pictures)
    got = record(video, load_estimator(), tmp_path, phantom / "intrinsics.json")
    assert len(got.recordings) == 2
    assert [len(r) for r in got.recordings] == [24, 20]
    assert any("falls into 2 segments" in note for note in got.notes)


def test_a_disk_that_fills_up_while_a_recording_is_kept_is_said(tmp_path: Path) -> None:
    import resource

    from endorecon.adapt import _keep

    n, (h, w) = 8, (64, 96)
    maps = np.ones((n, h // 2, w // 2), np.float32)
    recording = Recording(
        "clip", Camera.from_fov(w, h, 1.2), np.zeros((n, h, w, 3), np.uint8), np.ones((n, h, w), bool), maps, maps,
        np.tile(np.eye(4), (n, 1, 1)),
    )  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a full disk
    try:
        with pytest.raises(InputError, match=r"can't be written .*the same command then goes on where it stopped"):
            _keep(Recorded([recording], [], 1.0), tmp_path, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.slow
def test_without_a_camera_the_intrinsics_are_learned(tmp_path: Path) -> None:
    clip = simulate("colon", 901, 36, Camera.from_fov(256, 192, np.radians(95)), 30.0, tmp_path / "clip", extras=False)
    true = read_camera(clip / "intrinsics.json").focal_px
    got = record(clip / "video.mp4", load_estimator(), tmp_path / "work")
    (recording,) = got.recordings
    assert recording.camera.focal_px == pytest.approx(true, rel=0.03)
    assert any("the intrinsics were learned from the images (focal length" in note for note in got.notes)


def test_another_seed_begins_the_training_anew(tmp_path: Path) -> None:
    from endorecon.adapt import _read_json, _same_training, _work_folder

    work = _work_folder(tmp_path / "scope", {"inputs": ["a"]})
    (work / "recording.npz").write_text("")
    _same_training(work, {"seed": 0})
    (work / "checkpoint.pt").write_text("")
    _same_training(work, {"seed": 0})
    assert (work / "checkpoint.pt").exists()
    _same_training(work, {"seed": 1})
    assert not (work / "checkpoint.pt").exists()
    assert _work_folder(tmp_path / "scope", {"inputs": ["a"]}) == work
    assert (work / "recording.npz").exists()
    _work_folder(tmp_path / "scope", {"inputs": ["b"]})
    assert not (work / "recording.npz").exists()
    assert _read_json(work / "settings.json") == json.loads('{"reading": {"inputs": ["b"]}}')
