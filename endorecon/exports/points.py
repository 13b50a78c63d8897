"""The depth maps as one cloud of coloured points, in the run's world and unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endorecon.exports.base import Material, write_points

ABOUT = "the depth maps as one coloured point cloud, PLY"
MOST = 2_000_000


def export(material: Material, out: Path) -> str:
    """Write points.ply: pixels that have depth and show tissue, drawn evenly from all frames."""
    places, colors = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
    share, rng = MOST // max(len(material.indices), 1), np.random.default_rng(0)
    for shot in material.shots():
        rays = shot.camera.ray_map().reshape(-1, 3).astype(float)
        rows = np.flatnonzero(((shot.depth > 0) & shot.use_mask).ravel() & (rays[:, 2] > 1e-3))
        rows = np.sort(rng.permutation(rows)[:share])
        local = rays[rows] * (shot.depth.ravel()[rows] / rays[rows, 2])[:, None]
        places.append(local @ shot.world_from_cam[:3, :3].T + shot.world_from_cam[:3, 3])
        colors.append(shot.rgb.reshape(-1, 3)[rows])
    write_points(out / "points.ply", np.concatenate(places), np.concatenate(colors))
    read = "MeshLab, CloudCompare and Open3D read it"
    return f"points.ply has {sum(map(len, places))} points; {read}; lengths: {material.unit}"
