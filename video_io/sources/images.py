"""A folder of images in natural order, one image a frame."""

from __future__ import annotations

import builtins
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources.base import Source, Stills, decode_image, selected_count

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
SIZE_JITTER = 2  # pixels; cropping tools round, and Hamlyn's folders mix 419 x 288 with 418 x 288
_VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".ts", ".wmv"}
_COLOUR_FOLDERS = ("rgb", "color", "colour", "images", "image", "img", "frames", "left")
_COMPANIONS = {
    "depth", "depths", "mask", "masks", "normal", "normals", "albedo", "disparity", "disp", "flow", "occlusion",
    "label", "labels", "segmentation", "seg", "confidence",
}  # fmt: skip


def accepts(path: Path) -> bool:
    """Whether this file reads the input."""
    return path.is_dir()


def open(path: Path, every: int, max_frames: int | None, fps: float) -> Source:
    """Open the images of a folder, or of the one folder below it that holds them.

    Raises:
        InputError: no image, several folders of images to choose from, or images of different sizes.
    """
    files = find_images(path)
    width, height = common_size(files)
    check_readable(files)
    return ImageFolder(path, files, width, height, every, max_frames, fps)


class ImageFolder(Stills):
    """See `Source`. A frame's time is its index / fps; images up to `SIZE_JITTER` px larger lose the last rows."""

    camera: Camera | None = None  # images alone do not tell it

    def __init__(
        self,
        path: Path,
        files: list[Path],
        width: int,
        height: int,
        every: int,
        max_frames: int | None,
        fps: float,
    ) -> None:
        self.name = path.resolve().name
        self.width, self.height = width, height
        self.files, self._fps = files, fps
        self._chosen = list(range(0, len(files), every))[:max_frames]
        self.frame_count = selected_count(len(files), every, max_frames)
        self.describe: dict[str, Any] = {
            "kind": "images",
            "path": str(path),
            "folder": str(files[0].parent),
            "frames": len(files),
            "fps": fps,
            "width": width,
            "height": height,
            "every": every,
        }
        self.skipped: list[tuple[int, str]] = []

    def _read(self, index: int) -> Frame | str:
        path = self.files[index]
        try:
            rgb = decode_image(path)
        except (ValueError, OSError) as error:
            return f"{path.name}: {error}"
        h, w = rgb.shape[:2]
        if not (0 <= h - self.height <= SIZE_JITTER and 0 <= w - self.width <= SIZE_JITTER):
            return f"{path.name}: {w} x {h}, the others are {self.width} x {self.height}"
        return Frame.of(np.ascontiguousarray(rgb[: self.height, : self.width]), index, round(index * 1e9 / self._fps))


def find_images(folder: Path) -> list[Path]:
    """The colour images of a folder, in natural order, without depth maps, masks and the like.

    Where the folder itself has none, the search goes down: a folder named rgb, color, images or so is preferred,
    otherwise exactly one folder may hold images.

    Raises:
        InputError: none found, or several folders that could be meant.
    """
    files = _images_in(folder)
    if files:
        return files
    below = [d for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".") and not is_companion(d.name)]
    for name in _COLOUR_FOLDERS:
        for candidate in below:
            if candidate.name.lower() == name and (files := _images_in(candidate)):
                return files
    found = [d for d in _folders_below(folder, depth=4) if _images_in(d)]
    if len(found) == 1:
        return _images_in(found[0])
    if found:
        names = ", ".join(str(d.relative_to(folder)) for d in found[:4]) + (", ..." if len(found) > 4 else "")
        raise InputError(f"'{folder}' holds {len(found)} folders of images ({names}); give the one that you mean")
    videos = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _VIDEO_SUFFIXES)
    if videos:
        raise InputError(
            f"the folder '{folder}' holds no images but the video {videos[0]}; give '{folder / videos[0]}'"
        )
    count = sum(1 for _ in folder.iterdir())
    what = f"{count} entries but no colour image" if count else "nothing"
    raise InputError(
        f"the folder '{folder}' holds {what}; expected images ({', '.join(sorted(s[1:] for s in SUFFIXES))}); "
        "give a folder of images or a video file"
    )


def is_companion(name: str) -> bool:
    """Whether a file or folder name marks a depth map, a mask or another companion of a colour image."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name.rsplit(".", 1)[0] if "." in name else name)
    return any(word.lower() in _COMPANIONS for word in words)


def natural_key(path: Path) -> list[Any]:
    """Sorts img2 before img10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]


def _images_in(folder: Path) -> list[Path]:
    files = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file() and not is_companion(p.name)
    ]
    return sorted(files, key=natural_key)


def _folders_below(folder: Path, depth: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith(".") and not is_companion(child.name):
            yield child
            if depth > 1:
                yield from _folders_below(child, depth - 1)


def common_size(files: list[Path]) -> tuple[int, int]:
    """Width and height that all images have, from their headers; damaged files are left for the reading."""
    sizes = {path: size for path in files if (size := _header_size(path)) is not None}
    if not sizes:
        raise InputError(
            f"none of the {len(files)} image files in '{files[0].parent}' can be read as an image "
            f"(the first is {files[0].name}); give a folder of intact images"
        )
    counts = Counter(sizes.values())
    widths, heights = zip(*counts, strict=True)
    if max(widths) - min(widths) > SIZE_JITTER or max(heights) - min(heights) > SIZE_JITTER:
        (common, many), *_ = counts.most_common()
        odd = next(path for path, size in sizes.items() if size != common)
        raise InputError(
            f"the images in '{odd.parent}' have {len(counts)} sizes: {many} are {common[0]} x {common[1]}, but "
            f"{odd.name} is {sizes[odd][0]} x {sizes[odd][1]}; images of one size are expected: move the others away"
        )
    return min(widths), min(heights)


def check_readable(files: list[Path]) -> None:
    """Raise InputError when none of the first images is a picture."""
    for path in files[:5]:
        try:
            decode_image(path)
            return
        except (ValueError, OSError) as error:
            reason = str(error)
    raise InputError(
        f"'{path}' and the images before it can't be used: {reason}; expected colour images; give the folder of the "
        "colour images"
    )


def _header_size(path: Path) -> tuple[int, int] | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with builtins.open(path, "rb") as file, Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        return None
