"""Decoded pictures to RGB: upright, one eye, cropped and scaled in one pass of FFmpeg's filters, without a copy at full
size."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
Stereo = Literal["none", "sbs", "tb"]
_UPRIGHT = {1: [("transpose", "cclock")], 2: [("hflip", None), ("vflip", None)], 3: [("transpose", "clock")]}
_MOST_GRAPHS = 8


class Converter:
    """Remembers the filters of the sizes that it has met; for one thread.

    Args:
        stereo: how two views share the picture: not at all, side by side, or one above the other. The first of them is
            the picture then.
    """

    def __init__(self, stereo: Stereo = "none") -> None:
        self._stereo = stereo
        self._graphs: dict[tuple[Any, ...], Any] = {}

    def size(self, picture: Any) -> tuple[int, int]:
        """Width and height of the upright picture of one eye."""
        width, height = picture.width, picture.height
        if _turns(picture) % 2:
            width, height = height, width
        return (width // (1 + (self._stereo == "sbs")), height // (1 + (self._stereo == "tb")))

    def rgb(self, picture: Any, box: Box | None = None, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 of a decoded picture.

        Args:
            picture: PyAV's VideoFrame.
            box: x, y, width, height of the part that is wanted, in pixels of `size(picture)`; None: all of it.
            size: width and height to scale it to, by area; None: as it is.
        """
        whole = self.size(picture)
        box = box or (0, 0, *whole)
        size = size or (box[2], box[3])
        key = (picture.width, picture.height, picture.format.name, _turns(picture), box, size)
        if key not in self._graphs:
            while len(self._graphs) >= _MOST_GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = _graph(picture, box, size, whole)
        graph = self._graphs[key]
        graph.push(picture)
        return graph.pull().to_ndarray()


def _turns(picture: Any) -> int:
    """Quarter turns, counter-clockwise, that make the picture upright."""
    return round(picture.rotation / 90) % 4


def _graph(picture: Any, box: Box, size: tuple[int, int], whole: tuple[int, int]) -> Any:
    from fractions import Fraction

    import av.filter

    graph = av.filter.Graph()
    steps: list[tuple[str, str | None]] = list(_UPRIGHT.get(_turns(picture), []))
    if box != (0, 0, *whole) or _turns(picture) or whole != (picture.width, picture.height):
        x, y, width, height = box
        steps.append(("crop", f"{width}:{height}:{x}:{y}:exact=1"))
    if size != box[2:]:
        steps.append(("scale", f"{size[0]}:{size[1]}:flags=area"))
    base = picture.time_base or Fraction(1, 1000)
    last = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=base)
    for name, arguments in [*steps, ("format", "rgb24"), ("buffersink", None)]:
        node = graph.add(name, arguments)
        last.link_to(node)
        last = node
    graph.configure()
    return graph
