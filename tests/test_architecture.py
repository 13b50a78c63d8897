"""What may import what, and what an import costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each takes a second or more to import, or needs an extra.
HEAVY = ("torch", "transformers", "peft", "kornia", "rerun", "numba", "open3d", "pycolmap", "gsplat", "skimage")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_point_down() -> None:
    """The contracts are in pyproject.toml."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "video_io", "video_io.sources", "video_io.datasets", "video_io.camera_files", "video_io.running",
        "video_io.streams", "rendering", "rendering.mesh",
        "rendering.phantom.anatomy", "foundation_adapters", "foundation_adapters.backbones",
        "foundation_adapters.estimator", "endorecon", "endorecon.run", "endorecon.views.report", "endorecon.cli",
    ],
)  # fmt: skip
def test_importing_is_cheap(module: str) -> None:
    found = run(f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])")
    assert found == "", f"importing {module} also imports {found}"


def test_help_loads_no_array_library() -> None:
    code = "import sys, endorecon.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    assert run(code + "print('loaded:', 'numpy' in sys.modules)").endswith("loaded: False")


def test_only_one_file_imports_the_viewer() -> None:
    users = [
        str(path.relative_to(ROOT))
        for package in ("endorecon", "foundation_adapters", "rendering", "video_io")
        for path in (ROOT / package).rglob("*.py")
        if any(line.strip().startswith(("import rerun", "from rerun")) for line in path.read_text().splitlines())
    ]
    assert users == ["endorecon/views/rerun.py"]


def test_files_and_functions_stay_short() -> None:
    """At most 450 lines a file and 90 a function, so that each can be read in one go.

    A numba kernel, or what makes one, may have 150: splitting one costs speed or compile time.
    """
    import ast

    long = []
    for package in ("endorecon", "foundation_adapters", "rendering", "video_io"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            if (lines := text.count("\n")) > 450:
                long.append(f"{path.relative_to(ROOT)}: {lines} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    inner = [found for found in ast.walk(node) if isinstance(found, ast.FunctionDef)]
                    kernel = any("njit" in ast.unparse(mark) for found in inner for mark in found.decorator_list)
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    if lines > (150 if kernel else 90):
                        long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)
