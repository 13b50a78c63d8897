"""The colour of a surface without the light: as a lamp of the same strength would show every place from the same
distance and square on."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.shading.lamp import Lamp
from endorecon.shading.views import View, in_camera, sample
from rendering.mesh import Mesh
from video_io.camera import Camera

Float = NDArray[np.float64]
Index = NDArray[np.int64]
MOST_VIEWS = 48
LEAST_VIEWS = 3
BLUR_PX = 0.7


def without_light(
    mesh: Mesh, camera: Camera, views: Sequence[View], sight: Sequence[Index], exposures: Sequence[float], lamp: Lamp
) -> NDArray[np.uint8] | None:
    """(V, 3) colours: of each vertex the median over the views, with the lamp's and the exposure's share taken out.

    Their middle brightness is that of the mesh's own colours, which stay where fewer than three views tell. None where
    the mesh has no colours.

    Args:
        mesh: the surface.
        camera: of the views.
        views, sight: and the vertices that each sees.
        exposures: of each view, log.
        lamp: its share.
    """
    if mesh.colors is None:
        return None
    x, normals = mesh.vertices.astype(np.float64), mesh.vertex_normals
    chosen = np.unique(np.linspace(0, len(views) - 1, min(MOST_VIEWS, len(views))).astype(int)).tolist()
    logs = np.full((len(chosen), len(x), 3), np.nan, np.float32)
    for row, k in enumerate(chosen):
        view, at = views[k], sight[k]
        points, towards = in_camera(view.world_from_cam, x[at], normals[at])
        uv, inside = camera.project(points)
        rgb = cv2.GaussianBlur(view.frame.rgb, (0, 0), BLUR_PX).astype(np.float32)
        image = np.concatenate([np.log(np.maximum(rgb, 1)), view.usable[..., None]], -1, dtype=np.float32)
        seen = sample(image, np.where(inside[:, None], uv, 0))
        log = seen[:, :3] - (lamp.shade(points, towards).value + exposures[k])[:, None]
        logs[row, at] = np.where((inside & (seen[:, 3] > 0.99))[:, None], log, np.nan)
    count = np.isfinite(logs[..., 0]).sum(0)
    logs.sort(0)  # what is not known comes last
    middle = np.take_along_axis(logs, np.maximum(count - 1, 0)[None, :, None] // 2, 0)[0]
    known = count >= LEAST_VIEWS
    if not known.any():
        return mesh.colors
    green = np.log(np.maximum(mesh.colors[known, 1].astype(np.float32), 1))
    level = float(np.median(green) - np.median(middle[known, 1]))
    colors = mesh.colors.copy()
    colors[known] = np.clip(np.exp(middle[known] + level) + 0.5, 0, 255).astype(np.uint8)
    return colors
