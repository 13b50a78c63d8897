"""Landmarks looked up in their first image again, so that following them does not drift.

Optical flow from frame to frame adds up small errors, all of the same sign when the camera approaches a wall. Here the
patch in which a landmark was first seen, warped as the predicted pose and the network's depth say, is aligned with the
present image by inverse-compositional Lucas-Kanade (Baker and Matthews, IJCV 2004), free in position; each patch's
gain and offset are taken out, since the lamp moves with the lens; and of its slope of brightness as much as the lamp's
shading is likely to have changed: a prior on the slope of the difference, worked in by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from video_io.camera import Camera

Float = NDArray[np.float64]

RADIUS_PX = 7
MOST_SHIFT_PX = 3.0
LEAST_CORRELATION = 0.5
LEAST_ZOOM, MOST_ZOOM = 0.4, 3.0
_ITERATIONS = 8
# Of a patch's slope of brightness. With noise of deviation n, the lamp's shading deviating by t grey levels a pixel,
# and q the sum of x^2 over the patch, least squares takes out 1 - (1 + q (t / n)^2)^-1/2: half of it at t = n / 28.
_SLOPE_SHARE = 0.5
# A patch whose grey levels deviate less from a plane shows noise, and shading that moves with the lamp; on bare organs
# such are kept up to this many.
LEAST_TEXTURE, LEAST_KEPT = 0.9, 100


@dataclass(frozen=True)
class Patches:
    """What N landmarks looked like when they were first seen.

    Attributes:
        value: (N, S, S) float32, S = 2 RADIUS_PX + 1, grey values around the landmark.
        slope: (N, 2) float32, change of the network's log distance along x and y there, per pixel.
    """

    value: NDArray[np.float32]
    slope: NDArray[np.float32]

    def __getitem__(self, which: NDArray[np.int64]) -> Patches:
        return Patches(self.value[which], self.slope[which])

    def joined(self, other: Patches) -> Patches:
        """These, then the others."""
        return Patches(np.concatenate([self.value, other.value]), np.concatenate([self.slope, other.slope]))


def cut(grey: NDArray[np.float32], log_net: NDArray[np.float32], pixels: NDArray[np.float32]) -> Patches:
    """Cut the patches around pixels (N, 2) out of a grey image (H, W), and read the depth's slope there."""
    side = 2 * RADIUS_PX + 1
    value = np.zeros((len(pixels), side, side), np.float32)
    _cut(grey, pixels, value)
    reach = 3
    height, width = log_net.shape
    column = np.clip(pixels[:, 0].astype(int), reach, width - 1 - reach)
    row = np.clip(pixels[:, 1].astype(int), reach, height - 1 - reach)
    along_x = (log_net[row, column + reach] - log_net[row, column - reach]) / (2 * reach)
    along_y = (log_net[row + reach, column] - log_net[row - reach, column]) / (2 * reach)
    # A steep slope is an edge of the tissue, across which no patch is a plane.
    return Patches(value, np.clip(np.stack([along_x, along_y], 1), -0.1, 0.1).astype(np.float32))


def textured(grey: NDArray[np.float32], pixels: NDArray[np.float32], kept: int = LEAST_KEPT) -> NDArray[np.bool_]:
    """Which patches around pixels (N, 2) show more than noise; of the others the best ones, up to `kept` in all."""
    deviation = np.zeros(len(pixels))
    _deviation(grey, pixels, deviation)
    rank = np.empty(len(pixels), int)
    rank[np.argsort(-deviation, kind="stable")] = np.arange(len(pixels))
    return (deviation >= LEAST_TEXTURE) | (rank < kept)


def align(
    grey: NDArray[np.float32], patches: Patches, warp: NDArray[np.float64], pixels: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find patches in a grey image near `pixels` (N, 2), seen through the linear maps `warp` (N, 2, 2).

    Returns:
        The positions (N, 2), and which of them were found.
    """
    found = pixels.astype(np.float64)
    correlation = np.zeros(len(pixels))
    zoom = np.sqrt(np.abs(np.linalg.det(warp))) if len(warp) else np.zeros(0)
    fits = np.isfinite(warp).all((1, 2)) & (zoom > LEAST_ZOOM) & (zoom < MOST_ZOOM)
    _align(grey, patches.value, np.where(fits[:, None, None], warp, np.eye(2)), found, correlation)
    shift = np.linalg.norm(found - pixels, axis=1)
    return found.astype(np.float32), fits & (shift < MOST_SHIFT_PX) & (correlation > LEAST_CORRELATION)


def plane_warp(
    camera: Camera, pixels: NDArray[np.float32], log_d: Float, slope: NDArray[np.float32],
    rotation: Float, centre: Float, pose: Float,
) -> Float:  # fmt: skip
    """How small planes map from the images where they were cut to another: (N, 2, 2), pixels per pixel.

    Args:
        camera: of all the images.
        pixels, log_d, slope: (N, 2), (N,), (N, 2) where the planes lie in their images: log distances along the rays
            and how these change, per pixel.
        rotation, centre: (N, 3, 3) and (N, 3), world_from_cam of their images.
        pose: (4, 4) world_from_cam of the other image.
    """
    step, corners = 3.0, []
    for offset in ((-step, 0), (step, 0), (0, -step), (0, step)):
        local = camera.rays(pixels + np.array(offset)) * np.exp(log_d + slope @ np.array(offset))[:, None]
        world = np.einsum("nij,nj->ni", rotation, local) + centre
        corners.append(camera.project((world - pose[:3, 3]) @ pose[:3, :3])[0])
    left, right, up, down = corners
    return np.stack([(right - left) / (2 * step), (down - up) / (2 * step)], -1)


@njit(cache=True, inline="always")
def _at(image, x, y):  # type: ignore[no-untyped-def]
    """Bilinear value at a pixel position, edges repeated."""
    height, width = image.shape
    x = min(max(x - 0.5, 0.0), width - 1.001)
    y = min(max(y - 0.5, 0.0), height - 1.001)
    c, r = int(x), int(y)
    a, b = x - c, y - r
    return (1 - b) * ((1 - a) * image[r, c] + a * image[r, c + 1]) + b * (
        (1 - a) * image[r + 1, c] + a * image[r + 1, c + 1]
    )


@njit(nogil=True, cache=True)
def _cut(grey, pixels, value):  # type: ignore[no-untyped-def]
    side = value.shape[1]
    radius = side // 2
    for i in range(len(pixels)):
        for r in range(side):
            for c in range(side):
                value[i, r, c] = _at(grey, pixels[i, 0] + c - radius, pixels[i, 1] + r - radius)


@njit(nogil=True, cache=True)
def _deviation(grey, pixels, deviation):  # type: ignore[no-untyped-def]
    """Root mean square of each patch's grey levels, mean and slopes taken out."""
    side = 2 * RADIUS_PX + 1
    patch = np.zeros((side, side))
    for i in range(len(pixels)):
        for r in range(1, side - 1):
            for c in range(1, side - 1):
                patch[r, c] = _at(grey, pixels[i, 0] + c - RADIUS_PX, pixels[i, 1] + r - RADIUS_PX)
        _level(patch, 1.0)
        square = 0.0
        for r in range(1, side - 1):
            for c in range(1, side - 1):
                square += patch[r, c] * patch[r, c]
        deviation[i] = np.sqrt(square) / (side - 2)


@njit(nogil=True, cache=True)
def _align(grey, value, warp, position, correlation):  # type: ignore[no-untyped-def]
    side = value.shape[1]
    radius = side // 2
    gx, gy = np.zeros((side, side)), np.zeros((side, side))
    flat, seen = np.zeros((side, side)), np.zeros((side, side))
    for i in range(len(value)):
        template = value[i]
        # Gradients of the template, once; the outer ring only serves them.
        for r in range(1, side - 1):
            for c in range(1, side - 1):
                gx[r, c] = 0.5 * (template[r, c + 1] - template[r, c - 1])
                gy[r, c] = 0.5 * (template[r + 1, c] - template[r - 1, c])
                flat[r, c] = template[r, c]
        slope_x, slope_y, square = _level(flat, _SLOPE_SHARE)
        hxx, hxy, hyy, spread = 0.0, 0.0, 0.0, 0.0
        for r in range(1, side - 1):
            for c in range(1, side - 1):
                hxx += gx[r, c] * gx[r, c]
                hxy += gx[r, c] * gy[r, c]
                hyy += gy[r, c] * gy[r, c]
                spread += flat[r, c] * flat[r, c]
        det = hxx * hyy - hxy * hxy
        # Only now: steps along a ramp of brightness, which tells little of where it is, stay short.
        _level(gx, _SLOPE_SHARE)
        _level(gy, _SLOPE_SHARE)
        if spread < 1e-6 or det < 1e-6 * (hxx + hyy) ** 2:
            continue
        whole = spread + square * (slope_x * slope_x + slope_y * slope_y)
        a00, a01, a10, a11 = warp[i, 0, 0], warp[i, 0, 1], warp[i, 1, 0], warp[i, 1, 1]
        x, y = position[i, 0], position[i, 1]
        for _ in range(_ITERATIONS):
            for r in range(1, side - 1):
                for c in range(1, side - 1):
                    u, v = c - radius, r - radius
                    seen[r, c] = _at(grey, x + a00 * u + a01 * v, y + a10 * u + a11 * v)
            seen_x, seen_y, _ = _level(seen, _SLOPE_SHARE)
            seen_spread, product = 1e-12, 0.0
            for r in range(1, side - 1):
                for c in range(1, side - 1):
                    seen_spread += seen[r, c] * seen[r, c]
                    product += seen[r, c] * flat[r, c]
            # Whether it is the same place is asked of the whole patch: its slope may be the lamp's, but mostly is not.
            sloped = square * (seen_x * slope_x + seen_y * slope_y)
            whole_seen = seen_spread + square * (seen_x * seen_x + seen_y * seen_y)
            correlation[i] = (product + sloped) / np.sqrt(whole_seen * whole)
            gain = np.sqrt(spread / seen_spread)
            bx, by = 0.0, 0.0
            for r in range(1, side - 1):
                for c in range(1, side - 1):
                    e = gain * seen[r, c] - flat[r, c]
                    bx += gx[r, c] * e
                    by += gy[r, c] * e
            dx = (hyy * bx - hxy * by) / det
            dy = (hxx * by - hxy * bx) / det
            x -= a00 * dx + a01 * dy
            y -= a10 * dx + a11 * dy
            if dx * dx + dy * dy < 1e-4 or abs(x - position[i, 0]) > 8 or abs(y - position[i, 1]) > 8:
                break
        position[i, 0], position[i, 1] = x, y


@njit(cache=True)
def _level(patch, share):  # type: ignore[no-untyped-def]
    """Take the mean and a share of the slopes out of a patch, but for its outer ring.

    Tells the slopes, and what their squares weigh in what was taken out.
    """
    side = patch.shape[0]
    radius = side // 2
    total, along_x, along_y, square = 0.0, 0.0, 0.0, 0.0
    for r in range(1, side - 1):
        for c in range(1, side - 1):
            total += patch[r, c]
            along_x += (c - radius) * patch[r, c]
            along_y += (r - radius) * patch[r, c]
            square += (c - radius) ** 2
    mean, along_x, along_y = total / (side - 2) ** 2, along_x / square, along_y / square
    for r in range(1, side - 1):
        for c in range(1, side - 1):
            patch[r, c] -= mean + share * (along_x * (c - radius) + along_y * (r - radius))
    return along_x, along_y, square * (1 - (1 - share) ** 2)
