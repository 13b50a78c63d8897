"""How well light, response and material are found: phantom scenes, whose every quantity is known.

    python tools/check_light.py                          a table, true geometry and poses
    python tools/check_light.py --scenes colon --seeds 0 1 --lamp pair --relief
    python tools/check_light.py --direct-only            without light between surfaces in the model

One lamp off the lens's axis, or the phantom's usual pair; `--relief` keeps the fine relief that the shading sees and
the mesh does not. An exclamation mark: more than wanted.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import cv2
import numpy as np

from endorecon.light.estimate import estimate
from endorecon.light.evidence import Sight
from endorecon.lighting import Lighting, LitScene
from rendering.light import SpotLight
from rendering.mesh import Mesh
from rendering.phantom.clip import Clip, ClipFrame, prepare
from rendering.shade import Response
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.masks import with_masks

PATHS = 256  # of the phantom's light between surfaces: by its usual 32, each place would be wrong by 17 %
TARGETS = {"albedo %": 5.0, "roughness": 0.05, "falloff": 0.05, "position mm": 0.5, "response %": 2.0}


def made(scene: str, seed: int, frames: int, lamp: str, relief: bool, interreflection: float) -> Clip:
    """A phantom clip: every third pose of a clip three times as long, lit as asked."""
    clip = prepare(scene, seed, 3 * frames)
    look = clip.look
    if lamp == "one":
        far = 0.12 * clip.renderer.anatomy.scale_mm
        tilt = np.array([0.1, -0.06, 1.0])
        spot = SpotLight((far, -0.6 * far, -0.2 * far), tuple(tilt / np.linalg.norm(tilt)), 1.3, float(np.radians(90)))
        look = replace(look, lights=(spot,))
    materials = look.materials
    if not relief:
        materials = tuple(replace(m, bump_slope=0.0, fine_slope=0.0) for m in materials)
    look = replace(look, materials=materials, interreflection=interreflection, paths=PATHS, shadows=True)
    return replace(clip, poses=clip.poses[::3], look=look)


def compared(clip: Clip, mesh: Mesh, frames: list[ClipFrame], found: Lighting) -> dict[str, float]:
    """Errors of a lighting, by name."""
    middle = np.mean([s.position_mm for s in clip.look.lights], 0)
    return {
        "albedo %": 100 * albedo_error(clip, mesh, frames, found),
        "roughness": roughness_error(clip, found),
        "falloff": abs(found.figures["falloff_joint"] - 2),
        "position mm": float(np.linalg.norm(found.lamp.position.mean(0) - middle)),
        "response %": 100 * response_error(clip.response, found),
    }  # fmt: skip


def albedo_error(clip: Clip, mesh: Mesh, frames: list[ClipFrame], found: Lighting) -> float:
    """Median relative error of albedo over pixels of some frames, at one scale for all."""
    scene, ours, true = LitScene(found, mesh, bounces=False), [], []
    for frame in frames[:: max(1, len(frames) // 6)]:
        seen = scene.view(clip.camera, frame.world_from_cam)
        use = (seen.depth > 0) & (frame.depth > 0)
        steep = -(seen.normals * clip.camera.ray_map()).sum(-1) > 0.3
        # The mesh's vertices are farther apart than pixels: texture finer than these is not asked of it.
        sharp = cv2.GaussianBlur(frame.albedo, (0, 0), 1.5)
        ours.append(seen.albedo[use & steep])
        true.append(sharp[use & steep])
    a, b = np.concatenate(ours), np.concatenate(true)
    scale = np.median(b / np.maximum(a, 1e-4))
    return float(np.median(np.abs(scale * a - b) / np.maximum(b, 0.02)))


def roughness_error(clip: Clip, found: Lighting) -> float:
    """Of the roughness, against the material most of the mesh has; nan where the clip shows none."""
    if not found.specular.any():
        return float("nan")
    return abs(float(np.median(found.roughness)) - _main(clip).roughness)


def _main(clip: Clip):  # type: ignore[no-untyped-def]
    part = np.bincount(clip.renderer.anatomy.face_part).argmax()
    return clip.look.materials[part]


def response_error(true: Response, found: Lighting) -> float:
    """Largest difference of displayed values between the curves, for values from 0.05 to 0.95, at the best scale."""
    import torch

    x = np.linspace(0.001, 1.2, 500)

    def real(x: np.ndarray) -> np.ndarray:
        y = (1 - true.shoulder) * x + true.shoulder * (1 - np.exp(-x))
        return np.clip(y, 0, 1) ** (1 / true.gamma)

    shown = real(x)
    inside = (shown > 0.05) & (shown < 0.95)
    best = np.inf
    for scale in np.exp(np.linspace(-1, 1, 201)):
        ours = found.response().displayed(torch.tensor(scale * x[inside]), 1.0).numpy()
        best = min(best, float(np.abs(ours - shown[inside]).max()))
    return best


def one(scene: str, seed: int, args: argparse.Namespace) -> tuple[dict[str, float], Lighting | None, str]:
    clip = made(scene, seed, args.frames, args.lamp, args.relief, 0.0 if args.no_interreflection else 1.0)
    frames = list(clip.frames())
    sights = []
    for number, frame in enumerate(frames):
        ready = with_masks(replace(Frame.of(frame.rgb, number, number * 33_000_000), camera=clip.camera))
        sights.append(Sight(ready, frame.world_from_cam))
    anatomy = clip.renderer.anatomy
    mesh = Mesh(anatomy.vertices, anatomy.faces)
    begun = time.perf_counter()
    try:
        found = estimate(mesh, sights, anatomy.normals.astype(float), bounces=not args.direct_only)
    except InputError as error:
        return {}, None, str(error)
    seconds = time.perf_counter() - begun
    note = f"{seconds:.0f} s"
    return compared(clip, mesh, frames, found), found, note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=["colon", "passage", "abdomen", "tissue"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--lamp", choices=["one", "pair"], default="one")
    parser.add_argument("--relief", action="store_true")
    parser.add_argument("--direct-only", action="store_true")
    parser.add_argument("--no-interreflection", action="store_true", help="in the phantom")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    print(f"{'clip':<12}" + "".join(f"{n:>14}" for n in TARGETS) + "  time, what else")
    print(f"{'wanted':<12}" + "".join(f"{'<= ' + format(v, 'g'):>14}" for v in TARGETS.values()))
    for scene in args.scenes:
        for seed in args.seeds:
            errors, found, note = one(scene, seed, args)
            values = [(errors.get(n, np.nan), most) for n, most in TARGETS.items()]
            row = "".join(f"{value:>13.3g}{' ' if value <= most else '!'}" for value, most in values)
            print(f"{scene + ' ' + str(seed):<12}{row}  {note}", flush=True)
            if args.verbose and found is not None:
                print({k: round(v, 4) for k, v in found.figures.items()})
                print(found.lamp, found.shoulder, found.vignette)
                for key, value in {**found.observable, **found.fixed}.items():
                    print(f"    {key}: {value}")
                print("   ", *found.warnings)


if __name__ == "__main__":
    main()
