"""Reading of files that others have made: nothing but a regular file of a size that makes sense, and what it holds.

What is wrong is a ValueError (or the OSError of a file that can't be opened), for the reader to say of what it is.
"""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT_MB = 64.0


def read_bytes(path: str | Path, most_mb: float) -> bytes:
    """The content of a file.

    Raises:
        OSError: it can't be opened.
        ValueError: it is a pipe or a device, which might never end, or larger than `most_mb`.
    """
    check_file(path, most_mb)
    return Path(path).read_bytes()


def check_file(path: str | Path, most_mb: float) -> None:
    """Before a library opens a file by its name.

    Raises:
        OSError: it is not there.
        ValueError: it is a pipe or a device, which might never end, or larger than `most_mb`.
    """
    path = Path(path)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"'{path.name}' is a {'folder' if path.is_dir() else 'pipe or a device'} and no file")
    if found.st_size > most_mb * 1e6:
        raise ValueError(f"'{path.name}' has {found.st_size / 1e6:.0f} MB, and at most {most_mb:g} MB are read")


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies below a folder, links followed; one whose links lead in a circle lies nowhere."""
    try:
        return folder.resolve() in path.resolve().parents
    except (OSError, RuntimeError):
        return False


def read_text(path: str | Path, most_mb: float = TEXT_MB) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark; line ends as \\n.

    Raises:
        OSError: it can't be opened.
        ValueError: it is no file, too large, or no text.
    """
    try:
        text = read_bytes(path, most_mb).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{Path(path).name}' is no text in UTF-8 (byte {error.start})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str) -> Any:
    """The value that a JSON text tells.

    Raises:
        ValueError: it is no JSON, or nested deeper than any data of ours.
    """
    import json

    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_yaml(text: str) -> Any:
    """The value that a YAML text tells, plain types only.

    Raises:
        ValueError: it is no YAML, or nested deeper than any data of ours.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_npz(path: str | Path, most_mb: float) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name; no array may claim more than is there.

    Raises:
        OSError: it can't be opened.
        ValueError: it is no such file, too large, or damaged.
    """
    import io
    import zipfile
    import zlib

    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path, most_mb))) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            if sum(m.file_size for m in members) > most_mb * 1e6:
                raise ValueError(f"'{Path(path).name}' unpacks to more than {most_mb:g} MB")
            for member in members:
                found[member.filename.removesuffix(".npy")] = _array(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ValueError(f"'{Path(path).name}' is damaged: {error}") from error
    return found


def read_npy(path: str | Path, most_mb: float) -> NDArray[Any]:
    """The array of an .npy file.

    Raises:
        OSError: it can't be opened.
        ValueError: it is no such file, too large, or damaged.
    """
    try:
        return _array(read_bytes(path, most_mb))
    except (EOFError, OverflowError, SyntaxError, TypeError) as error:
        raise ValueError(f"'{Path(path).name}' is damaged: {error}") from error


def _array(data: bytes) -> NDArray[Any]:
    import io

    import numpy as np
    from numpy.lib import format as npy

    stream = io.BytesIO(data)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(stream))
    if read_header is None:
        raise ValueError("an array is of an unknown version")
    shape, by_columns, dtype = read_header(stream)
    count = math.prod(shape)
    if dtype.hasobject or count < 0 or count * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"an array claims {shape} of {dtype}, which is not what follows")
    return np.frombuffer(data, dtype, count, stream.tell()).reshape(shape, order="F" if by_columns else "C")
