"""Folders that are wrong: one sentence each, which says what was found and what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import made_layouts as made_
import numpy as np
import pytest
from made_layouts import Made, made

from video_io.datasets import open_truth
from video_io.errors import InputError

Damage = Callable[[Path], object]


def cut(name: str, lines: int = 1) -> Damage:
    """Take lines off the end of a file."""
    return lambda f: (f / name).write_text("\n".join((f / name).read_text().splitlines()[:-lines]) + "\n")


def gone(name: str) -> Damage:
    """Take files away."""

    def remove(folder: Path) -> None:
        found = list(folder.glob(name))
        assert found
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def put(name: str, content: str) -> Damage:
    """Write something else."""
    return lambda f: (f / name).write_text(content)


def pipe(name: str) -> Damage:
    """Put a named pipe in a file's place, which nobody writes to."""
    return lambda f: ((f / name).unlink(), os.mkfifo(f / name))


def circle(name: str) -> Damage:
    """Put a link to itself in the place of a folder's second file."""

    def link(folder: Path) -> None:
        path = sorted((folder / name).iterdir())[1]
        path.unlink()
        path.symlink_to(path.name)

    return link


def resized(name: str) -> Damage:
    """Halve an image."""
    return lambda f: cv2.imwrite(str(f / name), cv2.imread(str(f / name), cv2.IMREAD_UNCHANGED)[::2, ::2])


def told(name: str, change: Callable[[dict], object]) -> Damage:
    """Change a json file."""

    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return edit


def bounds(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Change poses_bounds.npy."""
    return lambda f: np.save(f / "poses_bounds.npy", change(np.load(f / "poses_bounds.npy")))


def _eight_bits(folder: Path) -> None:
    path = folder / "depth/frame_00001.png"
    cv2.imwrite(str(path), (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) >> 8).astype(np.uint8))


Writer = Callable[[Path, Made], Path]
TWO = {"right": True}
STEREO = {"model": "stereo", "scene": "abdomen", "right": True}
BAD: list[tuple[Writer, dict, Damage, str]] = [
    (made_.c3vd, {"model": "fisheye"}, gone("0002_depth.tiff"), "3 images but 2 depth images"),
    (made_.c3vd, {"model": "fisheye"}, lambda f: (f / "0002_depth.tiff").rename(f / "0009_depth.tiff"),
     r"'0002_color\.png' stands beside '0009_depth\.tiff'"),
    (made_.c3vd, {"model": "fisheye"}, cut("pose.txt"), "has 2 rows, but there is an image 0002"),
    (made_.c3vd, {"model": "fisheye"}, put("pose.txt", "1,0,0,0,0,1,0,0\n"), "line 1 has 8 values"),
    (made_.c3vd, {"model": "fisheye"}, put("pose.txt", "1,0,0,5,0,1,0,0,0,0,1,0,1,2,3,1\n" * 3),
     "neither last row nor"),
    (made_.c3vd, {"model": "fisheye"}, put("pose.txt", "2,0,0,0,0,1,0,0,0,0,1,0,1,2,3,1\n" * 3), "is no rotation"),
    (made_.c3vd, {"model": "fisheye"}, put("pose.txt", "one,0,0\n"), r"line 1 is 'one,0,0'"),
    (made_.c3vd, {"model": "fisheye"}, told("intrinsics.json", lambda v: v.update(w=640)), "640 x 128, the images are"),
    (made_.c3vdv2, {"model": "omnidirectional"}, put("camera_intrinsics.txt", "cx = 3\n"), "does not give cy, a0"),
    (made_.simcol, {}, lambda f: cut("SavedPosition_S5.txt")(f.parent), "2 positions, .* 3 rotations"),
    (made_.simcol, {}, lambda f: [cut(n)(f.parent) for n in ("SavedPosition_S5.txt", "SavedRotationQuaternion_S5.txt")],
     "has 2 poses, but there is an image 0002"),
    (made_.simcol, {}, lambda f: put("SavedRotationQuaternion_S5.txt", "0 0 0 0\n" * 3)(f.parent), "of length zero"),
    (made_.simcol, {}, lambda f: put("cam.txt", "227 0 227\n")(f.parent), "holds 3 numbers; expected a 3 x 3"),
    (made_.scared, {"model": "brown", **TWO}, lambda f: [gone("data/rgb.mp4")(f), gone("Left_Image.png")(f)],
     "holds no frames of SCARED"),
    (made_.scared, {"model": "brown", **TWO}, put("data/frame_data.tar.gz", "none"), "can't be read"),
    (made_.scared, {"model": "brown", **TWO},
     lambda f: made_.packed(f / "data/frame_data.tar.gz", {"../frame_data000000.json": b"{}"}),
     "would leave its folder"),
    (made_.scared_endodac, {"model": "brown"}, put("data/frame_data/frame_data000001.json", "[1]"),
     "no frame of SCARED"),
    (made_.scared_endodac, {"model": "brown"}, gone("data/scene_points/scene_points000000.tiff"), "is missing"),
    (made_.endonerf, {}, gone("masks/000001.png"), "3 images but 2 masks"),
    (made_.endonerf, {}, bounds(lambda t: t[:2]), "3 images but 2 poses"),
    (made_.endonerf, {}, bounds(lambda t: t[:, :15]), r"has the shape \(3, 15\)"),
    (made_.endonerf, {}, bounds(lambda t: t * np.where(np.arange(17) == 4, 8, 1)), r"tells of images of 160 x 1024"),
    (made_.endonerf, {}, resized("depth/000000.png"), "is 80 x 64, the images are 160 x 128"),
    (made_.endonerf, {}, put("poses_bounds.npy", "none"), "can't be read; expected numpy's N x 17"),
    (made_.hamlyn, TWO, gone("depth01/0000000001.png"), r"no depth of 0000000001\.jpg \(1 of 3 are missing\)"),
    (made_.hamlyn, TWO, gone("image02/0000000001.jpg"), "3 images but 2 right images"),
    (made_.hamlyn, TWO, resized("depth01/0000000000.png"), "is 80 x 64, the images are 160 x 128"),
    (made_.servct, STEREO, gone("Right_rectified/002.png"), "3 images but 2 right images"),
    (made_.servct, STEREO, gone("Reference_CT/DepthL"), "3 images but 0 left depth images"),
    (made_.servct, STEREO, put("Rectified_calibration/001.json", "{}"), "can't be used as the calibration"),
    (made_.servct, STEREO, gone("Rectified_calibration/001.json"), "3 images but 2 calibrations"),
    (made_.stereomis, STEREO, cut("groundtruth.txt"), r"no pose of frame 2 \(1 of 3 frames lack one\)"),
    (made_.stereomis, STEREO, put("StereoCalibration.ini", "[StereoLeft]\n"),
     "can't be used as the stereo calibration"),
    (made_.stereomis, STEREO, lambda f: os.truncate(f / "StereoCalibration.ini", 6_000_000_000), "at most 64 MB"),
    (made_.stereomis, STEREO, gone("*.mp4"), "holds 0 videos"),
    (lambda f, c: made_.stereomis(f, c, False), STEREO, gone("video_frames/000001r.png"),
     "3 images but 2 right images"),
    (made_.endomapper_simulated, {"model": "fisheye"}, cut("trajectory.csv"),
     "has 2 poses, but there is an image 0002"),
    (made_.endomapper_simulated, {"model": "fisheye"}, put("trajectory.csv", "h\na;b\n"), "can't be read"),
    (made_.endomapper_simulated, {"model": "fisheye"}, put("depth/aov_image_0000.exr", "x"), "expected an intact EXR"),
    (made_.endomapper_simulated, {"model": "fisheye"}, pipe("depth/aov_image_0000.exr"), "is a pipe or a device"),
    (made_.endomapper_simulated, {"model": "fisheye"}, put("Sim_geometrical.xml", '<camera_model type="fov"/>'),
     "no camera_model with type, width"),
    (made_.endoslam, {}, cut("Poses/colon_position_rotation.csv"), "3 images but 2 poses"),
    (made_.endoslam, {}, gone("Pixelwise Depths/aov_image_0001.png"), "3 images but 2 depth images"),
    (made_.tum, {"model": "brown"}, lambda f: sorted((f / "rgb").iterdir())[1].unlink(),
     "which rgb.txt names, is missing"),
    (made_.tum, {"model": "brown"}, put("rgb.txt", "1 ../secret.png\n"), "outside the folder"),
    (made_.tum, {"model": "brown"}, circle("rgb"), "outside the folder"),
    (made_.tum, {"model": "brown"}, put("rgb.txt", "soon rgb/1.png\n"), "expected a time and a path"),
    (made_.tum, {"model": "brown"}, put("groundtruth.txt", "7 0 0 0 0 0 0 1\n"), "reaches from 7.000 to 7.000 s"),
    (made_.colmap, {"model": "brown"}, gone("images/frame_00001.png"), r"the image 'frame_00001\.png' .* is missing"),
    (made_.colmap, {"model": "brown"}, lambda f: _half(f / "sparse/0/images.bin"), "can't be read"),
    (made_.colmap, {"model": "brown"}, lambda f: _half(f / "sparse/0/cameras.bin"), "can't be read"),
    (made_.colmap, {"model": "brown"}, lambda f: _half(f / "sparse/0/points3D.bin"), "can't be read"),
    (lambda f, c: made_.colmap(f, c, False), {"model": "brown"}, put("sparse/0/cameras.txt", "1 FOV 4 4 1 1 1 1 1\n"),
     "COLMAP's model FOV is not supported"),
    (made_.nerfstudio, {}, gone("depth/frame_00002.png"),
     r"frame_00002\.png', which transforms\.json names, is missing"),
    (made_.nerfstudio, {}, put("transforms.json", "{"), "can't be used"),
    (made_.nerfstudio, {}, told("transforms.json", lambda v: v.update(frames=[])), "has no frames"),
    (made_.nerfstudio, {}, told("transforms.json", lambda v: v["frames"][0].update(fl_x=3)), "different cameras"),
    (made_.nerfstudio, {}, told("transforms.json", lambda v: v["frames"][0].update(file_path="../x.png")),
     "outside its"),
    (made_.nerfstudio, {}, told("transforms.json", lambda v: v["frames"][1].pop("depth_file_path")), "2 of 3 frames"),
    (made_.nerfstudio, {}, told("transforms.json", lambda v: v.pop("fl_x")), "neither fl_x nor camera_angle_x"),
    (made_.nerfstudio, {}, _eight_bits, "8 bits a pixel"),
]  # fmt: skip


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@cache
def _pristine(write: Writer, key: tuple, base: Path) -> tuple[Path, Path]:
    root = base / f"{len(list(base.iterdir()))}"
    root.mkdir()
    return root, write(root, made(**dict(key))).relative_to(root)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pristine")


@pytest.mark.parametrize(("write", "clip", "damage", "message"), BAD, ids=[f"{m[:40]}" for *_, m in BAD])
def test_a_wrong_folder(write: Writer, clip: dict, damage: Damage, message: str, base: Path, tmp_path: Path) -> None:
    root, inside = _pristine(write, tuple(clip.items()), base)
    shutil.copytree(root, tmp_path / "copy")
    folder = tmp_path / "copy" / inside
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        truth = open_truth(folder)
        truth.depth(0)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "expected" in sentence or ";" in sentence


def test_a_folder_above_is_answered_with_the_one_below(tmp_path: Path) -> None:
    made_.c3vd(tmp_path / "data/trans_t1_a", made("fisheye"))
    with pytest.raises(InputError, match=r"'.*trans_t1_a' is one \(c3vd\): give that"):
        open_truth(tmp_path)


@cache
def _whole(name: str) -> dict[str, bytes]:
    """The files of a good folder."""
    import tempfile

    write, clip = DAMAGED[name]
    with tempfile.TemporaryDirectory() as scratch:
        root = write(Path(scratch) / "x", made(**clip))
        top = Path(scratch) / "x"
        return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()} | {
            "": str(root.relative_to(top)).encode()
        }


DAMAGED = {
    "colmap": (made_.colmap, {"model": "brown"}),
    "scared": (made_.scared, {"model": "brown", "right": True}),
    "simcol": (made_.simcol, {}),
    "endonerf": (made_.endonerf, {}),
    "nerfstudio": (made_.nerfstudio, {}),
    "tum": (made_.tum, {"model": "brown"}),
    "stereomis": (made_.stereomis, STEREO),
    "endomapper": (made_.endomapper_simulated, {"model": "fisheye"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_bytes_are_read_or_answered(name: str, tmp_path: Path) -> None:
    """Bytes changed anywhere in the files that are no pictures: a truth or a sentence, never anything else."""
    files, rng = _whole(name), np.random.default_rng(1)
    folder = tmp_path / files[""].decode()
    for file, content in files.items():
        if file:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(content)
    facts = [f for f in files if f and not f.endswith((".png", ".jpg", ".mp4", ".mov"))]
    for _ in range(40):
        file = facts[rng.integers(len(facts))]
        content = bytearray(files[file])
        if rng.random() < 0.3:
            content = content[: rng.integers(len(content))]
        else:
            for _ in range(rng.integers(1, 9)):
                content[rng.integers(len(content))] = rng.integers(256)
        (tmp_path / file).write_bytes(bytes(content))
        try:
            truth = open_truth(folder)
            if name != "stereomis":  # matching takes long
                truth.depth(0)
        except InputError as error:
            assert "\n" not in str(error)
        (tmp_path / file).write_bytes(files[file])
