"""The surface as GLB."""

from __future__ import annotations

from pathlib import Path

from endorecon.exports.base import Material, write_mesh

ABOUT = "the surface with its colours, for browsers, slides and game engines"


def export(material: Material, out: Path) -> str:
    """Write mesh.glb, in the run's world and unit."""
    write_mesh(material.mesh(), out / "mesh.glb")
    return f"mesh.glb is read by three.js, Blender and PowerPoint; lengths: {material.unit}"
