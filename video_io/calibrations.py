"""Calibrations as data sets have them: COLMAP's models, Scaramuzza's toolbox, calibu's XML, da Vinci's ini."""

from __future__ import annotations

import re
from collections.abc import Sequence
from configparser import ConfigParser, Error
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import read_text
from video_io.stereo import Rig

# COLMAP's models: number of parameters.
COLMAP_MODELS = {
    "SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 4, "RADIAL": 5, "OPENCV": 8, "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12, "SIMPLE_RADIAL_FISHEYE": 4, "RADIAL_FISHEYE": 5,
}  # fmt: skip
CALIBU = "calibu_fu_fv_u0_v0"
OCAM = "ocamcalib_cx_cy_a0_a2_a3_a4_e_f_g"


def colmap_camera(model: str, width: int, height: int, params: Sequence[float]) -> Camera:
    """A camera of COLMAP, whose pixel convention is ours.

    Raises:
        ValueError: a model that we do not have, or a wrong number of parameters.
    """
    p = [float(v) for v in params]
    if model not in COLMAP_MODELS:
        raise ValueError(f"COLMAP's model {model} is not supported (supported: {', '.join(COLMAP_MODELS)})")
    if len(p) != COLMAP_MODELS[model]:
        raise ValueError(f"COLMAP's model {model} has {COLMAP_MODELS[model]} parameters, found {len(p)}")
    if model == "PINHOLE":
        return Camera("pinhole", width, height, tuple(p))
    if model == "OPENCV":
        return Camera("brown", width, height, (*p, 0.0))
    if model == "FULL_OPENCV":
        if any(p[9:]):
            raise ValueError("COLMAP's model FULL_OPENCV is supported with k4 = k5 = k6 = 0 only")
        return Camera("brown", width, height, tuple(p[:9]))
    if model == "OPENCV_FISHEYE":
        return Camera("fisheye", width, height, tuple(p))
    f, cx, cy, *k = p
    if not k:
        return Camera("pinhole", width, height, (f, f, cx, cy))
    k1, k2 = (*k, 0.0)[:2]
    if model.endswith("FISHEYE"):
        return Camera("fisheye", width, height, (f, f, cx, cy, k1, k2, 0.0, 0.0))
    return Camera("brown", width, height, (f, f, cx, cy, k1, k2, 0.0, 0.0, 0.0))


def scaramuzza_camera(text: str, width: int, height: int) -> Camera:
    """Scaramuzza's omnidirectional camera from text with named values: cx, cy, a0, a2, a3, a4, and c, d, e if unequal.

    The centre counts from the centre of the first pixel, as OpenCV's does, and is moved to ours.

    Raises:
        ValueError: a value is missing.
    """
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    found = {
        m[1].lower(): float(m[2]) for m in re.finditer(rf"\b([A-Za-z]\w*)\b[\"']?\s*[:=,]?\s*({number})(?![\w.])", text)
    }
    width, height = int(found.get("width", width)), int(found.get("height", height))
    if missing := [n for n in ("cx", "cy", "a0", "a2", "a3", "a4") if n not in found]:
        raise ValueError(f"it does not give {', '.join(missing)}")
    c, d, e = (found.get(n, unit) for n, unit in (("c", 1.0), ("d", 0.0), ("e", 0.0)))
    values = [found[n] for n in ("cx", "cy", "a0", "a2", "a3", "a4")]
    values[0] += 0.5
    values[1] += 0.5
    return Camera("omnidirectional", width, height, (*values, c, d, e, 1.0))


def calibu_camera(text: str) -> Camera:
    """The camera of a calibu or vicalib XML, as EndoMapper's `*_geometrical.xml`.

    Types: calibu_fu_fv_u0_v0 (pinhole), .._k1_k2 and .._k1_k2_k3 (radial polynomials), .._kb4 (Kannala-Brandt, OpenCV's
    fisheye) and ocamcalib_cx_cy_a0_a2_a3_a4_e_f_g (Scaramuzza, [[e, f], [g, 1]]). Centres count from the centre of the
    first pixel and are moved to ours.

    Raises:
        ValueError: another type, or values that are missing.
    """
    kind = re.search(r"<camera_model\b[^>]*\btype\s*=\s*[\"']([\w]+)[\"']", text)
    params = re.search(r"<params>\s*\[?([^<\]]*)\]?\s*</params>", text)
    size = [re.search(rf"<{n}>\s*(\d+)\s*</{n}>", text) for n in ("width", "height")]
    if kind is None or params is None or size[0] is None or size[1] is None:
        raise ValueError("it has no camera_model with type, width, height and params")
    model, p = kind[1], [float(v) for v in params[1].replace(",", ";").replace("\n", ";").split(";") if v.strip()]
    w, h = int(size[0][1]), int(size[1][1])
    known = {CALIBU: 4, f"{CALIBU}_k1_k2": 6, f"{CALIBU}_k1_k2_k3": 7, f"{CALIBU}_kb4": 8, OCAM: 9}
    if model not in known:
        raise ValueError(f"the camera model {model} is not supported (supported: {', '.join(known)})")
    if len(p) != known[model]:
        raise ValueError(f"the camera model {model} has {known[model]} parameters, found {len(p)}")
    if model == OCAM:
        cx, cy, a0, a2, a3, a4, e, f, g = p
        return Camera("omnidirectional", w, h, (cx + 0.5, cy + 0.5, a0, a2, a3, a4, e, f, g, 1.0))
    matrix = [[p[0], 0, p[2]], [0, p[1], p[3]], [0, 0, 1]]
    if model.endswith("kb4"):
        return Camera.from_opencv(w, h, matrix, p[4:], fisheye=True)
    k1, k2, k3 = (*p[4:], 0.0, 0.0, 0.0)[:3]
    return Camera.from_opencv(w, h, matrix, [k1, k2, 0.0, 0.0, k3])


def stereo_ini(path: Path) -> Rig:
    """The rig of a da Vinci's StereoCalibration.ini: StereoLeft and StereoRight with res, fc, cc, kc, R, T (mm).

    Raises:
        InputError: the file is missing or incomplete.
    """
    parser = ConfigParser()
    try:
        parser.read_string(read_text(path))
        cameras, poses = zip(*(_ini_camera(parser, side) for side in ("StereoLeft", "StereoRight")), strict=True)
        return Rig(*cameras, poses[1] @ np.linalg.inv(poses[0]))
    except (OSError, UnicodeDecodeError, Error, KeyError, ValueError, np.linalg.LinAlgError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"'{path}' can't be used as the stereo calibration ({str(error).splitlines()[0]}); expected the sections "
            "StereoLeft and StereoRight with res, fc, cc, kc, R and T; complete the folder"
        ) from error


def _ini_camera(parser: ConfigParser, side: str) -> tuple[Camera, NDArray[np.float64]]:
    s = parser[side]
    w, h = (round(float(s[f"res_{a}"])) for a in "xy")
    fx, fy, cx, cy = (float(s[n]) for n in ("fc_x", "fc_y", "cc_x", "cc_y"))
    distortion = [float(s.get(f"kc_{i}", "0")) for i in range(5)]
    pose = np.eye(4)  # camera from rig
    pose[:3, :3] = np.array([float(s[f"R_{i}"]) for i in range(9)]).reshape(3, 3)
    pose[:3, 3] = [float(s[f"T_{i}"]) for i in range(3)]
    return Camera.from_opencv(w, h, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], distortion), pose
