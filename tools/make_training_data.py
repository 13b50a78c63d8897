"""Render scenes for the training of the default network: one folder, three files a scene.

    scene_00000.rgb.npy       uint8 (N, H, W, 3)
    scene_00000.distance.npy  float16 (N, H, W), mm along the unit ray, 0 = no surface
    scene_00000.json          camera, world_from_cam, anatomy, seed, pairs (frames of one look, a small movement apart)

The json is written last, and every file appears by renaming, so that a training can read the folder while it fills.
A scene depends only on --seed and its number, whatever the number of processes.

    python tools/make_training_data.py --scenes 1200 --frames-per-scene 12 --out /tmp/train
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 320, 256
ANATOMIES = {"colon": 0.29, "passage": 0.21, "abdomen": 0.22, "tissue": 0.16, "plaster": 0.12}


def save(path: Path, array: np.ndarray) -> None:
    """Write an array so that it appears whole."""
    partial_path = path.with_name(path.name + ".part")
    with partial_path.open("wb") as file:
        np.save(file, array)
    partial_path.rename(path)


def viewpoints(rng: np.random.Generator, renderer, camera, frames: int) -> list[np.ndarray]:
    """Pairs of poses, a small movement apart, that see the anatomy from the air and not from too near."""
    from rendering.phantom.paths import nudged

    small = camera.scaled(camera.width // 8, camera.height // 8)
    anatomy = renderer.anatomy

    rays = small.ray_map().reshape(-1, 3)

    def approached(pose: np.ndarray) -> np.ndarray:
        """Moved most of the way towards something in view, the gaze unchanged: near folds, walls beside the lens."""
        distance = renderer.distances(small, pose)[0].ravel()
        pixel = rng.integers(len(rays))
        nearer = pose.copy()
        nearer[:3, 3] += pose[:3, :3] @ rays[pixel] * distance[pixel] * rng.uniform(0.2, 0.85)
        return nearer

    def median_distance(pose: np.ndarray) -> float:
        distance, inside_out = renderer.distances(small, pose)
        bad = inside_out > 0.004 or np.percentile(distance, 0.5) < anatomy.nearest_mm or np.mean(distance == 0) > 0.002
        return 0.0 if bad else float(np.median(distance))

    poses: list[np.ndarray] = []
    for _ in range(600):
        if len(poses) >= frames:
            break
        pose = anatomy.path.viewpoint(rng)
        if rng.random() < 0.4:
            pose = approached(pose)
        near = median_distance(pose)
        if near == 0.0:
            continue
        step = near * np.exp(rng.uniform(np.log(0.005), np.log(0.1)))
        second = nudged(rng, pose, step, np.exp(rng.uniform(np.log(0.005), np.log(0.12))))
        if median_distance(second) > 0.0:
            poses += [pose, second]
    return poses[:frames]


def make_scene(number: int, out: Path, seed: int, frames: int) -> int:
    """Render one scene; returns the number of frames."""
    from rendering.phantom import anatomy as anatomies
    from rendering.phantom.render import Renderer
    from rendering.phantom.vary import field_mask, random_camera, random_look, random_response

    stem = out / f"scene_{number:05d}"
    if stem.with_suffix(".json").exists():
        return 0
    rng = np.random.default_rng((seed, number))
    name = str(rng.choice(list(ANATOMIES), p=list(ANATOMIES.values())))
    camera = random_camera(rng, WIDTH, HEIGHT)
    renderer = Renderer(anatomies.build(name, rng))
    poses = viewpoints(rng, renderer, camera, frames)
    if len(poses) < 2:
        return 0
    kind = str(rng.choice(["none", "circle", "octagon", "rounded"], p=[0.76, 0.1, 0.07, 0.07]))
    mask = field_mask(kind, camera, rng)
    border = rng.uniform(0, 12)
    rgb, distance, pairs = [], [], []
    for i, pose in enumerate(poses):
        if i % 2 == 0:
            look, response, exposure = random_look(rng, renderer.anatomy), random_response(rng), None
            pairs += [[i, i + 1]] if i + 1 < len(poses) else []
        view = renderer.render(camera, pose, look)
        exposure = response.exposure(view.linear_rgb, exposure)
        image = response.develop(view.linear_rgb, exposure, rng)
        image[~mask] = np.clip(border * np.abs(rng.standard_normal((int((~mask).sum()), 3))), 0, 255).astype(np.uint8)
        rgb.append(image)
        distance.append(view.distance.astype(np.float16))
    save(stem.with_suffix(".rgb.npy"), np.stack(rgb))
    save(stem.with_suffix(".distance.npy"), np.stack(distance))
    about = {
        "camera": camera.to_dict(),
        "world_from_cam": [pose.ravel().tolist() for pose in poses],
        "anatomy": name,
        "seed": [seed, number],
        "pairs": pairs,
    }
    partial_path = stem.with_suffix(".json.part")
    partial_path.write_text(json.dumps(about))
    partial_path.rename(stem.with_suffix(".json"))
    return len(poses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1200)
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument("--frames-per-scene", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    work = partial(make_scene, out=options.out, seed=options.seed, frames=options.frames_per_scene)
    start, frames = time.perf_counter(), 0
    numbers = range(options.first, options.first + options.scenes)
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=200) as pool:
        for done, count in enumerate(pool.imap_unordered(work, numbers), 1):
            frames += count
            if done % 10 == 0 or done == options.scenes:
                rate = frames / (time.perf_counter() - start)
                print(f"{done}/{options.scenes} scenes, {frames} frames, {rate:.1f} frames/s", flush=True)


if __name__ == "__main__":
    main()
