"""Depth from several views: a textured wall seen from known places, whose depth starts out wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from endorecon.tracking.dense import ManyViews, Shifts, View, compare, grid, sharpened, spread, texture
from endorecon.tracking.densify import Correction, NetworkDepth
from video_io.camera import Camera
from video_io.frame import Frame

PINHOLE = Camera("pinhole", 160, 128, (120.0, 120.0, 80.0, 64.0))
FISHEYE = Camera("fisheye", 160, 128, (90.0, 90.0, 80.0, 64.0, -0.02, 0.01, 0.0, 0.0))
WALL_MM = 40.0


def paint(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth pattern on the wall (mm), without a direction that says nothing; 0 to 1."""
    waves = np.random.default_rng(4).normal(0, 0.6, (40, 2))
    phases = np.random.default_rng(5).uniform(0, 2 * np.pi, 40)
    return 0.5 + sum(np.sin(a * x + b * y + p) for (a, b), p in zip(waves, phases, strict=True)) / 30


def frame(camera: Camera, index: int, at: tuple[float, float, float], gain: float = 1.0) -> tuple[Frame, NDArray]:
    """What a camera at `at` (mm), looking along z, sees of the wall z = WALL_MM, and the true distances."""
    rays, centre = camera.ray_map(), np.array(at)
    distance = (WALL_MM - centre[2]) / rays[..., 2]
    point = centre + rays * distance[..., None]
    grey = np.clip(255 * gain * paint(point[..., 0], point[..., 1]), 0, 255).astype(np.uint8)
    use = np.ones(grey.shape, bool)
    return Frame(index, 0, np.repeat(grey[..., None], 3, 2), use, ~use), distance


def pose(at: tuple[float, float, float]) -> NDArray[np.float64]:
    moved = np.eye(4)
    moved[:3, 3] = at
    return moved


PLACES = ((0.0, 0.0, 0.0), (4.0, 0.0, 0.0), (-3.0, 3.0, 1.0), (0.0, -4.0, -1.0))


@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE])
def test_patches_find_the_wall(camera: Camera) -> None:
    """The start is 6 % too near; the lamp is brighter in one view and dimmer in another."""
    frames = [frame(camera, k, at, gain) for k, (at, gain) in enumerate(zip(PLACES, (1, 0.8, 1.1, 0.7), strict=True))]
    views = [View(texture(f.rgb), pose(at)) for (f, _), at in zip(frames, PLACES, strict=True)]
    start = np.log(frames[0][1] * 0.94).astype(np.float32)
    found = compare(camera, views[0], start, frames[0][0].use_mask, views[1:])
    told = np.isfinite(found.std)
    assert told.mean() > 0.8
    error = found.shift[told] - np.log(1 / 0.94)
    assert abs(np.median(error)) < 0.002
    assert np.quantile(np.abs(error), 0.9) < 0.02


def test_a_patch_ends_where_a_plain_search_finds_it_most_alike() -> None:
    """The slow reference: every shift is tried, and the patch looked up as it is defined."""
    frames = [frame(PINHOLE, k, at) for k, at in enumerate(PLACES)]
    views = [View(texture(f.rgb), pose(at)) for (f, _), at in zip(frames, PLACES, strict=True)]
    start = np.log(frames[0][1] * 1.04).astype(np.float32)
    found = compare(PINHOLE, views[0], start, frames[0][0].use_mask, views[1:])
    at = grid(PINHOLE.width, PINHOLE.height)
    for row, column in ((8, 9), (12, 20), (17, 14)):
        x, y = at[row, column]
        tried = np.arange(-0.1, 0.1, 0.004)
        alike = [likeness(views, start, x, y, shift) for shift in tried]
        assert found.shift[row, column] == pytest.approx(tried[int(np.argmax(alike))], abs=0.008)


def likeness(views: list[View], log_distance: NDArray, x: int, y: int, shift: float) -> float:
    """Mean normalised cross-correlation of the patch about (x, y) with the other views, with its depth shifted."""
    offsets = np.stack(np.meshgrid(np.arange(-4, 5, 2), np.arange(-4, 5, 2)), -1).reshape(-1, 2)
    column, row = (x + offsets[:, 0]), (y + offsets[:, 1])
    point = PINHOLE.ray_map()[row, column] * np.exp(log_distance[row, column] + shift)[:, None]
    total = 0.0
    for other in views[1:]:
        seen, _ = PINHOLE.project(point - other.world_from_cam[:3, 3])
        u, v = seen[:, 0] - 0.5, seen[:, 1] - 0.5
        c, r = u.astype(int), v.astype(int)
        a, b, image = u - c, v - r, other.texture
        value = (1 - b) * ((1 - a) * image[r, c] + a * image[r, c + 1]) + b * (
            (1 - a) * image[r + 1, c] + a * image[r + 1, c + 1]
        )
        total += float(np.corrcoef(value, views[0].texture[row, column])[0, 1])
    return total / len(views[1:])


def test_what_can_not_be_compared_stays() -> None:
    """A wall without texture, views that look away, and masked pixels say nothing."""
    seen, distance = frame(PINHOLE, 0, PLACES[0])
    start, here = np.log(distance * 0.94).astype(np.float32), View(texture(seen.rgb), np.eye(4))
    away = np.diag([-1.0, 1.0, -1.0, 1.0])
    plain = View(np.zeros_like(here.texture), pose((4.0, 0.0, 0.0)))
    for other, mask in ((plain, seen.use_mask), (View(here.texture, away), seen.use_mask), (here, ~seen.use_mask)):
        found = compare(PINHOLE, here, start, mask, [other])
        assert not np.isfinite(found.std).any()
        assert not found.shift.any()


def test_shifts_spread_over_the_tissue_but_not_across_its_edges() -> None:
    at = grid(160, 128)
    far = np.where(np.arange(160) < 80, np.log(20.0), np.log(80.0)) * np.ones((128, 1))
    shift, std = np.zeros(at.shape[:2]), np.full(at.shape[:2], np.inf)
    shift[::3, 4], std[::3, 4] = 0.1, 0.002  # one column of patches on the near side speaks
    found = spread(Shifts(shift, std), far.astype(np.float32))
    assert found.shift[:, 2:7].min() > 0.06
    assert 0.025 < found.shift[:, 15].min() < found.shift[:, 10].min()  # wanes away from what speaks
    assert found.shift[:, 16:].max() < 0.15 * found.shift[:, 15].min()
    assert found.std[12, 4] < found.std[12, 30]


def test_a_correction_takes_the_shifts_on_top() -> None:
    shifts = Shifts(np.full((25, 32), 0.1), np.full((25, 32), 0.02))
    both = sharpened(Correction.constant(0.5), shifts)
    assert both.mean.shape == (25, 32)
    np.testing.assert_allclose(both.mean, 0.6, atol=1e-6)
    np.testing.assert_allclose(both.std, 0.02, atol=1e-6)


def test_a_segment_sharpens_its_frames() -> None:
    frames = [frame(PINHOLE, k, (1.0 * k, 0.5 * k, 0.0)) for k in range(9)]
    poses = np.stack([pose((1.0 * k, 0.5 * k, 0.0)) for k in range(9)])
    views = ManyViews(PINHOLE, poses, lambda number: frames[number][0])
    truth = frames[4][1]
    bent = truth * np.exp(0.05 * np.sin(np.arange(160) / 25)).astype(np.float32)
    net = NetworkDepth(bent.astype(np.float32), np.full(bent.shape, 0.1, np.float32))
    before = Correction.constant(0.0)
    after = views.sharpen(4, net, frames[4][0].use_mask, before)

    def error(correction: Correction) -> float:
        return float(np.abs(correction.apply(net.distance, net.log_std)[0] / truth - 1).mean())

    assert error(before) == pytest.approx(0.030, abs=0.003)
    assert error(after) < 0.008
    still = ManyViews(PINHOLE, np.stack([np.eye(4)] * 9), lambda number: frames[4][0])
    assert still.sharpen(4, net, frames[4][0].use_mask, before) is before
    alone = ManyViews(PINHOLE, poses, lambda number: frames[number][0], frozenset({4}))
    assert alone.sharpen(4, net, frames[4][0].use_mask, before) is before
