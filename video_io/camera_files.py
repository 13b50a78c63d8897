"""Camera calibrations in the files that people have: our own JSON, OpenCV's YAML and XML, COLMAP's cameras.txt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import parse_json, read_text

KNOWN = "a run's camera.json, an intrinsics.json, OpenCV YAML or XML, or COLMAP's cameras.txt"
_MATRIX_NAMES = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "CameraMatrix", "K", "M1", "K1", "intrinsic_matrix")
_DISTORTION_NAMES = (
    "distortion_coefficients", "distCoeffs", "Distortion_Coefficients", "distortion", "dist_coeffs", "D", "D1", "dist",
)  # fmt: skip
_WIDTH_NAMES = ("image_width", "image_Width", "imageWidth", "width", "w")
_HEIGHT_NAMES = ("image_height", "image_Height", "imageHeight", "height", "h")
_COLMAP_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")


def read_camera(path: str | Path) -> Camera:
    """Read a camera of any known kind of file; the kind is told by the content.

    - JSON with model, width, height and parameters by name, or with such an entry under "source" (a run's
      camera.json) : our pixel convention.
    - JSON with fx, fy, cx, cy, width, height: a pinhole in our pixel convention. With "model" FISHEYE_OPENCV (w, h
      and k1 to k4, as C3VD has it) the centre is in OpenCV's convention and half a pixel is added.
    - OpenCV FileStorage with a camera matrix, distortion coefficients and the image's size; fisheye where a node
      says so (`fisheye`, `fisheye_model`, or a model's name that holds "fisheye").
    - COLMAP cameras.txt with one camera; COLMAP's pixel convention is ours.

    Raises:
        InputError: nothing there, an unknown kind, or entries that are missing or impossible.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"camera file '{path}' does not exist; give {KNOWN}")
    try:
        text = read_text(path)
    except (ValueError, OSError) as error:
        raise InputError(f"camera file '{path}' can't be read as text ({error}); give {KNOWN}") from error
    start = text.lstrip()[:200]
    try:
        if start.startswith("{"):
            return _from_json(parse_json(text))
        if start.startswith(("%YAML", "<?xml", "<opencv_storage", "---")) or path.suffix.lower() in (".yml", ".yaml"):
            return _from_opencv(text)
        if any(model in text for model in _COLMAP_MODELS):
            return _from_colmap(text)
    except (ValueError, TypeError, cv2.error) as error:
        reason = "it can't be parsed" if isinstance(error, cv2.error) else str(error).strip().splitlines()[0]
        raise InputError(f"camera file '{path}' can't be used: {reason}; expected {KNOWN}") from error
    raise InputError(f"camera file '{path}' is of no known kind (it begins '{start[:30].strip()}'); give {KNOWN}")


def write_camera(path: str | Path, camera: Camera) -> None:
    """Write `camera` as JSON that `read_camera` reads back exactly."""
    Path(path).write_text(json.dumps(camera.to_dict(), indent=2) + "\n")


def _from_json(values: Any) -> Camera:
    if not isinstance(values, dict):
        raise TypeError("the JSON is not an object")
    if isinstance(values.get("source"), dict):
        return _from_json(values["source"])
    width, height = _first(values, _WIDTH_NAMES), _first(values, _HEIGHT_NAMES)
    model = str(values.get("model", "pinhole"))
    if model.upper() in ("FISHEYE_OPENCV", "OPENCV_FISHEYE"):
        fx, fy, cx, cy, *k = (_number(values, n) for n in ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"))
        return Camera.from_opencv(_size(width), _size(height), [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], k, fisheye=True)
    return Camera.from_dict({**values, "model": model.lower(), "width": _size(width), "height": _size(height)})


def _from_opencv(text: str) -> Camera:
    if not text.lstrip().startswith(("%YAML", "<")):
        text = "%YAML:1.0\n---\n" + text  # ROS leaves out the head that OpenCV's reader wants
    storage = cv2.FileStorage()
    if not storage.open(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY):
        raise ValueError("it is no OpenCV storage")
    try:
        matrix, distortion = _matrix(storage, _MATRIX_NAMES), _matrix(storage, _DISTORTION_NAMES)
        width, height = _whole(storage, _WIDTH_NAMES), _whole(storage, _HEIGHT_NAMES)
        if width is None and not (node := storage.getNode("image_size")).empty():
            width, height = (int(node.at(i).real()) for i in range(2))
        if matrix is None or matrix.size != 9:
            raise ValueError(f"it has no 3 x 3 camera matrix (looked for {', '.join(_MATRIX_NAMES[:3])}, ...)")
        fisheye = _says_fisheye(storage)
    finally:
        storage.release()
    given = np.zeros(0) if distortion is None else distortion.ravel()
    if not fisheye and given.size > 5 and not np.any(given[5:]):
        given = given[:5]
    return Camera.from_opencv(_size(width), _size(height), matrix, given, fisheye=fisheye)


def _says_fisheye(storage: cv2.FileStorage) -> bool:
    for name in ("fisheye", "fisheye_model", "is_fisheye", "calibration_is_fisheye"):
        node = storage.getNode(name)
        if not node.empty():
            return bool(node.real()) if not node.isString() else node.string().lower() in ("1", "true", "yes")
    for name in ("model", "camera_model", "distortion_model"):
        node = storage.getNode(name)
        if not node.empty() and node.isString():
            value = node.string().lower()
            return "fisheye" in value or value in ("equidistant", "kannala_brandt")
    return False


def _matrix(storage: cv2.FileStorage, names: tuple[str, ...]) -> np.ndarray | None:
    for name in names:
        node = storage.getNode(name)
        if node.empty():
            continue
        if node.isMap():
            data = node.getNode("data")
            if node.getNode("dt").empty() and not data.empty():  # ROS: rows, cols, data, no element type
                return np.array([data.at(i).real() for i in range(data.size())])
            return node.mat()
        if node.isSeq():
            return np.array([node.at(i).real() for i in range(node.size())])
    return None


def _whole(storage: cv2.FileStorage, names: tuple[str, ...]) -> int | None:
    for name in names:
        node = storage.getNode(name)
        if not node.empty() and (node.isInt() or node.isReal()):
            return int(node.real())
    return None


def _from_colmap(text: str) -> Camera:
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1:
        raise ValueError(
            f"it holds {len(lines)} cameras, and one is expected (keep the line of the camera that you mean)"
        )
    _, model, width, height, *rest = lines[0]
    w, h, p = int(width), int(height), [float(v) for v in rest]
    expected = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 4, "RADIAL": 5, "OPENCV": 8, "OPENCV_FISHEYE": 8}
    if model not in expected:
        raise ValueError(f"COLMAP's model {model} is not supported (supported: {', '.join(expected)})")
    if len(p) != expected[model]:
        raise ValueError(f"COLMAP's model {model} has {expected[model]} parameters, found {len(p)}")
    if model == "PINHOLE":
        return Camera("pinhole", w, h, tuple(p))
    if model == "OPENCV":
        return Camera("brown", w, h, (*p, 0.0))
    if model == "OPENCV_FISHEYE":
        return Camera("fisheye", w, h, tuple(p))
    f, cx, cy, *k = p
    if not k:
        return Camera("pinhole", w, h, (f, f, cx, cy))
    k1, k2 = (*k, 0.0)[:2]
    return Camera("brown", w, h, (f, f, cx, cy, k1, k2, 0.0, 0.0, 0.0))


def _first(values: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[n] for n in names if n in values), None)


def _number(values: dict[str, Any], name: str) -> float:
    if name not in values:
        raise ValueError(f"it has no '{name}'")
    return float(values[name])


def _size(value: Any) -> int:
    if value is None:
        raise ValueError("it does not say the image's width and height")
    return int(value)
