"""The run folder: what is written is read back, whole or not at all, and finished work is never lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_run import CAMERA, CONFIG, SOURCE_CAMERA, VIEW, observations, trajectory, write_run

from endorecon.run import FrameRow, RunWriter, holds_run, read_run
from rendering.mesh import read_ply
from video_io.camera_files import read_camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory


def test_files_of_a_finished_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    found = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert found == [
        "camera.json",
        *(f"depth/{i:06d}.npz" for i in (0, 1, 3, 4)),
        "frames.csv",
        "run.yaml",
        "scene/mesh.ply",
        "trajectory.tum",
    ]


def test_everything_comes_back(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    assert (run.name, run.status, run.unit) == ("a", "finished", "up to scale")
    assert run.info["config"] == {"input": "clip <b>1</b>.mp4", "model": "tiny", "every": 1}
    assert run.info["frames"] == {"read": 5, "tracked": 4, "refused": 1, "keyframes": 2, "segments": 1}
    assert run.info["model"] == {"name": "tiny", "licence": "Apache-2.0"}
    assert run.info["notes"] == ["the dark border is cut off"]
    assert run.info["timings_s"] == {"estimate": 0.5, "total": 2.0}
    assert run.info["versions"]["endorecon"]
    assert (run.camera, run.source_camera) == (CAMERA, SOURCE_CAMERA)
    assert run.camera_estimated and run.camera_note == "spread 3 %"
    assert run.rows == tuple(FrameRow.of(placed) for placed in observations())
    assert run.depth_indices == (0, 1, 3, 4)
    depth, confidence = run.depth(3)
    assert depth.dtype == confidence.dtype == np.float32
    assert depth[0, 0] == 13.0 and confidence[0, 0] == 0 and confidence[0, 8] == 0.5
    assert run.mesh_path is not None and len(read_ply(run.mesh_path).faces) == 2


def test_lines_of_the_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    lines = (run.path / "frames.csv").read_text().splitlines()
    assert lines[0] == "index,time_s,status,reason,segment,keyframe,grade,landmarks,residual_px"
    assert lines[1] == "0,0.000000000,tracked,,0,1,,200,0.25"
    assert lines[3] == "2,0.200000000,refused,3 of 200 landmarks found & lost,0,0,,3,"
    assert (run.path / "trajectory.tum").read_text().splitlines()[2] == "0.300000000 0 0 3 0 0 0 1"


def test_the_camera_is_read_at_the_size_of_the_source(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    assert read_camera(run.path / "camera.json") == SOURCE_CAMERA


def test_a_run_is_not_replaced_unasked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"already holds a run.*--overwrite"):
        RunWriter(run.path, CONFIG)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_overwrite_removes_the_files_of_the_run_only(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run.path / "my notes.txt").write_text("mine")
    writer = RunWriter(run.path, CONFIG, overwrite=True)
    left = sorted(p.name for p in run.path.rglob("*") if p.is_file())
    assert left == ["my notes.txt", "run.yaml"]
    assert read_run(writer.path).status == "running"


def test_what_was_recorded_outlives_a_fault_of_the_program(tmp_path: Path) -> None:
    """What the user did wrong leaves no folder where nothing was made of it; what the program did wrong leaves all."""
    for error, left in ((InputError("no video"), []), (IndexError("1134 of 1134"), ["recording.rrd", "run.yaml"])):
        with pytest.raises(type(error)), RunWriter(tmp_path / "run", CONFIG):
            (tmp_path / "run" / "recording.rrd").write_bytes(b"seen")
            raise error
        assert sorted(p.name for p in tmp_path.glob("run/*") if p.is_file()) == left
    assert read_run(tmp_path / "run").status == "failed"


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"holds other files \('thesis.tex'"):
            RunWriter(tmp_path, CONFIG, overwrite)
    with pytest.raises(InputError, match="is a file"):
        RunWriter(tmp_path / "thesis.tex", CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"can't write to the output folder .*--out"):
        RunWriter(tmp_path / "file" / "run", CONFIG)


def test_a_full_disk_is_said_in_one_sentence_and_keeps_the_rest(tmp_path: Path) -> None:
    """/dev/full fails every write with ENOSPC, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which this system lacks")
    writer = RunWriter(tmp_path / "a", CONFIG)
    writer.depth(0, np.ones((4, 4), np.float32), np.ones((4, 4)))
    (writer.path / "depth" / ".000001.npz.partial").symlink_to("/dev/full")
    with pytest.raises(InputError, match=os.strerror(errno.ENOSPC)):
        writer.depth(1, np.ones((400, 400), np.float32), np.ones((400, 400)))
    assert [p.name for p in (writer.path / "depth").iterdir()] == ["000000.npz"]
    assert writer.read_depth(0)[0].shape == (4, 4)


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("out of memory"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_error_on_the_way_leaves_the_status(tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), RunWriter(tmp_path / "a", CONFIG) as writer:
        writer.camera(CAMERA, SOURCE_CAMERA, VIEW, estimated=False)
        writer.depth(0, np.ones((48, 64), np.float32), np.ones((48, 64)))
        raise error
    run = read_run(tmp_path / "a")
    assert (run.status, run.depth_indices, len(run.trajectory)) == (status, (0,), 0)
    assert run.info["reason"] == (str(error) or "KeyboardInterrupt")


def test_a_run_that_holds_nothing_goes_away(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="black"), RunWriter(tmp_path / "a", CONFIG):
        raise InputError("the clip is black")
    assert not (tmp_path / "a").exists()


def test_an_interrupted_run_is_finished_as_such(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a", CONFIG) as writer:
        writer.finish([FrameRow.of(p) for p in observations()], trajectory(), None, status="interrupted")
    run = read_run(tmp_path / "a")
    assert (run.status, run.mesh_path, len(run.trajectory)) == ("interrupted", None, 4)


def test_millimetres_are_told_from_up_to_scale(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a", CONFIG) as writer:
        writer.finish([], Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4))), scale="mm: from the stereo baseline")
    assert read_run(tmp_path / "a").unit == "mm"


def test_reading_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_run(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no run\.yaml"):
        read_run(tmp_path)
    assert not holds_run(tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"format": 99}))
    with pytest.raises(InputError, match="not of format 1"):
        read_run(tmp_path)
    (tmp_path / "run.yaml").write_text("a: [")
    with pytest.raises(InputError, match="damaged"):
        read_run(tmp_path)


def test_reading_damaged_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    with pytest.raises(InputError, match="no depth for frame 2"):
        run.depth(2)
    (run.path / "depth" / "000001.npz").write_bytes(b"PK half a file")
    with pytest.raises(InputError, match="is damaged"):
        run.depth(1)
    (run.path / "camera.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_run(run.path)


def test_a_table_of_frames_that_is_damaged(tmp_path: Path) -> None:
    """A field of more than csv takes, a time without end, and rows whose times fall: found by fuzzing."""
    from endorecon.evaluate.protocol import RunRecord

    run = write_run(tmp_path / "run")
    table = run.path / "frames.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, "x" * 200_000, *rows]) + "\n")
    with pytest.raises(InputError, match="is damaged"):
        read_run(run.path)
    index, _, *rest = rows[0].split(",")
    table.write_text("\n".join([head, ",".join([index, "1e999", *rest]), *rows[1:]]) + "\n")
    with pytest.raises(InputError, match="is damaged"):
        read_run(run.path)
    table.write_text("\n".join([head, *reversed(rows)]) + "\n")
    with pytest.raises(InputError, match="not in the order of time"):
        RunRecord(read_run(run.path))
