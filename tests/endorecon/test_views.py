"""What the views write: the recording is read back entity by entity, the report is parsed as a page."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from made_run import CAMERA, mesh, observations, trajectory, write_run
from rerun.chunk import RrdReader

from endorecon.run import FrameRow, Run, RunWriter, read_run
from endorecon.tracking.observation import Observation
from endorecon.views import _drawing as draw
from endorecon.views import _grades
from endorecon.views.base import Views
from endorecon.views.report import ReportView, write_report
from endorecon.views.rerun import RerunView, write_curves
from endorecon.views.viewer import LiveViewer
from rendering.mesh import Mesh


def watched(out: Path, live: bool = False) -> Run:
    run = write_run(out)
    views = Views([RerunView(run.path / "recording.rrd", live), ReportView(run.path / "report.html")])
    views.started("made up", CAMERA)
    for placed in observations():
        views.observed(placed) if isinstance(placed, Observation) else views.refused(placed)
    views.refined(trajectory())
    views.mesh(mesh())
    for placed in observations():
        if isinstance(placed, Observation):
            views.final(placed)
    views.finished(run)
    return read_run(run.path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return watched(tmp_path_factory.mktemp("runs") / "made")


# -- the recording ------------------------------------------------------------------------------------------------


def rows_by_entity(path: Path) -> tuple[Counter[str], set[str]]:
    """Rows of each entity over all stores of a recording (data and blueprint), and the static entities."""
    rows: Counter[str] = Counter()
    static = set()
    reader = RrdReader(str(path))
    for chunk in reader.stream():
        rows[str(chunk.entity_path)] += chunk.num_rows
        if chunk.is_static:
            static.add(str(chunk.entity_path))
    return rows, static


def test_curves_of_a_training_are_written(tmp_path: Path) -> None:
    write_curves([{"step": 0, "held_out": 0.06}, {"step": 8, "held_out": 0.05, "total": 0.2}], tmp_path / "t.rrd")
    rows, _ = rows_by_entity(tmp_path / "t.rrd")
    assert (rows["/training/held_out"], rows["/training/total"]) == (2, 1)


def test_the_recording_holds_all_that_is_watched(run: Run) -> None:
    assert run.recording_path is not None
    rows, static = rows_by_entity(run.recording_path)
    for entity in ("/world/camera/points", "/depth", "/confidence"):
        assert rows[entity] == 4, entity
    assert rows["/world/camera/image"] == 4 + 1  # and once its pinhole
    assert rows["/world/camera"] == 4 + 4  # as tracked, then as refined
    assert rows["/figures/landmarks"] == rows["/figures/residual_px"] == 4
    assert rows["/refused"] == 1
    # Path and mesh of the end hold for the whole recording.
    assert {"/world", "/world/path", "/world/keyframes", "/world/mesh"} <= static


def test_images_in_the_recording_are_small(run: Run) -> None:
    """A frame of noise at 64 x 48: 12 kB raw; with blueprint and mesh the whole file stays small."""
    assert run.recording_path is not None
    assert run.recording_path.stat().st_size < 300_000


def test_a_view_that_never_saw_a_frame_writes_a_recording_all_the_same(tmp_path: Path) -> None:
    view = RerunView(tmp_path / "recording.rrd")
    view.started("empty", CAMERA)
    view.refined(trajectory())
    view.finished(write_run(tmp_path / "a"))
    assert rows_by_entity(tmp_path / "recording.rrd")[0]["/world"] == 1


def test_the_viewer_listens_on_this_machine_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    viewer = LiveViewer.start()
    assert viewer is not None
    try:
        main = psutil.Process(viewer.process.pid)
        family = [main, *main.children(recursive=True)]
        heard = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    finally:
        viewer.close()
    assert heard == {"127.0.0.1"}
    assert '"analytics_enabled":false' in (tmp_path / "endorecon/viewer/rerun/analytics.json").read_text()


def test_the_surface_has_the_grade_of_the_frames_that_saw_it(tmp_path: Path) -> None:
    """Frame i is at z = i and sees a plane 10 + i ahead: so frame 0 alone sees a point at z = 10, frame 3 one at 16."""
    made = write_run(tmp_path / "a")
    percent = {0: 1.0, 1: 1.0, 3: 10.0, 4: 1.0}
    placed = [row for row in made.rows if row.status == "tracked"]
    rows = [replace(row, grade="green", figures={"expected_error_percent": percent[row.index]}) for row in placed]
    judged = replace(made, rows=tuple(rows))
    points = np.array([[0, 0, 10], [0, 0, 16], [0, 0, -5]], np.float32)
    spots = Mesh(points, np.zeros((0, 3), np.int32))
    assert _grades.vertex_percent(spots, judged, rows) == pytest.approx([1.0, 10.0, np.nan], nan_ok=True)
    painted = _grades.graded(spots, judged)
    assert painted is not None and painted.colors is not None
    assert painted.colors.tolist() == [list(_grades.COLORS[grade]) for grade in ("green", "red", "")]
    assert _grades.graded(spots, made) is None  # nothing was judged
    # A doubt of the whole path: amber, however small their own error is.
    doubted = [replace(row, grade="amber") for row in rows]
    assert _grades.vertex_percent(spots, judged, doubted) == pytest.approx([4.0, 10.0, np.nan], nan_ok=True)


@pytest.mark.parametrize("front", [1, -1])
def test_a_sheet_is_pictured_from_its_front(front: int) -> None:
    """A sheet of 40 x 30, whichever way it faces, fills the picture: seen from behind it would be left out."""
    y, x = np.mgrid[:30, :40].astype(np.float32)
    corner = (np.arange(29)[:, None] * 40 + np.arange(39)).ravel()
    halves = ((1, 40), (41, 40)), (0, 1)
    faces = np.concatenate(
        [np.stack([corner + c, corner + a, corner + b], 1) for (a, b), c in zip(*halves, strict=True)]
    )
    sheet = Mesh(np.stack([x, y, 0.1 * np.sin(x)], -1).reshape(-1, 3), faces[:, ::front].astype(np.int32))
    picture = draw.mesh_picture(sheet, np.zeros((0, 3)), 0.5)
    assert (picture != picture[0, 0]).any(-1).mean() > 0.3


# -- the report ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, the addresses they refer to, and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_needs_nothing_else(run: Run) -> None:
    assert run.report_path is not None
    text = run.report_path.read_text()
    page = Page(text)
    assert page.tags["img"] == 3 * 3 + 2  # three frames as image, depth and confidence; two views of the mesh
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert page.tags["script"] == page.tags["link"] == page.tags["b"] - 5 == 0


def test_the_report_tells_what_happened(run: Run) -> None:
    assert run.report_path is not None
    text = " ".join(Page(run.report_path.read_text()).text.split())
    for words in (
        "4 of 5", "finished", "clip <b>1</b>.mp4", "1 frame <refused>", "3 of 200 landmarks found & lost",
        "up to scale: nothing of known length is in view", "estimated from the images (spread 3 %)",
        "2.5 frames a second, 2.0 s in all", "Apache-2.0",
    ):  # fmt: skip
        assert words in text, words


def test_the_verdict_is_shown(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a", {}) as writer:
        rows = [FrameRow(0, 0, "tracked", grade="green"), FrameRow(1, 100_000_000, "tracked", grade="red")]
        poses = np.tile(np.eye(4), (2, 1, 1))
        poses[1, 0, 3] = 1.0
        path = type(trajectory())(np.array([0, 100_000_000]), poses)
        writer.finish(rows, path, None, verdict={"grade": "amber", "path_error_percent": 1.234})
    run = read_run(tmp_path / "a")
    write_report(run, {}, run.path / "report.html")
    text = (run.path / "report.html").read_text()
    assert "1.2 %, amber" in text
    # The one step of the path leads to the red pose.
    assert 'class="path red"' in text and 'class="path green"' not in text


def test_an_interrupted_run_has_a_report_too(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a", {}) as writer:
        writer.finish([FrameRow(0, 0, "refused", "black")], type(trajectory())(np.zeros(0), np.zeros((0, 4, 4))), None)
    write_report(read_run(tmp_path / "a"), {}, tmp_path / "a" / "report.html")
    assert "black" in (tmp_path / "a" / "report.html").read_text()


def test_pictures_kept_for_the_report_are_bounded(tmp_path: Path) -> None:
    view = ReportView(tmp_path / "report.html")
    seen = observations()[0]
    assert isinstance(seen, Observation)
    for index in range(1000):
        object.__setattr__(seen.frame, "index", index)
        view.observed(seen)
    assert 16 <= len(view._pictures) <= 32
    assert 0 in view._pictures


def test_depth_colours() -> None:
    """Log steps: 1, 2, 4 are the ends and the middle of OpenCV's turbo map; grey is no depth."""
    painted = draw.painted_depth(np.array([[1.0, 2.0, 4.0, 2.0]]), np.array([[1.0, 1.0, 1.0, 0.0]]), 1.0, 4.0)
    turbo = cv2.applyColorMap(np.array([[0, 127, 255]], np.uint8), cv2.COLORMAP_TURBO)[0, :, ::-1]
    assert painted[0, :3].tolist() == turbo.tolist()
    assert painted[0, 3].tolist() == [70, 70, 70]


@pytest.mark.parametrize(("value", "nice"), [(0.0237, 0.02), (1.0, 1.0), (4.99, 2.0), (70.0, 50.0), (999.0, 500.0)])
def test_scale_bars_have_round_lengths(value: float, nice: float) -> None:
    assert draw.nice_number(value) == pytest.approx(nice)
