"""Depth of every pixel from several views: with the refined poses, small patches all over an image are looked up in
other images along their epipolar lines.

Each patch moves along its ray until it looks alike in all the views (Gauss-Newton on its log distance, after multi-view
patch optimisation: Furukawa and Ponce, PAMI 2010). Only fine texture is compared, and each patch's gain is taken out,
as the shading moves with the lamp, hence with the lens. What the patches say is then spread over the image, as far as
each of them is sure, but not across the edges of the tissue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from endorecon.tracking.densify import Correction, NetworkDepth
from video_io.camera import Camera
from video_io.frame import Frame

Float = NDArray[np.float64]

STRIDE_PX = 5
RADIUS_PX = 4
SAMPLE_PX = 2  # between the pixels of a patch that are compared
REACH_PX = 3  # over which a patch's plane is measured
MOST_SHIFT = 0.3  # of the log distance
LEAST_CORRELATION = 0.3
LEAST_ZOOM, MOST_ZOOM = 0.3, 4.0  # of a patch's area
# Chosen on four phantom clips (docs/results.md says what stood beside them): patches err by about three times what
# their images say, by .01 at least; the shifts of neighbours differ by .03; and they are all believed before the start.
OVERCONFIDENCE, SURE_STD, STIFFNESS, START_STD = 3.0, 0.01, 0.03, 0.2
# Other views: the nearest ones, before and after, from where the tissue is seen with these parallaxes (the base line
# over the median distance), among so many frames. Where the camera moves less, the farthest one has to do.
PARALLAXES, MOST_FRAMES, LEAST_PARALLAX = (0.1, 0.3), 40, 0.02
FINE_PX, COARSE_PX = 1.0, 10.0  # the texture that is compared lies between these scales
_ITERATIONS = 6
_STEP, _STILL = 1e-3, 2e-3
_STEEPEST = 0.08  # log distance a pixel: a steeper slope is an edge of the tissue, across which no patch is a plane
_NOWHERE = -1e6
_JUMP = 0.15  # of the log distance between neighbours, from where one says little of the other


@dataclass(frozen=True)
class View:
    """An image that others are compared with: its `texture` (H, W) float32, and world_from_cam (4, 4)."""

    texture: NDArray[np.float32]
    world_from_cam: Float


@dataclass(frozen=True)
class Shifts:
    """What the patches of an image say of its depth, on `grid`.

    Attributes:
        shift: (R, C) by how much the log distance there should grow.
        std: (R, C) of that; infinite where the views do not tell.
    """

    shift: Float
    std: Float


@dataclass
class ManyViews:
    """The frames of a segment, each of whose depth the others sharpen.

    Attributes:
        camera: of all of them.
        world_from_cam: (F, 4, 4) refined.
        frame_at: gives frame number f of the segment.
        useless: numbers of the frames that say nothing of the tissue.
    """

    camera: Camera
    world_from_cam: Float
    frame_at: Callable[[int], Frame]
    useless: frozenset[int] = frozenset()
    _textures: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def sharpen(
        self, number: int, net: NetworkDepth, use_mask: NDArray[np.bool_], correction: Correction
    ) -> Correction:
        """What corrects the network's depth of frame `number` once the other views have been looked at."""
        distance, _ = correction.apply(net.distance, net.log_std)
        seen = use_mask & np.isfinite(net.log_std)
        if number in self.useless or not seen.any():
            return correction
        others = self._others(number, float(np.median(distance[seen])))
        if not others:
            return correction
        log_distance = np.log(distance).astype(np.float32)
        views = [self._view(other) for other in others]
        shifts = compare(self.camera, self._view(number), log_distance, seen, views)
        return sharpened(correction, spread(shifts, log_distance))

    def _others(self, number: int, distance: float) -> list[int]:
        found = []
        for way in (-1, 1):
            wanted, last, parallax = list(PARALLAXES), None, 0.0
            for other in range(number + way, number + way * (MOST_FRAMES + 1), way):
                if not (wanted and 0 <= other < len(self.world_from_cam)):
                    break
                if other in self.useless:
                    continue
                base = np.linalg.norm(self.world_from_cam[other, :3, 3] - self.world_from_cam[number, :3, 3])
                last, parallax = other, float(base) / distance
                if parallax >= wanted[0]:
                    found.append(other)
                    wanted = [want for want in wanted if want > parallax]
            if len(wanted) == len(PARALLAXES) and last is not None and parallax > LEAST_PARALLAX:
                found.append(last)
        return found

    def _view(self, number: int) -> View:
        if number not in self._textures:
            self._textures[number] = texture(self.frame_at(number).rgb)
            while len(self._textures) > 3 * MOST_FRAMES:
                del self._textures[next(iter(self._textures))]
        return View(self._textures[number], self.world_from_cam[number])


def texture(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The fine contrast of an image (H, W, 3), in per cent: (H, W). Shading, which is coarse, is left out."""
    grey = np.log(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) + 8)
    fine, coarse = (cv2.GaussianBlur(grey, (0, 0), scale) for scale in (FINE_PX, COARSE_PX))
    return 100 * (fine - coarse)


def grid(width: int, height: int) -> NDArray[np.int64]:
    """(R, C, 2): columns and rows of the pixels in the middle of the cells into which an image is cut."""
    columns, rows = max(width // STRIDE_PX, 1), max(height // STRIDE_PX, 1)
    x = ((np.arange(columns) + 0.5) * width / columns).astype(np.int64)
    y = ((np.arange(rows) + 0.5) * height / rows).astype(np.int64)
    return np.stack(np.meshgrid(x, y), -1)


def compare(
    camera: Camera, image: View, log_distance: NDArray[np.float32], use_mask: NDArray[np.bool_], others: Sequence[View]
) -> Shifts:
    """Look the patches of an image up in other images.

    Args:
        camera: of all images.
        image: whose depth is sought.
        log_distance: (H, W) along the rays, where it starts.
        use_mask: (H, W) where a pixel says something.
        others: images of the same tissue from elsewhere.
    """
    at = grid(camera.width, camera.height)
    inset = max(RADIUS_PX, REACH_PX)
    inside = ((at >= inset) & (at < np.array([camera.width, camera.height]) - inset)).all(-1)
    pixel = at[inside]
    middle, warp, line = _lines(camera, image, log_distance, pixel, others)
    shift, information, correlation = np.zeros(len(pixel)), np.zeros(len(pixel)), np.zeros(len(pixel))
    textures = np.stack([other.texture for other in others])
    _search(image.texture, use_mask, pixel, textures, middle, warp, line, shift, information, correlation)
    good = (information > 0) & (correlation > LEAST_CORRELATION)
    shifts = Shifts(np.zeros(inside.shape), np.full(inside.shape, np.inf))
    shifts.shift[inside] = np.where(good, shift, 0)
    shifts.std[inside] = np.where(good, 1 / np.sqrt(np.maximum(information, 1e-12)), np.inf)
    return shifts


def _lines(
    camera: Camera, image: View, log_distance: NDArray[np.float32], pixel: NDArray[np.int64], others: Sequence[View]
) -> tuple[Float, Float, Float]:
    """Where patches at `pixel` (N, 2) lie in each other view: middles (J, N, 2), how small steps in the image map
    (J, N, 2, 2), and the change of the middles with the log distance (J, N, 2). Far outside where they are not seen."""
    (x, y), rays = pixel.T, camera.ray_map()

    def slope(dx: int, dy: int) -> NDArray[np.float32]:
        rise = log_distance[y + dy, x + dx] - log_distance[y - dy, x - dx]
        return np.clip(rise / 2, -_STEEPEST * REACH_PX, _STEEPEST * REACH_PX)

    far = log_distance[y, x]
    points = np.stack([
        rays[y, x] * np.exp(far)[:, None],
        rays[y, x] * np.exp(far + _STEP)[:, None],
        rays[y, x + REACH_PX] * np.exp(far + slope(REACH_PX, 0))[:, None],
        rays[y + REACH_PX, x] * np.exp(far + slope(0, REACH_PX))[:, None],
    ])  # fmt: skip
    from_cam = np.stack([np.linalg.inv(other.world_from_cam) @ image.world_from_cam for other in others])
    moved = points.reshape(-1, 3) @ from_cam[:, :3, :3].swapaxes(1, 2) + from_cam[:, None, :3, 3]
    seen, ahead = camera.project(moved.reshape(len(others), *points.shape))
    seen = np.where(ahead[..., None], seen, _NOWHERE)
    middle = seen[:, 0]
    warp = np.stack([seen[:, 2] - middle, seen[:, 3] - middle], -1) / REACH_PX
    return middle, warp, (seen[:, 1] - middle) / _STEP


@njit(cache=True, nogil=True, fastmath=True)
def _search(  # type: ignore[no-untyped-def]
    texture, use_mask, pixel, others, middle, warp, line, shift, information, correlation
):
    height, width = texture.shape
    size = (2 * RADIUS_PX // SAMPLE_PX + 1) ** 2
    one, none = np.float32(1), np.float32(0)
    u, v = np.zeros(size, np.float32), np.zeros(size, np.float32)
    template, use = np.zeros(size, np.float32), np.zeros(size, np.float32)
    seen, change = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for k in range(size):
        u[k] = k % (2 * RADIUS_PX // SAMPLE_PX + 1) * SAMPLE_PX - RADIUS_PX
        v[k] = k // (2 * RADIUS_PX // SAMPLE_PX + 1) * SAMPLE_PX - RADIUS_PX
    for n in range(len(pixel)):
        count, mean, spread = none, none, none
        for k in range(size):
            row, column = pixel[n, 1] + int(v[k]), pixel[n, 0] + int(u[k])
            use[k] = one if use_mask[row, column] else none
            template[k] = texture[row, column]
            count += use[k]
            mean += use[k] * template[k]
        if count < 0.7 * size:
            continue
        mean /= count
        for k in range(size):
            template[k] = use[k] * (template[k] - mean)
            spread += template[k] * template[k]
        if spread < 1e-6 * count:
            continue
        moved, best = 0.0, 0.0
        for _ in range(_ITERATIONS):
            hessian, slope, error, alike, weights = 0.0, 0.0, 0.0, 0.0, 0.0
            for j in range(len(others)):
                x0 = np.float32(middle[j, n, 0] + moved * line[j, n, 0] - 0.5)
                y0 = np.float32(middle[j, n, 1] + moved * line[j, n, 1] - 0.5)
                a00, a01 = np.float32(warp[j, n, 0, 0]), np.float32(warp[j, n, 0, 1])
                a10, a11 = np.float32(warp[j, n, 1, 0]), np.float32(warp[j, n, 1, 1])
                wide = (abs(a00) + abs(a01)) * RADIUS_PX
                tall = (abs(a10) + abs(a11)) * RADIUS_PX
                if not (x0 - wide >= 0 and y0 - tall >= 0 and x0 + wide < width - 1 and y0 + tall < height - 1):
                    continue
                zoom = abs(a00 * a11 - a01 * a10)
                if not (LEAST_ZOOM < zoom < MOST_ZOOM):
                    continue
                image, lx, ly = others[j], np.float32(line[j, n, 0]), np.float32(line[j, n, 1])
                sum_seen, sum_change = none, none
                for k in range(size):
                    x, y = x0 + a00 * u[k] + a01 * v[k], y0 + a10 * u[k] + a11 * v[k]
                    column, row = int(x), int(y)
                    a, b = x - np.float32(column), y - np.float32(row)
                    i00, i01 = image[row, column], image[row, column + 1]
                    i10, i11 = image[row + 1, column], image[row + 1, column + 1]
                    top, bottom = i00 + a * (i01 - i00), i10 + a * (i11 - i10)
                    seen[k] = top + b * (bottom - top)
                    change[k] = lx * ((one - b) * (i01 - i00) + b * (i11 - i10)) + ly * (bottom - top)
                    sum_seen += use[k] * seen[k]
                    sum_change += use[k] * change[k]
                sum_seen /= count
                sum_change /= count
                ss, st, jj, js, jt = none, none, none, none, none
                for k in range(size):
                    s, c, t = use[k] * (seen[k] - sum_seen), use[k] * (change[k] - sum_change), template[k]
                    ss += s * s
                    st += s * t
                    jj += c * c
                    js += c * s
                    jt += c * t
                ss = max(ss, np.float32(1e-9))
                likeness = st / np.sqrt(ss * spread)
                weight = max(likeness - 0.3, 0.0) ** 2
                gain = np.sqrt(spread / ss)
                hessian += weight * gain * gain * jj
                slope += weight * gain * (gain * js - jt)
                # What is left of the patch once the other has its contrast, of which each pixel has its part.
                error += weight * 2 * spread * (1 - likeness) / count
                alike += weight * likeness
                weights += weight
            if weights <= 0 or hessian <= 0:
                best = 0.0
                break
            best = alike / weights
            information[n] = hessian / (error + 1e-3 * spread / count * weights)
            step = -slope / hessian
            moved += min(max(step, -0.1), 0.1)
            if abs(moved) > MOST_SHIFT:
                best = 0.0
                break
            if abs(step) < _STILL:
                break
        shift[n], correlation[n] = moved, best


def spread(shifts: Shifts, log_distance: NDArray[np.float32]) -> Shifts:
    """Spread what the patches say over the image.

    Args:
        shifts: of an image, on its grid.
        log_distance: (H, W) of that image: what lies deep beside something near says little of it.

    Returns:
        The shift everywhere on the grid, and its standard deviation there, given its neighbours.
    """
    height, width = log_distance.shape
    at = grid(width, height)
    far = log_distance[at[..., 1], at[..., 0]].astype(np.float64)
    weight = 1 / ((OVERCONFIDENCE * shifts.std) ** 2 + SURE_STD**2)
    found, information = np.zeros(far.shape), np.zeros(far.shape)
    _relax(shifts.shift, weight, 1 / START_STD**2, far, 1 / STIFFNESS**2, found, information)
    return Shifts(found, 1 / np.sqrt(information))


def sharpened(correction: Correction, shifts: Shifts) -> Correction:
    """A correction with shifts on top, on their grid; as sure as the surer of the two."""
    size = (shifts.shift.shape[1], shifts.shift.shape[0])
    mean = cv2.resize(correction.mean, size, interpolation=cv2.INTER_CUBIC)
    std = cv2.resize(correction.std, size, interpolation=cv2.INTER_LINEAR)
    return Correction((mean + shifts.shift).astype(np.float32), np.minimum(std, shifts.std).astype(np.float32))


@njit(cache=True, nogil=True)
def _relax(value, weight, anchor, far, bond, found, information):  # type: ignore[no-untyped-def]
    rows, columns = value.shape
    across, down = np.zeros((rows, columns)), np.zeros((rows, columns))
    for r in range(rows):
        for c in range(columns):
            if c + 1 < columns:
                across[r, c] = bond / (1 + ((far[r, c + 1] - far[r, c]) / _JUMP) ** 2)
            if r + 1 < rows:
                down[r, c] = bond / (1 + ((far[r + 1, c] - far[r, c]) / _JUMP) ** 2)
    robust = weight.copy()
    for sweep in range(60):
        if sweep % 15 == 14:
            for r in range(rows):
                for c in range(columns):
                    e = (value[r, c] - found[r, c]) ** 2 * weight[r, c]
                    robust[r, c] = weight[r, c] / (1 + e / 4)
        for r in range(rows):
            for c in range(columns):
                top = robust[r, c] * value[r, c]
                total = robust[r, c] + anchor
                if c > 0:
                    top += across[r, c - 1] * found[r, c - 1]
                    total += across[r, c - 1]
                if c + 1 < columns:
                    top += across[r, c] * found[r, c + 1]
                    total += across[r, c]
                if r > 0:
                    top += down[r - 1, c] * found[r - 1, c]
                    total += down[r - 1, c]
                if r + 1 < rows:
                    top += down[r, c] * found[r + 1, c]
                    total += down[r, c]
                found[r, c] += 1.7 * (top / total - found[r, c])
                information[r, c] = total
