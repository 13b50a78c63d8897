"""What a live run keeps and lets go of, in memory, on disk and in the viewer's server: it does not grow with time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endorecon.commands.base import named_input
from endorecon.forgetting import Memory
from endorecon.live import Network
from endorecon.pace import Pace
from endorecon.rows import Rising, Rows
from endorecon.run import FrameRow
from endorecon.spool import LookFile, Looks, Spool
from endorecon.tracking.appearance import Appearance
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.map import Map, Sight, _appended
from endorecon.tracking.observation import Observation
from endorecon.tracking.tracker import Tracker, TrackerSettings
from foundation_adapters.estimator import load_estimator
from rendering.mesh import Mesh
from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.clip import Clip
from video_io.frame import Frame
from video_io.sources import open_source

DEMO = named_input(Path("demo"))[0]


def test_rows_come_out_as_they_went_in() -> None:
    given = [
        FrameRow(3, 10**15, "tracked", "", 0, True, {"landmarks": 200.0, "residual_px": 0.25}),
        FrameRow(4, 10**15 + 1, "refused", "black", 0, False, {}),
        FrameRow(9, 10**15 + 2, "tracked", "a cut", 1, False, {"residual_px": 0.5}),
    ]
    rows = Rows()
    for row in given:
        rows.add(row)
    assert list(rows) == given and len(rows) == 3


def test_appending_is_what_joining_is() -> None:
    grown, joined = np.zeros((0, 3)), np.zeros((0, 3))
    for n in range(200):
        grown, joined = _appended(grown, np.full(3, n)), np.concatenate([joined, np.full((1, 3), n)])
    assert np.array_equal(grown, joined)
    copied = _appended(grown.copy(), np.ones(3))  # has no room of its own, and leaves the other as it is
    assert np.array_equal(grown, joined) and len(copied) == 201


def test_memory_is_let_go_of_but_for_key_frames(monkeypatch) -> None:
    clip = Clip.of(open_source(DEMO, max_frames=24), read_camera(DEMO.with_suffix(".json")))
    monkeypatch.setattr("endorecon.forgetting.REMEMBER", 4)
    monkeypatch.setattr("endorecon.forgetting.LEAST_MEMBERS", 3)
    tracker = Tracker(clip.camera, TrackerSettings(look=0))
    memory, network, kept = Memory(tracker, lambda _: None), Network(load_estimator(), Pace()), set()
    for number, frame in enumerate(clip.frames()):
        net = network.depth(frame) if number % 8 == 0 else None
        placed = tracker.place(frame, net, ask=lambda frame=frame: network.ask(frame))
        if isinstance(placed, Observation):
            kept.add(tracker.placed[frame.index][1])
        memory.placed(placed, isinstance(placed, Observation))
    scene = tracker.segments[0]
    empty = {n for n, sight in enumerate(scene.sights) if not len(sight.landmark)}
    assert empty and not empty & kept and max(empty) < len(scene) - 4


def test_of_many_key_frames_every_other_old_one_goes(monkeypatch) -> None:
    """Nine key frames where eight are allowed, a frame that is kept behind each: of the four oldest (0, 2, 4, 6), the
    second and the fourth become usual frames, and so do those between them. Each key frame finds three landmarks, of
    which the next two frames see the last one."""

    monkeypatch.setattr("endorecon.forgetting.MOST_KEYS", 8)
    camera = Camera.from_fov(64, 48, 1.2)
    tracker = Tracker(camera)
    scene = Map(camera)
    tracker.segments.append(scene)
    dropped: list[int] = []
    memory = Memory(tracker, dropped.extend)
    empty = np.zeros((48, 64), np.float32)
    for number in range(18):
        key = number % 2 == 0
        before = np.arange(max(len(scene.host) - 1, 0), len(scene.host))  # the last landmark that was found
        sight = Sight(before, np.zeros((len(before), 2), np.float32), np.zeros(len(before), np.float32))
        tracker.placed[100 + number] = (0, scene.add_frame(np.eye(4), sight, 0.0, keyframe=key))
        if key:
            scene.add_landmarks(number, np.full((3, 2), number, np.float32), np.full(3, number, np.float32))
        frame = Frame.of(np.zeros((48, 64, 3), np.uint8), 100 + number)
        memory.placed(Observation(frame, empty, empty, empty, np.eye(4), 0, key), True)
    assert scene.keyframes == [0, 4, 8, 10, 12, 14, 16] and sorted(dropped) == [101, 102, 103, 105, 106]
    # Of what 2 and 6 had found, only the last one is seen by others, 4 and 8.
    assert [len(s.landmark) for s in scene.sights] == [3, 0, 0, 0, 4, 0, 0, 1, 4, 1, 4, 1, 4, 1, 4, 1, 4, 1]
    assert scene.host.tolist() == [0] * 3 + [2] + [4] * 3 + [6] + [h for h in range(8, 18, 2) for _ in range(3)]
    assert scene.prior.tolist() == scene.host.tolist() and scene.pixel[:, 0].tolist() == scene.host.tolist()
    # What is left is seen where it was seen.
    assert scene.host[scene.sights[4].landmark].tolist() == [2, 4, 4, 4]
    assert scene.host[scene.sights[16].landmark].tolist() == [14, 16, 16, 16]


def test_what_is_remembered_of_frames_is_a_dictionary_in_a_small_space() -> None:
    small, usual = Rising(2), {}
    for key in (3, 7, 10**15, 5, 7):
        small[key] = usual[key] = (key % 11, -key)
    assert dict(small) == usual and list(small) == [3, 5, 7, 10**15] and len(small) == 4
    assert small.get(4, (-1, 0)) == (-1, 0) and 5 in small and 4 not in small
    with pytest.raises(TypeError, match="stays"):
        del small[3]


def test_a_frame_that_was_dropped_is_as_if_it_had_not_been_kept(tmp_path: Path) -> None:

    spool, net = Spool(tmp_path / "frames"), NetworkDepth(np.ones((48, 64), np.float32), np.ones((48, 64), np.float32))
    for index in (5, 6, 9):
        spool.keep(Frame.of(np.full((48, 64, 3), index, np.uint8), index), net, np.eye(4))
    spool.drop(6)
    spool.drop(7)  # was never there
    spool.keep(Frame.of(np.full((48, 64, 3), 11, np.uint8), 11), net, np.eye(4))
    assert len(spool) == 3 and 6 not in spool and 9 in spool
    assert [(frame.index, int(frame.rgb[0, 0, 0])) for frame, *_ in spool.read()] == [(5, 5), (9, 9), (11, 11)]
    assert spool.at(11)[0].rgb.max() == 11 and spool.at(9)[0].index == 9
    spool.close()


def test_looks_come_back_from_their_file(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(0), LookFile(tmp_path / "looks")
    one, other = Looks(file), Looks(file)
    given = {}
    for number in (0, 2, 5):
        count = number + 1
        look = Appearance(
            rng.random((count, 2), np.float32), rng.integers(0, 256, (count, 128), np.uint8),
            rng.random(count, np.float32),
        )  # fmt: skip
        (one if number else other)[number] = given[number] = look
    none = Appearance(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), np.zeros(0, np.float32))
    one[9] = none
    assert list(one) == [2, 5, 9] and list(other) == [0] and 0 not in one and len(one[9]) == 0
    for number, look in given.items():
        back = (one if number else other)[number]
        for name in ("pixels", "descriptor", "log_net"):
            assert np.array_equal(getattr(back, name), getattr(look, name))
    assert one.pop(2, None) is not None and one.pop(2, None) is None
    one.clear()
    assert not one and (tmp_path / "looks").stat().st_size == (1 + 3 + 6) * 140


def test_frames_that_see_nothing_move_with_their_key_frame() -> None:
    from endorecon.tracking.refine import place_frame

    scene = Map(Camera.from_fov(64, 48, 1.2))
    nothing = Sight(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    before = []
    for number in range(3):
        pose = np.eye(4)
        pose[0, 3] = number
        before.append(pose)
        scene.add_frame(pose, nothing, 0.0, keyframe=number == 0)
    moved = np.eye(4)
    moved[2, 3] = 5
    scene.move(moved, 0, 1)  # the key frame alone
    pose, residual = place_frame(scene, 2, before)
    assert pose[:3, 3].tolist() == [2, 0, 5] and np.isnan(residual)
    assert (scene.key_before(2), scene.last_keyframes(5)) == (0, [0])


RESERVED = """
import os
from pathlib import Path

from endorecon.memory import return_large_blocks
from endorecon.scenes.tsdf import TsdfScene

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

return_large_blocks()  # as a live run does
TsdfScene(1.0, max_blocks=8)  # compiles
before = resident()
usual = TsdfScene(1.0, max_blocks=4000)
between = resident()
reserved = TsdfScene(1.0, max_blocks=4000, reserved=True)
print(between - before, resident() - between, usual.blocks, reserved.blocks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_reserved_surface_is_taken_at_once() -> None:
    """4000 blocks of 512 voxels of 14 bytes are 28.7 MB, and so many pages of memory; in a process of its own, as what
    other tests have given back would be taken first."""
    told = subprocess.run([sys.executable, "-c", RESERVED], capture_output=True, text=True, check=True).stdout.split()
    assert float(told[0]) < 5 and 27 < float(told[1]) < 35
    assert told[2:] == ["0", "0"]


# -- the recording and the viewer's server ------------------------------------------------------------------------


def made_observation(camera: object, number: int) -> Observation:
    """A grey picture of a wall, one a second."""

    depth = np.ones((48, 64), np.float32)
    frame = replace(Frame.of(np.full((48, 64, 3), 99, np.uint8), number, number * 10**9), camera=camera)
    return Observation(frame, depth, depth, 0.1 * depth, np.eye(4), 0, True)


def test_a_long_recording_is_written_in_few_pieces(tmp_path: Path) -> None:
    """1.2 s in one piece, not in six: for each of them something stays in memory."""
    from rerun.chunk import RrdReader

    from endorecon.views.rerun import RerunView

    camera = Camera.from_fov(64, 48, 1.2)
    view = RerunView(tmp_path / "recording.rrd", running=True)
    view.started("clip", camera)
    for number in range(12):
        view.observed(made_observation(camera, number))
        time.sleep(0.1)
    view._rec.flush()
    view._rec.disconnect()
    pieces = [chunk for chunk in RrdReader(tmp_path / "recording.rrd").stream() if str(chunk.entity_path) == "/depth"]
    assert len(pieces) == 1 and pieces[0].to_record_batch().num_rows == 12


@pytest.mark.slow
def test_a_server_that_hangs_gets_no_more_until_it_is_back(tmp_path: Path) -> None:
    from endorecon.views import viewer
    from endorecon.views.rerun import RerunView

    hub = viewer.Hub.start(web=True)
    assert hub is not None
    said: list[str] = []
    try:
        camera = Camera.from_fov(64, 48, 1.2)
        view = RerunView(tmp_path / "recording.rrd", say=said.append, running=True, hub=hub)
        view.started("clip", camera)
        view.observed(made_observation(camera, 0))
        streams = view._rec
        streams.check()
        assert len(streams._all()) == 2
        os.killpg(hub.process.pid, signal.SIGSTOP)
        points = np.random.default_rng(0).random((50_000, 3), np.float32)
        for number in range(1, 6):
            view.mesh(Mesh(points, np.arange(99_999, dtype=np.int32).reshape(-1, 3) // 2))
            view.observed(made_observation(camera, number))
            streams.check()
        assert streams._all() == [streams._file]  # the recording goes on
        os.killpg(hub.process.pid, signal.SIGCONT)
        end = time.monotonic() + 60
        while len(streams._all()) < 2:
            assert time.monotonic() < end
            time.sleep(0.2)
            streams.check()
        os.killpg(hub.process.pid, signal.SIGSTOP)
    finally:
        hub.close()  # ends one that hangs
    assert not said and not hub.alive


@pytest.mark.slow
def test_who_looks_late_at_a_full_server_finds_the_camera_and_the_path(tmp_path: Path, monkeypatch) -> None:
    """A server that may hold 40 MB gets 100 MB of surfaces: what it has let go of is neither the camera nor the axes,
    nor the path, which each surface brings along."""
    from rerun.chunk import RrdReader

    from endorecon.views import viewer
    from endorecon.views.rerun import RerunView

    monkeypatch.setattr(viewer, "HUB_MEMORY", "40MB")
    hub = viewer.Hub.start(web=True)
    assert hub is not None
    try:
        camera = Camera.from_fov(64, 48, 1.2)
        view = RerunView(tmp_path / "recording.rrd", running=True, hub=hub)
        view.started("clip", camera)
        points = np.random.default_rng(0).random((50_000, 3), np.float32)
        surface = Mesh(points, np.arange(99_999, dtype=np.int32).reshape(-1, 3) // 2)
        for number in range(40):
            view.observed(made_observation(camera, number))
            view.mesh(surface)
            view._rec.flush()
        late = tmp_path / "late.rrd"
        with late.with_suffix(".txt").open("w") as said:
            looking = subprocess.Popen(
                [sys.executable, "-m", "rerun", hub.address, "--save", str(late)], stdout=said, stderr=said
            )
        size, end = -1, time.monotonic() + 120
        while not late.exists() or late.stat().st_size != size or size < 1 << 20:
            assert time.monotonic() < end
            size = late.stat().st_size if late.exists() else -1
            time.sleep(3)
        looking.terminate()
        looking.wait()
    finally:
        hub.close()
    found = [(str(chunk.entity_path), chunk.is_static) for chunk in RrdReader(late).stream()]
    assert {("/world", True), ("/world/camera/image", True)} <= set(found)
    assert 3 <= sum(entity == "/world/mesh" for entity, _ in found) < 35
    assert ("/world/path_before", False) in found
