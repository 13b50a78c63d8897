"""`endorecon live`: from a running camera to a growing scene."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import OK, Bars, File, Folder, Out
from video_io.errors import InputError


@dataclass(frozen=True)
class Live:
    """Reconstruct what a camera shows while it shows it. Ctrl-C, or the end of the stream, finishes the run folder.

    Example: endorecon live /dev/video0 --web --record
    """

    source: Positional[str]
    """A capture device (0 or /dev/video0), an address (rtsp, http, udp, tcp, srt, ...), a video file, played at its own
    pace, or - for standard input."""
    out: Out = None
    """Where to write; by default runs/NAME, after the source."""
    record: bool = False
    """Keep the stream as it comes, in the run folder, so that `reconstruct` can do it again better."""
    web: bool = False
    """Watch in the browser, instead of in a window."""
    no_view: bool = False
    """Show nothing."""
    bind: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address at which the viewer's server listens. Other than 127.0.0.1, others can watch: it has no password."""
    stereo: Literal["none", "sbs", "tb"] = "none"
    """Two views in one picture, side by side or top and bottom: the left or upper one is used."""
    camera: File = None
    """Calibration: a run's camera.json, an intrinsics.json, OpenCV YAML or XML, COLMAP's cameras.txt."""
    model: str = "tiny"
    """Depth model: a name that `endorecon models` lists, a hub id, or a local folder with a checkpoint."""
    adapter: Folder = None
    """Folder of an adapter for the model."""
    accept_licence: bool = False
    """Use weights whose licence forbids commercial use."""
    timeout: float = 10.0
    """Seconds to wait for a connection, and before a silent one is given up and made again."""
    overwrite: bool = False
    """Replace the run that the output folder holds."""


def run(command: Live) -> int:
    """Run the command; returns the exit code."""
    _check(command)
    from endorecon.live_job import Asked, live_video
    from endorecon.run import read_run
    from video_io.running import name_of

    def say(sentence: str) -> None:
        print(f"endorecon: {sentence}", file=sys.stderr, flush=True)

    screen: Literal["window", "web", "none"] = "web" if command.web else "window"
    if command.no_view:
        screen = "none"
    with Bars() as bars:
        path = live_video(
            Asked(
                command.source, command.out or Path("runs") / name_of(command.source), command.camera, command.model,
                command.adapter, command.accept_licence, command.stereo, command.record, screen, command.bind,
                command.timeout, command.overwrite,
            ),
            progress=bars,
            say=say,
        )  # fmt: skip
    run = read_run(path)
    frames, live = run.info["frames"], run.info["live"]
    print(
        f"{frames['tracked']} of {frames['read']} frames tracked in {frames['segments']} segment(s); "
        f"{live['dropped']} of {live['received']} dropped"
    )
    print(
        f"{live['frames_a_second']:.1f} frames a second, latency {live['latency_p50_ms']:.0f} ms "
        f"(p95 {live['latency_p95_ms']:.0f} ms)"
    )
    for warning in run.info["warnings"]:
        print(f"note: {warning}")
    for name in live.get("recorded", []):
        print(f"recorded   {path / name}")
    print(f"result     {path}\nlook at it endorecon view {path}\nreport     {path / 'report.html'}")
    return OK


def _check(command: Live) -> None:
    if not command.timeout > 0:
        raise InputError(f"--timeout is {command.timeout:g}, but it must be positive; give seconds, such as 10")
    if command.web and command.no_view:
        raise InputError("--web shows and --no-view does not; give one of them")
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F:]+", command.bind):
        raise InputError(f"--bind {command.bind} is no address; give one of this machine's, such as 127.0.0.1")
