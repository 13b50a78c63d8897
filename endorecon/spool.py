"""Where the network's depth waits between the two passes: on disk, so that memory does not grow with the video."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from endorecon.tracking.densify import NetworkDepth
from video_io.errors import InputError
from video_io.frame import Frame


class Spool:
    """A temporary folder with one file a frame; it goes away when the `with` block ends."""

    def __init__(self, beside: Path) -> None:
        """Make the folder inside `beside`, which is on the disk that the run is written to anyway."""
        self._folder = tempfile.TemporaryDirectory(prefix=".spool-", dir=beside, ignore_cleanup_errors=True)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def keep(self, frame: Frame, net: NetworkDepth) -> None:
        """Store what the network says of a frame.

        Raises:
            InputError: the disk is full.
        """
        try:
            with open(self._file(frame.index), "wb") as file:
                np.save(file, net.distance)
                np.save(file, net.log_std.astype(np.float16))
        except OSError as error:
            raise InputError(
                f"can't keep intermediate results in '{self._folder.name}' ({error.strerror or 'the disk is full'}); "
                "free some space or choose another folder with --out"
            ) from error

    def read(self, index: int) -> NetworkDepth:
        """What was stored of the frame with this index."""
        with open(self._file(index), "rb") as file:
            return NetworkDepth(np.load(file), np.load(file).astype(np.float32))

    def _file(self, index: int) -> Path:
        return Path(self._folder.name) / f"{index:06d}.npy"
