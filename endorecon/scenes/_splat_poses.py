"""Poses of the frames that Gaussians are trained on, improved along with them by the pictures' own gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

RATE = 5e-4  # radians, and shares of the usual depth, a step


@dataclass
class Poses:
    """Corrections of F poses, cam' from cam, with Adam's moments. The first frame's is held: it is the world's.

    Attributes:
        matrix: (F, 4, 4).
        usual: depth of the scene, the measure of translations.
    """

    matrix: NDArray[np.float64]
    moments: NDArray[np.float64]
    steps: NDArray[np.int64]
    usual: float

    @staticmethod
    def given(frames: int, usual: float) -> Poses:
        """No corrections."""
        return Poses(np.tile(np.eye(4), (frames, 1, 1)), np.zeros((2, frames, 6)), np.zeros(frames, np.int64), usual)

    def view(self, frame: int, world_from_cam: NDArray[np.float64]) -> NDArray[np.float64]:
        """The corrected camera from world."""
        return self.matrix[frame] @ np.linalg.inv(world_from_cam)

    def step(self, frame: int, view: NDArray[np.float64], slope: NDArray[np.float64], rate: float) -> None:
        """One step of Adam, given the loss's gradient (4, 4) by `view`: turns, then shifts, of the camera's frame."""
        if frame == 0:
            return
        outer = slope[:3] @ view[:3].T  # by what stands before the view
        turn = np.array([outer[2, 1] - outer[1, 2], outer[0, 2] - outer[2, 0], outer[1, 0] - outer[0, 1]])
        by = np.concatenate([turn, self.usual * slope[:3, 3]])
        self.steps[frame] += 1
        n, (m, s) = self.steps[frame], self.moments[:, frame]
        m += 0.1 * (by - m)
        s += 0.01 * (by**2 - s)
        move = -rate * (m / (1 - 0.9**n)) / (np.sqrt(s / (1 - 0.99**n)) + 1e-12)
        self.matrix[frame] = _rigid(move[:3], self.usual * move[3:]) @ self.matrix[frame]

    def between(self, times: NDArray, time: float, world_from_cam: NDArray[np.float64]) -> NDArray[np.float64]:
        """world_from_cam of a frame that is not trained on, corrected as its neighbours in time."""
        turns = Rotation.from_matrix(self.matrix[:, :3, :3]).as_rotvec()
        six = [np.interp(time, times, column) for column in np.concatenate([turns, self.matrix[:, :3, 3]], 1).T]
        return world_from_cam @ np.linalg.inv(_rigid(np.array(six[:3]), np.array(six[3:])))

    def moved(self) -> tuple[float, float]:
        """Mean angle (radians) and shift of the corrections."""
        turns = Rotation.from_matrix(self.matrix[:, :3, :3]).magnitude()
        return float(turns.mean()), float(np.linalg.norm(self.matrix[:, :3, 3], axis=1).mean())


def _rigid(turn: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), shift
    return matrix
