"""A model of COLMAP (Schönberger and Frahm, CVPR 2016): cameras, images, points3D, with pictures and masks.

Lengths are the run's, pixels are as here: (0.5, 0.5) is the centre of the first. Points lie on the surface; a frame
observes those whose distance its depth map confirms.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endorecon.exports.base import Material, Shot, common, folders, write_image
from video_io.camera import Camera

if TYPE_CHECKING:
    import pycolmap

ABOUT = "COLMAP's model with pictures, masks and points, for 3DGS and for photogrammetry"
SEEN_WITHIN = 0.05  # of its distance a point must be where the depth map says
A_FRAME = 1000  # observations of it that are written


def export(material: Material, out: Path) -> str:
    """Write images/, masks/ (black is to be left out) and sparse/0/."""
    import pycolmap

    images, masks, _ = folders(out, ("images", "masks", "sparse"))
    camera = common(material.camera)
    points, colors = material.points()
    model = pycolmap.Reconstruction()
    name, params = colmap_camera(camera)
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model=name, width=camera.width, height=camera.height, params=params)
    )
    ids = [model.add_point3D(p, pycolmap.Track(), c) for p, c in zip(points, colors, strict=True)]
    for number, shot in enumerate(material.shots(camera), 1):
        write_image(images / f"{shot.name}.png", shot.rgb)
        write_image(masks / f"{shot.name}.png.png", shot.use_mask)
        _add(model, number, shot, points, ids)
    place = out / "sparse" / "0"
    place.mkdir()
    model.write(place)
    return f"sparse/0 opens in COLMAP (import model) and in trainers of Gaussians; lengths: {material.unit}"


def colmap_camera(camera: Camera) -> tuple[str, list[float]]:
    """COLMAP's name for a camera, and its parameters.

    Raises:
        ValueError: an omnidirectional camera.
    """
    p = list(camera.params)
    if camera.model == "pinhole":
        return "PINHOLE", p
    if camera.model == "fisheye":
        return "OPENCV_FISHEYE", p
    if camera.model == "brown":
        return ("FULL_OPENCV", [*p, 0.0, 0.0, 0.0]) if p[8] else ("OPENCV", p[:8])
    raise ValueError(f"COLMAP has no {camera.model} camera")


def _add(
    model: pycolmap.Reconstruction, number: int, shot: Shot, points: NDArray[np.float64], ids: list[Any]
) -> None:  # fmt: skip
    """Add a frame with the points that it sees."""
    import pycolmap

    pixels, rows = observed(shot, points, number)
    seen = [pycolmap.Point2D(xy) for xy in pixels]
    cam_from_world = pycolmap.Rigid3d(np.linalg.inv(shot.world_from_cam)[:3])
    image = pycolmap.Image(image_id=number, name=f"{shot.name}.png", camera_id=1, points2D=seen)
    model.add_image_with_trivial_frame(image, cam_from_world)
    for at, row in enumerate(rows):
        model.add_observation(ids[row], pycolmap.TrackElement(number, at))


def observed(shot: Shot, points: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels (K, 2) of the points that a frame sees, and their rows (K,); at most `A_FRAME`, drawn by `seed`."""
    if not len(points):
        return np.zeros((0, 2)), np.zeros(0, np.int64)
    local = (points - shot.world_from_cam[:3, 3]) @ shot.world_from_cam[:3, :3]
    pixels, seen = shot.camera.project(local)
    rows = np.flatnonzero(seen & (local[:, 2] > 0))
    u, v = np.minimum(pixels[rows].astype(int), [shot.camera.width - 1, shot.camera.height - 1]).T
    depth = shot.depth[v, u]
    rows = rows[(np.abs(local[rows, 2] - depth) < SEEN_WITHIN * depth) & shot.use_mask[v, u]]
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:A_FRAME])
    return pixels[rows], rows
