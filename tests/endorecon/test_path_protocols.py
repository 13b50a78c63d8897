"""The protocols for paths, surfaces and renderings, against numbers worked out by hand, and the traps of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_case import case_of, figures, measured, trajectory, truth_of, write_images
from scipy.spatial.transform import Rotation

from endorecon.evaluate.protocols import protocol
from rendering.mesh import Mesh, write_ply
from video_io.camera import Camera
from video_io.datasets import Truth
from video_io.errors import InputError
from video_io.trajectory import Trajectory

CORNER = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [4, 4, 4.0]])


def along_z(*steps):
    return np.cumsum([0, *steps])[:, None] * [[0, 0, 1.0]]


def wandering(seed: int, count: int = 12) -> Trajectory:
    rng = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.2, (count, 3)), 0)).as_matrix()
    return trajectory(np.cumsum(rng.normal(0, 1, (count, 3)), 0), turns)


# -- snippets -----------------------------------------------------------------------------------------------------


def test_snippets_by_hand(tmp_path):
    """The last step is twice as long as it should be."""
    truth = truth_of(path=trajectory(along_z(1, 1, 1, 1)))
    outcome = protocol("snippet5").measure(case_of(tmp_path, truth, path=trajectory(along_z(1, 1, 1, 2))))
    published, corrected = figures(outcome)["ATE of 5 frames"]
    # windows of 5, 4 and 3 positions: what the best scale leaves of the squares is
    # 30 - 34^2 / 39, 14 - 17^2 / 21 and 5 - 7^2 / 10; the root of each is divided by 5, 4 and 3
    windows = np.sqrt([30 - 34**2 / 39, 14 - 17**2 / 21, 0.1]) / [5, 4, 3]
    assert published == pytest.approx(windows.mean()) and published == pytest.approx(0.115742, abs=1e-6)
    # the one whole window, root of the mean
    assert corrected == pytest.approx(np.sqrt((30 - 34**2 / 39) / 5))
    assert "3 windows" in outcome.notes


def test_published_snippets_are_smaller_by_the_root_of_their_length(tmp_path):
    """sqrt(sum) / N against sqrt(sum / N), on windows that are all alike."""
    zigzag = [[0.1 * (i % 2), 0, i] for i in range(40)]
    case = case_of(tmp_path, truth_of(path=trajectory(along_z(*[1] * 39))), path=trajectory(zigzag))
    published, corrected = measured("snippet5", case)["ATE of 5 frames"]
    assert corrected / published == pytest.approx(np.sqrt(5), rel=0.03)


def test_snippets_as_the_published_code_has_them(tmp_path):
    """Its steps, written down plainly: relative poses of world-to-camera matrices, multiplied in order."""
    ours, theirs = wandering(0), wandering(1)

    def relative(path: Trajectory):
        world_to_cam = np.linalg.inv(path.world_from_cam)
        return [world_to_cam[t + 1] @ np.linalg.inv(world_to_cam[t]) for t in range(len(path) - 1)]

    def positions(steps):
        pose, found = np.eye(4), [np.zeros(3)]
        for step in steps:
            pose = np.dot(pose, step)
            found.append(pose[:3, 3])
        return np.array(found)

    predicted, true, errors = relative(ours), relative(theirs), []
    for i in range(len(true) - 1):
        p, g = positions(predicted[i : i + 4]), positions(true[i : i + 4])
        scale = np.sum(g * p) / np.sum(p**2)
        errors.append(np.sqrt(np.sum((p * scale - g) ** 2)) / len(g))
    found = measured("snippet5", case_of(tmp_path, truth_of(path=theirs), path=ours))
    assert found["ATE of 5 frames"][0] == pytest.approx(np.mean(errors), rel=1e-6)
    assert found["ATE of 5 frames"][1] != pytest.approx(np.mean(errors) * np.sqrt(5), rel=0.01)


def test_the_first_frame_of_a_snippet_waters_its_rotation_down(tmp_path):
    turns = Rotation.from_rotvec([[0, 0, 0.1 * i] for i in range(5)]).as_matrix()
    case = case_of(
        tmp_path, truth_of(path=trajectory(along_z(1, 1, 1, 1))), path=trajectory(along_z(1, 1, 1, 1), turns)
    )
    published, corrected = measured("snippet5", case)["rotation"]
    # windows of 5, 4 and 3: sums .1 + .2 + .3 + .4, .6 and .3, over 5, 4 and 3; whole window: 1 / 4
    assert published == pytest.approx(np.degrees((1.0 / 5 + 0.6 / 4 + 0.3 / 3) / 3))
    assert corrected == pytest.approx(np.degrees(0.25))


def test_gaps_between_poses_are_said(tmp_path):
    path = trajectory(along_z(*[1] * 9))
    part = Trajectory(np.delete(path.times_ns, [4, 5]), np.delete(path.world_from_cam, [4, 5], 0))
    outcome = protocol("snippet5").measure(case_of(tmp_path, truth_of(path=path), path=part))
    assert "1 gaps between poses" in outcome.notes[1]


# -- SimCol3D and EndoGSLAM ---------------------------------------------------------------------------------------


def test_simcol_pose_by_hand(tmp_path):
    # the third of four steps is 1 mm too long and the path half as large: scale (1 + 1 + 2 + 1) / (1 + 1 + 4 + 1) / .5
    truth = truth_of(path=trajectory(along_z(1, 1, 1, 1)))
    found = measured("simcol_pose", case_of(tmp_path, truth, path=trajectory(0.5 * along_z(1, 1, 2, 1))))
    scale = 5 / 7
    ate = np.abs(scale * np.array([0, 1, 2, 4, 5]) - [0, 1, 2, 3, 4])
    assert found["ATE"][0] == pytest.approx(np.median(ate) / 10)
    assert found["RTE"][0] == pytest.approx(np.median([1 - scale, 1 - scale, 2 * scale - 1, 1 - scale]) / 10)
    assert found["ROT"] == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    # after the best similarity: 10 - 13^2 / 17.2 is left of the squares about the means
    assert found["ATE"][1] == pytest.approx(np.sqrt((10 - 13**2 / 17.2) / 5) / 10)


def test_endogslam_compares_translation_columns_not_centres(tmp_path):
    """All centres are right; one camera is turned, which the centres do not know but -R c does."""
    turns = np.tile(np.eye(3), (4, 1, 1))
    turns[3] = Rotation.from_rotvec([0, 0, 0.1]).as_matrix()
    truth = truth_of(path=trajectory(CORNER))
    published, corrected = measured("endogslam", case_of(tmp_path, truth, path=trajectory(CORNER, turns)))["ATE"]
    assert corrected == pytest.approx(0, abs=1e-9) and published > 0.05
    # the other way round: a run whose world-to-camera columns are right and whose centres are not
    columns = -np.einsum("nij,nj->ni", turns, -CORNER)
    published, corrected = measured("endogslam", case_of(tmp_path, truth, path=trajectory(columns, turns)))["ATE"]
    assert published == pytest.approx(0, abs=1e-8) and corrected > 0.05


def test_endogslams_ate_is_a_mean_by_horns_fit(tmp_path):
    """A square bent by 0.1 up and down in turn, which no rigid fit removes: mean and root mean square are 0.1."""
    square = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0.0]])
    bent = square + np.array([[0, 0, 0.1], [0, 0, -0.1], [0, 0, 0.1], [0, 0, -0.1]])
    found = measured("endogslam", case_of(tmp_path, truth_of(path=trajectory(square)), path=trajectory(bent)))
    assert found["ATE"] == (pytest.approx(0.1), pytest.approx(0.1))
    # against the published steps, written down plainly
    ours, theirs = wandering(2), wandering(3)
    a, b = (np.linalg.inv(p.world_from_cam)[:, :3, 3].T for p in (ours, theirs))
    u, _, vh = np.linalg.svd(((a - a.mean(1)[:, None]) @ (b - b.mean(1)[:, None]).T).T)
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(vh))]) @ vh
    moved = rotation @ (a - a.mean(1)[:, None]) + b.mean(1)[:, None]
    expected = np.sqrt(((moved - b) ** 2).sum(0)).mean()
    found = measured("endogslam", case_of(tmp_path, truth_of(path=theirs), path=ours))
    assert found["ATE"][0] == pytest.approx(expected, rel=1e-6)


def test_endogslams_depth_has_eight_bits_and_counts_invalid_pixels(tmp_path):
    frames = 16  # of which 7 and 15 are tested
    truth = np.tile(np.array([[10.3, 0.0]]), (frames, 1, 1))
    depth = np.tile(np.array([[10.3, 5.0]]), (frames, 1, 1))
    outcome = protocol("endogslam").measure(case_of(tmp_path, truth_of(truth), depth))
    # 10.3 mm is stored as step 26 of 255 in 100 mm: 10.196 mm; where there is no truth the error is 5
    assert figures(outcome)["depth RMSE"] == (
        pytest.approx(np.sqrt((0.10392**2 + 25) / 2), rel=1e-4), pytest.approx(0, abs=1e-6)
    )  # fmt: skip
    assert "depth of 2 test frames" in outcome.notes and outcome.valid_share == 1


# -- renderings ---------------------------------------------------------------------------------------------------


def rendered(tmp_path, steps, masks=None, size=(24, 30)):
    """True images of grey 100, and renderings that differ by `steps` of 255, one a frame, on the right half."""
    truth, images = [], []
    for step in steps:
        image = np.full((*size, 3), 100, np.uint8)
        truth.append(image)
        image = image.copy()
        image[:, size[1] // 2 :] += np.uint8(step)
        images.append(image)
    paths = write_images(tmp_path / "truth", truth)
    return case_of(tmp_path, truth_of(images=paths), images=images, masks=masks or ())


def left_masked(count, size=(24, 30)):
    mask = np.zeros(size, np.uint8)
    mask[:, : size[1] // 2] = 255
    return [mask] * count


def test_endonerf_counts_masked_pixels_as_perfect(tmp_path):
    """Half the image is masked: half the error goes away, 3 dB."""
    case = rendered(tmp_path, [200 - 100, 51, 51], left_masked(3))
    outcome = protocol("endonerf").measure(case)
    published, corrected = figures(outcome)["PSNR"]
    # 51 / 255 = .2: .04 over the half that counts, .02 over all; the first frame is left out
    assert corrected == pytest.approx(13.9794, abs=1e-4) and published == pytest.approx(16.9897, abs=1e-4)
    assert outcome.frames == 2 and outcome.valid_share == pytest.approx(0.5)


def test_the_data_sets_own_masks_are_taken(tmp_path):
    """True is tissue there; what is not tissue does not count, as with masks that are given."""
    case = rendered(tmp_path, [9, 51, 51])
    case = replace(case, truth=replace(case.truth, read_mask=lambda index: left_masked(1)[0] == 0))
    assert measured("endonerf", case)["PSNR"] == (pytest.approx(16.9897, abs=1e-4), pytest.approx(13.9794, abs=1e-4))


def test_one_psnr_of_all_images_is_not_the_mean_of_each(tmp_path):
    case = rendered(tmp_path, [0, 51, 5.1 * 5], left_masked(3))
    # errors .04 and .01 (25 / 255 squared is .00961): pooled -10 log10(.0248 / 2); each: 13.979 and 20.172
    small = (25 / 255) ** 2
    pooled, each = -10 * np.log10((0.04 + small) / 2), (13.9794 - 10 * np.log10(small)) / 2
    assert measured("endonerf", case)["PSNR"] == (
        pytest.approx(pooled + 3.0103, abs=1e-3), pytest.approx(each, abs=1e-3)
    )  # fmt: skip
    # EndoGS divides by the unmasked share
    assert measured("endogs", case)["PSNR"][0] == pytest.approx(pooled, abs=1e-3)


def test_endogaussian_takes_every_eighth_image(tmp_path):
    case = rendered(tmp_path, [0] + [51] + [100] * 7 + [25] + [100], left_masked(11))
    outcome = protocol("endogaussian").measure(case)
    assert outcome.frames == 2  # 1 and 9
    each = (13.9794 - 10 * np.log10((25 / 255) ** 2)) / 2
    assert figures(outcome)["PSNR"] == (pytest.approx(each, abs=1e-3), pytest.approx(each, abs=1e-3))


def test_forplane_does_not_see_below_row_500(tmp_path):
    size = (512, 16)
    truth = [np.full((*size, 3), 100, np.uint8)] * 2
    images = [image.copy() for image in truth]
    for image in images:
        image[500:] += 100
        image[0, 0] += 51
    case = case_of(tmp_path, truth_of(images=write_images(tmp_path / "truth", truth)), images=images)
    error = 0.04 / (500 * 16)
    assert measured("forplane", case)["PSNR"][0] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert measured("endonerf", case)["PSNR"][0] < 25
    assert "no masks were given" in " ".join(protocol("forplane").measure(case).notes)


def test_renderings_that_cannot_be_compared(tmp_path):
    with pytest.raises(InputError, match="frame 1: the rendering equals the image"):
        measured("endonerf", rendered(tmp_path, [9, 0, 9]))
    inverted = [np.full((24, 30), 255, np.uint8)] * 2
    with pytest.raises(InputError, match=r"frame 1: the mask leaves no pixel; is it inverted\?"):
        measured("endonerf", rendered(tmp_path, [9, 9], inverted))
    with pytest.raises(InputError, match="none of the protocol's test frames"):
        measured("endogslam", rendered(tmp_path, [9, 9]))


# -- surface ------------------------------------------------------------------------------------------------------


def sheet(z: float, half: float = 5.0) -> Mesh:
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return Mesh(corners, np.array([[0, 2, 1], [0, 3, 2]]))


def test_one_way_chamfer_does_not_see_what_was_invented(tmp_path):
    """The surface is there, with a second, invented one 20 mm behind it."""
    write_ply(sheet(10), tmp_path / "true.ply")
    both = Mesh(np.vstack([sheet(10).vertices, sheet(30).vertices]), np.vstack([sheet(10).faces, sheet(10).faces + 4]))
    write_ply(both, tmp_path / "ours.ply")
    path = trajectory([[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    camera = Camera.pinhole(40, 40, 30, 30, 20, 20)
    truth = Truth("made", "made", camera, path, (), 3, tmp_path / "true.ply", None)
    case = case_of(tmp_path, truth, path=path, mesh=tmp_path / "ours.ply")
    published, corrected = measured("nflba", case)["Chamfer"]
    # the way back: half the points are 0 off, half 20
    assert published == pytest.approx(0, abs=1e-4) and corrected == pytest.approx(5, abs=0.05)
