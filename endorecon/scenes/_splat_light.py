"""What an endoscope's light does to the picture: it moves with the camera, so what is near is bright.

A Gaussian keeps the colour that it has at the clip's usual depth in the middle of the image. The factor that a pixel
is seen with is exp(-p log(depth / usual) + a r^2 + b r^4), r the distance from the centre in half diagonals: inverse
square becomes p = 0.9 by a display's gamma, less what walls throw at each other; a and b are the lamp's spot and the
lens. All three are learnt with the scene, one set a clip (compare NFL-BA, arXiv:2412.13176, where the law is fixed).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

START = (0.6, 0.0, 0.0)
RATE = 5e-3
SPAN = 10.0  # depths beyond this factor of the usual one count as that


@dataclass
class Light:
    """The law, with Adam's moments.

    Attributes:
        usual: depth at which the factor is 1.
        law: p, a, b.
    """

    usual: float
    law: NDArray[np.float64] = field(default_factory=lambda: np.array(START))
    moments: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 3)))
    steps: int = 0

    def factor(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each pixel of an (H, W) depth map is seen with; 0 is no depth, which counts as the usual one."""
        return np.exp(np.tensordot(self.law.astype(np.float32), self._terms(depth), 1))

    def step(
        self, depth: NDArray[np.float32], factor: NDArray[np.float32], slope: NDArray[np.float32], rate: float
    ) -> None:
        """One step of Adam, given the loss's gradient by the factor."""
        slope = (self._terms(depth) * (factor * slope)).sum((1, 2)).astype(float)
        self.steps += 1
        m, s = self.moments
        m += 0.1 * (slope - m)
        s += 0.01 * (slope**2 - s)
        self.law -= rate * (m / (1 - 0.9**self.steps)) / (np.sqrt(s / (1 - 0.99**self.steps)) + 1e-12)

    def _terms(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        h, w = depth.shape
        log = np.log(np.clip(np.where(depth > 0, depth / self.usual, 1), 1 / SPAN, SPAN))
        y, x = np.ogrid[:h, :w]
        square = (((x + 0.5) / w - 0.5) ** 2 * w * w + ((y + 0.5) / h - 0.5) ** 2 * h * h) * 4 / (w * w + h * h)
        return np.stack([-log, square, square**2]).astype(np.float32)
