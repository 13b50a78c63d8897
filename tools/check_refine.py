"""What the refinement by light does to runs with truth: python tools/check_refine.py RUN=TRUTH ... [--ablation].

Each RUN is a folder that `endorecon reconstruct` made without it; TRUTH is the clip's folder. The surface of the run is
refined as `--refine light` does, and both are measured against the true one: the median distance (% of the median
depth), the median angle between the normals, and the share of the true surface in view that is nearer than 2 % of the
depth.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.case import Case
from endorecon.evaluate.protocol import RunRecord
from endorecon.evaluate.surface import surface_distances
from endorecon.run import Run, read_run
from endorecon.shading.refine import refine_surface
from endorecon.shading.step import Settings
from endorecon.shading.views import View
from rendering.mesh import Mesh
from video_io.clip import Clip
from video_io.datasets import open_truth
from video_io.sources import open_source

VARIANTS = {
    "as it is": Settings(),
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
    args = parser.parse_args()
    variants = VARIANTS if args.ablation else {"as it is": Settings()}
    print(f"{'':44} {'distance %':>10} {'normals deg':>11} {'coverage':>8} {'held out':>8} {'seconds':>7}")
    for pair in args.pairs:
        place, truth = pair.split("=")
        run = read_run(place)
        case = Case(RunRecord(run), open_truth(truth), {}, {})
        before = measured(case, case.mesh)
        print(f"{run.name + ', fused':44} {told(before)}", flush=True)
        views = views_of(run)
        for name, settings in variants.items():
            begun = time.perf_counter()
            found = refine_surface(case.mesh, run.camera, views, settings)
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
