"""How well poses, depth and camera agree with what the pictures show: points followed from frame to frame, and the
pixels by which each reading of the files misses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.frame import Frame
from video_io.masks import field_of_view, specular

Float = NDArray[np.float64]

_LONG_SIDE = 320  # pixels of the images in which points are followed; errors are in pixels of an image this wide
_POINTS = 250
_LEAST = 40  # points that must be left
_THERE_AND_BACK_PX = 0.6
_OFFSETS = (1, 2, 4, 8, 16)
_ENOUGH_PX = 12.0  # median motion at which no longer interval is tried
_WORST_PX = 40.0  # a miss counts no more than this
_ANCHORS = 12


@dataclass(frozen=True)
class Tracks:
    """Points seen in frames `first` and `second`, pixels of the whole image.

    Attributes:
        first, second: numbers of the frames, counted from 0.
        a, b: (N, 2) where the points are in either.
    """

    first: int
    second: int
    a: Float
    b: Float


def follow(frames: Iterable[Frame], total: int) -> list[Tracks]:
    """Points followed over intervals that are long enough to show parallax, from `_ANCHORS` frames on."""
    reach = max(_OFFSETS)
    last = max(total - 2, 0)
    anchors = sorted({int(i) for i in np.linspace(0, max(last - min(8, last), 0), _ANCHORS)})
    wanted = {a + o for a in anchors for o in (0, *_OFFSETS)}
    kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}
    scale = 1.0
    for number, frame in enumerate(frames):
        if number in wanted:
            scale = min(1.0, _LONG_SIDE / frame.width)
            kept[number] = _prepared(frame.rgb, scale)
        if number > anchors[-1] + reach:
            break
    found = (_longest(kept, anchor, scale) for anchor in anchors if anchor in kept)
    return [tracks for tracks in found if tracks is not None]


def _prepared(rgb: NDArray[np.uint8], scale: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
    small = rgb if scale == 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    inside = field_of_view(small)
    kernel = np.ones((13, 13), np.uint8)
    core = cv2.erode(inside.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    grey = cv2.createCLAHE(3.0, (6, 6)).apply(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
    return grey, (core > 0) & ~specular(small, inside)


def _longest(kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]], anchor: int, scale: float) -> Tracks | None:
    grey, mask = kept[anchor]
    corners = cv2.goodFeaturesToTrack(grey, _POINTS, 0.01, 5, mask=mask.astype(np.uint8))
    if corners is None or len(corners) < _LEAST:
        return None
    start = corners.reshape(-1, 1, 2).astype(np.float32)
    best = None
    for offset in _OFFSETS:
        if anchor + offset not in kept:
            continue
        other = kept[anchor + offset][0]
        there, ok, _ = cv2.calcOpticalFlowPyrLK(grey, other, start, None, winSize=(17, 17), maxLevel=3)
        back, back_ok, _ = cv2.calcOpticalFlowPyrLK(other, grey, there, None, winSize=(17, 17), maxLevel=3)
        good = (ok.ravel() > 0) & (back_ok.ravel() > 0)
        good &= np.linalg.norm((back - start).reshape(-1, 2), axis=1) < _THERE_AND_BACK_PX
        if good.sum() < _LEAST:
            break
        # Half a pixel: OpenCV counts from the middle of the first pixel.
        a, b = ((p.reshape(-1, 2)[good].astype(float) + 0.5) / scale for p in (start, there))
        best = Tracks(anchor, anchor + offset, a, b)
        if np.median(np.linalg.norm(b - a, axis=1)) * scale > _ENOUGH_PX:
            break
    return best


@dataclass(frozen=True)
class Observation:
    """Points of one pair of frames with what is known of them.

    Attributes:
        number: of the first frame.
        ray_a, ray_b: (N, 3) unit rays.
        b: (N, 2) where they are in the second frame, pixels.
        depth: (N,) stored depth in the first frame, or None.
        first, second: (4, 4) poses as they are stored, or None.
    """

    number: int
    ray_a: Float
    ray_b: Float
    b: Float
    depth: Float | None
    first: Float | None
    second: Float | None


def observe(
    tracks: list[Tracks], camera: Camera, depth: Callable[[int], NDArray[np.float32] | None],
    pose: Callable[[int], Float | None],
) -> list[Observation]:  # fmt: skip
    """The tracks with rays, depth and poses; pairs without a pose keep None, points without depth are left out."""
    out = []
    for pair in tracks:
        stored, values = depth(pair.first), None
        keep = np.ones(len(pair.a), bool)
        if stored is not None:
            h, w = stored.shape[:2]
            at = np.floor(pair.a * [w / camera.width, h / camera.height]).astype(int)
            values = stored[np.clip(at[:, 1], 0, h - 1), np.clip(at[:, 0], 0, w - 1)].astype(float)
            keep = values > 0
        ray_a, ray_b = camera.rays(pair.a), camera.rays(pair.b)
        keep &= np.isfinite(ray_a).all(1) & np.isfinite(ray_b).all(1)
        if keep.sum() >= 10:
            values = None if values is None else values[keep]
            poses = pose(pair.first), pose(pair.second)
            out.append(Observation(pair.first, ray_a[keep], ray_b[keep], pair.b[keep], values, *poses))
    return out


# How a stored matrix may be meant: each gives world_from_cam in our axes from what is stored.
_GL = np.diag([1.0, -1.0, -1.0, 1.0])


def _transposed(pose: Float) -> Float:
    out = pose.copy()
    out[:3, :3] = pose[:3, :3].T
    return out


READINGS: dict[str, Callable[[Float], Float]] = {
    "as it is": lambda pose: pose,
    "inverted": np.linalg.inv,
    "transposed": _transposed,
    "inverted and transposed": lambda pose: np.linalg.inv(_transposed(pose)),
    "other axes": lambda pose: pose @ _GL,
    "inverted, other axes": lambda pose: np.linalg.inv(pose) @ _GL,
}


def relative(seen: Observation, reading: str) -> Float:
    """second_from_first (4, 4) under a reading of the stored poses."""
    read = READINGS[reading]
    assert seen.first is not None and seen.second is not None
    return np.linalg.inv(read(seen.second)) @ read(seen.first)


def reprojection_px(observed: list[Observation], camera: Camera, reading: str, scale: float, ray_length: bool) -> float:
    """Median miss of the points by depth and poses, pixels of an image 320 wide.

    Args:
        scale: by which the poses' lengths are multiplied.
        ray_length: take the depth as length along the ray and not as z.
    """
    misses = []
    for seen in observed:
        if seen.depth is None or seen.first is None or seen.second is None:
            continue
        move = relative(seen, reading)
        length = seen.depth if ray_length else seen.depth / np.maximum(seen.ray_a[:, 2], 0.05)
        points = (seen.ray_a * length[:, None]) @ move[:3, :3].T + scale * move[:3, 3]
        uv, _ = camera.project(points)
        miss = np.linalg.norm(uv - seen.b, axis=1) * (_LONG_SIDE / camera.width)
        # A point behind the camera has a pixel of no meaning.
        behind = (points * seen.ray_b).sum(1) <= 0
        misses.append(np.where(behind | ~np.isfinite(miss), _WORST_PX, np.minimum(miss, _WORST_PX)))
    return float(np.median(np.concatenate(misses))) if misses else np.inf


def best_scale(observed: list[Observation], camera: Camera, reading: str, ray_length: bool) -> tuple[float, float]:
    """The scale of the poses' lengths that fits best, and the miss with it: a search from 1e-4 to 1e4, then finer."""
    grid = 10.0 ** np.arange(-4, 4.01, 0.25)
    for step in (0.25, 0.05, 0.01, 0.002):
        misses = [reprojection_px(observed, camera, reading, s, ray_length) for s in grid]
        at = int(np.argmin(misses))
        grid_next = grid[at] * 10.0 ** np.arange(-step, step * 1.01, step / 5)
        best, miss = float(grid[at]), float(misses[at])
        grid = grid_next
    return best, miss


def epipolar_px(observed: list[Observation], camera: Camera, reading: str) -> tuple[float, float]:
    """Median distance of the points to the epipolar plane, pixels of an image 320 wide, where points behind a camera
    miss altogether; and the median depth of the others, in the poses' unit.

    Points whose parallax is below a fifth of a pixel tell nothing of depth and are left out of the second.
    """
    misses, depths = [], []
    focal = camera.focal_px * _LONG_SIDE / camera.width
    for seen in observed:
        if seen.first is None or seen.second is None:
            continue
        move = relative(seen, reading)
        base = float(np.linalg.norm(move[:3, 3]))
        turned = seen.ray_a @ move[:3, :3].T
        if base < 1e-12:
            continue
        normal = np.cross(np.broadcast_to(move[:3, 3] / base, turned.shape), turned)
        length = np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
        miss = np.abs((normal * seen.ray_b).sum(1)) / length * focal
        depth, apart = _triangulate(turned, seen.ray_b, move[:3, 3])
        far = apart * focal < 0.2
        miss = np.where((depth <= 0) & ~far, _WORST_PX, np.minimum(miss, _WORST_PX))
        misses.append(miss)
        depths.append(depth[(depth > 0) & ~far & (miss < 2.0)])
    if not misses:
        return np.inf, np.nan
    every = np.concatenate(depths)
    return float(np.median(np.concatenate(misses))), float(np.median(every)) if len(every) > 20 else np.nan


def _triangulate(turned: Float, ray_b: Float, move: Float) -> tuple[Float, Float]:
    """Signed distance along the first ray to where it passes the second one nearest, and the angle between them."""
    cross = np.cross(turned, ray_b)
    square = np.maximum((cross * cross).sum(1), 1e-18)
    # turned * d + move = ray_b * e, least squares
    depth = np.cross(ray_b, np.broadcast_to(move, ray_b.shape))
    distance = (depth * cross).sum(1) / square
    other = (np.cross(turned, np.broadcast_to(move, turned.shape)) * cross).sum(1) / square
    return np.where(other > 0, distance, -np.abs(distance)), np.arcsin(np.clip(np.sqrt(square), 0, 1))


def resected(observed: list[Observation], camera: Camera, ray_length: bool) -> list[tuple[Observation, Float]]:
    """second_from_first (4, 4) of each pair from its points and their depth alone (PnP), where that can be found."""
    found = []
    tolerance = 1.5 / (camera.focal_px * _LONG_SIDE / camera.width)
    for seen in observed:
        if seen.depth is None:
            continue
        length = seen.depth if ray_length else seen.depth / np.maximum(seen.ray_a[:, 2], 0.05)
        points = seen.ray_a * length[:, None]
        ahead = (seen.ray_b[:, 2] > 0.2) & (seen.ray_a[:, 2] > 0.2)
        if ahead.sum() < 20:
            continue
        plane = seen.ray_b[ahead, :2] / seen.ray_b[ahead, 2:]
        try:
            ok, turn, shift, _ = cv2.solvePnPRansac(
                points[ahead], plane, np.eye(3), None, reprojectionError=tolerance, iterationsCount=100
            )
        except cv2.error:
            continue
        if ok:
            move = np.eye(4)
            move[:3, :3], move[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
            found.append((seen, move))
    return found


def motion_px(tracks: list[Tracks], camera: Camera) -> float:
    """Median motion of the points, pixels of an image 320 wide."""
    lengths = [np.linalg.norm(pair.b - pair.a, axis=1) for pair in tracks]
    return float(np.median(np.concatenate(lengths)) * _LONG_SIDE / camera.width) if lengths else 0.0


def consistency(
    pairs: list[tuple[NDArray[np.float32], NDArray[np.float32], Float]], camera: Camera, ray_length: bool
) -> float:
    """Median relative disagreement of the depth maps of two frames, once one is moved into the other.

    Args:
        pairs: depth of the first and of the second frame, (H, W), 0 for none, and second_from_first, in one unit.
        camera: of the whole image.
        ray_length: take the depth as length along the ray and not as z.
    """
    found = []
    for first, second, move in pairs:
        h, w = first.shape
        rows, columns = np.meshgrid(np.arange(2, h, max(1, h // 48)), np.arange(2, w, max(1, w // 64)), indexing="ij")
        value = first[rows, columns].ravel().astype(float)
        pixel = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1) * [camera.width / w, camera.height / h]
        ray = camera.rays(pixel)
        length = value if ray_length else value / np.maximum(ray[:, 2], 0.05)
        moved = (ray * length[:, None]) @ move[:3, :3].T + move[:3, 3]
        uv, seen = camera.project(np.nan_to_num(moved))
        seen &= (value > 0) & np.isfinite(moved).all(1)
        at = np.floor(uv[seen] * [w / camera.width, h / camera.height]).astype(int)
        there = second[np.clip(at[:, 1], 0, h - 1), np.clip(at[:, 0], 0, w - 1)]
        expected = np.linalg.norm(moved[seen], axis=1) if ray_length else moved[seen, 2]
        both = (there > 0) & (expected > 0)
        off = np.abs(np.log(expected[both] / there[both]))
        # What hides something else is off by much, and says nothing of how depth is meant.
        found.append(off[off < 0.3])
    every = np.concatenate(found) if found else np.zeros(0)
    return float(np.median(every)) if len(every) > 50 else np.inf
