"""Reading the training shards that tools/make_training_data.py writes: a few arrays a scene, memory mapped.

`scene_%05d.rgb.npy` (N, H, W, 3) uint8; `scene_%05d.distance.npy` (N, H, W) float16, mm along the unit ray, 0 where
there is no surface; `scene_%05d.json` with camera, world_from_cam (N x 16), anatomy, seed and pairs of near frames.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from video_io.camera import Camera
from video_io.errors import InputError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """One scene of a folder of shards; the arrays are memory maps."""

    name: str
    anatomy: str
    camera: Camera
    rgb: NDArray[np.uint8]
    distance: NDArray[np.float16]
    world_from_cam: NDArray[np.float64]
    pairs: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images with their truth. Images 2k and 2k + 1, k < `pairs`, are the previous and the current frame of a pair.

    Attributes:
        rgb: (B, 3, H, W) in [0, 1].
        distance: (B, H, W), 0 where there is none.
        rays: (B, 3, H/2, W/2) unit rays, NaN where the camera has none.
        focal: (B, 2), fx / width and fy / height.
        pose: (pairs, 4, 4), previous_from_cam in mm.
        pairs: how many pairs.
    """

    rgb: Tensor
    distance: Tensor
    rays: Tensor
    focal: Tensor
    pose: Tensor
    pairs: int


def open_scene(description: Path) -> Scene:
    """Open one scene by its .json file.

    Raises:
        InputError: the arrays and the description do not belong together.
    """
    told = json.loads(description.read_text())
    base = str(description)[: -len(".json")]
    rgb, distance = np.load(base + ".rgb.npy", mmap_mode="r"), np.load(base + ".distance.npy", mmap_mode="r")
    poses = np.asarray(told["world_from_cam"], float).reshape(-1, 4, 4)
    if rgb.shape[:3] != distance.shape or len(poses) != len(rgb):
        raise InputError(
            f"{description}: {rgb.shape[:3]} images, {distance.shape} distances, {len(poses)} poses do not fit"
        )
    pairs = np.asarray(told.get("pairs", []), int).reshape(-1, 2)
    return Scene(
        description.stem, told.get("anatomy", "?"), Camera.from_dict(told["camera"]), rgb, distance, poses, pairs
    )


def open_folder(folder: Path, known: tuple[Scene, ...] = ()) -> tuple[Scene, ...]:
    """All scenes of a folder, by name; those already `known` are kept. A scene still being written is left out."""
    have = {scene.name: scene for scene in known}
    scenes = []
    for description in sorted(folder.glob("scene_*.json")):
        if description.stem in have:
            scenes.append(have[description.stem])
            continue
        try:
            scenes.append(open_scene(description))
        except (FileNotFoundError, json.JSONDecodeError, EOFError):
            continue
    return tuple(scenes)


@lru_cache(maxsize=4096)
def _angle_table(coefficients: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    theta = np.linspace(0, np.pi, 4097)
    t2 = theta * theta
    k1, k2, k3, k4 = coefficients
    distorted = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    falling = np.flatnonzero(np.diff(distorted) <= 0)
    end = falling[0] + 1 if len(falling) else len(theta)
    return distorted[:end], theta[:end]


def fast_rays(camera: Camera) -> Array:
    """`camera.ray_map()`, quickly: a fisheye by a table of 4097 angles, to about 1e-6; other models as they are."""
    if camera.model not in ("pinhole", "fisheye"):
        return camera.ray_map()
    fx, fy, cx, cy = camera.params[:4]
    x = ((np.arange(camera.width) + 0.5 - cx) / fx)[None, :]
    y = ((np.arange(camera.height) + 0.5 - cy) / fy)[:, None]
    if camera.model == "pinhole":
        z = 1 / np.sqrt(x * x + y * y + 1)
        return np.stack([x * z, y * z, z], -1).astype(np.float32)
    radius = np.sqrt(x * x + y * y)
    distorted, angles = _angle_table(camera.params[4:])
    theta = np.interp(radius, distorted, angles, right=np.nan)
    ratio = np.sin(theta) / np.maximum(radius, 1e-12)
    return np.stack([x * ratio, y * ratio, np.cos(theta)], -1).astype(np.float32)


@dataclass(frozen=True)
class Cut:
    """How a source image becomes a training image: a part of it, resized, perhaps mirrored."""

    x: int
    y: int
    width: int
    height: int
    mirrored: bool
    flipped: bool

    def camera(self, camera: Camera, width: int, height: int) -> Camera:
        return camera.cropped(self.x, self.y, self.width, self.height).scaled(width, height)

    def image(self, rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
        h, w = rgb.shape[:2]
        left, top = max(self.x, 0), max(self.y, 0)
        right, bottom = min(self.x + self.width, w), min(self.y + self.height, h)
        part = np.ascontiguousarray(rgb[top:bottom, left:right])
        border = (top - self.y, self.y + self.height - bottom, left - self.x, self.x + self.width - right)
        if any(border):
            part = cv2.copyMakeBorder(part, *border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        shrink = self.width > 1.05 * width
        return self.mirror(
            cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
        )

    def distance(self, distance: NDArray[np.float16], width: int, height: int) -> Array:
        h, w = distance.shape
        column = self.x + ((np.arange(width) + 0.5) * (self.width / width)).astype(int)
        row = self.y + ((np.arange(height) + 0.5) * (self.height / height)).astype(int)
        inside = ((row >= 0) & (row < h))[:, None] & ((column >= 0) & (column < w))[None, :]
        value = distance[np.clip(row, 0, h - 1)[:, None], np.clip(column, 0, w - 1)[None, :]].astype(np.float32)
        return self.mirror(np.where(inside, value, 0))

    def rays(self, rays: Array) -> Array:
        sign = np.array([-1 if self.mirrored else 1, -1 if self.flipped else 1, 1], np.float32)
        return self.mirror(rays * sign)

    def pose(self, previous_from_cam: NDArray[np.float64]) -> NDArray[np.float64]:
        flip = np.diag([-1.0 if self.mirrored else 1.0, -1.0 if self.flipped else 1.0, 1.0, 1.0])
        return flip @ previous_from_cam @ flip

    def mirror(self, image: NDArray) -> NDArray:
        image = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(image[::-1] if self.flipped else image)


def random_cut(rng: np.random.Generator, source: tuple[int, int], size: tuple[int, int], zoom: bool) -> Cut:
    """A part of a `source` (width, height) image for a training image of `size` (width, height)."""
    (w, h), (width, height) = source, size
    fit = min(w / width, h / height)
    stretch = np.exp(rng.uniform(-0.08, 0.08))
    share = np.exp(rng.uniform(np.log(0.6), 0)) if zoom else rng.uniform(0.92, 1.0)
    if rng.random() < 0.1:
        share = rng.uniform(1.0, 1.35)
    cut_w, cut_h = round(width * fit * share * stretch), round(height * fit * share / stretch)
    x, y = (int(rng.integers(min(0, free), max(0, free) + 1)) for free in (w - cut_w, h - cut_h))
    return Cut(x, y, cut_w, cut_h, bool(rng.random() < 0.5), bool(rng.random() < 0.5))


def full_cut(camera: Camera) -> Cut:
    """The whole image."""
    return Cut(0, 0, camera.width, camera.height, False, False)


def make_batch(items: list[tuple[Scene, list[int], Cut]], size: tuple[int, int]) -> Batch:
    """Read images of one size; items with two frames (previous, current) must come first."""
    rgb, distance, rays, focal, pose = [], [], [], [], []
    width, height = size
    for scene, frames, cut in items:
        camera = cut.camera(scene.camera, width, height)
        ray_map = cut.rays(fast_rays(camera.scaled(width // 2, height // 2)))
        for frame in frames:
            rgb.append(cut.image(scene.rgb[frame], width, height))
            distance.append(cut.distance(scene.distance[frame], width, height))
            rays.append(ray_map)
            focal.append((camera.params[0] / width, camera.params[1] / height))
        if len(frames) == 2:
            previous, current = (scene.world_from_cam[f] for f in frames)
            pose.append(cut.pose(np.linalg.inv(previous) @ current))
    return Batch(
        torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2).float().div_(255),
        torch.from_numpy(np.stack(distance)),
        torch.from_numpy(np.stack(rays)).permute(0, 3, 1, 2),
        torch.tensor(focal, dtype=torch.float32),
        torch.from_numpy(np.stack(pose) if pose else np.zeros((0, 4, 4))).float(),
        len(pose),
    )


def random_batch(
    rng: np.random.Generator, scenes: tuple[Scene, ...], size: tuple[int, int], count: int, pairs: int, zoom: bool
) -> Batch:
    """`count` images of `size`, 2 x `pairs` of them in pairs, each from a scene drawn at random."""
    items: list[tuple[Scene, list[int], Cut]] = []
    for number in range(count - pairs):
        scene = scenes[rng.integers(len(scenes))]
        while number < pairs and not len(scene.pairs):
            scene = scenes[rng.integers(len(scenes))]
        if number < pairs:
            frames = [int(f) for f in scene.pairs[rng.integers(len(scene.pairs))]]
            if rng.random() < 0.5:
                frames = frames[::-1]
        else:
            frames = [int(rng.integers(len(scene.rgb)))]
        cut = random_cut(rng, (scene.camera.width, scene.camera.height), size, zoom)
        items.append((scene, frames, cut))
    return make_batch(items, size)


class Prefetch:
    """Calls `make` in one thread, a few results ahead; an error in the thread is raised by `next`."""

    def __init__(self, make: Callable[[], Batch], ahead: int = 3):
        self._queue: queue.Queue[Batch | Exception] = queue.Queue(ahead)
        self._make = make
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                result: Batch | Exception = self._make()
            except Exception as error:  # noqa: BLE001  # handed to the caller of next()
                result = error
            while not self._stopped.is_set():
                try:
                    self._queue.put(result, timeout=0.5)
                    break
                except queue.Full:
                    continue

    def next(self) -> Batch:
        result = self._queue.get()
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        self._stopped.set()
