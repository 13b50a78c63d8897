"""Where surgical tools are in a clip: by the masks that came with it, or else by their colour and how long they stay.

Tissue is red to yellow, however it is lit; steel and plastic have hardly any colour, but for what tissue throws on
them. Highlights have none either, but they are bright and small. So what is far paler than the clip's tissue is a tool
where it is large, together with the less pale parts that hang on to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.masks import Mask, field_of_view, specular

Image = NDArray[np.uint8]
SURE, PERHAPS = 0.35, 0.6  # of the tissue's colourfulness
LARGE = 0.003  # of the picture's pixels, for a tool
SURE_SHARE, LEAST_TOLD = 0.25, 0.1  # of its pixels that are not glare, those that are sure; and of all, those
MOST = 0.6  # of the picture: more is no tool, but a scene without colour
MARGIN_PX = 4  # at 320 pixels across: blur, and the shadow that a tool throws next to it
GIVEN_SHARE, GIVEN_CHANGE = 0.005, 0.002
_CLIPPED = 252  # of a channel: red that is cut off looks pale
_DARK = 24.0  # lightness, of 255, under which colour can't be told


def masks_are_given(pictures: Sequence[Image], uses: Sequence[Mask]) -> bool:
    """Whether the masks of use (H, W) leave out things that move: more than the surround of the endoscope's picture."""
    left_out, change = [], []
    for i in np.unique(np.linspace(0, len(pictures) - 1, 12).round().astype(int)):
        inside = cv2.erode(field_of_view(pictures[i]).astype(np.uint8), np.ones((9, 9))) > 0
        left_out.append(float((inside & ~uses[i]).mean()))
        change.append(float((uses[i] ^ uses[0])[inside].mean()) if inside.any() else 0.0)
    return bool(np.mean(left_out) > GIVEN_SHARE and max(change) > GIVEN_CHANGE)


def tool_masks(pictures: Sequence[Image], uses: Sequence[Mask]) -> list[Mask]:
    """The tools (H, W) in each of a clip's pictures (H, W, 3), all of one size and in order of time.

    Args:
        uses: the pixels of each picture that show anything.

    Returns:
        Masks, True on a tool with a margin around it; all False where colour does not tell tools from the rest.
    """
    colours = [_colourfulness(rgb) for rgb in pictures]
    told = [c[use & np.isfinite(c)] for c, use in zip(colours, uses, strict=True)]
    usual = float(np.median([np.median(c) for c in told if c.size] or [0.0]))
    found = [_tool(c, specular(rgb), use, usual) for c, rgb, use in zip(colours, pictures, uses, strict=True)]
    found = _lasting(found)
    if not found or np.mean([tool.mean() for tool in found]) > MOST:
        return [np.zeros(use.shape, bool) for use in uses]
    size = 2 * max(1, round(MARGIN_PX * pictures[0].shape[1] / 320)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return [cv2.dilate(tool.astype(np.uint8), kernel) > 0 for tool in found]


def _colourfulness(rgb: Image) -> NDArray[np.float32]:
    """(H, W): chroma over lightness in Lab, which shade hardly changes; NaN where it can't be told, dark or clipped."""
    lab = cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    light, a, b = lab[..., 0], lab[..., 1] - 128, lab[..., 2] - 128
    clipped = rgb.max(-1) >= _CLIPPED
    # Of yellow and red, not of blue and green: those are no tissue's colours.
    warm = np.maximum(a, 0) + 0.5 * np.maximum(b, 0)
    return np.where((light > _DARK) & ~clipped, warm / np.maximum(light, 1), np.nan).astype(np.float32)


def _tool(colour: NDArray[np.float32], highlights: Mask, use: Mask, usual: float) -> Mask:
    pale = np.nan_to_num(colour, nan=usual)
    # Highlights are pale on tissue too, and so is their rim: they belong to what is around them, and prove nothing.
    glare = cv2.dilate(highlights.astype(np.uint8), np.ones((5, 5))) > 0
    perhaps = use & ~highlights & (pale < PERHAPS * usual)
    closed = cv2.morphologyEx(
        perhaps.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    )
    closed = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3)))
    count, labels = cv2.connectedComponents(closed)
    area = np.bincount(labels.ravel(), minlength=count)
    told = np.bincount(labels[perhaps & ~glare], minlength=count)
    certain = np.bincount(labels[perhaps & ~glare & (pale < SURE * usual)], minlength=count)
    keep = (area > LARGE * colour.size) & (certain > SURE_SHARE * told) & (told > LEAST_TOLD * area)
    keep[0] = False
    return _filled(keep[labels])


def _filled(mask: Mask) -> Mask:
    """The mask without holes smaller than a tool."""
    count, labels = cv2.connectedComponents((~mask).astype(np.uint8))
    area = np.bincount(labels.ravel(), minlength=count)
    small = area < LARGE * mask.size
    return mask | small[labels]


def _lasting(found: list[Mask]) -> list[Mask]:
    """Only the parts that touch one in the picture before or after; and what is one in both of these."""
    kept = []
    found = [
        mask | (found[i - 1] & found[i + 1]) if 0 < i < len(found) - 1 else mask for i, mask in enumerate(found)
    ]
    for i, mask in enumerate(found):
        others = [found[j] for j in (i - 1, i + 1) if 0 <= j < len(found)]
        if not others or not mask.any():
            kept.append(mask)
            continue
        near = cv2.dilate(np.logical_or.reduce(others).astype(np.uint8), np.ones((9, 9))) > 0
        count, labels = cv2.connectedComponents(mask.astype(np.uint8))
        touched = np.bincount(labels[near], minlength=count) > 0
        touched[0] = False
        kept.append(touched[labels])
    return kept
