"""Plots as inline SVG and pictures as JPEG, for the report."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from rendering.mesh import Mesh
from video_io.camera import Camera

Float = NDArray[np.float64]
Image = NDArray[np.uint8]
_BACKGROUND = (24, 26, 31)


def picture(jpeg: bytes, alt: str) -> str:
    """An <img> that holds its own data."""
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="{html.escape(alt, quote=True)}">'


def jpeg(rgb: Image, quality: int = 85) -> bytes:
    """(H, W, 3) uint8 RGB as JPEG."""
    return cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def painted_depth(depth: NDArray[np.floating], confidence: NDArray[np.floating], near: float, far: float) -> Image:
    """Depth as colours, from blue (near) to red (far) in equal ratios; grey where there is none."""
    valid = (confidence > 0) & (depth > 0)
    level = np.log(np.where(valid, depth, near) / near) / np.log(max(far / near, 1 + 1e-9))
    colors = cv2.applyColorMap((255 * np.clip(level, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(valid[..., None], colors, 70).astype(np.uint8)


def painted_confidence(confidence: NDArray[np.floating]) -> Image:
    """Confidence in [0, 1] as colours, from dark violet to yellow."""
    return cv2.applyColorMap((255 * np.clip(confidence, 0, 1)).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def ramp_css(colormap: int) -> str:
    """A colour map as a CSS gradient, from left to right."""
    colors = cv2.applyColorMap(np.linspace(0, 255, 9).astype(np.uint8)[None], colormap)[0]
    return "linear-gradient(90deg," + ",".join(f"rgb({r},{g},{b})" for b, g, r in colors.tolist()) + ")"


def mesh_picture(mesh: Mesh, path: Float, turn_rad: float, width: int = 560, height: int = 400) -> Image:
    """The surface and the camera's path (N, 3) from a point outside, drawn vertex by vertex, nearest on top.

    Surface that faces away is left out, so a tube shows its inner wall. The eye looks along the direction in which the
    scene is thinnest, from the side from which more of it is seen, turned by `turn_rad` about the scene's longest axis.
    """
    image = np.full((height, width, 3), _BACKGROUND, np.uint8)
    if len(mesh.vertices) < 3:
        return image
    points = mesh.vertices.astype(np.float64)
    centre = np.median(points, axis=0)
    _, _, axes = np.linalg.svd(points[:: max(1, len(points) // 4000)] - centre, full_matrices=False)
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    view = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ axes * [[1], [1], [np.sign(np.linalg.det(axes))]]
    if np.mean(mesh.vertex_normals @ view[2] > 0) > 0.5:
        view[1:] *= -1  # half a turn: a singular vector's sign is arbitrary, and the surface would show its back
    seen, line = (points - centre) @ view.T, (path - centre) @ view.T
    low, high = np.percentile(seen[:, :2], [0.5, 99.5], axis=0)
    if len(line):
        low, high = np.minimum(low, line[:, :2].min(0)), np.maximum(high, line[:, :2].max(0))
    scale = 0.9 * min(width / max(high[0] - low[0], 1e-9), height / max(high[1] - low[1], 1e-9))
    shift = np.array([width, height]) / 2 - scale * (low + high) / 2
    facing = -(mesh.vertex_normals @ view.T)[:, 2]
    order = np.flatnonzero(facing > 0)
    order = order[np.argsort(-seen[order, 2])]
    colors = mesh.colors[order].astype(float) if mesh.colors is not None else np.full((len(order), 3), 190.0)
    shaded = np.clip(colors * (0.7 + 0.6 * facing[order, None]), 0, 255).astype(np.uint8)
    edge = mesh.vertices[mesh.faces[:: max(1, len(mesh.faces) // 2000), :2]]
    spot = int(np.clip(np.ceil(1.5 * scale * np.median(np.linalg.norm(edge[:, 0] - edge[:, 1], axis=1))), 1, 9))
    at = np.floor(seen[order, :2] * scale + shift - (spot - 1) / 2).astype(int)
    for dy in range(spot):
        for dx in range(spot):
            x, y = at[:, 0] + dx, at[:, 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            image[y[inside], x[inside]] = shaded[inside]
    pixels = np.round((line[:, :2] * scale + shift) * 16).astype(np.int32)
    cv2.polylines(image, [pixels.reshape(-1, 1, 2)], False, (79, 195, 247), 2, cv2.LINE_AA, 4)
    return image


def path_svg(
    centres: Float,
    keyframes: Sequence[int],
    grades: Sequence[str],
    axes: tuple[int, int],
    names: tuple[str, str],
    unit: str,
) -> str:
    """The path (N, 3) seen along one axis, with key frames, start and end, and a scale bar; y downwards.

    Each step has the colour of the grade (N) of the pose that it leads to.
    """
    width, height, margin = 440, 300, 26
    flat = centres[:, list(axes)]
    low, high = flat.min(0), flat.max(0)
    span = np.maximum(high - low, 1e-9 + 0.02 * float((high - low).max()))
    scale = min((width - 2 * margin) / span[0], (height - 2 * margin) / span[1])
    xy = (flat - (low + high) / 2) * scale + [width / 2, height / 2]
    lines = ""
    for grade, stretch in groupby(range(1, len(xy)), key=lambda n: grades[n]):
        steps = list(stretch)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in xy[steps[0] - 1 : steps[-1] + 1])
        lines += f'<polyline points="{points}" class="path {html.escape(grade, quote=True)}"/>'
    dots = "".join(f'<circle cx="{xy[k, 0]:.1f}" cy="{xy[k, 1]:.1f}" r="2.2" class="key"/>' for k in keyframes)
    bar = nice_number(70 / scale)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="camera path, {names[0]} and {names[1]}">'
        f'{lines}{dots}'
        f'<circle cx="{xy[0, 0]:.1f}" cy="{xy[0, 1]:.1f}" r="5" class="start"/>'
        f'<circle cx="{xy[-1, 0]:.1f}" cy="{xy[-1, 1]:.1f}" r="5" class="end"/>'
        f'<path d="M12 {height - 12} h{bar * scale:.1f}" class="bar"/>'
        f'<text x="12" y="{height - 18}">{bar:g} {html.escape(unit)}</text>'
        f'<text x="{width - 12}" y="{height - 10}" text-anchor="end">{names[0]} →, {names[1]} ↓</text></svg>'
    )


def series_svg(times_s: Float, values: Float, name: str) -> str:
    """A figure over time; a gap where there is no value."""
    width, height, left, bottom, top = 440, 120, 62, 18, 10
    finite = np.isfinite(values)
    low, high = float(values[finite].min()), float(values[finite].max())
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - pad, high + pad
    begin, end = float(times_s[0]), max(float(times_s[-1]), float(times_s[0]) + 1e-9)
    x = left + (times_s - begin) / (end - begin) * (width - left - 6)
    y = top + (high - values) / (high - low) * (height - top - bottom)
    pieces, pen = [], "M"
    for px, py, ok in zip(x, y, finite, strict=True):
        if ok:
            pieces.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L" if ok else "M"
    label = html.escape(name.replace("_", " "))
    return (
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f'<path d="M{left} {top}V{height - bottom}H{width - 6}" class="axis"/>'
        f'<path d="{"".join(pieces)}" class="line"/>'
        f'<text x="{left - 4}" y="{top + 8}" text-anchor="end">{high - pad:.3g}</text>'
        f'<text x="{left - 4}" y="{height - bottom}" text-anchor="end">{low + pad:.3g}</text>'
        f'<text x="{left}" y="{height - 4}">{begin:.1f} s</text>'
        f'<text x="{width - 6}" y="{height - 4}" text-anchor="end">{end:.1f} s</text></svg></figure>'
    )


def nice_number(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(m for m in (1, 2, 5) if m * power <= value * (1 + 1e-9)))


def frustum(camera: Camera, world_from_cam: NDArray[np.float64], length: float) -> list[NDArray[np.float64]]:
    """The edges of a viewing pyramid of this length, as three line strips (N, 3) in the world."""
    half = np.array([camera.width, camera.height]) / 2 / camera.focal_px
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.minimum(half, 1.0)
    local = length * np.array([[0, 0, 0], *[[x, y, 1] for x, y in corners]])
    c, p0, p1, p2, p3 = local @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
    return [np.array([c, p0, p1, c, p2, p3, c]), np.array([p1, p2]), np.array([p3, p0])]
