"""The known diameter of an instrument's shaft: its cylinder as wide as it is seen, as far as the run's depth says.

The two silhouette edges of a cylinder lie on two planes through the camera's centre. Half of the angle between them, a,
and the distance rho of the axis give the radius rho sin a; the depth of the side that faces the camera gives rho.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from endorecon.run import Run
from endorecon.scales.base import (
    PICKED_PX,
    Cut,
    ScaleEstimate,
    check_frame,
    input_of,
    log_depth_std,
    mean_of_frames,
    shown_frames,
    unit_mm,
)
from video_io.errors import InputError

Float = NDArray[np.float64]

MIDDLE = 0.6  # share of the shaft's width whose depth is asked: the edges are smeared
LEAST_PIXELS = 4
MOST_WIDTH = np.radians(75)  # of the wedge: beyond, what was picked is no shaft
# Of two points the shaft's tilt in depth is unknown: it changes the result by about this share of the sine of a.
TILT_DOUBT = 0.2
# From a mask: rows of the shaft that say where its edges are, and how much longer than wide it has to be.
_SLICES, _SLENDER, LEAST_MASK = 24, 1.5, 60


@dataclass(frozen=True)
class Wedge:
    """The two planes through the camera's centre between which a cylinder lies.

    Attributes:
        axis: (3,) unit, the direction of the cylinder.
        middle: (3,) unit, across the axis, half-way between the planes.
        half_rad: half of the angle between them.
    """

    axis: Float
    middle: Float
    half_rad: float

    @staticmethod
    def of(one: Float, other: Float) -> Wedge:
        """From rays (N, 3) along one edge and (M, 3) along the other. With one of each, the cylinder is taken to lie
        across the line of sight.

        Raises:
            InputError: edges between which no shaft fits.
        """
        if len(one) == 1 and len(other) == 1:
            axis = _unit(np.cross(one[0], other[0]))
            first, second = _unit(np.cross(axis, one[0])), _unit(np.cross(other[0], axis))
        else:
            first, second = _plane(one), _plane(other)
            axis = np.cross(first, second)
            if np.linalg.norm(axis) < 1e-9:
                raise InputError("the two edges of the instrument are one and the same; pick its two sides")
            axis = _unit(axis)
        middle = _unit((one.mean(0) + other.mean(0)) - ((one.mean(0) + other.mean(0)) @ axis) * axis)
        first, second = first * np.sign(first @ middle), second * np.sign(second @ middle)
        half = 0.5 * float(np.arccos(np.clip(-first @ second, -1, 1)))
        if not 0 < half < MOST_WIDTH / 2:
            raise InputError(
                f"the edges of the instrument lie {np.degrees(2 * half):.1f} degrees apart; expected the two sides of "
                "a shaft; pick points across it"
            )
        return Wedge(axis, middle, half)

    def radius(self, rays: Float, distance: Float) -> Float:
        """The cylinder's radius by each of the points that rays (N, 3) see on it at `distance` (N,); NaN off its
        middle."""
        across = rays - (rays @ self.axis)[:, None] * self.axis
        length = np.linalg.norm(across, axis=1)
        side = np.cross(self.axis, self.middle)
        angle = np.arctan2(across @ side, across @ self.middle)
        sine = np.sin(self.half_rad)
        inside = np.abs(angle) < MIDDLE * self.half_rad
        # In the plane across the axis a ray meets the circle of radius rho sin a about (rho, 0).
        reach = np.cos(angle) - np.sqrt(np.maximum(sine**2 - np.sin(angle) ** 2, 0))
        return np.where(inside, distance * length / reach * sine, np.nan)


def measure(run: Run, diameter_mm: float, frame: int, points: Float) -> ScaleEstimate:
    """From two points across the shaft, or four: two along one edge, then two along the other.

    Args:
        run: with depth for the frame.
        diameter_mm: of the shaft.
        frame: index in the source.
        points: (2 or 4, 2) pixels of the source's image.

    Raises:
        InputError: no diameter, points that lie on no shaft, or a frame without depth there.
    """
    points = np.asarray(points, float)
    if points.shape not in ((2, 2), (4, 2)):
        raise InputError(f"{len(points)} points were picked; expected 2 across the shaft, or 2 along each of its edges")
    one, other = (points[:1], points[1:]) if len(points) == 2 else (points[:2], points[2:])
    wide = float(np.linalg.norm(one.mean(0) - other.mean(0)))
    if wide < 2 * PICKED_PX:
        raise InputError(f"the edges of the instrument lie {wide:.1f} pixels apart; pick its two sides")
    cut = _checked(run, diameter_mm, frame)
    picked = cut.check(points)
    # Depth is asked where the points are, not along all of the shaft.
    reach = np.linalg.norm(picked[: len(one)].mean(0) - picked[len(one) :].mean(0))
    where = _near(run, picked, max(float(reach), 3.0))
    doubt = np.sqrt(2) * PICKED_PX / wide
    words = " ".join(f"({x:g}, {y:g})" for x, y in points)
    return _measured(
        run, diameter_mm, frame, cut, (one, other), where, float(doubt), len(points) == 2, f"at the points {words}"
    )


def measure_mask(run: Run, diameter_mm: float, frame: int, mask: NDArray[np.bool_], name: str) -> ScaleEstimate:
    """From a mask of the instrument in the source's image, (H, W) bool: its edges are fitted.

    Raises:
        InputError: no diameter, a mask of another size or without a straight shaft, or a frame without depth there.
    """
    cut = _checked(run, diameter_mm, frame)
    if mask.shape != (cut.source[1], cut.source[0]):
        raise InputError(
            f"the mask '{name}' is {mask.shape[1]} x {mask.shape[0]}, the images are {cut.source[0]} x "
            f"{cut.source[1]}; expected the same size"
        )
    one, other, spread = edges(mask)
    inside = cut.working(np.concatenate([one, other]))
    if ((inside < 0) | (inside > cut.size)).any(-1).mean() > 0.5:
        raise InputError(f"the instrument in '{name}' lies outside the part of the image that was reconstructed")
    assert run.camera is not None
    rows, columns = np.mgrid[: run.camera.height, : run.camera.width] + 0.5
    at = np.floor(cut.original(np.stack([columns, rows], -1))).astype(int)
    where = mask[np.clip(at[..., 1], 0, mask.shape[0] - 1), np.clip(at[..., 0], 0, mask.shape[1] - 1)]
    wide = float(np.median(np.linalg.norm(one - other, axis=1)))
    doubt = max(spread, 0.5) / wide
    return _measured(run, diameter_mm, frame, cut, (one, other), where, doubt, False, f"by the mask '{name}'")


def measure_own_masks(run: Run, diameter_mm: float, most: int = 24) -> ScaleEstimate:
    """From the masks of the data set that the run was made from, in frames spread over it.

    Raises:
        InputError: the input has no masks, or no frame shows a straight shaft with depth.
    """
    from video_io.datasets import layout_of, open_truth

    path = input_of(run)
    truth = open_truth(path) if path.is_dir() and layout_of(path) is not None else None
    if truth is None or truth.read_mask is None:
        raise InputError(f"the input '{path}' has no masks of instruments; give --frame, and --points or --mask")
    own, found = shown_frames(run), []
    for at in np.unique(np.linspace(0, len(own) - 1, min(most, len(own))).astype(int)) if own else ():
        tissue = truth.mask(own[at])
        if tissue is None:
            continue
        with suppress(InputError):
            found.append(measure_mask(run, diameter_mm, own[at], ~tissue, truth.name))
    if not found:
        raise InputError(f"no mask of '{path}' shows a straight shaft in {min(most, len(own))} frames; give --points")
    middle, spread = mean_of_frames([np.log(e.mm_per_unit) for e in found])
    log_std = float(np.hypot(np.median([e.log_std for e in found]), spread))
    source = f"an instrument of {diameter_mm:g} mm by the masks of '{truth.name}', {len(found)} frames"
    return ScaleEstimate(source, float(np.exp(middle)), log_std)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A picture as a mask, (H, W) bool: True where it is bright.

    Raises:
        InputError: it can't be read.
    """
    from video_io.sources.base import decode_image

    try:
        return decode_image(path.expanduser()).max(-1) > 127
    except (OSError, ValueError) as error:
        raise InputError(f"the mask '{path}' can't be read ({error}); give a picture, white on the tool") from error


def edges(mask: NDArray[np.bool_]) -> tuple[Float, Float, float]:
    """Points (N, 2) along the two straight edges of the largest instrument in a mask, and by how much the mask leaves
    them, pixels. The picture's border is no edge.

    Raises:
        InputError: nothing long and straight in the mask.
    """
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    nothing = InputError("the mask shows no straight shaft; expected an instrument longer than wide; pick points")
    if count < 2 or stats[1:, cv2.CC_STAT_AREA].max() < LEAST_MASK:
        raise nothing
    part = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    at = np.argwhere(part)[:, ::-1] + 0.5
    middle = at.mean(0)
    _, size, axes = np.linalg.svd(at - middle, full_matrices=False)
    if size[0] < _SLENDER * size[1]:
        raise nothing
    along, across = (at - middle) @ axes[0], (at - middle) @ axes[1]
    # The ends are a tip, or cut off by the picture.
    low, high = np.percentile(along, (10, 90))
    step, found = max((high - low) / _SLICES, 1.0), []
    height, width = mask.shape
    for begin in np.arange(low, high, step):
        own = (along >= begin) & (along < begin + step)
        if own.sum() < 3:
            continue
        # By its area, as the rim of a mask is made of steps.
        centre, half = float(across[own].mean()), own.sum() / step / 2
        ends = centre - half, centre + half
        points = middle + (begin + step / 2) * axes[0] + np.outer(ends, axes[1])
        if ((points > 2) & (points < np.array([width, height]) - 2)).all():
            found.append((begin + step / 2, *ends))
    if len(found) < 4:
        raise nothing
    rows = np.array(found)
    one, other = (_straight(rows[:, 0], rows[:, k]) for k in (1, 2))
    spread = max(one[1], other[1])
    lines = [middle + np.outer(rows[:, 0], axes[0]) + np.outer(line, axes[1]) for line, _ in (one, other)]
    if spread > 0.15 * float(np.median(rows[:, 2] - rows[:, 1])):
        raise nothing
    return lines[0], lines[1], spread


def _straight(x: Float, y: Float) -> tuple[Float, float]:
    """The robust straight line through (x, y), at x, and the standard deviation of y from it."""
    weight = np.ones(len(x))
    line, spread = y, 0.0
    for _ in range(10):
        line = np.polyval(np.polyfit(x, y, 1, w=np.sqrt(weight)), x)
        spread = 1.4826 * float(np.median(np.abs(y - line))) + 1e-6
        weight = 1 / (1 + ((y - line) / (2 * max(spread, 0.3))) ** 2)
    return line, spread


def _checked(run: Run, diameter_mm: float, frame: int) -> Cut:
    if not diameter_mm > 0:
        raise InputError(f"the instrument's diameter is {diameter_mm:g} mm; expected a positive number")
    check_frame(run, frame)
    return Cut.of(run)


def _near(run: Run, picked: Float, reach: float) -> NDArray[np.bool_]:
    """(H, W) bool: the pixels within half of `reach` of the middle of the picked points, or between those along the
    edges."""
    assert run.camera is not None
    pixels = run.camera.pixels()
    middle = picked.mean(0)
    far = max(0.5 * reach, float(np.linalg.norm(picked - middle, axis=1).max()) if len(picked) == 4 else 0.0)
    return np.linalg.norm(pixels - middle, axis=-1) < far


def _measured(
    run: Run, diameter_mm: float, frame: int, cut: Cut, sides: tuple[Float, Float], where: NDArray[np.bool_],
    doubt: float, tilted: bool, words: str,
) -> ScaleEstimate:  # fmt: skip
    """The scale by the shaft between two edges (pixels of the source), whose depth is read off `where` (H, W)."""
    assert run.camera is not None
    camera = run.camera
    wedge = Wedge.of(*(camera.rays(cut.working(side)) for side in sides))
    depth, confidence = run.depth(frame)
    rays = camera.ray_map().astype(np.float64)
    good = where & (confidence > 0) & (depth > 0) & (rays[..., 2] > 0.05)
    radius = wedge.radius(rays[good], depth[good] / rays[good][:, 2])
    found = np.isfinite(radius)
    if found.sum() < LEAST_PIXELS:
        raise InputError(f"frame {frame} has no depth on the instrument {words}; pick another place or frame")
    middle = float(np.median(np.log(radius[found])))
    spread = 1.4826 * float(np.median(np.abs(np.log(radius[found]) - middle)))
    # Depth errors of neighbouring pixels are alike: all count as one measurement.
    depth_std = max(float(log_depth_std(np.median(confidence[good][found]))), spread)
    tilt = TILT_DOUBT * np.sin(wedge.half_rad) if tilted else 0.0
    log_std = float(np.sqrt(depth_std**2 + doubt**2 + tilt**2))
    source = f"an instrument of {diameter_mm:g} mm in frame {frame} {words}"
    return ScaleEstimate(source, diameter_mm / 2 / float(np.exp(middle)) * (unit_mm(run) or 1.0), log_std)


def _plane(rays: Float) -> Float:
    """The unit normal (3,) of the plane through the origin that fits rays (N, 3) best."""
    return np.linalg.svd(rays)[2][2]


def _unit(v: Float) -> Float:
    return v / max(float(np.linalg.norm(v)), 1e-12)
