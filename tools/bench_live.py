"""How fast and how exact a live run is: python tools/bench_live.py [CLIP] [--minutes N] [--accuracy FOLDER ...].

A server in a process of its own sends the clip to and fro over TCP as MPEG-TS, 1080p30 (or as told); the command line
program tracks it in another. Printed: frames processed a second, latency from a frame's arrival to its pose, dropped
frames, queues, memory after two minutes and at the end, and every ten minutes in between.

--file: the clip is played as a file instead, to and fro at its own size and pace.

--accuracy: clips with truth (folders as `endorecon simulate` makes them) are sent at 30 frames a second after a still
lead-in, and the trajectory is held against that of `reconstruct` on the same clip.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

DEMO = ROOT / "endorecon" / "demo" / "colon.mp4"
LEAD_IN_S = 20.0  # a still picture before a clip with truth begins: what starting takes on a slow machine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=DEMO)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--size", default="1920x1080", help="of the stream")
    parser.add_argument("--file", type=Path, help="play this file at its own size and rate, not a server's stream")
    parser.add_argument("--rate", type=int, default=30, help="frames a second that the server sends")
    parser.add_argument("--accuracy", nargs="*", type=Path, help="folders with truth")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--options", default="", help="further options for `endorecon live`")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        with suppress(OSError):  # whoever listened has gone
            serve(Path(args.serve[0]), int(args.serve[1]), float(args.serve[2]))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        if args.accuracy:
            accuracy(args.accuracy, args.rate, out, args.options.split())
        else:
            speed(args.clip, args.minutes, args.size, args.rate, args.file, out, args.options.split())
    return 0


# -- speed --------------------------------------------------------------------------------------------------------


def speed(
    clip: Path, minutes: float, size: str, rate: float, file: Path | None, out: Path, options: list[str]
) -> None:  # fmt: skip
    width, height = (int(side) for side in size.split("x"))
    if file is not None:
        clip, (width, height, rate) = file, own(file)
    loop = out / "loop.ts"
    count = encode(there_and_back(clip), loop, width, height, rate)
    print(f"{clip.name}: {count} frames to and fro at {width}x{height}, {rate:g} a second, {minutes:g} min", flush=True)
    seconds = minutes * 60
    if file is not None:
        whole = out / "whole.ts"
        repeat(loop, whole, seconds + 60, rate)
        run = live(str(whole), out / "live", seconds, options)
    else:
        with Server(loop, seconds) as server:
            run = live(server.address, out / "live", seconds, options)
    report(run, out / "live")


@dataclass(frozen=True)
class Run:
    """What was seen of the program from outside: resident megabytes by second, and what it said."""

    memory_mb: list[tuple[float, float]]
    said: str


def live(source: str, out: Path, seconds: float, options: list[str]) -> Run:
    """Run the program for so long after tracking has begun, then stop it as Ctrl-C does."""
    import signal

    import psutil

    command = [sys.executable, "-m", "endorecon.cli", "live", source, "-o", str(out), "--overwrite", *options]
    if "--web" not in options:
        command.append("--no-view")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = out.parent / "said.txt"
    with open(said, "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        seen, memory, begun = psutil.Process(process.pid), [], None
        while process.poll() is None:
            now = time.monotonic()
            if begun is None and "tracking;" in said.read_text():
                begun = now
            if begun is not None and now - begun > seconds:
                process.send_signal(signal.SIGINT)
                break
            if begun is not None:
                memory.append((now - begun, seen.memory_info().rss / 1e6))
            time.sleep(1.0)
        process.wait()
    return Run(memory, said.read_text())


def report(run: Run, out: Path) -> None:
    from endorecon.run import read_run

    print(run.said)
    info = read_run(out).info
    live, frames = info["live"], info["frames"]
    print(f"frames processed a second   {live['frames_a_second']}  (aim: 20)")
    print(f"latency p50, p95            {live['latency_p50_ms']}, {live['latency_p95_ms']} ms  (aim: p95 200 ms)")
    print(f"received, dropped, damaged  {live['received']}, {live['dropped']}, {live['damaged']}")
    print(f"read, tracked, segments     {frames['read']}, {frames['tracked']}, {frames['segments']}")
    print(f"most that ever waited       {live['most_waiting']}")
    print(f"quality step, changes       {live['quality_step']}, {live['quality_changes']}")
    if run.memory_mb:
        early = next((mb for at, mb in run.memory_mb if at >= 120), run.memory_mb[len(run.memory_mb) // 2][1])
        peak, last = max(mb for _, mb in run.memory_mb), run.memory_mb[-1][1]
        grown = 100 * (last / early - 1)
        print(f"memory at 2 min, end, peak  {early:.0f}, {last:.0f}, {peak:.0f} MB  ({grown:+.1f} %)")
        between = [run.memory_mb[0], *(m for a, m in pairwise(run.memory_mb) if a[0] // 600 != m[0] // 600)]
        print(f"memory every 10 minutes     {', '.join(f'{mb:.0f}' for _, mb in between)} MB")


# -- accuracy -----------------------------------------------------------------------------------------------------


def accuracy(folders: list[Path], rate: int, out: Path, options: list[str]) -> None:
    from endorecon.evaluate.protocol import RunRecord, evaluate
    from endorecon.job import reconstruct_video
    from endorecon.run import read_run
    from video_io.datasets import open_truth

    titles = ("ATE live %", "reconstruct %", "ratio", "frames", "processed", "p95 ms")
    print(f"{'clip':<16} " + " ".join(f"{title:>13}" for title in titles))
    for folder in folders:
        truth, name = open_truth(folder), folder.name
        camera = folder / "intrinsics.json"
        pictures = list(decoded(folder / "video.mp4"))
        stream = out / f"{name}.ts"
        lead = round(LEAD_IN_S * rate)
        h, w = pictures[0].shape[:2]
        encode([pictures[0]] * lead + pictures, stream, w, h, rate, crf=10)
        with Server(stream, 0.0) as server:
            lasts = (len(pictures) + lead) / rate + 2
            live(server.address, out / f"{name}_live", lasts, ["--camera", str(camera), *options])
        run = read_run(out / f"{name}_live")
        whole = reconstruct_video(folder / "video.mp4", out / f"{name}_whole", camera=camera, overwrite=True)
        usual = evaluate(RunRecord(read_run(whole)), truth).trajectory
        assert truth.trajectory is not None and usual is not None
        ate, used = ate_of(run, truth.trajectory, lead)
        print(
            f"{name:<16} {ate:>13.3f} {usual.ate_sim3_percent:>13.3f} {ate / usual.ate_sim3_percent:>13.2f} "
            f"{len(pictures):>13} {used:>13} {run.info['live']['latency_p95_ms']:>13}",
            flush=True,
        )


def ate_of(run: object, truth: object, lead: int) -> tuple[float, int]:
    """ATE after the best similarity, per cent of the true path's length, over the frames that were placed; the picture
    number of the stream minus the lead-in is the frame of the truth. How many there were."""
    from video_io.trajectory import align

    times = dict(zip(run.trajectory.times_ns.tolist(), run.trajectory.centres, strict=True))
    placed = [(row.index - lead, times[row.time_ns]) for row in run.rows if row.time_ns in times]
    numbers = np.array([number for number, _ in placed])
    good = (numbers >= 0) & (numbers < len(truth.centres))
    found, true = np.stack([centre for _, centre in placed])[good], truth.centres[numbers[good]]
    error = np.linalg.norm(align(found, true, with_scale=True).apply(found) - true, axis=1)
    length = np.linalg.norm(np.diff(truth.centres, axis=0), axis=1).sum()
    return 100 * float(np.sqrt((error**2).mean())) / float(length), int(good.sum())


# -- the stream ---------------------------------------------------------------------------------------------------


class Server:
    """Sends an MPEG-TS file over TCP, at its own pace, from a process of its own, to whoever connects first; again and
    again for so many seconds, 0: once."""

    def __init__(self, file: Path, seconds: float) -> None:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._command = [sys.executable, __file__, "--serve", str(file), str(self._port), str(seconds)]

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(self._command)
        time.sleep(1.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def serve(file: Path, port: int, seconds: float) -> None:
    """Send the packets of a file, whose times go on from loop to loop."""
    import io
    import socket

    import av

    with socket.create_server(("127.0.0.1", port)) as server:
        client, _ = server.accept()
        with client, client.makefile("wb") as sink:
            begun, offset = time.monotonic(), Fraction(0)
            chunk = io.BytesIO()
            while True:
                with av.open(str(file)) as source, av.open(chunk, "w", format="mpegts") as output:
                    stream = source.streams.video[0]
                    to = output.add_stream_from_template(stream)
                    last = Fraction(0)
                    first: Fraction | None = None
                    packets = 0
                    for packet in source.demux(stream):
                        if packet.dts is None:
                            continue
                        packets += 1
                        at = packet.dts * packet.time_base
                        first = at if first is None else first
                        last = at - first
                        shift = round((offset - first) / packet.time_base)
                        packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                        packet.stream = to
                        output.mux(packet)
                        time.sleep(max(0.0, begun + float(offset + last) - time.monotonic()))
                        sink.write(chunk.getvalue())
                        sink.flush()
                        chunk.seek(0)
                        chunk.truncate()
                sink.write(chunk.getvalue())
                chunk.seek(0)
                chunk.truncate()
                offset += last * (1 + Fraction(1, max(packets - 1, 1)))
                if float(offset) > seconds + 60 or not seconds:
                    return


def decoded(path: Path):  # type: ignore[no-untyped-def]
    import av

    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def there_and_back(path: Path) -> list[np.ndarray]:
    """The pictures forwards, then backwards, so that a loop has no cut."""
    pictures = list(decoded(path))
    return pictures + pictures[-2:0:-1]


def own(path: Path) -> tuple[int, int, float]:
    """Width, height and frames a second of a file."""
    import av

    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        return stream.codec_context.width, stream.codec_context.height, float(stream.average_rate)


def encode(pictures: list[np.ndarray], path: Path, width: int, height: int, rate: float, crf: int = 20) -> int:
    import av

    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency", "g": "30"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(width, height, "yuv420p", interpolation="BICUBIC")))
        container.mux(stream.encode(None))
    return len(pictures)


def repeat(loop: Path, whole: Path, seconds: float, rate: float) -> None:
    """A file of so many seconds, made of the packets of a loop."""
    import av

    with av.open(str(whole), "w", format="mpegts") as output:
        to, offset = None, Fraction(0)
        while float(offset) < seconds:
            with av.open(str(loop)) as source:
                stream = source.streams.video[0]
                to = to or output.add_stream_from_template(stream)
                first, last = None, Fraction(0)
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    at = packet.dts * packet.time_base
                    first = at if first is None else first
                    last = at - first
                    shift = round((offset - first) / packet.time_base)
                    packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                    packet.stream = to
                    output.mux(packet)
                offset += last + Fraction(1 / rate).limit_denominator(10_000)


if __name__ == "__main__":
    sys.exit(main())
