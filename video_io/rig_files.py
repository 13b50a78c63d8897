"""Stereo calibrations in the files that people have: OpenCV's YAML or XML, a da Vinci's ini."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.calibrations import stereo_ini
from video_io.camera import Camera
from video_io.camera_files import opencv_matrices
from video_io.errors import InputError
from video_io.files import read_text
from video_io.stereo import Rig

KNOWN = "OpenCV's YAML or XML with M1, D1, M2, D2, R and T (mm), or a StereoCalibration.ini"
_NAMES = ("M1", "D1", "M2", "D2", "R", "T")


def read_rig(path: str | Path, size: tuple[int, int]) -> Rig:
    """Read a stereo calibration; the kind is told by the content.

    Args:
        path: the file.
        size: (width, height) of one eye's picture; OpenCV's files do not tell it.

    Raises:
        InputError: nothing there, an unknown kind, or entries that are missing or impossible.
    """
    path = Path(path).expanduser()
    try:
        text = read_text(path)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the stereo calibration '{path}' can't be read ({reason}); give {KNOWN}") from error
    if "[StereoLeft]" in text:
        rig = stereo_ini(path)
        if (rig.left.width, rig.left.height) != size:
            rig = Rig(rig.left.scaled(*size), rig.right.scaled(*size), rig.right_from_left)
        return rig
    try:
        found = opencv_matrices(text, _NAMES)
        if missing := [name for name in ("M1", "M2", "R", "T") if name not in found]:
            raise ValueError(f"it has no {', '.join(missing)}")
        left, right = (
            Camera.from_opencv(*size, found[f"M{k}"].reshape(3, 3), found.get(f"D{k}", np.zeros(0)).ravel()[:5])
            for k in (1, 2)
        )
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = found["R"].reshape(3, 3), found["T"].ravel()
        return Rig(left, right, pose)
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the stereo calibration '{path}' can't be used: {error}; expected {KNOWN}") from error


def rectified_rig(camera: Camera, baseline_mm: float) -> Rig:
    """The rig of rectified pictures: the same camera twice, side by side.

    Raises:
        InputError: no length that two lenses are apart.
    """
    shift = np.eye(4)
    shift[0, 3] = -baseline_mm
    return Rig(camera, camera, shift)
