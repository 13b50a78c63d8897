"""What a check says: findings, each with its evidence, how sure it is, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Span = tuple[int, int]  # first and last frame


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an input, or that has to be known to read it rightly.

    Attributes:
        kind: short name, the same in every input.
        sentence: what was found, for a person.
        evidence: the numbers that it rests on, by name.
        sure: 0 to 1; from .8 on it is told as a fact, below as a doubt.
        mend: the option or command that mends it.
        frames: (first, last) of each stretch that it concerns, counted from 0; empty for the whole input.
        repair: what `--fix` has to do, as plain values; empty where it can do nothing.
    """

    kind: str
    sentence: str
    evidence: dict[str, float | int | str]
    sure: float
    mend: str
    frames: tuple[Span, ...] = ()
    repair: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.kind, "sentence": self.sentence, "evidence": self.evidence, "sure": round(self.sure, 2),
            "mend": self.mend, "frames": [list(span) for span in self.frames],
        }  # fmt: skip


def spans(flags: Sequence[bool], least: int = 1) -> tuple[Span, ...]:
    """First and last index of each run of True of at least `least`."""
    found, start = [], None
    for i, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = i
        elif not flag and start is not None:
            if i - start >= least:
                found.append((start, i - 1))
            start = None
    return tuple(found)


def in_words(stretches: Sequence[Span], most: int = 4) -> str:
    """`frames 3-9, 14 and 20-22`; no more than `most` stretches are named."""
    shown = [f"{a}-{b}" if b > a else str(a) for a, b in stretches[:most]]
    single = len(stretches) == 1 and stretches[0][0] == stretches[0][1]
    more = f" and {len(stretches) - most} more stretches" if len(stretches) > most else ""
    return f"frame{'' if single else 's'} {', '.join(shown)}{more}"
