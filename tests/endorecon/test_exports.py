"""What a run is exported as, read back by the programs that it is for, or by readers of our own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from made_run import write_run

from endorecon.cli import main
from endorecon.evaluate.spoiled import spoiled_run
from endorecon.exports import exports, find_export
from endorecon.exports.base import Choice, Material, common, whole_folder
from endorecon.exports.colmap import colmap_camera
from endorecon.exports.nerfstudio import nerfstudio_camera
from endorecon.run import Run, read_run
from endorecon.scenes._splat_files import encoded
from endorecon.scenes._splat_model import NAMES, Splats, read_splats, write_splats
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.datasets import Truth, open_truth
from video_io.errors import InputError
from video_io.trajectory import Trajectory

CAMERA = Camera.from_fov(96, 80, np.radians(80))
OMNI = Camera("omnidirectional", 96, 80, (47.0, 41.0, 50.0, -0.004, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0))
FRAMES = 9


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose poses and depths are the truth of a phantom colon, in millimetres."""
    folder = tmp_path_factory.mktemp("exports")
    clip = simulate("colon", 5, FRAMES, CAMERA, 30.0, folder / "clip", extras=False)
    spoiled_run(clip, folder / "run")
    return read_run(folder / "run")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same of an omnidirectional camera."""
    folder = tmp_path_factory.mktemp("wide")
    clip = simulate("colon", 5, 2, OMNI, 30.0, folder / "clip", extras=False)
    spoiled_run(clip, folder / "run")
    return read_run(folder / "run")


def exported(run: Run, form: str, out: Path, choice: Choice | None = None) -> Path:
    with whole_folder(out) as folder:
        assert find_export(form).export(Material(run, choice), folder)
    return out


def some_splats(number: int = 600, degree: int = 2) -> Splats:
    rng = np.random.default_rng(1)
    some = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return Splats(
        10 * some(number, 3), some(number, 4), some(number, 3) - 2, some(number), some(number, 1, 3),
        0.3 * some(number, (degree + 1) ** 2 - 1, 3),
    )  # fmt: skip


def same_poses(truth: Truth, run: Run, scale: float = 1.0, tolerance: float = 1e-5) -> None:
    assert truth.trajectory is not None
    found, path = truth.trajectory.world_from_cam.copy(), run.trajectory.world_from_cam
    found[:, :3, 3] /= scale
    assert np.abs(found - path).max() < tolerance * (1 + np.abs(path[:, :3, 3]).max())


def test_names() -> None:
    assert exports() == [
        "colmap", "compressed-ply", "glb", "llff", "nerfstudio", "obj", "ply", "points", "splat", "stl", "tum",
    ]  # fmt: skip
    assert all(find_export(name).ABOUT for name in exports())
    with pytest.raises(InputError, match="form 'usd' is not known; choose one of colmap, compressed-ply"):
        find_export("usd")


class TestColmap:
    def test_read_by_pycolmap(self, run: Run, tmp_path: Path) -> None:
        import pycolmap

        out = exported(run, "colmap", tmp_path / "out")
        model = pycolmap.Reconstruction(out / "sparse" / "0")
        camera = model.cameras[1]
        assert camera.model.name == "PINHOLE" and (camera.width, camera.height) == (96, 80)
        assert list(camera.params) == list(CAMERA.params) and len(model.images) == FRAMES
        for number, image in model.images.items():
            pose = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
            assert pose @ run.trajectory.world_from_cam[number - 1] == pytest.approx(np.eye(4), abs=1e-9)
            assert (out / "images" / image.name).is_file() and (out / "masks" / f"{image.name}.png").is_file()
            seen = [p for p in image.points2D if p.has_point3D()]
            assert len(seen) > 50
            for point in seen[::10]:
                there = image.project_point(model.points3D[point.point3D_id].xyz)
                assert there == pytest.approx(point.xy, abs=1e-6)
        assert max(len(p.track.elements) for p in model.points3D.values()) > 1

    def test_read_by_ourselves(self, run: Run, tmp_path: Path) -> None:
        truth = open_truth(exported(run, "colmap", tmp_path / "out"))
        assert truth.layout == "colmap" and truth.camera == CAMERA
        same_poses(truth, run)
        sparse, (depth, _) = truth.depth(4), run.depth(4)
        assert sparse is not None
        there = (sparse > 0) & (depth > 0)
        assert there.sum() > 50 and np.median(np.abs(sparse / np.where(there, depth, 1) - 1)[there]) < 0.02

    def test_models_of_cameras(self) -> None:
        brown = (40.0, 41, 48, 40, 0.1, 0.2, 0.01, 0.02)
        assert colmap_camera(Camera("brown", 96, 80, (*brown, 0.0))) == ("OPENCV", list(brown))
        assert colmap_camera(Camera("brown", 96, 80, (*brown, 0.3))) == ("FULL_OPENCV", [*brown, 0.3, 0, 0, 0])
        assert colmap_camera(Camera("fisheye", 96, 80, brown))[0] == "OPENCV_FISHEYE"
        with pytest.raises(ValueError, match="no omnidirectional camera"):
            colmap_camera(OMNI)


class TestNerfstudio:
    def test_read_by_ourselves(self, run: Run, tmp_path: Path) -> None:
        out = exported(run, "nerfstudio", tmp_path / "out")
        truth = open_truth(out)
        assert truth.layout == "nerfstudio" and truth.camera == CAMERA and truth.unit == "mm"
        same_poses(truth, run)
        found, (depth, confidence) = truth.depth(3), run.depth(3)
        assert found is not None and found == pytest.approx(np.where(confidence > 0, depth, 0), rel=1e-5)
        told = json.loads((out / "transforms.json").read_text())
        assert told["val_filenames"] == ["images/frame_000000.png", "images/frame_000008.png"]
        assert len(told["train_filenames"]) == FRAMES - 2
        points = trimesh.load(out / "sparse_pc.ply")
        vertices = Material(run).mesh().vertices
        assert len(points.vertices) == len(vertices) and points.vertices.max() == pytest.approx(vertices.max() / 1000)

    def test_by_hand(self, tmp_path: Path) -> None:
        """A camera 2 mm along z: right, up and backwards are x, -y, -z, and 2 mm are .002 m."""
        clip = simulate("plaster", 0, 1, CAMERA, 30.0, tmp_path / "clip", extras=False)
        spoiled_run(clip, tmp_path / "run")
        (tmp_path / "run" / "trajectory.tum").write_text("0.000000000 0 0 2 0 0 0 1\n")
        out = exported(read_run(tmp_path / "run"), "nerfstudio", tmp_path / "out")
        told = json.loads((out / "transforms.json").read_text())
        assert told["frames"][0]["transform_matrix"] == [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.002], [0, 0, 0, 1]]
        assert told["camera_model"] == "OPENCV" and told["fl_x"] == CAMERA.params[0] and "val_filenames" not in told

    def test_a_run_up_to_scale_stays_one(self, run: Run, tmp_path: Path) -> None:
        free = replace(run, info={**run.info, "unit": "up to scale"})
        assert open_truth(exported(free, "nerfstudio", tmp_path / "out")).unit == "up to scale"

    def test_cameras_by_name(self) -> None:
        told = nerfstudio_camera(Camera("fisheye", 96, 80, (40.0, 41, 48, 40, 0.1, 0.2, 0.3, 0.4)))
        assert (told["camera_model"], told["k1"], told["k4"]) == ("OPENCV_FISHEYE", 0.1, 0.4)
        told = nerfstudio_camera(Camera("brown", 96, 80, (40.0, 41, 48, 40, 0.1, 0.2, 0.01, 0.02, 0.3)))
        assert (told["p1"], told["p2"], told["k3"]) == (0.01, 0.02, 0.3)


def test_tum(run: Run, tmp_path: Path) -> None:
    truth = open_truth(exported(run, "tum", tmp_path / "out"))
    assert truth.layout == "tum" and truth.camera == CAMERA
    same_poses(truth, run)
    found, (depth, _) = truth.depth(3), run.depth(3)
    assert found is not None and np.abs(found - depth).max() <= 0.1001  # a step is .2 mm


def test_llff(run: Run, tmp_path: Path) -> None:
    out = exported(run, "llff", tmp_path / "out")
    truth, factor = open_truth(out), float((out / "unit.txt").read_text().split(" is ")[1].split()[0])
    assert truth.layout == "endonerf" and truth.camera is not None
    assert truth.camera.params == pytest.approx(CAMERA.straightened().params) and factor in (100, 1000)
    same_poses(truth, run, factor)
    found, (depth, _) = truth.depth(3), run.depth(3)
    assert found is not None and np.abs(found / factor - depth).max() < 0.51 / factor
    bounds = np.load(out / "poses_bounds.npy")[3, 15:] / factor
    assert bounds == pytest.approx(np.percentile(depth[depth > 0], [1, 99]), rel=1e-4)


def test_points_lie_on_the_surface(run: Run, tmp_path: Path) -> None:
    from rendering.mesh import nearest_on, read_ply

    points = read_ply(exported(run, "points", tmp_path / "out", Choice(every=4)) / "points.ply")
    assert points.colors is not None and len(points.vertices) > 10_000
    off = nearest_on(Material(run).mesh(), points.vertices[::200]).distance
    assert np.median(off) < 0.3


@pytest.mark.parametrize("form", ["glb", "stl", "obj"])
def test_meshes_are_read_by_trimesh(run: Run, tmp_path: Path, form: str) -> None:
    mesh, out = Material(run).mesh(), exported(run, form, tmp_path / "out")
    found = trimesh.load(out / f"mesh.{form}", force="mesh")
    assert len(found.faces) == len(mesh.faces) and found.bounds == pytest.approx(mesh_bounds(mesh), rel=1e-5, abs=1e-4)


def mesh_bounds(mesh) -> np.ndarray:
    return np.stack([mesh.vertices.min(0), mesh.vertices.max(0)])


class TestLenses:
    def test_an_omnidirectional_lens_becomes_a_fisheye(self, wide: Run, tmp_path: Path) -> None:
        """Depth at a fisheye's pixel is the depth at the pixel that the same ray has in the run's own camera."""
        truth = open_truth(exported(wide, "nerfstudio", tmp_path / "out"))
        assert truth.camera is not None and truth.camera.model == "fisheye"
        found, (depth, _) = truth.depth(0), wide.depth(0)
        assert found is not None and (found > 0).mean() > 0.8
        pixels, _ = OMNI.project(truth.camera.ray_map())
        u, v = np.clip(pixels.astype(int), 0, [95, 79]).transpose(2, 0, 1)
        there = (found > 0) & (depth[v, u] > 0)
        assert np.median(np.abs(found / np.where(there, depth[v, u], 1) - 1)[there]) < 0.01

    def test_the_fitted_fisheye_is_near(self) -> None:
        """Within a pixel of the image wherever a ray of it is seen by both."""
        fitted = common(OMNI)
        pixels, seen = fitted.project(np.nan_to_num(OMNI.ray_map()))
        off = np.linalg.norm(pixels - OMNI.pixels(), axis=-1)
        assert seen.mean() > 0.9 and np.quantile(off[seen], 0.99) < 0.5
        assert common(CAMERA) is CAMERA

    def test_full_size(self, run: Run, tmp_path: Path) -> None:
        shot = next(Material(run, Choice(full_size=True)).shots())
        assert shot.rgb.shape == (80, 96, 3) and shot.camera == CAMERA and shot.depth.shape == (80, 96)


class TestSplats:
    @pytest.mark.parametrize("degree", [0, 2, 3])
    def test_ply_is_what_gsplat_writes(self, tmp_path: Path, degree: int) -> None:
        exporter = pytest.importorskip("gsplat.exporter")
        splats = some_splats(degree=degree)
        assert encoded(splats, "ply") == exporter.export_splats(**splats.tensors(), format="ply")
        write_splats(splats, tmp_path / "a.ply")
        assert np.array_equal(read_splats(tmp_path / "a.ply").shN, splats.shN)

    def test_splat_is_what_gsplat_writes(self) -> None:
        exporter = pytest.importorskip("gsplat.exporter")
        splats = some_splats()
        mine = np.frombuffer(encoded(splats, "splat"), np.uint8).reshape(-1, 32)
        theirs = exporter.export_splats(**splats.tensors(), format="splat")
        theirs = np.frombuffer(theirs, np.uint8).reshape(-1, 32)
        assert np.array_equal(mine[:, :12], theirs[:, :12])
        scales = [table[:, 12:24].copy().view("<f4") for table in (mine, theirs)]
        assert scales[0] == pytest.approx(scales[1], rel=1e-6)
        assert np.abs(mine[:, 24:].astype(int) - theirs[:, 24:]).max() <= 1  # rounding of float32

    def test_compressed_is_what_gsplat_writes(self) -> None:
        exporter = pytest.importorskip("gsplat.exporter")
        splats = some_splats(700)
        theirs = exporter.export_splats(**splats.tensors(), format="ply_compressed")
        mine = encoded(splats, "compressed")
        (head, bounds, words, rest), told = unpacked(mine), unpacked(theirs)
        assert head == told[0] and bounds == pytest.approx(told[1], rel=1e-6)
        place, turn, color = (11, 10, 11), (2, 10, 10, 10), (8, 8, 8, 8)
        for column, bits in enumerate((place, turn, place, color)):
            ours, others = (fields(table[:, column], bits) for table in (words, told[2]))
            assert np.abs(ours - others).max() <= 1  # rounding of float32
        assert np.abs(rest.astype(int) - told[3]).max() <= 1

    def test_compressed_comes_back(self, tmp_path: Path) -> None:
        """By plyfile, and SuperSplat's rules: a chunk's 256 Gaussians lie between its bounds, in steps of 1 / 2047."""
        plyfile = pytest.importorskip("plyfile")
        splats = some_splats(513)  # so that the last chunk has one, whose bounds fall together
        splats = replace(splats, opacities=np.abs(splats.opacities))
        write_splats(splats, tmp_path / "a.compressed.ply")
        ply = plyfile.PlyData.read(tmp_path / "a.compressed.ply")
        assert [(e.name, e.count) for e in ply.elements] == [("chunk", 3), ("vertex", 513), ("sh", 513)]
        chunk, word = ply["chunk"].data, ply["vertex"].data["packed_position"]
        at = np.arange(513) // 256
        unit = np.stack([word >> 21, (word >> 11) & 1023, word & 2047], 1) / [2047, 1023, 2047]
        low, high = (np.stack([chunk[f"{s}_{a}"][at] for a in "xyz"], 1) for s in ("min", "max"))
        found = low + unit * (high - low)
        from scipy.spatial import cKDTree

        off, row = cKDTree(splats.means).query(found)
        assert off.max() < 0.05 and len(set(row)) > 500
        alpha = (ply["vertex"].data["packed_color"] & 255) / 255
        assert np.abs(alpha - 1 / (1 + np.exp(-splats.opacities[row]))).mean() < 0.01

    def test_read_by_plyfile(self, tmp_path: Path) -> None:
        plyfile = pytest.importorskip("plyfile")
        splats = some_splats(degree=1)
        write_splats(splats, tmp_path / "a.ply")
        vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"].data
        assert np.array_equal(vertex["f_rest_3"], splats.shN[:, 0, 1])  # a channel after the other
        assert np.array_equal(vertex["rot_0"], splats.quats[:, 0])

    def test_what_is_no_number_is_left_out(self, tmp_path: Path) -> None:
        splats = some_splats(5)
        splats.opacities[2] = np.nan
        splats.means[3, 1] = np.inf
        write_splats(splats, tmp_path / "a.ply")
        assert np.array_equal(read_splats(tmp_path / "a.ply").means, splats.means[[0, 1, 4]])
        nothing = Splats(*(getattr(splats, name)[:0] for name in NAMES))
        for form in ("ply", "splat", "compressed"):
            assert len(encoded(nothing, form)) < 2000

    @pytest.mark.parametrize(("form", "name"), [("ply", "splats.ply"), ("splat", "splats.splat"),
                                                ("compressed-ply", "splats.compressed.ply")])  # fmt: skip
    def test_of_a_run(self, tmp_path: Path, form: str, name: str) -> None:
        run = write_run(tmp_path / "run")
        write_splats(some_splats(50), run.path / "scene" / "splats.ply")
        out = exported(run, form, tmp_path / "out")
        assert [p.name for p in out.iterdir()] == [name] and (out / name).stat().st_size > 1000


def unpacked(data: bytes) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """Header, bounds, packed words, harmonics of a compressed PLY."""
    head, _, body = data.partition(b"end_header\n")
    counts = [int(line.split()[2]) for line in head.decode().split("\n") if line.startswith("element")]
    ends = np.cumsum([72 * counts[0], 16 * counts[1]])
    bounds, words = np.frombuffer(body[: ends[0]], "<f4"), np.frombuffer(body[ends[0] : ends[1]], "<u4")
    return head, bounds, words.reshape(-1, 4), np.frombuffer(body[ends[1] :], np.uint8)


def fields(words: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """The values of fields of this many bits, the first the highest."""
    ends = np.cumsum(bits[::-1])[::-1]
    shifts = [int(end - size) for end, size in zip(ends, bits, strict=True)]
    return np.stack([(words.astype(int) >> s) & ((1 << size) - 1) for s, size in zip(shifts, bits, strict=True)], 1)


class TestWhatIsRefused:
    def test_in_one_line(self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        plain = write_run(tmp_path / "plain")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").write_text("x")
        other = simulate("plaster", 0, 2, Camera.from_fov(128, 96, 1.0), 30.0, tmp_path / "other", extras=False)
        short = simulate("plaster", 0, 2, CAMERA, 30.0, tmp_path / "short", extras=False)
        cases = [
            ([plain.path, "--to", "ply"], "has no Gaussians; reconstruct it with --scene splats"),
            ([plain.path, "--to", "colmap"], "which is not there; give the video or folder with --source"),
            ([run.path, "--to", "usd"], "the form 'usd' is not known"),
            ([run.path, "--to", "stl", "-o", tmp_path / "full"], "is there already; give a new or an empty folder"),
            ([run.path, "--to", "tum", "--every", "0"], "every is 0"),
            ([run.path, "--to", "tum", "--source", other], "was made from 96 x 80; give its clip with --source"),
            ([run.path, "--to", "tum", "--source", short], "has 2 of the 9 frames of the run"),
            ([tmp_path, "--to", "tum"], "holds no run.yaml"),
        ]
        for number, (arguments, words) in enumerate(cases):
            out = [] if "-o" in arguments else ["-o", str(tmp_path / f"out{number}")]
            assert main(["export", *map(str, arguments), *out]) == 2, words
            said = capsys.readouterr().err
            assert words in " ".join(said.split()), said
            assert not (tmp_path / f"out{number}").exists() and not list(tmp_path.glob(".*partial"))

    def test_a_run_without_depth_or_surface(self, run: Run, tmp_path: Path) -> None:
        bare = replace(run, path=tmp_path)
        (tmp_path / "camera.json").write_bytes((run.path / "camera.json").read_bytes())
        told = json.loads((exported(bare, "nerfstudio", tmp_path / "a") / "transforms.json").read_text())
        assert "depth_file_path" not in told["frames"][0] and "ply_file_path" not in told
        assert len(open_truth(exported(bare, "colmap", tmp_path / "b")).image_paths) == FRAMES
        with pytest.raises(InputError, match="has no surface"):
            exported(bare, "glb", tmp_path / "c")

    def test_a_run_that_ended_early(self, run: Run) -> None:
        with pytest.raises(InputError, match="has no camera"):
            Material(replace(run, camera=None))
        nowhere = Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
        with pytest.raises(InputError, match="has no poses"):
            Material(replace(run, trajectory=nowhere))


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.path), "--to", "tum", "--every", "3", "-o", str(tmp_path / "x")]) == 0
    assert "evo_traj tum reads it" in capsys.readouterr().out
    assert len(list((tmp_path / "x" / "rgb").glob("*.png"))) == 3
    assert main(["export", str(run.path), "--to", "stl"]) == 0 and (run.path / "exports" / "stl" / "mesh.stl").is_file()
