"""The doctor on inputs that are made wrong in a known way from a phantom clip, and on the good clip itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rendering.phantom.clip import prepare
from rendering.phantom.damage import DAMAGES, Material, load, write, write_video
from video_io.agreement import READINGS
from video_io.case import open_case, read_poses
from video_io.cleaning import deinterlaced, write_clean
from video_io.datasets import open_truth
from video_io.doctor import checks, examine
from video_io.doctor.base import in_words, spans
from video_io.errors import InputError
from video_io.survey import comb

# Those that are tried in every run; the others are slow.
QUICKLY = (
    "poses inverted", "poses in metres, no depth", "depth 8 bit, high byte", "images missing", "interlaced video",
    "gap in the time stamps", "text in a corner",
)  # fmt: skip


def _clip(scene: str, seed: int, frames: int) -> Material:
    """A clip without light between surfaces, which takes most of the time."""
    clip = prepare(scene, seed, frames)
    made = list(replace(clip, look=replace(clip.look, interreflection=0.0)).frames())
    depths = [np.round(frame.depth * 100).astype(np.uint16) for frame in made]
    masks = [np.where(d > 0, 255, 0).astype(np.uint8) for d in depths]
    return Material(
        [frame.rgb for frame in made], depths, masks, np.arange(frames) / 30.0, clip.poses, clip.camera, 100.0
    )


@pytest.fixture(scope="module")
def clip() -> Material:
    return _clip("abdomen", 11, 44)


@pytest.fixture(scope="module")
def good(clip: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(clip, tmp_path_factory.mktemp("good") / "clip")


def test_the_slot_lists_its_checks() -> None:
    assert checks() == [
        "geometry", "interlaced", "layout", "masks", "numbering", "overlay", "stereo", "stretches", "timing",
    ]  # fmt: skip


def test_nothing_is_wrong_with_a_good_folder(good: Path) -> None:
    assert examine(open_case(good)) == []


def test_nothing_is_wrong_with_a_good_video(clip: Material, tmp_path: Path) -> None:
    assert examine(open_case(write_video(tmp_path / "clip.mp4", clip.images))) == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICKLY else pytest.mark.slow) for name in DAMAGES]
)
def test_a_damage_is_found_and_mended(name: str, clip: Material, tmp_path: Path) -> None:
    other = {"other": _clip("passage", 3, 30)} if name == "cut" else {}
    made = DAMAGES[name](clip, tmp_path / "input", np.random.default_rng(5), **other)
    case = open_case(made.path)
    found = examine(case)
    assert made.kind in [finding.kind for finding in found]
    finding = next(finding for finding in found if finding.kind == made.kind)
    assert finding.evidence and finding.mend and 0.5 < finding.sure <= 1
    again = open_case(write_clean(case, found, tmp_path / "fixed"))
    assert len(again.images) == len(made.kept)
    want = made.extra.get("clip", clip)
    if again.poses is not None:
        np.testing.assert_allclose(again.poses.matrices, want.poses[made.kept], atol=2e-3)
    if again.has_depth:
        off = np.abs(again.depth(3) - want.depths[made.kept[3]] / want.scale)
        assert float(np.median(off)) <= made.depth_mm
    if made.kind == "mask_polarity":
        np.testing.assert_array_equal(again.mask(3), want.masks[3] > 127)


def test_the_original_is_left_as_it_is_and_the_copy_can_be_read(clip: Material, tmp_path: Path) -> None:
    made = DAMAGES["poses inverted"](clip, tmp_path / "input", np.random.default_rng(5))
    before = {p: p.read_bytes() for p in sorted(made.path.rglob("*")) if p.is_file()}
    case = open_case(made.path)
    out = write_clean(case, examine(case), tmp_path / "fixed")
    assert {p: p.read_bytes() for p in sorted(made.path.rglob("*")) if p.is_file()} == before
    truth = open_truth(out)
    assert truth.frame_count == len(clip.images)
    np.testing.assert_allclose(truth.trajectory.world_from_cam, clip.poses, atol=1e-4)
    assert (out / "rgb/0003.png").read_bytes() == (made.path / "rgb/0003.png").read_bytes()
    with pytest.raises(InputError, match="is there already"):
        write_clean(case, [], out)


def test_the_copy_does_not_go_into_the_input(good: Path) -> None:
    with pytest.raises(InputError, match="lies inside the input"):
        write_clean(open_case(good), [], good / "fixed")


def test_the_quick_part_looks_at_the_sample_only(good: Path) -> None:
    case = open_case(good)
    examine(case, quick=True)
    assert "survey" not in case.__dict__


def test_a_black_clip_is_told_and_leaves_nothing_to_write(tmp_path: Path) -> None:
    for n in range(8):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.zeros((48, 64, 3), np.uint8))
    case = open_case(tmp_path)
    found = examine(case)
    assert [(f.kind, f.frames) for f in found] == [("black", ((0, 7),))]
    with pytest.raises(InputError, match=r"nothing of .* is left"):
        write_clean(case, found, tmp_path.parent / "out_of_black")


# -- parts, with numbers worked out by hand -----------------------------------------------------------------------


def test_stretches_in_words() -> None:
    assert spans([True, True, False, True], 1) == ((0, 1), (3, 3))
    assert spans([True, True, False, True], 2) == ((0, 1),)
    assert in_words([(3, 3)]) == "frame 3"
    assert in_words([(3, 9), (14, 14)]) == "frames 3-9, 14"


def test_one_field_is_kept_and_the_other_filled_in() -> None:
    lines = np.array([10, 99, 20, 99, 40, 99], np.uint8)
    image = np.repeat(np.repeat(lines[:, None, None], 4, 1), 3, 2)
    assert deinterlaced(image)[:, 0, 0].tolist() == [10, 15, 20, 30, 40, 40]


def test_a_comb_and_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 10, (128, 160, 3)).clip(0, 255).astype(np.uint8)
    lines, relative = comb(noise)
    # Second differences of white noise have the same energy at any distance.
    assert lines == pytest.approx(1, abs=0.05) and relative == pytest.approx(1, abs=0.05)
    striped = noise.copy()
    striped[1::2] = np.clip(striped[1::2].astype(int) + 60, 0, 255)
    # 60 between neighbours, none between lines of a field: (1.5 * 100 + 60^2) / (1.5 * 100) = 25.
    assert comb(striped)[0] == pytest.approx(25, rel=0.1)


def test_readings_of_a_pose() -> None:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1, 2, 3]
    for name in ("inverted", "transposed", "inverted and transposed"):
        # Each of these undoes itself or is undone by its inverse.
        again = READINGS[name](np.linalg.inv(pose) if name == "inverted" else pose)
        assert np.allclose(np.abs(np.linalg.det(again[:3, :3])), 1)
    assert READINGS["inverted"](pose)[:3, 3].tolist() == [-2, 1, -3]
    assert READINGS["other axes"](pose)[:3, 1].tolist() == [1, 0, 0]


@pytest.mark.parametrize(("form", "order"), [("rows", "C"), ("columns", "F")])
def test_matrices_by_rows_and_by_columns(form: str, order: str, tmp_path: Path) -> None:
    pose = np.eye(4)
    pose[:3, 3] = [7, 8, 9]
    (tmp_path / "pose.txt").write_text(" ".join(str(v) for v in pose.ravel(order)) + "\n")
    read = read_poses(tmp_path / "pose.txt")
    assert read.form == form
    assert read.matrices[0, :3, 3].tolist() == [7, 8, 9]


def test_pose_files_of_no_known_form_are_none(tmp_path: Path) -> None:
    for text in ("", "1 2 3\n", "a b c d e f g h\n", "0 1 2 3 0 0 0 0\n"):
        (tmp_path / "poses.txt").write_text(text)
        assert read_poses(tmp_path / "poses.txt") is None


def test_poses_belong_to_images_by_number_where_some_are_missing(clip: Material, tmp_path: Path) -> None:
    thinned = replace(clip, images=[clip.images[n] for n in (0, 1, 3, 4)])
    case = open_case(write(thinned, tmp_path / "clip", numbers=[0, 1, 3, 4]))
    assert [case.pose_row(i) for i in range(4)] == [0, 1, 3, 4]
    assert [case.depth_row(i) for i in range(4)] == [0, 1, 3, 4]


def test_a_real_clip_that_is_interlaced(sample_data: Path) -> None:
    """C3VD's recorder weaves fields: the comb is seen in the pictures."""
    case = open_case(sample_data / "c3vd_trans_t1_a")
    assert [f.kind for f in examine(case, only=["interlaced"])] == ["interlaced"]


def test_images_of_a_saved_clip_come_back(good: Path, clip: Material) -> None:
    again = load(good)
    assert np.array_equal(again.images[5], clip.images[5])
    assert cv2.imread(str(good / "depth/0005.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
