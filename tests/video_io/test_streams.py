"""Running inputs: what comes in arrives in order with rising times, whatever becomes of the connection; what was
recorded plays to its end; bad input is one sentence without secrets."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import picture

from video_io import streams
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.inbox import Inbox
from video_io.running import RunningClip, RunningSource, name_of
from video_io.streams._address import redacted, shown
from video_io.streams._connection import connected
from video_io.streams._convert import Converter
from video_io.streams._record import Recorder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stream_server import StreamServer, chunks

SECRET = "rtsp://doctor:p4ssw0rd@10.0.0.7:554/room3?token=abcdef123&channel=2"


def moving(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    return [picture(i, width, height) for i in range(count)]


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


# -- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        (SECRET, "rtsp://***@10.0.0.7:554/room3?token=***&channel=***"),
        ("srt://host:9000?passphrase=longenough&mode=caller", "srt://host:9000?passphrase=***&mode=***"),
        ("http://host/live.ts#abc", "http://host/live.ts#***"),
        ("https://u:a@b@host/x", "https://***@host/x"),
        ("udp://@239.0.0.1:1234", "udp://***@239.0.0.1:1234"),
        ("/data/odd?name=1.mp4", "/data/odd?name=1.mp4"),
        ("0", "0"),
    ],
)
def test_addresses_are_shown_without_secrets(source: str, seen: str) -> None:
    assert shown(source) == seen


def test_messages_of_libraries_are_cleared_of_secrets() -> None:
    said = f"could not open {SECRET}: user doctor with p4ssw0rd and abcdef123 was refused"
    assert redacted(said, SECRET) == (
        "could not open rtsp://***@10.0.0.7:554/room3?token=***&channel=***: user *** with *** and *** was refused"
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [("-", "stdin"), ("3", "video3"), ("/dev/video0", "video0"), ("a/b.mp4", "b"), (SECRET, "10.0.0.7_554_room3")],
)
def test_a_run_is_named_after_its_source_without_secrets(source: str, name: str) -> None:
    assert name_of(source) == name


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/dev/video97", "there is no device '/dev/video97'"),
        ("97", "there is no device '/dev/video97'"),
        ("/dev/null", "'/dev/null' can't be opened as a stream of video"),
        ("gopher://x/y", "'gopher://x/y' is no address of a stream; expected one of rtsp"),
        ("nothing.mp4", "'nothing.mp4' does not exist"),
        ("tests", "'tests' is a folder"),
    ],
)
def test_what_is_not_there_is_told_at_once(source: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        RunningSource(source, timeout_s=2.0)


def test_a_device_that_may_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusals, as they come for a device of another group and for one in use."""
    from video_io.streams import device

    for code, words in ((errno.EACCES, "you may not use '/dev/null'"), (errno.EBUSY, "in use by another program")):

        def refuse(*_: object, code: int = code) -> int:
            raise OSError(code, "refused")

        monkeypatch.setattr(device.os, "open", refuse)
        with pytest.raises(InputError, match=words):
            device.connect("/dev/null", 1.0)


def test_nothing_listens_and_no_secret_is_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(InputError) as refused:
        RunningSource(f"http://doctor:p4ssw0rd@127.0.0.1:{port}/x?token=abcdef123", timeout_s=2.0)
    assert f"nothing listens at 'http://***@127.0.0.1:{port}/x?token=***'" in str(refused.value)


def test_a_connection_that_hangs_ends_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        with pytest.raises(InputError, match=r"did not answer within 0.5 s; .* --timeout"):
            RunningSource(f"tcp://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.5)
        assert time.monotonic() - begun > 0.4


def test_a_stream_without_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.ts"), "w", format="mpegts") as container:
        stream = container.add_stream("mp2", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 2 * 20), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"sound.ts' holds audio but no video"):
        RunningSource(str(tmp_path / "sound.ts"))


def test_a_codec_that_nobody_knows(write_video: Callable[..., Path], tmp_path: Path) -> None:
    """Matroska names its codec in words; here in others."""
    data = write_video(moving(5), "clip.mkv").read_bytes()
    assert data.count(b"V_MPEG4/ISO/AVC") == 1
    (tmp_path / "odd.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ABC/XYZ"))
    with pytest.raises(InputError, match=r"odd.mkv' has a codec that this program does not know; have it"):
        RunningSource(str(tmp_path / "odd.mkv"))


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    with pytest.raises(InputError, match=r"text.mp4' can't be opened as a stream of video"):
        RunningSource(str(tmp_path / "text.mp4"))


def test_every_kind_of_input_has_what_it_needs() -> None:
    for name in streams.kinds():
        module = __import__(f"video_io.streams.{name}", fromlist=["accepts"])
        assert callable(module.accepts) and callable(module.connect) and isinstance(module.RECONNECTS, bool)
    of = {source: streams.kind_of(source).__name__.rsplit(".", 1)[-1] for source in ("0", "/dev/x", SECRET, "-", "a.b")}
    assert list(of.values()) == ["device", "device", "network", "pipe", "file"]


# -- the queue and the pictures -----------------------------------------------------------------------------------


def test_where_there_is_no_room_the_oldest_goes() -> None:
    inbox: Inbox[int] = Inbox(2)
    for item in range(5):
        inbox.put(item)
    assert (inbox.take(0), inbox.take(0), inbox.take(0.01)) == (3, 4, None)
    assert (inbox.dropped, inbox.longest, len(inbox)) == (3, 2, 0)
    inbox.put(5)
    inbox.close()
    inbox.put(6)
    assert not inbox.closed and inbox.take(0) == 5 and inbox.closed


def test_waiting_for_room_ends_when_something_is_taken() -> None:
    inbox: Inbox[int] = Inbox(1)
    inbox.put(1)
    assert not inbox.wait_for_room(0.01)
    threading.Timer(0.05, inbox.take, (0,)).start()
    assert inbox.wait_for_room(5.0)


def decoded(rgb: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format="yuv444p")


def test_cropping_and_scaling_agree_with_a_plain_resize() -> None:
    rgb = cv2.GaussianBlur(picture(1, 192, 128), (0, 0), 2)
    found = Converter().rgb(decoded(rgb), (16, 8, 160, 112), (80, 56))
    expected = cv2.resize(rgb[8:120, 16:176], (80, 56), interpolation=cv2.INTER_AREA)
    assert found.shape == (56, 80, 3)
    assert np.abs(found.astype(int) - expected).mean() < 2  # YUV and back


def test_the_left_and_the_upper_view_of_a_stereo_picture() -> None:
    left, right = picture(1, 64, 48), 255 - picture(1, 64, 48)
    for stereo, both in (("sbs", np.hstack([left, right])), ("tb", np.vstack([left, right]))):
        converter = Converter(stereo)
        assert converter.size(decoded(both)) == (64, 48)
        assert np.abs(converter.rgb(decoded(both)).astype(int) - left).mean() < 3


# -- reading ------------------------------------------------------------------------------------------------------


def read_all(source: RunningSource, seconds: float = 30.0) -> list:
    found, end = [], time.monotonic() + seconds
    while not source.inbox.closed and time.monotonic() < end:
        if (arrived := source.inbox.take(0.1)) is not None:
            found.append(arrived)
    return found


def test_a_file_is_played_at_its_own_pace(write_video: Callable[..., Path]) -> None:
    path = write_video(moving(12))  # 25 a second: 0.44 s from the first to the last
    source = RunningSource(str(path))
    begun = time.monotonic()
    source.begin()
    found = read_all(source)
    assert time.monotonic() - begun > 0.4
    assert source.reader.received == 12 and not source.reader.damaged
    assert len(found) + source.inbox.dropped == 12
    assert [a.time_ns for a in found] == [a.index * 40_000_000 for a in found]


def test_one_time_of_many_stamps() -> None:
    """A picture out of order, stamps that begin anew after 4 s or jump by an hour, another rate, and no stamp: the time
    goes on as the pictures come."""
    from video_io.streams._reader import _StreamClock

    clock = _StreamClock()
    stamps = [7.0, 7.04, 7.08, 7.06, 11.0, 0.0, 0.1, 0.2, 3600.2, 3600.3, None]
    came = [100.0, 100.04, 100.08, 100.09, 104.0, 104.1, 104.2, 104.3, 104.4, 104.5, 104.6]
    found = [clock.time_ns(stamp, at) for stamp, at in zip(stamps, came, strict=True)]
    expected = [0, 40e6, 80e6, 80e6 + 1, 4e9, 4.1e9, 4.2e9, 4.3e9, 4.4e9, 4.5e9, 4.6e9]
    assert np.abs(np.array(found) - expected).max() < 1e3 and all(a < b for a, b in pairwise(found))


def test_decoding_that_is_behind_passes_over_pictures(
    write_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 s at 25 a second with a key frame each 10; each decoded picture takes 0.15 s, so that one in four can be."""
    from video_io.streams._reader import Reader

    monkeypatch.setattr("video_io.streams._reader.BEHIND_S", 0.4)
    take = Reader._take
    monkeypatch.setattr(Reader, "_take", lambda *given: (time.sleep(0.15), take(*given)))
    source = RunningSource(str(write_video(moving(75), options={"g": "10", "bf": "0"})))
    source.begin()
    found = read_all(source)
    assert source.reader.received == 75 and source.reader.passed_over > 10
    late = [a.arrived_s - source.reader._clock.begun_s - a.time_ns / 1e9 for a in found]
    assert max(late) < 1e-6  # the arrival of a file's picture is when its time has come
    assert found[-1].index > 40


def test_a_stream_that_ends_and_comes_back(tmp_path: Path) -> None:
    """Two connections, one after the other: one rising time, two recorded files, which hold all that was sent."""
    said: list[str] = []
    pieces = list(chunks(moving(30)))
    with StreamServer(pieces) as server:
        source = RunningSource(server.address, timeout_s=5.0, say=said.append)
        source.record(tmp_path)
        source.begin()
        port = server.port
        wait_until(lambda: source.reader.received >= 20)
    wait_until(lambda: source.reader.lost)
    first = source.reader.received
    with StreamServer(pieces, port=port):
        wait_until(lambda: source.reader.received >= first + 20)
        assert not source.reader.lost and source.reader.reconnected >= 1
        source.reader.stop()
    assert "has stopped" in said[0] and any("is back after" in sentence for sentence in said)
    files = sorted(tmp_path.glob("stream*.mkv"))
    counts = [sum(1 for _ in av.open(str(path)).decode(video=0)) for path in files]
    assert len(files) >= 2 and sum(counts) >= first + 20 - 2


def test_silence_is_no_end(tmp_path: Path) -> None:
    quiet = threading.Event()

    def before(number: int, piece: bytes) -> bytes:
        if number == 15:
            quiet.set()
            time.sleep(1.0)
        return piece

    with StreamServer(list(chunks(moving(30))), before=before, loop=True) as server:
        source = RunningSource(server.address, timeout_s=5.0)
        source.begin()
        assert quiet.wait(10)
        before_silence = source.reader.received
        wait_until(lambda: source.reader.received > before_silence + 8)
        assert source.reader.reconnected == 0
        source.reader.stop()


def test_damaged_packets_are_left_out() -> None:
    rng = np.random.default_rng(0)

    def before(number: int, piece: bytes) -> bytes:
        if number % 12 not in (5, 6):
            return piece
        broken = bytearray(piece)
        for at in rng.integers(0, len(broken), len(broken) // 20):
            broken[at] ^= 0xFF
        return bytes(broken)

    with StreamServer(list(chunks(moving(60))), before=before) as server:
        source = RunningSource(server.address, timeout_s=2.0)
        source.begin()
        found: list = []
        wait_until(lambda: bool(found.append(source.inbox.take(0.1))) or source.reader.damaged > 0)
        wait_until(lambda: server.sent >= 58)
        source.reader.stop()
    assert source.reader.damaged > 0 and source.reader.received > 20


def test_an_rtsp_camera_behind_a_password() -> None:
    """60 pictures at 60 a second, whose times are those of the camera, to a tick of its clock (1 / 90,000 s)."""
    from rtsp_server import RtspServer, nal_units

    with RtspServer(nal_units(moving(60, 192, 128)), "doctor:p4ssw0rd", rate=60) as server:
        with pytest.raises(InputError) as refused:
            RunningSource(f"rtsp://doctor:wrong@127.0.0.1:{server.port}/room3", timeout_s=3.0)
        assert str(refused.value) == (
            f"'rtsp://***@127.0.0.1:{server.port}/room3' wants a user and a password, or other ones; give them as "
            "user:password@ before the host"
        )
        source = RunningSource(f"rtsp://doctor:p4ssw0rd@127.0.0.1:{server.port}/room3", timeout_s=3.0)
        source.begin()
        found: list = []
        wait_until(lambda: bool(found.append(source.inbox.take(0.1))) or source.reader.received >= 40)
        source.reader.stop()
    times = {a.index: a.time_ns for a in found if a is not None and a.index}  # the first one comes without a time
    assert len(times) > 5 and (source.describe["width"], source.describe["codec"]) == (192, "h264")
    first = min(times)
    assert all(abs(t - times[first] - (i - first) * 1e9 / 60) < 1e9 / 90_000 for i, t in times.items())


def test_mpeg_ts_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = threading.Event()
    data = b"".join(chunks(moving(60)))

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stop.is_set():
                for at in range(0, len(data), 7 * 188):
                    sender.sendto(data[at : at + 7 * 188], ("127.0.0.1", port))
                    if stop.wait(0.002):
                        return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        source = RunningSource(f"udp://127.0.0.1:{port}", timeout_s=5.0)
        source.begin()
        wait_until(lambda: source.reader.received >= 30)
        source.reader.stop()
    finally:
        stop.set()
        thread.join()
    assert (source.describe["width"], source.describe["height"]) == (96, 64)


def test_another_size_of_the_same_shape_is_the_same_picture() -> None:
    pictures = [*moving(30, 192, 128), *moving(20, 96, 64), *moving(20, 128, 128)]
    with StreamServer(list(chunks(pictures)), rate=20) as server:
        source = RunningSource(server.address, timeout_s=3.0)
        source.begin()
        view = None
        shapes, refused = set(), set()
        while server.sent < len(pictures) and not source.inbox.closed:
            arrived = source.inbox.take(0.1)
            if arrived is None:
                continue
            if view is None:
                from video_io.view import View

                view = View(192, 128, (16, 8, 160, 112), 96, 64)
            frame = source.picture(arrived, view)
            if isinstance(frame, Frame):
                shapes.add((arrived.picture.width, frame.rgb.shape))
            else:
                refused.add(frame)
        source.reader.stop()
    assert shapes == {(192, (64, 96, 3)), (96, (64, 96, 3))}
    assert refused == {"the picture has changed its shape from 192 x 128 to 128 x 128"}


def test_the_first_pictures_decide_how_to_work_on_the_rest() -> None:
    with StreamServer(list(chunks(moving(90, 192, 160)))) as server:
        source = RunningSource(server.address, timeout_s=3.0)
        source.begin()
        clip = RunningClip.look(source, None, lambda _: None, threading.Event())
        assert clip is not None and (clip.view.source_width, clip.view.source_height) == (192, 160)
        frame = next(clip.frames())
        assert (frame.width, frame.height) == (192, 160) and frame.specular_mask.shape == (160, 192)
        source.reader.stop()


def test_a_black_picture_is_waited_out() -> None:
    said: list[str] = []
    pictures = [np.zeros((160, 192, 3), np.uint8)] * 120 + moving(90, 192, 160)
    with StreamServer(list(chunks(pictures))) as server:
        source = RunningSource(server.address, timeout_s=3.0)
        source.begin()
        clip = RunningClip.look(source, None, said.append, threading.Event())
        source.reader.stop()
    assert clip is not None
    assert len(said) == 1 and said[0].startswith("waiting for a picture of tissue: so far the clip is black")


def test_a_pipe(write_video: Callable[..., Path]) -> None:
    """As `cat clip.ts | endorecon live -` reads it."""
    path = write_video(moving(12), "clip.mkv")
    code = (
        "from video_io.running import RunningSource\n"
        "source = RunningSource('-'); source.begin(); n = 0\n"
        "for arrived in source.arrivals(): n += 1\n"
        "print(source.reader.received, source.describe['kind'])"
    )
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == ["12", "live, pipe\n"]


# -- recording ----------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_what_came(write_video: Callable[..., Path], tmp_path: Path) -> None:
    path = write_video(moving(20), "clip.mkv")
    recorder = Recorder(tmp_path, print)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        sent = []
        for packet in container.demux(stream):
            if packet.size:
                sent.append(bytes(packet))
            recorder.packet(packet, stream)
    recorder.close()
    with av.open(str(tmp_path / "stream.mkv")) as container:
        assert [bytes(packet) for packet in container.demux(video=0) if packet.size] == sent
    assert not recorder.ended


def test_times_that_begin_anew_begin_a_file(
    write_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("video_io.streams._record._LEAST_S", 0.0)
    path = write_video(moving(40), "clip.mkv")
    recorder = Recorder(tmp_path, print)
    for _ in range(2):
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                recorder.packet(packet, container.streams.video[0])
    recorder.close()
    assert [file.name for file in recorder.files] == ["stream.mkv", "stream_2.mkv"]
    for file in recorder.files:
        assert sum(1 for _ in av.open(str(file)).decode(video=0)) == 40


def test_a_disk_that_is_full_ends_the_recording_alone(write_video: Callable[..., Path], tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the system then refuses to write, as a full one does."""
    rng = np.random.default_rng(0)
    path = write_video([rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(40)], "clip.mkv")
    assert path.stat().st_size > 60_000
    code = f"""
import resource
from pathlib import Path
import av
from video_io.streams._record import Recorder
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
recorder = Recorder(Path({str(tmp_path)!r}), print)
with av.open({str(path)!r}) as container:
    for packet in container.demux(video=0):
        recorder.packet(packet, container.streams.video[0])
recorder.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the recording has ended (File too large); tracking goes on"), done
    with av.open(str(tmp_path / "stream.mkv")) as container:
        assert 5 < sum(1 for _ in container.decode(video=0)) < 40


def test_some_of_the_disk_is_left_free(write_video: Callable[..., Path], tmp_path: Path) -> None:
    said: list[str] = []
    path = write_video(moving(10), "clip.mkv")
    recorder = Recorder(tmp_path, said.append, keep_free=1 << 62)
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            recorder.packet(packet, container.streams.video[0])
    assert said == ["the recording has ended (the disk is nearly full); tracking goes on"] == [recorder.ended]


def test_a_connection_tells_whether_its_end_is_the_end(write_video: Callable[..., Path]) -> None:
    path = write_video(moving(4))
    assert connected(str(path), str(path), 1.0, ends=None).ends
    assert not connected(str(path), str(path), 1.0, ends=False).ends
