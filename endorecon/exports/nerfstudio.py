"""nerfstudio's transforms.json with pictures, masks, depth and points.

Poses are camera-to-world with axes right, up, backwards (OpenGL). Lengths in transforms.json are metres where the run
is in millimetres, and thousandths of its unit otherwise, since nerfstudio multiplies depth by a thousandth unless told
otherwise; so depth/ holds the run's own unit, as float32, which 16 bits would round to whole millimetres.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from endorecon.exports.base import Material, common, folders, write_image, write_points
from endorecon.run import Run
from video_io.camera import Camera

ABOUT = "nerfstudio's transforms.json with pictures, masks, depth and points"
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # our axes right, down, forward to right, up, backwards
LENGTH = 1e-3  # of the run's unit in transforms.json


def export(material: Material, out: Path) -> str:
    """Write transforms.json, images/, masks/, depth/ and sparse_pc.ply."""
    write(material, common(material.camera), out)
    lacks = "" if material.has_depth else "the run has no depth, and so has this; "
    return f"{lacks}open it with ns-train METHOD --data {{out}}; the run's lengths: {material.unit}"


def write(material: Material, camera: Camera, out: Path) -> None:
    """The same, as this camera sees the frames."""
    images, masks, depths = folders(out, ("images", "masks", "depth"))
    frames, points = [], material.points()
    for shot in material.shots(camera):
        write_image(images / f"{shot.name}.png", shot.rgb)
        write_image(masks / f"{shot.name}.png", shot.use_mask)
        pose = shot.world_from_cam @ FLIP
        pose[:3, 3] *= LENGTH
        frame: dict[str, Any] = {
            "file_path": f"images/{shot.name}.png", "mask_path": f"masks/{shot.name}.png", "index": shot.index,
            "time": shot.time_ns / 1e9, "transform_matrix": pose.tolist(),
        }  # fmt: skip
        if material.has_depth:
            np.save(depths / f"{shot.name}.npy", shot.depth)
            frame["depth_file_path"] = f"depth/{shot.name}.npy"
        frames.append(frame)
    told: dict[str, Any] = {**nerfstudio_camera(camera), "depth_unit_scale_factor": LENGTH}
    if len(points[0]):
        write_points(out / "sparse_pc.ply", points[0] * LENGTH, points[1])
        told["ply_file_path"] = "sparse_pc.ply"
    if held := material.held_out:
        for name, chosen in (("train", False), ("val", True), ("test", True)):
            told[f"{name}_filenames"] = [f["file_path"] for f in frames if (f["index"] in held) == chosen]
    told["endorecon"] = about(material.run)
    (out / "transforms.json").write_text(json.dumps({**told, "frames": frames}, indent=1) + "\n", encoding="utf-8")


def about(run: Run) -> dict[str, Any]:
    """What the file tells of the run beyond what nerfstudio asks for."""
    light = (run.info.get("splats") or {}).get("light")
    return {"run": run.name, "ended": str(run.info.get("ended", "")), "unit": run.unit, "light": light}


def nerfstudio_camera(camera: Camera) -> dict[str, Any]:
    """The camera by nerfstudio's names; its pixels are as ours.

    Raises:
        ValueError: an omnidirectional camera.
    """
    if camera.model == "omnidirectional":
        raise ValueError("nerfstudio has no omnidirectional camera")
    fx, fy, cx, cy, *rest = camera.params
    names = {"pinhole": (), "brown": ("k1", "k2", "p1", "p2", "k3"), "fisheye": ("k1", "k2", "k3", "k4")}[camera.model]
    model = "OPENCV_FISHEYE" if camera.model == "fisheye" else "OPENCV"
    return {
        "camera_model": model, "w": camera.width, "h": camera.height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy,
        **dict(zip(names, rest, strict=True)),
    }  # fmt: skip
