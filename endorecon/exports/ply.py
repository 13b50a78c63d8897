"""Gaussians in the standard form of 3DGS, which every viewer of Gaussians reads."""

from __future__ import annotations

from pathlib import Path

from endorecon.exports.base import Material

ABOUT = "Gaussians, the standard 3DGS PLY"


def export(material: Material, out: Path) -> str:
    """Write splats.ply."""
    from endorecon.scenes._splat_model import write_splats

    write_splats(material.splats(), out / "splats.ply")
    return "splats.ply is read by SuperSplat, gsplat's viewer, Blender's and Unity's add-ons"
