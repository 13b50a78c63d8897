"""What a live run lets go of while it goes on, so that its memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from endorecon.tracking.map import Map, Sight
from endorecon.tracking.observation import Observation, Posed, Refused
from endorecon.tracking.refine import LEAST_MEMBERS
from endorecon.tracking.tracker import Tracker

REMEMBER = 240  # frames without depth whose landmarks are remembered
MOST_KEYS = 2000  # key frames; beyond that, every other one of the older half becomes a frame like others
_Place = tuple[int, int, int]  # segment, number in its map, source index
_NOTHING = Sight(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


class Memory:
    """Lets go of what frames without depth saw once the sliding refinement is past them: they keep their place beside
    the key frame before them. Where there are many key frames, the same befalls some of the old ones with all that lies
    between them; then the landmarks that nobody sees any more go, and the depth that was kept of these frames.

    Args:
        tracker: what it lets go of.
        let_go: takes the source indices of frames whose depth is no longer needed.
    """

    def __init__(self, tracker: Tracker, let_go: Callable[[list[int]], None]) -> None:
        self._tracker, self._let_go = tracker, let_go
        self._waiting: list[_Place] = []
        self._keys: list[_Place] = []
        self._others: list[_Place] = []  # what these saw is remembered until old key frames go
        self._segment = 0

    def placed(self, placed: Observation | Posed | Refused, kept: bool) -> None:
        """A frame was placed; `kept` says whether its depth will be needed in the end."""
        if isinstance(placed, Refused):
            return
        index = placed.frame.index
        place = (*self._tracker.placed[index], index)
        if place[0] != self._segment:
            self._tracker.segments[self._segment].trim()
            self._segment = place[0]
        if placed.is_keyframe:
            self._keys.append(place)
            if len(self._keys) > MOST_KEYS:
                self._thin()
        elif kept:
            self._others.append(place)
        else:
            self._waiting.append(place)
        if len(self._waiting) >= 2 * REMEMBER:
            for old in self._waiting[:REMEMBER]:
                # Where key frames are few, some others take part in the refinement of the end.
                if old[1] % LEAST_MEMBERS or len(self._map(old)) > REMEMBER * LEAST_MEMBERS:
                    self._map(old).sights[old[1]] = _NOTHING
                else:
                    self._others.append(old)
            self._waiting = self._waiting[REMEMBER:]

    def _map(self, place: _Place) -> Map:
        return self._tracker.segments[place[0]]

    def _thin(self) -> None:
        older, newer = self._keys[: MOST_KEYS // 2], self._keys[MOST_KEYS // 2 :]
        gone = older[1::2]
        for place in gone:
            scene, number = self._map(place), place[1]
            scene.sights[number] = _NOTHING
            scene.looks.pop(number, None)
            scene.keyframe[number] = number == 0  # the first frame of a segment is what the others lie beside
        between = [place for place in self._others if place < older[-1]]
        for place in between:
            self._map(place).sights[place[1]] = _NOTHING
        self._others = self._others[len(between) :]
        self._keys = older[::2] + newer
        for segment in sorted({place[0] for place in gone + between}):
            self._tracker.forget_unseen(segment)
        self._let_go([index for _, _, index in gone + between])
