"""Gaussians in antimatter15's form, 32 bytes each, without the harmonics beyond the mean colour."""

from __future__ import annotations

from pathlib import Path

from endorecon.exports.base import Material

ABOUT = "Gaussians, antimatter15's .splat: 32 bytes each, no view-dependent colour"


def export(material: Material, out: Path) -> str:
    """Write splats.splat."""
    from endorecon.scenes._splat_model import write_splats

    write_splats(material.splats(), out / "splats.splat")
    return "splats.splat is read by antimatter15's viewer and most that run in a browser"
