"""A small made-up run: five frames, one of them refused, on a camera that moves 1 unit a frame along z."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endorecon.run import FrameRow, Run, RunWriter, read_run
from endorecon.tracking.observation import Observation, Refused
from rendering.mesh import Mesh
from video_io.camera import Camera
from video_io.frame import Frame
from video_io.trajectory import Trajectory
from video_io.view import View

CAMERA = Camera.from_fov(64, 48, 1.2)
SOURCE_CAMERA = CAMERA.scaled(128, 96)
VIEW = View(128, 96, (0, 0, 128, 96), 64, 48)
REFUSED = 2
CONFIG = {"input": Path("clip <b>1</b>.mp4"), "model": "tiny", "every": np.int64(1)}


def observations() -> list[Observation | Refused]:
    """Frames 0 to 4 at 10 frames a second; frame 2 has no place."""
    placed: list[Observation | Refused] = []
    rng = np.random.default_rng(0)
    for index in range(5):
        if index == REFUSED:
            placed.append(Refused(index, index * 100_000_000, "3 of 200 landmarks found & lost", 0, {"landmarks": 3.0}))
            continue
        rgb = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        pose = np.eye(4)
        pose[2, 3] = index
        depth = np.full((48, 64), 10.0 + index, np.float32)
        confidence = np.full((48, 64), 0.5, np.float32)
        confidence[:, :8] = 0
        figures = {"landmarks": 200.0 + index, "residual_px": 0.25}
        frame = Frame.of(rgb, index, index * 100_000_000, CAMERA)
        std = np.full((48, 64), 0.05, np.float32)
        placed.append(Observation(frame, depth, confidence, std, pose, 0, index in (0, 4), figures))
    return placed


def trajectory() -> Trajectory:
    seen = [o for o in observations() if isinstance(o, Observation)]
    return Trajectory(np.array([o.frame.time_ns for o in seen]), np.stack([o.world_from_cam for o in seen]))


def mesh() -> Mesh:
    """A square of two triangles, 20 units ahead, that faces the camera."""
    corners = [[-5, -5, 20], [5, -5, 20], [5, 5, 20], [-5, 5, 20]]
    colors = np.array([[200, 80, 70]] * 4, np.uint8)
    return Mesh(np.array(corners, np.float32), np.array([[0, 2, 1], [0, 3, 2]], np.int32), colors)


def write_run(out: Path) -> Run:
    """Write the run without its views."""
    with RunWriter(out, CONFIG) as writer:
        writer.camera(CAMERA, SOURCE_CAMERA, VIEW, estimated=True, note="spread 3 %")
        for placed in observations():
            if isinstance(placed, Observation):
                writer.depth(placed.frame.index, placed.depth, placed.confidence)
        writer.finish(
            [FrameRow.of(placed) for placed in observations()],
            trajectory(),
            mesh(),
            scale="up to scale: nothing of known length is in view",
            model="tiny",
            licence="Apache-2.0",
            warnings=["1 frame <refused>"],
            timings={"estimate": 0.5, "total": 2.0},
            notes=("the dark border is cut off",),
        )
    return read_run(out)
