"""The surface as STL."""

from __future__ import annotations

from pathlib import Path

from endorecon.exports.base import Material, write_mesh

ABOUT = "the surface alone, for CAD and 3D printing"


def export(material: Material, out: Path) -> str:
    """Write mesh.stl, in the run's world and unit."""
    write_mesh(material.mesh(), out / "mesh.stl")
    return f"mesh.stl is read by CAD programs and 3D Slicer; lengths: {material.unit}"
