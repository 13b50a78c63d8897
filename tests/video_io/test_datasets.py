"""Every loader on a folder in exactly its layout: camera, poses, depth and times come back as they went in."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import made_layouts as layouts_of
import numpy as np
import pytest
from made_layouts import FRAMES, Made, made

from video_io.datasets import layout_of, layouts, open_truth
from video_io.reprojection import agreement
from video_io.sources import open_source


@dataclass(frozen=True)
class Case:
    """A layout, the clip it is written from, and how precise its files are.

    Attributes:
        write: the writer.
        layout: which loader must read it.
        model, scene, right: the clip.
        depth_mm: half a step of the stored depth; None where the layout has none.
        scale: of the lengths, where the data set has its own unit.
        poses, camera: whether it has them.
        lossy: whether the pictures are compressed.
    """

    write: Callable[[Path, Made], Path]
    layout: str
    model: str = "pinhole"
    scene: str = "colon"
    right: bool = False
    depth_mm: float | None = 0.001
    scale: float = 1.0
    poses: bool = True
    camera: bool = True
    lossy: bool = False


CASES = {
    "c3vd": Case(layouts_of.c3vd, "c3vd", "fisheye", depth_mm=0.0008),
    "c3vd unpadded": Case(lambda f, c: layouts_of.c3vd(f, c, 8, 1), "c3vd", "fisheye", depth_mm=0.0008),
    "c3vd by rows": Case(lambda f, c: layouts_of.c3vd(f, c, by_rows=True), "c3vd", "fisheye", depth_mm=0.0008),
    "endogslam": Case(layouts_of.endogslam, "c3vd", "endogslam", depth_mm=0.2),
    "c3vdv2": Case(layouts_of.c3vdv2, "c3vdv2", "omnidirectional", depth_mm=0.0008),
    "simcol": Case(layouts_of.simcol, "simcol", depth_mm=0.0016),
    "simcol rgba": Case(lambda f, c: layouts_of.simcol(f, c, 4), "simcol", depth_mm=0.0016),
    "scared": Case(layouts_of.scared, "scared", "brown", right=True, lossy=True),
    "scared endodac": Case(layouts_of.scared_endodac, "scared", "brown"),
    "scared af": Case(layouts_of.scared_af, "scared", "brown", poses=False, camera=False),
    "endonerf": Case(layouts_of.endonerf, "endonerf", "pinhole", depth_mm=0.005, scale=100.0),
    "endonerf of stereomis": Case(
        lambda f, c: layouts_of.endonerf(f, c, True), "endonerf", "pinhole", depth_mm=0.005, scale=100.0
    ),
    "hamlyn": Case(layouts_of.hamlyn, "hamlyn", right=True, depth_mm=0.5, poses=False, lossy=True),
    "servct": Case(layouts_of.servct, "servct", "stereo", "abdomen", True, depth_mm=0.002, poses=False),
    "stereomis": Case(layouts_of.stereomis, "stereomis", "stereo", "abdomen", True, depth_mm=None, lossy=True),
    "stereomis images": Case(
        lambda f, c: layouts_of.stereomis(f, c, False), "stereomis", "stereo", "abdomen", True, depth_mm=None
    ),
    "endomapper": Case(layouts_of.endomapper, "endomapper", "fisheye", depth_mm=None, poses=False, lossy=True),
    "endomapper simulated": Case(layouts_of.endomapper_simulated, "endomapper", "fisheye", depth_mm=0.01, scale=0.01),
    "endoslam": Case(layouts_of.endoslam, "endoslam", depth_mm=5.0),
    "tum": Case(layouts_of.tum, "tum", "brown", depth_mm=0.1),
    "colmap": Case(layouts_of.colmap, "colmap", "brown", depth_mm=None),
    "colmap text": Case(lambda f, c: layouts_of.colmap(f, c, False), "colmap", "fisheye", depth_mm=None),
    "nerfstudio": Case(layouts_of.nerfstudio, "nerfstudio", "brown", depth_mm=0.005),
    "nerfstudio fisheye": Case(layouts_of.nerfstudio, "nerfstudio", "fisheye", depth_mm=0.005),
}  # fmt: skip
# EndoNeRF knows one focal length, and its centre is that of the image.
APPROXIMATE = {"endonerf", "endonerf of stereomis"}


Written = Callable[[str], tuple[Case, Made, Path]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Writes a layout's folder, once."""

    @cache
    def write(name: str) -> tuple[Case, Made, Path]:
        case = CASES[name]
        clip = made(case.model, case.scene, case.right)
        return case, clip, case.write(tmp_path_factory.mktemp("layout"), clip)

    return write


def test_every_loader_is_tested() -> None:
    elsewhere = {"phantom", "jhu_sfm"}
    assert {case.layout for case in CASES.values()} | elsewhere == set(layouts())


@pytest.mark.parametrize("name", CASES)
def test_what_went_in_comes_back(name: str, written: Written) -> None:
    case, clip, folder = written(name)
    truth = open_truth(folder)
    assert (truth.layout, truth.frame_count) == (case.layout, FRAMES)
    assert (truth.camera is not None) == case.camera
    if truth.camera is not None and name not in APPROXIMATE:
        pixels = clip.camera.pixels()[::16, ::16]
        off = np.linalg.norm(truth.camera.rays(pixels) - clip.camera.rays(pixels), axis=-1) * clip.camera.focal_px
        assert np.nanmax(off) < 0.002  # px
    assert (truth.trajectory is not None) == case.poses
    if truth.trajectory is not None:
        ours, theirs = (np.linalg.inv(p[0]) @ p for p in (truth.trajectory.world_from_cam, clip.poses))
        assert np.abs(ours[:, :3, :3] - theirs[:, :3, :3]).max() < 3e-6  # six decimals in the file
        np.testing.assert_allclose(ours[:, :3, 3], theirs[:, :3, 3] * case.scale, atol=2e-4 * max(case.scale, 1))
    if case.depth_mm is not None:
        for i in (2, 0):
            depth, true = truth.depth(i), clip.depth[i]
            seen = (depth > 0) & (true > 0)
            assert seen.mean() > 0.9 * (true > 0).mean()
            assert np.abs(depth[seen] / case.scale - true[seen]).max() < 1.02 * case.depth_mm + 2e-5
            assert depth.dtype == np.float32


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.poses and c.depth_mm is not None])
def test_frames_agree_by_depth_poses_and_camera(name: str, written: Written) -> None:
    case, _, folder = written(name)
    truth = open_truth(folder)
    found = agreement(truth)
    assert found is not None and found.pairs >= 2 and len(found.px) > 3000
    if name in APPROXIMATE:
        return
    assert found.median / case.scale < 0.7 * case.depth_mm + 0.004  # interpolation costs some micrometres
    assert found.median_px < 0.01 + 0.1 * case.depth_mm


def test_a_wrong_convention_shows_in_the_agreement(tmp_path: Path) -> None:
    """The clip is good to .002 px; every usual mistake is far beyond that."""
    truth = open_truth(layouts_of.c3vdv2(tmp_path, made("omnidirectional")))
    assert truth.camera is not None and truth.trajectory is not None
    right = agreement(truth)
    poses, camera, params = truth.trajectory.world_from_cam, truth.camera, truth.camera.params
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    wrong = {
        "half a pixel": replace(truth, camera=replace(camera, params=(params[0] + 0.5, params[1] + 0.5, *params[2:]))),
        "world to camera": replace(truth, trajectory=replace(truth.trajectory, world_from_cam=np.linalg.inv(poses))),
        "OpenGL axes": replace(truth, trajectory=replace(truth.trajectory, world_from_cam=poses @ flip)),
        "ray length": replace(truth, read_depth=lambda i: truth.depth(i) / camera.ray_map()[..., 2]),
        "centimetres": replace(truth, read_depth=lambda i: truth.depth(i) / 10),
    }
    assert right is not None and right.median_px < 0.002
    for name, changed in wrong.items():
        found = agreement(changed)
        assert found is None or found.median_px > 5 * right.median_px, name


@pytest.mark.parametrize("name", CASES)
def test_a_data_set_is_an_input(name: str, written: Written) -> None:
    case, clip, folder = written(name)
    source, truth = open_source(folder), open_truth(folder)
    frames = list(source.frames())
    assert (len(frames), source.frame_count) == (FRAMES, FRAMES)
    assert source.camera == truth.camera
    assert [f.time_ns for f in frames] == truth.times_ns.tolist()
    assert [f.index for f in frames] == list(range(FRAMES))
    assert source.describe["layout"] == case.layout
    tolerance = 8.0 if case.lossy else 0.0
    for frame, rgb in zip(frames, clip.rgb, strict=True):
        usual = frame.use_mask if case.layout in ("endonerf", "stereomis") else np.ones(rgb.shape[:2], bool)
        assert np.abs(frame.rgb[usual].astype(int) - rgb[usual]).mean() <= tolerance
    assert [f.index for f in open_source(folder, every=2).frames()] == [0, 2]
    assert [f.index for f in source.sample(2)] == [0, FRAMES - 1]


@pytest.mark.parametrize("name", CASES)
def test_one_loader_only_accepts_a_folder(name: str, written: Written) -> None:
    case, _, folder = written(name)
    accepted = [n for n in layouts() if importlib.import_module(f"video_io.datasets.{n}").accepts(folder)]
    assert accepted == [case.layout] == [layout_of(folder)]


@pytest.mark.parametrize("name", ["stereomis", "stereomis images", "hamlyn", "servct"])
def test_depth_of_stereo_pairs(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    clip = made("stereo", "abdomen", True)
    folder = layouts_of.hamlyn(tmp_path, clip, depth=False) if name == "hamlyn" else case.write(tmp_path, clip)
    truth = open_truth(folder)
    assert truth.pairs is not None
    assert truth.pairs.rig.baseline_mm == pytest.approx(layouts_of.BASELINE_MM, abs=1e-6)
    for i in (0, 2):
        depth, true = truth.pairs.depth(i), clip.depth[i]
        seen = (depth > 0) & (true > 0)
        assert seen.mean() > 0.5
        error = (depth - true)[seen] / true[seen]
        # Highlights move with the eye, so a third of a pixel of 18 is usual; half a pixel off would shift all by 3 %.
        assert np.median(np.abs(error)) < 0.025
        assert abs(np.median(error)) < 0.015
    if name != "servct":
        assert any("matched" in note for note in truth.notes)


def test_servcts_images_agree_by_depth_and_baseline(tmp_path: Path) -> None:
    found = agreement(open_truth(layouts_of.servct(tmp_path, made("stereo", "abdomen", True), "Ground_truth_CT")))
    assert found is not None and found.how == "stereo" and found.pairs == FRAMES
    assert found.median_px < 0.01 and found.median < 0.01


@pytest.mark.parametrize("other_way", [False, True])
def test_endonerfs_masks_either_way_round(tmp_path: Path, other_way: bool) -> None:
    clip = made("pinhole")
    truth = open_truth(layouts_of.endonerf(tmp_path, clip, other_way))
    _, tool = layouts_of.with_tool(clip.rgb[0])
    assert np.array_equal(truth.mask(1), ~tool)
    assert f"white is {'tissue' if other_way else 'a tool'}" in " ".join(truth.notes)
    assert not next(iter(open_source(tmp_path).frames())).use_mask[tool].any()


def test_stereomis_tells_what_is_meant_to_be_used_and_where_tissue_is(tmp_path: Path) -> None:
    truth = open_truth(layouts_of.stereomis(tmp_path, made("stereo", "abdomen", True)))
    assert "frames 1 to 2 are meant" in " ".join(truth.notes)
    mask = truth.mask(2)
    assert mask[:, :250].all() and not mask[:, 250:].any()


def test_colmaps_points_fall_where_they_were_seen(tmp_path: Path) -> None:
    clip = made("brown")
    truth = open_truth(layouts_of.colmap(tmp_path, clip))
    found = agreement(truth)
    assert truth.unit == "up to scale"
    assert found is not None and found.median < 1e-4
    depth = truth.depth(0)
    seen = depth > 0
    np.testing.assert_allclose(depth[seen], clip.depth[0][seen], rtol=1e-5)


def test_an_image_without_pose_is_left_out(tmp_path: Path) -> None:
    folder = layouts_of.tum(tmp_path, made("brown"))
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(lines[:-1]))
    truth = open_truth(folder)
    assert (truth.frame_count, len(truth.trajectory)) == (FRAMES - 1, FRAMES - 1)
    assert "1 images have none" in truth.notes[0]


def test_scareds_key_frame_alone(tmp_path: Path) -> None:
    clip = made("brown", right=True)
    truth = open_truth(layouts_of.keyframe(tmp_path, clip))
    assert (truth.layout, truth.frame_count, truth.trajectory) == ("scared", 1, None)
    seen = clip.depth[0] > 0
    np.testing.assert_allclose(truth.depth(0)[seen], clip.depth[0][seen], rtol=1e-5)
    assert truth.camera.model == "brown" and truth.pairs is not None


def test_scareds_depth_is_read_in_any_order(tmp_path: Path) -> None:
    clip = made("brown", right=True)
    truth = open_truth(layouts_of.scared(tmp_path, clip))
    for i in (2, 0, 1, 1, 2):
        seen = clip.depth[i] > 0
        np.testing.assert_allclose(truth.depth(i)[seen], clip.depth[i][seen], rtol=1e-5)


def test_c3vds_screening_sequences_have_no_depth(tmp_path: Path) -> None:
    folder = layouts_of.c3vd(tmp_path, made("fisheye"))
    for path in folder.glob("*_depth.tiff"):
        path.unlink()
    truth = open_truth(folder)
    assert (truth.layout, truth.frame_count, truth.read_depth) == ("c3vd", FRAMES, None)
    assert len(truth.trajectory) == FRAMES


def test_hamlyns_images_of_two_sizes(tmp_path: Path) -> None:
    clip = made("pinhole", right=True)
    folder = layouts_of.hamlyn(tmp_path, clip)
    layouts_of.image(folder / "image01/0000000001.jpg", clip.rgb[1][:, :-1])
    layouts_of.values(folder / "depth01/0000000001.png", layouts_of.steps(clip.depth[1][:, :-1], 1.0))
    truth, source = open_truth(folder), open_source(folder)
    assert {truth.depth(i).shape for i in range(FRAMES)} == {(source.height, source.width)} == {(128, 159)}
    assert (source.camera.width, source.camera.height) == (159, 128)


def test_c3vds_published_camera() -> None:
    from video_io.datasets.c3vd import published_camera

    camera = published_camera()
    # At its centre, (678.544839, 542.975888) from the first pixel's centre, it looks straight ahead.
    np.testing.assert_allclose(camera.rays([679.044839, 543.475888]), [0, 0, 1], atol=1e-12)
    # 300 px to the right: z = 769.2436 - 8.1277e-4 * 9e4 + 6.25674e-7 * 2.7e7 - 1.19662e-9 * 8.1e9 = 703.2944
    ray = camera.rays([979.044839, 543.475888])
    assert ray[0] / ray[2] == pytest.approx(300 / 703.2944, rel=2e-5)
