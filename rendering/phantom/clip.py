"""`simulate`: a phantom clip with its exact truth, written frame by frame.

clip/
    rgb/0000.jpg      image, JPEG quality 95
    video.mp4         the same images, H.264 without B-frames
    depth/0000.png    16 bit, z in mm = value / depth_scale, 0 = none (no surface, or outside the field of view)
    normals/0000.png  8 bit, camera frame, value = 255 (n + 1) / 2; the geometry's, without the shading's fine relief
    albedo/0000.png   8 bit, as displayed with gamma 2.2
    poses.txt         TUM: time_s tx ty tz qx qy qz qw, camera to world, mm
    intrinsics.json   Camera.to_dict() and depth_scale (stored steps a mm)
    mesh.ply          the anatomy, mm, world
    tracks.npz        of tissue that moves: points (T, P, 3), mm, world, of P points of the surface in each frame, and
                      whether it shows them, visible (T, P); mesh.ply is the tissue at rest
    phantom.json      what it was made from: scene, seed, frames, fps, field of view, motion
    terms.txt         terms of use
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rendering.light import SpotLight
from rendering.phantom import anatomy as anatomies
from rendering.phantom.layout import DEPTH_SCALES, ClipFiles, Facts, Video
from rendering.phantom.material import Material
from rendering.phantom.motion import NAMES, Motion, MotionName
from rendering.phantom.motion import motion as make_motion
from rendering.phantom.render import Look, Renderer
from rendering.phantom.scene import Anatomy
from rendering.phantom.vary import field_mask
from rendering.shade import Response
from video_io.camera import Camera
from video_io.errors import InputError

__all__ = ["Clip", "ClipFrame", "Video", "prepare", "simulate"]

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

TRACKS = 500  # points of moving tissue whose way is written
TERMS = """Rendered by endorecon (`endorecon simulate`) from a procedural anatomy. It shows no patient and no
scanned object. Public domain (CC0 1.0): use it for anything.
"""
_ATTEMPTS = 12


@dataclass(frozen=True)
class ClipFrame:
    """A simulated frame with its truth.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32, z in mm; 0 where there is none (no surface, or outside the field of view).
        normals: (H, W, 3) float32, camera frame.
        albedo: (H, W, 3) float32, linear.
        world_from_cam: (4, 4) float64, mm.
    """

    rgb: NDArray[np.uint8]
    depth: Float32
    normals: Float32
    albedo: Float32
    world_from_cam: Float


@dataclass(frozen=True)
class Clip:
    """A clip that is ready to be rendered: all that follows from the scene's name and the seed.

    Attributes:
        renderer: of the anatomy.
        camera: of the images.
        poses: world_from_cam (N, 4, 4).
        look, response: how it is dressed, lit and recorded.
        mask: (H, W) bool, True inside the field of view.
        seed: of the sensor's noise.
        farthest_mm: about the largest depth in the clip.
        fps: frames a second.
        motion: of the tissue; None while it is at rest.
    """

    renderer: Renderer
    camera: Camera
    poses: Float
    look: Look
    response: Response
    mask: NDArray[np.bool_]
    seed: int
    farthest_mm: float
    fps: float = 30.0
    motion: Motion | None = None

    def tracks(self, count: int) -> tuple[Float, NDArray[np.bool_]]:
        """Points of the surface in every frame, (T, P, 3) mm world, and which of them it shows, (T, P).

        They are `count` points, or fewer, that the middle frame sees.
        """
        middle = len(self.poses) // 2
        rest = self._at(middle).rest_points(self.camera, self.poses[middle])[self.mask]
        rest = rest[np.isfinite(rest[:, 0])].astype(float)
        rest = np.random.default_rng((self.seed, 3)).permutation(rest)[:count]
        points, visible = np.empty((len(self.poses), *rest.shape)), np.zeros((len(self.poses), len(rest)), bool)
        cosine = np.nan_to_num(self.camera.ray_map()[..., 2])
        for i, pose in enumerate(self.poses):
            points[i] = rest if self.motion is None else self.motion.moved(rest, i / self.fps)
            local = (points[i] - pose[:3, 3]) @ pose[:3, :3]
            pixels, seen = self.camera.project(local)
            column, row = np.where(seen[:, None], pixels, 0).astype(int).T
            depth = (self._at(i).distances(self.camera, pose)[0] * cosine)[row, column]
            visible[i] = seen & self.mask[row, column] & (local[:, 2] < 1.02 * depth)
        return points, visible

    def _at(self, number: int) -> Renderer:
        """The anatomy at a frame's time."""
        if self.motion is None:
            return self.renderer
        return self.renderer.displaced(self.motion.moved(self.renderer.anatomy.vertices, number / self.fps))

    def frames(self) -> Iterator[ClipFrame]:
        """Render frame after frame; the same again on every call."""
        rng = np.random.default_rng((self.seed, 2))
        cosine = np.nan_to_num(self.camera.ray_map()[..., 2])
        exposure = None
        for number, pose in enumerate(self.poses):
            view = self._at(number).render(self.camera, pose, self.look)
            exposure = self.response.exposure(view.linear_rgb * self.mask[..., None], exposure)
            rgb = self.response.develop(view.linear_rgb, exposure, rng)
            rgb[~self.mask] = 0
            depth = np.where(self.mask, np.maximum(view.distance * cosine, 0), 0).astype(np.float32)
            yield ClipFrame(rgb, depth, view.normals, view.albedo, pose)


def prepare(
    scene: str, seed: int, frames: int, camera: Camera | None = None, fps: float = 30.0, field_of_view: str = "none",
    motion: MotionName = "none", still: bool = False,
) -> Clip:  # fmt: skip
    """Build an anatomy, dress it as its kind usually looks, and find a camera path that stays in the air.

    Without a camera it is a pinhole of 320 x 256 pixels and 95 degrees (abdomen and tissue: 65 degrees) across.
    `motion` is the tissue's; a `still` camera stays where the path is half way.

    Raises:
        InputError: an unknown scene, field of view or motion, or numbers that make no clip.
    """
    if scene not in anatomies.names():
        raise InputError(f"scene '{scene}' is not known; give one of {', '.join(anatomies.names())}")
    if frames < 1 or fps <= 0:
        raise InputError(
            f"a clip needs at least 1 frame and a positive rate, found {frames} frames at {fps:g} a second"
        )
    if motion not in NAMES:
        raise InputError(f"motion '{motion}' is not known; give one of {', '.join(NAMES)}")
    if camera is None:
        camera = Camera.from_fov(320, 256, np.radians(65 if scene in ("abdomen", "tissue") else 95))
    if camera.width % 2 or camera.height % 2:
        raise InputError(
            f"a video's width and height must be even, found {camera.width} x {camera.height}; change the camera"
        )
    try:
        mask = field_mask(field_of_view, camera)
    except ValueError as error:
        raise InputError(str(error)) from error
    rng = np.random.default_rng((seed, 1))
    while True:
        renderer = Renderer(anatomies.build(scene, rng))
        poses, farthest = _clear_path(renderer, camera, rng, frames, fps)
        if len(poses):
            break
    look = _usual_look(rng, renderer.anatomy)
    if still:
        poses = np.repeat(poses[[len(poses) // 2]], frames, 0)
    response = Response(read_noise=0.005, shot_noise=0.008)
    clip = Clip(renderer, camera, poses, look, response, mask, seed, farthest, fps)
    return clip if motion == "none" else replace(clip, motion=_motion(clip, motion))


def simulate(
    scene: str, seed: int, frames: int, camera: Camera | None, fps: float, out: Path,
    field_of_view: str = "none", extras: bool = True, progress: Callable[[int], None] | None = None,
    motion: MotionName = "none", still: bool = False,
) -> Path:  # fmt: skip
    """Write a clip in the layout above. Memory does not grow with `frames`; 8 to 10 frames of 320 x 256 a second on one
    core, with all the extras.

    Args:
        scene: name of an anatomy: abdomen, colon, passage, plaster, tissue.
        seed: everything random follows from it.
        camera: pinhole or any other model; None for the usual one.
        out: a folder that is empty or does not exist.
        field_of_view: none, circle, octagon or rounded: the part of the image that the optics fill.
        extras: also write normals and albedo.
        progress: called with the number of finished frames.
        motion, still: what the tissue does (`rendering.phantom.motion`), and whether the camera stands still.

    Returns:
        The folder.

    Raises:
        InputError: see `prepare`; or the folder can't be used.
    """
    clip = prepare(scene, seed, frames, camera, fps, field_of_view, motion, still)
    scale = next((s for s in DEPTH_SCALES if clip.farthest_mm * s < 65535), DEPTH_SCALES[-1])
    made_from = {
        "scene": scene, "seed": seed, "frames": frames, "fps": fps, "field_of_view": field_of_view,
        "motion": motion, "still": still,
    }  # fmt: skip
    anatomy = clip.renderer.anatomy
    facts = Facts(clip.camera, clip.poses, fps, scale, made_from, TERMS, anatomy.vertices, anatomy.faces)
    with ClipFiles(out, facts, ("normals", "albedo") if extras else ()) as files:
        if clip.motion is not None:
            points, visible = clip.tracks(TRACKS)
            np.savez_compressed(files.path / "tracks.npz", points=points.astype(np.float32), visible=visible)
        for i, frame in enumerate(clip.frames()):
            further = {}
            if extras:
                further["normals"] = np.round((frame.normals + 1) * 127.5).astype(np.uint8)
                further["albedo"] = np.round(np.clip(frame.albedo, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
            files.add(frame.rgb, frame.depth, **further)
            if progress is not None:
                progress(i + 1)
    return files.path


def _clear_path(
    renderer: Renderer, camera: Camera, rng: np.random.Generator, frames: int, fps: float
) -> tuple[Float, float]:
    """A path of which every pose sees surfaces from the air and from not too near, and the farthest distance on it.

    Calmer and calmer movements are tried. Where none is clear to its end, the longest clear piece is gone to and fro.
    """
    small = camera.scaled(max(camera.width // 8, 8), max(camera.height // 8, 8))
    best, farthest = np.empty((0, 4, 4)), 0.0
    for attempt in range(_ATTEMPTS):
        poses = renderer.anatomy.path.poses(rng, frames, fps, 0.85**attempt)
        run, reach = 0, 0.0
        for i, pose in enumerate(poses):
            distance, inside_out = renderer.distances(small, pose)
            # The view is sampled coarsely, hence the margin on the nearest distance.
            clear = inside_out < 0.004 and distance.min() > 1.2 * renderer.anatomy.nearest_mm
            run = run + 1 if clear else 0
            reach = max(reach, float(distance.max())) if clear else 0.0
            if run > len(best):
                best, farthest = poses[i + 1 - run : i + 1], reach
            if run + len(poses) - 1 - i <= len(best):
                break
        if len(best) == frames:
            break
    if len(best) < min(frames, max(2, int(fps))):
        return np.empty((0, 4, 4)), 0.0
    there_and_back = np.concatenate([best, best[-2:0:-1]]) if len(best) > 2 else best
    return there_and_back[np.arange(frames) % len(there_and_back)], 1.2 * farthest


def _motion(clip: Clip, name: MotionName) -> Motion:
    """A motion about what the first frame shows in its middle."""
    pose, camera = clip.poses[0], clip.camera
    rest = clip.renderer.rest_points(camera, pose)
    row, column = camera.height // 2, camera.width // 2
    distance = float(np.linalg.norm(rest[row, column] - pose[:3, 3]))
    across, down = rest[row, column + 3] - rest[row, column - 3], rest[row + 3, column] - rest[row - 3, column]
    normal = np.cross(down, across).astype(float)
    return make_motion(
        name, rest[row, column].astype(float), normal / np.linalg.norm(normal), distance,
        np.random.default_rng((clip.seed, 4)),
    )  # fmt: skip


def _usual_look(rng: np.random.Generator, anatomy: Anatomy) -> Look:
    """Dressed as the kind usually looks, with vessels, lit from both sides of the lens."""

    def alive(m: Material) -> Material:
        share, width = max(m.vessel_share, 0.5), min(m.vessel_width, 0.05)
        return replace(m, vessel_share=share, vessel_width=width, pool_level=3.0, film=max(m.film, 0.7))

    dead = ("metal", "plastic", "plaster")
    dressed = zip(anatomy.dressed(rng, usual=True), anatomy.kinds, strict=True)
    materials = tuple(m if kinds[0] in dead else alive(m) for m, kinds in dressed)
    side = min(2.0, 0.15 * anatomy.scale_mm)
    lights = tuple(SpotLight((x, 0.0, 0.0), exponent=1.0, cutoff_rad=float(np.radians(110))) for x in (-side, side))
    return Look(materials, lights, int(rng.integers(1 << 24)))
