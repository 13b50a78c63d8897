"""Fractions of a pixel, against the sums written out, against a search, and on smooth tissue of the phantom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from rendering.phantom.clip import prepare
from rendering.phantom.stereo import right_eye
from video_io.camera import Camera
from video_io.rig_files import rectified_rig
from video_io.stereo import Matcher
from video_io.subpixel import NEAR, WIDE, WIDE_WEIGHT, sharpened, steps

SIZE = (60, 90)
PAPER = gaussian_filter(np.random.default_rng(4).normal(size=(60, 120)), 2.0) * 300 + 100
ROW, COLUMN = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)


def shifted(by: float) -> np.ndarray:
    """The paper, `by` pixels further on, interpolated by cubic splines."""
    return map_coordinates(PAPER, [ROW, COLUMN + 15 + by], order=3).astype(np.float32)


def slow_step(left: np.ndarray, warped: np.ndarray, use: np.ndarray, y: int, x: int) -> float:
    """One pixel's step: the slope of a line through (gradient, difference), over both windows."""
    mid = (left + warped) / 2
    both = square = 0.0
    for side, share in ((NEAR, 1.0), (WIDE, WIDE_WEIGHT)):
        at = [
            (r, c)
            for r in range(y - side // 2, y + side // 2 + 1)
            for c in range(x - side // 2, x + side // 2 + 1)
            if 0 < r < SIZE[0] - 1 and 0 < c < SIZE[1] - 1 and use[r, c]
        ]
        smooth = np.array([1, 2, 1]) / 8
        slope = np.array([smooth @ (mid[r - 1 : r + 2, c + 1] - mid[r - 1 : r + 2, c - 1]) for r, c in at])
        miss = np.array([left[r, c] - warped[r, c] for r, c in at])
        both += share * ((slope - slope.mean()) @ (miss - miss.mean())) / side**2
        square += share * ((slope - slope.mean()) ** 2).sum() / side**2
    return -both / square


def test_a_step_is_the_sums_written_out() -> None:
    left, warped = shifted(0.0), shifted(0.3) + 12  # the eyes are exposed otherwise
    use = np.random.default_rng(0).uniform(size=SIZE) < 0.9
    found = steps(left, warped, use)
    for y, x in ((30, 40), (25, 60), (40, 50)):
        assert found[y, x] == pytest.approx(slow_step(left, warped, use, y, x), abs=1e-3)
    # The image lies .3 pixels further on than it should: warped(x) = left(x + .3), and so the disparity lacks
    # .3; central differences make the slope a tenth too small, which the next step mends.
    np.testing.assert_allclose(np.quantile(found[17:-17, 17:-17], [0.1, 0.5, 0.9]), [0.325, 0.331, 0.341], atol=0.003)


def test_every_fraction_is_found() -> None:
    """The right image is the left one 7.0 to 7.9 pixels on; 7.5 is where it begins."""
    left, off = shifted(0.0), []
    for fraction in np.arange(0, 1, 0.1):
        right = shifted(7 + fraction)  # left (x) = right (x - d)
        start = np.full(SIZE, 7.5, np.float32)
        start[:, :10] = 0  # hidden from the right eye
        found = sharpened(left, right, start)
        assert (found[:, :10] == 0).all()
        off.append(np.median(found[5:-5, 16:-5]) - (7 + fraction))
    assert np.abs(off).max() < 0.01


def test_smooth_tissue_is_matched_without_bias() -> None:
    """Semi-global matching alone finds disparities that are .315 and .280 pixels too small in these two pairs, and is
    off by .41 and .35 in the median; with the steps, -.05 and .01, and .17 and .20."""
    camera = Camera.from_fov(192, 160, np.radians(65))
    clip, reach = prepare("tissue", 12, 30, camera, 10.0), camera.focal_px * 4.0
    matcher = Matcher(rectified_rig(camera, 4.0), 2.0, reach / 3)
    for number in (0, 20):
        one = replace(clip, poses=clip.poses[number : number + 1])
        left, right = next(one.frames()), next(right_eye(one, 4.0).frames())
        depth = matcher.depth(left.rgb, right.rgb)
        both = (depth > 0) & (left.depth > 0)
        off = reach / depth[both] - reach / left.depth[both]
        assert both.mean() > 0.5
        assert abs(np.median(off)) < 0.1 and np.median(np.abs(off)) < 0.26
