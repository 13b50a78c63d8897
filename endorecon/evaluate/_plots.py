"""The plots of the evaluation's page: errors over time, paths, error maps, distances on a mesh."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.views._drawing import nice_number
from rendering.mesh import Caster, Mesh
from video_io.camera import Camera

Float = NDArray[np.float64]
Image = NDArray[np.uint8]
ERROR_COLORS = cv2.COLORMAP_INFERNO
DISTANCE_COLORS = cv2.COLORMAP_TURBO
SIZE = (560, 400)
_BACKGROUND = (24, 26, 31)
_NONE = 70  # grey of what is not known


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 2, 3, 5, 8 times a power of ten that is not below `value`."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(k * power for k in (1, 2, 3, 5, 8, 10) if k * power >= value * (1 - 1e-9)))


def error_svg(x: Float, values: Float, name: str, unit: str, x_unit: str, marks: dict[str, int] | None = None) -> str:
    """An error over time from zero up, with its mean, and spots on some values by name."""
    width, height, left, bottom, top = 440, 150, 46, 20, 10
    high = nice_ceiling(float(values.max()) * 1.04)
    begin, end = float(x[0]), max(float(x[-1]), float(x[0]) + 1e-9)

    def px(v: float) -> float:
        return left + (v - begin) / (end - begin) * (width - left - 8)

    def py(v: float) -> float:
        return height - bottom - v / high * (height - top - bottom)

    label = html.escape(f"{name}, {unit}" if unit else name)
    lines = "".join(
        f'<path d="M{left} {py(v):.1f}H{width - 8}" class="axis"/>'
        f'<text x="{left - 5}" y="{py(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (0.0, high / 2, high)
    )
    step = float(np.median(np.diff(x))) if len(x) > 1 else 1.0
    pieces = "".join(
        f"{'M' if i == 0 or x[i] - x[i - 1] > 3.5 * step else 'L'}{px(v):.1f} {py(e):.1f}"
        for i, (v, e) in enumerate(zip(x.tolist(), values.tolist(), strict=True))
    )
    mean = float(values.mean())
    spots = "".join(
        f'<circle cx="{px(x[i]):.1f}" cy="{py(values[i]):.1f}" r="3" class="spot"/>'
        f'<text x="{np.clip(px(x[i]), left + 18, width - 28):.1f}" y="{max(py(values[i]) - 7, 9):.1f}" '
        f'text-anchor="middle">{html.escape(word)}</text>'
        for word, i in (marks or {}).items()
    )
    return (
        f'<figure><figcaption>{label} <span class="soft">· mean {mean:.4g}</span></figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label} over time">{lines}'
        f'<path d="M{left} {py(mean):.1f}H{width - 8}" class="mean"/><path d="{pieces}" class="line"/>{spots}'
        f'<text x="{left}" y="{height - 5}">{begin:g}</text>'
        f'<text x="{width - 8}" y="{height - 5}" text-anchor="end">{end:.4g} {html.escape(x_unit)}</text></svg>'
        "</figure>"
    )


def paths_svg(ours: Float, truth: Float, up: bool, names: tuple[str, str], unit: str) -> str:
    """Two paths (N, 2) of the same moments: the true one and ours, and thin lines between where they part.

    Args:
        up: whether the second coordinate points up in the picture (else down).
    """
    width, height, margin = 440, 320, 30
    both = np.concatenate([ours, truth]) * [1, -1 if up else 1]
    low, high = both.min(0), both.max(0)
    span = np.maximum(high - low, 1e-9 + 0.02 * float((high - low).max()))
    scale = min((width - 2 * margin) / span[0], (height - 2 * margin - 14) / span[1])
    at = (both - (low + high) / 2) * scale + [width / 2, height / 2 - 7]
    a, b = at[: len(ours)], at[len(ours) :]
    every = max(1, len(a) // 60)
    gaps = "".join(f"M{p[0]:.1f} {p[1]:.1f}L{q[0]:.1f} {q[1]:.1f}" for p, q in zip(a[::every], b[::every], strict=True))
    bar = nice_number(70 / scale)
    arrow = "↑" if up else "↓"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="estimated and true path, {names[0]}, {names[1]}">'
        f'<path d="{gaps}" class="gap"/><polyline points="{_points(b)}" class="true"/>'
        f'<polyline points="{_points(a)}" class="path"/>'
        f'<circle cx="{b[0, 0]:.1f}" cy="{b[0, 1]:.1f}" r="4.5" class="start"/>'
        f'<circle cx="{b[-1, 0]:.1f}" cy="{b[-1, 1]:.1f}" r="4.5" class="end"/>'
        f'<path d="M12 {height - 12} h{bar * scale:.1f}" class="bar"/>'
        f'<text x="12" y="{height - 18}">{bar:g} {html.escape(unit)}</text>'
        f'<text x="{width - 12}" y="{height - 10}" text-anchor="end">{names[0]} →, {names[1]} {arrow}</text></svg>'
    )


def _points(xy: Float) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in xy)


def painted_error(prediction: Float, truth: Float, valid: NDArray[np.bool_], most: float) -> Image:
    """|d - t| / t as colours, from black (0) to pale yellow (`most` and more); grey where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(valid, np.abs(prediction - truth) / truth / most, 0)
    colors = cv2.applyColorMap((255 * np.clip(share, 0, 1)).astype(np.uint8), ERROR_COLORS)[..., ::-1]
    return np.where(valid[..., None], colors, _NONE).astype(np.uint8)


class Eye(NamedTuple):
    """A camera from which a surface is shown."""

    camera: Camera
    world_from_cam: Float


def eyes(points: Float, path: Float, world_from_cam: Float, turns: Sequence[float]) -> list[Eye]:
    """Cameras that look the way the true cameras did, from farther back, each turned about the vertical by so many rad.

    Args:
        points: (N, 3) what must be in the picture, with `path` (M, 3).
        world_from_cam: (M, 4, 4) of the true cameras.
    """
    camera = Camera.from_fov(*SIZE, 0.6)
    ahead, down = world_from_cam[:, :3, 2].mean(0), world_from_cam[:, :3, 1].mean(0)
    if np.linalg.norm(ahead) < 0.2:  # they looked all about
        ahead = np.linalg.svd(points[:: max(1, len(points) // 2000)] - points.mean(0), full_matrices=False)[2][2]
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(down, ahead)
    right = right / max(float(np.linalg.norm(right)), 1e-9)
    target, found = np.median(points, axis=0), []
    for turn in turns:
        forward = np.cos(turn) * ahead + np.sin(turn) * right
        # from a little above, so that depth shows
        forward = forward + 0.35 * np.cross(ahead, right)
        z = forward / np.linalg.norm(forward)
        x = np.cross(np.cross(ahead, right), z)
        x = x / np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([x, np.cross(z, x), z], 1)
        local = (points - target) @ pose[:3, :3]
        low, high = np.percentile(local, 0.5, axis=0), np.percentile(local, 99.5, axis=0)
        kept = local[((local >= low) & (local <= high)).all(1)]  # without the few that lie far off
        local = np.concatenate([kept if len(kept) else local, (path - target) @ pose[:3, :3]])
        middle = (local.min(0) + local.max(0)) / 2
        local -= middle
        half = np.array(SIZE) / 2 / camera.params[0]
        back = float((np.abs(local[:, :2]) / half - local[:, 2:]).max())
        pose[:3, 3] = target + pose[:3, :3] @ middle - 1.06 * max(back, 1e-6) * z
        found.append(Eye(camera, pose))
    return found


def surface_picture(mesh: Mesh, values: Float, most: float, eye: Eye, path: Float) -> Image:
    """The surface (ray cast) with a value a vertex as colour, from 0 to `most`; grey where it is NaN.

    Faces that look away are left out, so that a tube shows its inner wall.
    """
    pose = eye.world_from_cam
    centres = mesh.vertices[mesh.faces].mean(1)
    facing = (mesh.face_normals * (pose[:3, 3] - centres)).sum(1) > 0
    shown = Mesh(mesh.vertices, mesh.faces[facing])
    width, height = SIZE
    image = np.full((height, width, 3), _BACKGROUND, np.uint8)
    if len(shown.faces):
        hits = Caster(shown).cast(eye.camera, pose)
        at = hits.faces >= 0
        faces = shown.faces[hits.faces[at]]
        points = (eye.camera.pixels()[at], hits.depth[at])
        local = eye.camera.rays(points[0]) / eye.camera.rays(points[0])[:, 2:] * points[1][:, None]
        shares = _barycentric(local @ pose[:3, :3].T + pose[:3, 3], shown.vertices[faces].astype(np.float64))
        level = (shares * values[faces]).sum(1) / most
        known = np.isfinite(level)
        painted = (255 * np.clip(np.where(known, level, 0), 0, 1)).astype(np.uint8).reshape(-1, 1)
        colors = cv2.applyColorMap(painted, DISTANCE_COLORS).reshape(-1, 3)[:, ::-1].astype(float)
        colors = np.where(known[:, None], colors, 120.0)
        light = 0.45 + 0.6 * np.abs(hits.normals[at][:, 2:])
        image[at] = np.clip(colors * light, 0, 255).astype(np.uint8)
    if len(path) > 1:
        uv, inside = eye.camera.project((path - pose[:3, 3]) @ pose[:3, :3])
        pixels = np.round(uv[inside] * 16).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(image, [pixels], False, (255, 255, 255), 2, cv2.LINE_AA, 4)
    return image


def _barycentric(points: Float, corners: Float) -> Float:
    """The shares (N, 3) of the corners (N, 3, 3) of triangles in points on them, (N, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    u, v, w = b - a, c - a, points - a
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    area = np.maximum(uu * vv - uv * uv, 1e-300)
    second, third = np.clip((vv * wu - uv * wv) / area, 0, 1), np.clip((uu * wv - uv * wu) / area, 0, 1)
    return np.stack([np.clip(1 - second - third, 0, 1), second, third], -1)


def reduced(image: Image, width: int = 360) -> Image:
    """The image at most `width` pixels wide."""
    if image.shape[1] <= width:
        return image
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
