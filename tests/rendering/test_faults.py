"""Faults that are put into clean phantom pictures are found where they are, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rendering.phantom.clip import prepare
from rendering.phantom.faults import FAULTS, cut
from video_io.corruptions import corrupt
from video_io.faults import LONG, Watch, look_of
from video_io.frame import Frame
from video_io.masks import with_masks

FIRST, END, FRAMES = 12, 36, 44


def rendered(scene: str, seed: int, frames: int) -> list[np.ndarray]:
    """Without light between surfaces, which takes most of the time."""
    clip = prepare(scene, seed, frames)
    return [frame.rgb for frame in replace(clip, look=replace(clip.look, interreflection=0.0)).frames()]


@pytest.fixture(scope="module")
def clean():
    return rendered("colon", 12, FRAMES)


def seen(pictures: list[np.ndarray]) -> list[str]:
    """The kind of fault that is found in each frame; empty for none."""
    watch = Watch()
    found = [watch.see(with_masks(Frame.of(picture, n, n))) for n, picture in enumerate(pictures)]
    return [fault.kind if fault else "" for fault in found]


def test_nothing_is_wrong_with_clean_pictures(clean):
    assert not any(seen(clean))


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found_where_it_is(clean, kind):
    found = seen(FAULTS[kind](clean, FIRST, END, np.random.default_rng(0)))
    # Faults come and go within 4 frames, which may look like another fault.
    assert set(found[FIRST + 4 : END - 4]) == {kind}, found
    assert not any(found[:FIRST]) and not any(found[END + 1 :])


def test_a_cut_is_one_frame(clean):
    found = seen(cut(clean, FIRST, rendered("passage", 12, FIRST + 8)))
    assert [n for n, kind in enumerate(found) if kind] == [FIRST] and found[FIRST] == "cut"


def test_a_lens_that_fogs_slowly_is_told_though_nothing_changes_all_of_a_sudden(clean):
    """Over 24 frames, from no fog to a great deal of it."""
    fogged = [corrupt(picture, "fog", 4, 3) for picture in clean]
    share = np.clip((np.arange(FRAMES) - FIRST) / 24, 0, 1)
    mixed = [((1 - s) * c + s * f).astype(np.uint8) for s, c, f in zip(share, clean, fogged, strict=True)]
    found = seen(mixed)
    assert not any(found[: FIRST + 2])
    assert set(found[END:]) == {"veil"}, found[FIRST:]


def test_a_frozen_picture_is_named_after_the_frame_that_it_repeats(clean):
    watch = Watch()
    pictures = FAULTS["frozen"](clean, FIRST, END, np.random.default_rng(0))
    words = [fault.words for n, p in enumerate(pictures) if (fault := watch.see(with_masks(Frame.of(p, n, n))))]
    assert words == ["the picture is frozen (the same as frame 11)"] * (END - FIRST)


def test_a_fault_that_stays_becomes_the_usual_look(clean):
    pictures = [clean[n % 12] for n in range(12)] + [255 - clean[n % 12] for n in range(LONG)]
    assert not seen([*pictures, *clean[:6]])[-1]


def test_contrast_does_not_hang_on_brightness():
    rng = np.random.default_rng(0)
    detail = rng.normal(0, 1, (256, 320, 1)) * np.array([10.0, 8.0, 6.0])
    pictures = [np.clip(gain * (np.array([140.0, 90, 70]) + detail), 0, 255).astype(np.uint8) for gain in (1, 0.7)]
    looks = [look_of(Frame.of(picture)) for picture in pictures]
    assert looks[1].fine == pytest.approx(looks[0].fine, rel=0.1)
    assert looks[1].red == pytest.approx(looks[0].red, abs=0.01)
    assert looks[0].red == pytest.approx(140 / 300, abs=0.01)
    assert looks[0].brightness == pytest.approx(0.299 * 140 + 0.587 * 90 + 0.114 * 70, abs=1)
