"""A clip with its truth on disk, in the layout that `video_io.datasets.phantom` reads; written frame by frame.

clip/
    rgb/0000.jpg      image, JPEG quality 95
    video.mp4         the same images, H.264 without B-frames
    depth/0000.png    16 bit, z = value / depth_scale, 0 = none
    NAME/0000.png     further pictures, if any: normals, albedo, mask
    poses.txt         TUM: time_s tx ty tz qx qy qz qw, camera to world
    intrinsics.json   Camera.to_dict(), depth_scale (stored steps a unit), and the unit where it is not mm
    mesh.ply          the surface, world
    phantom.json      what it was made from
    terms.txt         terms of use
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory

Image = NDArray[np.uint8]

DEPTH_SCALES = (400, 200, 100, 50, 25)
_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


@dataclass(frozen=True)
class Facts:
    """What is written beside the pictures.

    Attributes:
        camera: of the images.
        world_from_cam: (N, 4, 4) poses of the frames.
        fps: frames a second.
        depth_scale: stored steps of a unit of depth.
        made_from: plain values that tell how the clip came to be.
        terms: of use.
        vertices, faces: of the surface, (V, 3) and (F, 3).
        unit: of lengths: `mm` or `up to scale`.
    """

    camera: Camera
    world_from_cam: NDArray[np.float64]
    fps: float
    depth_scale: float
    made_from: Mapping[str, Any]
    terms: str
    vertices: NDArray[np.float32] = field(repr=False)
    faces: NDArray[np.int32] = field(repr=False)
    unit: str = "mm"


class ClipFiles:
    """Writes a clip; a context manager.

    Args:
        out: a folder that is empty or does not exist.
        facts: what is known of the whole clip, written at once.
        further: names of the folders of further pictures.

    Raises:
        InputError: the folder can't be used.
    """

    def __init__(self, out: Path, facts: Facts, further: Sequence[str] = ()) -> None:
        self.path = _empty_folder(out)
        self._facts, self._count = facts, 0
        _write_facts(self.path, facts)
        for name in ("rgb", "depth", *further):
            (self.path / name).mkdir()

    def __enter__(self) -> ClipFiles:
        camera = self._facts.camera
        self._video = Video(self.path / "video.mp4", camera.width, camera.height, self._facts.fps)
        return self

    def __exit__(self, *error: object) -> None:
        self._video.__exit__(*error)

    def add(self, rgb: Image, depth: NDArray[np.float32], **further: Image) -> None:
        """Write the next frame.

        Args:
            rgb: (H, W, 3).
            depth: (H, W) z, 0 where there is none.
            further: pictures (H, W) or (H, W, 3) by the name of their folder.

        Raises:
            InputError: a file can't be written.
        """
        name = f"{self._count:04d}"
        _write(self.path / f"rgb/{name}.jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        stored = np.round(depth * self._facts.depth_scale)
        _write(self.path / f"depth/{name}.png", np.where(stored < 65536, stored, 0).astype(np.uint16), _FAST)
        for folder, picture in further.items():
            _write(self.path / folder / f"{name}.png", picture[..., ::-1] if picture.ndim == 3 else picture, _FAST)
        self._video.write(rgb)
        self._count += 1


class Video:
    """Writes frames as H.264 without B-frames (so that frames come out in the order of their times)."""

    def __init__(self, path: Path, width: int, height: int, fps: float, crf: int = 18) -> None:
        import av

        self._frame = av.VideoFrame
        self._container = av.open(str(path), "w")
        self._tick = 1 / Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=1 / self._tick)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        # One thread, so that the same frames give the same file.
        self._stream.options = {"crf": str(crf), "preset": "fast", "bf": "0", "threads": "1"}

    def __enter__(self) -> Video:
        return self

    def write(self, rgb: Image, number: int | None = None) -> None:
        """Add a frame (H, W, 3) uint8; `number`, which must rise, leaves room for frames that are missing."""
        frame = self._frame.from_ndarray(rgb, format="rgb24")
        if number is not None:
            frame.pts, frame.time_base = number, self._tick
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, *_: object) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _empty_folder(out: Path) -> Path:
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' is there already; give a folder that is empty or does not exist")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{out}' can't be made ({error.strerror}); give a folder that can be written to") from error
    return out


def _write_facts(out: Path, facts: Facts) -> None:
    import trimesh

    times = np.round(np.arange(len(facts.world_from_cam)) * 1e9 / facts.fps).astype(np.int64)
    Trajectory(times, facts.world_from_cam).write_tum(out / "poses.txt")
    camera = {**facts.camera.to_dict(), "depth_scale": facts.depth_scale}
    if facts.unit != "mm":
        camera["unit"] = facts.unit
    (out / "intrinsics.json").write_text(json.dumps(camera, indent=1) + "\n")
    (out / "phantom.json").write_text(json.dumps(dict(facts.made_from), indent=1) + "\n")
    (out / "terms.txt").write_text(facts.terms)
    mesh = trimesh.Trimesh(facts.vertices, facts.faces, process=False)
    (out / "mesh.ply").write_bytes(mesh.export(file_type="ply", vertex_normal=False))


def _write(path: Path, image: NDArray[np.generic], options: list[int]) -> None:
    if not cv2.imwrite(str(path), image, options):
        raise InputError(f"'{path}' can't be written; is the disk full?")
