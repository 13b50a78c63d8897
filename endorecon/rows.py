"""Lines of frames.csv in a small space, as long as a live run goes on: some 120 bytes a frame instead of 1.5 kB."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from endorecon.run import FrameRow


class Rows:
    """Lines in order; what was added comes out again, figures in single precision."""

    def __init__(self) -> None:
        self._fixed = array("q")  # index, time_ns, segment, key frame, status and reason, names: six numbers a line
        self._values = array("f")
        self._at = array("q", [0])
        self._texts: dict[tuple[str, str], int] = {}
        self._names: dict[tuple[str, ...], int] = {}

    def __len__(self) -> int:
        return len(self._at) - 1

    def add(self, row: FrameRow) -> None:
        """Append a line; it must not have been graded."""
        text = self._texts.setdefault((row.status, row.reason), len(self._texts))
        names = self._names.setdefault(tuple(row.figures), len(self._names))
        self._fixed.extend((row.index, row.time_ns, row.segment, int(row.is_keyframe), text, names))
        self._values.extend(row.figures.values())
        self._at.append(len(self._values))

    def __iter__(self) -> Iterator[FrameRow]:
        texts, names = list(self._texts), list(self._names)
        for k in range(len(self)):
            index, time_ns, segment, key, text, name = self._fixed[6 * k : 6 * k + 6]
            values = self._values[self._at[k] : self._at[k + 1]]
            figures = dict(zip(names[name], values, strict=True))
            yield FrameRow(index, time_ns, *texts[text], segment, bool(key), figures)
