"""What every source of poses offers, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from endorecon.tracking.given import GivenPoses
from video_io.camera import Camera
from video_io.clip import Clip

UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
SCALE_UNKNOWN = "up to scale: one camera and no known length; the unit is the depth model's guess of a millimetre"

Progress = Callable[[str, int, int | None], None]


class PoseSource(Protocol):
    """Finds the camera's poses once the clip can be read."""

    def find(
        self, clip: Clip, camera: Camera, focal_free: bool, folder: Path, progress: Progress
    ) -> tuple[GivenPoses | None, Camera]:
        """The poses of the clip's frames.

        Args:
            clip: with its camera.
            camera: the working camera.
            focal_free: whether its focal length is only estimated.
            folder: for temporary files, and for results that a run which is stopped and goes on finds again; goes
                away when the run is finished.
            progress: called with a stage's name, frames done, and how many there are, where that is known.

        Returns:
            The poses, or None where the tracker is to find them; and the camera that belongs to them.

        Raises:
            InputError: no poses can be found.
        """
        ...
