"""`endorecon reconstruct`: the main job."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import INTERRUPTED, OK, Bars, Count, File, Folder, Out, named_input


@dataclass(frozen=True)
class Reconstruct:
    """Turn an endoscopic video into camera path, depth and a mesh: a run folder that `endorecon view` shows.

    Example: endorecon reconstruct colonoscopy.mp4
    """

    input: Positional[Path]
    """A video file, a DICOM file, a folder of images in the order of their names, or one sequence of a data set
    (docs/datasets.md), whose camera is used; demo is a clip that comes along."""
    out: Out = None
    """Where to write; by default runs/NAME, after the input."""
    camera: File = None
    """Calibration: a run's camera.json, an intrinsics.json, OpenCV YAML or XML, COLMAP's cameras.txt."""
    model: str = "tiny"
    """Depth model: a name that `endorecon models` lists, a hub id, or a local folder with a checkpoint."""
    adapter: Folder = None
    """Folder of an adapter for the model."""
    accept_licence: bool = False
    """Use weights whose licence forbids commercial use."""
    poses: Annotated[str, arg(metavar="auto|fixed|colmap|FILE")] = "auto"
    """Camera poses: tracked (auto), of a still camera before moving tissue (fixed), by COLMAP, or in a file: a TUM
    trajectory, C3VD's pose.txt, COLMAP's images.txt."""
    poses_unit: Annotated[Literal["mm", "cm", "m"] | None, arg(metavar="mm|cm|m", help_behavior_hint="")] = None
    """Unit of the lengths in a file of poses."""
    every: int = 1
    """Use every n-th frame."""
    max_frames: Count = None
    """Stop after this many used frames."""
    fps: float = 30.0
    """Frames a second of a folder of images; a video has its own times."""
    scene: Annotated[str, arg(metavar="tsdf|splats|splats-deforming")] = "tsdf"
    """What the scene is kept in: a surface (tsdf), Gaussians that also show how it looked (splats), or Gaussians that
    follow tissue as it moves, without the tools before it (splats-deforming)."""
    splat_minutes: float = 5.0
    """Time to train Gaussians for."""
    surfels: bool = False
    """Train flat Gaussians, surfels: the surface is sharper, the picture a little less so."""
    splat_growth: Literal["default", "mcmc"] = "default"
    """How Gaussians are added: where the picture pulls at them (default), or by chance where they are opaque (mcmc)."""
    splat_poses: bool = False
    """Improve the camera's poses along with the Gaussians."""
    refine: Literal["none", "light"] = "none"
    """light: improve the surface by the endoscope's own light (docs/light_refinement.md)."""
    live: bool = False
    """Open the viewer and watch while it works."""
    overwrite: bool = False
    """Replace the run that the output folder holds."""


def run(command: Reconstruct) -> int:
    """Run the command; returns the exit code."""
    source, name = named_input(command.input)
    out = command.out or Path("runs") / name
    from endorecon.job import reconstruct_video
    from endorecon.run import read_run
    from endorecon.scenes.base import SplatChoice

    with Bars() as bars:
        path = reconstruct_video(
            source,
            out,
            camera=command.camera,
            model=command.model,
            adapter=command.adapter,
            accept_licence=command.accept_licence,
            poses=command.poses,
            poses_unit=command.poses_unit,
            every=command.every,
            max_frames=command.max_frames,
            live=command.live,
            fps=command.fps,
            scene=command.scene,
            splat_minutes=command.splat_minutes,
            splat_choice=SplatChoice(command.surfels, command.splat_growth, command.splat_poses),
            refine=command.refine,
            overwrite=command.overwrite,
            progress=bars,
            say=lambda sentence: print(f"endorecon: {sentence}", file=sys.stderr),
        )
    run = read_run(path)
    frames, timings = run.info["frames"], run.info["timings_s"]
    seconds = timings.get("total", sum(timings.values()))
    parts = f"{frames['segments']} segment{'' if frames['segments'] == 1 else 's'}"
    speed = frames["read"] / max(seconds, 1e-9)
    print(f"{frames['tracked']} of {frames['read']} frames tracked in {parts}, {speed:.1f} frames a second")
    print(f"scale: {run.info['scale']}")
    for warning in run.info["warnings"]:
        print(f"note: {warning}")
    print(f"\nresult     {path}\nlook at it endorecon view {path}\nreport     {path / 'report.html'}")
    if run.status == "interrupted":
        print("endorecon: stopped early; what there was is saved", file=sys.stderr)
        return INTERRUPTED
    return OK
