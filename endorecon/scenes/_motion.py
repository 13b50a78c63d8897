"""Gaussians whose place, turn and size follow a small basis in time, after Deform3DGS (Yang et al., MICCAI 2024).

A Gaussian's position, quaternion and log scales at time t are those at rest plus the sum over j of w_j phi_j(t), with
ten weights a function. The functions are bells, phi_j(t) = exp(-(t - c_j)^2 / 2 s_j^2), whose centres c_j and widths
s_j are learnt. Unlike there, all Gaussians share them, and each ends at three widths: at any time only a few count, the
gradient by the weights is an outer product that need not be stored, and a step touches a fraction of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from endorecon.scenes._splat_model import Floats, Splats
from rendering.splat import share, threads
from video_io.errors import InputError
from video_io.files import read_npz

CHANNELS = 10  # position (3), quaternion (4), log scale (3)
FRAMES_A_BELL, FEWEST, MOST = 4.0, 3, 32
REACH = 3.0  # in widths, where a bell ends
_FLOOR = float(np.exp(-0.5 * REACH**2))
FILE = "motion.npz"
_MOST_MB = 2000


class Heights(NamedTuple):
    """The bells that count at one time.

    Attributes:
        first: number of the first of them; the others follow it.
        value: (K,) phi. by_centre, by_width: (K,) its slopes by the centre and by the log of the width.
    """

    first: int
    value: Floats
    by_centre: NDArray[np.float64]
    by_width: NDArray[np.float64]


@dataclass
class TimeBasis:
    """B bells over a clip, with Adam's moments.

    Attributes:
        begin_ns, end_ns: times that are 0 and 1 to the bells.
        shape: (2, B) centres, and logs of the widths.
    """

    begin_ns: int
    end_ns: int
    shape: NDArray[np.float64]
    moments: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    steps: int = 0

    def __post_init__(self) -> None:
        if not self.moments.size:
            self.moments = np.zeros((2, *self.shape.shape))

    @staticmethod
    def over(times_ns: Sequence[int]) -> TimeBasis:
        """Bells spread evenly over these times, one for every four of them, as wide as they lie apart."""
        number = int(np.clip(np.ceil(len(times_ns) / FRAMES_A_BELL), FEWEST, MOST))
        gap = 1 / (number - 1)
        shape = np.stack([np.linspace(0, 1, number), np.full(number, np.log(gap))])
        return TimeBasis(int(min(times_ns)), int(max(times_ns)), shape)

    @property
    def count(self) -> int:
        """Number of bells."""
        return self.shape.shape[1]

    def share(self, time_ns: float) -> float:
        """A time as a share of the span; motion goes on beyond it for about a frame, and then stops."""
        beyond = 1 / FRAMES_A_BELL / (self.count - 1)
        return float(np.clip((time_ns - self.begin_ns) / max(self.end_ns - self.begin_ns, 1), -beyond, 1 + beyond))

    def heights(self, time_ns: float) -> Heights:
        """The bells that count at this time."""
        centre, width = self.shape[0], np.exp(self.shape[1])
        x = (self.share(time_ns) - centre) / width
        bell = np.exp(-0.5 * x * x)
        counts = np.flatnonzero(bell > _FLOOR * (1 + 1e-9))
        if not len(counts):
            return Heights(0, np.zeros(0, np.float32), np.zeros(0), np.zeros(0))
        part = slice(counts[0], counts[-1] + 1)
        # Less the height at its end, so that nothing jumps there.
        on, unit = bell > _FLOOR, 1 / (1 - _FLOOR)
        value = np.where(on, bell - _FLOOR, 0) * unit
        by_centre, by_width = np.where(on, bell * x / width, 0) * unit, np.where(on, bell * x * x, 0) * unit
        return Heights(int(counts[0]), value[part].astype(np.float32), by_centre[part], by_width[part])

    def matrix(self, times_ns: Sequence[int]) -> NDArray[np.float64]:
        """(T, B) heights of all bells at these times."""
        table = np.zeros((len(times_ns), self.count))
        for row, time_ns in zip(table, times_ns, strict=True):
            h = self.heights(time_ns)
            row[h.first : h.first + len(h.value)] = h.value
        return table

    def step(self, heights: Heights, by_height: NDArray[np.float64], rate: float) -> None:
        """One step of Adam on the bells that count, given the loss's gradient (K,) by their heights."""
        part = slice(heights.first, heights.first + len(by_height))
        slope = np.stack([by_height * heights.by_centre, by_height * heights.by_width])
        self.steps += 1
        m, s = self.moments[:, :, part]
        m += 0.1 * (slope - m)
        s += 0.01 * (slope**2 - s)
        fades = 1 - 0.9**self.steps, np.sqrt(1 - 0.99**self.steps)
        gap = 1 / (self.count - 1)
        step = rate * (m / fades[0]) / (np.sqrt(s) / fades[1] + 1e-12)
        self.shape[:, part] -= step * np.array([[gap], [1.0]])
        # None gets so narrow that it falls between two frames, or so wide that it is no bell.
        self.shape[1] = np.clip(self.shape[1], np.log(0.4 * gap), np.log(3 * gap))


@dataclass(frozen=True)
class MovingSplats:
    """N Gaussians and how they move.

    Attributes:
        rest: what the motion is added to: no shape that was ever seen.
        weights: (N, B, 10) float32.
        basis: of the motion.
    """

    rest: Splats
    weights: Floats
    basis: TimeBasis

    def __len__(self) -> int:
        return len(self.rest)

    def at(self, time_ns: float) -> Splats:
        """The Gaussians at a time of the clip."""
        s = self.rest
        means, quats, scales = displaced(s.means, s.quats, s.scales, self.weights, self.basis.heights(time_ns))
        return replace(s, means=means, quats=quats, scales=scales)

    def scaled(self, factor: float) -> MovingSplats:
        """The same in a world whose lengths are `factor` times as long."""
        weights = self.weights.copy()
        weights[..., :3] *= np.float32(factor)
        return MovingSplats(self.rest.scaled(factor), weights, self.basis)

    def follow(
        self, points: NDArray[np.float64], time_ns: float, times_ns: Sequence[float], neighbours: int = 12
    ) -> NDArray[np.float64]:
        """Where points of the surface are at other times.

        A point moves as the Gaussians next to it do: the nearest ones at `time_ns`, weighted by a bell of their
        distance whose width is that of half of them, and by opacity.

        Args:
            points: (P, 3) on the surface at `time_ns`, world.
            times_ns: T times.

        Returns:
            (T, P, 3).
        """
        from scipy.spatial import cKDTree

        then = self.at(time_ns)
        number = min(neighbours, len(then))
        distance, near = cKDTree(then.means).query(points, number)
        distance, near = distance.reshape(len(points), -1), near.reshape(len(points), -1)
        width = np.maximum(distance[:, [number // 2]], 1e-9)
        weight = np.exp(-0.5 * (distance / width) ** 2) / (1 + np.exp(-then.opacities[near]))
        weight /= weight.sum(1, keepdims=True)
        moved = [self.at(t).means[near] - then.means[near] for t in times_ns]
        return np.stack([points + (weight[..., None] * m).sum(1) for m in moved])


# -- kernels ------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, fastmath=True)
def displace(start, end, weights, first, heights, means, quats, scales, out_means, out_quats, out_scales):  # type: ignore[no-untyped-def]
    """Write the Gaussians `start` to `end` at the time of these heights."""
    total = np.zeros(CHANNELS, np.float32)
    for n in range(start, end):
        total[:] = 0
        for k in range(heights.size):
            for c in range(CHANNELS):
                total[c] += heights[k] * weights[n, first + k, c]
        for c in range(3):
            out_means[n, c] = means[n, c] + total[c]
            out_scales[n, c] = scales[n, c] + total[7 + c]
        for c in range(4):
            out_quats[n, c] = quats[n, c] + total[3 + c]


@njit(nogil=True, cache=True, fastmath=True)
def step_weights(
    start, end, weights, mean, square, first, heights, g_means, g_quats, g_scales, rates, b1, b2, epsilon, fades,
    by_height,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """One step of Adam on the weights of the Gaussians `start` to `end`.

    Args:
        weights, mean, square: (N, B, 10) values and moments, changed from bell `first` on.
        g_means, g_quats, g_scales: (N, 3), (N, 4), (N, 3) the loss's gradient by the Gaussians as they are displaced.
        rates: (10,). fades: (K, 2) 1 - b^t of each bell.
        by_height: (K,) written: the gradient by the heights.
    """
    one, g = np.float32(1), np.zeros(CHANNELS, np.float32)
    by_height[:] = 0
    for n in range(start, end):
        for c in range(3):
            g[c], g[7 + c] = g_means[n, c], g_scales[n, c]
        for c in range(4):
            g[3 + c] = g_quats[n, c]
        for k in range(heights.size):
            b, total = first + k, np.float32(0)
            unit, root = one / fades[k, 0], one / np.sqrt(fades[k, 1])
            for c in range(CHANNELS):
                slope = heights[k] * g[c]
                total += g[c] * weights[n, b, c]
                m = b1 * mean[n, b, c] + (one - b1) * slope
                s = b2 * square[n, b, c] + (one - b2) * slope * slope
                mean[n, b, c], square[n, b, c] = m, s
                weights[n, b, c] -= rates[c] * unit * m / (np.sqrt(s) * root + epsilon)
            by_height[k] += total


@njit(nogil=True, cache=True, fastmath=True)
def add_stretch(start, end, rest, means, near, strength, soft, g_means):  # type: ignore[no-untyped-def]
    """Add to (N, 3) gradients that of the unlikeness of neighbours' displacement, for the Gaussians `start` to `end`.

    The loss is strength * sqrt(|d_n - d_m|^2 + soft^2) for each neighbour m of n, which is taken as it is: tissue moves
    alike, but may slide.

    Args:
        rest, means: (N, 3) at rest and as displaced. near: (N, K) neighbours.
    """
    for n in range(start, end):
        for k in range(near.shape[1]):
            m = near[n, k]
            x = (means[n, 0] - rest[n, 0]) - (means[m, 0] - rest[m, 0])
            y = (means[n, 1] - rest[n, 1]) - (means[m, 1] - rest[m, 1])
            z = (means[n, 2] - rest[n, 2]) - (means[m, 2] - rest[m, 2])
            pull = strength / np.sqrt(x * x + y * y + z * z + soft * soft)
            g_means[n, 0] += pull * x
            g_means[n, 1] += pull * y
            g_means[n, 2] += pull * z


def displaced(
    means: Floats, quats: Floats, scales: Floats, weights: Floats, heights: Heights
) -> tuple[Floats, Floats, Floats]:
    """Means, quaternions and log scales at the time of these heights."""
    n, out = len(means), (np.empty_like(means), np.empty_like(quats), np.empty_like(scales))
    share(
        lambda i, of: displace(
            n * i // of, n * (i + 1) // of, weights, heights.first, heights.value, means, quats, scales, *out
        ),
        threads(),
    )  # fmt: skip
    return out


# -- files --------------------------------------------------------------------------------------------------------


def write_motion(splats: MovingSplats, path: Path) -> None:
    """Write how the Gaussians move, and what they are at rest, as an .npz of plain arrays."""
    rest = {f"rest_{name}": getattr(splats.rest, name) for name in ("means", "quats", "scales")}
    span = np.array([splats.basis.begin_ns, splats.basis.end_ns], np.int64)
    np.savez(path, weights=splats.weights, shape=splats.basis.shape, span_ns=span, **rest)


def read_motion(still: Splats, path: Path) -> MovingSplats:
    """Read what `write_motion` has written.

    Args:
        still: the Gaussians of the same run at one time, whose opacity and colours are those of all times.

    Raises:
        InputError: a file that can't be read, or that belongs to other Gaussians.
    """
    try:
        found = read_npz(path, _MOST_MB)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' can't be read ({error}); reconstruct the run again") from error
    n = len(still)
    sizes = {"rest_means": (n, 3), "rest_quats": (n, 4), "rest_scales": (n, 3), "span_ns": (2,)}
    shape = found.get("shape", np.zeros(0))
    bells = shape.shape[1] if shape.ndim == 2 else 0
    sizes |= {"weights": (n, bells, CHANNELS), "shape": (2, bells)}
    wrong = [name for name, size in sizes.items() if name not in found or found[name].shape != size]
    if wrong or not bells:
        raise InputError(
            f"'{path}' does not belong to the {n} Gaussians beside it ({(wrong or ['shape'])[0]} does not fit); "
            "reconstruct the run again"
        )
    rest = {name: np.ascontiguousarray(found[f"rest_{name}"], np.float32) for name in ("means", "quats", "scales")}
    basis = TimeBasis(*(int(v) for v in found["span_ns"]), shape.astype(float))
    weights = np.ascontiguousarray(found["weights"], np.float32)
    return MovingSplats(replace(still, **rest), weights, basis)
