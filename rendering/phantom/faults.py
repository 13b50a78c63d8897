"""What goes wrong in an endoscope's video, put into clean pictures: so that it is known where and when.

Each fault takes the pictures of a clip, (H, W, 3) uint8, and the frames [first, end) that it strikes, and gives new
pictures. What happens before the sensor (blur, fluid, a tool) is followed by the sensor's noise, as in a real camera.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.levels import gained, noisy

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Fault = Callable[[Sequence[Image], int, int, np.random.Generator], list[Image]]

RAMP_FRAMES = 4  # in which most faults come and go


def blur(pictures: Sequence[Image], first: int, end: int, rng: np.random.Generator) -> list[Image]:
    """The picture out of focus by 3 to 6 px of an image 320 wide."""
    most = rng.uniform(3, 6) * pictures[0].shape[1] / 320

    def strike(picture: Image, number: int, share: float) -> Image:
        return noisy(cv2.GaussianBlur(picture, (0, 0), max(share * most, 0.1)).astype(np.float32), rng)

    return _struck(pictures, first, end, strike)


def fluid(pictures: Sequence[Image], first: int, end: int, rng: np.random.Generator) -> list[Image]:
    """A film that runs over most of the lens: it bends the light, blurs it, and colours it a little."""
    height, width = pictures[0].shape[:2]
    unit = width / 320
    film = [_smooth_noise(rng, height, width, 22 * unit) for _ in range(3)]
    tint = np.array([1.0, rng.uniform(0.8, 0.95), rng.uniform(0.6, 0.85)], np.float32)
    column, row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))

    def strike(picture: Image, number: int, share: float) -> Image:
        down = round(1.5 * unit * (number - first))
        x, y, thick = (np.roll(layer, down, axis=0) for layer in film)
        bent = cv2.remap(
            cv2.GaussianBlur(picture, (0, 0), 2.5 * unit), column + 10 * unit * x, row + 10 * unit * y,
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        cover = share * np.clip(1.2 + 0.6 * thick, 0, 1)[..., None]
        return noisy(picture * (1 - cover) + bent * tint * cover, rng)

    return _struck(pictures, first, end, strike)


def wall(pictures: Sequence[Image], first: int, end: int, rng: np.random.Generator) -> list[Image]:
    """The lens against the tissue: nothing but its red glow, brighter where the lamp is."""
    height, width = pictures[0].shape[:2]
    mean = np.mean([picture.reshape(-1, 3).mean(0) for picture in pictures[max(first - 5, 0) : first + 1]], axis=0)
    glow = mean * np.array([1.0, 0.6, 0.55])
    glow *= rng.uniform(150, 225) / glow.max()
    layers = [_smooth_noise(rng, height, width, 70 * width / 320) for _ in range(2)]

    def strike(picture: Image, number: int, share: float) -> Image:
        turn = 0.05 * (number - first)
        field = 1 + 0.08 * (np.cos(turn) * layers[0] + np.sin(turn) * layers[1])
        # Not nearer: the poses that the clip states would no longer be true.
        near = cv2.GaussianBlur(picture, (0, 0), 0.3 + 10 * share * width / 320)
        return noisy(near * (1 - share) + share * glow * field[..., None], rng)

    return _struck(pictures, first, end, strike)


def tool(pictures: Sequence[Image], first: int, end: int, rng: np.random.Generator) -> list[Image]:
    """An instrument of steel before the lens: it fills the view, brushed, shining, and sways a little."""
    height, width = pictures[0].shape[:2]
    unit = width / 320
    margin = int(30 * unit)
    angle, level = rng.uniform(0, np.pi), rng.uniform(90, 150)
    x, y = np.meshgrid(np.arange(-margin, width + margin), np.arange(-margin, height + margin))
    across = ((x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle)) / (0.62 * np.hypot(width, height))
    along = (y - height / 2) * np.cos(angle) - (x - width / 2) * np.sin(angle)
    grain = cv2.GaussianBlur(rng.standard_normal(2048).astype(np.float32)[None], (0, 0), 1.2 * unit)[0]
    brushed = 8 * grain[np.clip(along + 1024, 0, 2047).astype(int)]
    shine = 90 * np.exp(-((across - 0.2) ** 2) / 0.01)
    steel = (level * np.sqrt(np.clip(1 - across**2, 0.02, 1)) + brushed + shine).astype(np.float32)
    sway = rng.uniform(0, 2 * np.pi, 2)

    def strike(picture: Image, number: int, share: float) -> Image:
        at = margin + np.round(0.25 * margin * np.sin(sway + 0.08 * (number - first))).astype(int)
        metal = steel[at[1] : at[1] + height, at[0] : at[0] + width, None] * np.array([0.97, 1.0, 1.02], np.float32)
        limit = 2 * share - 1
        cover = np.clip((limit - across[margin:-margin, margin:-margin]) * 20, 0, 1)[..., None]
        return noisy(picture * (1 - cover) + metal * cover, rng)

    return _struck(pictures, first, end, strike)


def exposure(pictures: Sequence[Image], first: int, end: int, rng: np.random.Generator) -> list[Image]:
    """All of a sudden 2 to 3 times as much light, or as little."""
    gain = rng.uniform(2, 3) ** (1 if rng.random() < 0.5 else -1)
    return [gained(p, gain) if first <= n < end else p for n, p in enumerate(pictures)]


def frozen(pictures: Sequence[Image], first: int, end: int, rng: np.random.Generator) -> list[Image]:
    """The picture before stays; the camera moves on."""
    return [pictures[first - 1] if first <= n < end else p for n, p in enumerate(pictures)]


def cut(pictures: Sequence[Image], first: int, others: Sequence[Image]) -> list[Image]:
    """Another recording from frame `first` on, as after an edit."""
    return [*pictures[:first], *others[first : len(pictures)]]


FAULTS: dict[str, Fault] = {
    "blur": blur, "fluid": fluid, "wall": wall, "frozen": frozen, "tool": tool, "exposure": exposure,
}  # fmt: skip


def _struck(
    pictures: Sequence[Image], first: int, end: int, strike: Callable[[Image, int, float], Image]
) -> list[Image]:
    """The pictures, those in [first, end) struck with a share that rises and falls within `RAMP_FRAMES`."""
    out = list(pictures)
    for number in range(first, end):
        share = min(1.0, (number - first + 1) / RAMP_FRAMES, (end - number) / RAMP_FRAMES)
        out[number] = strike(pictures[number], number, share)
    return out


def _smooth_noise(rng: np.random.Generator, height: int, width: int, reach_px: float) -> Float32:
    """Of unit standard deviation, periodic from top to bottom."""
    tall = cv2.copyMakeBorder(
        rng.standard_normal((height, width)).astype(np.float32), height, height, 0, 0, cv2.BORDER_WRAP
    )
    smooth = cv2.GaussianBlur(tall, (0, 0), reach_px)[height : 2 * height]
    return (smooth - smooth.mean()) / smooth.std()
