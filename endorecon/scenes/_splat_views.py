"""The frames that Gaussians are trained on, in bounded memory."""

from __future__ import annotations

import numpy as np

from endorecon.scenes._splat_model import SplatView
from endorecon.scenes.tsdf import Observed
from video_io.camera import Camera

MOST_VIEWS = 400  # 0.9 MB each at 320 x 256: beyond, every second one is left out


class KeptViews:
    """Takes observations as they come.

    Args:
        pinhole: whether every lens is made a pinhole's, a fisheye too.

    Attributes:
        views: what is kept, in order of time.
    """

    def __init__(self, pinhole: bool = False) -> None:
        self._lenses = ("pinhole",) if pinhole else ("pinhole", "fisheye")
        self.views: list[SplatView] = []
        self._step, self._seen = 1, 0

    def add(self, observation: Observed) -> None:
        """Keep an observation, if it is its turn; its frame must carry a camera."""
        if self._seen % self._step == 0:
            self.views.append(view_of(observation, self._lenses))
        self._seen += 1
        if len(self.views) > MOST_VIEWS:
            self.views, self._step = self.views[::2], 2 * self._step

    @property
    def warnings(self) -> list[str]:
        """What to say of the frames that were left out."""
        every = f"the Gaussians were trained on every {self._step}th frame, for want of memory"
        return [every] if self._step > 1 else []


def view_of(observation: Observed, lenses: tuple[str, ...] = ("pinhole", "fisheye")) -> SplatView:
    """What is kept of an observation; a lens that the rasteriser does not know is made a pinhole's."""
    frame, camera = observation.frame, observation.frame.camera
    if camera is None:
        raise ValueError(f"frame {frame.index} has no camera; a scene needs one to place its depth")
    maps = frame.rgb, frame.use_mask, observation.depth, observation.confidence
    if camera.model not in lenses:
        camera, maps = _straightened(camera, maps)
    rgb, use, depth, confidence = maps
    return SplatView(
        frame.index, frame.time_ns, rgb, use, depth, confidence.astype(np.float16), camera, observation.world_from_cam
    )


def _straightened(camera: Camera, maps: tuple[np.ndarray, ...]) -> tuple[Camera, tuple[np.ndarray, ...]]:
    """A pinhole camera of this size and focal length, and the maps (colour, use, depth, confidence) as it sees them."""
    import cv2

    straight = camera.straightened()
    pixels, seen = camera.project(straight.ray_map())
    at = (pixels - 0.5).astype(np.float32)  # OpenCV counts from pixel centres
    rgb = cv2.remap(maps[0], at[..., 0], at[..., 1], cv2.INTER_LINEAR)
    use, depth, confidence = (
        cv2.remap(m.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_NEAREST) * seen for m in maps[1:]
    )
    return straight, (rgb, use > 0, depth, confidence)
