"""A live run: its parts by hand-made figures, and whole runs on the demo clip, from a file and over the network, with
what can go wrong on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from endorecon.commands.base import named_input
from endorecon.live import Network, depth_of, halved
from endorecon.live_job import Asked, live_video
from endorecon.pace import STEPS, Gauges, Pace
from endorecon.run import read_run
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.observation import Observation, Posed
from endorecon.tracking.tracker import Tracker
from endorecon.views import _coverage
from endorecon.watching import Watching
from foundation_adapters.estimator import load_estimator
from rendering.mesh import Mesh
from video_io.camera_files import read_camera
from video_io.clip import Clip
from video_io.errors import InputError
from video_io.sources import open_source

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stream_server import StreamServer, chunks

DEMO = named_input(Path("demo"))[0]
CAMERA = DEMO.with_suffix(".json")


# -- the ladder and the gauges ------------------------------------------------------------------------------------


def test_quality_steps_down_at_once_and_up_after_a_while() -> None:
    pace = Pace(0)
    for second in range(3):
        pace.look(second, 0.2, 0.1, 1.0)
    assert pace.number == 3 and pace.step == STEPS[3]
    for second in range(3, 8):  # calm from 3 on: the fourth calm second ends at 6
        pace.look(second, 0.0, 0.05, 0.3)
    assert pace.number == 2
    pace.look(9, 0.2, 0.1, 1.0)  # it was no good: now eight of them
    assert pace.number == 3
    for second in range(10, 17):
        pace.look(second, 0.0, 0.05, 0.3)
    assert pace.number == 3
    pace.look(17, 0.0, 0.05, 0.3)
    assert (pace.number, pace.changes) == (2, 6)


def test_a_long_latency_steps_down_too_and_a_busy_stage_stays() -> None:
    pace = Pace(0)
    pace.look(0, 0.0, 0.4, 0.2)
    assert pace.number == 1
    for second in range(1, 60):
        pace.look(second, 0.0, 0.05, 0.9)
    assert pace.number == 1
    for second in range(60, 90):
        pace.look(second, 1.0, 0.9, 0.9)
    assert pace.number == len(STEPS) - 1


def test_single_hitches_of_a_fast_run_leave_the_quality_as_it_is() -> None:
    """Ten minutes at 30 frames a second: one frame dropped in each seventh second, one second in 13 with a p95 of 180
    ms, one in five a little too busy; the rest calm. That is 86 frames of 18,000 dropped, and no load."""
    pace = Pace(1)
    for second in range(600):
        dropped = 1 / 30 if second % 7 == 3 else 0.0
        latency = 0.18 if second % 13 == 5 else 0.06
        pace.look(second, dropped, latency, 0.7 if second % 5 == 1 else 0.4)
    assert (pace.number, pace.changes) == (0, 1)


def test_depth_is_asked_for_ahead_where_one_frame_after_the_other_becomes_a_key_frame() -> None:
    network, eager = Network(load_estimator(), Pace()), []
    for is_key in (True, False, True, True, True, False):
        network.expect(is_key)
        eager.append(network.eager)
    assert eager == [False, False, False, True, True, False]


def test_a_picture_that_shows_nothing_to_track_does_not_raise_the_quality() -> None:
    pace = Pace(1)
    for second in range(20):
        pace.look(second, 0.0, 0.02, 0.1, tracking=False)
    assert pace.number == 1
    pace.look(20, 0.6, 0.1, 1.0)  # more than half of the frames dropped: two steps at once
    assert (pace.number, pace.changes) == (3, 1)


def test_two_late_seconds_soon_after_each_other_are_load() -> None:
    pace = Pace(1)
    pace.look(0, 2 / 30, 0.06, 0.5)
    assert pace.number == 1
    pace.look(4, 2 / 30, 0.06, 0.5)  # four seconds after the first: still a hitch
    assert pace.number == 1
    pace.look(6, 0.0, 0.16, 0.5)  # two after the second
    assert pace.number == 2


def test_the_gauges_by_hand() -> None:
    """101 frames, one each 50 ms, with latencies of 1 to 101 ms: the median is 51, the 95th percentile 96."""
    gauges = Gauges()
    for n in range(101):
        gauges.placed(10 + 0.05 * n, (n + 1) / 1e3)
    whole = gauges.overall()
    assert whole.latency_p50_s == pytest.approx(0.051, abs=0.0011)
    assert whole.latency_p95_s == pytest.approx(0.096, abs=0.0011)
    assert whole.rate == pytest.approx(101 / 5.001)
    last = gauges.recent(15.0, 1.0)  # the last 21
    assert (last.rate, last.processed) == (21, 101) and last.latency_p50_s == pytest.approx(0.091)
    assert gauges.recent(99.0).rate == 0 and np.isnan(gauges.recent(99.0).latency_p50_s)


def test_coverage_by_hand() -> None:
    """Two triangles of a unit square: one well seen, the other at one corner not."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    mesh = Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), None, np.array([3, 4, 5, 0], np.float32))
    assert _coverage.well_seen(mesh) == pytest.approx(0.5)
    colors = _coverage.painted(mesh).colors
    assert colors is not None and colors[0].tolist() == [102, 187, 106] and colors[3].tolist() == [239, 83, 80]
    assert len(_coverage.rim(mesh)) == 4  # the diagonal is inside


def test_a_view_that_fails_or_hangs_holds_up_nothing() -> None:
    said: list[str] = []
    shown: list[str] = []

    class Broken:
        def mesh(self, mesh: object) -> None:
            raise RuntimeError("no screen")

    class Slow:
        def mesh(self, mesh: object) -> None:
            shown.append("mesh")
            time.sleep(0.2)

    watching = Watching([Broken(), Slow()], said.append)
    watching.start()
    begun = time.monotonic()
    for _ in range(50):
        watching.mesh(Mesh(np.zeros((0, 3)), np.zeros((0, 3), int)))
    assert time.monotonic() - begun < 0.2
    assert watching.finish()
    assert said == ["a view has failed (no screen); tracking goes on"] and 1 < len(shown) < 10


# -- tracking without the network ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def estimator():
    return load_estimator()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.of(open_source(DEMO, max_frames=24), read_camera(CAMERA))


def test_frames_are_tracked_without_the_networks_depth(clip, estimator) -> None:
    """Every fourth frame has depth; the poses are those of a tracker that has it of all."""
    full, lean, asked = Tracker(clip.camera), Tracker(clip.camera), []
    for number, frame in enumerate(clip.frames()):
        net = depth_of(estimator, frame, small=False)
        full.place(frame, net)

        def ask(net: NetworkDepth = net, number: int = number) -> NetworkDepth:
            asked.append(number)
            return net

        placed = lean.place(frame, net if number % 4 == 0 else None, ask=ask)
        assert isinstance(placed, Observation if number % 4 == 0 or number in asked else Posed)
    assert len(lean.placed) == len(full.placed) == 24
    a, b = (tracker.segments[0].centre for tracker in (full, lean))
    length = np.linalg.norm(np.diff(a, axis=0), axis=1).sum()
    assert np.linalg.norm(a - b, axis=1).max() < 0.05 * length
    assert len(lean.segments[0].keyframes) <= len(full.segments[0].keyframes)


def test_without_a_way_to_ask_a_first_frame_has_no_place(clip) -> None:
    with pytest.raises(ValueError, match="needs a way to ask"):
        Tracker(clip.camera).place(next(clip.frames()), None)


def test_half_the_image_gives_depth_of_the_whole(clip, estimator) -> None:
    frame = next(clip.frames())
    whole, half = (depth_of(estimator, frame, small) for small in (False, True))
    assert whole.distance.shape == half.distance.shape == (256, 320)
    off = np.log(half.distance / whole.distance)
    assert np.median(np.abs(off - np.median(off))) < 0.2
    assert (halved(320), halved(256), halved(96)) == (160, 128, 64)


# -- whole runs ---------------------------------------------------------------------------------------------------


def test_a_file_at_its_own_pace_becomes_a_run(tmp_path: Path) -> None:
    said: list[str] = []
    out = live_video(Asked(str(DEMO), tmp_path / "run", camera=CAMERA, record=True), say=said.append)
    run = read_run(out)
    assert run.status == "finished" and run.info["live"]["received"] == 60
    assert run.info["live"]["dropped"] + len(run.rows) == 60
    tracked = [row for row in run.rows if row.status == "tracked"]
    # Where another program has the machine, few frames are left, and those far apart.
    assert len(tracked) >= 5 and len(run.trajectory) >= (0.7 * len(tracked) if len(tracked) > 30 else 2)
    assert run.mesh_path and run.recording_path and run.report_path and run.depth_indices
    assert run.camera is not None and not run.camera_estimated
    with av.open(str(out / "stream.mkv")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]
    assert "tracking; Ctrl-C ends it" in said


def test_an_output_that_holds_a_run_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("format: 1\n")
    with pytest.raises(InputError, match="already holds a run"):
        live_video(Asked("tcp://127.0.0.1:1", tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/dev/video97"], "there is no device '/dev/video97'"),
        (["gopher://x/y?token=abcdef123"], "'gopher://x/y?token=***' is no address of a stream"),
        (["-", "--timeout", "0"], "--timeout is 0, but it must be positive"),
        (["0", "--web", "--no-view"], "--web shows and --no-view does not"),
        (["0", "--bind", "everywhere"], "--bind everywhere is no address"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, tmp_path: Path, capsys, monkeypatch) -> None:
    from endorecon import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPLAY", ":9")  # no word on a missing screen
    assert cli.main(["live", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "abcdef123" not in said


# -- over the network, as a program -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    """The demo clip to and fro, ten times, as a camera sends it: 40 s."""
    with av.open(str(DEMO)) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return list(chunks((pictures + pictures[-2:0:-1]) * 10))


class Program:
    """`endorecon live` in a process of its own."""

    def __init__(self, source: str, out: Path, *options: str) -> None:
        self.out = out
        self.log = out.parent / f"{out.name}.txt"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "endorecon.cli", "live", source, "-o", str(out), "--camera", str(CAMERA)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=subprocess.STDOUT, env=environment, stdin=subprocess.DEVNULL
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, words: str, seconds: float = 300.0) -> None:
        end = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.1)

    def end(self, number: int = signal.SIGINT, seconds: float = 400.0) -> str:
        self.process.send_signal(number)
        assert self.process.wait(seconds) == 0, self.said
        return self.said

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def check_whole(out: Path) -> None:
    """The run folder is finished, and all that was recorded plays to its end."""
    run = read_run(out)
    assert run.status == "finished" and len(run.trajectory) > 1 and run.mesh_path and run.report_path
    for name in run.info["live"].get("recorded", []):
        with av.open(str(out / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 5
    done = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", "verify", str(out / "recording.rrd")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_in_good_order(number: int, pieces: list[bytes], tmp_path: Path) -> None:
    with (
        StreamServer(pieces, loop=True) as server,
        Program(server.address, tmp_path / "run", "--record", "--no-view") as program,
    ):
        program.wait_for("tracking;")
        time.sleep(6)
        program.end(number)
    check_whole(tmp_path / "run")


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again(pieces: list[bytes], tmp_path: Path) -> None:
    with StreamServer(pieces) as server:
        program = Program(server.address, tmp_path / "run", "--record", "--no-view", "--timeout", "3")
        with program:
            program.wait_for("tracking;")
            time.sleep(4)
            server.kill()
            program.wait_for("has stopped")
            with StreamServer(pieces, port=server.port):
                program.wait_for("is back after")
                time.sleep(5)
                program.end()
    check_whole(tmp_path / "run")
    info = read_run(tmp_path / "run").info["live"]
    assert info["reconnected"] == 1 and info["recorded"] == ["stream.mkv", "stream_2.mkv"]


@pytest.mark.slow
def test_silence_damage_and_another_size(pieces: list[bytes], tmp_path: Path) -> None:
    """5 s of silence, packets with flipped bits, and half the size from some picture on."""
    rng, begun = np.random.default_rng(0), time.monotonic()
    with av.open(str(DEMO)) as video:
        small = [frame.to_ndarray(format="rgb24", width=160, height=128) for frame in video.decode(video=0)]
    both = pieces[:900] + list(chunks(small * 10))
    quiet = threading.Event()

    def before(number: int, piece: bytes) -> bytes:
        if number == 600:
            quiet.set()
            time.sleep(5)
        if number > 400 and number % 40 == 0:
            broken = bytearray(piece)
            for at in rng.integers(0, len(broken), 20):
                broken[at] ^= 0xFF
            return bytes(broken)
        return piece

    with StreamServer(both, before=before) as server, Program(server.address, tmp_path / "run", "--no-view") as program:
        program.wait_for("tracking;")
        assert quiet.wait(60), time.monotonic() - begun
        while server.sent < 1200:
            time.sleep(0.2)
        program.end()
    check_whole(tmp_path / "run")
    info = read_run(tmp_path / "run").info["live"]
    assert info["damaged"] > 0 and info["reconnected"] == 0


def listening(process: subprocess.Popen[bytes]) -> set[str]:
    """Addresses at which a program and its children listen, as /proc/net tells them."""
    main = psutil.Process(process.pid)
    family = [main, *main.children(recursive=True)]
    found = [c for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return {c.laddr.ip for c in found}


@pytest.mark.slow
def test_a_killed_viewer_is_started_again_and_all_listen_here_alone(pieces: list[bytes], tmp_path: Path) -> None:
    with StreamServer(pieces, loop=True) as server, Program(server.address, tmp_path / "run", "--web") as program:
        program.wait_for("tracking;")
        time.sleep(4)
        assert listening(program.process) == {"127.0.0.1"}
        for child in psutil.Process(program.process.pid).children(recursive=True):
            child.kill()
        program.wait_for("it was started again")
        time.sleep(3)
        assert listening(program.process) == {"127.0.0.1"}
        program.end()
    check_whole(tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 110 MB; 64 of them are left free by what is recorded."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=110m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_what_is_kept_but_not_the_tracking(pieces: list[bytes], small_disk: Path) -> None:
    out = small_disk / "run"
    with StreamServer(pieces, loop=True) as server, Program(server.address, out, "--record", "--no-view") as program:
        program.wait_for("tracking;")
        program.wait_for("no more depth is kept")
        (small_disk / "other").write_bytes(bytes(30 << 20))  # another program takes more of it
        program.wait_for("the recording has ended (the disk is nearly full)")
        (small_disk / "other").unlink()
        before = len(read_run(out).rows)
        time.sleep(4)
        program.end()
    check_whole(out)
    assert len(read_run(out).rows) > before
    assert any("depth was kept for a part" in warning for warning in read_run(out).info["warnings"])


@pytest.mark.slow
def test_nothing_of_a_password_is_left_anywhere(pieces: list[bytes], tmp_path: Path) -> None:
    """An HTTP camera whose address has a user, a password and a token."""
    import http.server

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            for number, piece in enumerate(cycle(pieces)):
                try:
                    self.wfile.write(piece)
                except OSError:
                    return
                time.sleep(1 / 30 if number else 0)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://doctor:p4ssw0rd@127.0.0.1:{server.server_port}/live.ts?token=abcdef123"
        with Program(source, tmp_path / "run", "--record", "--no-view") as program:
            program.wait_for("tracking;")
            time.sleep(5)
            program.end()
        server.shutdown()
    check_whole(tmp_path / "run")
    for path in [program.log, *(p for p in (tmp_path / "run").rglob("*") if p.is_file())]:
        data = path.read_bytes()
        for secret in (b"doctor", b"p4ssw0rd", b"abcdef123"):
            assert secret not in data, path
