"""Where a hand holds an endoscope: viewpoints and smooth camera paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

Float = NDArray[np.float64]


class Path(Protocol):
    """The places from which an anatomy is seen."""

    def viewpoint(self, rng: np.random.Generator) -> Float:
        """A random pose world_from_cam (4, 4). It may be inside tissue; the caller checks what it sees."""
        ...

    def poses(self, rng: np.random.Generator, frames: int, fps: float, sway: float = 1.0) -> Float:
        """A continuous movement, world_from_cam (frames, 4, 4). `sway` in [0, 1] is how restless the hand is."""
        ...


def look(position: Float, target: Float, up: Float, roll_rad: float = 0.0) -> Float:
    """The pose at `position` that has `target` on its optical axis and `up` towards the top of its image."""
    z = target - position
    z = z / np.linalg.norm(z)
    x = np.cross(z, up)
    if np.linalg.norm(x) < 1e-6:
        x = np.cross(z, np.roll(up, 1) + 0.1)
    x = x / np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], 1) @ Rotation.from_euler("z", roll_rad).as_matrix()
    pose[:3, 3] = position
    return pose


def wobble(rng: np.random.Generator, frames: int, fps: float, channels: int, seconds: float) -> Float:
    """Smooth random signals (frames, channels) of unit standard deviation that change over about `seconds`."""
    margin = int(4 * seconds * fps) + 1
    signal = gaussian_filter1d(rng.standard_normal((frames + 2 * margin, channels)), max(seconds * fps, 1e-3), axis=0)
    return signal[margin : margin + frames] * np.sqrt(2 * np.sqrt(np.pi) * max(seconds * fps, 0.28))


def nudged(rng: np.random.Generator, pose: Float, step_mm: float, turn_rad: float) -> Float:
    """A pose a small random movement away."""
    change = np.eye(4)
    change[:3, :3] = Rotation.from_rotvec(rng.standard_normal(3) * [1, 1, 0.7] * turn_rad / 1.6).as_matrix()
    change[:3, 3] = rng.standard_normal(3) * step_mm / 1.7
    return pose @ change


@dataclass(frozen=True)
class TubePath:
    """Advance and withdrawal along a lumen.

    Attributes:
        points, frames: centreline (S, 3) and its frames (S, 3, 3), tangent last.
        clearance_mm: how far from the centreline there is still air.
        start, stop: the part of the centreline, as shares, where the camera goes.
    """

    points: Float
    frames: Float
    clearance_mm: float
    start: float = 0.12
    stop: float = 0.75

    def _at(self, share: Float | float) -> tuple[Float, Float]:
        x = np.clip(np.asarray(share, float), 0, 1) * (len(self.points) - 1)
        i = np.clip(x.astype(int), 0, len(self.points) - 2)
        t = (x - i)[..., None]
        frame = self.frames[i] * (1 - t[..., None]) + self.frames[i + 1] * t[..., None]
        return self.points[i] * (1 - t) + self.points[i + 1] * t, frame

    @property
    def _length(self) -> float:
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())

    def viewpoint(self, rng: np.random.Generator) -> Float:
        share = rng.uniform(self.start, self.stop)
        forward = 1 if rng.random() < 0.6 else -1
        ahead = self.clearance_mm * rng.uniform(0.8, 6.0) / self._length
        point, frame = self._at(share)
        target = self._at(share + forward * ahead)[0]
        angle, radius = rng.uniform(0, 2 * np.pi), self.clearance_mm * np.sqrt(rng.uniform(0, 1.2))
        position = point + radius * (np.cos(angle) * frame[:, 0] + np.sin(angle) * frame[:, 1])
        pose = look(position, target, frame[:, 1], rng.uniform(-np.pi, np.pi))
        # Mostly down the lumen, sometimes at the wall.
        tilt = abs(rng.normal(0, 0.30)) if rng.random() < 0.75 else rng.uniform(0.3, 1.5)
        axis = rng.uniform(0, 2 * np.pi)
        pose[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(tilt * np.array([np.cos(axis), np.sin(axis), 0])).as_matrix()
        return pose

    def poses(self, rng: np.random.Generator, frames: int, fps: float, sway: float = 1.0) -> Float:
        speed = self.clearance_mm * rng.uniform(0.6, 1.0) / self._length
        rate = 1 + 0.5 * wobble(rng, frames, fps, 1, 0.8)[:, 0]
        travelled = np.cumsum(rate) * speed / fps
        # At the end of the usable part the hand withdraws, and advances again.
        span = self.stop - self.start
        share = self.start + span * np.abs((travelled / span + 1) % 2 - 1)
        point, frame = self._at(share)
        target = self._at(share + 2.5 * self.clearance_mm / self._length)[0]
        shift, gaze = wobble(rng, frames, fps, 2, 0.9), wobble(rng, frames, fps, 2, 0.7)
        roll = 0.35 * wobble(rng, frames, fps, 1, 2.0)[:, 0] + rng.uniform(-np.pi, np.pi)
        shift = 0.3 * sway * self.clearance_mm * np.clip(shift, -2, 2)
        gaze = 0.45 * sway * self.clearance_mm * np.clip(gaze, -2.5, 2.5)
        position = point + np.einsum("nij,nj->ni", frame[:, :, :2], shift)
        target = target + np.einsum("nij,nj->ni", frame[:, :, :2], gaze)
        return np.stack([look(p, t, f[:, 1], r) for p, t, f, r in zip(position, target, frame, roll, strict=True)])


@dataclass(frozen=True)
class OrbitPath:
    """A rod held through a port above an open field: it orbits, pans and moves in and out.

    Attributes:
        target: (3,) middle of the field; +z of the world is up.
        spread_mm: how far the gaze strays from it.
        distance_mm: nearest and farthest distance from the gaze's target.
        elevation_rad: lowest and highest viewing angle above the horizon.
    """

    target: Float
    spread_mm: float
    distance_mm: tuple[float, float]
    elevation_rad: tuple[float, float]

    def viewpoint(self, rng: np.random.Generator) -> Float:
        target = self.target + rng.normal(0, self.spread_mm, 3) * [1, 1, 0.2]
        distance = float(np.exp(rng.uniform(*np.log(self.distance_mm))))
        seat = self._seat(target, distance, rng.uniform(*self.elevation_rad), rng.uniform(0, 2 * np.pi))
        roll = rng.uniform(-np.pi, np.pi) if rng.random() < 0.4 else rng.normal(0, 0.3)
        return look(*seat, np.array([0, 0, 1.0]), roll)

    @staticmethod
    def _seat(target: Float, distance: float, elevation: float, azimuth: float) -> tuple[Float, Float]:
        away = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        return target + distance * away, target

    def poses(self, rng: np.random.Generator, frames: int, fps: float, sway: float = 1.0) -> Float:
        w = sway * np.clip(wobble(rng, frames, fps, 6, 2.0), -2, 2)
        low, high = np.log(self.distance_mm)
        # A calm hand stays back.
        distance = np.exp((low + high) / 2 + (0.18 * w[:, 0] + 0.3 * (1 - sway)) * (high - low))
        e0, e1 = self.elevation_rad
        elevation = (e0 + e1) / 2 + 0.22 * (e1 - e0) * w[:, 1]
        azimuth = rng.uniform(0, 2 * np.pi) + 0.3 * w[:, 2] + rng.choice([-1, 1]) * 0.05 * np.arange(frames) / fps
        target = self.target + 0.6 * self.spread_mm * w[:, 3:6] * [1, 1, 0]
        roll = 0.08 * wobble(rng, frames, fps, 1, 1.5)[:, 0]
        up = np.array([0, 0, 1.0])
        seats = [self._seat(t, d, e, a) for t, d, e, a in zip(target, distance, elevation, azimuth, strict=True)]
        return np.stack([look(*seat, up, r) for seat, r in zip(seats, roll, strict=True)])
