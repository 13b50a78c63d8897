"""Files that are no files, too large, or hold what nobody expects: a ValueError, in no time."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from rendering.mesh import read_mesh
from video_io.camera_files import read_camera
from video_io.errors import InputError
from video_io.files import parse_json, parse_yaml, read_bytes, read_npz, read_text
from video_io.sources import open_source


def test_pipes_folders_and_sizes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="'pipe' is a pipe or a device and no file"):
        read_bytes(tmp_path / "pipe", 1)
    with pytest.raises(ValueError, match="is a folder and no file"):
        read_text(tmp_path)
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(ValueError, match="'huge' has 3000 MB, and at most 64 MB are read"):
        read_text(tmp_path / "huge")
    with pytest.raises(OSError):
        read_text(tmp_path / "nothing")
    (tmp_path / "bytes").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"'bytes' is no text in UTF-8 \(byte 2\)"):
        read_text(tmp_path / "bytes")


def test_a_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf1\r\n2\r3\n")
    assert read_text(tmp_path / "a") == "1\n2\n3\n"


def test_nesting_without_end() -> None:
    deep = "[" * 20_000 + "]" * 20_000
    for parse in (parse_json, parse_yaml):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse(deep)


def _npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def test_arrays(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "own.npz", a=array, b=np.asfortranarray(array))
    found = read_npz(tmp_path / "own.npz", 1)
    assert found["a"].tolist() == found["b"].tolist() == array.tolist()
    claims = _npy(array).replace(b"(2, 3)", b"(9, 9)")
    with pytest.raises(ValueError, match=r"claims \(9, 9\) of float32"):
        read_npz(_npz(tmp_path / "claims.npz", a=claims), 1)
    whole = (tmp_path / "own.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="is damaged"):
        read_npz(tmp_path / "cut.npz", 1)
    # a thousand to one: 20 MB of zeros
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * 20_000_000)
    with pytest.raises(ValueError, match="unpacks to more than 1 MB"):
        read_npz(tmp_path / "bomb.npz", 1)


def test_a_camera_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a":' * 20_000 + "1" + "}" * 20_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read_camera(tmp_path / "c.json")


@pytest.mark.parametrize("line", ["element vertex x", "element vertex", "property float", "format"])
def test_headers_of_meshes_that_lack_something(tmp_path: Path, line: str) -> None:
    (tmp_path / "m.ply").write_text(f"ply\n{line}\nend_header\n")
    with pytest.raises(InputError, match="can't be read as a triangle mesh"):
        read_mesh(tmp_path / "m.ply")


def test_damaged_text_in_the_head_of_a_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["title"] = "a title"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "a.mkv").read_bytes()
    assert b"a title" in data
    (tmp_path / "a.mkv").write_bytes(data.replace(b"a title", b"\xff title"))
    assert len(list(open_source(tmp_path / "a.mkv").frames())) == 4


def test_sizes_without_end_and_sentences_of_sensible_length(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"fx": 1, "fy": 1, "cx": 1, "cy": 1, "width": 1e400, "height": 5}')
    with pytest.raises(InputError, match="can't be used"):
        read_camera(tmp_path / "c.json")
    (tmp_path / "cameras.txt").write_text(f"1 PINHOLE 48 32 {'9' * 5000}x 40 24 16\n")
    with pytest.raises(InputError, match="can't be used") as caught:
        read_camera(tmp_path / "cameras.txt")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text", ["<opencv_storage><a>&#0;</a></opencv_storage>", "<a>" * 30_000, "%YAML:1.0\n---\n- 1\n"]
)
def test_opencv_files_that_are_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(InputError, match="can't be used"):
        read_camera(tmp_path / "c.yml")


def test_a_picture_that_claims_more_pixels_than_memory(tmp_path: Path) -> None:
    """The header of a bitmap says 60,000 x 60,000: it is damaged, and the others are read."""
    from PIL import Image

    from video_io.sources import open_source

    for number in range(3):
        Image.new("RGB", (64, 64), (120, 40, 30)).save(tmp_path / f"{number}.bmp")
    data = bytearray((tmp_path / "2.bmp").read_bytes())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    (tmp_path / "2.bmp").write_bytes(data)
    source = open_source(tmp_path)
    assert [frame.index for frame in source.frames()] == [0, 1]
