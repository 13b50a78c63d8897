"""Camera calibrations in the files that people have: our JSON, OpenCV's YAML and XML, COLMAP's text, calibu's XML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from video_io.calibrations import COLMAP_MODELS, calibu_camera, colmap_camera
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import parse_json, parse_yaml, read_text

KNOWN = "a run's camera.json, an intrinsics.json, OpenCV YAML or XML, calibu's XML, or COLMAP's cameras.txt"
_MATRIX_NAMES = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "CameraMatrix", "K", "M1", "K1", "intrinsic_matrix")
_DISTORTION_NAMES = (
    "distortion_coefficients", "distCoeffs", "Distortion_Coefficients", "distortion", "dist_coeffs", "D", "D1", "dist",
)  # fmt: skip
_WIDTH_NAMES = ("image_width", "image_Width", "imageWidth", "width", "w")
_HEIGHT_NAMES = ("image_height", "image_Height", "imageHeight", "height", "h")


def read_camera(path: str | Path) -> Camera:
    """Read a camera of any known kind of file; the kind is told by the content.

    - JSON with model, width, height and parameters by name, or with such an entry under "source" (a run's
      camera.json) : our pixel convention.
    - JSON with fx, fy, cx, cy, width, height: a pinhole in our pixel convention. With "model" FISHEYE_OPENCV (w, h
      and k1 to k4, as C3VD has it) the centre is in OpenCV's convention and half a pixel is added.
    - OpenCV FileStorage with a camera matrix, distortion coefficients and the image's size; fisheye where a node
      says so (`fisheye`, `fisheye_model`, or a model's name that holds "fisheye").
    - COLMAP cameras.txt with one camera; COLMAP's pixel convention is ours.
    - XML of calibu or vicalib, as EndoMapper has it (`calibrations.calibu_camera`).

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
        if "<camera_model" in text:
            return calibu_camera(text)
        if start.startswith(("%YAML", "<?xml", "<opencv_storage", "---")) or path.suffix.lower() in (".yml", ".yaml"):
            return _from_opencv(text)
        if any(model in text for model in (*COLMAP_MODELS, "THIN_PRISM_FISHEYE")):
            return _from_colmap(text)
    except (ValueError, TypeError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0]
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


def opencv_matrices(text: str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The matrices of an OpenCV storage (YAML or XML) that it has under these names, flat.

    Raises:
        ValueError: it is no such storage.
    """
    nodes = _xml_nodes(text) if text.lstrip().startswith("<") else _yaml_nodes(text)
    found = {name: _matrix(nodes, (name,)) for name in names}
    return {name: matrix for name, matrix in found.items() if matrix is not None and matrix.size}


def _from_opencv(text: str) -> Camera:
    # Read without OpenCV's own reader, which damaged files bring to crash the program.
    nodes = _xml_nodes(text) if text.lstrip().startswith("<") else _yaml_nodes(text)
    matrix, distortion = _matrix(nodes, _MATRIX_NAMES), _matrix(nodes, _DISTORTION_NAMES)
    width, height = _first(nodes, _WIDTH_NAMES), _first(nodes, _HEIGHT_NAMES)
    if width is None and (size := _numbers(nodes.get("image_size"))).size >= 2:
        width, height = size[:2]
    if matrix is None or matrix.size != 9:
        raise ValueError(f"it has no 3 x 3 camera matrix (looked for {', '.join(_MATRIX_NAMES[:3])}, ...)")
    given = np.zeros(0) if distortion is None else distortion
    fisheye = _says_fisheye(nodes)
    if not fisheye and given.size > 5 and not np.any(given[5:]):
        given = given[:5]
    return Camera.from_opencv(_size(width), _size(height), matrix.reshape(3, 3), given, fisheye=fisheye)


def _yaml_nodes(text: str) -> dict[str, Any]:
    """The nodes of a YAML file: OpenCV's head and its types are no YAML and are left out; ROS writes neither."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    nodes = parse_yaml(re.sub(r"!!opencv-matrix\b", "", "\n".join(lines)))
    if not isinstance(nodes, dict):
        raise ValueError("it is no OpenCV storage")
    return nodes


def _xml_nodes(text: str) -> dict[str, Any]:
    import xml.etree.ElementTree as ET

    try:
        root = ET.fromstring(text.lstrip())
    except (ET.ParseError, RecursionError) as error:
        raise ValueError(f"it is no OpenCV storage: {error}") from error
    return {n.tag: {part.tag: part.text for part in n} if len(n) else (n.text or "").strip() for n in root}


def _says_fisheye(nodes: dict[str, Any]) -> bool:
    for name in ("fisheye", "fisheye_model", "is_fisheye", "calibration_is_fisheye"):
        if (value := nodes.get(name)) is not None:
            return str(value).lower() in ("true", "yes") or bool(np.any(_numbers(value)))
    for name in ("model", "camera_model", "distortion_model"):
        if isinstance(value := nodes.get(name), str):
            return "fisheye" in value.lower() or value.lower() in ("equidistant", "kannala_brandt")
    return False


def _matrix(nodes: dict[str, Any], names: tuple[str, ...]) -> np.ndarray | None:
    """The numbers of the first of these nodes that is there, row by row."""
    value = _first(nodes, names)
    if value is None:
        return None
    return _numbers(value.get("data") if isinstance(value, dict) else value)


def _numbers(value: Any) -> np.ndarray:
    """A flat array of a number, a list (of lists) or a text of numbers; empty where it is something else."""
    words = value.split() if isinstance(value, str) else value
    try:
        return np.array(words, float).ravel()
    except (TypeError, ValueError):
        return np.zeros(0)


def _from_colmap(text: str) -> Camera:
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1:
        raise ValueError(
            f"it holds {len(lines)} cameras, and one is expected (keep the line of the camera that you mean)"
        )
    _, model, width, height, *rest = lines[0]
    return colmap_camera(model, int(width), int(height), [float(v) for v in rest])


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
