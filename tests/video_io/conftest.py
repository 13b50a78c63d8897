"""Clips that the tests of video_io write for themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import picture

Writer = Callable[..., Path]


@pytest.fixture
def write_video(tmp_path: Path) -> Writer:
    """Writes a video from images, with given time stamps in milliseconds; returns its path."""

    def write(
        images: Sequence[np.ndarray],
        name: str = "clip.mp4",
        times_ms: Sequence[int] | None = None,
        codec: str = "libx264",
        rotation: int = 0,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(25))
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.options = options or {}
            stream.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                stream.set_display_rotation(rotation)
            for i, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = times_ms[i] if times_ms else i * 40
                frame.time_base = Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of images under the given names; returns the folder."""

    def write(names: Sequence[str], folder: str = "clip", sizes: Sequence[tuple[int, int]] | None = None) -> Path:
        for i, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            width, height = sizes[i] if sizes else (96, 64)
            cv2.imwrite(str(path), cv2.cvtColor(picture(i, width, height), cv2.COLOR_RGB2BGR))
        return tmp_path / folder

    return write
