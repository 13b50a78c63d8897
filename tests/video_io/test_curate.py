"""Verdicts on frames and clips."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import picture

from video_io.curate import assess, check_clip, colour_change, is_cut, is_duplicate, motion
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.masks import with_masks
from video_io.sources import open_source
from video_io.view import plan_view


def _frame(image: np.ndarray) -> Frame:
    return with_masks(Frame.of(image))


def _flat(level: int) -> Frame:
    return Frame.of(np.full((64, 96, 3), level, np.uint8))


def test_figures_of_a_frame_that_can_be_worked_out_by_hand() -> None:
    image = np.full((64, 96, 3), 100, np.uint8)
    image[:, 48:] = 140
    image[:16, :48] = 10  # an eighth of the pixels
    quality = assess(Frame.of(image))
    assert quality.brightness == pytest.approx(0.125 * 10 + 0.375 * 100 + 0.5 * 140)  # 108.75
    assert quality.spread == pytest.approx(np.sqrt(0.125 * 98.75**2 + 0.375 * 8.75**2 + 0.5 * 31.25**2), abs=1e-6)
    assert quality.dark == 0.125
    assert quality.clipped == 0
    assert quality.usable == 1
    assert quality.verdict == ""
    assert "verdict" not in quality.figures()


def test_blur_lowers_sharpness() -> None:
    sharp = picture(0, 320, 256)
    assert assess(_frame(sharp)).sharpness > 3 * assess(_frame(cv2.GaussianBlur(sharp, (0, 0), 4))).sharpness


def test_the_border_of_the_field_of_view_is_not_sharp() -> None:
    even = np.zeros((256, 320, 3), np.uint8)
    cv2.circle(even, (160, 128), 100, (150, 90, 80), -1)
    assert assess(_frame(even)).sharpness < 1


@pytest.mark.parametrize(("level", "verdict"), [(3, "black"), (120, "constant"), (255, "constant")])
def test_empty_frames(level: int, verdict: str) -> None:
    assert assess(_flat(level)).verdict == verdict
    assert assess(_frame(_flat(level).rgb)).verdict == verdict


def test_a_cut_changes_colours_and_picture() -> None:
    scene = [Frame.of(picture(i, 320, 256)) for i in (0, 2)]
    other = Frame.of(cv2.applyColorMap(picture(30, 320, 256), cv2.COLORMAP_OCEAN))
    assert not is_cut(scene[0], scene[1])
    assert is_cut(scene[0], other)
    brighter = Frame.of(cv2.convertScaleAbs(scene[0].rgb, alpha=1.15))
    assert not is_cut(scene[0], brighter), "a change of the light is no cut"
    assert colour_change(scene[0], scene[0]) == pytest.approx(0, abs=1e-3)


def test_duplicates_and_motion() -> None:
    first, second = Frame.of(picture(0)), Frame.of(picture(2))
    assert is_duplicate(first, Frame.of(picture(0)))
    assert not is_duplicate(first, second)
    assert motion(_flat(100), _flat(103)) == 3.0


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "gives 0 readable frames"),
        ([_flat(100)], "gives 1 readable frame;"),
        ([Frame.of(picture(i)) for i in range(2)], "gives 2 readable frames; .*3 frames at least"),
        ([_flat(2), _flat(2), _flat(5)], "the clip is black .* reaches grey level 5"),
        ([_flat(90), _flat(100), _flat(120)], "one even colour"),
        ([Frame.of(picture(0))] * 3, "all 3 frames looked at show the same picture"),
    ],
)
def test_clips_that_show_nothing(frames: list[Frame], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_clip(frames)
    assert "expected" in str(caught.value)


def test_a_clip_with_some_black_frames_passes() -> None:
    check_clip([_flat(0), Frame.of(picture(0)), Frame.of(picture(5))])


@pytest.mark.parametrize(
    "name", ["laparoscopy_liver.mp4", "bronchoscopy_phantom/clip_2.mp4", "hamlyn_23", "traced_sinus"]
)
def test_sample_clips_have_neither_cuts_nor_empty_frames(sample_data: Path, name: str) -> None:
    source = open_source(sample_data / name, max_frames=40)
    sample = source.sample(8)
    check_clip(sample)
    view = plan_view(sample)
    frames = [view.apply(f) for f in source.frames()]
    assert not any(is_cut(a, b) for a, b in pairwise(frames))
    assert {assess(f).verdict for f in frames} == {""}


def test_cuts_between_sample_clips_are_found(sample_data: Path) -> None:
    names = ("laparoscopy_liver.mp4", "hamlyn_23", "bronchoscopy_phantom/clip_0.mp4", "traced_lap", "c3vd_trans_t1_a")
    frames = [open_source(sample_data / name).sample(3)[1].resized(320, 256) for name in names]
    for i, first in enumerate(frames):
        for second in frames[i + 1 :]:
            assert is_cut(first, second)
            assert is_cut(second, first)
