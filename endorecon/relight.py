"""A run's frames under another light.

A frame's own pixels are kept as sharp as they are: their radiance, less the highlight, over the light that by the model
fell on them is albedo; that albedo is lit anew. Where a pixel says nothing (a highlight, clipped, no surface's light)
the mesh's albedo stands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.lighting import FOLDER, Lamp, Lighting, LitScene, LitView, is_lighting
from endorecon.run import Run
from rendering.mesh import read_mesh
from video_io.errors import InputError
from video_io.frame import Frame

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]
Progress = Callable[[str, int, int | None], None]

LIGHTS = ("same", "moved", "wide", "second", "no-highlights", "albedo", "depth", "normals")
MOVED, SECOND = 0.35, 0.6  # how far to the side, in median distances between lens and tissue
ROOM = 0.8  # share of the way to the tissue that a lamp may be moved
WIDE = 0.15  # share of the beam's exponent
MOST_DETAIL = 2.0  # a pixel's albedo is believed up to this factor from the mesh's
BACKGROUND = 24


@dataclass(frozen=True)
class Relit:
    """A frame and what became of it, (H, W, 3) uint8 by the light's name."""

    frame: Frame
    pictures: dict[str, Image]


def lighting_of(run: Run, input: Path | None, progress: Progress) -> Lighting:
    """The lighting that the run has, or a new one, which is then saved in it.

    Raises:
        InputError: see `estimate_lighting`.
    """
    folder = run.path / FOLDER
    if is_lighting(folder):
        return Lighting.load(folder)
    from endorecon.light.estimate import estimate_lighting

    found = estimate_lighting(run, input, progress=progress)
    found.save(folder)
    return found


def relit(
    run: Run, lighting: Lighting, lights: Sequence[str], input: Path | None = None, every: int = 1,
    progress: Progress = lambda *_: None,
) -> Iterator[Relit]:  # fmt: skip
    """The frames of a run under lights of `LIGHTS`, in order.

    Raises:
        InputError: a light that is not known; a run without mesh or pictures.
    """
    from endorecon.light.estimate import frame_poses, shading_normals
    from endorecon.run_frames import run_clip, run_frames

    if unknown := [light for light in lights if light not in LIGHTS]:
        raise InputError(f"light '{unknown[0]}' is not known; choose one of {', '.join(LIGHTS)}")
    if run.mesh_path is None:
        raise InputError(f"the run in '{run.path}' has no mesh to light; reconstruct it first")
    poses = frame_poses(run)
    mesh = read_mesh(run.mesh_path)
    scene = LitScene(lighting, mesh, normals=shading_normals(mesh))
    indices = sorted(poses)[::every]
    reach = 0.0
    for number, frame in enumerate(run_frames(run_clip(run, input), indices)):
        pose = poses[frame.index]
        assert frame.camera is not None
        seen = scene.view(frame.camera, pose, frame=frame.index)
        reach = reach or _usual(seen.depth)
        turn = 2 * math.pi * number / max(len(indices), 2)
        yield Relit(frame, {light: _picture(scene, seen, frame, pose, light, reach, turn) for light in lights})
        progress("rendering", number + 1, len(indices))


def another(lamp: Lamp, light: str, reach: float, turn: float = 0.0, room: float = math.inf) -> Lamp:
    """The lamp moved in a circle, made wide, or with a second one beside it.

    Args:
        reach: the usual distance of the tissue.
        turn: of the place aside, rad.
        room: how far it is to the tissue that way: a lamp stays before it.
    """
    aside = _aside(turn)
    if light == "moved":
        at = lamp.position + min(MOVED * reach, ROOM * room) * aside
        towards = np.array([0.0, 0.0, reach]) - at
        return replace(lamp, position=at, axis=towards / np.linalg.norm(towards, axis=1, keepdims=True))
    if light == "wide":
        return replace(lamp, exponent=WIDE * lamp.exponent)
    if light == "second":
        return lamp.with_second(another(replace(lamp), "moved", reach * SECOND / MOVED, turn, room))
    return lamp


def _aside(turn: float) -> Float:
    return np.array([math.cos(turn), math.sin(turn), 0.0])


def _picture(
    scene: LitScene, seen: LitView, frame: Frame, pose: Float, light: str, reach: float, turn: float
) -> Image:  # fmt: skip
    there, lighting = seen.depth > 0, scene.lighting
    if light == "depth":
        level = np.uint8(255 * np.clip(1 - seen.depth / (2.5 * reach), 0, 1))
        return _on_dark(cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1], there)
    if light == "normals":
        return _on_dark(np.uint8(np.clip(127.5 * (seen.normals * [1, -1, -1] + 1), 0, 255)), there)
    albedo = pixel_albedo(lighting, seen, frame)
    if light == "albedo":
        return _on_dark(np.uint8(255 * np.clip(albedo, 0, 1) ** (1 / 2.2) + 0.5), there)
    new = seen
    if light not in ("same", "no-highlights"):
        assert frame.camera is not None
        room = scene.room(pose, _aside(turn))
        new = scene.view(frame.camera, pose, another(lighting.lamp, light, reach, turn, room), frame.index)
    radiant = albedo * _irradiance(new) + (0 if light == "no-highlights" else new.mirrored)
    gains = lighting.gains(frame.index)
    if light in ("second", "wide", "moved"):
        # Automatic exposure would bring the picture back to its usual brightness.
        gains = gains * np.median(seen.linear_rgb[there].mean(-1)) / max(np.median(radiant[there].mean(-1)), 1e-12)
    return _on_dark(lighting.displayed(radiant.astype(np.float32), gains), there)


def pixel_albedo(lighting: Lighting, seen: LitView, frame: Frame) -> Float32:
    """(H, W, 3) linear albedo of a frame's pixels, the mesh's where they don't tell it."""
    import torch

    from rendering.physics import image_places

    value = torch.tensor(frame.rgb.astype(np.float32) / 255)
    gains = torch.tensor(lighting.gains(frame.index).astype(np.float32))
    radiant = lighting.response().linear(value, gains, image_places(frame.width, frame.height)).numpy()
    own = (radiant - seen.mirrored) / np.maximum(_irradiance(seen), 1e-9)
    mesh = np.maximum(seen.albedo, 1e-3)
    ratio = np.clip(own / mesh, 1 / MOST_DETAIL, MOST_DETAIL)
    level = frame.rgb.max(-1)
    # What is clipped is at least as pale as it looks.
    ratio = np.where((frame.rgb >= 250).any(-1, keepdims=True), np.maximum(ratio, 1), ratio)
    told = frame.use_mask & ~frame.specular_mask & (level > 8) & (seen.reached > 0)
    # A model's highlight that is about as bright as the rest is not subtracted to the point.
    told &= seen.mirrored.max(-1) < 0.5 * np.maximum(seen.linear_rgb.max(-1), 1e-9)
    share = cv2.GaussianBlur(cv2.erode(told.astype(np.float32), np.ones((3, 3))), (0, 0), 1.5)[..., None]
    return (mesh * (share * ratio + (1 - share))).astype(np.float32)


def write_clip(
    run: Run, lighting: Lighting, light: str, out: Path, input: Path | None, fps: float, every: int, progress: Progress
) -> tuple[int, list[Path]]:  # fmt: skip
    """Write the relit frames as a video, and three of them as stills; returns their number and the stills' names.

    Raises:
        InputError: see `relit`; or the video can't be written.
    """
    from endorecon.light.estimate import frame_poses
    from rendering.phantom.clip import Video

    if out.suffix != ".mp4" or every < 1 or not fps > 0:
        raise InputError(
            f"expected a video whose name ends in .mp4, a positive rate and a step of at least 1, found '{out.name}', "
            f"{fps:g} and {every}"
        )
    pictures = relit(run, lighting, [light], input, every, progress)
    if (first := next(pictures, None)) is None:
        raise InputError(f"the run in '{run.path}' has no frame to show; reconstruct it again")
    height, width = (n // 2 * 2 for n in first.frame.rgb.shape[:2])
    count = len(range(0, len(frame_poses(run)), every))
    kept, number, names = {0, count // 2, count - 1}, 0, []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Video(out, width, height, fps) as video:
            for number, picture in enumerate(chain([first], pictures)):
                video.write(np.ascontiguousarray(picture.pictures[light][:height, :width]))
                if number in kept:
                    names.append(out.with_name(f"{out.stem}_{picture.frame.index:06d}.png"))
                    _write(names[-1], picture.pictures[light])
    except OSError as error:
        raise InputError(f"can't write '{out}' ({error.strerror or error}); choose another place with --out") from error
    return number + 1, names


def sheet(run: Run, lighting: Lighting, out: Path, input: Path | None = None, rows: int = 3) -> None:
    """One picture of the frame and all of `LIGHTS`, for a few frames."""
    from endorecon.light.estimate import frame_poses

    every = max(1, len(frame_poses(run)) // rows)
    lines = [
        np.hstack([picture.frame.rgb, *(picture.pictures[light] for light in LIGHTS)])
        for picture in relit(run, lighting, LIGHTS, input, every)
    ][:rows]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't write '{out}' ({error.strerror}); choose another place with --out") from error
    _write(out, np.vstack(lines))


def _write(path: Path, rgb: Image) -> None:
    if not cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise InputError(f"'{path}' can't be written; is the disk full?")


def _irradiance(seen: LitView) -> Float32:
    """(H, W, 3) what white tissue would send, so that radiance is albedo times this and the highlight."""
    return (seen.linear_rgb - seen.mirrored) / np.maximum(seen.albedo, 1e-6)


def _usual(depth: Float32) -> float:
    return float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0


def _on_dark(rgb: NDArray[np.uint8], there: NDArray[np.bool_]) -> Image:
    return np.where(there[..., None], rgb, BACKGROUND).astype(np.uint8)
