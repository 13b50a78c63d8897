"""Takes out of a depth map what is finer than its uncertainty allows to believe."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_BELIEVED_STDS = 0.5  # a relief of more than this many standard deviations is kept
_WHOLE = 0.98  # share of the smoothing window that must be valid


def smoothed(
    depth: NDArray[np.float32], confidence: NDArray[np.float32], log_std: NDArray[np.float32], sigma_px: float
) -> NDArray[np.float32]:
    """Depth (H, W) without relief that is both narrower than `sigma_px` and lower than half its standard deviation.

    Networks print the texture of the tissue (vessels) into the depth as fine relief, the same in every frame, which no
    averaging removes. Inverse depth is smoothed, since it is linear on planes, however steep; where that would change
    more than the uncertainty allows, as at folds and occlusion edges, and along borders, the depth stays as it is.
    """
    valid = (confidence > 0) & (depth > 0) & np.isfinite(depth)
    inverse = np.zeros_like(depth)
    np.divide(1, depth, out=inverse, where=valid)
    mean, weight = _blurred(inverse, sigma_px), _blurred(valid.astype(np.float32), sigma_px)
    whole = valid & (weight > _WHOLE)
    np.divide(mean, weight, out=mean, where=whole)
    change = np.zeros_like(depth)
    np.divide(np.abs(mean - inverse), inverse, out=change, where=whole)
    change = cv2.dilate(change, np.ones((2 * round(sigma_px) + 1,) * 2, np.uint8))
    allowed = np.maximum(_BELIEVED_STDS * log_std, 1e-6)
    keep = np.where(whole, np.clip(2 * change / allowed - 1, 0, 1), 1).astype(np.float32)
    keep[~np.isfinite(keep)] = 1
    result = depth.copy()
    np.divide(1, mean + (inverse - mean) * keep, out=result, where=whole)
    return result


def _blurred(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    size = 2 * int(2.5 * sigma_px) + 1
    return cv2.GaussianBlur(image, (size, size), sigma_px, borderType=cv2.BORDER_CONSTANT)
