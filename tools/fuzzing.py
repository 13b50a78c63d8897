"""Fuzzing of all readers of outside data: valid seeds, ways to damage them, and what a reader may do with the result.

A reader gives a value or raises InputError, within a limit of time and memory, and writes nothing anywhere. Each case
is told by its target and number alone, so that a finding can be made again: `tools/fuzz.py --case TARGET NUMBER`.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from video_io.errors import InputError

LONGEST_MESSAGE = 1200
TESTS = Path(__file__).resolve().parents[1] / "tests"


@dataclass(frozen=True)
class Target:
    """A reader: `seed` writes valid input into a folder, `read` reads all of it."""

    seed: Callable[[Path], None]
    read: Callable[[Path], Any]


@dataclass(frozen=True)
class Outcome:
    """What came of a case: `value`, `refused` (InputError) or `bug`, and what there is to say."""

    kind: str
    said: str = ""


# -- seeds --------------------------------------------------------------------------------------------------------


def _picture(step: int, width: int = 48, height: int = 32) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + step) / (3 + c)) * np.cos(y / (4 + c)) for c in range(3)]
    return np.clip(127 + 80 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def _camera() -> Any:
    from video_io.camera import Camera

    return Camera.from_fov(48, 32, 1.2)


def _images(folder: Path) -> None:
    import cv2

    for i, suffix in enumerate(("png", "jpg", "tif", "bmp", "png", "jpg")):
        assert cv2.imwrite(str(folder / f"img_{i:03d}.{suffix}"), _picture(i))


def _png_images(folder: Path) -> None:
    import cv2

    for i in range(4):
        assert cv2.imwrite(str(folder / f"{i:04d}.png"), _picture(i))


def _video(codec: str, name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from fractions import Fraction

        import av

        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for i in range(12):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(_picture(i), format="rgb24")))
            container.mux(stream.encode(None))

    return write


def _camera_json(folder: Path) -> None:
    told = {"model": "brown", "width": 48, "height": 32, "fx": 40.0, "fy": 41.0, "cx": 24.0, "cy": 16.0}
    told |= {"k1": -0.1, "k2": 0.02, "p1": 0.0, "p2": 0.001, "k3": 0.0}
    (folder / "camera").write_text(json.dumps(told))


def _camera_run(folder: Path) -> None:
    told = {**_camera().to_dict(), "estimated": True, "note": "", "source": _camera().scaled(96, 64).to_dict()}
    (folder / "camera").write_text(json.dumps(told))


def _camera_opencv(ending: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import cv2

        storage = cv2.FileStorage(str(folder / f"c.{ending}"), cv2.FILE_STORAGE_WRITE)
        storage.write("image_width", 48)
        storage.write("image_height", 32)
        storage.write("camera_matrix", np.array([[40.0, 0, 24], [0, 41.0, 16], [0, 0, 1]]))
        storage.write("distortion_coefficients", np.array([[-0.1, 0.02, 0.0, 0.001, 0.0]]))
        storage.release()
        (folder / f"c.{ending}").rename(folder / "camera")

    return write


def _camera_ros(folder: Path) -> None:
    (folder / "camera.yaml").write_text(
        "image_width: 48\nimage_height: 32\ndistortion_model: plumb_bob\n"
        "camera_matrix:\n  rows: 3\n  cols: 3\n  data: [40.0, 0.0, 24.0, 0.0, 41.0, 16.0, 0.0, 0.0, 1.0]\n"
        "distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [-0.1, 0.02, 0.0, 0.001, 0.0]\n"
    )


def _camera_colmap(folder: Path) -> None:
    head = "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"
    (folder / "camera").write_text(f"{head}\n1 OPENCV 48 32 40 41 24 16 -.1 .02 0 0\n")


def _poses(count: int = 6) -> Any:
    from scipy.spatial.transform import Rotation

    from video_io.trajectory import Trajectory

    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(np.arange(count), [0.01, 0.02, 0.03])).as_matrix()
    poses[:, :3, 3] = np.outer(np.arange(count), [0.5, -0.2, 1.0])
    return Trajectory(np.arange(count) * 40_000_000, poses)


def _tum(folder: Path) -> None:
    _poses().write_tum(folder / "poses")


def _pose_file(kind: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = _poses()
        if kind == "tum":
            path.write_tum(folder / "poses")
        elif kind == "c3vd":
            rows = path.world_from_cam.transpose(0, 2, 1).reshape(-1, 16)
            (folder / "poses").write_text("\n".join(",".join(f"{v:.6f}" for v in r) for r in rows))
        else:
            from scipy.spatial.transform import Rotation

            lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"]
            for i, pose in enumerate(np.linalg.inv(path.world_from_cam)):
                x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
                values = [w, x, y, z, *pose[:3, 3]]
                lines += [f"{i + 1} " + " ".join(f"{v:.9f}" for v in values) + f" 1 {i:04d}.png", "1 2 -1"]
            (folder / "poses").write_text("\n".join(lines))

    return write


def _run(folder: Path) -> None:
    from endorecon.run import FrameRow, RunWriter
    from video_io.view import View

    camera, path = _camera(), _poses()
    with RunWriter(folder, {"input": "clip.mp4"}, overwrite=True) as writer:
        writer.camera(camera, camera, View(48, 32, (0, 0, 48, 32), 48, 32), estimated=False)
        rows = []
        for i in range(6):
            writer.depth(i, np.full((32, 48), 10.0 + i, np.float32), np.full((32, 48), 0.5))
            rows.append(FrameRow(i, i * 40_000_000, "tracked", figures={"residual_px": 0.2}, grade="green"))
        writer.finish(rows, path, _mesh(), scale="mm: made", model="tiny", licence="Apache-2.0", main_segment=0)


def _mesh() -> Any:
    from rendering.mesh import Mesh

    vertices = np.array([[-5, -5, 20], [5, -5, 20], [5, 5, 20], [-5, 5, 20]], np.float32)
    return Mesh(vertices, np.array([[0, 2, 1], [0, 3, 2]]), np.full((4, 3), 120, np.uint8))


def _mesh_file(ending: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import trimesh

        from rendering.mesh import write_ply

        if ending == "ply":
            write_ply(_mesh(), folder / "mesh.ply")
            return
        mesh = trimesh.Trimesh(_mesh().vertices, _mesh().faces, process=False)
        encoding = {"encoding": "ascii"} if ending == "txt.ply" else {}
        data = mesh.export(file_type=ending.removeprefix("txt."), **encoding)
        (folder / f"mesh.{ending.removeprefix('txt.')}").write_bytes(data if isinstance(data, bytes) else data.encode())

    return write


def _points(picked: bool) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        head = "name,frame,u,v" if picked else "name,x,y,z"
        rows = ["a,1,10,12", "b,3,20,20", "c,5,30,8"] if picked else ["a,1,2,3", "b,4,5,6", "c,7,-8,9"]
        lines = [f"{head},ct_x,ct_y,ct_z", *(f"{row},{i},2.5,{-i}" for i, row in enumerate(rows))]
        (folder / "points.csv").write_text("\n".join(lines) + "\n")

    return write


def _phantom(folder: Path) -> None:
    import cv2

    for name in ("rgb", "depth"):
        (folder / name).mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"rgb/{i:04d}.png"), _picture(i))
        cv2.imwrite(str(folder / f"depth/{i:04d}.png"), np.full((32, 48), 4000 + i, np.uint16))
    (folder / "intrinsics.json").write_text(json.dumps({**_camera().to_dict(), "depth_scale": 400}))
    _poses(3).write_tum(folder / "poses.txt")
    _mesh_file("ply")(folder)


def _c3vd(folder: Path) -> None:
    import cv2

    for i in range(3):
        cv2.imwrite(str(folder / f"{i:04d}_color.png"), _picture(i))
        cv2.imwrite(str(folder / f"{i:04d}_depth.tiff"), np.full((32, 48), 9000 + i, np.uint16))
    rows = _poses(3).world_from_cam.transpose(0, 2, 1).reshape(-1, 16)
    (folder / "pose.txt").write_text("\n".join(",".join(f"{v:.6f}" for v in r) for r in rows) + "\n")
    told = {"model": "FISHEYE_OPENCV", "w": 48, "h": 32, "fx": 30.0, "fy": 30.0, "cx": 24.0, "cy": 16.0}
    (folder / "intrinsics.json").write_text(json.dumps(told | {"k1": -0.1, "k2": 0.0, "k3": 0.0, "k4": 0.0}))


def _simcol(folder: Path) -> None:
    import cv2

    for i in range(3):
        cv2.imwrite(str(folder / f"FrameBuffer_{i:04d}.png"), _picture(i, 475, 475))
        cv2.imwrite(str(folder / f"Depth_{i:04d}.png"), np.full((475, 475), 9000, np.uint16))


def _jhu(folder: Path) -> None:
    import cv2

    for number in (7, 9):
        cv2.imwrite(str(folder / f"{number:08d}.jpg"), _picture(number, 100, 80))
    (folder / "visible_view_indexes").write_text("7\n9\n")
    (folder / "camera_intrinsics_per_view").write_text("60\n60\n50\n40\n")
    pose = "  poses[{}]: \n    position: \n      x: {}\n      y: 0\n      z: 0\n    orientation: \n"
    turn = "      x: 0\n      y: 0\n      z: 0\n      w: 1\n"
    header = "header: \n  seq: 0\n  frame_id: \nposes[]:\n"
    (folder / "motion.yaml").write_text(header + pose.format(0, 0) + turn + pose.format(1, 2) + turn)
    names = "property float x\nproperty float y\nproperty float z\n"
    ply = f"ply\nformat ascii 1.0\nelement vertex 2\n{names}element camera 1\nend_header\n0 0 4\n2 1 5\n0 0 0\n"
    (folder / "structure.ply").write_text(ply)
    (folder / "view_indexes_per_point").write_text("-1\n7\n9\n-1\n9\n")


def _adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from foundation_adapters.adapter_files import save_adapter

    model = get_peft_model(_network(), LoraConfig(r=2, target_modules=["0"]))
    save_adapter(model, folder / "adapter", "small", "Apache-2.0", tasks=("depth",), about="made")
    for path in (folder / "adapter").iterdir():
        path.rename(folder / path.name)
    (folder / "adapter").rmdir()


def _network() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


# -- readers ------------------------------------------------------------------------------------------------------


def _read_camera(folder: Path) -> Any:
    from video_io.camera_files import read_camera

    camera = read_camera(next(iter(sorted(folder.iterdir())), folder / "camera"))
    if camera.width * camera.height < 1_000_000:
        return camera.ray_map()
    return camera


def _read_tum(folder: Path) -> Any:
    from endorecon.scales.poses import read_path

    return read_path(folder / "poses")


def _read_poses(folder: Path) -> Any:
    from endorecon.poses import file
    from video_io.sources import open_source

    clip = folder.parents[1] / "clip_for_poses"
    if not clip.is_dir():
        clip.mkdir()
        for i in range(6):
            import cv2

            cv2.imwrite(str(clip / f"{i:04d}.png"), _picture(i))
    if not file.accepts(str(folder / "poses")):
        raise InputError("no such file")
    given = file.open(str(folder / "poses"), None, open_source(clip, fps=25.0)).given
    return [given.at(i, i * 40_000_000) for i in range(8)] if hasattr(given, "at") else given


def _read_source(folder: Path) -> Any:
    from video_io.sources import open_source

    files = sorted(folder.iterdir())
    source = open_source(files[0] if len(files) == 1 else folder, max_frames=30)
    return [f.rgb.sum() for f in source.frames()], source.sample(4), source.skipped


def _read_run(folder: Path) -> Any:
    from endorecon.evaluate.protocol import RunRecord
    from endorecon.run import read_run
    from endorecon.scales import estimates

    run = read_run(folder)
    estimates(run)
    found = [run.depth(i) for i in run.depth_indices[:4]]
    record = RunRecord(run)
    return found, record.mesh(), record.trajectory, run.unit, run.status, run.name


def _read_mesh(folder: Path) -> Any:
    from rendering.mesh import read_mesh

    mesh = read_mesh(next(iter(sorted(folder.iterdir())), folder / "mesh.ply"))
    return mesh.vertex_normals


def _read_points(folder: Path) -> Any:
    from endorecon.evaluate.landmarks import read_landmarks
    from endorecon.run import read_run

    run = folder.parents[1] / "run_for_points"
    if not run.is_dir():
        run.mkdir()
        _run(run)
    return read_landmarks(folder / "points.csv", read_run(run))


def _read_truth(folder: Path) -> Any:
    from video_io.datasets import open_truth

    return _all_of(open_truth(folder))


def _read_layout(layout: str) -> Callable[[Path], Any]:
    """One loader, whether or not it would take the folder."""

    def read(folder: Path) -> Any:
        import importlib

        module = importlib.import_module(f"video_io.datasets.{layout}")
        if not module.accepts(folder):
            raise InputError("not accepted")
        return _read_truth(folder)

    return read


def _all_of(truth: Any) -> Any:
    from rendering.mesh import read_mesh

    found = [truth.depth(i) for i in range(min(truth.frame_count, 3))]
    return found, read_mesh(truth.mesh_path) if truth.mesh_path else None


def _read_adapter(folder: Path) -> Any:
    from foundation_adapters.adapter_files import adapter_sets, load_adapter, read_card, saved_modules

    found = []
    for path in adapter_sets(folder).values():
        read_card(path)
        saved_modules(path)
        found.append(load_adapter(_network(), path, "small"))
    return found


def targets() -> dict[str, Target]:
    """All readers by name; the loaders of data sets are found by themselves."""
    found = {
        "camera_json": Target(_camera_json, _read_camera),
        "camera_run": Target(_camera_run, _read_camera),
        "camera_opencv_yaml": Target(_camera_opencv("yml"), _read_camera),
        "camera_opencv_xml": Target(_camera_opencv("xml"), _read_camera),
        "camera_ros": Target(_camera_ros, _read_camera),
        "camera_colmap": Target(_camera_colmap, _read_camera),
        "trajectory": Target(_tum, _read_tum),
        "poses_tum": Target(_pose_file("tum"), _read_poses),
        "poses_c3vd": Target(_pose_file("c3vd"), _read_poses),
        "poses_colmap": Target(_pose_file("colmap"), _read_poses),
        "video_mp4": Target(_video("libx264", "clip.mp4"), _read_source),
        "video_mkv": Target(_video("libx264", "clip.mkv"), _read_source),
        "video_avi": Target(_video("mjpeg", "clip.avi"), _read_source),
        "video_mpg": Target(_video("mpeg1video", "clip.mpg"), _read_source),
        "images": Target(_images, _read_source),
        "images_png": Target(_png_images, _read_source),
        "run": Target(_run, _read_run),
        "mesh_ply": Target(_mesh_file("ply"), _read_mesh),
        "mesh_ply_text": Target(_mesh_file("txt.ply"), _read_mesh),
        "mesh_stl": Target(_mesh_file("stl"), _read_mesh),
        "mesh_obj": Target(_mesh_file("obj"), _read_mesh),
        "points": Target(_points(False), _read_points),
        "points_picked": Target(_points(True), _read_points),
        "adapter": Target(_adapter, _read_adapter),
    }
    return found | _layouts()


def _layouts() -> dict[str, Target]:
    """A target for each loader's layout: own seeds, and those with which the loaders' tests write their folders."""
    from video_io.datasets import layouts

    own = {"phantom": _phantom, "c3vd": _c3vd, "simcol": _simcol, "jhu_sfm": _jhu}
    found = {f"data_{name}": Target(own.get(name, _phantom), _read_truth) for name in layouts()}
    for name, seed in _made_layouts():
        found[f"data_{name}_made"] = Target(seed, _read_inside)
    return found


def _read_inside(folder: Path) -> object:
    """The first folder, from the top, that is of a known layout."""
    from video_io.datasets import layout_of

    places = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    return _read_truth(next((place for place in places if layout_of(place) is not None), folder))


def _made_layouts() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The functions (folder, clip) of tests/video_io/made_layouts.py, where there is one."""
    if not (TESTS / "video_io" / "made_layouts.py").is_file():
        return
    sys.path.insert(0, str(TESTS / "video_io"))
    import made_layouts

    for name, function in inspect.getmembers(made_layouts, inspect.isfunction):
        if list(inspect.signature(function).parameters)[:2] == ["folder", "clip"]:

            # Some layouts are of one lens only.
            lens = {"c3vd": "omnidirectional", "c3vdv2": "omnidirectional"}.get(name, "stereo")
            lens = "fisheye" if name.startswith("endomapper") else lens

            def seed(folder: Path, function: Callable[..., Any] = function, lens: str = lens) -> None:
                function(folder, made_layouts.made(lens, right=True))

            yield name, seed


# -- damage -------------------------------------------------------------------------------------------------------

_TOKENS = (
    "nan", "inf", "-inf", "-1", "0", "1e308", "-1e308", "1e-320", "99999999999999999999", "2147483648", "4294967295",
    "", "x", "None", "true", "0x10", "1_0", "١٢", "..", "../../x", "/etc/passwd", "\x00", "9" * 5000, "1e400", "-0.0",
    "65536", "100000", "é", "\ud800", "{}", "[]", "!!python/object/apply:os.system ['true']", "&a [*a]", "1,2",
)  # fmt: skip
_NAMES = ("..x", "a\nb.png", "b b.png", "é.jpg", "x" * 240, "-rf", ".hidden.png", "9" * 200 + ".png", "²³.png", "①.jpg")


def damage(folder: Path, rng: random.Random) -> list[str]:
    """Damage some of what lies in a folder; returns what was done."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
        if not files:
            break
        path = rng.choice(files)
        change = rng.choice(_TREE) if rng.random() < 0.15 else None
        try:
            if change is not None:
                done.append(f"{change.__name__} {path.name}")
                change(path, folder, rng)
            else:
                with open(path, "rb") as file:
                    data = file.read(5_000_000)
                how = rng.choice(_TEXT if _is_text(data) and rng.random() < 0.75 else _BYTES)
                done.append(f"{how.__name__} {path.name}")
                path.write_bytes(how(data, rng))
        except OSError as error:
            done.append(f"(not done: {error})")
    return done


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:2000] and sum(b > 127 for b in data[:2000]) < 0.05 * len(data[:2000]) + 1


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _head_flip(data: bytes, rng: random.Random) -> bytes:
    return _flip(data[:200], rng) + data[200:]


def _number(data: bytes, rng: random.Random) -> bytes:
    if len(data) < 8:
        return data
    at = rng.randrange(len(data) - 7)
    kind = rng.choice(("<I", ">I", "<H", ">H", "<f", "<d", ">Q"))
    values = (0, 1, -1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, 65536, 0x80000000, float("nan"), float("inf"), 1e308)
    value = rng.choice(values)
    try:
        packed = struct.pack(kind, value)
    except (struct.error, OverflowError):
        packed = b"\xff" * struct.calcsize(kind)
    return data[:at] + packed + data[at + len(packed) :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _cut_little(data: bytes, rng: random.Random) -> bytes:
    return data[: max(len(data) - rng.randrange(1, 64), 0)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 256)) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 4, 16, 200))) + data[at:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + rng.choice((4, 64, 1024))] * rng.choice((2, 10)) + data[at:]


def _nothing(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\n", b"\0", b"{}", b"[]", b"null", b"0", b"\xff\xfe", b"\xef\xbb\xbf"))


def _token(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    found = list(re.finditer(r"[-+\w.]+", text))
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 2, 5)))), key=lambda m: -m.start()):
        text = text[: match.start()] + rng.choice(_TOKENS) + text[match.end() :]
    return text.encode("utf-8", "surrogatepass")


def _digit(data: bytes, rng: random.Random) -> bytes:
    out, at = bytearray(data), [i for i, b in enumerate(data) if 48 <= b <= 57]
    for i in rng.sample(at, min(len(at), rng.choice((1, 2, 6)))):
        out[i] = rng.choice(b"0123456789-.e")
    return bytes(out)


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(4)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 2:
        lines.insert(i, lines[j])
    else:
        lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)]
    return b"\n".join(lines)


def _symbol(data: bytes, rng: random.Random) -> bytes:
    out, at = bytearray(data), [i for i, b in enumerate(data) if b in b'{}[]",:\n\t <>/()']
    if at:
        out[rng.choice(at)] = rng.choice(b'{}[]",:\n <>/&*!%#|')
    return bytes(out)


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _token(data, rng)
    odd: list[Any] = [None, True, [], {}, "", "x", -1, 0, 1e308, 10**30, [1, [2]], {"a": {"b": 1}}, "nan", float("nan")]
    node, parents = value, []
    while isinstance(node, (dict, list)) and node:
        key = rng.choice(sorted(node) if isinstance(node, dict) else list(range(len(node))))
        parents.append((node, key))
        node = node[key]
        if rng.random() < 0.4:
            break
    if not parents:
        return json.dumps(rng.choice(odd)).encode()
    holder, key = parents[-1]
    how = rng.randrange(3)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice(_TOKENS[:24])] = holder.pop(key)
    else:
        holder[key] = rng.choice(odd)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _deep(data: bytes, rng: random.Random) -> bytes:
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"<a>", b"</a>")))
    return opening * 20_000 + b"1" + closing * 20_000


def _utf16(data: bytes, rng: random.Random) -> bytes:
    return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")), "surrogatepass")


def _removed(path: Path, folder: Path, rng: random.Random) -> None:
    path.unlink()


def _renamed(path: Path, folder: Path, rng: random.Random) -> None:
    path.rename(path.with_name(rng.choice(_NAMES)))


def _copied(path: Path, folder: Path, rng: random.Random) -> None:
    if path.stat().st_size < 1 << 30:  # a copy of a sparse file would take room
        shutil.copy(path, path.with_name(rng.choice(_NAMES)))


def _directory(path: Path, folder: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, folder: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(("/etc/passwd", "nowhere", path.name, "..", "/dev/null", "../outside/canary")))


def _loop(path: Path, folder: Path, rng: random.Random) -> None:
    (path.parent / "loop").symlink_to(path.parent)


def _pipe(path: Path, folder: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _huge(path: Path, folder: Path, rng: random.Random) -> None:
    if path.suffix in (".mp4", ".mkv", ".avi", ".mpg"):
        return  # a video may well be large, and is read piece by piece
    with open(path, "r+b") as file:
        file.truncate(6_000_000_000)  # sparse: it takes no room


def _exchanged(path: Path, folder: Path, rng: random.Random) -> None:
    other = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()))
    aside = path.with_name(".aside")
    path.rename(aside)
    if other != path:
        other.rename(path)
    aside.rename(other)


_BYTES = (_flip, _flip, _head_flip, _number, _number, _cut, _cut_little, _remove, _insert, _repeat, _nothing)
_TEXT = (_token, _token, _digit, _lines, _lines, _symbol, _json, _json, _deep, _utf16, _flip, _cut)
_TREE = (_removed, _renamed, _copied, _directory, _link, _loop, _pipe, _huge, _exchanged, _exchanged)


# -- a case -------------------------------------------------------------------------------------------------------


class Sandbox:
    """A folder in which cases are read, and in which a file that should not be there is seen.

    input/ is the case; outside/ holds what must stay as it is; the current folder is cwd/, TMPDIR is tmp/.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("input", "outside", "cwd", "tmp", "seeds"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "outside" / "canary").write_text("as it was\n")
        os.environ["TMPDIR"] = str(root / "tmp")
        os.chdir(root / "cwd")
        self.written: list[str] = []
        self._watching = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's own account of files that are opened for writing, made, moved or removed."""
        if not self._watching:
            return
        if event == "open":
            path, mode, flags = arguments
            writing = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writing and isinstance(path, (str, bytes)) and not os.fsdecode(path).startswith(self._allowed()):
                self.written.append(f"open {os.fsdecode(path)}")
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"):
            if not str(arguments[0]).startswith(self._allowed()):
                self.written.append(f"{event} {arguments[0]}")
        elif event in ("os.system", "subprocess.Popen", "os.exec", "socket.connect"):
            self.written.append(f"{event} {str(arguments)[:80]}")

    def _allowed(self) -> tuple[str, ...]:
        return (str(self.root / "tmp"), "/dev/null", "/proc/self")

    def _listing(self) -> dict[str, tuple[int, int]]:
        found = {}
        for name in ("input", "outside", "cwd", "tmp"):
            for path in (self.root / name).rglob("*"):
                stat = path.lstat()
                found[str(path)] = (stat.st_size, stat.st_mtime_ns if not path.is_dir() else 0)
        return found

    def seeded(self, name: str, target: Target) -> Path:
        """The valid seed of a target; made once."""
        seed = self.root / "seeds" / name
        if not seed.is_dir():
            seed.mkdir()
            target.seed(seed)
        return seed

    def prepare(self, name: str, target: Target, number: int) -> tuple[Path, list[str]]:
        """The damaged input of a case, and what was done to it; number 0 is the seed as it is."""
        folder = self.root / "input" / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.seeded(name, target), folder)
        return folder, damage(folder, random.Random(f"{name}/{number}")) if number else []

    def run(self, name: str, target: Target, number: int) -> Outcome:
        """Read a case and judge what came of it."""
        folder, done = self.prepare(name, target, number)
        before = self._listing()
        self.written, self._watching = [], True
        try:
            target.read(folder)
            outcome = Outcome("value", "; ".join(done))
        except InputError as error:
            said = str(error)
            kind = "refused" if 0 < len(said) <= LONGEST_MESSAGE else "bug"
            told = said[:200] if kind == "refused" else f"a message of {len(said)} characters"
            outcome = Outcome(kind, f"{'; '.join(done)}: {told}")
        except Exception as error:  # noqa: BLE001 - that it may be anything is what is looked for
            outcome = Outcome("bug", f"{'; '.join(done)}: {_trace(error)}")
        finally:
            self._watching = False
        if outcome.kind != "bug" and (changed := self._changed(before)):
            outcome = Outcome("bug", f"{'; '.join(done)}: wrote {changed}")
        return outcome

    def _changed(self, before: dict[str, tuple[int, int]]) -> str:
        after = self._listing()
        changed = [p for p in after.keys() | before.keys() if after.get(p) != before.get(p)]
        return ", ".join([*self.written[:3], *changed[:3]])


def _trace(error: Exception) -> str:
    import traceback

    own = [f for f in traceback.extract_tb(error.__traceback__) if "fuzzing.py" not in f.filename]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(own[-4:]))
    return f"{type(error).__name__}: {str(error)[:160]!r} at {where}"
