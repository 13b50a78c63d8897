"""A source made ready to work on: which part of the picture, at what size, with masks and a camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.curate import check_clip
from video_io.frame import Frame
from video_io.masks import overlay, with_masks
from video_io.sources.base import Source
from video_io.view import View, plan_view

PROBES = 24


@dataclass(frozen=True)
class Clip:
    """A source and how its frames become working frames.

    Attributes:
        source: the input.
        view: crop and working size.
        overlay_mask: (H, W) bool at the working size, True on text and graphics that stay put.
        camera: the camera of the working image, or None while it is unknown.
    """

    source: Source
    view: View
    overlay_mask: NDArray[np.bool_]
    camera: Camera | None = None

    @staticmethod
    def of(source: Source, camera: Camera | None = None, probes: Sequence[Frame] | None = None) -> Clip:
        """Look at a few frames of the source and decide how to work on it.

        Args:
            source: the input.
            camera: the camera of the source's whole image, if it is known.
            probes: frames of the source that have been read already, spread over the clip.

        Raises:
            InputError: the source shows nothing that can be reconstructed, or the camera is for another size.
        """
        probes = source.sample(PROBES) if probes is None else probes
        check_clip(probes)
        view = plan_view(probes)
        working = [view.apply(f) for f in probes]
        return Clip(source, view, overlay(working), view.camera(camera) if camera else None)

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Working frames in order, each time from the start of the source; the `first` ones are read, but not given."""
        return map(self.worked, islice(self.source.frames(), first, None))

    def probes(self, count: int = PROBES) -> list[Frame]:
        """Working frames spread over the clip."""
        return [self.worked(f) for f in self.source.sample(count)]

    def with_camera(self, camera: Camera) -> Clip:
        """The same clip with this camera of the working image."""
        return replace(self, camera=camera)

    def worked(self, frame: Frame) -> Frame:
        """The working frame of one of the source's."""
        return with_masks(replace(self.view.apply(frame), camera=self.camera), self.overlay_mask)
