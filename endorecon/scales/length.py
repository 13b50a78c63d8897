"""A known length between two points that were picked in an image: a ruler, a stone, the jaws or the shaft of a tool."""

from __future__ import annotations

import numpy as np

from endorecon.run import Run
from endorecon.scales.base import PICKED_PX, Cut, ScaleEstimate, check_frame, log_depth_std, unit_mm
from video_io.errors import InputError

Pixel = tuple[float, float]


def measure(run: Run, length_mm: float, frame: int, first: Pixel, second: Pixel) -> ScaleEstimate:
    """From the depth of one frame at two pixels of the source's image.

    Args:
        run: with depth for the frame.
        length_mm: the true length.
        frame: index in the source.
        first, second: (x, y) in the source's image; (0.5, 0.5) is the centre of the top-left pixel.

    Raises:
        InputError: no length, a frame without depth or of a segment that is not shown, a pixel outside the image or
            without depth, or the same point twice.
    """
    if not length_mm > 0:
        raise InputError(f"the known length is {length_mm:g} mm; expected a positive number")
    check_frame(run, frame)
    depth, confidence = run.depth(frame)
    points, errors = zip(*(picked_point(run, frame, depth, confidence, p) for p in (first, second)), strict=True)
    found = float(np.linalg.norm(points[0] - points[1]))
    apart = float(np.hypot(first[0] - second[0], first[1] - second[1]))
    if apart < 2 * PICKED_PX or found <= 0:
        raise InputError(f"the two points are {apart:.1f} pixels apart; pick two that are farther from each other")
    # Errors of the depth at both ends, half of which they share; and of the picking.
    log_std = float(np.hypot(np.sqrt(np.mean(np.square(errors))), np.sqrt(2) * PICKED_PX / apart))
    x, y = first, second
    source = f"a known length of {length_mm:g} mm in frame {frame} from ({x[0]:g}, {x[1]:g}) to ({y[0]:g}, {y[1]:g})"
    return ScaleEstimate(source, length_mm / found * (unit_mm(run) or 1.0), log_std)


def picked_point(run: Run, frame: int, depth, confidence, at: Pixel) -> tuple[np.ndarray, float]:  # type: ignore[no-untyped-def]
    """The point (3,) in the camera's frame that a source pixel sees, and the standard deviation of its log depth.

    Raises:
        InputError: a pixel outside the part of the image that was reconstructed, or without depth.
    """
    pixel = Cut.of(run).check([at])
    column, row = np.floor(pixel[0]).astype(int)
    around = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
    known = confidence[around] > 0
    if not known.any():
        raise InputError(f"frame {frame} has no depth at ({at[0]:g}, {at[1]:g}); pick another point or frame")
    z = float(np.median(depth[around][known]))
    assert run.camera is not None
    ray = run.camera.rays(pixel)[0]
    return z * ray / ray[2], float(log_depth_std(np.median(confidence[around][known])))
