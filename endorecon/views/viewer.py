"""The Rerun viewer as a process: on 127.0.0.1 only unless told otherwise, its telemetry off, as it shows a patient."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from video_io.errors import InputError

APPLICATION = "endorecon"
LOOPBACK = "127.0.0.1"
_END_S = 5.0  # that a server may take to end
HUB_MEMORY = "1GB"  # of a live run's server: the oldest data goes


def open_recording(path: Path, say: Callable[[str], None] = print) -> int:
    """Show a recording and wait until the viewer is closed; returns its exit code.

    On a machine without a screen the viewer is served as a page, to this machine only.
    """
    command, page = _viewer(_free_port())
    if page:
        say(f"no screen found; open {page} in a browser on this machine (Ctrl-C ends it)")
    return subprocess.run([*command, str(path)], env=_private_environment(), check=False).returncode


@dataclass(frozen=True)
class LiveViewer:
    """A viewer that takes data while it is made.

    Attributes:
        address: where to send the data.
        process: the viewer; leads its own process group.
        page: the address to open in a browser; empty if the viewer has a window of its own.
    """

    address: str
    process: subprocess.Popen[bytes]
    page: str

    @staticmethod
    def start() -> LiveViewer | None:
        """A viewer that is ready to take data; None if it does not start."""
        port = _free_port()
        command, page = _viewer(port)
        # Its own session: Ctrl-C stops the reconstruction and leaves the viewer open.
        silent = subprocess.DEVNULL
        process = subprocess.Popen(
            [*command, "--expect-data-soon"],
            env=_private_environment(), start_new_session=True, stdout=silent, stderr=silent,
        )  # fmt: skip
        viewer = LiveViewer(f"rerun+http://127.0.0.1:{port}/proxy", process, page)
        for _ in range(150):
            if process.poll() is not None:
                return None
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    if page:
                        atexit.register(viewer.close)  # a server without a window must not outlive the run
                    return viewer
            time.sleep(0.1)
        viewer.close()
        return None

    def close(self) -> None:
        """End the viewer and what it has started."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()


@dataclass
class Hub:
    """A server that takes a live run's data and holds it for viewers, which may come and go: a window, or a page.

    Attributes:
        bind: the address at which it listens.
        port, web_port: where it takes data, and where it serves the page; 0: there is no page.
        process: the server.
        window: the viewer with a window of its own, if there is one.
    """

    bind: str
    port: int
    web_port: int
    process: subprocess.Popen[bytes]
    window: subprocess.Popen[bytes] | None = None

    @staticmethod
    def start(web: bool, bind: str = LOOPBACK, ports: tuple[int, int] | None = None) -> Hub | None:
        """A server that is ready to take data, with a page or with a window; None if it does not start.

        Args:
            web: serve a page instead of opening a window.
            bind: the address to listen at.
            ports: of an earlier one, so that what has looked at that finds this; by default free ones.
        """
        port, web_port = ports or (_free_port(), _free_port() if web else 0)
        kind = ["--serve-web", "--web-viewer-port", str(web_port)] if web else ["--serve-grpc"]
        command = [
            sys.executable, "-m", "rerun", "--bind", bind, "--port", str(port), *kind,
            "--server-memory-limit", HUB_MEMORY, "--memory-limit", HUB_MEMORY,
        ]  # fmt: skip
        hub = Hub(bind, port, web_port, _spawned(command))
        atexit.register(hub.close)
        for _ in range(150):
            if not hub.alive:
                return None
            with socket.socket() as probe:
                if probe.connect_ex((hub._near, port)) == 0:
                    if not web:
                        hub.open_window()
                    return hub
            time.sleep(0.1)
        hub.close()
        return None

    @property
    def alive(self) -> bool:
        """Whether it still takes data."""
        return self.process.poll() is None

    @property
    def address(self) -> str:
        """Where to send the data, and where a viewer on this machine finds it."""
        return f"rerun+http://{self._near}:{self.port}/proxy"

    @property
    def page(self) -> str:
        """What to open in a browser; empty where there is no page."""
        host = self._near if self.bind == self._near else socket.gethostname()
        data = f"rerun%2Bhttp%3A%2F%2F{host}%3A{self.port}%2Fproxy"
        return f"http://{host}:{self.web_port}/?url={data}" if self.web_port else ""

    def open_window(self) -> None:
        """Open a window that shows what the server has and gets."""
        command = [sys.executable, "-m", "rerun", self.address, "--bind", LOOPBACK, "--port", str(_free_port())]
        self.window = _spawned([*command, "--memory-limit", "50%"])

    def again(self) -> Hub | None:
        """The same server started again after its end, at the same place."""
        self.close()
        return Hub.start(bool(self.web_port), self.bind, (self.port, self.web_port))

    def close(self) -> None:
        """End the server, one that hangs too; a window stays with what it has got."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.alive:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(_END_S)

    @property
    def _near(self) -> str:
        """Its address as seen from this machine."""
        return LOOPBACK if self.bind in ("0.0.0.0", "::") else self.bind


def open_address(address: str) -> int:
    """Show what a running `Hub` holds in a window; returns the viewer's exit code."""
    command = [sys.executable, "-m", "rerun", address, "--bind", LOOPBACK, "--port", str(_free_port())]
    return subprocess.run(command, env=_private_environment(), check=False).returncode


def _spawned(command: list[str]) -> subprocess.Popen[bytes]:
    # Its own session: Ctrl-C is for the run alone.
    return subprocess.Popen(
        command, env=_private_environment(), start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _viewer(port: int) -> tuple[list[str], str]:
    """The command of a viewer that takes data at `port`, and the page it shows, empty if it has a window of its own."""
    command = [sys.executable, "-m", "rerun", "--bind", "127.0.0.1", "--port", str(port), "--memory-limit", "50%"]
    if has_screen():
        return command, ""
    web_port = _free_port()
    page = f"http://127.0.0.1:{web_port}/?url=rerun%2Bhttp%3A%2F%2F127.0.0.1%3A{port}%2Fproxy"
    return [*command, "--server-memory-limit", "50%", "--serve-web", "--web-viewer-port", str(web_port)], page


def has_screen() -> bool:
    """Whether a window can be opened."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _private_environment() -> dict[str, str]:
    """An environment in which the viewer's telemetry is off, without touching the person's own settings on Linux."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / APPLICATION / "viewer"
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home), "TELEMETRY_ENABLED": "false"}
    if not (home / "rerun" / "analytics.json").is_file():
        command = [sys.executable, "-m", "rerun", "analytics", "disable"]
        off = subprocess.run(command, env=environment, capture_output=True, check=False)
        if off.returncode != 0:
            shutil.rmtree(home, ignore_errors=True)
            raise InputError(f"the viewer's telemetry can't be turned off (is '{home}' writable?), so it is not opened")
    return environment
