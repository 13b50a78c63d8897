"""What one step of an adaptation sees: groups of frames of a recording, and what the network says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_adapters.recordings import Recording
from foundation_adapters.self_supervision import Group
from video_io.camera import Camera

NDArrayInt = np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class Material:
    """Recordings as tensors: images at the size that the losses compare them at, made once.

    Attributes:
        recordings: what there is.
        device: where groups go.
        known_share: of the draws, those from recordings with truth, where there are others too.
    """

    recordings: list[Recording]
    device: torch.device
    known_share: float = 0.5
    _frames: list[tuple[int, int]] = field(init=False)
    _kinds: list[list[tuple[int, int]]] = field(init=False)
    _small: dict[int, tuple[Tensor, Tensor]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._frames = [(r, f) for r, recording in enumerate(self.recordings) for f in range(len(recording))]
        known = [r.known for r in self.recordings]
        self._kinds = [[f for f in self._frames if known[f[0]] is kind] for kind in (False, True)]

    def draw(self, rng: np.random.Generator, frames: int) -> tuple[Recording, Group, NDArrayInt]:
        """A random frame and up to `frames` - 1 that see the same from elsewhere; others of the recording where there
        are none, from which the run's depth can still be learnt."""
        frames_of = self._kinds[int(rng.random() < self.known_share)] if all(self._kinds) else self._frames
        number, first = frames_of[rng.integers(len(frames_of))]
        recording = self.recordings[number]
        near = recording.neighbours[first]
        pool = near if len(near) else np.flatnonzero(np.arange(len(recording)) != first)
        others = rng.choice(pool, min(frames - 1, len(pool)), replace=False)
        chosen = np.concatenate([[first], others]).astype(int)
        return recording, self.group(number, chosen), chosen

    def group(self, number: int, chosen: NDArrayInt) -> Group:
        """Frames of a recording, at half its size."""
        recording = self.recordings[number]
        if number not in self._small:
            self._small[number] = _halved(recording)
        rgb, mask = self._small[number]
        camera = recording.camera.scaled(recording.camera.width // 2, recording.camera.height // 2)
        return Group(
            rgb[chosen].float().div(255).to(self.device),
            mask[chosen].to(self.device),
            torch.from_numpy(recording.distance[chosen]).to(self.device),
            torch.from_numpy(recording.confidence[chosen]).to(self.device),
            torch.from_numpy(camera.ray_map().copy()).movedim(-1, 0).to(self.device),
            torch.from_numpy(recording.world_from_cam[chosen]).to(self.device),
            camera,
        )


def _halved(recording: Recording) -> tuple[Tensor, Tensor]:
    """Images (N, 3, h, w) uint8 by area, and masks (N, h, w) where all four pixels are good."""
    n, h, w = recording.mask.shape
    rgb = recording.rgb[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, 3)
    small = np.stack([frame.mean((1, 3)).round().astype(np.uint8) for frame in rgb])
    mask = recording.mask.reshape(n, h // 2, 2, w // 2, 2).all((2, 4))
    return torch.from_numpy(small).permute(0, 3, 1, 2), torch.from_numpy(mask)


def ask(
    learner: nn.Module, rgb: Tensor, camera: Camera, share: float, size: tuple[int, int], mirror: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """What the network says of images, brought to `size` (h, w): log distance and log deviation.

    Args:
        rgb: (G, 3, H, W) in [0, 1], seen by `camera`.
        share: of the size at which the network sees them.
        mirror: whether it sees them mirrored in x and in y; what it says is mirrored back.
    """
    width, height = (max(64, round(s * share / 32) * 32) for s in (camera.width, camera.height))
    if (height, width) != tuple(rgb.shape[-2:]):
        rgb = F.interpolate(rgb, (height, width), mode="bilinear", antialias=True)
    rays = torch.from_numpy(camera.scaled(width // 2, height // 2).ray_map().copy()).movedim(-1, 0).to(rgb)
    axes = [axis for axis, on in ((-1, mirror[0]), (-2, mirror[1])) if on]
    if axes:
        sign = torch.tensor([-1.0 if mirror[0] else 1.0, -1.0 if mirror[1] else 1.0, 1.0]).to(rgb)
        rgb, rays = rgb.flip(axes), (rays * sign[:, None, None]).flip(axes)
    found = learner(rgb.contiguous(memory_format=torch.channels_last), rays.expand(len(rgb), -1, -1, -1))
    found = torch.stack(found, 1)
    found = found.flip(axes) if axes else found
    return F.interpolate(found, size, mode="area" if found.shape[-2] > size[0] else "bilinear").unbind(1)
