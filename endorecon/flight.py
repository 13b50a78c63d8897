"""A clip of a run's Gaussians, flown through along a path."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from endorecon.run import Run
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from endorecon.scenes._splat_light import Light
    from endorecon.scenes._splat_model import Splats

PATHS = ("original", "orbit")
LAYERS = ("color", "depth", "normals")
ORBIT_FRAMES, ORBIT_RADIUS = 120, 0.15  # the radius in depths of what is looked at


def fly(
    run: Run, path: str, layer: str, out: Path, fps: float, progress: Callable[[str, int, int | None], None]
) -> int:  # fmt: skip
    """Render the Gaussians of a run to a video; returns the number of frames.

    Those that move do so in the clip's time on the original path, and once through it on any other.

    Args:
        path: "original", the camera's own; "orbit", a circle about where it was in the middle of the clip, looking at
            what it saw; or a file with a TUM trajectory.
        layer: "color", lit as the clip was; "depth", near red to far blue; or "normals", x, y, z as red, green, blue.
        out: the video, H.264.

    Raises:
        InputError: a run without Gaussians or poses, a path or layer that is not known, a video that can't be written.
    """
    from rendering.phantom.clip import Video

    if layer not in LAYERS:
        raise InputError(f"layer '{layer}' is not known; choose one of {', '.join(LAYERS)}")
    if out.suffix != ".mp4":
        raise InputError(f"the output '{out}' is to be a video; give a name that ends in .mp4")
    file = run.path / "scene" / "splats.ply"
    if not file.is_file() or run.camera is None or not len(run.trajectory):
        raise InputError(
            f"the run in '{run.path}' has no Gaussians to render; reconstruct it with --scene splats first"
        )
    camera, light = _straight(run.camera), _light(run)
    poses = _poses(run, path, light)
    seen = zip(_moments(run, file, path, len(poses)), poses, strict=True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Video(out, camera.width // 2 * 2, camera.height // 2 * 2, fps) as video:
            for number, picture in enumerate(_pictures(seen, camera, layer, light), 1):
                video.write(np.ascontiguousarray(picture[: camera.height // 2 * 2, : camera.width // 2 * 2]))
                progress("rendering", number, len(poses))
    except OSError as error:
        raise InputError(f"can't write '{out}' ({error.strerror or error}); choose another place with --out") from error
    return len(poses)


def _moments(run: Run, file: Path, path: str, count: int) -> Iterator[Splats]:
    """The Gaussians of each of `count` pictures."""
    from endorecon.scenes._motion import FILE, read_motion
    from endorecon.scenes._splat_model import read_scene

    still = read_scene(file.parent)
    if not (file.parent / FILE).is_file():
        return itertools.repeat(still, count)
    moving, times = read_motion(still, file.parent / FILE), run.trajectory.times_ns
    if path != "original":
        times = np.linspace(times[0], times[-1], count)
    return (moving.at(time_ns) for time_ns in times)


def _pictures(
    seen: Iterable[tuple[Splats, NDArray[np.float64]]], camera: Camera, layer: str, light: Light | None
) -> Iterator[NDArray[np.uint8]]:  # fmt: skip
    import cv2

    far = 0.0
    for splats, pose in seen:
        layers = splats.render(camera, pose)
        depth = layers.depth.numpy()
        if layer == "depth":
            # The range is the first frame's, so that colours mean the same throughout.
            far = far or float(np.percentile(depth, 98)) or 1.0
            yield cv2.applyColorMap(np.uint8(255 * np.clip(1 - depth / far, 0, 1)), cv2.COLORMAP_TURBO)[..., ::-1]
        elif layer == "normals":
            assert layers.normals is not None
            yield np.uint8(np.clip(127.5 * (layers.normals.numpy() + 1), 0, 255))
        else:
            color = layers.color.numpy()
            color = color if light is None else color * light.factor(depth)[..., None]
            yield np.uint8(np.rint(255 * np.clip(color, 0, 1)))


def _poses(run: Run, path: str, light: Light | None) -> NDArray[np.float64]:
    if path == "original":
        return run.trajectory.world_from_cam
    if path == "orbit":
        middle = run.trajectory.world_from_cam[len(run.trajectory) // 2]
        return np.stack([middle @ pose for pose in _circle(light.usual if light else _depth(run))])
    try:
        poses = Trajectory.read_tum(Path(path).expanduser()).world_from_cam
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"the path '{path}' is neither {' nor '.join(PATHS)} nor a TUM trajectory that can be read ({reason})"
        ) from error
    if not len(poses):
        raise InputError(f"the path '{path}' has no poses; expected lines of time, position and quaternion")
    return poses


def _circle(depth: float) -> Iterator[NDArray[np.float64]]:
    """Poses, camera's frame, on a circle across the axis that look at the point on it at this depth."""
    for angle in np.linspace(0, 2 * np.pi, ORBIT_FRAMES, endpoint=False):
        centre = ORBIT_RADIUS * depth * np.array([np.cos(angle), np.sin(angle), 0])
        z = np.array([0, 0, depth]) - centre
        z /= np.linalg.norm(z)
        x = np.cross([0, 1, 0], z)
        x /= np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3] = np.stack([x, np.cross(z, x), z, centre], 1)
        yield pose


def _depth(run: Run) -> float:
    depth, confidence = run.depth(run.depth_indices[len(run.depth_indices) // 2])
    return float(np.median(depth[confidence > 0]))


def _light(run: Run) -> Light | None:
    from endorecon.scenes._splat_light import Light

    found = run.info.get("splats", {}).get("light")
    return Light(float(found["usual_depth"]), np.array(found["law"], float)) if found else None


def _straight(camera: Camera) -> Camera:
    """The camera, or the pinhole with which its Gaussians were trained."""
    return camera if camera.model in ("pinhole", "fisheye") else camera.straightened()
