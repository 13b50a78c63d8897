"""What a live run remembers of each of its frames, in a small space: some 120 bytes a line of frames.csv instead of
1.5 kB, and 8 bytes a number instead of 40."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, MutableMapping

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


class Rising(MutableMapping[int, tuple[int, ...]]):
    """What a dictionary of tuples of whole numbers is, where the keys mostly come in rising order and none goes.

    Args:
        width: of the tuples.
    """

    def __init__(self, width: int) -> None:
        self._keys, self._columns = array("q"), tuple(array("q") for _ in range(width))

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __getitem__(self, key: int) -> tuple[int, ...]:
        at = bisect_left(self._keys, key)
        if at == len(self._keys) or self._keys[at] != key:
            raise KeyError(key)
        return tuple(column[at] for column in self._columns)

    def __setitem__(self, key: int, value: tuple[int, ...]) -> None:
        at = bisect_left(self._keys, key)
        new = at == len(self._keys) or self._keys[at] != key
        if new:
            self._keys.insert(at, key)
        for column, number in zip(self._columns, value, strict=True):
            if new:
                column.insert(at, number)
            else:
                column[at] = number

    def __delitem__(self, key: int) -> None:
        raise TypeError("what was remembered of a frame stays")
