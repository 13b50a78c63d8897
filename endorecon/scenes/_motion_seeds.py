"""Gaussians to begin with on tissue that moves: points of some frames, followed through all the others.

From a frame of reference the optical flow to each other frame (Kroeger et al., ECCV 2016) is found directly, from where
the flow to the frame before begins, so that nothing drifts; the flow back tells where it can be believed. Depth lifts
the followed pixels into the world, what is hidden moves as its surroundings do, and least squares give the weights of
the bells. What no frame of reference shows so far, behind a tool or outside the view, gets one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.scenes._motion import CHANNELS, MovingSplats, TimeBasis
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import C0, FLATNESS, NAMES, OPACITY, Splats, SplatView, quaternions
from video_io.errors import InputError

Float = NDArray[np.float64]
MOST_REFERENCES, NEW_SHARE = 8, 0.005  # of an image's pixels that must be new in a frame of reference
MOST_LOOKED_AT = 60  # views in which what is not covered yet is looked for
BACK_PX = 1.5  # how far flow there and back may end from where it began
NEIGHBOURS, RIDGE, LEAST = 8, 0.02, 50
FLICKER_FRAMES = 2.0


@dataclass(frozen=True)
class Tracks:
    """Pixels of a frame of reference, followed.

    Attributes:
        reference: number of the view.
        pixels: (P, 2) in it.
        places: (T, P, 2) pixels in each view. depth: (T, P) there. seen: (T, P) whether both can be believed.
    """

    reference: int
    pixels: Float
    places: Float
    depth: Float
    seen: NDArray[np.bool_]

    def points(self, views: Sequence[SplatView]) -> Float:
        """(T, P, 3) world; where a point was not seen it has moved as the nearest ones that were."""
        from scipy.spatial import cKDTree

        lifted = [_lifted(v, p, d) for v, p, d in zip(views, self.places, self.depth, strict=True)]
        rest = lifted[self.reference]
        shifts: list[Float | None] = []
        for points, seen in zip(lifted, self.seen, strict=True):
            if (number := int(seen.sum())) < LEAST:
                shifts.append(None)
                continue
            near = cKDTree(self.pixels[seen]).query(self.pixels, min(NEIGHBOURS, number))[1]
            # The median also takes out what the flow got wrong here and there.
            shifts.append(np.median((points - rest)[seen][near], axis=1))
        known = np.array([i for i, shift in enumerate(shifts) if shift is not None])
        nearest = [known[np.argmin(np.abs(known - i))] for i in range(len(views))]
        return np.stack([(rest + shifts[i]).astype(np.float32) for i in nearest])  # type: ignore[operator]


def follow(views: Sequence[SplatView], reference: int, pixels: Float) -> Tracks:
    """Follow pixels (P, 2) of a view through all views, in order of time."""
    greys = [cv2.cvtColor(view.rgb, cv2.COLOR_RGB2GRAY) for view in views]
    t, p = len(views), len(pixels)
    places, depth = np.tile(pixels.astype(np.float32), (t, 1, 1)), np.zeros((t, p), np.float32)
    seen = np.zeros((t, p), bool)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)  # at half the size fine vessels are lost
    for way in (range(reference, t), range(reference - 1, -1, -1)):
        there = back = None
        for i in way:
            if i != reference:
                there = dis.calc(greys[reference], greys[i], there)
                back = dis.calc(greys[i], greys[reference], back)
                places[i] = pixels + _sampled(there, pixels)
            returned = places[i] + (_sampled(back, places[i]) if back is not None else 0)
            depth[i] = _sampled(views[i].depth, places[i])
            good = (np.linalg.norm(returned - pixels, axis=1) < BACK_PX) & (depth[i] > 0)
            seen[i] = good & _holds(views[i], places[i])
    return Tracks(reference, pixels, places, depth, seen)


def steadied(views: Sequence[SplatView], tracks: Tracks) -> list[SplatView]:
    """The views with depth whose scale does not flicker from frame to frame; slow changes may be true.

    Only a camera that stands still tells flicker from its own motion.
    """
    from scipy.ndimage import gaussian_filter1d

    if any(not np.allclose(view.world_from_cam, views[0].world_from_cam) for view in views):
        return list(views)
    start = tracks.depth[tracks.reference]
    both = tracks.seen & (start > 0)
    logs = [
        np.median(np.log(depth[good] / start[good])) if good.sum() >= LEAST else np.nan
        for depth, good in zip(tracks.depth, both, strict=True)
    ]
    scale, numbers = np.array(logs), np.arange(len(views))
    known = np.isfinite(scale)
    scale = np.interp(numbers, numbers[known], scale[known])
    change = np.exp(gaussian_filter1d(scale, FLICKER_FRAMES, mode="nearest") - scale)
    return [replace(view, depth=view.depth * np.float32(c)) for view, c in zip(views, change, strict=True)]


def seeds(
    views: Sequence[SplatView], number: int, degree: int, light: Light
) -> tuple[MovingSplats, list[SplatView], int]:
    """Gaussians that move as the views do.

    Args:
        views: in order of time, at least three; their `use_mask` is False on tools.
        number: about how many Gaussians an image is to have.

    Returns:
        The Gaussians; the views, their depth without flicker; and the number of the first view of reference.

    Raises:
        InputError: fewer views, or no pixel that is used has a depth.
    """
    if len(views) < 3:
        raise InputError(
            f"motion is learnt from at least 3 frames, and there are {len(views)} to train on; give a longer clip or "
            "--scene splats"
        )
    useful = np.array([int(_useful(view).sum()) for view in views])
    if useful.max() < LEAST:
        raise InputError(
            f"in none of the {len(views)} frames there are tissue and depth in one place (at most {useful.max()} "
            "pixels that are neither tool nor masked have a depth); check the masks, or choose another part of the clip"
        )
    basis, rng, h, w = TimeBasis.over([v.time_ns for v in views]), np.random.default_rng(0), *views[0].depth.shape
    from_middle = np.abs(np.arange(len(views)) / (len(views) - 1) - 0.5)
    first = reference = int(np.argmax(useful * (1 - from_middle)))
    looked_at = range(0, len(views), -(-len(views) // MOST_LOOKED_AT))
    covered = {i: np.zeros((h, w), bool) for i in looked_at}
    wanted, parts = _useful(views[first]), []
    for _ in range(MOST_REFERENCES):
        pixels = _some(_useful(views[reference]), number, rng)
        tracks = follow(views, reference, pixels)
        if not parts:
            views = steadied(views, tracks)
            tracks = replace(tracks, depth=np.stack([_sampled(v.depth, p) for v, p in zip(views, tracks.places)]))
        points = tracks.points(views)
        rows, columns = (pixels[:, 1]).astype(int), pixels[:, 0].astype(int)
        keep = wanted[rows, columns]
        parts.append(_part(views[reference], points, keep, pixels, basis, views, degree, light))
        for i in looked_at:
            covered[i] |= _cover(views[i], points[i, keep], number)
        left = {i: cv2.erode((_useful(views[i]) & ~covered[i]).astype(np.uint8), np.ones((3, 3))) for i in looked_at}
        reference = max(left, key=lambda i: int(left[i].sum()))
        if left[reference].sum() < NEW_SHARE * h * w:
            break
        wanted = cv2.dilate(left[reference], np.ones((5, 5))) > 0
    fields = [np.concatenate([getattr(s, name) for s, _ in parts]) for name in NAMES]
    return MovingSplats(Splats(*fields), np.concatenate([w for _, w in parts]), basis), list(views), first


def fit(points: Float, times_ns: Sequence[int], basis: TimeBasis) -> tuple[Float, NDArray[np.float32]]:
    """Places at rest (P, 3) and weights (P, B, 10) whose motion comes nearest to points (T, P, 3), by least squares."""
    table = np.concatenate([np.ones((len(points), 1)), basis.matrix(times_ns)], 1)
    ridge = RIDGE * np.diag([0.0, *np.ones(basis.count)])
    solved = np.linalg.solve(table.T @ table + ridge, table.T @ points.reshape(len(points), -1))
    solved = solved.reshape(1 + basis.count, -1, 3)
    weights = np.zeros((points.shape[1], basis.count, CHANNELS), np.float32)
    weights[..., :3] = solved[1:].transpose(1, 0, 2)
    return solved[0], weights


def _part(
    view: SplatView, points: Float, keep: NDArray[np.bool_], pixels: Float, basis: TimeBasis,
    views: Sequence[SplatView], degree: int, light: Light,
) -> tuple[Splats, NDArray[np.float32]]:  # fmt: skip
    """The Gaussians of one frame of reference, those of `keep`, and their weights."""
    from scipy.spatial import cKDTree

    number = next(i for i, other in enumerate(views) if other is view)
    rest, weights = fit(points[:, keep], [v.time_ns for v in views], basis)
    gap = np.sqrt((cKDTree(points[number]).query(points[number][keep], 4)[0][:, 1:] ** 2).mean(1))
    gap = np.maximum(gap, 1e-3 * np.median(gap))
    rows, columns = pixels[keep, 1].astype(int), pixels[keep, 0].astype(int)
    colors = view.rgb[rows, columns].astype(float) / light.factor(view.depth)[rows, columns, None]
    normals = _normals(view)[rows, columns] @ view.world_from_cam[:3, :3].T
    n = int(keep.sum())
    splats = Splats(
        rest.astype(np.float32),
        quaternions(normals).astype(np.float32),
        np.log(np.stack([gap, gap, FLATNESS * gap], 1)).astype(np.float32),
        np.full(n, np.log(OPACITY / (1 - OPACITY)), np.float32),
        ((colors / 255 - 0.5) / C0)[:, None].astype(np.float32),
        np.zeros((n, (degree + 1) ** 2 - 1, 3), np.float32),
    )
    return splats, weights


def _useful(view: SplatView) -> NDArray[np.bool_]:
    return view.use_mask & (view.confidence > 0) & (view.depth > 0) & (view.camera.ray_map()[..., 2] > 0.05)


def _holds(view: SplatView, places: Float) -> NDArray[np.bool_]:
    """Which places (P, 2) lie in the image, on tissue whose depth is known."""
    h, w = view.depth.shape
    column, row = np.floor(places[:, 0]), np.floor(places[:, 1])
    inside = (column >= 0) & (row >= 0) & (column < w) & (row < h)
    at = np.where(inside, row, 0).astype(int), np.where(inside, column, 0).astype(int)
    return inside & _useful(view)[at]


def _some(where: NDArray[np.bool_], number: int, rng: np.random.Generator) -> Float:
    """Pixel centres (P, 2) of a mask, as dense as `number` in the whole image are."""
    rows = np.flatnonzero(where)
    wanted = max(int(number * len(rows) / where.size), min(LEAST, len(rows)))
    rows = rng.permutation(rows)[:wanted]
    return np.stack([rows % where.shape[1], rows // where.shape[1]], 1) + 0.5


def _sampled(image: NDArray, places: Float) -> Float:
    """Values of an image (H, W) or (H, W, C) at places (P, 2), bilinear, its border beyond it."""
    at = (places - 0.5).astype(np.float32)  # OpenCV counts from pixel centres
    # Its maps have fewer than 2^15 rows.
    parts = np.array_split(at, -(-len(at) // 30_000))
    values = [
        cv2.remap(image, p[:, None, 0], p[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        for p in parts
    ]
    return np.concatenate(values).astype(float)


def _lifted(view: SplatView, places: Float, depth: Float) -> Float:
    """Points (P, 3), world, at places (P, 2) with a depth (P,)."""
    rays = view.camera.rays(places)
    local = rays * (depth / np.maximum(rays[:, 2], 1e-6))[:, None]
    return local @ view.world_from_cam[:3, :3].T + view.world_from_cam[:3, 3]


def _cover(view: SplatView, points: Float, number: int) -> NDArray[np.bool_]:
    """Where a view sees points of the density of `number` in an image."""
    h, w = view.depth.shape
    pixels, seen = view.camera.project((points - view.world_from_cam[:3, 3]) @ view.world_from_cam[:3, :3])
    pixels = np.floor(pixels[seen & np.isfinite(pixels).all(1)]).astype(int)
    pixels = pixels[(pixels >= 0).all(1) & (pixels < [w, h]).all(1)]
    hit = np.zeros((h, w), np.uint8)
    hit[pixels[:, 1], pixels[:, 0]] = 1
    radius = int(np.ceil(1.5 * np.sqrt(h * w / number)))
    return cv2.dilate(hit, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0


def _normals(view: SplatView) -> Float:
    """(H, W, 3) of the measured depth, camera frame, towards the camera; along the ray where it can't be told."""
    rays, known = view.camera.ray_map().astype(float), _useful(view)
    depth = np.where(known, view.depth, 0)
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 2)
    smooth = cv2.GaussianBlur(depth, (0, 0), 2) / np.maximum(weight, 1e-6)
    points = rays * (smooth / np.maximum(rays[..., 2], 1e-6))[..., None]
    normal = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    good = (weight > 0.5) & (length[..., 0] > 0) & np.isfinite(length[..., 0])
    normal = np.where(good[..., None], normal / np.maximum(length, 1e-12), -np.nan_to_num(rays))
    return np.where((normal * rays).sum(-1, keepdims=True) > 0, -normal, normal)
