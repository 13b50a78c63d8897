"""What a segment of the video knows: frames with poses, landmarks with distances, and who saw what."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.adjust import Adjusted, Problem, Sightlines
from video_io.camera import Camera
from video_io.trajectory import Similarity

if TYPE_CHECKING:
    from endorecon.tracking.appearance import Appearance

Float = NDArray[np.float64]

# The network's errors are alike over large parts of an image, so that a thousand landmarks are worth some ten
# independent measurements: the spread of one landmark's prior is widened to say so.
PRIOR_STD = 0.5


@dataclass(frozen=True)
class Sight:
    """The landmarks that one frame saw: their numbers (N,), pixels (N, 2), and the network's log distance (N,)."""

    landmark: NDArray[np.int64]
    pixels: NDArray[np.float32]
    log_net: NDArray[np.float32]


@dataclass
class Map:
    """Frames and landmarks of one segment; grows while the segment is tracked.

    Frames are numbered in the order in which they were placed. `alpha` and `beta` are the log scale and the shift of a
    frame's network depth (only those of key frames are refined). Where the poses are given, `poses_stay`; the
    refinement then holds the scale of the first key frame that takes part near what it was, by `anchor_std` of its log,
    as the images tell nothing of it while the camera stands. `looks` holds what key frames look like until loops are
    sought; `revisits` the pairs of key frames that were found to show the same place.
    """

    camera: Camera
    poses_stay: bool = False
    anchor_std: float = 0.01
    rotation: Float = field(default_factory=lambda: np.zeros((0, 3, 3)))
    centre: Float = field(default_factory=lambda: np.zeros((0, 3)))
    alpha: Float = field(default_factory=lambda: np.zeros(0))
    beta: Float = field(default_factory=lambda: np.zeros(0))
    keyframe: list[bool] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    host: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    pixel: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    log_d: Float = field(default_factory=lambda: np.zeros(0))
    prior: Float = field(default_factory=lambda: np.zeros(0))
    information: Float = field(default_factory=lambda: np.zeros(0))
    looks: MutableMapping[int, Appearance] = field(default_factory=dict)
    revisits: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def keyframes(self) -> list[int]:
        """Numbers of the key frames, in order of time."""
        return [f for f, key in enumerate(self.keyframe) if key]

    def key_before(self, frame: int) -> int:
        """The last key frame before this frame; the frame itself where there is none before it."""
        return next((f for f in range(frame - 1, -1, -1) if self.keyframe[f]), frame)

    def last_keyframes(self, count: int) -> list[int]:
        """Up to `count` key frames, the last ones, in order of time."""
        found: list[int] = []
        for frame in range(len(self) - 1, -1, -1):
            if self.keyframe[frame]:
                found.append(frame)
                if len(found) == count:
                    break
        return found[::-1]

    def pose(self, frame: int) -> Float:
        """world_from_cam (4, 4) of a frame."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation[frame], self.centre[frame]
        return pose

    def points(self, landmark: NDArray[np.int64]) -> Float:
        """World positions (N, 3) of landmarks."""
        host = self.host[landmark]
        local = self.camera.rays(self.pixel[landmark]) * np.exp(self.log_d[landmark])[:, None]
        return np.einsum("nij,nj->ni", self.rotation[host], local) + self.centre[host]

    def add_frame(self, world_from_cam: Float, sight: Sight, alpha: float, keyframe: bool) -> int:
        """Append a frame; returns its number."""
        self.rotation = _appended(self.rotation, world_from_cam[:3, :3])
        self.centre = _appended(self.centre, world_from_cam[:3, 3])
        self.alpha, self.beta = _appended(self.alpha, alpha), _appended(self.beta, 0.0)
        self.keyframe.append(keyframe)
        self.sights.append(sight)
        return len(self) - 1

    def move(self, moved: Float, first: int, end: int) -> None:
        """Take the frames from `first` to before `end` along with a motion (4, 4) of the world."""
        self.rotation[first:end] = moved[:3, :3] @ self.rotation[first:end]
        self.centre[first:end] = self.centre[first:end] @ moved[:3, :3].T + moved[:3, 3]

    def transform(self, by: Similarity, first: int, end: int) -> None:
        """Take the frames from `first` to before `end`, and the landmarks that they host, along with a similarity of
        the world."""
        self.rotation[first:end] = by.rotation @ self.rotation[first:end]
        self.centre[first:end] = by.apply(self.centre[first:end])
        self.alpha[first:end] += np.log(by.scale)
        own = slice(*np.searchsorted(self.host, (first, end)))  # landmarks are in the order of their hosts
        self.log_d[own] += np.log(by.scale)

    def extend(self, other: Map, by: Similarity) -> None:
        """Append the frames and landmarks of a later segment, brought into this world by a similarity."""
        frames, landmarks = len(self), len(self.host)
        for name in ("rotation", "centre", "alpha", "beta", "pixel", "log_d", "prior", "information"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        self.host = np.append(self.host, other.host + frames)
        self.keyframe += other.keyframe
        self.sights += [Sight(s.landmark + landmarks, s.pixels, s.log_net) for s in other.sights]
        self.looks.update({number + frames: look for number, look in other.looks.items()})
        self.revisits += [(a + frames, b + frames) for a, b in other.revisits]
        self.transform(by, frames, len(self))

    def add_sight(self, frame: int, more: Sight) -> None:
        """Let a frame see further landmarks; those that it sees already stay as they are."""
        old = self.sights[frame]
        new = ~np.isin(more.landmark, old.landmark)
        self.sights[frame] = Sight(
            np.append(old.landmark, more.landmark[new]),
            np.concatenate([old.pixels, more.pixels[new]]),
            np.append(old.log_net, more.log_net[new]),
        )

    def forget_unseen(self, also: NDArray[np.int64]) -> NDArray[np.int64]:
        """Let go of the landmarks that no frame sees any more, but for `also`.

        Returns:
            The new number of each old landmark; -1 where it has gone.
        """
        seen = np.zeros(len(self.host), bool)
        seen[also] = True
        for sight in self.sights:
            if len(sight.landmark):
                seen[sight.landmark] = True
        number = np.where(seen, np.cumsum(seen) - 1, -1)
        for name in ("host", "pixel", "log_d", "prior", "information"):
            setattr(self, name, getattr(self, name)[seen])
        # Frames may share what they see: of nothing there is one.
        self.sights = [Sight(number[s.landmark], s.pixels, s.log_net) if len(s.landmark) else s for s in self.sights]
        return number

    def trim(self) -> None:
        """Let go of the room for further frames."""
        for name in ("rotation", "centre", "alpha", "beta"):
            setattr(self, name, getattr(self, name).copy())

    def revisited(self, frames: Sequence[int], most: int) -> list[int]:
        """Key frames outside `frames` that show a place that one of these shows; of many, `most` evenly spread, since a
        camera that dwells comes by the same place hundreds of times, and the equations grow with each of them."""
        inside = set(frames)
        ends = sorted({end for pair in self.revisits if inside & set(pair) for end in pair} - inside)
        return [ends[i] for i in np.linspace(0, len(ends) - 1, min(most, len(ends))).round().astype(int)]

    def add_landmarks(self, frame: int, pixels: NDArray[np.float32], log_net: NDArray[np.float32]) -> None:
        """Landmarks first seen in `frame`; their distance starts at the network's, on the frame's scale."""
        numbers = np.arange(len(self.host), len(self.host) + len(pixels))
        self.host = np.append(self.host, np.full(len(pixels), frame))
        self.pixel = np.concatenate([self.pixel, pixels])
        self.log_d = np.append(self.log_d, log_net + self.alpha[frame])
        self.prior = np.append(self.prior, log_net)
        self.information = np.append(self.information, np.zeros(len(pixels)))
        old = self.sights[frame]
        self.sights[frame] = Sight(
            np.append(old.landmark, numbers), np.concatenate([old.pixels, pixels]), np.append(old.log_net, log_net)
        )

    def problem(
        self, frames: Sequence[int], fixed: int, focal_std: float = 0.0, beside: Sequence[int] = ()
    ) -> tuple[Problem, NDArray[np.int64], NDArray[np.int64]]:
        """The joint refinement of `frames` (rising), of which the first `fixed` stay (all of them where the
        poses are given), with all landmarks that at least two of them see. Key frames outside `frames` that host such
        landmarks take part with a pose that stays, and so do the frames `beside`, as far as they see landmarks of
        frames that move.

        Returns:
            The problem, and which frames and which landmarks its entries are.
        """
        seeing = [*frames, *beside]
        landmark = np.concatenate([self.sights[f].landmark for f in seeing])
        pixels = np.concatenate([self.sights[f].pixels for f in seeing])
        frame = np.repeat(np.asarray(seeing), [len(self.sights[f].landmark) for f in seeing])
        foreign = frame != self.host[landmark]
        if len(beside):
            foreign &= ~np.isin(frame, beside) | np.isin(self.host[landmark], np.asarray(frames)[fixed:])
        landmark, pixels, frame = landmark[foreign], pixels[foreign], frame[foreign]
        numbers = np.unique(landmark)
        order = np.lexsort((frame, landmark))
        landmark, pixels, frame = landmark[order], pixels[order], frame[order]
        host = self.host[numbers]
        members = np.unique(np.concatenate([frames, host, frame]))
        stays = ~np.isin(members, np.asarray(frames)[fixed:]) | self.poses_stay
        first = host.min() if len(host) else frames[0]
        problem = Problem(
            rotation=self.rotation[members].copy(),
            centre=self.centre[members].copy(),
            alpha=self.alpha[members].copy(),
            beta=self.beta[members].copy(),
            fixed=stays,
            host=np.searchsorted(members, host),
            sight=Sightlines.of(self.camera, self.pixel[numbers], pixels, focal_std > 0),
            log_d=self.log_d[numbers].copy(),
            prior=self.prior[numbers],
            prior_weight=np.full(len(numbers), 1 / PRIOR_STD**2),
            start=np.append(np.searchsorted(landmark, numbers), len(landmark)),
            frame=np.searchsorted(members, frame),
            anchored=fixed <= 1 or self.poses_stay,
            anchor=float(self.alpha[first]) if self.poses_stay else 0.0,
            anchor_std=self.anchor_std,
            log_focal_std=focal_std,
        )
        return problem, members, numbers

    def take(self, adjusted: Adjusted, members: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Keep what the refinement found."""
        p = adjusted.problem
        self.rotation[members], self.centre[members] = _orthogonal(p.rotation), p.centre
        self.alpha[members], self.beta[members] = p.alpha, p.beta
        self.log_d[numbers], self.information[numbers] = p.log_d, adjusted.information


def _appended(array: Float, value: NDArray[np.float64] | float) -> Float:
    """The array with one more entry, which is written behind it where there is room: the cost of a frame does not grow
    with the segment. The array given must not be appended to again."""
    count, room = len(array), array.base
    fits = isinstance(room, np.ndarray) and room.shape[1:] == array.shape[1:] and room.dtype == array.dtype
    if not fits or len(room) <= count or room.ctypes.data != array.ctypes.data:
        room = np.empty((max(64, 2 * count), *array.shape[1:]))
        room[:count] = array
    room[count] = value
    return room[: count + 1]


def _orthogonal(rotation: Float) -> Float:
    """The nearest rotations, so that many small turns don't drift."""
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt
