"""What the refinement by light does to runs with truth: python tools/check_refine.py RUN=TRUTH ... [--ablation].

Each RUN is a folder that `endorecon reconstruct` made without it; TRUTH is the clip's folder. The surface of the run is
refined as `--refine light` does, and both are measured against the true one: the median distance (% of the median
depth), the median angle between the normals, and the share of the true surface in view that is nearer than 2 % of the
depth.

--scales tells where a run's error lies instead: the median distance once the similarity of the surfaces, and then ever
finer smooth warps, are taken out of it; and the normals' error once the run's surface is smoothed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.case import Case
from endorecon.evaluate.protocol import RunRecord
from endorecon.evaluate.surface import surface_distances
from endorecon.run import Run, read_run
from endorecon.scenes.tsdf import TsdfScene
from endorecon.shading.refine import refine_surface
from endorecon.shading.step import Settings
from endorecon.shading.views import View
from endorecon.surface import Surface, fused_again
from endorecon.tracking.densify import GRID, Correction, NetworkDepth
from endorecon.tracking.observation import Observation
from rendering.mesh import Mesh, nearest_on
from video_io.clip import Clip
from video_io.datasets import open_truth
from video_io.sources import open_source

Float = NDArray[np.float64]
SAVED_STD = 0.02  # of a saved depth, by which a surface may differ from it
REACHES = (0.6, 0.35, 0.2, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01)  # shares of the depth
SAMPLES, ASKED, MOST_NEIGHBOURS = 30_000, 3000, 200
VARIANTS = {
    "as it is": Settings(),
    "not fused again": Settings(),
    "fused again alone": Settings(extents=()),
    "without the lamp": Settings(lamp=False),
    "without shading": Settings(shading=False),
    "without texture": Settings(texture=False),
    "without smoothing": Settings(tilt_std_rad=float("inf")),
    "smoothing alone": Settings(correlated=1e12),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="RUN=TRUTH")
    parser.add_argument("--ablation", action="store_true", help="also without each part")
    parser.add_argument("--scales", action="store_true", help="where the error of the runs lies")
    args = parser.parse_args()
    variants = VARIANTS if args.ablation else {"as it is": Settings()}
    if not args.scales:
        print(f"{'':44} {'distance %':>10} {'normals deg':>11} {'coverage':>8} {'held out':>8} {'seconds':>7}")
    for pair in args.pairs:
        place, truth = pair.split("=")
        run = read_run(place)
        case = Case(RunRecord(run), open_truth(truth), {}, {})
        if args.scales:
            print(f"{run.name}\n{told_by_scale(case)}", flush=True)
            continue
        before = measured(case, case.mesh)
        print(f"{run.name + ', fused':44} {told(before)}", flush=True)
        views = views_of(run)
        again = again_of(run, case.mesh, views)
        for name, settings in variants.items():
            begun = time.perf_counter()
            found = refine_surface(case.mesh, run.camera, views, settings, None if name == "not fused again" else again)
            seconds = time.perf_counter() - begun
            after = measured(case, found.mesh)
            change = " ".join(f"{100 * (a / b - 1):+.1f} %" for a, b in zip(after[:2], before[:2], strict=True))
            held = 1 - found.gain
            print(f"{run.name + ', ' + name:44} {told(after)} {held:8.3f} {seconds:7.1f}  {change}", flush=True)
    return 0


def views_of(run: Run) -> list[View]:
    """The tracked frames of a run's main segment."""
    config = run.info["config"]
    source = open_source(config["input"], config["every"], config["max_frames"], config["fps"])
    clip = Clip.of(source, run.source_camera)
    pose = dict(zip(run.trajectory.times_ns.tolist(), run.trajectory.world_from_cam, strict=True))
    return [View(f, pose[f.time_ns]) for f in clip.frames() if f.time_ns in pose]


def again_of(run: Run, mesh: Mesh, views: list[View]) -> Mesh:
    """The run's surface once its frames have been fused again, as `--refine light` does; the depths that the run saved
    stand for the network's, from which they differ by a smooth factor."""

    def frames(surface: Surface) -> Iterator[Observation]:
        for view in views:
            depth, confidence = run.depth(view.frame.index)
            spread = 0.1 * np.sqrt(np.maximum(1 / np.maximum(confidence, 1e-6) - 1, 1e-6))
            net = NetworkDepth.of(depth, np.where(confidence > 0, spread, np.inf).astype(np.float32), run.camera)
            start = Correction(np.zeros(GRID, np.float32), np.full(GRID, SAVED_STD, np.float32))
            correction = surface.correct(net, start, view.world_from_cam)
            yield net.observe(view.frame, run.camera, view.world_from_cam, correction, 0, False, {})

    return fused_again(mesh, run.camera, frames, TsdfScene.for_depth)


def told_by_scale(case: Case) -> str:
    """A table of what is left of the errors at each scale."""
    points, faces = case.aligned_mesh.sample(SAMPLES)
    order = np.random.default_rng(0).permutation(SAMPLES)  # the first ones lie everywhere
    points, normals = points[order], case.aligned_mesh.face_normals[faces[order]]
    depth, truth = case.seen.median_depth, case.true_mesh
    near = nearest_on(truth, points)
    true = truth.face_normals[near.face]
    true = true * np.where((true * normals).sum(1) < 0, -1, 1)[:, None]
    off = ((near.point - points) * true).sum(1)
    tame = near.distance < np.percentile(near.distance, 95)
    some = np.flatnonzero(tame)[:ASKED]
    lines = [f"  as it is: distance {100 * np.median(near.distance) / depth:.3f} %, normals {angle(normals, true):.2f}"]
    for reach in REACHES:
        field = smoothed(points[tame], off[tame, None], points[some], reach * depth)[:, 0]
        left = 100 * np.median(np.abs(off[some] - field)) / depth
        mean = smoothed(points, normals, points[:ASKED], reach * depth)
        true_mean = smoothed(near.point, true, near.point[:ASKED], reach * depth)
        lines.append(
            f"  {reach:4.2f} of the depth: distance without what is smoother {left:.3f} %; normals smoothed "
            f"{angle(mean, true[:ASKED]):.2f}, both smoothed {angle(mean, true_mean):.2f}"
        )
    return "\n".join(lines)


def smoothed(points: Float, values: Float, at: Float, std: float) -> Float:
    """Gaussian means of values (N, C) at points (N, 3) around other points (M, 3)."""
    step = 1
    while True:
        tree = cKDTree(points[::step])
        lists = tree.query_ball_point(at, 2.5 * std)
        if step > 1 or (few := int(np.mean([len(own) for own in lists]) // MOST_NEIGHBOURS)) < 2:
            break
        step = few
    found = np.zeros((len(at), values.shape[1]))
    for k, own in enumerate(lists):
        weight = np.exp(-((points[::step][own] - at[k]) ** 2).sum(1) / (2 * std**2))
        found[k] = weight @ values[::step][own] / max(weight.sum(), 1e-30)
    return found


def angle(a: Float, b: Float) -> float:
    """Median angle in degrees between vectors (N, 3)."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.degrees(np.median(np.arccos(np.clip((a * b).sum(1) / np.maximum(lengths, 1e-30), -1, 1)))))


def measured(case: Case, mesh: Mesh) -> tuple[float, float, float]:
    """Median distance in % of the median depth, median angle of the normals in degrees, and coverage."""
    placed = mesh.transformed(case.fit.matrix, case.fit.scale)
    d = surface_distances(placed, case.true_mesh, case.seen.points, seen_faces=case.seen.faces)
    depth = case.seen.median_depth
    turn = np.degrees(np.median(np.arccos(np.clip(d.accuracy_cosine, 0, 1))))
    return 100 * float(np.median(d.accuracy)) / depth, float(turn), float((d.completeness < 0.02 * depth).mean())


def told(figures: tuple[float, float, float]) -> str:
    return f"{figures[0]:10.3f} {figures[1]:11.2f} {figures[2]:8.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
