"""The surface as OBJ."""

from __future__ import annotations

from pathlib import Path

from endorecon.exports.base import Material, write_mesh

ABOUT = "the surface as text"


def export(material: Material, out: Path) -> str:
    """Write mesh.obj, in the run's world and unit."""
    write_mesh(material.mesh(), out / "mesh.obj")
    return f"mesh.obj is read by nearly everything; lengths: {material.unit}"
