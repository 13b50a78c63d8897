"""The parts of tracking, each against numbers or images whose answer is known."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from endorecon.tracking import adjust as joint
from endorecon.tracking.densify import ERROR_STD, Correction, NetworkDepth, fit_correction
from endorecon.tracking.features import detect, feature_image, follow
from endorecon.tracking.map import Map, Sight
from endorecon.tracking.patches import align, cut, textured
from endorecon.tracking.pose import solve
from endorecon.tracking.refine import FocalPrior, adjust_keyframes, is_shown
from video_io.camera import Camera
from video_io.frame import Frame

FOCAL = 150.0


def texture(height: int = 128, width: int = 160, seed: int = 0) -> np.ndarray:
    """A smooth random picture (H, W, 3), as tissue with vessels is."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 2.0)
    grey = np.clip(120 + 60 * picture / picture.std(), 30, 220).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def shifted(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    move = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(picture, move, picture.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def test_points_follow_a_shift():
    picture = texture()
    first, second = (feature_image(Frame.of(p)) for p in (picture, shifted(picture, 3.4, -1.6)))
    points = detect(first, np.zeros((0, 2), np.float32), 100, 8)
    moved, kept = follow(first, second, points)
    assert len(points) > 50 and kept.mean() > 0.85
    assert np.median(np.abs(moved - points - [3.4, -1.6])[kept]) < 0.05


def test_points_keep_their_distance_and_avoid_highlights_and_the_border():
    frame = replace(Frame.of(texture()), specular_mask=np.pad(np.ones((40, 40), bool), ((30, 58), (50, 70))))
    old = np.array([[20.0, 20.0]], np.float32)
    points = detect(feature_image(frame), old, 200, 8)
    assert np.linalg.norm(points - old, axis=1).min() >= 7
    inside = (points[:, 0] > 50) & (points[:, 0] < 90) & (points[:, 1] > 30) & (points[:, 1] < 70)
    assert not inside.any()
    assert points.min() > 4


def test_points_are_followed_across_an_exposure_change():
    picture = texture()
    darker = (shifted(picture, 1.0, 0.0).astype(np.float32) * 0.6).astype(np.uint8)
    first, second = feature_image(Frame.of(picture)), feature_image(Frame.of(darker))
    points = detect(first, np.zeros((0, 2), np.float32), 100, 8)
    moved, kept = follow(first, second, points)
    assert kept.mean() > 0.8
    assert np.median(np.abs(moved - points - [1.0, 0.0])[kept]) < 0.1


def test_patches_are_found_through_a_zoom():
    """A picture zoomed by 1.2 about (80, 64): the point p lies at 80 + 1.2 (p - 80), and patches are told the zoom."""
    picture = texture()
    zoom = np.array([[1.2, 0, 79.5 * (1 - 1.2)], [0, 1.2, 63.5 * (1 - 1.2)]], np.float32)  # OpenCV's pixel centres
    grey = picture[..., 1].astype(np.float32)
    near = cv2.warpAffine(grey, zoom, (160, 128), flags=cv2.INTER_CUBIC)
    points = np.array([[60.0, 50.0], [100.0, 80.0], [75.0, 90.0]], np.float32)
    truth = np.array([80, 64]) + 1.2 * (points - [80, 64])
    patches = cut(grey, np.zeros_like(grey), points)
    warp = np.tile(1.2 * np.eye(2), (3, 1, 1))
    found, good = align(near * 0.7 + 10, patches, warp, (truth + [0.9, -0.7]).astype(np.float32))
    assert good.all()
    assert np.abs(found - truth).max() < 0.05


def test_patches_do_not_follow_the_shading():
    """The lamp has moved: the picture is the same but for a ramp of brightness, 1.5 grey levels a pixel."""
    grey = cv2.GaussianBlur(texture()[..., 1], (0, 0), 2).astype(np.float32)
    y, x = np.mgrid[:128, :160].astype(np.float32)
    points = np.stack(np.meshgrid([40.0, 80.0, 120.0], [30.0, 64.0, 100.0]), -1).reshape(-1, 2).astype(np.float32)
    lit = 0.8 * grey + 1.2 * x - 0.9 * y
    found, good = align(lit, cut(grey, np.zeros_like(grey), points), np.tile(np.eye(2), (9, 1, 1)), points)
    assert good.all()
    # Such a ramp is more than a lamp does. With nothing of it taken out they are off by up to 0.54 px, 0.26 in the
    # median; with half of its slope, which weighs a quarter, by 0.30 and 0.10.
    assert np.abs(found - points).max() < 0.32 and np.median(np.abs(found - points)) < 0.12


def test_points_on_noise_are_not_followed_where_there_are_better_ones():
    """Left a texture; right a ramp of brightness and noise of 0.5 grey levels, whose best points fill up the number."""
    _, x = np.mgrid[:128, :160].astype(np.float32)
    bare = 100 + 1.5 * x + np.random.default_rng(0).normal(0, 0.5, x.shape).astype(np.float32)
    grey = np.where(x < 80, texture()[..., 1].astype(np.float32), bare)
    points = np.stack(np.meshgrid([25.0, 55.0, 105.0, 135.0], [30.0, 64.0, 100.0]), -1).reshape(-1, 2)
    points = points.astype(np.float32)
    assert (textured(grey, points, 0) == (points[:, 0] < 80)).all()
    more = textured(grey, points, 8)
    assert more[points[:, 0] < 80].all() and more.sum() == 8


def test_patches_that_are_not_there_are_not_found():
    grey, other = (texture(seed=s)[..., 1].astype(np.float32) for s in (0, 1))
    points = np.stack(np.meshgrid([40.0, 80.0, 120.0], [30.0, 64.0, 100.0]), -1).reshape(-1, 2).astype(np.float32)
    _, good = align(other, cut(grey, np.zeros_like(grey), points), np.tile(np.eye(2), (9, 1, 1)), points)
    assert good.sum() <= 1


def scene(
    frames: int = 6, landmarks: int = 60, noise_px: float = 0.0, seed: int = 0
) -> tuple[joint.Problem, np.ndarray]:
    """A camera that advances among points, started away from the truth; and the true centres."""
    camera = Camera.pinhole(160, 128, FOCAL, FOCAL, 80, 64)
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(rng.normal(0, 0.05, (frames, 3))).as_matrix()
    centre = np.cumsum(rng.normal(0, 0.5, (frames, 3)), 0) + np.arange(frames)[:, None] * [0, 0, 0.5]
    rotation[0], centre[0] = np.eye(3), 0
    host = np.sort(rng.integers(0, 2, landmarks))
    ray = np.concatenate([rng.normal(0, 0.4, (landmarks, 2)), np.ones((landmarks, 1))], 1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    distance = rng.uniform(10, 40, landmarks)
    world = np.einsum("mij,mj->mi", rotation[host], ray * distance[:, None]) + centre[host]
    frame = np.concatenate([np.arange(h, frames) for h in host])
    landmark = np.repeat(np.arange(landmarks), frames - host)
    seen, _ = camera.project(np.einsum("oji,oj->oi", rotation[frame], world[landmark] - centre[frame]))
    seen += rng.normal(0, noise_px, seen.shape)
    away = rotation @ Rotation.from_rotvec(rng.normal(0, 0.01, (frames, 3))).as_matrix()
    away[0] = np.eye(3)
    fixed = np.arange(frames) == 0
    prior = np.log(distance) + rng.normal(0, 0.05, landmarks)
    problem = joint.Problem(
        rotation=away, centre=centre + rng.normal(0, 0.2, centre.shape) * ~fixed[:, None],
        alpha=np.zeros(frames), beta=np.zeros(frames), fixed=fixed, host=host,
        sight=joint.Sightlines.of(camera, camera.project(ray)[0], seen, False),
        log_d=prior.copy(), prior=prior, prior_weight=np.full(landmarks, 1 / 0.3**2),
        start=np.append(0, np.cumsum(frames - host)), frame=frame, anchored=True,
    )  # fmt: skip
    return problem, centre


def test_joint_refinement_finds_the_poses():
    problem, centre = scene(noise_px=0.0)
    found = joint.adjust(problem, 30)
    # Without noise in the images the poses are exact up to the scale, which the 5 % noise of the prior decides.
    scale = (found.problem.centre * centre).sum() / (centre**2).sum()
    assert scale == pytest.approx(1, abs=0.02)
    assert np.abs(found.problem.centre / scale - centre).max() < 0.01
    assert found.last_cost < 1e-2 * found.first_cost


def test_joint_refinement_agrees_with_a_slow_reference():
    """Residuals written plainly, and scipy's trust-region solver on them."""
    problem, _ = scene(frames=3, landmarks=15, noise_px=0.4, seed=1)
    found = joint.adjust(problem, 60, tolerance=1e-10)
    p, hosts = problem, np.unique(problem.host)
    landmark = np.repeat(np.arange(15), np.diff(p.start))
    foreign = p.host[landmark] != p.frame

    def robust(squared, scale):
        return np.sqrt(scale**2 * np.log1p(squared / scale**2))

    def unpack(x):
        rotation = p.rotation @ Rotation.from_rotvec(np.vstack([np.zeros(3), x[:6].reshape(2, 3)])).as_matrix()
        centre = p.centre + np.vstack([np.zeros(3), x[6:12].reshape(2, 3)])
        return rotation, centre, p.log_d + x[12:27], x[27:29], x[29:31]

    def residuals(x):
        rotation, centre, log_d, alpha, beta = unpack(x)
        local = p.sight.ray * np.exp(log_d)[:, None]
        world = np.einsum("mij,mj->mi", rotation[p.host], local) + centre[p.host]
        seen = np.einsum("oji,oj->oi", rotation[p.frame], world[landmark] - centre[p.frame])
        seen /= np.linalg.norm(seen, axis=1, keepdims=True)
        # d (f x / z) at the observed ray o: f / o_z (x - o_x z / o_z), and the same for y.
        o = p.sight.seen
        off = FOCAL / o[:, 2:] * (seen[:, :2] - o[:, :2] * seen[:, 2:] / o[:, 2:])
        # One component a residual would not be the same robust cost; each observation counts as one length.
        image = robust((off[foreign] ** 2).sum(1), 1.0)
        at = np.searchsorted(hosts, p.host)
        error = log_d - alpha[at] - np.log(np.exp(p.prior) + beta[at])
        prior = np.sqrt(np.log1p(p.prior_weight * error**2))
        shift = beta / (p.shift_std * np.exp(np.median(p.prior)))
        return np.concatenate([image, prior, shift, np.diff(alpha) / p.scale_drift_std, [alpha[0] * 100]])

    q = found.problem
    turns = Rotation.from_matrix(p.rotation.transpose(0, 2, 1) @ q.rotation).as_rotvec()[1:]
    moves, depths = (q.centre - p.centre)[1:], q.log_d - p.log_d
    ours = np.concatenate([turns.ravel(), moves.ravel(), depths, q.alpha[hosts], q.beta[hosts]])
    # The compiled cost is the plainly written one, and from its optimum the slow solver finds nothing better.
    assert (residuals(ours) ** 2).sum() == pytest.approx(found.last_cost, rel=1e-6)
    reference = least_squares(residuals, ours, xtol=1e-14, ftol=1e-14, gtol=1e-12, max_nfev=200)
    assert 2 * reference.cost == pytest.approx(found.last_cost, rel=1e-3)
    # Nor does it from where ours began.
    assert found.last_cost <= 2 * least_squares(residuals, np.zeros(31), max_nfev=300).cost * 1.001


@pytest.mark.parametrize("noise_px", [0.2, 0.6])
def test_joint_refinement_finds_the_focal_length_where_the_camera_turns_and_moves(noise_px):
    problem, _ = scene(frames=8, landmarks=400, noise_px=noise_px)
    problem = replace(problem, sight=problem.sight.refocused(0.08), log_focal_std=0.3)
    found = joint.adjust(problem, 40)
    # It begins 8 % too long, so the refinement must take 8 % off. Residuals measured as angles would shrink with a
    # longer focal length, and noise would pull it there: they are in pixels.
    assert found.problem.log_focal == pytest.approx(-0.08, abs=0.01)
    assert found.problem.sight.camera.focal_px == pytest.approx(FOCAL, rel=0.01)
    assert found.log_focal_std < 0.02


def moved(kind: str, begun: float = 1.22, seed: int = 0, frames: int = 16, count: int = 300) -> joint.Problem:
    """A camera of 146.6 px before a wavy wall, begun with a wrong focal length; the network's depth errs smoothly, by a
    tenth."""
    camera, rng, t = Camera.pinhole(320, 256, 146.6, 146.6, 160, 128), np.random.default_rng(seed), np.arange(frames)
    turn = 0.2 * np.stack([np.sin(t / 4), np.sin(t / 3), 0.5 * np.sin(t / 6)], 1) * (kind in ("turn", "both"))
    centre = t[:, None] * {"turn": [0, 0, 0], "side": [0.5, 0.1, 0]}.get(kind, [0, 0, 0.7])
    rotation, host = Rotation.from_rotvec(turn).as_matrix(), np.sort(rng.integers(0, 3, count) * (frames // 4))
    pixel = rng.uniform([20, 20], [300, 236], (count, 2))
    distance = 30 * (1 + 0.4 * np.sin(pixel[:, 0] / 70) * np.cos(pixel[:, 1] / 60))
    world = np.einsum("mij,mj->mi", rotation[host], camera.rays(pixel) * distance[:, None]) + centre[host]
    frame, landmark = np.concatenate([np.arange(h, frames) for h in host]), np.repeat(np.arange(count), frames - host)
    seen, _ = camera.project(np.einsum("oji,oj->oi", rotation[frame], world[landmark] - centre[frame]))
    net = np.log(distance) + 0.1 * np.sin(pixel[:, 0] / 110) * np.cos(pixel[:, 1] / 90)
    sight = joint.Sightlines.of(camera.with_focal_scale(begun), pixel, seen + rng.normal(0, 0.3, seen.shape), True)
    return joint.Problem(
        rotation=rotation, centre=centre.astype(float), alpha=np.zeros(frames), beta=np.zeros(frames),
        fixed=t == 0, host=host, sight=sight, log_d=net.copy(), prior=net, prior_weight=np.full(count, 4.0),
        start=np.append(0, np.cumsum(frames - host)), frame=frame, anchored=True, log_focal_std=0.05,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["both", "turn", "straight", "side"])
def test_how_sure_a_focal_length_is_rests_on_the_images_alone(kind):
    """A turn shows it. A camera that goes straight on or sideways sees a bent scene for each focal length: then no more
    is known than before, however many landmarks agree with the network's depth."""
    found = joint.adjust(moved(kind), 40).problem
    off = abs(np.log(found.sight.camera.focal_px / 146.6))
    if kind in ("both", "turn"):
        assert off < 0.005 and joint.focal_std(found) < 0.005
    else:
        assert off > 0.1 and 0.98 * 0.05 < joint.focal_std(found) <= 0.05


def mapped(problem: joint.Problem) -> Map:
    """The same as a segment that has been tracked, every frame a key frame."""
    scene = Map(problem.sight.camera)
    landmark = np.repeat(np.arange(len(problem.host)), np.diff(problem.start))
    for number, (rotation, centre) in enumerate(zip(problem.rotation, problem.centre, strict=True)):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, centre
        seen = (problem.frame == number) & (problem.host[landmark] != number)
        sight = Sight(landmark[seen], problem.sight.pixel[seen].astype(np.float32), problem.prior[landmark[seen]])
        scene.add_frame(pose, sight, 0.0, keyframe=True)
        own = problem.host == number
        if own.any():
            scene.add_landmarks(number, problem.sight.host_pixel[own].astype(np.float32), problem.prior[own])
    return scene


@pytest.mark.parametrize(
    ("begun", "kind", "shown"), [(1.9, "both", True), (0.6, "turn", True), (1.22, "straight", False)]
)
def test_an_unusual_lens_is_found_where_the_motion_shows_it_and_else_the_start_stays(begun, kind, shown):
    scene = mapped(moved(kind, begun))
    prior = FocalPrior(scene.camera.focal_px, 0.19)
    for _ in range(2):
        spread = adjust_keyframes(scene, prior)
    assert is_shown(spread, prior) is shown
    if shown:
        # 90 % too long is 3.4 deviations from what was known before.
        assert scene.camera.focal_px == pytest.approx(146.6, rel=0.01) and spread < 0.03
    else:
        assert scene.camera.focal_px == pytest.approx(prior.focal_px, rel=0.05)


def test_a_given_focal_length_stays():
    problem, _ = scene(noise_px=0.5)
    found = joint.adjust(problem)
    assert found.problem.log_focal == 0
    assert np.isinf(found.log_focal_std)
    assert found.problem.sight is problem.sight


def test_fixed_poses_stay():
    problem, _ = scene()
    problem = replace(problem, fixed=np.array([True, True, False, False, False, False]))
    found = joint.adjust(problem)
    assert np.array_equal(found.problem.centre[:2], problem.centre[:2])
    assert np.array_equal(found.problem.rotation[:2], problem.rotation[:2])


@pytest.mark.parametrize("wrong_share", [0.0, 0.3])
def test_a_pose_is_solved_among_wrong_points(wrong_share):
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 20, (100, 3)) + [0, 0, 50]
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = Rotation.from_rotvec([0.05, -0.1, 0.2]).as_matrix(), [1.0, -2.0, 3.0]
    camera = Camera.pinhole(160, 128, FOCAL, FOCAL, 80, 64)
    seen, _ = camera.project((points - truth[:3, 3]) @ truth[:3, :3])
    wrong = rng.permutation(100)[: int(wrong_share * 100)]
    seen[wrong] = np.roll(seen[wrong], 1, axis=0)
    pose = solve(points, camera, seen, [np.eye(4)])
    # Wrong points keep a little of their say (Cauchy's weight is never zero): 5 micrometres in 50 mm.
    assert np.abs(pose.world_from_cam - truth).max() < 1e-2
    assert pose.inliers.sum() == 100 - len(wrong)


def test_a_pose_far_from_the_guess_is_found_by_sampling():
    rng = np.random.default_rng(1)
    points = rng.uniform(-20, 20, (80, 3)) + [0, 0, 60]
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = Rotation.from_rotvec([0.0, 0.0, 1.5]).as_matrix(), [5.0, 0.0, -10.0]
    camera = Camera.pinhole(160, 128, FOCAL, FOCAL, 80, 64)
    seen, _ = camera.project((points - truth[:3, 3]) @ truth[:3, :3])
    assert np.abs(solve(points, camera, seen, [np.eye(4)]).world_from_cam - truth).max() < 1e-3


def test_the_correction_takes_on_a_smooth_error_and_ignores_a_wrong_landmark():
    rng = np.random.default_rng(0)
    pixels = rng.uniform([0, 0], [320, 256], (150, 2))
    truth = 0.3 + 0.1 * (pixels[:, 0] - 160) / 160
    wrong = truth.copy()
    wrong[:5] += 1.5
    fit = fit_correction(pixels, wrong, np.full(150, 0.01**2), 320, 256)
    distance, spread = fit.apply(np.full((256, 320), 20.0, np.float32), np.full((256, 320), 0.1, np.float32))
    columns = np.arange(320) + 0.5
    assert np.abs(np.log(distance[128] / 20) - (0.3 + 0.1 * (columns - 160) / 160)).max() < 0.03
    assert spread.max() < 0.1


def test_the_correction_is_that_of_the_whole_gaussian_process():
    """Rasmussen and Williams, eq. 2.23-2.24, written plainly, with the same three rounds of reweighting."""
    rng = np.random.default_rng(3)
    pixels = rng.uniform(0, [160, 128], (120, 2))
    values = 0.1 * np.sin(pixels[:, 0] / 30) + 0.05 * np.cos(pixels[:, 1] / 25) + rng.normal(0, 0.02, 120)
    values[7] += 0.8
    variance = np.full(120, 0.02**2)
    found = fit_correction(pixels, values, variance, 160, 128)
    x, y = np.meshgrid((np.arange(15) + 0.5) * 160 / 15, (np.arange(12) + 0.5) * 128 / 12)
    grid = np.stack([x, y], -1).reshape(-1, 2)

    def kernel(a, b):
        return ERROR_STD**2 * np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1) / (0.22 * 160) ** 2)

    noise, weight = variance + 0.01**2, np.ones(120)
    scale = np.sort(values)[59:61].mean()
    for _ in range(3):
        inverse = np.linalg.inv(kernel(pixels, pixels) + np.diag(noise / weight))
        error = (values - scale - kernel(pixels, pixels) @ inverse @ (values - scale)) ** 2
        mean = scale + kernel(grid, pixels) @ inverse @ (values - scale)
        left = ERROR_STD**2 - np.einsum("ij,jk,ik->i", kernel(grid, pixels), inverse, kernel(grid, pixels))
        weight = 1 / (1 + error / (4 * noise + 0.02**2))
    assert np.abs(found.mean.ravel() - mean).max() < 0.004
    assert np.abs(found.std.ravel() - np.sqrt(left)).max() < 0.002


def test_without_landmarks_nothing_is_corrected_and_nothing_is_known():
    fit = fit_correction(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 320, 256)
    assert not fit.mean.any() and np.allclose(fit.std, ERROR_STD)


def test_depth_is_z_and_invalid_where_the_mask_says_so():
    camera = Camera.pinhole(64, 64, 32, 32, 32, 32)
    frame = replace(Frame.of(np.full((64, 64, 3), 100, np.uint8)), use_mask=np.arange(64) < np.full((64, 1), 40))
    net = NetworkDepth.of(np.full((64, 64), 10.0, np.float32), np.full((64, 64), 0.1, np.float32), camera)
    seen = net.observe(frame, camera, np.eye(4), Correction.constant(np.log(2.0)), 0, True, {})
    assert np.allclose(seen.depth[:, :40], 20.0, rtol=1e-5)
    assert not seen.confidence[:, 40:].any() and not seen.depth[:, 40:].any()
    # The spread of one tenth is what confidence one half means.
    assert np.allclose(seen.confidence[:, :40], 0.5, atol=1e-3)
