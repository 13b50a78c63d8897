"""TUM RGB-D (Sturm et al., IROS 2012): pictures, 16-bit depth, trajectory, and the files that list them by time.

Metres where the run is in millimetres, and thousandths of its unit otherwise; depth images hold metres * 5000. The
pictures are those of a pinhole camera, in camera.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from endorecon.exports.base import Material, folders, write_image
from video_io.trajectory import Trajectory

ABOUT = "TUM RGB-D: pictures, depth and trajectory, for SLAM and its evaluation"
FACTOR, METRES = 5000.0, 1e-3


def export(material: Material, out: Path) -> str:
    """Write rgb/, depth/, rgb.txt, depth.txt, groundtruth.txt and camera.json."""
    pictures, depths = folders(out, ("rgb", "depth"))
    camera = material.camera if material.camera.model == "pinhole" else material.camera.straightened()
    listed: dict[str, list[str]] = {"rgb": ["# time_s file"], "depth": ["# time_s file"]}
    # Deep scenes go beyond 16 bits; such pixels are left out, not clipped.
    for shot in material.shots(camera):
        write_image(pictures / f"{shot.name}.png", shot.rgb)
        steps = np.rint(shot.depth * (METRES * FACTOR))
        write_image(depths / f"{shot.name}.png", np.where(steps < 65536, steps, 0).astype(np.uint16))
        for name, lines in listed.items():
            lines.append(f"{shot.time_ns / 1e9:.9f} {name}/{shot.name}.png")
    for name, lines in listed.items():
        (out / f"{name}.txt").write_text("\n".join(lines) + "\n")
    path = material.trajectory
    poses = path.world_from_cam.copy()
    poses[:, :3, 3] *= METRES
    Trajectory(path.times_ns, poses).write_tum(out / "groundtruth.txt")
    (out / "camera.json").write_text(json.dumps(camera.to_dict(), indent=2) + "\n")
    return f"groundtruth.txt holds the run's path, in thousandths of its unit ({material.unit}): evo_traj tum reads it"
