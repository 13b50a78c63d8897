"""A still camera before tissue that moves: every pose is the first one's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endorecon.poses.base import SCALE_UNKNOWN, PoseSource, Progress
from endorecon.tracking.given import GivenPoses
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.sources.base import Source


def accepts(choice: str) -> bool:
    """Whether this file is what stands after --poses."""
    return choice == "fixed"


def open(choice: str, unit: str | None, source: Source) -> PoseSource:
    """See `open_poses`."""
    return Fixed()


class Fixed:
    """See `PoseSource`."""

    def find(
        self, clip: Clip, camera: Camera, focal_free: bool, folder: Path, progress: Progress
    ) -> tuple[GivenPoses, Camera]:
        """The identity for every frame; without parallax the unit stays the network's."""
        still = np.eye(4)
        poses = GivenPoses(
            lambda index, time_ns: still.copy(), still[None], "fixed: the camera was said to stand still",
            SCALE_UNKNOWN, "", rigid=False,
        )  # fmt: skip
        return poses, camera
