"""What loops do to a trajectory: segments are joined, drift is spread over the path, landmarks are seen from both ends.

First a pose graph brings the key frames to where the loops say; then the joint refinement, which sees the landmarks of
each end of a loop in the image of the other, has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.loops import Found, Keyframe, Loop, find_loops
from endorecon.tracking.map import Map, Sight
from endorecon.tracking.pose_graph import Relations, Similarities, optimise, residuals
from endorecon.tracking.tracker import Tracker
from video_io.frame import Frame
from video_io.trajectory import Similarity

Float = NDArray[np.float64]

# Standard deviations (turn in rad, shift as a share of the distance, log of the unit) of one step from key frame to key
# frame, and of one loop: about those seen on phantom clips.
STEP_STD = (0.002, 0.004, 0.004)
LOOP_STD = (0.006, 0.012, 0.03)
# Where half of the loops are missed by more standard deviations than FITS, tracking has drifted more than usual: its
# steps are held by less. A loop that is missed by more than MOST_MISSED after all was none.
SLACK, FITS, MOST_MISSED = (1.0, 3.0, 10.0, 30.0), 4.0, 8.0


@dataclass(frozen=True)
class ClosedLoop:
    """A loop as the run tells of it.

    Attributes:
        first, second: source indices of two frames that show the same place.
        matches: landmarks that tie them together.
        joins: whether they belonged to different segments.
        first_from_second: (4, 4) the second camera in the first one's frame, by this loop alone, in the unit in which
            the first one was tracked.
    """

    first: int
    second: int
    matches: int
    joins: bool
    first_from_second: Float

    def to_dict(self) -> dict[str, object]:
        """Plain values for run.yaml."""
        return {"frames": [self.first, self.second], "matches": self.matches, "joins": self.joins}


@dataclass(frozen=True)
class Closed:
    """What became of a tracker's segments.

    Attributes:
        loops: the loops that were closed, in order of time.
        segments: the new number of each old segment; empty where they are as they were.
        notes: sentences on what was joined.
    """

    loops: tuple[ClosedLoop, ...] = ()
    segments: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def number(self, segment: int) -> int:
        """The new number of an old segment."""
        return self.segments[segment] if segment < len(self.segments) else segment


def close_loops(tracker: Tracker, read: Callable[[int], tuple[Frame, NetworkDepth]]) -> Closed:
    """Find where the camera came back to, join the segments that this connects, and bring the poses in line.

    Without a loop nothing changes. Otherwise `tracker.segments` and `tracker.placed` are rewritten.

    Args:
        tracker: when all frames have been placed.
        read: the working image of a placed frame, by source index, and what the network says of it.
    """
    keys, at, indices = _keyframes(tracker)
    loops = find_loops(keys, lambda k: read(indices[k]))
    for scene in tracker.segments:
        scene.looks.clear()
    if not loops:
        return Closed()
    parts, stretches = list(tracker.segments), _stretches(tracker)
    groups = _groups(len(parts), [(at[loop.first][0], at[loop.second][0]) for loop in loops])
    kept: list[Loop] = []
    places: dict[int, _Place] = {}
    tracker.segments = []
    for group in groups:
        own = [loop for loop in loops if at[loop.first][0] in group]
        scene = _join(parts, group, own, at, places)
        kept += _close(scene, own, [place for place in at if place[0] in group], at, places)
        tracker.segments.append(scene)
    number = tuple(next(g for g, group in enumerate(groups) if s in group) for s in range(len(parts)))
    tracker.placed = {i: (number[s], places[s].frames + n) for i, (s, n) in tracker.placed.items()}
    kept.sort(key=lambda k: k.second)
    closed = tuple(
        ClosedLoop(
            indices[k.first], indices[k.second], k.matches, at[k.first][0] != at[k.second][0], k.forth.first_from_second
        )
        for k in kept
    )
    return Closed(closed, number, tuple(_notes(groups, kept, at, stretches)))


@dataclass(frozen=True)
class _Place:
    """Where a segment has gone in the map that it was joined into: how many frames and landmarks come before it, and
    the similarity that brought it there."""

    frames: int
    landmarks: int
    by: Similarity


def _keyframes(tracker: Tracker) -> tuple[list[Keyframe], list[tuple[int, int]], list[int]]:
    """All key frames that have a look, in order of time; their segments and numbers; their source indices."""
    keys, at, indices = [], [], []
    for index, (segment, number) in sorted(tracker.placed.items()):
        scene = tracker.segments[segment]
        if scene.keyframe[number] and number in scene.looks:
            keys.append(Keyframe(scene, number, scene.looks[number]))
            at.append((segment, number))
            indices.append(index)
    return keys, at, indices


def _stretches(tracker: Tracker) -> list[tuple[int, int]]:
    """The first and the last source index of each segment."""
    own: list[list[int]] = [[] for _ in tracker.segments]
    for index, (segment, _) in tracker.placed.items():
        own[segment].append(index)
    return [(min(indices), max(indices)) for indices in own]


# -- segments -----------------------------------------------------------------------------------------------------


def _groups(count: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Segments that links connect, each group and all of them in order of time."""
    name = list(range(count))
    for a, b in links:
        low, high = sorted((name[a], name[b]))
        name = [low if n == high else n for n in name]
    return [[s for s in range(count) if name[s] == n] for n in sorted(set(name))]


def _join(
    parts: Sequence[Map], group: list[int], loops: Sequence[Loop], at: Sequence[tuple[int, int]],
    places: dict[int, _Place],
) -> Map:  # fmt: skip
    """One map of a group of segments, in the world of the first one; `places` gets to know where each has gone."""
    by = {group[0]: Similarity(1.0, np.eye(3), np.zeros(3))}
    while len(by) < len(group):
        # The strongest loop that leads to a segment not yet reached.
        leading = [k for k in loops if (at[k.first][0] in by) != (at[k.second][0] in by)]
        loop = max(leading, key=lambda k: k.matches)
        (one, first), (other, second) = at[loop.first], at[loop.second]
        if one in by:
            found, old, new = loop.forth, (one, first), (other, second)
        else:
            found, old, new = loop.back, (other, second), (one, first)
        by[new[0]] = _compose(by[old[0]], _between(found, parts[old[0]].pose(old[1]), parts[new[0]].pose(new[1])))
    scene = parts[group[0]]
    places[group[0]] = _Place(0, 0, by[group[0]])
    for segment in group[1:]:
        places[segment] = _Place(len(scene), len(scene.host), by[segment])
        scene.extend(parts[segment], by[segment])
    return scene


def _between(found: Found, first: Float, second: Float) -> Similarity:
    """The first's world from the second's, by a loop between a camera of each."""
    scale = float(np.exp(found.log_unit))
    seen = first @ found.first_from_second
    rotation = seen[:3, :3] @ second[:3, :3].T
    return Similarity(scale, rotation, seen[:3, 3] - scale * rotation @ second[:3, 3])


def _compose(a: Similarity, b: Similarity) -> Similarity:
    return Similarity(a.scale * b.scale, a.rotation @ b.rotation, a.apply(b.translation))


# -- drift --------------------------------------------------------------------------------------------------------


def _close(
    scene: Map, loops: Sequence[Loop], keys: Sequence[tuple[int, int]], at: Sequence[tuple[int, int]],
    places: dict[int, _Place],
) -> list[Loop]:  # fmt: skip
    """Bring a map in line with its loops; returns those that hold.

    Args:
        scene: the map, with all segments of its group.
        loops: those within it.
        keys: its key frames, in order of time: segment, and number there.
        at: of all key frames that the loops may name.
        places: of the segments.
    """
    if not loops:
        return []
    numbers = np.array([places[s].frames + n for s, n in keys])
    position = {key: k for k, key in enumerate(keys)}
    start = Similarities(scene.rotation[numbers], scene.centre[numbers], np.zeros(len(numbers)))
    steps = _steps(scene, numbers, np.flatnonzero([a[0] == b[0] for a, b in pairwise(keys)]))
    ends = np.array([(position[at[k.first]], position[at[k.second]]) for k in loops])
    measured = _measured(loops, ends, [(places[at[k.first][0]].by, places[at[k.second][0]].by) for k in loops])
    for slack in SLACK:
        loose = replace(steps, std=steps.std * slack)
        moved = optimise(start, _together(loose, measured))
        # A loop is measured both ways, one after the other.
        missed = np.linalg.norm(residuals(moved, measured), axis=1).reshape(-1, 2).max(1)
        if np.median(missed) < FITS:
            break
    holds = missed < MOST_MISSED
    if not holds.all():
        moved = optimise(start, _together(loose, measured[np.repeat(holds, 2)]))
    _bend(scene, numbers, start, moved)
    kept = [loop for loop, good in zip(loops, holds, strict=True) if good]
    for loop in kept:
        first, second = at[loop.first], at[loop.second]
        one, other = places[first[0]], places[second[0]]
        scene.add_sight(other.frames + second[1], _lent(loop.forth.sight, one.landmarks))
        scene.add_sight(one.frames + first[1], _lent(loop.back.sight, other.landmarks))
        scene.revisits.append((one.frames + first[1], other.frames + second[1]))
    return kept


def _steps(scene: Map, numbers: NDArray[np.int64], first: NDArray[np.int64]) -> Relations:
    """What tracking says from each of the key frames at positions `first` to the next."""
    rotation, centre = scene.rotation[numbers], scene.centre[numbers]
    back = rotation[first].transpose(0, 2, 1)
    distance = np.empty(len(first))
    for k, number in enumerate(numbers[first]):
        far = np.linalg.norm(scene.points(scene.sights[number].landmark) - scene.centre[number], axis=1)
        distance[k] = np.median(far) if len(far) else 1.0
    return Relations(
        first, first + 1, back @ rotation[first + 1],
        np.einsum("eij,ej->ei", back, centre[first + 1] - centre[first]), np.zeros(len(first)),
        _deviations(STEP_STD, distance), np.zeros(len(first), bool),
    )  # fmt: skip


def _measured(
    loops: Sequence[Loop], ends: NDArray[np.int64], by: Sequence[tuple[Similarity, Similarity]]
) -> Relations:
    """Each loop as two relations, forth and back, in the units that its segments have now."""
    found = [way for loop in loops for way in (loop.forth, loop.back)]
    scale = np.array([(a.scale, b.scale) for one, other in by for a, b in ((one, other), (other, one))])
    first, second = np.concatenate([ends, ends[:, ::-1]], 1).reshape(-1, 2).T
    poses = np.stack([f.first_from_second for f in found])
    distance = np.array([f.distance for f in found]) * scale[:, 0]
    log_unit = np.array([f.log_unit for f in found]) + np.log(scale[:, 0] / scale[:, 1])
    return Relations(
        first, second, poses[:, :3, :3], poses[:, :3, 3] * scale[:, :1], log_unit,
        _deviations(LOOP_STD, distance), np.ones(len(found), bool),
    )  # fmt: skip


def _deviations(std: tuple[float, float, float], distance: Float) -> Float:
    turn, shift, unit = (np.full(len(distance), value) for value in std)
    return np.stack([turn, shift * distance, unit], 1)


def _together(a: Relations, b: Relations) -> Relations:
    return Relations(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in a.__dataclass_fields__))


def _bend(scene: Map, numbers: NDArray[np.int64], old: Similarities, new: Similarities) -> None:
    """Move the key frames, and with each of them the frames up to the next."""
    for k, number in enumerate(numbers):
        end = int(numbers[k + 1]) if k + 1 < len(numbers) else len(scene)
        scale = float(np.exp(new.log_scale[k] - old.log_scale[k]))
        rotation = new.rotation[k] @ old.rotation[k].T
        scene.transform(Similarity(scale, rotation, new.centre[k] - scale * rotation @ old.centre[k]), int(number), end)


def _lent(sight: Sight, landmarks: int) -> Sight:
    """A loop's landmarks by their numbers in the joined map."""
    return Sight(sight.landmark + landmarks, sight.pixels, sight.log_net)


# -- words --------------------------------------------------------------------------------------------------------


def _notes(
    groups: Sequence[list[int]], loops: Sequence[Loop], at: Sequence[tuple[int, int]],
    stretches: Sequence[tuple[int, int]],
) -> list[str]:  # fmt: skip
    """What joins each segment of a group to the others, but for the group's longest."""
    found = []
    for group in groups:
        longest = max(group, key=lambda s: stretches[s][1] - stretches[s][0])
        for segment in group:
            own = [k.matches for k in loops if (at[k.first][0] == segment) != (at[k.second][0] == segment)]
            if segment == longest or not own:
                continue
            first, last = stretches[segment]
            where = f"frame {first} is" if first == last else f"frames {first} to {last} are"
            low, high = min(own), max(own)
            how = f"one loop of {low}" if len(own) == 1 else f"{len(own)} loops of {low} to {high}"
            found.append(f"{where} joined to the rest by {how} matches")
    return found
