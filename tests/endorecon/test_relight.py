"""A run by another light, and the commands: its pictures are rendered by a known one."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from test_light_estimate import CAMERA, folds, poses, sights, truth

from endorecon.cli import main
from endorecon.lighting import FOLDER, Lighting, LitScene
from endorecon.relight import another, lighting_of, pixel_albedo, relit
from endorecon.run import FrameRow, Run, RunWriter, read_run
from video_io.errors import InputError
from video_io.trajectory import Trajectory
from video_io.view import View


@pytest.fixture
def run(tmp_path: Path) -> Run:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for sight in sights():
        cv2.imwrite(str(pictures / f"{sight.frame.index:04d}.png"), sight.frame.rgb[..., ::-1])
    times = np.round(np.arange(10) * 1e9 / 30).astype(np.int64)
    w, h = CAMERA.width, CAMERA.height
    with RunWriter(tmp_path / "run", {"input": str(pictures), "every": 1, "fps": 30.0}) as writer:
        writer.camera(CAMERA, CAMERA, View(w, h, (0, 0, w, h), w, h), estimated=False)
        rows = [FrameRow(i, int(t), "tracked") for i, t in enumerate(times)]
        writer.finish(rows, Trajectory(times, np.stack(poses())), folds(), scale="mm: known")
    truth().save(writer.path / FOLDER)
    return read_run(writer.path)


def test_the_same_light_gives_the_same_picture(run: Run) -> None:
    for number, picture in enumerate(relit(run, truth(), ["same"], every=3)):
        there = picture.frame.rgb.max(-1) > 0  # the mesh ends within some pictures
        gap = np.abs(picture.pictures["same"].astype(int) - picture.frame.rgb)[there]
        assert picture.frame.index == 3 * number and np.median(gap) <= 2 and np.quantile(gap, 0.95) <= 12


def test_albedo_is_what_the_pixels_were_made_of(run: Run) -> None:
    sight = sights()[4]
    seen = LitScene(truth(), folds()).view(CAMERA, sight.world_from_cam, frame=4)
    found = pixel_albedo(truth(), seen, sight.frame)
    there = seen.depth > 0
    assert np.median(np.abs(found[there] / seen.albedo[there] - 1)) < 0.02


def test_lamps_are_moved_widened_and_doubled() -> None:
    lamp = truth().lamp
    moved, second = another(lamp, "moved", 10.0), another(lamp, "second", 10.0)
    # 0.35 of the distance to the right, and then the beam looks at what is ahead
    assert moved.position[0] == pytest.approx([4.7, -0.8, -0.3])
    assert np.cross(moved.axis[0], np.array([0, 0, 10.0]) - moved.position[0]) == pytest.approx(np.zeros(3), abs=1e-9)
    assert another(lamp, "wide", 10.0).exponent[0] == pytest.approx(0.15 * 1.4)
    assert len(second.position) == 2 and second.position[1] == pytest.approx([7.2, -0.8, -0.3])


def test_the_command_writes_a_clip_and_stills(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "moved.mp4"
    assert main(["relight", str(run.path), "--light", "moved", "-o", str(out), "--every", "3"]) == 0
    assert "4 frames in" in capsys.readouterr().out
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4
    assert sorted(p.name for p in tmp_path.glob("moved_*.png")) == [f"moved_{n:06d}.png" for n in (0, 6, 9)]
    assert main(["relight", str(run.path), "--light", "sheet"]) == 0
    sheet = cv2.imread(str(run.path / FOLDER / "sheet.jpg"))
    assert sheet.shape == (3 * CAMERA.height, 9 * CAMERA.width, 3)


@pytest.mark.slow
def test_the_light_is_estimated_where_there_is_none(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["light", str(run.path), "--direct-only"]) == 0
    assert "gamma" in capsys.readouterr().out
    assert Lighting.load(run.path / FOLDER).gamma == pytest.approx(2.2, abs=0.25)


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="light 'disco' is not known"):
        next(relit(run, truth(), ["disco"]))
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="any more; say with --input"):
        next(relit(run, truth(), ["same"]))
    assert next(relit(run, truth(), ["albedo"], tmp_path / "elsewhere")).frame.index == 0
    assert lighting_of(run, None, lambda *_: None).gamma == 2.2
