"""What tracking says of a frame: placed, or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from video_io.frame import Frame


@dataclass(frozen=True)
class Observation:
    """A frame with its depth and its place.

    Attributes:
        frame: the working image, its masks and its camera.
        depth: (H, W) float32, z in the camera frame, in the unit of the pose.
        confidence: (H, W) float32 in [0, 1]; 0 where there is no depth.
        log_std: (H, W) float32, standard deviation of the log depth.
        world_from_cam: (4, 4) float64.
        segment: number of the segment that the pose belongs to; poses of different segments can't be compared.
        is_keyframe: whether the joint refinement rests on it.
        figures: per-frame quality, by name (inlier share, residual in pixels, ...).
        reason: what is wrong with the frame all the same; empty for nothing.
    """

    frame: Frame
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    log_std: NDArray[np.float32]
    world_from_cam: NDArray[np.float64]
    segment: int
    is_keyframe: bool
    figures: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def median_depth(self) -> float:
        """Of the pixels that have one; 1 where none has."""
        valid = self.confidence > 0
        return float(np.median(self.depth[valid])) if valid.any() else 1.0


@dataclass(frozen=True)
class Posed:
    """A frame that has a place and no depth, as the network was not asked. Fields as in `Observation`."""

    frame: Frame
    world_from_cam: NDArray[np.float64]
    segment: int
    figures: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    is_keyframe: bool = False


@dataclass(frozen=True)
class Refused:
    """A frame that has no place, and why."""

    index: int
    time_ns: int
    reason: str
    segment: int = 0
    figures: dict[str, float] = field(default_factory=dict)
