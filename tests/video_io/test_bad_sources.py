"""Inputs that can't be read: one sentence that says what was found, what is expected and what to do."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from clips import picture

from video_io.errors import InputError
from video_io.sources import open_source


def _refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_source(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.name) in message
    assert ";" in message, "what was found; what is expected; what to do"
    return message


def test_missing(tmp_path: Path) -> None:
    assert "does not exist" in _refusal(tmp_path / "nothing.mp4")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in _refusal(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes.nfo", "table.csv"])
def test_text_is_no_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("The patient was well prepared.\n" * 50)
    assert "expected" in _refusal(tmp_path / name)


def test_noise_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    assert "can't be opened as a video" in _refusal(tmp_path / "noise.mp4")


def test_sound_is_no_video(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(bytes(16000))
    assert "holds no video" in _refusal(tmp_path / "sound.wav")


def test_truncated_mp4(write_video) -> None:
    path = write_video([picture(i) for i in range(20)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # its index lies at the end
    assert "cut short" in _refusal(path)


def test_a_video_without_one_intact_frame(write_video) -> None:
    path = write_video([picture(i) for i in range(6)])
    data = path.read_bytes()
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    assert "not one frame" in _refusal(path)


def test_a_single_image(write_images) -> None:
    folder = write_images(["0.png"])
    assert "single image" in _refusal(folder / "0.png")


def test_folder_without_images(tmp_path: Path) -> None:
    assert "holds nothing" in _refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert "no colour image" in _refusal(tmp_path)


def test_folder_with_a_video_names_it(write_video) -> None:
    path = write_video([picture(0)] * 3)
    assert f"give '{path}'" in _refusal(path.parent)


def test_folder_with_several_clips(write_images) -> None:
    folder = write_images(["a/0.png", "b/0.png"])
    assert "2 folders of images (a, b)" in _refusal(folder)


def test_mixed_sizes(write_images) -> None:
    folder = write_images(["0.png", "1.png", "2.png"], sizes=[(96, 64), (96, 64), (64, 64)])
    message = _refusal(folder)
    assert "2 are 96 x 64, but 2.png is 64 x 64" in message


def test_folder_of_damaged_images(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"not an image")
    assert "none of the 3 image files" in _refusal(tmp_path)


def test_folder_of_depth_maps(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "d").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "d" / f"{i}.png"), np.full((8, 8), 3000, np.uint16))
    assert "looks like depth" in _refusal(tmp_path / "d")
