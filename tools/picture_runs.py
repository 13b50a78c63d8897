"""One picture a run for the docs: image, depth, confidence, mesh: python tools/picture_runs.py OUT RUN [RUN ...]."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.run import Run, read_run
from endorecon.views._drawing import mesh_picture, painted_confidence, painted_depth
from rendering.mesh import Caster, Mesh, read_ply
from video_io.camera import Camera
from video_io.clip import Clip
from video_io.errors import InputError
from video_io.sources import open_source

HEIGHT = 256


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    out = Path(sys.argv[1])
    for path in sys.argv[2:]:
        try:
            run = read_run(path)
            picture = strip(run)
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
        file = out / f"{run.name}.jpg"
        cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
        print(file)
    return 0


def strip(run: Run) -> NDArray[np.uint8]:
    """Image, depth and confidence of the frame in the middle of the run; then the mesh alone, seen from that frame's
    place in its colours, and from a place beside it as grey relief; then the mesh and the path from outside."""
    main = [r.index for r in run.rows if r.status == "tracked" and r.segment == run.info["main_segment"]]
    middle = main[len(main) // 2]
    clip = Clip.of(open_source(run.info["config"]["input"]))
    frame = next(f for f in clip.frames() if f.index == middle)
    depth, confidence = run.depth(middle)
    near, far = np.percentile(depth[confidence > 0], [2, 98])
    mesh = read_ply(run.mesh_path)
    pose = run.trajectory.world_from_cam[main.index(middle)]
    aside = np.eye(4)
    angle = 0.45
    # Turned about a point at the median depth, and a little further back.
    target = float(np.median(depth[confidence > 0]))
    aside[:3, :3] = cv2.Rodrigues(np.array([0, -angle, 0]))[0]
    aside[:3, 3] = [target * np.sin(angle) * 0.8, 0, target * (1 - np.cos(angle)) - 0.15 * target]
    tiles = [frame.rgb, painted_depth(depth, confidence, near, far), painted_confidence(confidence)]
    tiles += [
        seen_from(mesh, run.camera, pose, coloured=True),
        seen_from(mesh, run.camera, pose @ aside, coloured=False),
        # From whichever side shows more: surface that faces away is not drawn.
        max((mesh_picture(mesh, run.trajectory.centres, turn) for turn in (0.6, 0.6 + np.pi)), key=np.std),
    ]
    return np.hstack([_fit(tile) for tile in tiles])


def seen_from(mesh: Mesh, camera: Camera, world_from_cam: NDArray[np.float64], coloured: bool) -> NDArray[np.uint8]:
    """The mesh as the camera sees it, in its colours or as grey relief under a lamp at the lens."""
    hits = Caster(mesh).cast(camera, world_from_cam)
    facing = np.abs((hits.normals * np.nan_to_num(camera.ray_map())).sum(-1))
    shade = (60 + 190 * facing)[..., None].repeat(3, 2)
    if coloured and mesh.colors is not None:
        shade = mesh.colors[mesh.faces[np.maximum(hits.faces, 0), 0]].astype(float)
    return np.where((hits.faces >= 0)[..., None], shade, 24).clip(0, 255).astype(np.uint8)


def _fit(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = round(picture.shape[1] * HEIGHT / picture.shape[0])
    return cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    raise SystemExit(main())
