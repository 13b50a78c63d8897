"""Which scales are found: python tools/check_scales.py OUT [--scenes colon:11 tissue:12 ...] [--frames 60].

Phantom clips are filmed by two eyes side by side and reconstructed from the left one; the true length of a unit is that
of the similarity between the run's path and the true one, and beside it that of the depth (median over the clip). Then
every source that a phantom has is asked: the base line of the two eyes, the true mesh as a CT (by five landmarks, and
without), a tracker, the lamps, with the error of each and the 90 % interval that it states. With --lamp X the clip is
lit by one lamp X mm beside the lens instead of two around it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.trajectory import matched
from endorecon.job import reconstruct_video
from endorecon.run import Run, read_run
from endorecon.scales import ct, light, poses, stereo
from endorecon.scales.base import NotObservableError, ScaleEstimate
from rendering.light import SpotLight
from rendering.phantom.clip import Clip, Video, prepare
from rendering.phantom.stereo import both_eyes
from video_io.camera import Camera
from video_io.camera_files import write_camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory, align

FPS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", nargs="*", default=["colon:11", "tissue:12", "abdomen:13", "passage:14"])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 208))
    parser.add_argument("--baseline", type=float, help="mm; by default the eyes are as far apart as the clip's lamps")
    parser.add_argument("--lamp", type=float, help="mm")
    args = parser.parse_args()
    for name in args.scenes:
        scene, seed = name.split(":")
        folder = args.out / (f"{scene}_{seed}" + (f"_lamp{args.lamp:g}" if args.lamp is not None else ""))
        degrees = 65 if scene in ("abdomen", "tissue") else 90
        clip = prepare(scene, int(seed), args.frames, Camera.from_fov(*args.size, np.radians(degrees)), FPS)
        sides = np.array([lamp.position_mm for lamp in clip.look.lights])
        # A narrow passage has a thin endoscope: with 4 mm the right eye would look at it through the wall.
        baseline = args.baseline or float(np.linalg.norm(np.ptp(sides, axis=0)))
        if args.lamp is not None:
            lamp = SpotLight((args.lamp, 0.0, 0.0), exponent=1.0, cutoff_rad=float(np.radians(110)))
            clip = replace(clip, look=replace(clip.look, lights=(lamp,)))
        run = filmed(clip, folder, baseline)
        report(folder.name, run, clip, folder, baseline)
    return 0


def filmed(clip: Clip, folder: Path, baseline: float) -> Run:
    """Write the clip of both eyes, its truth and its mesh, and reconstruct the left eye's half; unless it is there."""
    out = folder / "run"
    if (out / "report.html").is_file():
        return read_run(out)
    folder.mkdir(parents=True, exist_ok=True)
    width, height = clip.camera.width, clip.camera.height
    with Video(folder / "both.mp4", 2 * width, height, FPS) as video:
        for picture in both_eyes(clip, baseline):
            video.write(picture)
    whole = clip.camera.cropped(0, 0, 2 * width, height)
    write_camera(folder / "camera.json", whole)
    times = np.round(np.arange(len(clip.poses)) * 1e9 / FPS).astype(np.int64)
    Trajectory(times, clip.poses).write_tum(folder / "poses.txt")
    import trimesh

    anatomy = clip.renderer.anatomy
    trimesh.Trimesh(anatomy.vertices, anatomy.faces, process=False).export(folder / "ct.ply")
    return read_run(reconstruct_video(folder / "both.mp4", out, camera=folder / "camera.json", overwrite=True))


def report(name: str, run: Run, clip: Clip, folder: Path, baseline: float) -> None:
    """Print the true scales and what each source finds."""
    path = Trajectory.read_tum(folder / "poses.txt")
    ours, theirs = matched(run.trajectory, path)
    true = align(ours.centres, theirs.centres, True).scale
    by_depth = depth_scale(run, clip)
    off = 100 * (by_depth / true - 1)
    print(f"\n{name}: a unit is {true:.4f} mm by the path, {by_depth:.4f} mm by the depth ({off:+.2f} %); "
          f"{len(run.trajectory)} of {len(clip.poses)} frames", flush=True)  # fmt: skip
    lamps = np.array([lamp.position_mm for lamp in clip.look.lights])
    landmarks(run, theirs, ours, folder)
    for what, measure in (
        ("stereo", lambda: stereo.measure(run, stereo.open_pairs(run, folder / "both.mp4", baseline_mm=baseline))),
        ("tracker", lambda: poses.measure(run, path, "mm", "poses.txt")),
        ("CT, landmarks", lambda: ct.measure(run, folder / "ct.ply", folder / "landmarks.csv")),
        ("CT alone", lambda: ct.measure(run, folder / "ct.ply")),
        ("lamps", lambda: light.measure(run, lamps)),
    ):
        try:
            print(f"  {what:14} {line(measure(), true)}", flush=True)
        except (NotObservableError, InputError) as error:
            print(f"  {what:14} {error}", flush=True)


def line(e: ScaleEstimate, true: float) -> str:
    low, high = e.interval
    holds = "holds" if low <= true <= high else "MISSES"
    return f"{e.mm_per_unit:.4f} mm ({100 * (e.mm_per_unit / true - 1):+.2f} %), 90 % {low:.4f} to {high:.4f}: {holds}"


def depth_scale(run: Run, clip: Clip) -> float:
    """Median ratio of the true depth to the run's, over every fifth frame."""
    ratios = []
    for number, frame in enumerate(clip.frames()):
        if number % 5 == 0 and number in run.depth_indices:
            depth, confidence = run.depth(number)
            rows = ((np.arange(depth.shape[0]) + 0.5) * frame.depth.shape[0] / depth.shape[0]).astype(int)
            columns = ((np.arange(depth.shape[1]) + 0.5) * frame.depth.shape[1] / depth.shape[1]).astype(int)
            true = frame.depth[rows[:, None], columns]
            good = (confidence > 0.2) & (true > 0)
            if good.any():
                ratios.append(np.median(true[good] / depth[good]))
    return float(np.median(ratios))


def landmarks(run: Run, theirs: Trajectory, ours: Trajectory, folder: Path) -> None:
    """Five points of the run, each with the place where its camera truly sees it: picked to a millimetre."""
    rng, rows = np.random.default_rng(0), ["frame,u,v,ct_x,ct_y,ct_z"]
    view = json.loads((run.path / "camera.json").read_text())["view"]
    index = {row.time_ns: row.index for row in run.rows}
    from rendering.mesh import Caster, read_mesh

    caster = Caster(read_mesh(folder / "ct.ply"))
    for at in np.linspace(0, len(ours) - 1, 5).astype(int):
        pixel = np.array([view["width"], view["height"]]) * rng.uniform(0.3, 0.7, 2)
        ray = theirs.world_from_cam[at][:3, :3] @ run.camera.rays(pixel[None])[0]
        centre = theirs.world_from_cam[at][:3, 3]
        far = float(caster.along(centre[None], ray[None])[0][0])
        point = centre + far * ray + rng.normal(0, 1.0, 3)
        u, v = pixel * [view["crop"][2] / view["width"], view["crop"][3] / view["height"]] + view["crop"][:2]
        rows.append(",".join(f"{x:.4f}" for x in (index[int(ours.times_ns[at])], u, v, *point)))
    (folder / "landmarks.csv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
