"""SERV-CT (Edwards et al., Medical Image Analysis 2022): 16 stereo pairs of porcine organs, with a surface from CT.

Experiment_N/: Left_rectified/NNN.png, Right_rectified/NNN.png, Rectified_calibration/NNN.json (P1, P2, mm), and the
reference in Reference_CT/ or Ground_truth_CT/: DepthL/NNN.png and DepthR/NNN.png, 16 bit, mm = value / 256, z, 0 =
none. The pairs are single shots: there are no poses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_io.camera import Camera
from video_io.datasets.base import (
    Depth,
    Truth,
    check_count,
    check_size,
    files_in,
    image_size,
    read_depth_image,
    read_picture,
)
from video_io.errors import InputError
from video_io.files import parse_json, read_text
from video_io.stereo import Pairs, Rig

REFERENCES = ("Reference_CT", "Ground_truth_CT")


def accepts(folder: Path) -> bool:
    """Whether this file reads the folder."""
    return (folder / "Left_rectified").is_dir()


def open(folder: Path) -> Truth:
    """Open an experiment's folder; see `open_truth`."""
    left, right = files_in(folder / "Left_rectified"), files_in(folder / "Right_rectified")
    if not left:
        raise InputError(f"'{folder / 'Left_rectified'}' holds no images; expected NNN.png; complete the folder")
    check_count(folder, len(left), len(right), "right images")
    reference = next((folder / n for n in REFERENCES if (folder / n).is_dir()), folder / REFERENCES[0])
    depths = {side: files_in(reference / f"Depth{side}") for side in "LR"}
    check_count(folder, len(left), len(depths["L"]), "left depth images")
    size = image_size(left[0])
    rigs = [_rig(path, size) for p in left if (path := folder / "Rectified_calibration" / f"{p.stem}.json").is_file()]
    notes = ["the pairs are single shots, not a clip"]
    if rigs and len(rigs) != len(left):
        check_count(folder, len(left), len(rigs), "calibrations")
    same = bool(rigs) and all(np.allclose(r.left.params, rigs[0].left.params, atol=1e-3) for r in rigs)
    if not same:
        notes.append("camera: it differs from pair to pair" if rigs else "camera: Rectified_calibration/ is missing")

    def depth(side: str, index: int) -> Depth:
        path = depths[side][index]
        stored = read_depth_image(path)
        check_size(path, stored.shape[1::-1], size)
        return (stored.astype(np.float32) / np.float32(256)).astype(np.float32)

    pairs = None
    if same:
        both = len(depths["R"]) == len(left)
        pairs = Pairs(
            rigs[0],
            lambda i: (read_picture(left[i]), read_picture(right[i])),
            (lambda i: depth("R", i)) if both else None,
        )
    return Truth(
        folder.resolve().name, "servct", rigs[0].left if same else None, None, left, len(left), None,
        lambda i: depth("L", i), pairs=pairs, notes=tuple(notes),
    )  # fmt: skip


def _rig(path: Path, size: tuple[int, int]) -> Rig:
    """The rectified cameras from the projection matrices P1 and P2, whose last column is -f times the baseline."""
    try:
        values = parse_json(read_text(path))
        if not isinstance(values, dict):
            raise TypeError("it is no object")
        p1, p2 = (np.array(_entry(values[name]), float).reshape(3, 4) for name in ("P1", "P2"))
        left, right = (Camera.from_opencv(*size, p[:, :3]) for p in (p1, p2))
        shift = np.eye(4)
        shift[0, 3] = p2[0, 3] / p2[0, 0] - p1[0, 3] / p1[0, 0]
        return Rig(left, right, shift)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"'{path}' can't be used as the calibration ({error!r:.80}); expected json with P1 and P2; fetch it again"
        ) from error


def _entry(value: object) -> object:
    """OpenCV writes matrices into json as {rows, cols, data}."""
    return value["data"] if isinstance(value, dict) else value
