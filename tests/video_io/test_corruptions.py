"""What goes wrong in endoscopy: the same for the same seed, worse with severity, whole in time, and only where it
belongs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from rendering.phantom.clip import prepare
from video_io import corruptions, levels
from video_io.corruptions import _fields, begin, corrupt, corrupt_clip, describe, names
from video_io.errors import InputError

ON_PICTURES = [name for name in names() if not describe(name).acts_on_order]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    clip = prepare("colon", 12, 1)  # light between surfaces takes most of the time
    return next(iter(replace(clip, look=replace(clip.look, interreflection=0.0)).frames())).rgb


@pytest.fixture(scope="module")
def round_picture(picture: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:256, :320]
    return np.where((np.hypot(x - 160, y - 128) < 120)[..., None], picture, 0).astype(np.uint8)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_the_registry_has_what_goes_wrong_in_endoscopy() -> None:
    assert names() == (
        "blood", "bubbles", "highlights", "smoke", "droplets", "fog", "mucus", "overexposure", "underexposure",
        "defocus", "motion_blur", "rolling_band", "white_balance", "h264_blocks", "interlacing", "overlay_text",
        "dropped", "frozen",
    )  # fmt: skip
    assert all(describe(name).about for name in names())
    assert [name for name in names() if describe(name).acts_on_order] == ["dropped", "frozen"]


def test_unknown_ones_are_one_sentence(picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="corruption 'rain' is not known; give some of blood, bubbles"):
        corrupt(picture, "rain", 1)
    with pytest.raises(InputError, match="severity 6 is not known; give some of 1, 2, 3, 4, 5"):
        corrupt(picture, "smoke", 6)


@pytest.mark.parametrize("name", ON_PICTURES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_severity_rises(picture: np.ndarray, name: str, seed: int) -> None:
    before = picture.copy()
    apart = [distance(corrupt(picture, name, severity, seed), picture) for severity in corruptions.SEVERITIES]
    assert apart[0] > 0.1 and all(b > 1.03 * a for a, b in pairwise(apart)), apart
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("name", names())
def test_the_same_seed_gives_the_same(picture: np.ndarray, name: str) -> None:
    clip = [np.roll(picture, n, 1) for n in range(4)]
    first, again = (list(corrupt_clip(clip, name, 4, seed=3)) for _ in range(2))
    assert [n for n, _ in first] == [n for n, _ in again]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, again))
    assert all(shown.dtype == np.uint8 and shown.shape == picture.shape for _, shown in first)
    if not describe(name).acts_on_order:
        assert not np.array_equal(corrupt(picture, name, 4, seed=3), corrupt(picture, name, 4, seed=5))
        assert np.array_equal(first[0][1], corrupt(picture, name, 4, seed=3))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("size", [(17, 13), (101, 63), (640, 481)])
def test_any_size(picture: np.ndarray, name: str, size: tuple[int, int]) -> None:
    shown = corrupt(cv2.resize(picture, size), name, 5, seed=1)
    assert shown.shape == (size[1], size[0], 3) and shown.dtype == np.uint8


@pytest.mark.parametrize("name", ["smoke", "blood", "bubbles", "highlights", "droplets", "fog", "mucus"])
def test_it_hangs_together_in_time(picture: np.ndarray, name: str) -> None:
    """Over a picture that stands still: from frame to frame it changes by far less than two seeds differ, and
    by less than over a second, so it is one thing that moves."""
    shown = [p for _, p in corrupt_clip([picture] * 31, name, 4, seed=2)]
    step = np.mean([distance(a, b) for a, b in pairwise(shown[:7])])
    other = distance(shown[0], corrupt(picture, name, 4, seed=9))
    assert 0 < step < 0.25 * other
    assert distance(shown[0], shown[30]) > 1.5 * step


def test_drops_stay_on_the_lens(picture: np.ndarray) -> None:
    """Eight tenths of the pixels that they cover are covered a second later, whatever moves behind them."""
    grey = np.full_like(picture, 100)
    covered = [np.abs(p.astype(float) - 100).max(2) > 4 for _, p in corrupt_clip([grey] * 31, "droplets", 3, seed=0)]
    # Over plain grey only the edges show, so they are grown to what they enclose.
    grown = [
        cv2.morphologyEx(c.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((25, 25))) > 0 for c in (covered[0], covered[30])
    ]
    assert (grown[0] & grown[1]).sum() > 0.8 * grown[0].sum()


@pytest.mark.parametrize("name", [n for n in ON_PICTURES if describe(n).group in ("scene", "lens", "light")])
def test_the_black_around_the_picture_stays(round_picture: np.ndarray, name: str) -> None:
    shown = corrupt(round_picture, name, 5, seed=1)
    outside = np.hypot(*(np.mgrid[:256, :320] - np.array([128, 160])[:, None, None])) > 123
    assert np.array_equal(shown[outside], round_picture[outside])
    assert distance(shown, round_picture) > 0.5


def test_blood_is_dark_red_and_shines() -> None:
    tissue = np.full((256, 320, 3), (200, 130, 110), np.uint8)
    shown = corrupt(tissue, "blood", 4, seed=3).astype(float)
    bled = shown[..., 1] < 60
    r, g, b = np.median(shown[bled], axis=0)
    assert 0.2 < bled.mean() < 0.7  # 42 % is meant
    assert 40 < r < 170 and g < 0.25 * r and b < 0.3 * r
    assert 0.0005 < (shown[..., 2] > 115).mean() < 0.08  # nothing else is bluer than the tissue


def test_smoke_is_pale_and_uneven() -> None:
    tissue = np.full((256, 320, 3), (150, 70, 60), np.uint8)
    shown = corrupt(tissue, "smoke", 4, seed=0).astype(float)
    through = (shown[..., 0] - shown[..., 2]) / 90  # smoke has no colour: what is left of the tissue's
    assert through.std() > 0.1 and through.mean() < 0.6
    assert shown[through < 0.3].min(1).mean() > 120


def test_exposures_follow_the_light() -> None:
    """0.6 stops more than level 127 are 127 * 2^(0.6 / 2.2) = 153, and 0.9 stops less 96; the seed changes the stops by
    7 % at most."""
    grey = np.full((64, 80, 3), 127, np.uint8)
    assert corrupt(grey, "overexposure", 1).mean() == pytest.approx(153, abs=3)
    assert corrupt(grey, "underexposure", 1).mean() == pytest.approx(96, abs=3)


def test_white_balance_jumps_within_a_clip() -> None:
    grey = np.full((32, 32, 3), 127, np.uint8)
    means = np.array([p.reshape(-1, 3).mean(0) for _, p in corrupt_clip([grey] * 90, "white_balance", 3, seed=0)])
    jumps = np.flatnonzero(np.abs(np.diff(means, axis=0)).max(1) > 5)
    assert len(jumps) == 3 and np.abs(np.diff(means, axis=0)).max(1)[jumps].min() > 7  # 3 s, a state lasts 0.8 s
    assert np.diff(jumps).tolist() == [24, 24]
    assert np.abs(means[:, [0, 2]] - 127).max() > 15 and np.ptp(means @ [0.3, 0.59, 0.11]) < 12


def test_fields_of_an_interlaced_picture() -> None:
    """The even lines stay; an edge in the odd ones has moved by the 1.2 to 11 px of an image 320 wide."""
    edge = np.zeros((64, 320, 3), np.uint8)
    edge[:, 160:] = 200
    for severity, shift in ((2, 2.4), (5, 11.0)):
        shown = corrupt(edge, "interlacing", severity)
        assert np.array_equal(shown[::2], edge[::2])
        place = 320 - shown[33, :, 0].sum() / 200
        assert abs(place - 160) == pytest.approx(shift, abs=0.6)


def test_interlacing_uses_the_frame_before() -> None:
    dark, pale = np.full((8, 16, 3), 10, np.uint8), np.full((8, 16, 3), 90, np.uint8)
    _, (_, shown) = corrupt_clip([dark, pale], "interlacing", 1)
    assert shown[:, 5, 0].tolist() == [90, 10] * 4


def test_motion_blur_is_the_mean_over_the_path() -> None:
    """A bright point becomes a line of the severity's length, with the same light."""
    dark = np.zeros((129, 129, 3), np.uint8)
    dark[62:67, 62:67] = 255
    shown = levels.linear(corrupt(dark, "motion_blur", 5, seed=4))[..., 0]
    assert shown.sum() == pytest.approx(25, rel=0.12)
    y, x = np.nonzero(shown > 0.02)
    assert np.hypot(np.ptp(x) - 4, np.ptp(y) - 4) == pytest.approx(28 * 129 / 320, abs=4)


def test_blocks_have_edges_where_blocks_end(picture: np.ndarray) -> None:
    for severity in (3, 5):
        shown = corrupt(picture, "h264_blocks", severity)
        step = np.abs(np.diff(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY).astype(float), axis=1)).mean(0)
        within = np.arange(len(step)) % 8 != 7
        assert step[~within].mean() > 2 * step[within].mean()


def test_blocks_follow_what_moves(picture: np.ndarray) -> None:
    """With their vectors the later pictures of a clip that moves by 2 px a frame are as good as the first one."""
    clip = [np.ascontiguousarray(picture[:, 2 * n : 2 * n + 240]) for n in range(8)]
    off = [distance(shown, clip[number]) for number, shown in corrupt_clip(clip, "h264_blocks", 2)]
    assert off[7] < 1.3 * off[0]


def test_a_stuck_block_is_freed_by_the_next_key_picture() -> None:
    """What changes by less than the coder sends stays until then: 24 pictures from key to key."""
    clip = [np.full((32, 32, 3), 100 + min(n, 3), np.uint8) for n in range(25)]
    shown = [p.mean() for _, p in corrupt_clip(clip, "h264_blocks", 2)]
    assert shown[23] == shown[0]
    assert abs(shown[24] - 103) <= abs(shown[23] - 103)


def test_the_clock_runs(picture: np.ndarray) -> None:
    shown = [p for _, p in corrupt_clip([picture] * 3, "overlay_text", 3, seed=0)]
    assert 0 < (shown[0] != shown[2]).any(2).mean() < 0.01


@pytest.mark.parametrize(("severity", "share"), [(1, 0.1), (3, 0.35), (5, 0.7)])
def test_dropped_frames_are_missing(severity: int, share: float) -> None:
    clip = [np.full((2, 2, 3), n % 256, np.uint8) for n in range(600)]
    kept = list(corrupt_clip(clip, "dropped", severity, seed=1))
    assert kept[0][0] == 0 and all(shown[0, 0, 0] == number % 256 for number, shown in kept)
    assert 1 - len(kept) / 600 == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.1), (3, 0.33), (5, 0.7)])
def test_frozen_frames_repeat_the_last_one(severity: int, share: float) -> None:
    clip = [np.full((2, 2, 3), n % 256, np.uint8) for n in range(240)]
    shown = [p[0, 0, 0] for _, p in corrupt_clip(clip, "frozen", severity, seed=1)]
    assert len(shown) == 240
    stuck = [n for n in range(1, 240) if shown[n] != n % 256]
    assert all(shown[n] == shown[n - 1] for n in stuck)
    assert len(stuck) / 240 == pytest.approx(share, abs=0.06)


def test_effects_do_not_share_state(picture: np.ndarray) -> None:
    one, two = (begin(picture, "h264_blocks", 3, 0) for _ in range(2))
    one(picture, 0.0)
    other = np.roll(picture, 40, 1)
    assert np.array_equal(two(other, 0.0), begin(picture, "h264_blocks", 3, 0)(other, 0.0))


def test_light_and_levels_are_inverse() -> None:
    every = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 1, 3))
    assert np.abs(levels.display(levels.linear(every)).astype(int) - every).max() <= 1
    assert levels.gained(every, 2.0)[100, 0, 0] == 137  # 100 * 2^(1 / 2.2) = 137.03


def test_a_field_goes_round() -> None:
    tile = _fields.torus(np.random.default_rng(0), 2.0)
    assert tile.std() == pytest.approx(1, abs=1e-3) and abs(tile.mean()) < 1e-3
    x, y = _fields.grid(32, 40, 40)
    np.testing.assert_allclose(_fields.look(tile, x + 128, y - 256), _fields.look(tile, x, y), atol=2e-3)
    seam = np.abs(tile[:, 0] - tile[:, -1]).mean()
    assert seam < 2 * np.abs(np.diff(tile, axis=1)).mean()


def test_the_registry_is_cheap_to_import() -> None:
    code = (
        "import sys, video_io.corruptions as c\n"
        "[c.describe(n) for n in c.names()]\n"
        "print([m for m in ('torch', 'scipy', 'av', 'numba', 'skimage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
