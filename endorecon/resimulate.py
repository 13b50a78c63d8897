"""New clips with truth from a run: its own scene and light, filmed along other paths.

What the run has found is taken for the world: its surface, its albedo and roughness, the lamp and the camera's response
(`endorecon.lighting`). Depth and poses of the new clips are exact in that world, whatever the real one was.

Where the surface has a hole, or is seen from behind, nothing is known. There the mask is False, the depth 0, and the
picture goes on from around in grey, so that a gap is not taken for dark tissue far away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.light.estimate import shading_normals
from endorecon.lighting import FOLDER, Lighting, LitScene
from endorecon.new_paths import NewPaths, Way
from endorecon.run import Run
from rendering.mesh import Caster, read_ply, without_small_parts
from rendering.phantom.layout import ClipFiles, Facts
from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.lighting import Lamp

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]
Progress = Callable[[str, int, int | None], None]

TERMS = """Rendered by endorecon (`endorecon simulate --from`) from a reconstruction: surface, colours and light are
estimates from a recording. The terms of that recording hold for these pictures too.
"""
# Standard deviations of the sensor's noise at black, and at white above that, in display units.
READ_NOISE, SHOT_NOISE = 0.005, 0.008
_MOST_STORED = 60_000  # of 65,535 steps, what the farthest surface takes
_LEAST_PART = 200  # faces of a part of the surface; what is smaller floats in the air
_PROBES = 24


class RunScene:
    """A run's scene, lit as it was found, ready to be filmed.

    Args:
        run: with a surface, poses, and a lighting.

    Attributes:
        lighting: of the run.
        camera: of the run's depth images.
        mesh, surface: what was reconstructed, and that without parts that float in the air.
        caster: of `mesh`.
        picture: (H, W) bool, where the run's pictures show anything.

    Raises:
        InputError: the run has no surface, no poses or no lighting.
    """

    def __init__(self, run: Run) -> None:
        if run.mesh_path is None or run.camera is None or len(run.trajectory) < 2:
            raise InputError(
                f"the run in '{run.path}' has no surface or no path (status: {run.status}); reconstruct the clip again"
            )
        self.run, self.camera = run, run.camera
        self.lighting = Lighting.load(run.path / FOLDER)
        self.mesh = read_ply(run.mesh_path)
        self._normals = shading_normals(self.mesh)
        self._lit = LitScene(self.lighting, self.mesh, normals=self._normals)
        self.surface = without_small_parts(self.mesh, min(_LEAST_PART, len(self.mesh.faces)))
        self.caster = Caster(self.mesh)
        self.picture = _picture(run)
        self._frames = self._indices()

    def painted(self, albedo: Float32) -> RunScene:
        """The same scene with another albedo (V, 3) on it."""
        import copy

        other = copy.copy(self)
        other.lighting = replace(self.lighting, albedo=albedo)
        other._lit = LitScene(other.lighting, self.mesh, normals=self._normals)
        return other

    def paths(self) -> NewPaths:
        """What finds ways through the scene."""
        return NewPaths(self.surface, self.camera, self.run.trajectory.world_from_cam, self.picture)

    def view(
        self, pose: Float, at: float, look: NewLook | None = None, lamp: Lamp | None = None
    ) -> tuple[Float32, Float32, NDArray[np.bool_], Float]:
        """Radiance (H, W, 3), z (H, W), where both are known (H, W), and the gains (3,) of a place on the run's path.

        Args:
            pose: world_from_cam.
            at: number of a pose of the run's path, with its fraction, whose exposure is taken.
            look: changes of light and exposure.
            lamp: another lamp than the run's, or than that of `look`.
        """
        lamp = lamp or (look.lamp(self.lighting.lamp) if look else None)
        gains = self.gains(at) * (look.gain if look else 1.0)
        seen = self._lit.view(self.camera, pose, lamp, gains=gains)
        known = self.picture & (seen.depth > 0) & self._front(pose)
        return seen.linear_rgb, seen.depth, known, gains

    def gains(self, at: float) -> Float:
        """(3,) exposure times white balance at a place on the run's path, between those of the frames about it."""
        whole = int(np.clip(at, 0, len(self._frames) - 1))
        both = [self.lighting.gains(int(self._frames[min(n, len(self._frames) - 1)])) for n in (whole, whole + 1)]
        return np.exp((1 - (at - whole)) * np.log(both[0]) + (at - whole) * np.log(both[1]))

    def finished(self, shown: Image, known: NDArray[np.bool_], rng: np.random.Generator) -> Image:
        """A picture as the recorder has it: holes filled in grey from around, with the sensor's noise; black where the
        optics show nothing."""
        shown = filled(shown, known).astype(np.float32) / 255
        shown += rng.standard_normal(shown.shape, np.float32) * (READ_NOISE + SHOT_NOISE * np.sqrt(shown))
        rgb = (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
        rgb[~self.picture] = 0
        return rgb

    def _front(self, pose: Float) -> NDArray[np.bool_]:
        """(H, W) bool, where the first surface is seen from its front."""
        rays = self.camera.ray_map().reshape(-1, 3).astype(np.float64)
        front = np.isfinite(rays[:, 0])
        rays = rays[front] @ pose[:3, :3].T
        _, face = self.caster.along(pose[:3, 3], rays)
        front[front] = (face >= 0) & ((self.mesh.face_normals[face] * rays).sum(1) < 0)
        return front.reshape(self.camera.height, self.camera.width)

    def _indices(self) -> NDArray[np.int64]:
        """Index in the source of each pose of the run's path."""
        by_time = {row.time_ns: row.index for row in self.run.rows}
        return np.array([by_time.get(int(t), n) for n, t in enumerate(self.run.trajectory.times_ns)])


@dataclass(frozen=True)
class NewLook:
    """How light and exposure of a path differ from the run's.

    Attributes:
        shift: of the lamp, as shares of the usual distance of the tissue, (3,).
        turn: of the beam, rad, (2,), to the right and down.
        profile: what the beam's exponent is multiplied with.
        gain: on the picture, rgb (3,).
        typical: the usual distance of the tissue.
    """

    shift: Float
    turn: Float
    profile: float
    gain: Float
    typical: float

    @staticmethod
    def draw(rng: np.random.Generator, typical: float) -> NewLook:
        """A random one."""
        gain = 2 ** rng.normal(0, 0.35) * np.exp(rng.normal(0, 0.06, 3))
        shift, turn = rng.normal(0, 0.04, 3) * [1, 1, 0.3], rng.normal(0, 0.12, 2)
        return NewLook(shift, turn, float(np.exp(rng.normal(0, 0.4))), gain, typical)

    def lamp(self, lamp: Lamp) -> Lamp:
        """The lamp as it is in this look."""
        axis = lamp.axis + np.array([*np.tan(self.turn), 0.0])
        axis = axis / np.linalg.norm(axis, axis=1, keepdims=True)
        position = lamp.position + self.shift * self.typical
        return replace(lamp, position=position, axis=axis, exponent=lamp.exponent * self.profile)


@dataclass(frozen=True)
class Made:
    """What came of it.

    Attributes:
        folders: of the clips.
        seen: of each, the least share of a picture that is known surface.
        notes: sentences for the person.
    """

    folders: tuple[Path, ...]
    seen: tuple[float, ...]
    notes: tuple[str, ...]


def resimulate(
    run: Run, out: Path, paths: int = 1, frames: int = 90, seed: int = 0, fps: float = 30.0, vary_light: bool = False,
    progress: Progress = lambda *_: None,
) -> Made:  # fmt: skip
    """Film a run's scene along new paths, with truth.

    Args:
        run: with a lighting.
        out: a new or empty folder; each clip is in a folder `path_00`, `path_01`, ... of it, laid out as
            `rendering.phantom.layout` says, in the run's unit.
        paths, frames: how many clips, and how long.
        seed: paths, light and noise follow from it.
        fps: frames a second.
        vary_light: each path has another lamp position, beam, exposure and white balance.
        progress: called with "rendering", frames done, and how many there are.

    Raises:
        InputError: a run without surface, path or lighting; no path that sees enough; a folder that can't be used.
    """
    if paths < 1 or frames < 2:
        raise InputError(f"{paths} paths of {frames} frames: expected at least 1 path of 2 frames")
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' is there already; give a folder that is empty or does not exist")
    scene = RunScene(run)
    finder = scene.paths()
    folders, seen, notes = [], [], list(scene.lighting.warnings)
    for number in range(paths):
        rng = np.random.default_rng((seed, 5, number))
        way = finder.find(rng, frames, fps)
        look = NewLook.draw(rng, finder.typical) if vary_light else None
        made_from = {
            "run": run.name, "path": number, "seed": seed, "frames": frames, "fps": fps, "sway": round(way.sway, 3),
            "vary_light": vary_light,
        }  # fmt: skip
        folder = out / f"path_{number:02d}"

        def told(done: int, before: int = number * frames) -> None:
            progress("rendering", before + done, paths * frames)

        seen.append(_film(scene, way, look, folder, fps, made_from, rng, told))
        folders.append(folder)
        if way.sway < 0.3:
            notes.append(f"path_{number:02d} stays close to the run's own path: elsewhere too little surface was seen")
    return Made(tuple(folders), tuple(seen), tuple(notes))


def _film(
    scene: RunScene, way: Way, look: NewLook | None, folder: Path, fps: float, made_from: dict[str, Any],
    rng: np.random.Generator, told: Callable[[int], None],
) -> float:  # fmt: skip
    """Write the clip; returns the least share of a picture that is known surface."""
    farthest = _farthest(scene, way)
    facts = Facts(
        scene.camera, way.world_from_cam, fps, float(f"{_MOST_STORED / farthest:.3g}"), made_from, TERMS,
        scene.mesh.vertices, scene.mesh.faces, scene.run.unit,
    )  # fmt: skip
    least = 1.0
    with ClipFiles(folder, facts, ("mask",)) as files:
        for number, (rgb, depth, known) in enumerate(_frames(scene, way, look, rng), 1):
            files.add(rgb, np.where(known, depth, 0).astype(np.float32), mask=np.uint8(255) * known.astype(np.uint8))
            least = min(least, float(known[scene.picture].mean()))
            told(number)
    return least


def _frames(
    scene: RunScene, way: Way, look: NewLook | None, rng: np.random.Generator
) -> Iterator[tuple[Image, Float32, NDArray[np.bool_]]]:
    for pose, at in zip(way.world_from_cam, way.at, strict=True):
        linear, depth, known, gains = scene.view(pose, float(at), look)
        yield scene.finished(scene.lighting.displayed(linear, gains), known, rng), depth, known


def _farthest(scene: RunScene, way: Way) -> float:
    """About the largest depth on a way."""
    small = scene.camera.scaled(max(scene.camera.width // 8, 8), max(scene.camera.height // 8, 8))
    every = max(1, len(way.at) // 30)
    depths = [scene.caster.cast(small, pose).depth for pose in way.world_from_cam[::every]]
    return 1.2 * float(max(d.max() for d in depths)) or 1.0


def _picture(run: Run) -> NDArray[np.bool_]:
    """(H, W) bool, where any of the run's frames has depth: the optics' field of view, less what lies over it."""
    assert run.camera is not None
    indices = np.array(run.depth_indices)
    if not len(indices):
        return np.ones((run.camera.height, run.camera.width), bool)
    chosen = indices[np.unique(np.linspace(0, len(indices) - 1, _PROBES).round().astype(int))]
    shown = np.any([run.depth(int(i))[1] > 0 for i in chosen], axis=0)
    # Single pixels that no frame has a depth for are no border.
    return cv2.morphologyEx(shown.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) > 0


def filled(rgb: Image, known: NDArray[np.bool_]) -> Image:
    """The picture (H, W, 3), where it is not known the grey of what is around: means over ever larger squares."""
    if known.all() or not known.any():
        return rgb
    levels = [(rgb.astype(np.float32) * known[..., None], known.astype(np.float32))]
    while min(levels[-1][1].shape) > 1:
        colour, weight = levels[-1]
        size = (max(1, weight.shape[1] // 2), max(1, weight.shape[0] // 2))
        levels.append(tuple(cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (colour, weight)))
    colour, weight = levels.pop()
    around = colour.reshape(*weight.shape, 3) / np.maximum(weight, 1e-6)[..., None]
    for colour, weight in reversed(levels):
        around = cv2.resize(around, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(*weight.shape, 3)
        own = np.clip(weight, 0, 1)[..., None]
        around = colour + (1 - own) * around
    grey = np.repeat((around @ np.array([0.3, 0.6, 0.1], np.float32))[..., None], 3, 2)
    return np.where(known[..., None], rgb, np.clip(grey, 0, 255)).astype(np.uint8)
