"""Archives: members are read where they lie, and those that would leave their folder are refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from video_io import archive as module
from video_io.archive import Archive
from video_io.errors import InputError


def _tar(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def test_members_of_tar_and_zip(tmp_path: Path) -> None:
    pairs = [("./a/1.txt", b"one"), ("a/2.txt", b"two"), ("a/3.bin", b"three")]
    tar = _tar(tmp_path / "x.tar.gz", *pairs)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name, content in pairs:
            file.writestr(name, content)
    for path in (tar, tmp_path / "x.zip"):
        assert list(Archive(path).members(".txt")) == [("1.txt", b"one"), ("2.txt", b"two")]
        found = Archive(path)
        assert [found.read(n) for n in ("2.txt", "1.txt", "1.txt")] == [b"two", b"one", b"one"]
        with pytest.raises(InputError, match=r"no member 4\.txt"):
            found.read("4.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tar.gz", "x.zip"]  # nothing was unpacked


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../../etc/passwd", b"x"), "would leave its folder"),
        (("/etc/passwd", b"x"), "would leave its folder"),
        (("a/../../b", b"x"), "would leave its folder"),
        (("..\\b", b"x"), "would leave its folder"),
        (("C:/b", b"x"), "would leave its folder"),
        (_link("a", "/etc/passwd"), "a link or a device"),
    ],
)
def test_members_that_must_not_be_there(tmp_path: Path, member: tuple[str, bytes], message: str) -> None:
    path = _tar(tmp_path / "x.tar.gz", ("good.txt", b"good"), member)
    with pytest.raises(InputError, match=message):
        list(Archive(path).members(".txt"))
    if isinstance(member, tuple):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
            info = zipfile.ZipInfo("placeholder")
            info.filename = member[0]
            file.writestr(info, member[1])
        with pytest.raises(InputError, match=message):
            list(Archive(tmp_path / "x.zip").members(".txt"))


def test_members_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _tar(tmp_path / "x.tar.gz", ("a.txt", b"0" * 100))
    monkeypatch.setattr(module, "LARGEST", 99)
    with pytest.raises(InputError, match=r"a\.txt' has"):
        list(Archive(path).members(".txt"))


def test_damaged_archives(tmp_path: Path) -> None:
    whole = _tar(tmp_path / "x.tar.gz", *((f"{i}.txt", bytes(range(256)) * 40) for i in range(9))).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive", whole[:30] + b"\0" * 40 + whole[70:]):
        (tmp_path / "bad.tar.gz").write_bytes(content)
        with pytest.raises(InputError, match="can't be read"):
            list(Archive(tmp_path / "bad.tar.gz").members(".txt"))
    with pytest.raises(InputError, match="is missing"):
        Archive(tmp_path / "none.tar.gz")
