"""What moves with the camera: a tool that rests in the picture, dirt on the lens, the rim of a cap.

Landmarks there would hold the camera still, and make all places look alike. They are told by what they do: each one
was at some distance when it was first seen, by the network, and so the pose says how far it should have moved in the
picture since. One that has hardly moved, where tissue at that distance would have moved far, is a vote for its part of
the picture; one that has moved as tissue does is a vote against.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

COLUMNS, ROWS = 24, 20  # parts of the picture
# In pixels of an image 320 wide: how far tissue has to have moved for a vote; how far what is attached may have.
LEAST_MOVED, MOST_STILL, STILL_SHARE, MOVED_SHARE = 5.0, 1.0, 0.12, 0.5
HALF_LIFE = 30.0  # frames after which a vote counts half
LEAST_VOTES, MAJORITY = 3.0, 4.0  # votes for, and how many times as many as against
# Where no landmark is sought there is no vote against either: after two half-lives such a part is looked at again.
MOST_VOTES = 12.0


@dataclass
class Attached:
    """Votes on each part of the picture, (ROWS, COLUMNS)."""

    still: Float = field(default_factory=lambda: np.zeros((ROWS, COLUMNS)))
    moved: Float = field(default_factory=lambda: np.zeros((ROWS, COLUMNS)))

    def see(self, begun: Float, now: Float, expected: Float, width: int, height: int) -> None:
        """Take the votes of one frame.

        Args:
            begun: (N, 2) where landmarks were first seen.
            now: (N, 2) where they are found.
            expected: (N, 2) where tissue at the network's distance would be; not finite where it is out of sight.
            width, height: of the picture.
        """
        fade = 0.5 ** (1 / HALF_LIFE)
        self.still *= fade
        self.moved *= fade
        unit = width / 320
        should = np.linalg.norm(expected - begun, axis=1)
        did = np.linalg.norm(now - begun, axis=1)
        told = np.isfinite(should) & (should > LEAST_MOVED * unit)
        still = told & (did < np.minimum(MOST_STILL * unit, STILL_SHARE * should))
        moved = told & (did > MOVED_SHARE * should)
        row = np.clip(now[:, 1] * ROWS / height, 0, ROWS - 1).astype(int)
        column = np.clip(now[:, 0] * COLUMNS / width, 0, COLUMNS - 1).astype(int)
        np.add.at(self.still, (row[still], column[still]), 1.0)
        np.add.at(self.moved, (row[moved], column[moved]), 1.0)
        np.minimum(self.still, MOST_VOTES, out=self.still)
        np.minimum(self.moved, MOST_VOTES, out=self.moved)

    @property
    def parts(self) -> Mask:
        """(ROWS, COLUMNS) True where the picture moves with the camera."""
        return (self.still > LEAST_VOTES) & (self.still > MAJORITY * self.moved)

    def mask(self, width: int, height: int) -> Mask | None:
        """(H, W) True where the picture moves with the camera, with a margin; None where nothing does."""
        parts = self.parts
        if not parts.any():
            return None
        # A part is as wide as landmarks are apart: its neighbours have votes of their own only where some lie.
        grown = cv2.dilate(parts.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        grown &= parts | (self.moved <= self.still)
        return cv2.resize(grown.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
