"""The used part of a source, and how frames, masks and cameras follow it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import picture

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import open_source
from video_io.view import View, plan_view, working_size


def _frames(images: list[np.ndarray]) -> list[Frame]:
    return [Frame.of(image, i) for i, image in enumerate(images)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((320, 256), (320, 256)),
        ((640, 512), (320, 256)),
        ((1350, 1080), (320, 256)),
        ((400, 400), (288, 288)),
        ((1920, 1080), (352, 192)),
        ((100, 80), (128, 96)),
        ((30, 20), (32, 32)),
    ],
)
def test_working_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    width, height = working_size(*size, max_pixels=320 * 256)
    assert (width, height) == expected
    assert width % 32 == height % 32 == 0


def test_the_camera_follows_crop_and_resize() -> None:
    view = View(640, 512, (20, 12, 600, 480), 300, 240)
    camera = view.camera(Camera.pinhole(640, 512, 570.0, 568.0, 320.0, 252.0))
    # (320 - 20) / 2, (252 - 12) / 2, and half the focal lengths
    assert camera == Camera.pinhole(300, 240, 285.0, 284.0, 150.0, 120.0)
    assert view.source_camera(camera) == Camera.pinhole(640, 512, 570.0, 568.0, 320.0, 252.0)


def test_image_masks_and_camera_move_together() -> None:
    rgb = np.zeros((8, 12, 3), np.uint8)
    rgb[4:6, 6:8] = 200  # two by two pixels that become one
    use = np.ones((8, 12), bool)
    use[2, 2] = False
    frame = Frame(3, 5, rgb, use, rgb[..., 0] > 0, Camera.pinhole(12, 8, 10.0, 10.0, 7.0, 5.0))
    small = View(12, 8, (2, 2, 8, 4), 4, 2).apply(frame)
    assert (small.index, small.time_ns) == (3, 5)
    assert small.rgb[..., 0].tolist() == [[0, 0, 0, 0], [0, 0, 200, 0]]
    assert small.specular_mask.tolist() == [[False] * 4, [False, False, True, False]]
    assert small.use_mask.tolist() == [[False, True, True, True], [True] * 4]
    assert small.camera == Camera.pinhole(4, 2, 5.0, 5.0, 2.5, 1.5)
    # The lit block's centre, (7, 5) in the source, is the principal point, and so it stays: ((7 - 2) / 2, (5 - 2) / 2).


def test_resizing_keeps_positions() -> None:
    # A ramp along x with value 10 x at pixel centre x: still 10 x at the centre when reduced by 4.5.
    ramp = np.repeat(((np.arange(18) + 0.5) * 10)[None], 9, axis=0)
    rgb = np.repeat(np.round(ramp).astype(np.uint8)[..., None], 3, axis=2)
    small = Frame.of(rgb).resized(4, 2)
    expected = (np.arange(4) + 0.5) * 4.5 * 10
    np.testing.assert_allclose(small.rgb[0, :, 0], expected, atol=2.0)


def test_a_frame_of_another_size_is_refused() -> None:
    view = View(96, 64, (0, 0, 96, 64), 96, 64)
    with pytest.raises(ValueError, match="the view is for 96 x 64"):
        view.apply(Frame.of(picture(0, 64, 64)))


def test_a_camera_for_another_size_is_refused() -> None:
    view = View(96, 64, (0, 0, 96, 64), 96, 64)
    with pytest.raises(InputError, match="for images of 640 x 480, but the input has 96 x 64"):
        view.camera(Camera.pinhole(640, 480, 500.0, 500.0, 320.0, 240.0))


def test_black_borders_are_cut_off() -> None:
    images = [np.zeros((256, 480, 3), np.uint8) for _ in range(4)]
    for i, image in enumerate(images):
        image[:, 80:400] = picture(i, 320, 256)
    view = plan_view(_frames(images))
    assert view.crop == (80, 0, 320, 256)
    assert (view.width, view.height) == (320, 256)
    assert "320 x 256 of 480 x 256" in view.notes[0]


def test_a_full_picture_is_left_alone() -> None:
    view = plan_view(_frames([picture(i, 320, 256) for i in range(4)]))
    assert view.crop == (0, 0, 320, 256)
    assert (view.width, view.height) == (320, 256)
    assert view.notes == ()


def test_a_still_second_picture_is_left_out() -> None:
    still = picture(40, 200, 200) // 3
    pairs = [np.hstack([still, picture(3 * i, 200, 200)]) for i in range(8)]
    view = plan_view(_frames(pairs))
    assert view.crop == (200, 0, 200, 200)
    assert "the right one is used" in view.notes[0]


def test_a_letterbox_is_no_second_picture() -> None:
    image = np.zeros((256, 480, 3), np.uint8)
    image[:, :300] = picture(0, 300, 256)
    view = plan_view([Frame.of(image)] * 3)
    assert view.crop == (0, 0, 300, 256)
    assert "dark border" in view.notes[0]


def test_two_pictures_above_each_other() -> None:
    pairs = [np.vstack([picture(40, 200, 150) // 3, picture(3 * i, 200, 150)]) for i in range(8)]
    view = plan_view(_frames(pairs))
    assert view.crop == (0, 150, 200, 150)
    assert "the lower one is used" in view.notes[0]


def test_black_frames_have_no_view() -> None:
    with pytest.raises(InputError, match="all 2 frames looked at are black"):
        plan_view([Frame.of(np.zeros((64, 96, 3), np.uint8))] * 2)
    with pytest.raises(InputError, match="no frame that can be read"):
        plan_view([])


def test_of_a_stereo_screen_the_left_picture_is_taken() -> None:
    pairs = [np.hstack([picture(3 * i, 200, 200), picture(3 * i, 260, 200)[:, 60:]]) for i in range(8)]
    view = plan_view(_frames(pairs))
    assert view.crop == (0, 0, 200, 200)
    assert "stereo" in view.notes[0]


@pytest.mark.parametrize(
    ("name", "crop", "tolerance"),
    [
        ("bronchoscopy_phantom/clip_0.mp4", (0, 0, 400, 400), 0),
        ("bronchoscopy_phantom/clip_1.mp4", (0, 0, 400, 400), 0),
        ("bronchoscopy_phantom/clip_2.mp4", (0, 0, 400, 400), 0),
        ("traced_colon", (0, 0, 320, 256), 0),
        ("traced_lap", (0, 0, 320, 256), 0),
        ("c3vd_trans_t1_a", (0, 0, 1350, 1080), 0),
        ("davinci_pulling.mp4", (0, 0, 640, 512), 0),
        # Measured by eye in an image viewer.
        ("sinus_jhu", (464, 64, 1064, 984), 16),
        ("laparoscopy_liver.mp4", (50, 0, 1146, 720), 16),
        ("hamlyn_23", (5, 0, 410, 288), 6),
    ],
)
def test_sample_views(sample_data: Path, name: str, crop: tuple[int, ...], tolerance: int) -> None:
    view = plan_view(open_source(sample_data / name).sample(6))
    np.testing.assert_allclose(view.crop, crop, atol=tolerance)
    assert view.width * view.height <= 1.02 * 81_920
    stretch = (view.width / view.crop[2]) / (view.height / view.crop[3])
    assert 0.92 < stretch < 1.08
