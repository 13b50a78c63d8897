"""LLFF's layout as EndoNeRF has it (Wang et al., MICCAI 2022): what trainers of deforming scenes read.

poses_bounds.npy, N x 17: a 3 x 5 matrix [R | t | height, width, focal length] with axes down, right, backwards, then
the nearest and farthest depth; images/, depth/ (16 bits) and masks/ (white is what does not count). One focal length
and a centred axis are all that it can tell, so the pictures are those of such a camera.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endorecon.exports.base import Material, folders, write_image

ABOUT = "LLFF as in EndoNeRF: poses_bounds.npy, pictures, depth, masks, for EndoGaussian, Deform3DGS and the like"
NEAR, FAR = 1.0, 99.0  # percentiles of depth that count as the nearest and the farthest


def export(material: Material, out: Path) -> str:
    """Write poses_bounds.npy, images/, depth/, masks/ and a note on the unit of depth."""
    images, depths, masks = folders(out, ("images", "depth", "masks"))
    camera, rows = material.camera.straightened(), []
    factor = _steps(material)
    for shot in material.shots(camera):
        write_image(images / f"{shot.name}.png", shot.rgb)
        write_image(masks / f"{shot.name}.png", ~shot.use_mask)
        write_image(depths / f"{shot.name}.png", np.rint(shot.depth * factor).clip(0, 65535).astype(np.uint16))
        known = shot.depth[shot.depth > 0]
        bounds = np.percentile(known, [NEAR, FAR]) if known.size else np.zeros(2)
        r, t = shot.world_from_cam[:3, :3], shot.world_from_cam[:3, 3]
        # Columns: where down, right and backwards of the camera point in the world.
        pose = np.c_[r[:, 1], r[:, 0], -r[:, 2], t, [camera.height, camera.width, camera.focal_px]]
        # All lengths in steps of the depth images: the layout has no place for a factor.
        pose[:, 3] *= factor
        rows.append(np.r_[pose.ravel(), bounds * factor])
    np.save(out / "poses_bounds.npy", np.array(rows))
    note = f"one unit of the run ({material.unit}) is {factor:g} steps of depth/ and units of poses_bounds.npy"
    (out / "unit.txt").write_text(note + "\n")
    return note


def _steps(material: Material) -> float:
    """Steps of the depth images a unit of the run: a power of ten with which the deepest scene fits into 16 bits."""
    deepest = max(
        (float(material.run.depth(i)[0].max(initial=0)) for i in material.indices if i in material.run.depth_indices),
        default=1.0,
    )
    return float(10.0 ** np.floor(np.log10(65535 / max(deepest, 1e-9))))
