"""Gaussians in 16 bytes and a byte for each harmonic: the compressed PLY of PlayCanvas and SuperSplat."""

from __future__ import annotations

from pathlib import Path

from endorecon.exports.base import Material

ABOUT = "Gaussians, SuperSplat's compressed PLY: a quarter of the size"


def export(material: Material, out: Path) -> str:
    """Write splats.compressed.ply."""
    from endorecon.scenes._splat_model import write_splats

    write_splats(material.splats(), out / "splats.compressed.ply")
    return "splats.compressed.ply is read by SuperSplat and PlayCanvas"
