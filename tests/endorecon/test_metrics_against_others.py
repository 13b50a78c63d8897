"""The metrics against independent implementations of them, to 1e-6."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import directed_hausdorff
from scipy.spatial.transform import Rotation

from endorecon.evaluate.depth import depth_errors, depth_figures
from endorecon.evaluate.images import lpips_or_reason, ms_ssim, mse, psnr, ssim
from endorecon.evaluate.surface import chamfer, hausdorff, surface_distances, surface_errors
from endorecon.evaluate.trajectory import trajectory_errors
from rendering.mesh import Mesh, nearest_on
from video_io.errors import InputError
from video_io.trajectory import Trajectory

CLOSE = {"rel": 1e-6, "abs": 1e-9}


# -- depth --------------------------------------------------------------------------------------------------------


def test_depth_against_plain_loops():
    rng = np.random.default_rng(0)
    truth = rng.uniform(5, 120, (6, 7)).astype(np.float32)
    depth = (truth * rng.uniform(0.5, 1.9, truth.shape)).astype(np.float32)
    rel = sq_rel = sq = sq_log = l1 = 0.0
    within = [0, 0, 0]
    for d, t in zip(depth.ravel().tolist(), truth.ravel().tolist(), strict=True):
        rel += abs(d - t) / t
        sq_rel += (d - t) ** 2 / t
        sq += (d - t) ** 2
        sq_log += (np.log(d) - np.log(t)) ** 2
        l1 += abs(d - t)
        for k in range(3):
            within[k] += max(d / t, t / d) < 1.25 ** (k + 1)
    n = truth.size
    expected = [rel / n, sq_rel / n, (sq / n) ** 0.5, (sq_log / n) ** 0.5, *(w / n for w in within), l1 / n]
    assert depth_figures(depth, truth) == pytest.approx(expected, **CLOSE)
    assert depth_errors([(depth, truth > 0, truth)], "none").l1 == pytest.approx(l1 / n, **CLOSE)


def test_depth_against_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.regression")
    import torch

    rng = np.random.default_rng(1)
    truth = rng.uniform(5, 120, 500)
    depth = truth * rng.uniform(0.5, 1.9, 500)
    d, t = torch.from_numpy(depth), torch.from_numpy(truth)
    found = depth_figures(depth, truth)
    assert found[0] == pytest.approx(float(metrics.mean_absolute_percentage_error(d, t)), **CLOSE)
    assert found[2] == pytest.approx(float(metrics.mean_squared_error(d, t, squared=False)), **CLOSE)
    assert found[3] == pytest.approx(float(metrics.mean_squared_error(d.log(), t.log(), squared=False)), **CLOSE)
    assert found[7] == pytest.approx(float(metrics.mean_absolute_error(d, t)), **CLOSE)


# -- trajectory ---------------------------------------------------------------------------------------------------


def paths() -> tuple[Trajectory, Trajectory]:
    """A wandering camera, and what a tracker in another world and unit made of it."""
    rng = np.random.default_rng(2)
    count = 40
    truth = np.tile(np.eye(4), (count, 1, 1))
    truth[:, :3, 3] = np.cumsum(rng.normal(0, 1, (count, 3)), 0)
    truth[:, :3, :3] = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.05, (count, 3)), 0)).as_matrix()
    ours = truth.copy()
    ours[:, :3, 3] = 0.4 * truth[:, :3, 3] + rng.normal(0, 0.05, (count, 3))
    ours[:, :3, :3] = truth[:, :3, :3] @ Rotation.from_rotvec(rng.normal(0, 0.02, (count, 3))).as_matrix()
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = Rotation.from_rotvec([0.5, -1, 2]).as_matrix(), [5, 6, 7]
    times = np.arange(count) * 33_000_000
    return Trajectory(times, world @ ours), Trajectory(times, truth)


def test_ate_and_rpe_against_evo():
    core = pytest.importorskip("evo.core")
    from evo.core import metrics, trajectory

    assert core
    ours, theirs = paths()
    found = trajectory_errors(ours, theirs)

    def evo_path(path: Trajectory):
        return trajectory.PoseTrajectory3D(
            poses_se3=list(path.world_from_cam), timestamps=path.times_ns / 1e9
        )  # fmt: skip

    def statistic(metric, aligned):
        metric.process_data((evo_path(theirs), aligned))
        return metric.get_statistic(metrics.StatisticsType.rmse)

    similar = evo_path(ours)
    _, _, scale = similar.align(evo_path(theirs), correct_scale=True)
    assert found.scale == pytest.approx(scale, **CLOSE)
    part = metrics.PoseRelation.translation_part
    assert found.ate_sim3 == pytest.approx(statistic(metrics.APE(part), similar), **CLOSE)
    rigid = evo_path(ours)
    rigid.align(evo_path(theirs))
    assert found.ate_se3 == pytest.approx(statistic(metrics.APE(part), rigid), **CLOSE)
    # evo's relative error is of inv(true step) @ step, whose translation has the length of the difference of the steps'
    rpe = metrics.RPE(part, delta=1, delta_unit=metrics.Unit.frames)
    assert found.rpe_translation == pytest.approx(statistic(rpe, similar), **CLOSE)
    turn = metrics.RPE(metrics.PoseRelation.rotation_angle_rad, delta=1, delta_unit=metrics.Unit.frames)
    assert found.rpe_rotation_rad == pytest.approx(statistic(turn, similar), **CLOSE)
    assert found.path_length == pytest.approx(evo_path(theirs).path_length, **CLOSE)


# -- surface ------------------------------------------------------------------------------------------------------


def bumpy(size: int, height: float, seed: int) -> Mesh:
    """A sheet of 2 size^2 triangles, bent at random."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 10, size + 1), np.linspace(0, 10, size + 1))
    z = height + rng.normal(0, 0.3, x.shape)
    at = np.arange((size + 1) ** 2).reshape(size + 1, -1)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, 1:].ravel(), at[1:, :-1].ravel()
    return Mesh(np.stack([x, y, z], -1), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


def test_nearest_points_against_trimesh():
    from trimesh import Trimesh
    from trimesh.proximity import closest_point_naive

    mesh = bumpy(8, 0, 0)
    points = np.random.default_rng(1).uniform([-4, -4, -4], [14, 14, 4], (300, 3))
    found = nearest_on(mesh, points)
    expected, distance, _ = closest_point_naive(Trimesh(mesh.vertices, mesh.faces, process=False), points)
    np.testing.assert_allclose(found.distance, distance, atol=1e-9)
    np.testing.assert_allclose(found.point, expected, atol=1e-9)
    # the point lies on the face that is named
    one = Mesh(mesh.vertices[mesh.faces[found.face[0]]], [[0, 1, 2]])
    assert nearest_on(one, points[:1]).distance == pytest.approx(distance[:1], **CLOSE)


def test_nearest_points_where_triangles_are_degenerate_and_few():
    # a triangle without area is a segment, one whose corners coincide a point
    line = Mesh([[0, 0, 0], [2, 0, 0], [4, 0, 0]], [[0, 1, 2]])
    assert nearest_on(line, [[3, 4, 0], [8, 3, 0]]).distance == pytest.approx([4, 5])
    dot = Mesh([[1, 1, 1]], [[0, 0, 0]])
    assert nearest_on(dot, [[1, 1, 4]]).distance == pytest.approx([3])
    with pytest.raises(ValueError, match="without faces"):
        nearest_on(Mesh(np.zeros((0, 3)), np.zeros((0, 3))), [[0, 0, 0]])
    with pytest.raises(ValueError, match="finite"):
        nearest_on(dot, [[np.nan, 0, 0]])


def test_surface_distances_against_trimesh_and_scipy():
    from trimesh import Trimesh
    from trimesh.proximity import closest_point_naive

    mesh, truth = bumpy(6, 0.4, 2), bumpy(7, 0, 3)
    seen, faces = truth.sample(400)
    d = surface_distances(mesh, truth, seen, samples=300, seen_faces=faces)
    points, own = mesh.sample(300)
    _, accuracy, there = closest_point_naive(Trimesh(truth.vertices, truth.faces, process=False), points)
    _, completeness, _ = closest_point_naive(Trimesh(mesh.vertices, mesh.faces, process=False), seen)
    np.testing.assert_allclose(d.accuracy, accuracy, atol=1e-9)
    np.testing.assert_allclose(d.completeness, completeness, atol=1e-9)
    e = surface_errors(mesh, truth, seen, 10, samples=300, seen_faces=faces, thresholds=(0.3, 0.6))
    assert e.chamfer == pytest.approx((accuracy.mean() + completeness.mean()) / 2, **CLOSE)
    assert e.hausdorff95 == pytest.approx(max(np.percentile(accuracy, 95), np.percentile(completeness, 95)), **CLOSE)
    precision, recall = (accuracy < 0.3).mean(), (completeness < 0.3).mean()
    assert e.f_score[0.3] == pytest.approx(2 * precision * recall / (precision + recall), **CLOSE)
    # normals, where both name the same face: on an edge there are two that are as near
    same = there == nearest_on(truth, points).face
    normals, true_normals = (Trimesh(m.vertices, m.faces, process=False).face_normals for m in (mesh, truth))
    cosine = np.abs((normals[own] * true_normals[there]).sum(1))
    np.testing.assert_allclose(d.accuracy_cosine[same], cosine[same], atol=1e-6)
    assert same.mean() > 0.5 and e.normal_median_rad == pytest.approx(np.median(np.arccos(d.accuracy_cosine)), **CLOSE)


def test_chamfer_and_hausdorff_of_points_against_scipy():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(200, 3)), rng.normal(0.5, 1, (150, 3))
    there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    assert hausdorff(there, back, 100) == pytest.approx(max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0]))
    assert chamfer(there, back) == pytest.approx((there.mean() + back.mean()) / 2)


# -- images -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(177, 201), (192, 176)])
def images(request) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture and a noisy copy, (H, W, 3) in [0, 1]."""
    rng = np.random.default_rng(5)
    truth = cv2.GaussianBlur(rng.random((*request.param, 3)), (0, 0), 3)
    truth = (truth - truth.min()) / np.ptp(truth)
    return np.clip(truth + rng.normal(0, 0.05, truth.shape), 0, 1), truth


def test_psnr_and_ssim_against_scikit_image(images):
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

    image, truth = images
    assert mse(image, truth) == pytest.approx(mean_squared_error(truth, image), **CLOSE)
    assert psnr(image, truth) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=1), **CLOSE)
    expected = structural_similarity(
        truth, image, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    )
    assert ssim(image, truth) == pytest.approx(expected, **CLOSE)


def test_ssim_with_other_borders(images):
    functional = pytest.importorskip("torchmetrics.functional.image")
    import torch
    from torch.nn.functional import conv2d

    image, truth = (torch.from_numpy(x.transpose(2, 0, 1)[None]) for x in images)
    expected = functional.structural_similarity_index_measure(image, truth, data_range=1.0)
    assert ssim(*images, "reflect") == pytest.approx(float(expected), **CLOSE)
    expected = functional.peak_signal_noise_ratio(image, truth, data_range=1.0)
    assert psnr(*images) == pytest.approx(float(expected), **CLOSE)
    # zeros around the image, as in the code of EndoNeRF: a two-dimensional window, padding 5
    line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
    window = torch.outer(line, line)
    window = (window / window.sum()).expand(3, 1, 11, 11)

    def mean(x):
        return conv2d(x, window, padding=5, groups=3)

    a, b = mean(image), mean(truth)
    ab, aa, bb = mean(image * truth) - a * b, mean(image**2) - a**2, mean(truth**2) - b**2
    expected = (2 * a * b + 1e-4) * (2 * ab + 9e-4) / ((a**2 + b**2 + 1e-4) * (aa + bb + 9e-4))
    assert ssim(*images, "zero") == pytest.approx(float(expected.mean()), **CLOSE)


def test_ms_ssim_against_pytorch_msssim(images):
    other = pytest.importorskip("pytorch_msssim")
    import torch

    image, truth = (torch.from_numpy(x.transpose(2, 0, 1)[None]) for x in images)
    # its window is made in single precision
    assert ms_ssim(*images) == pytest.approx(float(other.ms_ssim(image, truth, data_range=1.0)), abs=1e-6)


def test_images_by_hand_and_what_they_refuse():
    truth = np.zeros((20, 30, 3))
    image = truth.copy()
    image[:, :15] = 0.2
    assert mse(image, truth) == pytest.approx(0.02)
    assert psnr(image, truth) == pytest.approx(16.9897, abs=1e-4)  # -10 log10 0.02
    mask = np.zeros((20, 30), bool)
    mask[:, :15] = True
    assert psnr(image, truth, mask) == pytest.approx(13.9794, abs=1e-4)
    assert psnr(truth, truth) == np.inf and ssim(image, image) == pytest.approx(1)
    with pytest.raises(InputError, match="161 pixels at least on each side, found 30 x 20"):
        ms_ssim(image, truth)
    # LPIPS is there, or the sentence why not and what to do
    found = lpips_or_reason()
    assert not isinstance(found, str) or ("LPIPS needs" in found and ("pip install" in found or "fetch" in found))
