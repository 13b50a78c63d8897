"""How the pixels of a source become the pixels that are worked on: the part that is used, and its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.masks import field_of_view

MULTIPLE = 32  # the networks halve the image five times
_PROBE = 640  # long side, pixels, of the images in which the used part is looked for
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """The used part of the source and the size to which it is brought.

    Attributes:
        source_width, source_height: size of the source's frames, pixels.
        crop: x, y, width, height of the used part, source pixels.
        width, height: size of the working image.
        notes: sentences for the user about what was chosen and why.
    """

    source_width: int
    source_height: int
    crop: Box
    width: int
    height: int
    notes: tuple[str, ...] = ()

    def apply(self, frame: Frame) -> Frame:
        """The working frame: cropped, resized by area; masks and camera follow.

        Raises:
            ValueError: the frame has not the source's size.
        """
        if (frame.width, frame.height) != (self.source_width, self.source_height):
            raise ValueError(
                f"frame {frame.index} is {frame.width} x {frame.height}, the view is for "
                f"{self.source_width} x {self.source_height}"
            )
        if self.crop != (0, 0, self.source_width, self.source_height):
            frame = frame.cropped(*self.crop)
        return frame.resized(self.width, self.height)

    def camera(self, source_camera: Camera) -> Camera:
        """The camera of the working image, from the camera of the source's whole image.

        Raises:
            InputError: the camera is for another image size.
        """
        if (source_camera.width, source_camera.height) != (self.source_width, self.source_height):
            raise InputError(
                f"the camera is for images of {source_camera.width} x {source_camera.height}, but the input has "
                f"{self.source_width} x {self.source_height}; give the camera of this input, or leave it out and have "
                "it estimated"
            )
        return source_camera.cropped(*self.crop).scaled(self.width, self.height)

    def source_camera(self, working_camera: Camera) -> Camera:
        """The camera of the source's whole image, from the camera of the working image."""
        x, y, w, h = self.crop
        return working_camera.scaled(w, h).cropped(-x, -y, self.source_width, self.source_height)


def plan_view(frames: Sequence[Frame], max_pixels: int = 320 * 256) -> View:
    """Choose the used part and the working size from a sample of the source's frames.

    The part is the bounding box of all fields of view, so black borders go. Where the screen shows two pictures side
    by side, the endoscope's is taken. Both sides of the working image are multiples of 32, it has about `max_pixels`
    pixels at most, nearly the aspect of the part, and is not larger than the part but for rounding.

    Raises:
        InputError: no frame, or all frames are black.
    """
    if not frames:
        raise InputError("the input holds no frame that can be read; give an intact video or folder of images")
    width, height = frames[0].width, frames[0].height
    images = [_reduced(f.rgb) for f in frames]
    scale = images[0].shape[1] / width
    part, note = _endoscope_part(images)
    x, y, w, h = part
    inside = np.zeros((h, w), bool)
    for image in images:
        inside |= field_of_view(np.ascontiguousarray(_part(image, part)), long_side=_PROBE)
    if not inside.any():
        raise InputError(
            f"all {len(frames)} frames looked at are black; expected a picture of tissue; check the recording"
        )
    columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    found = (x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1)
    crop = _source_box(found, scale, width, height, images[0].shape)
    notes = [note.format(*crop)] if note else []
    if crop != (0, 0, width, height) and not note:
        notes.append(
            f"the picture fills {crop[2]} x {crop[3]} of {width} x {height} pixels; the dark border is cut off"
        )
    working = working_size(crop[2], crop[3], max_pixels)
    return View(width, height, crop, *working, tuple(notes))


def working_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """The size in multiples of 32 that keeps the aspect best while using the pixels that are allowed."""
    target = min(max_pixels, width * height)
    best, size = np.inf, (MULTIPLE, MULTIPLE)
    for w in range(MULTIPLE, -(-width // MULTIPLE) * MULTIPLE + 1, MULTIPLE):
        for h in range(MULTIPLE, -(-height // MULTIPLE) * MULTIPLE + 1, MULTIPLE):
            if w * h > 1.02 * max_pixels:
                break
            stretch = abs(np.log(w / width) - np.log(h / height))
            cost = 2 * stretch + abs(np.log(w * h / target))
            if cost < best:
                best, size = cost, (w, h)
    return size


def _reduced(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    h, w = rgb.shape[:2]
    scale = _PROBE / max(h, w)
    if scale >= 1:
        return rgb
    return cv2.resize(rgb, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_AREA)


def _source_box(found: Box, scale: float, width: int, height: int, shape: tuple[int, ...]) -> Box:
    """x, y, width, height in source pixels of left, top, right, bottom in reduced pixels, kept inside the image."""
    left, top, right, bottom = found
    # The reduced image's own border is the source's border, whatever the rounding.
    x0 = 0 if left <= 1 else int(np.floor(left / scale))
    y0 = 0 if top <= 1 else int(np.floor(top / scale))
    x1 = width if right >= shape[1] - 1 else min(width, int(np.ceil(right / scale)))
    y1 = height if bottom >= shape[0] - 1 else min(height, int(np.ceil(bottom / scale)))
    return x0, y0, x1 - x0, y1 - y0


def _endoscope_part(images: list[NDArray[np.uint8]]) -> tuple[Box, str]:
    """The half of the screen that shows the endoscope's picture, or the whole; and a note with room for the box."""
    h, w = images[0].shape[:2]
    few = images[:: -(-len(images) // 8)]
    for axis, names in ((1, ("left", "right")), (0, ("upper", "lower"))):
        seam = _seam(few, axis)
        if seam is None:
            continue
        boxes = [(0, 0, seam, h), (seam, 0, w - seam, h)] if axis == 1 else [(0, 0, w, seam), (0, seam, w, h - seam)]
        activity = [_activity([_part(image, box) for image in images]) for box in boxes]
        chosen = 1 if activity[1] > 1.5 * activity[0] else 0
        alike = max(activity) < 1.5 * min(activity)
        why = "both move alike, as the two eyes of a stereo endoscope do" if alike else "the other one hardly moves"
        where = f"the {names[chosen]} one is used ({{2}} x {{3}} pixels at {{0}}, {{1}})"
        note = f"the screen shows two pictures; {where}: {why}"
        return boxes[chosen], note
    return (0, 0, w, h), ""


def _seam(images: list[NDArray[np.uint8]], axis: int) -> int | None:
    """The column (axis 1) or row (axis 0) at which a second picture begins, in the middle half of the screen."""
    length = images[0].shape[axis]
    if length < 64:
        return None
    share = np.zeros(length - 1)  # how often neighbours differ, for each border between columns or rows
    for image in images:
        # Averaged along the seam, noise and texture go and the seam stays.
        smooth = cv2.blur(image, (1, 15) if axis == 1 else (15, 1))
        ahead, behind = np.split(smooth, [1], axis=axis)[1], np.split(smooth, [length - 1], axis=axis)[0]
        step = cv2.transform(cv2.absdiff(ahead, behind), np.ones((1, 3), np.float32)) > 12
        share += step.mean(axis=1 - axis) / len(images)
    low, high = length // 4, length - length // 4
    at = int(np.argmax(share[low:high])) + low
    around = np.r_[share[at - 6 : at - 2], share[at + 3 : at + 7]]
    if share[at] < 0.5 or share[at] < 2.5 * around.mean():
        return None
    sides = [np.split(image, [at + 1], axis=axis) for image in images]
    lit = np.mean([[(side > 10).mean() for side in pair] for pair in sides], axis=0)
    return at + 1 if lit.min() > 0.05 else None  # otherwise it is the border of the picture


def _activity(parts: list[NDArray[np.uint8]]) -> float:
    """How much a part of the screen changes over the sample: mean standard deviation, grey levels."""
    return float(np.stack([part[::4, ::4] for part in parts]).astype(np.float32).mean(-1).std(0).mean())


def _part(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    x, y, w, h = box
    return image[y : y + h, x : x + w]
