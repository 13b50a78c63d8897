"""Frames to adapt from: images of one recording with the camera, poses and depth that were found in them.

Poses and distances are what a reconstruction of the recording has agreed on over many views, in a unit of its own; of a
rendered clip, `known`, they are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError

# Frames are compared when the camera has moved by this share of the median distance between them, and turned less.
PARALLAX, MOST_TURN_RAD = (0.03, 0.35), 0.6
LEAST_FRAMES = 8
HELD_OUT = 0.2


@dataclass(frozen=True)
class Recording:
    """A stretch of video whose poses share a world and a unit.

    Attributes:
        name: of the clip that it is from: clips, not stretches, are parted into training and validation.
        camera: of the images.
        rgb: (N, H, W, 3) uint8.
        mask: (N, H, W) bool, True where the image shows tissue that can be compared: no overlay, border or highlight.
        distance: (N, H / 2, W / 2) float32 along the unit rays, in the unit of the poses; 0 where there is none.
        confidence: (N, H / 2, W / 2) float32 in [0, 1]: one half where a standard deviation is a tenth.
        world_from_cam: (N, 4, 4).
        known: whether poses and distances are the truth, which is learnt from with supervision.

    Raises:
        ValueError: arrays that do not fit each other.
    """

    name: str
    camera: Camera
    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    distance: NDArray[np.float32]
    confidence: NDArray[np.float32]
    world_from_cam: NDArray[np.float64]
    known: bool = False

    def __post_init__(self) -> None:
        n, (h, w) = len(self.rgb), (self.camera.height, self.camera.width)
        want = {
            "rgb": (n, h, w, 3), "mask": (n, h, w), "distance": (n, h // 2, w // 2),
            "confidence": (n, h // 2, w // 2), "world_from_cam": (n, 4, 4),
        }  # fmt: skip
        for name, shape in want.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{self.name}: {name} is {getattr(self, name).shape}, expected {shape}")

    def __len__(self) -> int:
        return len(self.rgb)

    @cached_property
    def neighbours(self) -> list[NDArray[np.int64]]:
        """For each frame those that see the same from elsewhere, by `PARALLAX` and `MOST_TURN_RAD`."""
        centres, axes = self.world_from_cam[:, :3, 3], self.world_from_cam[:, :3, :3]
        typical = np.array([np.median(d[d > 0]) if (d > 0).any() else np.nan for d in self.distance])
        found = []
        for number in range(len(self)):
            with np.errstate(invalid="ignore"):
                moved = np.linalg.norm(centres - centres[number], axis=1) / typical[number]
            cosine = (np.einsum("nij,ij->n", axes, axes[number]) - 1) / 2
            near = (moved > PARALLAX[0]) & (moved < PARALLAX[1]) & (cosine > np.cos(MOST_TURN_RAD))
            found.append(np.flatnonzero(near))
        return found

    def part(self, first: int, end: int) -> Recording:
        """The frames from `first` to before `end`."""
        names = ("rgb", "mask", "distance", "confidence", "world_from_cam")
        return replace(self, **{name: getattr(self, name)[first:end] for name in names})

    def save(self, path: Path) -> None:
        """Write all of it, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        import json

        work = path.with_name(f".{path.name}.part")
        with open(work, "wb") as file:
            np.savez(
                file, told=json.dumps({"name": self.name, "camera": self.camera.to_dict(), "known": self.known}),
                rgb=self.rgb,
                mask=self.mask, distance=self.distance, confidence=self.confidence.astype(np.float16),
                world_from_cam=self.world_from_cam,
            )  # fmt: skip
        work.replace(path)

    @staticmethod
    def load(path: Path) -> Recording:
        """Read what `save` has written.

        Raises:
            InputError: it is not that.
        """
        import json

        try:
            with np.load(path) as held:
                told = json.loads(str(held["told"]))
                return Recording(
                    told["name"], Camera.from_dict(told["camera"]), held["rgb"], held["mask"], held["distance"],
                    held["confidence"].astype(np.float32), held["world_from_cam"], bool(told.get("known", False)),
                )  # fmt: skip
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} can't be read ({error}): remove it, and it is made again") from error


def split(recordings: list[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Recordings to learn from, and recordings to choose a checkpoint by.

    Of several clips a fifth, the shortest, are held out. Of a single clip it is the last fifth of the time.

    Raises:
        InputError: too few frames to part them.
    """
    names = list(dict.fromkeys(r.name for r in recordings))
    length = {name: sum(len(r) for r in recordings if r.name == name) for name in names}
    if len(names) > 1:
        out = set(sorted(names, key=lambda name: length[name])[: max(1, round(HELD_OUT * len(names)))])
        learn, check = [r for r in recordings if r.name not in out], [r for r in recordings if r.name in out]
    else:
        learn, check = _split_time(recordings, sum(length.values()))
    if sum(map(len, learn)) < LEAST_FRAMES or not check:
        raise InputError(
            f"only {sum(length.values())} frames can be learnt from, {LEAST_FRAMES + 2} are needed at least and "
            "hundreds are better: give longer or more recordings"
        )
    return learn, check


def _split_time(recordings: list[Recording], total: int) -> tuple[list[Recording], list[Recording]]:
    learn, check, left = [], [], round((1 - HELD_OUT) * total)
    for recording in recordings:
        cut = min(max(left, 0), len(recording))
        left -= cut
        if cut:
            learn.append(recording.part(0, cut))
        if cut < len(recording):
            check.append(recording.part(cut, len(recording)))
    return learn, check
