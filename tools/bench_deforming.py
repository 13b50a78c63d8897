"""How good Gaussians of moving tissue are: on a clip, frames that were held out; on phantoms, the motion of points.

    python tools/bench_deforming.py --clip clip.mp4 --focal 569.468 --minutes 15 --pictures out
    python tools/bench_deforming.py --phantoms

The clip is reconstructed as `endorecon reconstruct CLIP --poses fixed --scene splats-deforming` does; every 8th frame
is held out. PSNR over the pixels that show tissue, and over all, where the picture shows a tool and the scene what is
behind it.

The phantoms are filmed by a still camera and by one that moves. The scene is given their poses and, as most of the
field has it from stereo, their depth; `--network` gives it the network's depth, brought to millimetres by one factor.
Points of the surface that the middle frame shows are followed to every frame that shows them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from endorecon.job import reconstruct_video
from endorecon.run import read_run
from endorecon.scenes._motion import FILE, MovingSplats, read_motion
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import read_splats
from endorecon.scenes._splat_training import Options
from endorecon.scenes.base import Setting
from endorecon.scenes.splats_deforming import DeformingScene
from endorecon.tracking.observation import Observation
from rendering.phantom.clip import prepare, simulate
from rendering.splat import set_threads
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.frame import Frame
from video_io.instruments import tool_masks
from video_io.sources import open_source

KINDS = [(motion, still) for motion in ("pull", "breathe") for still in (True, False)]


def clip(path: Path, focal: float, minutes: float, pictures: Path | None) -> None:
    """Train on a clip of a still camera and print how good the frames are that were held out."""
    source = open_source(path)
    frame = next(iter(source.frames()))
    w, h = frame.width, frame.height
    with tempfile.TemporaryDirectory() as scratch:
        calibration = Path(scratch) / "intrinsics.json"
        calibration.write_text(json.dumps(Camera.pinhole(w, h, focal, focal, w / 2, h / 2).to_dict()))
        made = reconstruct_video(
            path, Path(scratch) / "run", camera=calibration, poses="fixed", scene="splats-deforming",
            splat_minutes=minutes,
        )  # fmt: skip
        run = read_run(made)
        figures = run.info.get("splats")
        for warning in run.info["warnings"]:
            print(f"note: {warning}")
        if figures is None:
            return
        print("| seconds | steps | Gaussians | PSNR, tissue | SSIM |\n" + "|---" * 5 + "|")
        for seconds, steps, gaussians, psnr, ssim in figures["history"]:
            print(f"| {seconds:.0f} | {steps} | {gaussians} | {psnr:.2f} | {ssim:.4f} |")
        print(
            f"\n{len(figures['held_out'])} frames held out: PSNR {figures['psnr']:.2f} over what is not tool, "
            f"{figures['psnr_all']:.2f} over all; SSIM {figures['ssim']:.4f}. Tools: {figures['tools']}"
        )
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            still = read_splats(made / "scene" / "splats.ply")
            sheets(path, read_motion(still, made / "scene" / FILE), run.camera, figures, pictures)


def sheets(path: Path, splats: MovingSplats, camera: Camera, figures: dict, pictures: Path) -> None:
    """For each frame held out: the picture, what is rendered, and the tools that were found, in red."""
    source = open_source(path)
    frames = list(replace(Clip.of(source), camera=camera).frames())
    tools = tool_masks([f.rgb for f in frames], [f.use_mask for f in frames])
    light = Light(figures["light"]["usual_depth"], np.array(figures["light"]["law"]))
    for frame, tool in zip(frames, tools, strict=True):
        if frame.index not in figures["held_out"]:
            continue
        layers = splats.at(frame.time_ns).render(camera, np.eye(4))
        lit = layers.color.numpy() * light.factor(layers.depth.numpy())[..., None]
        marked = np.where(tool[..., None], frame.rgb // 2 + np.uint8([127, 0, 0]), frame.rgb)
        row = np.concatenate([frame.rgb, np.uint8(255 * np.clip(lit, 0, 1)), marked], 1)
        cv2.imwrite(str(pictures / f"{frame.index:04d}.png"), row[..., ::-1])


def given(motion: str, still: bool, seed: int, frames: int, options: Options) -> tuple[np.ndarray, np.ndarray, dict]:
    """Errors and lengths of the motion of points (mm), with the phantom's depth and poses; and the scene's figures."""
    made = prepare("tissue", seed, frames, motion=motion, still=still)  # type: ignore[arg-type]
    scene, times = None, [round(i * 1e9 / made.fps) for i in range(frames)]
    for i, seen in enumerate(made.frames()):
        known = (seen.depth > 0).astype(np.float32)
        scene = scene or DeformingScene(float(np.median(seen.depth[known > 0])), Setting(), options)
        frame = Frame.of(seen.rgb, i, times[i], made.camera)
        spread = np.full_like(seen.depth, 0.02)
        scene.integrate(Observation(frame, seen.depth, known, spread, seen.world_from_cam, 0, i == 0))
    assert scene is not None
    scene.mesh()
    if scene.splats is None:
        raise SystemExit(f"nothing was trained: {scene.warnings}")
    return *compared(scene.splats, *made.tracks(500), times, 1.0, made.poses[:, :3, 3]), scene.figures


def network(motion: str, still: bool, seed: int, frames: int, minutes: float) -> tuple[np.ndarray, np.ndarray, dict]:
    """The same, reconstructed from the video with its camera and poses; still cameras have no unit of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "clip"
        folder = simulate("tissue", seed, frames, None, 30.0, out, extras=False, motion=motion, still=still)  # type: ignore[arg-type]
        poses = {"poses": "fixed"} if still else {"poses": str(folder / "poses.txt"), "poses_unit": "mm"}
        made = reconstruct_video(
            folder / "video.mp4", Path(scratch) / "run", camera=folder / "intrinsics.json", scene="splats-deforming",
            splat_minutes=minutes, **poses,
        )  # fmt: skip
        run, tracks = read_run(made), np.load(folder / "tracks.npz")
        splats = read_motion(read_splats(made / "scene" / "splats.ply"), made / "scene" / FILE)
        points, visible = tracks["points"].astype(float), tracks["visible"]
        scale, centres = 1.0, np.loadtxt(folder / "poses.txt")[:, 1:4]
        if still:
            pose = np.loadtxt(folder / "poses.txt")[0]
            from scipy.spatial.transform import Rotation

            points, centres = (points - pose[1:4]) @ Rotation.from_quat(pose[4:]).as_matrix(), 0 * centres
            depth, known = run.depth(frames // 2)
            pixels, seen = run.camera.project(points[frames // 2])
            column, row = pixels[seen].astype(int).T
            there = known[row, column] > 0
            scale = float(np.median(points[frames // 2][seen][there, 2] / depth[row, column][there]))
        times = [round(i * 1e9 / 30.0) for i in range(frames)]
        return *compared(splats, points, visible, times, scale, centres), run.info["splats"]


def compared(
    splats: MovingSplats, points: np.ndarray, visible: np.ndarray, times: list[int], scale: float, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the followed points where they are seen, mm: (N, 2) along the camera's ray, where the depth is to
    blame, and across it; and how far these points have moved since the middle frame."""
    middle = len(times) // 2
    found = scale * splats.follow(points[middle] / scale, times[middle], times)
    moved = np.linalg.norm(points - points[middle], axis=-1)
    ray, off = points - centres[:, None], found - points
    along = (off * ray).sum(-1) / np.linalg.norm(ray, axis=-1)
    across = np.sqrt(np.maximum((off**2).sum(-1) - along**2, 0))
    return np.stack([np.abs(along), across], -1)[visible], moved[visible]


def phantoms(seed: int, frames: int, minutes: float, iterations: int | None, with_network: bool) -> None:
    print("| motion | camera | depth | moved, mm: mean, most | error: mean | median | 95 % | within 1 mm | along the "
          "ray, across it | PSNR |\n" + "|---" * 10 + "|")  # fmt: skip
    for motion, still in KINDS:
        if with_network:
            parts, moved, figures = network(motion, still, seed, frames, minutes)
        else:
            options = Options(seconds=60 * minutes, iterations=iterations)
            parts, moved, figures = given(motion, still, seed, frames, options)
        errors = np.linalg.norm(parts, axis=1)
        print(
            f"| {motion} | {'still' if still else 'moves'} | {'network' if with_network else 'given'} | "
            f"{moved.mean():.2f}, {moved.max():.1f} | {errors.mean():.3f} | {np.median(errors):.3f} | "
            f"{np.percentile(errors, 95):.3f} | {100 * (errors < 1).mean():.1f} % | "
            f"{parts[:, 0].mean():.3f}, {parts[:, 1].mean():.3f} | {figures['psnr']:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="a clip of a still camera before tissue that moves")
    parser.add_argument("--focal", type=float, default=569.468, help="its focal length, pixels of the whole picture")
    parser.add_argument("--phantoms", action="store_true")
    parser.add_argument("--network", action="store_true", help="phantoms with the network's depth")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--iterations", type=int, help="of phantoms with given depth: most steps")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cpu-time", action="store_true", help="minutes of CPU time, for a busy machine")
    parser.add_argument("--pictures", type=Path, help="a folder for the rendered frames that were held out")
    options = parser.parse_args()
    set_threads(options.threads)
    if options.cpu_time:
        time.perf_counter = time.process_time
    if options.clip:
        clip(options.clip, options.focal, options.minutes, options.pictures)
    if options.phantoms:
        phantoms(options.seed, options.frames, options.minutes, options.iterations, options.network)


if __name__ == "__main__":
    main()
