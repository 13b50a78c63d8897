"""How well a clip is shown from poses that were held out: by its light and material, against Gaussians of equal budget.

    python tools/bench_light.py --data FOLDER                     three path-traced clips
    python tools/bench_light.py --clips traced_colon --minutes 2  the time that each method may take
    python tools/bench_light.py --clips traced_colon --no-splats --pictures FOLDER

True surface, poses and intrinsics are given to both; every 8th frame is held out. Light, response and albedo are
estimated from the others, on the surface with its faces cut to --finest pixels (the same surface: Gaussians may be as
small as they like, too); the Gaussians are seeded on the true depth and trained on the others, as `--scene splats`
does. A held-out frame's exposure is that between its neighbours in time, for both. PSNR over all pixels, the mean over
the held-out frames; "far" is the half of them whose camera is farthest from those of the frames that were learnt from.
"At best" is what the clip's own noise allows (tools/bench_splats.py).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

# Threads that wait must sleep: spinning ones starve the others when the machine is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.light.estimate import estimate
from endorecon.light.evidence import Sight
from endorecon.lighting import Lighting, LitScene
from endorecon.scenes.base import Setting
from endorecon.scenes.splats import SplatScene
from rendering.mesh import Caster, Mesh, read_mesh
from tools.bench_splats import noise_psnr
from video_io.camera import Camera
from video_io.datasets import open_truth
from video_io.frame import Frame
from video_io.masks import with_masks

Float = NDArray[np.float64]
HELD_OUT = 8
SAMPLES = 2  # rays a pixel, in each direction
CUTS = 3  # times at most that a face is cut in four


@dataclass(frozen=True)
class Seen:
    """A frame with its true pose and depth, as a scene takes it."""

    frame: Frame
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    world_from_cam: Float


def frames_of(folder: Path, every: int) -> tuple[Mesh, list[Seen]]:
    """The true surface and every so many frames."""
    truth = open_truth(folder)
    assert truth.camera is not None and truth.trajectory is not None
    found = []
    for index in range(0, len(truth.image_paths), every):
        picture = cv2.cvtColor(cv2.imread(str(truth.image_paths[index])), cv2.COLOR_BGR2RGB)
        frame = with_masks(replace(Frame.of(picture, index, index * 33_333_333), camera=truth.camera))
        depth = np.asarray(truth.depth(index), np.float32)
        known = (depth > 0).astype(np.float32)
        found.append(Seen(frame, depth, known, truth.trajectory.world_from_cam[index]))
    return turned(read_mesh(folder / "mesh.ply"), found[0]), found


def turned(mesh: Mesh, seen: Seen) -> Mesh:
    """The mesh with its faces turned to the side that was filmed."""
    camera, pose = seen.frame.camera, seen.world_from_cam
    assert camera is not None
    way = camera.ray_map()[::8, ::8].reshape(-1, 3).astype(float) @ pose[:3, :3].T
    _, face = Caster(mesh).along(pose[:3, 3], way)
    met = face >= 0
    away = (mesh.face_normals[face[met]] * way[met]).sum(1) > 0
    return replace(mesh, faces=np.ascontiguousarray(mesh.faces[:, ::-1])) if away.mean() > 0.5 else mesh


def held_out(seen: list[Seen]) -> tuple[list[int], NDArray[np.bool_]]:
    """Numbers of the frames held out, and which of them are in the half farthest from the others' cameras."""
    test = list(range(0, len(seen), HELD_OUT))
    at = np.array([s.world_from_cam[:3, 3] for s in seen])
    learnt = np.delete(at, test, 0)
    away = np.array([np.linalg.norm(learnt - at[i], axis=1).min() for i in test])
    return test, away >= np.median(away)


def between(lighting: Lighting, index: int) -> Float:
    """(3,) gains of a frame that was not learnt from, between its neighbours' in time."""
    logs = np.log(lighting.exposure[:, None] * lighting.white_balance)
    return np.exp([np.interp(index, lighting.frames, column) for column in logs.T])


def psnr(shown: NDArray[np.uint8], frame: Frame) -> float:
    square = (shown.astype(np.float32) - frame.rgb.astype(np.float32)) ** 2 / 255**2
    return float(-10 * np.log10(max(float(square.mean()), 1e-10)))


def finer(mesh: Mesh, sights: list[Sight], finest: float) -> tuple[Mesh, Float]:
    """The surface with no face's mean edge longer than so many pixels where it is seen, and its vertices' normals."""
    normals = mesh.vertex_normals
    for _ in range(CUTS):
        caster, nearest = Caster(mesh), np.full(len(mesh.faces), np.inf)
        for sight in sights[:: max(1, len(sights) // 12)]:
            camera = sight.frame.camera
            assert camera is not None
            hits = caster.cast(camera, sight.world_from_cam)
            met = hits.faces >= 0
            np.minimum.at(nearest, hits.faces[met], hits.depth[met] / camera.focal_px)
        corners = mesh.vertices[mesh.faces]
        edge = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).mean(1)
        large = edge > finest * nearest
        if not large.any():
            break
        mesh, ends = mesh.split(large)
        between_ends = normals[ends].mean(1)
        normals = np.concatenate([normals, between_ends / np.linalg.norm(between_ends, axis=1, keepdims=True)])
    return mesh, normals


def by_light(
    mesh: Mesh, seen: list[Seen], test: list[int], bounces: bool, finest: float
) -> tuple[list[NDArray], Lighting]:
    """The held-out frames as the estimated scene looks from there."""
    learnt = [Sight(s.frame, s.world_from_cam) for i, s in enumerate(seen) if i not in test]
    mesh, normals = finer(mesh, learnt, finest)
    lighting = estimate(mesh, learnt, normals, bounces=bounces)
    scene = LitScene(lighting, mesh, normals=normals)
    shown = []
    for i in test:
        camera = seen[i].frame.camera
        assert camera is not None
        gains = between(lighting, seen[i].frame.index)
        shown.append(scene.view(camera, seen[i].world_from_cam, gains=gains, samples=SAMPLES).rgb)
    return shown, lighting


def by_splats(seen: list[Seen], test: list[int], seconds: float) -> tuple[list[NDArray], int]:
    """The same by Gaussians, and how many there are."""
    scene = SplatScene(float(np.median([np.median(s.depth[s.depth > 0]) for s in seen])), Setting(seconds=seconds))
    for one in seen:
        scene.integrate(one)
    training = scene._train(scene._surface.mesh())
    assert [v.index for v in training.tests] == [seen[i].frame.index for i in test], "other frames were held out"
    splats, times = training.splats(), np.array([v.time_ns for v in training.views], float)
    shown = []
    for i in test:
        camera: Camera = seen[i].frame.camera  # type: ignore[assignment]
        gain, offset = training.exposure.between(times, seen[i].frame.time_ns)
        layers = splats.render(camera, seen[i].world_from_cam)
        value = layers.color.numpy() * training.light.factor(layers.depth.numpy())[..., None] * gain + offset
        shown.append((np.clip(value, 0, 1) * 255 + 0.5).astype(np.uint8))
    return shown, len(splats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--clips", nargs="+", default=["traced_colon", "traced_sinus", "traced_lap"])
    parser.add_argument("--every", type=int, default=1, help="only every so many frames are used")
    parser.add_argument("--minutes", type=float, help="for the Gaussians; by default as long as the light took")
    parser.add_argument("--finest", type=float, default=1.5, help="pixels of the longest edge; inf: the mesh as it is")
    parser.add_argument("--direct-only", action="store_true", help="no light between surfaces in the model")
    parser.add_argument("--no-splats", action="store_true")
    parser.add_argument("--pictures", type=Path, help="a folder for frame, by light, by Gaussians, side by side")
    args = parser.parse_args()
    print("| clip | method | PSNR | far | at best | seconds | what |\n" + "|---" * 7 + "|")
    for clip in args.clips:
        mesh, seen = frames_of(args.data / clip, args.every)
        test, far = held_out(seen)
        best = np.mean([noise_psnr(open_truth(args.data / clip).image_paths[seen[i].frame.index]) for i in test])
        begun = time.monotonic()
        lit, lighting = by_light(mesh, seen, test, not args.direct_only, args.finest)
        seconds = time.monotonic() - begun
        what = (
            f"gamma {lighting.gamma:.2f}, fall-off {lighting.figures['falloff_joint']:.2f} ± "
            f"{lighting.figures['falloff_joint_std']:.2f}, {len(lighting.albedo)} vertices"
        )
        rows = [("light", lit, seconds, what)]
        if not args.no_splats:
            begun = time.monotonic()
            shown, count = by_splats(seen, test, 60 * args.minutes if args.minutes else seconds)
            rows.append(("Gaussians", shown, time.monotonic() - begun, f"{count} Gaussians"))
        for name, shown, spent, what in rows:
            values = np.array([psnr(s, seen[i].frame) for s, i in zip(shown, test, strict=True)])
            figures = f"{values.mean():.2f} | {values[far].mean():.2f} | {best:.1f} | {spent:.0f}"
            print(f"| {clip} | {name} | {figures} | {what} |", flush=True)
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
            for k, i in enumerate(test):
                row = np.hstack([seen[i].frame.rgb, *(shown[k] for _, shown, *_ in rows)])
                cv2.imwrite(str(args.pictures / f"{clip}_{seen[i].frame.index:04d}.png"), row[..., ::-1])


if __name__ == "__main__":
    main()
