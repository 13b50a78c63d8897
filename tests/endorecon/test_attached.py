"""What rests in the picture while the camera moves is told apart from tissue, and no landmark is kept there."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from endorecon.tracking.attached import COLUMNS, ROWS, Attached
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.tracker import Tracker
from rendering.phantom.clip import prepare
from video_io.camera import Camera
from video_io.frame import Frame

CAMERA = Camera.from_fov(192, 160, np.radians(80))


def test_votes() -> None:
    """Landmarks in the left half stay where tissue would move 20 px, those in the right half move; what should not have
    moved says nothing."""
    votes, rng = Attached(), np.random.default_rng(0)
    begun = rng.uniform([0, 0], [320, 256], (400, 2))
    expected = begun + [20, 0]
    now = np.where(begun[:, :1] < 150, begun, expected)
    for _ in range(6):
        votes.see(begun, begun, begun + 2.0, 320, 256)
        votes.see(begun, begun, np.full_like(begun, np.nan), 320, 256)
    assert votes.mask(320, 256) is None
    for _ in range(8):
        votes.see(begun, now, expected, 320, 256)
    parts = votes.parts
    assert parts.shape == (ROWS, COLUMNS) and parts[:, : COLUMNS // 3].mean() > 0.4  # where there are landmarks
    assert not parts[:, COLUMNS // 2 + 1 :].any()
    mask = votes.mask(320, 256)
    assert mask is not None and mask[:, :130].mean() > 0.9 and not mask[:, 190:].any()
    for _ in range(80):  # the tool has gone, and nobody votes there: 12 votes fade to 1.9
        votes.see(begun[:0], begun[:0], begun[:0], 320, 256)
    assert votes.mask(320, 256) is None


@pytest.mark.parametrize("tool", [True, False])
def test_a_tool_that_moves_with_the_camera_carries_no_landmark(tool: bool) -> None:
    """A rod with a pattern, painted at the same place into every picture of a phantom; the true depth is the
    network's."""
    clip, rng = prepare("tissue", 5, 20, CAMERA, 8.0), np.random.default_rng(1)
    rod = np.zeros((160, 192), np.uint8)
    cv2.line(rod, (-10, 150), (90, 70), 1, 40)
    pattern = cv2.resize(rng.integers(40, 220, (40, 48), dtype=np.uint8), (192, 160), interpolation=cv2.INTER_CUBIC)
    tracker, z = Tracker(CAMERA), CAMERA.ray_map()[..., 2]
    for index, seen in enumerate(clip.frames()):
        rgb = np.where(rod[..., None] > 0, pattern[..., None], seen.rgb) if tool else seen.rgb
        depth = np.where(rod > 0, 0.5 * seen.depth, seen.depth) if tool else seen.depth
        net = NetworkDepth.of(depth, np.full(depth.shape, 0.1, np.float32), CAMERA)
        frame = replace(Frame.of(rgb, index, index * 125_000_000, CAMERA))
        tracker.place(frame, net)
    assert len(tracker.segments) == 1 and z.min() > 0
    mask = tracker._attached.mask(192, 160)
    if not tool:
        assert mask is None
        return
    assert mask is not None and (mask & (rod > 0)).sum() > 0.4 * rod.sum()
    assert (mask & (cv2.dilate(rod, np.ones((25, 25))) == 0)).mean() < 0.02
    pixels = tracker.segments[0].sights[-1].pixels.astype(int)
    assert rod[pixels[:, 1], pixels[:, 0]].mean() < 0.05
