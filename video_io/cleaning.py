"""A clean copy of an input, in this project's own layout, with what the doctor has found put right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.agreement import READINGS
from video_io.camera import Camera
from video_io.case import Case
from video_io.doctor.base import Finding
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.trajectory import Trajectory

DEPTH_SCALES = (400, 200, 100, 50, 25)  # stored steps a mm, as `simulate` writes
Float = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What has to be done to a case.

    Attributes:
        drop: numbers of the frames to leave out.
        crop: x, y, width, height of the part of the picture to keep, or None.
        deinterlace, invert_masks, depth_ray: see the findings.
        pose_reading: of `agreement.READINGS`.
        pose_scale, depth_factor: to millimetres.
        exclude: x, y, width, height of overlays, which the masks leave out.
        done: a sentence for each.
    """

    drop: frozenset[int] = frozenset()
    crop: tuple[int, int, int, int] | None = None
    deinterlace: bool = False
    invert_masks: bool = False
    depth_ray: bool = False
    pose_reading: str = "as it is"
    pose_scale: float = 1.0
    depth_factor: float = 1.0
    exclude: tuple[tuple[int, int, int, int], ...] = ()
    done: tuple[str, ...] = field(default=())


def plan(findings: Sequence[Finding], total: int) -> Plan:
    """What the findings ask for, in a clip of `total` frames."""
    drop: set[int] = set()
    values: dict[str, Any] = {}
    exclude: list[tuple[int, int, int, int]] = []
    for finding in findings:
        repair = finding.repair
        for first, last in repair.get("drop", ()):
            drop |= set(range(first, last + 1))
        if "keep" in repair:
            first, last = repair["keep"]
            drop |= set(range(first)) | set(range(last + 1, total))
        exclude += [tuple(box) for box in repair.get("exclude", ())]
        if "crop" in repair:
            values["crop"] = tuple(repair["crop"])
        for name in ("deinterlace", "invert_masks", "depth_ray", "depth_factor", "pose_scale"):
            if name in repair:
                values[name] = repair[name]
        if repair.get("pose_reading", "as it is") != "as it is":
            values["pose_reading"] = repair["pose_reading"]
    done = tuple(f.kind for f in findings if f.repair)
    return Plan(frozenset(drop), exclude=tuple(exclude), done=done, **values)


def write_clean(case: Case, findings: Sequence[Finding], out: Path) -> Path:
    """Write the copy; the original is only read.

    rgb/%04d (the original's bytes where no pixel changes, else PNG), depth/%04d.png, masks/%04d.png (white = what can
    be used), poses.txt, intrinsics.json, times.txt (number and seconds of each frame), doctor.json (what was done).

    Raises:
        InputError: the output is there already or lies inside the input, or no frame is left.
    """
    out = _free(case, out)
    total = len(case.images) or len(case.survey)
    todo = plan(findings, total)
    for name in ("rgb", *(["depth"] if case.has_depth else []), *(["masks"] if case.masks or todo.exclude else [])):
        (out / name).mkdir()
    camera = _camera(case, todo)
    scale = _depth_scale(case, todo) if case.has_depth else DEPTH_SCALES[0]
    kept: list[tuple[int, float, Float | None]] = []
    for number, frame in enumerate(case.source.frames()):
        # A frame that can't be read is left out, and the files of the others keep their places.
        row = frame.index if case.images else number
        if number in todo.drop:
            continue
        pose_row = case.pose_row(row)
        incomplete = (case.has_depth and case.depth(row) is None) or (case.poses is not None and pose_row is None)
        if incomplete and case.images:
            continue
        at = len(kept)
        _write_picture(case, todo, frame, row, out, at)
        if case.has_depth:
            _write_depth(case, todo, row, out / f"depth/{at:04d}.png", scale)
        if (out / "masks").is_dir():
            _write_mask(case, todo, frame, row, out / f"masks/{at:04d}.png")
        timed = case.poses is not None and case.poses.form == "tum" and pose_row is not None
        seconds = float(case.poses.stamps[pose_row]) if timed and case.poses else frame.time_ns / 1e9
        pose = case.poses.matrices[pose_row] if case.poses is not None and pose_row is not None else None
        kept.append((row, seconds, pose))
    if not kept:
        raise InputError(f"nothing of '{case.path}' is left once the findings are put right; give another recording")
    _write_facts(case, todo, out, kept, camera, scale, findings)
    return out


def _free(case: Case, out: Path) -> Path:
    out = Path(out).expanduser()
    inside = out.resolve() == case.path.resolve() or case.path.resolve() in out.resolve().parents
    if inside or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        why = "lies inside the input" if inside else "is there already"
        raise InputError(f"'{out}' {why}; expected a folder that is empty or does not exist; give another one to --fix")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _camera(case: Case, todo: Plan) -> Camera | None:
    camera = case.camera
    if camera is None or todo.crop is None or (camera.width, camera.height) != (case.source.width, case.source.height):
        return camera
    return camera.cropped(*todo.crop)


def _write_picture(case: Case, todo: Plan, frame: Frame, row: int, out: Path, at: int) -> None:
    rgb = frame.rgb
    if todo.crop is None and not todo.deinterlace and case.images:
        file = case.images[row]
        shutil.copyfile(file, out / f"rgb/{at:04d}{file.suffix.lower()}")
        return
    if todo.deinterlace:
        rgb = deinterlaced(rgb)
    if todo.crop is not None:
        x, y, w, h = todo.crop
        rgb = rgb[y : y + h, x : x + w]
    _write(out / f"rgb/{at:04d}.png", np.ascontiguousarray(rgb[..., ::-1]))


def deinterlaced(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first field (lines 0, 2, ...), with the other's lines filled in between."""
    out = rgb.copy()
    above = rgb[0:-1:2].astype(np.uint16)
    below = np.concatenate([above[1:], above[-1:]]) if rgb.shape[0] % 2 == 0 else rgb[2::2].astype(np.uint16)
    lines = out[1::2]
    lines[:] = ((above[: len(lines)] + below[: len(lines)] + 1) // 2).astype(np.uint8)
    return out


def _depth_mm(case: Case, todo: Plan, row: int) -> NDArray[np.float32] | None:
    depth = case.depth(row)
    if depth is None:
        return None
    depth = depth * np.float32(todo.depth_factor)
    if todo.depth_ray and case.camera is not None:
        h, w = depth.shape
        camera = case.camera if (case.camera.width, case.camera.height) == (w, h) else case.camera.scaled(w, h)
        depth = depth * np.maximum(np.nan_to_num(camera.ray_map()[..., 2]), 0)
    full = depth.shape == (case.source.height, case.source.width)
    if todo.crop is not None and full:
        x, y, w, h = todo.crop
        depth = depth[y : y + h, x : x + w]
    return depth.astype(np.float32)


def _depth_scale(case: Case, todo: Plan) -> int:
    rows = sorted({int(i) for i in np.linspace(0, max(len(case.images) - 1, 0), 12)})
    farthest = max((float(d.max()) for i in rows if (d := _depth_mm(case, todo, i)) is not None), default=0.0)
    return next((s for s in DEPTH_SCALES if 1.2 * farthest * s < 65535), DEPTH_SCALES[-1])


def _write_depth(case: Case, todo: Plan, row: int, path: Path, scale: int) -> None:
    depth = _depth_mm(case, todo, row)
    assert depth is not None
    stored = np.round(depth * scale)
    _write(path, np.where(stored < 65536, stored, 0).astype(np.uint16))


def _write_mask(case: Case, todo: Plan, frame: Frame, row: int, path: Path) -> None:
    mask = case.mask(row)
    use = np.ones(frame.rgb.shape[:2], bool) if mask is None else mask != todo.invert_masks
    if use.shape == frame.rgb.shape[:2]:
        for x, y, w, h in todo.exclude:
            use[y : y + h, x : x + w] = False
        if todo.crop is not None:
            x, y, w, h = todo.crop
            use = use[y : y + h, x : x + w]
    _write(path, use.astype(np.uint8) * np.uint8(255))


def _write_facts(
    case: Case, todo: Plan, out: Path, kept: list[tuple[int, float, Float | None]], camera: Camera | None, scale: int,
    findings: Sequence[Finding],
) -> None:  # fmt: skip
    poses = [(seconds, pose) for _, seconds, pose in kept if pose is not None]
    if poses:
        read = READINGS[todo.pose_reading]
        matrices = np.array([read(pose) for _, pose in poses])
        matrices[:, :3, 3] *= todo.pose_scale
        u, _, vt = np.linalg.svd(matrices[:, :3, :3])
        matrices[:, :3, :3] = u @ vt
        times = np.round(np.array([seconds for seconds, _ in poses]) * 1e9).astype(np.int64)
        Trajectory(times, matrices).write_tum(out / "poses.txt")
    if camera is not None:
        values = {**camera.to_dict(), **({"depth_scale": scale} if case.has_depth else {})}
        (out / "intrinsics.json").write_text(json.dumps(values, indent=1) + "\n")
    mesh = case.path / "mesh.ply"
    if mesh.is_file():
        shutil.copyfile(mesh, out / "mesh.ply")
    (out / "times.txt").write_text("".join(f"{n} {seconds:.9f}\n" for n, (_, seconds, _) in enumerate(kept)))
    told = {
        "input": str(case.path), "put_right": list(todo.done), "frames": [row for row, _, _ in kept],
        "left_out": sorted(todo.drop), "findings": [finding.to_dict() for finding in findings],
    }  # fmt: skip
    (out / "doctor.json").write_text(json.dumps(told, indent=1) + "\n")


def _write(path: Path, image: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 2]):
        raise InputError(f"'{path}' can't be written; expected room on the disk; free some or give another folder")
