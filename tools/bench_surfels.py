"""Whether surfels (2DGS) find a better surface than Gaussians in the same time, on phantom clips with their truth.

    endorecon simulate colon --seed 901 -o clip
    python tools/bench_surfels.py clip --seconds 60 --cpu-time

Both are given the true poses, and as measured depth the true one spoiled as a network's is: a smooth error, new in each
frame, of `--spoil` in the mean. Against the true mesh: distance of the mesh that the scene makes, and angle between
normals; on frames that were held out: PSNR, depth (expected and median) and the rendered normals.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.surface import seen_surface, surface_distances
from endorecon.scenes._splat_training import Options
from endorecon.scenes.base import Setting
from endorecon.scenes.splats import SplatScene
from endorecon.tracking.observation import Observation
from rendering.mesh import Caster, Mesh, read_mesh
from rendering.splat import set_threads
from video_io.datasets import open_truth
from video_io.datasets.base import Truth
from video_io.frame import Frame
from video_io.sources import open_source


def observed(folder: Path, scale: float, spoil: float) -> tuple[list[Observation], list[np.ndarray], list[np.ndarray]]:
    """A clip's frames with spoiled depth; true depth and normals (camera frame) of each."""
    truth, rng, found, depths, normals = open_truth(folder), np.random.default_rng(0), [], [], []
    caster = Caster(read_mesh(folder / "mesh.ply"))
    for frame in open_source(folder / "video.mp4").frames():
        camera = truth.camera.scaled(round(scale * truth.camera.width), round(scale * truth.camera.height))
        size = camera.width, camera.height
        depth = cv2.resize(truth.depth(frame.index).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        rgb = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA)
        # about eight bumps across the picture
        bumps = cv2.resize(rng.standard_normal((8, 10)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        wrong = depth * np.exp(spoil * bumps / np.abs(bumps).mean())
        known, pose = (depth > 0).astype(np.float32), truth.trajectory.world_from_cam[frame.index]
        seen = replace(Frame.of(rgb, frame.index, frame.time_ns, camera), use_mask=depth > 0)
        spread = np.full(depth.shape, spoil + 1e-3, np.float32)
        found.append(Observation(seen, wrong.astype(np.float32), known, spread, pose, 0, frame.index == 0))
        depths.append(depth)
        normals.append(caster.cast(camera, pose).normals)
    return found, depths, normals


def angle(cosines: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())


def row(name: str, mesh: Mesh, truth: Truth, true_mesh: Mesh, more: str = "| " * 7) -> str:
    seen = seen_surface(true_mesh, truth.camera, truth.trajectory, 30_000)
    d = surface_distances(mesh, true_mesh, seen.points, 30_000, seen.faces)
    return (
        f"| {name} | {d.accuracy.mean():.3f} | {np.percentile(d.accuracy, 90):.3f} | {d.completeness.mean():.3f} | "
        f"{angle(d.accuracy_cosine):.2f} {more}|"
    )


def trained(
    seen: list[Observation], depths: list[np.ndarray], normals: list[np.ndarray], options: Options
) -> tuple[SplatScene, Mesh, str]:
    scene = SplatScene(float(np.median(depths[0][depths[0] > 0])), Setting(), options)
    for observation in seen:
        scene.integrate(observation)
    mesh = scene.mesh()
    assert scene.splats is not None, scene.warnings
    errors = []
    for i in scene.figures["held_out"]:
        layers, known = scene.splats.render(seen[i].frame.camera, seen[i].world_from_cam), depths[i] > 0  # type: ignore[arg-type]
        n = layers.normals.numpy()  # type: ignore[union-attr]
        n = n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-9)
        cosine = (n * normals[i]).sum(-1)
        off = [np.abs(d.numpy()[known] / depths[i][known] - 1).mean() for d in (layers.depth, layers.median)]  # type: ignore[union-attr]
        errors.append([*off, angle(cosine[known])])
    f, (expected, median, turn) = scene.figures, np.mean(errors, 0)
    more = f"| {f['psnr']:.2f} | {expected:.4f} | {median:.4f} | {turn:.2f} | {f['steps']} | {f['gaussians']} "
    return scene, mesh, more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--scale", type=float, default=1.0, help="of the pictures")
    parser.add_argument("--spoil", type=float, default=0.03, help="mean error of the depth, as a share of it")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cpu-time", action="store_true", help="seconds of CPU time, for a busy machine")
    options = parser.parse_args()
    set_threads(options.threads)
    if options.cpu_time:
        time.perf_counter = time.process_time
    print("| clip, scene | mesh to truth, mm | 90 % | truth to mesh | normals, degrees | PSNR | depth AbsRel | of the "
          "median | rendered normals | steps | Gaussians |\n" + "|---" * 11 + "|")  # fmt: skip
    for folder in options.clips:
        truth, (seen, depths, normals) = open_truth(folder), observed(folder, options.scale, options.spoil)
        true_mesh = read_mesh(folder / "mesh.ply")
        for surfels in (False, True):
            how = Options(options.seconds, options.iterations, surfels=surfels)
            _, mesh, more = trained(seen, depths, normals, how)
            name = f"{folder.name}, {'surfels' if surfels else 'Gaussians'}"
            print(row(name, mesh, truth, true_mesh, more), flush=True)


if __name__ == "__main__":
    main()
