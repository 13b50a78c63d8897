"""`endorecon render`: what comes out along each path, and what is refused."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from made_run import CAMERA, write_run

from endorecon.cli import main
from endorecon.flight import ORBIT_FRAMES, _circle, fly
from endorecon.run import Run
from endorecon.scenes._splat_gloss import FILE, seeded, write_gloss
from endorecon.scenes._splat_model import Splats, write_splats
from video_io.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose Gaussians are a red wall 20 units ahead."""
    made = write_run(tmp_path / "run")
    y, x = np.meshgrid(np.linspace(-30, 30, 40), np.linspace(-30, 30, 40))
    n = x.size
    wall = Splats(
        np.stack([x.ravel(), y.ravel(), np.full(n, 20)], 1).astype(np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
        np.log(np.tile(np.float32([1, 1, 0.1]), (n, 1))),
        np.full(n, 4, np.float32),
        np.tile(np.float32([1.5, -1.5, -1.5]), (n, 1))[:, None],
        np.zeros((n, 0, 3), np.float32),
    )
    write_splats(wall, made.path / "scene" / "splats.ply")
    return made


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def test_the_original_path_and_each_layer(run: Run, tmp_path: Path) -> None:
    shown = {}
    for layer in ("color", "depth", "normals"):
        assert fly(run, "original", layer, tmp_path / f"{layer}.mp4", 10.0, lambda *_: None) == 4
        shown[layer] = frames_of(tmp_path / f"{layer}.mp4")
        assert len(shown[layer]) == 4 and shown[layer][0].shape == (CAMERA.height, CAMERA.width, 3)
    # 1/2 + .2821 * 1.5 = .92 red; a wall that faces the camera has the normal (0, 0, -1)
    assert shown["color"][0][24, 32].astype(int) == pytest.approx([235, 20, 20], abs=12)
    assert shown["normals"][0][24, 32].astype(int) == pytest.approx([127, 127, 0], abs=12)


def test_highlights_are_shown(run: Run, tmp_path: Path) -> None:
    """Green is .08; lobes of .3 that face the camera make it .38 in the middle, and leave it towards the sides."""
    gloss = seeded(np.tile([0.0, 0, -1], (1600, 1)))
    gloss[:, 0] = 0.3
    write_gloss(gloss, run.path / "scene" / FILE)
    fly(run, "original", "color", tmp_path / "shiny.mp4", 10.0, lambda *_: None)
    green = frames_of(tmp_path / "shiny.mp4")[0][..., 1].astype(int)
    assert green[24, 32] == pytest.approx(97, abs=12) and green[24, 2] < 60


def test_an_orbit_looks_at_one_point() -> None:
    poses = list(_circle(20.0))
    assert len(poses) == ORBIT_FRAMES
    for pose in poses[::17]:
        seen = np.linalg.inv(pose) @ [0, 0, 20.0, 1]
        assert seen[:2] == pytest.approx([0, 0], abs=1e-9) and np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        assert np.linalg.norm(pose[:2, 3]) == pytest.approx(3.0)  # .15 of 20


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "path.tum"
    file.write_text("0 0 0 0 0 0 0 1\n1 0 0 1 0 0 0 1\n")
    assert main(["render", str(run.path), "--path", str(file), "-o", str(tmp_path / "x.mp4")]) == 0
    assert "2 frames in" in capsys.readouterr().out and len(frames_of(tmp_path / "x.mp4")) == 2


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    out, quiet = tmp_path / "x.mp4", lambda *_: None
    with pytest.raises(InputError, match="give a name that ends in"):
        fly(run, "original", "color", tmp_path / "x.gif", 30, quiet)
    with pytest.raises(InputError, match="neither original nor orbit nor a TUM trajectory"):
        fly(run, "spiral", "color", out, 30, quiet)
    (run.path / "scene" / "splats.ply").unlink()
    with pytest.raises(InputError, match="has no Gaussians to render; reconstruct it with --scene splats first"):
        fly(run, "original", "color", out, 30, quiet)
