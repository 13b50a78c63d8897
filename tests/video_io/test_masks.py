"""Field of view, highlights and overlays, on drawn pictures whose masks are known and on real clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import picture

from video_io.frame import Frame
from video_io.masks import field_of_view, overlay, specular, with_masks
from video_io.sources import open_source
from video_io.view import plan_view

SHAPE = (256, 320)


def _circle(x: int = 160, y: int = 128, radius: int = 110) -> np.ndarray:
    return cv2.circle(np.zeros(SHAPE, np.uint8), (x, y), radius, 1, -1) > 0


def _octagon() -> np.ndarray:
    points = np.array([[70, 0], [250, 0], [319, 70], [319, 185], [250, 255], [70, 255], [0, 185], [0, 70]])
    return cv2.fillConvexPoly(np.zeros(SHAPE, np.uint8), points, 1) > 0


def _rounded() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:236, 50:270] = mask[50:206, 20:300] = 1
    for x in (50, 269):
        for y in (50, 205):
            cv2.circle(mask, (x, y), 30, 1, -1)
    return mask > 0


SHAPES = {"circle": _circle(), "octagon": _octagon(), "rounded": _rounded(), "all": np.ones(SHAPE, bool)}


def _seen_through(mask: np.ndarray, noise: float = 1.5, gain: float = 1.0, black: int = 0) -> np.ndarray:
    rng = np.random.default_rng(5)
    image = picture(3, 320, 256) * gain * mask[..., None] + black + rng.normal(0, noise, (*SHAPE, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("gain", "black"), [(1.0, 0), (0.5, 0), (1.0, 16)])
def test_field_of_view_of_every_shape(shape: str, gain: float, black: int) -> None:
    found = field_of_view(_seen_through(SHAPES[shape], gain=gain, black=black))
    assert _overlap(found, SHAPES[shape]) > 0.97


def test_field_of_view_follows_a_drift() -> None:
    for x in (130, 150, 190):
        mask = _circle(x)
        assert _overlap(field_of_view(_seen_through(mask)), mask) > 0.97


def test_text_in_the_border_is_outside() -> None:
    image = _seen_through(_circle(radius=100))
    cv2.putText(image, "12:04", (2, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    found = field_of_view(image)
    assert not found[:30, :60].any()


def test_a_dark_lumen_is_inside() -> None:
    image = _seen_through(_circle())
    cv2.circle(image, (160, 128), 40, (2, 2, 2), -1)
    assert field_of_view(image)[128, 160]


def test_a_black_image_has_no_field_of_view() -> None:
    assert not field_of_view(np.zeros((*SHAPE, 3), np.uint8)).any()


def test_large_images_get_a_mask_of_their_own_size() -> None:
    mask = _circle()
    large = cv2.resize(_seen_through(mask), (1280, 1024), interpolation=cv2.INTER_CUBIC)
    expected = cv2.resize(mask.astype(np.uint8), (1280, 1024)) > 0
    found = field_of_view(large)
    assert found.shape == (1024, 1280)
    assert _overlap(found, expected) > 0.97


def test_highlights_are_white_and_stand_out() -> None:
    image = np.full((*SHAPE, 3), (190, 90, 80), np.uint8)  # tissue
    cv2.circle(image, (100, 100), 6, (255, 252, 250), -1)
    cv2.circle(image, (200, 100), 6, (255, 160, 60), -1)  # bright fat is no highlight
    found = specular(image)
    assert found[100, 100]
    assert not found[100, 200]
    assert found.sum() < 250  # 113 pixels and their border


def test_the_border_of_the_field_of_view_is_no_highlight() -> None:
    mask = _circle()
    image = np.where(mask[..., None], np.uint8(200), np.uint8(0)).repeat(3, axis=2).astype(np.uint8)
    assert specular(image).any(), "beside black, pale tissue stands out"
    assert not specular(image, mask).any()


def _overlaid(moving: bool) -> list[Frame]:
    frames = []
    for i in range(10):
        image = picture(4 * i if moving else 0, 320, 256)
        cv2.putText(image, "PATIENT 7", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
        frames.append(Frame.of(image, i))
    return frames


def test_text_over_a_moving_picture_is_found() -> None:
    found = overlay(_overlaid(moving=True))
    letters = np.zeros((*SHAPE, 3), np.uint8)
    cv2.putText(letters, "PATIENT 7", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    assert found[letters[..., 0] > 0].mean() > 0.9
    assert not found[80:].any()


def test_nothing_is_an_overlay_when_the_picture_stands_still() -> None:
    assert not overlay(_overlaid(moving=False)).any()
    assert not overlay(_overlaid(moving=True)[:7]).any(), "too few frames to tell"


def test_masks_of_a_frame() -> None:
    mask = _circle()
    image = _seen_through(mask)
    cv2.circle(image, (120, 120), 5, (255, 255, 255), -1)
    text = np.zeros(SHAPE, bool)
    text[150:160, 100:140] = True
    frame = with_masks(Frame.of(image), text)
    assert not (frame.use_mask & ~mask).any()
    assert frame.use_mask.sum() > 0.9 * mask.sum() - text.sum()
    assert not frame.use_mask[text].any()
    assert frame.specular_mask[120, 120]
    assert frame.use_mask[120, 120], "a highlight stays usable"
    assert frame.use_mask[128, 160]


def test_a_mask_that_the_frame_brings_is_kept() -> None:
    closed = np.ones(SHAPE, bool)
    closed[:100] = False
    frame = Frame(0, 0, picture(0, 320, 256), closed, np.zeros(SHAPE, bool))
    assert np.array_equal(with_masks(frame).use_mask, closed)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("laparoscopy_liver.mp4", 0.88, 0.93),  # a circle cut above and below
        ("sinus_jhu", 0.72, 0.79),  # a circle in its bounding box: pi / 4 = .785
        ("c3vd_trans_t1_a", 0.91, 0.94),  # an octagon
        ("hamlyn_23", 0.94, 1.0),
        ("traced_colon", 1.0, 1.0),
        ("davinci_pulling.mp4", 1.0, 1.0),
    ],
)
def test_sample_fields_of_view(sample_data: Path, name: str, low: float, high: float) -> None:
    frames = open_source(sample_data / name).sample(8)
    view = plan_view(frames)
    shares = [with_masks(view.apply(f)).use_mask.mean() for f in frames]
    assert low <= min(shares) <= max(shares) <= high
    assert not overlay([view.apply(f) for f in frames]).any()


def test_the_drifting_field_of_view_is_followed(sample_data: Path) -> None:
    frames = open_source(sample_data / "laparoscopy_liver.mp4").sample(12)
    centres = [np.flatnonzero(field_of_view(f.rgb).any(0)).mean() for f in frames]
    # By eye, the circle's left and right ends lie at 58 and 1194 in the first frame.
    assert centres[0] == pytest.approx((58 + 1194) / 2, abs=10)
    assert np.ptp(centres) > 4
