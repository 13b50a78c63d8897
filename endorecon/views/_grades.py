"""The grades of the poses, carried over to the surface that was seen from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from endorecon.run import FrameRow, Run
from endorecon.tracking.verdict import FRAME_PERCENT, frame_grade
from rendering.mesh import Mesh

COLORS = {"green": (102, 187, 106), "amber": (255, 193, 7), "red": (239, 83, 80), "": (130, 130, 130)}
MOST_FRAMES = 12
NEAR = 0.1  # a vertex is seen where its depth differs from the frame's by this share at most
# What a pose of a grade counts at least, per cent of the depth.
LEAST_PERCENT = {"green": 0.0, "amber": sum(FRAME_PERCENT) / 2, "red": 2 * FRAME_PERCENT[1]}
_OWN = 0.4  # how much of its own brightness a graded surface keeps


def graded(mesh: Mesh, run: Run) -> Mesh | None:
    """The mesh in the colours of its grades; None for a run whose poses were not judged."""
    rows = [row for row in run.rows if row.grade and row.segment == run.info.get("main_segment", 0)]
    if not rows or run.camera is None or not len(mesh.vertices):
        return None
    percent = vertex_percent(mesh, run, rows)
    values, which = np.unique(np.round(percent, 3), return_inverse=True)
    grades = [frame_grade(value) if np.isfinite(value) else "" for value in values]
    painted = np.array([COLORS[grade] for grade in grades], float)[which]
    if mesh.colors is not None:
        shade = mesh.colors.mean(axis=1, keepdims=True) / max(float(mesh.colors.mean()), 1.0)
        painted *= 1 - _OWN + _OWN * np.clip(shade, 0, 1.5)
    return replace(mesh, colors=np.clip(painted, 0, 255).astype(np.uint8))


def vertex_percent(mesh: Mesh, run: Run, rows: list[FrameRow]) -> NDArray[np.float64]:
    """(V,) expected error of the poses from which each vertex was seen, per cent of their depth, weighted by the
    confidence of what they saw; NaN where none of the frames looked at, spread over the run, saw it."""
    assert run.camera is not None
    pose_at = dict(zip(run.trajectory.times_ns.tolist(), run.trajectory.world_from_cam, strict=True))
    having = [row for row in rows if row.time_ns in pose_at and row.index in set(run.depth_indices)]
    spread = np.unique(np.linspace(0, len(having) - 1, min(MOST_FRAMES, len(having))).round().astype(int))
    total, weight = np.zeros(len(mesh.vertices)), np.zeros(len(mesh.vertices))
    for row in (having[n] for n in spread):
        pose, (depth, confidence) = pose_at[row.time_ns], run.depth(row.index)
        local = (mesh.vertices - pose[:3, 3]) @ pose[:3, :3]
        pixels, valid = run.camera.project(local)
        inside = valid & (pixels >= 0).all(1) & (pixels < [run.camera.width, run.camera.height]).all(1)
        x, y = np.where(inside[:, None], pixels, 0).astype(int).T
        seen = inside & (np.abs(local[:, 2] - depth[y, x]) < NEAR * depth[y, x])
        trust = np.where(seen, confidence[y, x], 0)
        expected = row.figures.get("expected_error_percent", np.inf)
        # For another reason than its own error, such as a doubt of the whole path, or fluid on the lens.
        expected = max(expected, LEAST_PERCENT[row.grade])
        # An error that can't be told is large; it must not drown all others.
        total += trust * min(expected if np.isfinite(expected) else 100.0, 100.0)
        weight += trust
    return np.where(weight > 0, total / np.maximum(weight, 1e-12), np.nan)
