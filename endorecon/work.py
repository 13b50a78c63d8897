"""What an unfinished run has done so far, kept in the run folder, so that a run that is killed goes on where it was.

    .work/asked.json   what the run was asked to do, and what its input and the program were
    .work/frames       every frame that was read, with what the network says of it (`Spool`)
    .work/NAME.kept    results of finished stages, and the tracker's state every now and then

Nothing of it is needed once the run is finished, and then it is removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from endorecon.run import WORK
from endorecon.spool import Spool
from video_io.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

PROGRAM, FILE = "program", " file"  # what is asked for besides options: the program, and the files that they name
_ASKED, _LOCK = "asked.json", "lock"
_PACKAGES = ("endorecon", "foundation_adapters", "rendering", "video_io")
# What a state is made of besides our own dataclasses. Anything else in the file is refused, so that a run folder from
# elsewhere can't run code.
_NUMPY = {"_reconstruct", "_frombuffer", "scalar", "ndarray", "dtype"}


class Work:
    """The work folder of a run that is being made; only one process can have it.

    As a context manager it goes away on the way out: when the run is finished, and when there is nothing that could be
    gone on with. It stays where the process was stopped or the disk was full.

    Attributes:
        folder: for temporary files of all kinds.
        resumed: how often the run has gone on after it was stopped.
        spool: the frames.

    Raises:
        InputError: another process makes this run, the unfinished run was asked for something else, or the folder can't
            be written.
    """

    def __init__(self, run: Path, asked: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder = run / WORK
        self._made = not run.exists()
        unfinished = is_unfinished(run)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder / _LOCK, run)
            if overwrite or not unfinished:
                self._clear()
            else:
                check_same(run, asked)
            self.resumed = 0 if overwrite or not unfinished else _read(run)["resumed"] + 1
            values = {"resumed": self.resumed, "asked": dict(asked)}
            _write(self.folder / _ASKED, json.dumps(values, indent=1, default=str).encode())
        except OSError as error:
            raise InputError(
                f"can't write to the output folder '{run}' ({error.strerror or error}); free some space or choose "
                "another folder with --out"
            ) from error
        self.spool = Spool(self.folder / "frames")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.spool.close()
        hopeless = isinstance(error, InputError) and not isinstance(error.__cause__, OSError) and not self.resumed
        if error is None or hopeless or not len(self.spool):
            shutil.rmtree(self.folder, ignore_errors=True)
            if error is not None and self._made:
                with suppress(OSError):
                    self.folder.parent.rmdir()  # nothing else was saved in it
        self._lock.close()

    def keep(self, name: str, value: Any) -> None:
        """Store a value made of plain values, numpy arrays and our own dataclasses; it replaces an earlier one whole.

        Raises:
            InputError: the disk is full.
        """
        path = self.folder / f"{name}.kept"
        partial = path.with_name(f".{path.name}.partial")
        try:
            with open(partial, "wb") as file:
                summed = _Summed(file)
                # Written as it is made: a long clip's state is large.
                pickle.dump(value, summed, pickle.HIGHEST_PROTOCOL)
                file.write(summed.crc.to_bytes(4, "little"))
            os.replace(partial, path)
        except OSError as error:
            raise InputError(
                f"can't keep intermediate results in '{self.folder}' ({error.strerror or error}); free some space or "
                "choose another folder with --out"
            ) from error

    def kept(self, name: str) -> Any:
        """The stored value; None where there is none, or where it is damaged."""
        file = self.folder / f"{name}.kept"
        data = file.read_bytes() if file.is_file() else b""
        if len(data) < 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            return None
        return _Unpickler(io.BytesIO(data)).load()

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def is_unfinished(run: Path) -> bool:
    """Whether the folder holds a run that was stopped and can go on."""
    return (run / WORK / _ASKED).is_file()


def check_same(run: Path, asked: Mapping[str, Any]) -> None:
    """Raise InputError unless the unfinished run in `run` was asked for the same."""
    before, now = _read(run)["asked"], json.loads(json.dumps(dict(asked), default=str))
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name), now.get(name)
        if was == is_now:
            continue
        what = f"another {name}" if name == PROGRAM or name.endswith(FILE) else f"{name} {was} and not {is_now}"
        raise InputError(
            f"the unfinished run in '{run}' was begun with {what}; it goes on when it is asked for the same, and "
            "begins again with --overwrite"
        )


def identity(path: Path | None) -> str:
    """What tells a file, or a folder with its files, from a changed one: sizes and times."""
    if path is None or not path.exists():
        return ""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    facts = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def program() -> str:
    """What tells this program, its weights and what it stands on from others: a hash of them."""
    import cv2
    import numba
    import numpy
    import scipy
    import torch

    versions = [m.__version__ for m in (cv2, numba, numpy, scipy, torch)]
    for name in ("openvino", "onnxruntime"):
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    found = hashlib.sha256(repr(versions).encode())
    top = Path(__file__).parent.parent
    for name in _PACKAGES:
        for file in sorted(p for p in (top / name).rglob("*") if p.suffix in (".py", ".safetensors")):
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _read(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / WORK / _ASKED).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the unfinished run in '{run}' is damaged and can't go on; begin again with --overwrite"
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _locked(path: Path, run: Path) -> IO[bytes]:
    """An open file that no other process has locked; the system unlocks it when this process ends, however it does."""
    file = open(path, "ab")  # noqa: SIM115 - held as long as the run is made
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # a system without such locks
    except OSError as error:
        file.close()
        raise InputError(
            f"another process is making the run in '{run}'; wait for it, or choose another folder with --out"
        ) from error
    return file


class _Summed:
    """A file that is written to, and the CRC-32 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.crc = file, 0

    def write(self, data: Buffer) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self._file.write(data)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if module.split(".")[0] in ("numpy", *_PACKAGES) else None
        if found is None or not (
            name in _NUMPY if module.split(".")[0] == "numpy" else isinstance(found, type) and is_dataclass(found)
        ):
            raise InputError(f"a kept result names '{module}.{name}', which no run makes; begin again with --overwrite")
        return found
