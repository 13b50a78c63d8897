"""Do the loaders read data sets rightly? One line a folder: layout, frames, truth, and how well frames agree.

    python tools/check_datasets.py [--markdown] FOLDER...

Points of a frame are moved into others by depth, poses and camera, and compared with the depth that is stored there:
only right units, axes and pixel centres bring both together.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from video_io.datasets import Truth, open_truth
from video_io.errors import InputError
from video_io.reprojection import agreement

HEAD = ("folder", "loader", "frames", "size", "camera", "truth", "moved px", "error px", "error along z", "pairs")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--markdown", action="store_true", help="a table for docs/datasets.md")
    args = parser.parse_args()
    rows = [row for folder in args.folders if (row := _row(folder))]
    if args.markdown:
        lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        print("\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]))
        return
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD))]
    for row in [HEAD, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(folder: Path) -> tuple[str, ...] | None:
    try:
        truth = open_truth(folder)
        found = agreement(truth)
        size = "x".join(map(str, truth.image(0).shape[1::-1])) if truth.frame_count else "-"
    except InputError as error:
        print(f"{folder.name}: {error}", file=sys.stderr)
        return None
    camera = truth.camera.model if truth.camera else "-"
    figures = ("-", "-", "-", "-")
    if found is not None:
        unit = " mm" if truth.unit == "mm" else ""
        moved = f"{float(np.median(found.moved_px)):.1f}"
        error = f"{found.median_px:.4f}", f"{found.median:.2g}{unit}"
        figures = (moved, *error, f"{found.pairs} by {found.how}")
    return (folder.name, truth.layout, str(truth.frame_count), size, camera, _told(truth), *figures)


def _told(truth: Truth) -> str:
    """What truth there is, in words."""
    matched = any(note.startswith("depth: matched") for note in truth.notes)
    parts = [
        "poses" if truth.trajectory is not None else "",
        ("stereo depth" if matched else "depth") if truth.read_depth is not None else "",
        "mesh" if truth.mesh_path is not None else "",
        "masks" if truth.read_mask is not None else "",
        "right images" if truth.pairs is not None else "",
    ]
    found = ", ".join(part for part in parts if part) or "none"
    return found if truth.unit == "mm" else f"{found} ({truth.unit})"


if __name__ == "__main__":
    main()
