"""A run that is killed goes on where it was, and comes to the same result."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from endorecon.job import reconstruct_video
from endorecon.run import WORK, holds_run, read_run
from endorecon.spool import Spool
from endorecon.tracking.densify import NetworkDepth
from endorecon.work import Work
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

CAMERA = Camera.from_fov(192, 160, np.radians(80))
FRAMES = 28
SAME = ("trajectory.tum", "frames.csv", "camera.json", "scene/mesh.ply", "depth/000000.npz", "depth/000027.npz")

# Runs the command line in a process that kills itself when a method is called for the n-th time.
CHILD = """
import os, signal, sys
from endorecon import cli, reconstruct
from endorecon.run import RunWriter
from endorecon.spool import Spool
from endorecon.tracking.tracker import Tracker

reconstruct.KEEP_FRAMES = 8
method, count = sys.argv[1], int(sys.argv[2])
owner = {"keep": Spool, "place": Tracker, "depth": RunWriter}[method]
called, whole = [], getattr(owner, method)

def counted(self, *arguments, **named):
    called.append(method)
    if len(called) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, *arguments, **named)

setattr(owner, method, counted)
sys.exit(cli.main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return simulate("colon", 5, FRAMES, CAMERA, 30.0, tmp_path_factory.mktemp("phantom") / "clip", extras=False)


@pytest.fixture(scope="module")
def whole(phantom, tmp_path_factory):
    """The run that nothing has stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return reconstruct_video(phantom / "video.mp4", out, camera=phantom / "intrinsics.json")


def killed(phantom: Path, out: Path, method: str, count: int) -> str:
    """Start or go on with a run that dies at the `count`-th call of a method; what it had said."""
    top = Path(__file__).resolve().parents[2]
    arguments = ["reconstruct", str(phantom / "video.mp4"), "--camera", str(phantom / "intrinsics.json")]
    arguments += ["-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, method, str(count), *arguments],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(top)}, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stderr


def same(first: Path, second: Path) -> bool:
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in SAME)


def test_a_run_that_is_killed_twice_comes_to_the_same_result(phantom, whole, tmp_path):
    out = tmp_path / "run"
    killed(phantom, out, "place", 20)  # tracked 19 frames; the tracker's state was kept after 16
    assert read_run(out).status == "running" and (out / WORK).is_dir()
    with pytest.raises(InputError, match=r"was begun with every 1 and not 2; .* --overwrite"):
        reconstruct_video(phantom / "video.mp4", out, camera=phantom / "intrinsics.json", every=2)
    assert "going on with the unfinished run" in killed(phantom, out, "depth", 10)  # in the second pass
    said = []
    reconstruct_video(phantom / "video.mp4", out, camera=phantom / "intrinsics.json", say=said.append)
    assert len(said) == 1 and said[0].startswith("going on with the unfinished run") and f"{FRAMES} frames" in said[0]
    assert same(whole, out)
    run = read_run(out)
    assert (run.status, run.info["resumed"]) == ("finished", 2)
    assert run.recording_path and run.report_path
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_killed_at_random_places(phantom, tmp_path, given):
    """SIGKILL from outside at three random times, each after some more work was done."""
    arguments = [sys.executable, "-m", "endorecon.cli", "reconstruct", str(phantom / "video.mp4")]
    arguments += ["--camera", str(phantom / "intrinsics.json")] if given else []
    top = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(top)}
    begun = time.perf_counter()
    subprocess.run([*arguments, "-o", str(tmp_path / "whole")], env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - begun
    rng, kills = random.Random(3), 0
    for _ in range(3):
        command = [*arguments, "-o", str(tmp_path / "run")]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.5, 0.95) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += process.wait() == -signal.SIGKILL
            continue
        break
    if (tmp_path / "run" / WORK).is_dir():
        subprocess.run([*arguments, "-o", str(tmp_path / "run")], env=environment, check=True, capture_output=True)
    assert kills and same(tmp_path / "whole", tmp_path / "run")


def test_only_one_process_makes_a_run(tmp_path):
    with Work(tmp_path / "run", {}), pytest.raises(InputError, match="another process is making the run"):
        Work(tmp_path / "run", {})
    assert not (tmp_path / "run" / WORK).exists()


def record(seed: int) -> tuple[Frame, NetworkDepth, np.ndarray]:
    rng = np.random.default_rng(seed)
    use, specular = rng.random((2, 32, 64)) < 0.5
    frame = Frame(7 * seed, 11 * seed, rng.integers(0, 255, (32, 64, 3), dtype=np.uint8), use, specular)
    log_std = rng.random((32, 64)).astype(np.float16).astype(np.float32)
    log_std[0, 0] = np.inf
    return frame, NetworkDepth(rng.random((32, 64)).astype(np.float32), log_std), rng.random((4, 4))


def test_the_spool_gives_back_what_it_was_given(tmp_path):
    spool = Spool(tmp_path / "frames")
    for number in range(3):
        spool.keep(*record(number))
    for number, (frame, net, guess) in enumerate(spool.read(1), 1):
        before, told, guessed = record(number)
        assert (frame.index, frame.time_ns) == (before.index, before.time_ns)
        for name in ("rgb", "use_mask", "specular_mask"):
            assert np.array_equal(getattr(frame, name), getattr(before, name))
        assert np.array_equal(net.distance, told.distance) and np.array_equal(net.log_std, told.log_std)
        assert np.array_equal(guess, guessed)
        assert net.distance.flags.aligned and net.distance.flags.writeable  # as compiled loops expect
    assert number == 2
    spool.close()


@pytest.mark.parametrize(("cut", "left"), [(0, 3), (1, 2), (5000, 2), (40_000, 0)])
def test_a_record_that_was_cut_short_is_taken_off(tmp_path, cut, left):
    spool = Spool(tmp_path / "frames")
    for number in range(3):
        spool.keep(*record(number))
    spool.close()
    with open(tmp_path / "frames", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - cut)
    again = Spool(tmp_path / "frames")
    assert len(again) == left
    again.keep(*record(9))
    assert [frame.index for frame, *_ in again.read()] == [*(7 * n for n in range(left)), 63]
    again.close()


def test_a_damaged_record_is_taken_off_with_what_follows(tmp_path):
    spool = Spool(tmp_path / "frames")
    for number in range(3):
        spool.keep(*record(number))
    spool.close()
    data = bytearray((tmp_path / "frames").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "frames").write_bytes(data)
    assert len(Spool(tmp_path / "frames")) == 1


def test_a_kept_value_is_whole_or_not_there_and_runs_no_code(tmp_path):
    with Work(tmp_path / "run", {}) as work:
        work.keep("value", {"camera": CAMERA, "array": np.arange(3.0), "number": np.float64(2.5)})
        back = work.kept("value")
        assert back["camera"] == CAMERA and back["array"].tolist() == [0, 1, 2] and back["number"] == 2.5
        file = work.folder / "value.kept"
        file.write_bytes(file.read_bytes()[:-1])
        assert work.kept("value") is None and work.kept("nothing") is None
        for bad in (os.system, pickle.loads, np.fromfile, json.loads):
            work.keep("value", bad)
            with pytest.raises(InputError, match="which no run makes"):
                work.kept("value")


def test_a_run_that_can_not_be_made_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="no use"), Work(tmp_path / "run", {}) as work:
        work.spool.keep(*record(0))
        raise InputError("no use")
    assert not (tmp_path / "run").exists()


def test_what_was_done_stays_where_the_disk_was_full(tmp_path):
    def fill(work: Work) -> None:
        work.spool.keep(*record(0))
        try:
            raise OSError("no space")
        except OSError as error:
            raise InputError("the disk is full") from error

    with pytest.raises(InputError), Work(tmp_path / "run", {"every": 1}) as work:
        fill(work)
    assert not holds_run(tmp_path / "run")
    with Work(tmp_path / "run", {"every": 1}) as work:
        assert (work.resumed, len(work.spool)) == (1, 1)
    with Work(tmp_path / "run", {"every": 1}, overwrite=True) as work:
        assert (work.resumed, len(work.spool)) == (0, 0)
