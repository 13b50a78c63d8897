"""What is exported: a run's frames with pose, depth and mask as one camera saw them, its surface and its Gaussians."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.protocol import RunRecord
from endorecon.run import Run
from rendering.mesh import Mesh, read_mesh
from video_io.camera import Camera
from video_io.clip import PROBES, Clip
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.masks import overlay
from video_io.sources import open_source
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from endorecon.scenes._splat_model import Splats

Progress = Callable[[str, int, int | None], None]
HELD_OUT_EVERY = 8  # as in the training of Gaussians: these frames are for figures
POINTS = 50_000


@dataclass(frozen=True)
class Choice:
    """What is exported of a run.

    Attributes:
        source: the video or folder that the run was made from; None: where it was then.
        every: take each n-th tracked frame.
        full_size: pictures at the source's resolution instead of the run's working size.
    """

    source: Path | None = None
    every: int = 1
    full_size: bool = False


@dataclass(frozen=True)
class Shot:
    """A frame as it is exported.

    Attributes:
        index, time_ns: of the frame in the source.
        rgb: (H, W, 3) uint8.
        use_mask: (H, W) bool, True where there is tissue to learn from.
        depth, confidence: (H, W) float32, z in the run's unit, 0 for none.
        camera: the same for all frames.
        world_from_cam: (4, 4).
    """

    index: int
    time_ns: int
    rgb: NDArray[np.uint8]
    use_mask: NDArray[np.bool_]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    camera: Camera
    world_from_cam: NDArray[np.float64]

    @property
    def name(self) -> str:
        """Of its files, without a suffix: bears the index."""
        return f"frame_{self.index:06d}"


class Material:
    """What there is of a run to export.

    Raises:
        InputError: a run that ended before it had a camera and poses.
    """

    def __init__(self, run: Run, choice: Choice | None = None, progress: Progress = lambda *_: None) -> None:
        self.run, self.choice, self._progress = run, choice or Choice(), progress
        if self.choice.every < 1:
            raise InputError(f"every is {self.choice.every}, but it must be 1 (all frames) or more")
        if run.camera is None:
            raise InputError(
                f"the run in '{run.path}' has no camera (status: {run.status}); expected a finished run; reconstruct "
                "again with --overwrite"
            )
        self.record = RunRecord(run)
        self.view = self.record.view
        kept = slice(None, None, self.choice.every)
        self.indices: list[int] = self.record.indices[kept]
        path = self.record.trajectory
        self.trajectory = Trajectory(path.times_ns[kept], path.world_from_cam[kept])
        size = self.view.crop[2:] if self.choice.full_size else (run.camera.width, run.camera.height)
        self.camera = run.camera.scaled(*size)

    @property
    def unit(self) -> str:
        """ "mm" or "up to scale"."""
        return self.run.unit

    @cached_property
    def has_depth(self) -> bool:
        """Whether every frame has a depth map."""
        return set(self.indices) <= set(self.run.depth_indices)

    @property
    def held_out(self) -> set[int]:
        """Indices of the frames that are kept for figures: every 8th, if there are that many."""
        return set(self.indices[::HELD_OUT_EVERY]) if len(self.indices) >= HELD_OUT_EVERY else set()

    # -- frames ---------------------------------------------------------------------------------------------------

    def shots(self, camera: Camera | None = None) -> Iterator[Shot]:
        """The frames in order of time, as `camera` sees them, which defaults to the run's own.

        Raises:
            InputError: the source is gone, or is another one.
        """
        clip, wanted = self._clip(), dict(zip(self.indices, self.trajectory.world_from_cam, strict=True))
        found, maps = 0, None if camera in (None, self.camera) else _maps(self.camera, camera or self.camera)
        for frame in clip.source.frames():
            if frame.index not in wanted:
                continue
            shot = self._shot(clip, frame, wanted[frame.index])
            yield shot if maps is None or camera is None else _seen_by(shot, camera, *maps)
            found += 1
            self._progress("exporting", found, len(wanted))
            if found == len(wanted):
                return
        if found < len(wanted):
            raise InputError(
                f"'{self.source_path}' has {found} of the {len(wanted)} frames of the run in '{self.run.path}'; "
                "expected the clip that it was made from; give it with --source"
            )

    @cached_property
    def source_path(self) -> Path:
        """Where the frames are read from.

        Raises:
            InputError: nothing is there.
        """
        told = self.run.info.get("config", {}).get("input")
        path = self.choice.source or (Path(str(told)) if told else None)
        if path is None or not path.expanduser().exists():
            raise InputError(
                f"the pictures of the run in '{self.run.path}' were read from '{path}', which is not there; give the "
                "video or folder with --source"
            )
        return path.expanduser()

    def _clip(self) -> Clip:
        config, view = self.run.info.get("config", {}), self.view
        every, most = int(config.get("every") or 1), config.get("max_frames")
        source = open_source(self.source_path, every, most, float(config.get("fps") or 30.0))
        if (source.width, source.height) != (view.source_width, view.source_height):
            raise InputError(
                f"'{self.source_path}' has frames of {source.width} x {source.height}, the run in '{self.run.path}' "
                f"was made from {view.source_width} x {view.source_height}; give its clip with --source"
            )
        probes = [view.apply(f) for f in source.sample(PROBES)]
        return Clip(source, view, overlay(probes), self.run.camera)

    def _shot(self, clip: Clip, frame: Frame, pose: NDArray[np.float64]) -> Shot:
        working = clip.worked(frame)
        rgb, use = working.rgb, working.use_mask
        depth = confidence = np.zeros(use.shape, np.float32)
        if frame.index in self.run.depth_indices:
            depth, confidence = self.run.depth(frame.index)
            good = (confidence > 0) & (depth > 0) & np.isfinite(depth)
            depth, confidence = np.where(good, depth, 0), np.where(good, confidence, 0)
        if self.choice.full_size:
            x, y, w, h = self.view.crop
            rgb = frame.rgb[y : y + h, x : x + w]
            resize = lambda m: cv2.resize(m, (w, h), interpolation=cv2.INTER_NEAREST)  # noqa: E731
            use, depth, confidence = resize(use.view(np.uint8)) > 0, resize(depth), resize(confidence)
        return Shot(frame.index, frame.time_ns, rgb, use, depth, confidence, self.camera, pose)

    # -- the scene ------------------------------------------------------------------------------------------------

    def mesh(self) -> Mesh:
        """The run's surface.

        Raises:
            InputError: there is none.
        """
        mesh = read_mesh(self.run.mesh_path) if self.run.mesh_path else None
        if mesh is None or not len(mesh.faces):
            raise InputError(
                f"the run in '{self.run.path}' has no surface (status: {self.run.status}); reconstruct it again"
            )
        return mesh

    def splats(self) -> Splats:
        """The run's Gaussians.

        Raises:
            InputError: there are none, or their file is damaged.
        """
        from endorecon.scenes._splat_model import read_splats

        file = self.run.path / "scene" / "splats.ply"
        if not file.is_file():
            raise InputError(
                f"the run in '{self.run.path}' has no Gaussians; reconstruct it with --scene splats, or export its "
                "frames and points for a training elsewhere: --to colmap, --to nerfstudio"
            )
        return read_splats(file)

    def points(self, number: int = POINTS) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Up to `number` points of the surface (N, 3) and their colours (N, 3); none where the run has no surface."""
        mesh = read_mesh(self.run.mesh_path) if self.run.mesh_path else None
        if mesh is None or not len(mesh.vertices):
            return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
        rows = np.sort(np.random.default_rng(0).permutation(len(mesh.vertices))[:number])
        colors = np.full((len(rows), 3), 128, np.uint8) if mesh.colors is None else mesh.colors[rows]
        return mesh.vertices[rows].astype(float), colors


# -- cameras ------------------------------------------------------------------------------------------------------


def common(camera: Camera) -> Camera:
    """The camera itself, or for a lens that few programs know a fisheye that sees about the same.

    The frames are resampled to the fisheye, so it need not be exact: its polynomial is fitted to the lens's radius by
    angle, over the image.
    """
    if camera.model != "omnidirectional":
        return camera
    w, h, (cx, cy) = camera.width, camera.height, camera.centre_px
    rays, radius = camera.ray_map().reshape(-1, 3).astype(float), np.linalg.norm(camera.pixels() - [cx, cy], axis=-1)
    theta, radius = np.arctan2(np.hypot(rays[:, 0], rays[:, 1]), rays[:, 2]), radius.ravel()
    good = np.isfinite(theta)
    powers = theta[good, None] ** [1, 3, 5, 7, 9]
    focal, *rest = np.linalg.lstsq(powers, radius[good], rcond=None)[0]
    fitted = Camera("fisheye", w, h, (focal, focal, cx, cy, *(k / focal for k in rest)))
    if np.isfinite(fitted.ray_map()).all():
        return fitted
    return Camera("fisheye", w, h, (camera.focal_px, camera.focal_px, cx, cy, 0, 0, 0, 0))


def _maps(camera: Camera, other: Camera) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel of the other camera, at the same place, is found in this one's image, and whether it is."""
    pixels, seen = camera.project(np.nan_to_num(other.ray_map(), nan=0.0))
    seen = seen & np.isfinite(other.ray_map()).all(-1)
    return (np.where(seen[..., None], pixels, -1) - 0.5).astype(np.float32), seen  # OpenCV counts from pixel centres


def _seen_by(shot: Shot, camera: Camera, at: NDArray[np.float32], seen: NDArray[np.bool_]) -> Shot:
    u, v = at[..., 0], at[..., 1]
    nearest = lambda image: cv2.remap(image, u, v, cv2.INTER_NEAREST) * seen  # noqa: E731
    return replace(
        shot,
        rgb=cv2.remap(shot.rgb, u, v, cv2.INTER_LINEAR),
        use_mask=nearest(shot.use_mask.view(np.uint8)) > 0,
        depth=nearest(shot.depth),
        confidence=nearest(shot.confidence),
        camera=camera,
    )


# -- files --------------------------------------------------------------------------------------------------------


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields a folder beside `out` that takes its place when the block ends well; otherwise nothing is left.

    Raises:
        InputError: `out` holds something already, or can't be written.
    """
    out = out.expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"the output '{out}' is there already; give a new or an empty folder with -o")
    partial = out.resolve().with_name(f".{out.resolve().name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if out.is_dir():
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        raise InputError(
            f"can't write to '{out}' ({error.strerror or error}); free some space or choose another folder with -o"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_image(path: Path, image: NDArray[np.generic]) -> None:
    """An image (H, W, 3) RGB or (H, W) as PNG, 8 or 16 bits; a mask as black and white."""
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    if not ok:
        raise InputError(f"'{path}' can't be encoded as a PNG; export again")
    path.write_bytes(data.tobytes())


def write_points(path: Path, points: NDArray[np.float64], colors: NDArray[np.uint8]) -> None:
    """A binary PLY of points with colours, of the kind that Open3D and plyfile read."""
    table = np.empty(len(points), [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")])
    for i, name in enumerate("xyz"):
        table[name] = points[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        table[name] = colors[:, i]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    head += [f"property float {n}" for n in "xyz"] + [f"property uchar {n}" for n in ("red", "green", "blue")]
    path.write_bytes(("\n".join([*head, "end_header"]) + "\n").encode("ascii") + table.tobytes())


def write_mesh(mesh: Mesh, path: Path) -> None:
    """A mesh in a form of trimesh's (.glb, .stl, .obj), by the suffix."""
    import trimesh

    colors = None if mesh.colors is None else np.c_[mesh.colors, np.full(len(mesh.colors), 255, np.uint8)]
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False)
    made.export(path)


def folders(out: Path, names: Sequence[str]) -> list[Path]:
    """These folders, made."""
    made = [out / name for name in names]
    for folder in made:
        folder.mkdir()
    return made
