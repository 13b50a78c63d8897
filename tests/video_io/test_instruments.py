"""Tools found by their colour, on a phantom's tissue before which grey shafts are drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rendering.phantom.clip import prepare
from video_io.camera import Camera
from video_io.instruments import masks_are_given, tool_masks

CAMERA = Camera.from_fov(160, 128, 1.1)
ALL = np.ones((128, 160), bool)


@pytest.fixture(scope="module")
def tissue() -> list[np.ndarray]:
    return [frame.rgb for frame in prepare("tissue", 2, 6, CAMERA, still=True).frames()]


def with_shaft(rgb: np.ndarray, tip: tuple[int, int], tint: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A shaft from the left border to `tip`, shaded across, with a bright line; and where it is."""
    mask = cv2.line(np.zeros(rgb.shape[:2], np.uint8), (-10, 30), tip, 1, 22) > 0
    across = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) / 11
    shaft = np.float32(tint) * (0.4 + 0.6 * across[..., None])
    shaft[across > 0.9] = 250
    noise = np.random.default_rng(0).normal(0, 3, rgb.shape)
    return np.where(mask[..., None], np.clip(shaft + noise, 0, 255), rgb).astype(np.uint8), mask


@pytest.mark.parametrize("tint", [(150, 150, 155), (170, 150, 145)])
def test_a_shaft_is_found_with_a_margin(tissue: list[np.ndarray], tint: tuple[int, int, int]) -> None:
    pictures, masks = zip(*(with_shaft(rgb, (60 + 5 * i, 70), tint) for i, rgb in enumerate(tissue)))
    for found, mask in zip(tool_masks(pictures, [ALL] * 6), masks, strict=True):
        assert found[mask].mean() > 0.97
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15))) > 0
        assert found[~grown].mean() < 0.02


def test_tissue_is_no_tool(tissue: list[np.ndarray]) -> None:
    assert not any(tool.any() for tool in tool_masks(tissue, [ALL] * 6))


def test_where_nothing_has_colour_nothing_is_a_tool() -> None:
    plaster = [frame.rgb for frame in prepare("plaster", 2, 3, CAMERA).frames()]
    found = tool_masks(plaster, [ALL] * 3)
    assert np.mean([tool.mean() for tool in found]) < 0.05


def test_what_shows_for_one_frame_is_no_tool(tissue: list[np.ndarray]) -> None:
    pictures = [with_shaft(rgb, (70, 70), (150, 150, 155))[0] if i == 3 else rgb for i, rgb in enumerate(tissue)]
    assert not any(tool.any() for tool in tool_masks(pictures, [ALL] * 6))


def test_given_masks_are_told_from_the_surround(tissue: list[np.ndarray]) -> None:
    circle = cv2.circle(np.zeros((128, 160), np.uint8), (80, 64), 60, 1, -1) > 0
    round_ = [np.where(circle[..., None], rgb, 0).astype(np.uint8) for rgb in tissue]
    assert not masks_are_given(round_, [circle] * 6) and not masks_are_given(tissue, [ALL] * 6)
    masks = [~with_shaft(rgb, (60 + 5 * i, 70), (0, 0, 0))[1] for i, rgb in enumerate(tissue)]
    assert masks_are_given(tissue, masks)
