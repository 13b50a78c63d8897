"""What a pixel is good for: field of view, highlights, static overlays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.frame import Frame

Mask = NDArray[np.bool_]

_BLACK = 10  # largest channel value of a pixel that no light reached, above the recording's own black


def field_of_view(rgb: NDArray[np.uint8], long_side: int = 320) -> Mask:
    """Where the endoscope's picture is: (H, W) bool, True inside.

    The picture is the largest region that is not black. It is taken to be convex, as circles, octagons and rectangles
    with rounded corners are, so dark tissue at its border stays inside; but what is as black as the surround and joins
    it is outside. An image that is black all over has an empty field of view.

    Args:
        rgb: (H, W, 3) uint8.
        long_side: larger images are reduced to this size for the search, which limits its precision and its cost.
    """
    h, w = rgb.shape[:2]
    scale = min(1.0, long_side / max(h, w))
    small = rgb if scale == 1 else cv2.resize(rgb, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_AREA)
    inside = _field_of_view(small)
    if scale < 1:
        inside = cv2.resize(inside, (w, h), interpolation=cv2.INTER_LINEAR)
    return inside > 127


def _field_of_view(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`field_of_view` at a small size, as 0 and 255."""
    level = cv2.blur(_brightest_channel(rgb), (3, 3))
    black = _recorded_black(level)
    lit = cv2.compare(level, black + _BLACK, cv2.CMP_GT)
    if cv2.countNonZero(lit) == lit.size:
        return lit
    # Flare around a bright picture is brighter than black, but far darker than the picture.
    flare = max(_BLACK, round(0.1 * cv2.mean(level, mask=lit)[0]))
    hull = np.zeros_like(lit)
    points = _picture_outline(cv2.compare(level, black + flare, cv2.CMP_GT))
    if points is None:
        return hull
    cv2.fillConvexPoly(hull, cv2.convexHull(points).reshape(-1, 1, 2), 255)
    # Within the hull, what is as black as the surround and reaches the hull's border is no picture either.
    dark = cv2.compare(level, black + 7, cv2.CMP_LE)
    surround = cv2.bitwise_or(dark, cv2.bitwise_not(hull))
    surround = cv2.copyMakeBorder(surround, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    cv2.floodFill(surround, None, (0, 0), 128)
    outside = cv2.compare(surround[1:-1, 1:-1], 128, cv2.CMP_EQ)
    inside = cv2.bitwise_and(hull, cv2.bitwise_not(outside))
    # The blur has moved the border out by a pixel.
    return cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=255)


def _brightest_channel(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    r, g, b = cv2.split(rgb)
    return cv2.max(cv2.max(r, g), b)


def _recorded_black(level: NDArray[np.uint8]) -> int:
    """The level of unlit pixels: 0, or up to 24 where the recording lifts black evenly in all dark corners."""
    corners = np.stack([level[y, x] for y in (np.s_[:6], np.s_[-6:]) for x in (np.s_[:6], np.s_[-6:])])
    flat = [float(c.mean()) for c in corners if c.mean() <= 24 and np.ptp(c) <= 2]
    return round(float(np.median(flat))) if len(flat) >= 2 else 0


def _picture_outline(lit: NDArray[np.uint8]) -> NDArray[np.int32] | None:
    """Outline points of the picture, (N, 1, 2), once thin bridges and specks are gone; None without a picture."""
    opened = cv2.morphologyEx(lit, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    areas = np.array([cv2.contourArea(c) for c in contours])
    # A dark fold can cut the picture in two, so every large region counts; text and logos are small.
    large = [c.reshape(-1, 1, 2) for c, a in zip(contours, areas, strict=True) if a >= 0.15 * areas.max()]
    return np.concatenate(large)


def specular(rgb: NDArray[np.uint8], inside: Mask | None = None) -> Mask:
    """Highlights: (H, W) bool, True where light is mirrored by a wet surface or clipped to white.

    A highlight has the lamp's colour, so all of its channels are high, and it stands out from its surroundings in the
    channel that tissue reflects least.

    Args:
        rgb: (H, W, 3) uint8.
        inside: (H, W) bool, the field of view; the dark outside is then no surrounding of anything.
    """
    r, g, b = cv2.split(rgb)
    least, most = cv2.min(cv2.min(r, g), b), cv2.max(cv2.max(r, g), b)
    side = max(3, round(max(rgb.shape[:2]) / 10) | 1)
    if inside is None or inside.all():
        around = cv2.blur(least, (side, side))
    else:
        weight = inside.astype(np.uint8) * np.uint8(255)
        share = cv2.blur(weight, (side, side), borderType=cv2.BORDER_CONSTANT)
        total = cv2.blur(cv2.bitwise_and(least, weight), (side, side), borderType=cv2.BORDER_CONSTANT)
        around = cv2.divide(total, share, scale=255)
    stands_out = cv2.bitwise_and(
        cv2.compare(cv2.subtract(least, around), 50, cv2.CMP_GT), cv2.compare(most, 180, cv2.CMP_GT)
    )
    clipped = cv2.compare(least, 235, cv2.CMP_GT)
    found = cv2.dilate(cv2.bitwise_or(stands_out, clipped), np.ones((3, 3), np.uint8)) > 0
    return found if inside is None else found & inside


def overlay(frames: Sequence[Frame]) -> Mask:
    """Text and graphics that stay put while the picture moves: (H, W) bool, True on the overlay.

    Static edges are looked for: pixels whose mean over time has a strong gradient though their value hardly changes.
    Where the picture itself stands still, or with fewer than 8 frames, nothing is marked.

    Args:
        frames: a sample spread over the clip, all of one size.
    """
    shape = frames[0].rgb.shape[:2]
    nothing = np.zeros(shape, bool)
    if len(frames) < 8:
        return nothing
    grey = np.stack([cv2.cvtColor(f.rgb, cv2.COLOR_RGB2GRAY) for f in frames]).astype(np.float32)
    inside = np.logical_and.reduce([field_of_view(f.rgb) for f in frames])
    # The border of the picture is a static edge itself.
    inside = cv2.erode(inside.astype(np.uint8), np.ones((15, 15), np.uint8), borderValue=0) > 0
    deviation = grey.std(0)
    if not inside.any() or np.median(deviation[inside]) < 6:
        return nothing
    mean = grey.mean(0)
    gradient = np.hypot(cv2.Sobel(mean, cv2.CV_32F, 1, 0) / 4, cv2.Sobel(mean, cv2.CV_32F, 0, 1) / 4)
    edges = ((deviation < 2) & (gradient > 25) & inside).astype(np.uint8)
    if edges.mean() > 0.1:  # too much of the picture to be an overlay
        return nothing
    grown = cv2.morphologyEx(cv2.dilate(edges, np.ones((5, 5), np.uint8)), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, labels = cv2.connectedComponents(grown)
    static = np.bincount(labels[edges > 0], minlength=count)
    keep = (static >= 20) & (np.arange(count) > 0)
    return keep[labels]


def with_masks(frame: Frame, overlay_mask: Mask | None = None, margin: int = 2) -> Frame:
    """The frame with its masks filled in: field of view without its last `margin` pixels, overlay, highlights.

    Args:
        frame: a frame at working size; what its `use_mask` already excludes stays excluded.
        overlay_mask: (H, W) bool from `overlay`.
        margin: pixels taken off the border of the field of view, where lens and compression blur it; the border of
            the image itself is not touched.
    """
    inside = use = field_of_view(frame.rgb)
    if margin and not use.all():
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
        use = cv2.erode(use.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
    use = use & frame.use_mask
    if overlay_mask is not None:
        use &= ~overlay_mask
    return replace(frame, use_mask=use, specular_mask=frame.specular_mask | specular(frame.rgb, inside))
