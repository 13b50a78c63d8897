"""Members of tar and zip archives, read where they lie: nothing is unpacked onto the disk.

A name that would leave the folder into which one unpacks (absolute, or with `..`), a link and a device are refused,
and so is a member that is larger than anything we read.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from video_io.errors import InputError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
LARGEST = 1 << 30  # bytes of one member; a packed file can claim to be anything
_MOST = 1_000_000  # members


class Archive:
    """An archive whose members are read by name; fast in the order in which they are stored.

    Args:
        path: a .tar, .tar.gz, .tgz or .zip.

    Raises:
        InputError: the archive is missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"the archive '{path}' is missing; expected it as it was released; complete the folder")
        self.path = path
        self._walk: Iterator[tuple[str, bytes]] | None = None

    def members(self, suffix: str) -> Iterator[tuple[str, bytes]]:
        """(file name without its folders, content) of each member that ends with `suffix`, in stored order.

        Raises:
            InputError: the archive is damaged, or has a member that must not be there.
        """
        if zipfile.is_zipfile(self.path):
            yield from self._from_zip(suffix)
        else:
            yield from self._from_tar(suffix)

    def read(self, name: str) -> bytes:
        """The content of the member with this file name. Going back in a tar reads it from the start again.

        Raises:
            InputError: there is no such member.
        """
        suffix = PurePosixPath(name).suffix
        for fresh in (False, True):
            if fresh or self._walk is None:
                self._walk = self.members(suffix)
            for found, content in self._walk:
                if found == name:
                    return content
        self._walk = None
        raise InputError(f"'{self.path}' has no member {name}; expected one for each frame; fetch the archive again")

    def _from_tar(self, suffix: str) -> Iterator[tuple[str, bytes]]:
        try:
            with tarfile.open(self.path, "r|*") as tar:
                for count, member in enumerate(tar):
                    self._check(member.name, member.size, count)
                    if member.issym() or member.islnk() or member.isdev():
                        raise self._refused(f"the member '{member.name[:80]}' is a link or a device")
                    if member.isfile() and member.name.endswith(suffix):
                        file = tar.extractfile(member)
                        assert file is not None
                        yield PurePosixPath(member.name).name, file.read()
        except InputError:
            raise
        except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError, OverflowError) as error:
            raise self._damaged(error) from error

    def _from_zip(self, suffix: str) -> Iterator[tuple[str, bytes]]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                for count, member in enumerate(archive.infolist()):
                    self._check(member.filename, member.file_size, count)
                    if member.external_attr >> 28 == 0xA:
                        raise self._refused(f"the member '{member.filename[:80]}' is a link")
                    if not member.is_dir() and member.filename.endswith(suffix):
                        with archive.open(member) as file:
                            yield PurePosixPath(member.filename).name, file.read(LARGEST)
        except InputError:
            raise
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
            raise self._damaged(error) from error

    def _check(self, name: str, size: int, count: int) -> None:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts and ":" in parts.parts[0]):
            raise self._refused(f"the member '{name[:80]}' would leave its folder")
        if size > LARGEST:
            raise self._refused(f"the member '{name[:80]}' has {size / 1e9:.1f} GB")
        if count > _MOST:
            raise self._refused(f"it has more than {_MOST} members")

    def _refused(self, what: str) -> InputError:
        return InputError(f"the archive '{self.path}' is refused: {what}; expected an archive as it was released")

    def _damaged(self, error: Exception) -> InputError:
        reason = "it is cut short" if isinstance(error, EOFError | zlib.error) else str(error)[:80]
        return InputError(f"the archive '{self.path}' can't be read ({reason}); expected a whole one; fetch it again")
