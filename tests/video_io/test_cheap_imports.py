"""Importing the ground floor is cheap."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "scipy", "av", "PIL", "numba", "transformers", "rerun")


def test_importing_video_io_loads_nothing_heavy() -> None:
    modules = ["camera", "camera_files", "curate", "datasets", "frame", "masks", "sources", "trajectory", "view"]
    lines = [f"import video_io.{name}" for name in modules]
    code = "\n".join(["import sys", *lines, f"print([m for m in {HEAVY!r} if m in sys.modules])"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
