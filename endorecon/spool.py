"""Where frames and the network's depth wait between the two passes: on disk, so that memory does not grow with the
video, and so that a source is read once, whatever it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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
        self._kept: list[tuple[int, int]] = []  # index, time_ns

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def keep(self, frame: Frame, net: NetworkDepth) -> None:
        """Store a frame (but for its camera) with what the network says of it, about 0.8 MB at 320 x 256.

        Raises:
            InputError: the disk is full.
        """
        masks = np.packbits(np.stack([frame.use_mask, frame.specular_mask]))
        try:
            with open(self._file(frame.index), "wb") as file:
                for array in (frame.rgb, masks, net.distance, net.log_std.astype(np.float16)):
                    np.save(file, array)
        except OSError as error:
            raise InputError(
                f"can't keep intermediate results in '{self._folder.name}' ({error.strerror or 'the disk is full'}); "
                "free some space or choose another folder with --out"
            ) from error
        self._kept.append((frame.index, frame.time_ns))

    def __iter__(self) -> Iterator[tuple[Frame, NetworkDepth]]:
        """What was kept, in the order in which it came."""
        for index, time_ns in self._kept:
            yield self._read(index, time_ns)

    def read(self, index: int) -> tuple[Frame, NetworkDepth]:
        """One frame that was kept, by its source index (its time is not told)."""
        return self._read(index, 0)

    def _read(self, index: int, time_ns: int) -> tuple[Frame, NetworkDepth]:
        with open(self._file(index), "rb") as file:
            rgb, masks, distance, log_std = (np.load(file) for _ in range(4))
        use, specular = np.unpackbits(masks, count=2 * distance.size).astype(bool).reshape(2, *distance.shape)
        return Frame(index, time_ns, rgb, use, specular), NetworkDepth(distance, log_std.astype(np.float32))

    def _file(self, index: int) -> Path:
        return Path(self._folder.name) / f"{index:06d}.npy"
