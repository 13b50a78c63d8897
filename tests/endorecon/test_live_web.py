"""The page of a live run in a real browser: it opens, shows the scene, and changes while the run goes on."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from stream_server import StreamServer, chunks
from test_live import DEMO, Program

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """A headless Chromium, driven by its debugging protocol over a pair of pipes (messages end with a zero byte)."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 800) -> None:
        assert CHROMIUM is not None
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def hand_over() -> None:  # the protocol's pipes are descriptors 3 and 4
            one, other = os.dup(to_read), os.dup(to_write)
            os.dup2(one, 3)
            os.dup2(other, 4)

        self._process = subprocess.Popen(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
                f"--user-data-dir={profile}", f"--window-size={width},{height}", "--remote-debugging-pipe",
                "--disable-background-networking", "--no-first-run", "about:blank",
            ],
            preexec_fn=hand_over, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._number, self._left, self._session = 0, b"", {}
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._left:
                data = os.read(self._read, 1 << 20)
                assert data, "the browser has ended"
                self._left += data
            answer, self._left = self._left.split(b"\0", 1)
            found = json.loads(answer)
            if found.get("id") == self._number:
                if "result" not in found:
                    raise RuntimeError(found)
                return found["result"]

    def picture(self) -> np.ndarray:
        """A screenshot, (H, W, 3) BGR."""
        end = time.monotonic() + 120
        while True:
            try:
                data = base64.b64decode(self("Page.captureScreenshot")["data"])
                break
            except RuntimeError:  # the page is just changing
                assert time.monotonic() < end
                time.sleep(0.5)
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_shows_the_scene_and_changes(tmp_path: Path) -> None:
    with av.open(str(DEMO)) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    around = cycle(pictures + pictures[-2:0:-1])
    pieces = list(chunks(islice(around, 1180)))
    with StreamServer(pieces, loop=True) as server, Program(server.address, tmp_path / "run", "--web") as program:
        program.wait_for("tracking;")
        page = next(line for line in program.said.splitlines() if "watch at" in line).split("watch at ")[1]
        browser = Browser(tmp_path / "profile")
        try:
            browser("Page.navigate", url=page)
            first = shown(browser, seconds=300)
            time.sleep(15)
            second = browser.picture()
        finally:
            browser.close()
        program.end(signal.SIGINT)
    if (keep := os.environ.get("ENDORECON_PICTURES")) is not None:
        cv2.imwrite(str(Path(keep) / "live_1.png"), first)
        cv2.imwrite(str(Path(keep) / "live_2.png"), second)
    assert np.mean(cv2.absdiff(first, second).max(-1) > 16) > 0.01


def shown(browser: Browser, seconds: float) -> np.ndarray:
    """The page once its upper left, where the scene is, has many colours of tissue."""
    end, picture = time.monotonic() + seconds, None
    while time.monotonic() < end:
        picture = browser.picture()
        h, w = picture.shape[:2]
        scene = picture[h // 8 : h // 2, w // 16 : w // 2].astype(int)
        tissue = (scene[..., 2] > scene[..., 0] + 25) & (scene[..., 2] > 60)
        if tissue.mean() > 0.05 and picture.reshape(-1, 3).std(0).min() > 15:
            return picture
        time.sleep(2)
    if picture is not None and (keep := os.environ.get("ENDORECON_PICTURES")):
        cv2.imwrite(str(Path(keep) / "live_failed.png"), picture)
    raise AssertionError("the scene did not show")
