"""One image of an endoscope's video, with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera


@dataclass(frozen=True)
class Frame:
    """An image with its time, its masks and its camera, which always change size together.

    Attributes:
        index: position in the source, counted from 0 over every frame that the source holds.
        time_ns: time in the source, nanoseconds.
        rgb: (H, W, 3) uint8, as displayed.
        use_mask: (H, W) bool, True where the pixel shows tissue that can be measured: inside the field of view, no
            overlay, neither black nor clipped. Highlights are not taken out of it.
        specular_mask: (H, W) bool, True on highlights.
        camera: the camera of this very image size, or None while it is unknown.
    """

    index: int
    time_ns: int
    rgb: NDArray[np.uint8]
    use_mask: NDArray[np.bool_]
    specular_mask: NDArray[np.bool_]
    camera: Camera | None = None

    def __post_init__(self) -> None:
        h, w = self.rgb.shape[:2]
        for name in ("use_mask", "specular_mask"):
            if getattr(self, name).shape != (h, w):
                raise ValueError(f"frame {self.index}: {name} is {getattr(self, name).shape}, the image is {(h, w)}")
        if self.camera is not None and (self.camera.width, self.camera.height) != (w, h):
            raise ValueError(
                f"frame {self.index}: the camera is for {self.camera.width} x {self.camera.height}, "
                f"the image is {w} x {h}"
            )

    @staticmethod
    def of(rgb: NDArray[np.uint8], index: int = 0, time_ns: int = 0, camera: Camera | None = None) -> Frame:
        """A frame whose every pixel can be used."""
        shape = rgb.shape[:2]
        return Frame(index, time_ns, rgb, np.ones(shape, bool), np.zeros(shape, bool), camera)

    @property
    def width(self) -> int:
        return self.rgb.shape[1]

    @property
    def height(self) -> int:
        return self.rgb.shape[0]

    def resized(self, width: int, height: int) -> Frame:
        """The frame at another size: image by area, masks conservatively, camera with them."""
        if (width, height) == (self.width, self.height):
            return self
        size = (width, height)
        # Most masks at a source's size are uniform, and then there is nothing to work out.
        use, specular = np.ones((height, width), bool), np.zeros((height, width), bool)
        if not self.use_mask.all():
            use = cv2.resize(self.use_mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99
        if self.specular_mask.any():
            specular = cv2.resize(self.specular_mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.01
        return replace(
            self,
            rgb=_resized_by_area(self.rgb, width, height),
            use_mask=use,
            specular_mask=specular,
            camera=self.camera.scaled(width, height) if self.camera else None,
        )

    def cropped(self, x: int, y: int, width: int, height: int) -> Frame:
        """The part that starts at column `x`, row `y`; camera and masks with it.

        Raises:
            ValueError: the part reaches outside the image.
        """
        if x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise ValueError(f"crop {width} x {height} at ({x}, {y}) reaches outside {self.width} x {self.height}")
        part = np.s_[y : y + height, x : x + width]
        return replace(
            self,
            rgb=np.ascontiguousarray(self.rgb[part]),
            use_mask=np.ascontiguousarray(self.use_mask[part]),
            specular_mask=np.ascontiguousarray(self.specular_mask[part]),
            camera=self.camera.cropped(x, y, width, height) if self.camera else None,
        )


def _resized_by_area(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize by area; large reductions go through the next whole multiple, which is three times as fast."""
    factor = min(rgb.shape[1] // width, rgb.shape[0] // height)
    if factor >= 2:
        rgb = cv2.resize(rgb, (factor * width, factor * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
