"""The brightness audit as a picture: under each condition the image, the depth, and how it has changed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.light_audit import Seen
from endorecon.evaluate.light_conditions import STANDARD
from video_io.errors import InputError

Image = NDArray[np.uint8]
_TILE = 176  # pixels across
_NAMES, _HEAD, _GAP = 132, 42, 4
_MOST = 0.4  # of the log of depth, where the colours end
_GREY = 70


class Sheet:
    """Gathers what an audit sees of the first place of a few scenes.

    Args:
        scenes: how many.
    """

    def __init__(self, scenes: int = 3) -> None:
        self._scenes = scenes
        self._seen: dict[str, dict[str, Seen]] = {}
        self._places: dict[str, int] = {}

    def add(self, seen: Seen) -> None:
        """Take this one, if it belongs on the sheet: the first place of one of the first scenes of different kinds."""
        kind = seen.place.scene.split()[0]
        if kind not in self._seen and len(self._seen) == self._scenes:
            return
        held = self._seen.setdefault(kind, {})
        place = self._places.setdefault(kind, id(seen.place))
        if place == id(seen.place):
            held[seen.condition.name] = seen

    def picture(self) -> Image:
        """(H, W, 3) uint8: a condition a row; of each scene the image, the depth (near bright, far dark) and the change
        of its log against the usual light, blue nearer, red farther."""
        columns = [self._column(held) for held in self._seen.values()]
        names = list(next(iter(self._seen.values())))
        height = columns[0][0][0].shape[0]
        across = _NAMES + len(columns) * (3 * (_TILE + _GAP) + 2 * _GAP)
        sheet = np.full((_HEAD + (height + _GAP) * len(names), across, 3), 255, np.uint8)
        for row, name in enumerate(names):
            top = _HEAD + row * (height + _GAP)
            _write(sheet, name, 6, top + height // 2 + 4)
            for number, column in enumerate(columns):
                for k, tile in enumerate(column[row]):
                    left = _NAMES + number * (3 * (_TILE + _GAP) + 2 * _GAP) + k * (_TILE + _GAP)
                    sheet[top : top + height, left : left + _TILE] = tile
        for number, kind in enumerate(self._seen):
            left = _NAMES + number * (3 * (_TILE + _GAP) + 2 * _GAP)
            _write(sheet, kind, left, 16)
            heads = ("image", "depth", f"change, -{_MOST:g} to {_MOST:g}")
            for k, head in enumerate(heads):
                _write(sheet, head, left + k * (_TILE + _GAP), 34)
        return sheet

    def _column(self, held: dict[str, Seen]) -> list[tuple[Image, Image, Image]]:
        usual = held[STANDARD]
        known = usual.truth > 0
        near, far = np.percentile(np.log(usual.truth[known]), (1, 99))
        rows = []
        for seen in held.values():
            both = (seen.depth > 0) & (usual.depth > 0)
            log = np.log(np.where(seen.depth > 0, seen.depth, 1))
            level = np.uint8(255 * np.clip((far - log) / max(far - near, 1e-6), 0, 1))
            depth = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1]
            change = np.where(both, log - np.log(np.where(usual.depth > 0, usual.depth, 1)), 0)
            change = change - np.median(change[both]) if both.any() else change
            maps = (np.where(both[..., None], image, _GREY).astype(np.uint8) for image in (depth, diverging(change)))
            rows.append(tuple(_tile(image) for image in (seen.shown.rgb, *maps)))
        return rows


def write_sheet(path: Path, picture: Image) -> None:
    """Write the picture, as what its name ends in.

    Raises:
        InputError: it can't be written.
    """
    path = path.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(path), picture[..., ::-1])
    except (OSError, cv2.error):
        written = False
    if not written:
        raise InputError(f"can't write '{path}'; give a place that can be written to, and a name in .png or .jpg")


def diverging(change: NDArray[np.floating]) -> Image:
    """White for no change, blue for nearer, red for farther; full colour at `_MOST` and beyond."""
    x = np.clip(change / _MOST, -1, 1)[..., None]
    farther, nearer = np.array([178, 24, 43.0]), np.array([33, 102, 172.0])
    return np.uint8(np.rint(255 + np.abs(x) * (np.where(x > 0, farther, nearer) - 255)))


def _tile(image: Image) -> Image:
    size = (_TILE, round(_TILE * image.shape[0] / image.shape[1]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _write(sheet: Image, words: str, x: int, y: int) -> None:
    cv2.putText(sheet, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
