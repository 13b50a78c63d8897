"""Camera conventions with numbers worked out by hand, and the distorted models against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from video_io.camera import PARAMETERS, Camera

CAMERAS = {
    "pinhole": Camera.pinhole(320, 256, 150.0, 155.0, 161.0, 127.0),
    "brown": Camera("brown", 640, 512, (569.0, 570.0, 321.0, 250.0, -0.25, 0.08, 0.001, -0.002, 0.01)),
    "fisheye": Camera("fisheye", 1350, 1080, (767.4, 767.5, 679.5, 544.1, -0.189, -0.0039, 0.0305, -0.0128)),
    # A colonoscope as C3VD's authors calibrated it in Scaramuzza's form, rounded.
    "omnidirectional": Camera(
        "omnidirectional", 1350, 1080, (679.5, 543.9, 769.2, -5.6e-4, 2e-7, -1.4e-10, 0.9999, 2.9e-5, 2.9e-5, 1.0)
    ),
}
POINTS = np.random.default_rng(3).uniform([-0.45, -0.35, 0.8], [0.45, 0.35, 1.2], (200, 3))


@pytest.fixture(params=CAMERAS)
def camera(request: pytest.FixtureRequest) -> Camera:
    return CAMERAS[request.param]


def test_the_centre_of_the_top_left_pixel_is_at_one_half() -> None:
    camera = Camera.pinhole(4, 2, fx=2.0, fy=2.0, cx=2.0, cy=1.0)
    # ((0.5 - 2) / 2, (0.5 - 1) / 2, 1) = (-0.75, -0.25, 1), of length sqrt(0.5625 + 0.0625 + 1) = sqrt(1.625)
    expected = np.array([-0.75, -0.25, 1.0]) / 1.2747548783981961
    np.testing.assert_allclose(camera.rays([0.5, 0.5]), expected, atol=1e-15)
    np.testing.assert_allclose(camera.ray_map()[0, 0], expected, atol=1e-7)
    assert camera.pixels()[1, 3].tolist() == [3.5, 1.5]


def test_a_point_right_below_and_in_front_lands_right_of_and_below_the_centre() -> None:
    camera = Camera.pinhole(320, 256, fx=100.0, fy=200.0, cx=160.0, cy=128.0)
    pixel, seen = camera.project([10.0, 5.0, 50.0])
    assert pixel.tolist() == [180.0, 148.0]  # 160 + 100 * 10/50, 128 + 200 * 5/50
    assert seen


@pytest.mark.parametrize(
    ("point", "why"), [([0, 0, -1], "behind"), ([9, 0, 1], "beside"), ([0, 0, 0], "at the centre")]
)
def test_points_that_the_camera_cannot_see(camera: Camera, point: list[float], why: str) -> None:
    pixel, seen = camera.project(np.array(point, float))
    assert not seen, why
    assert np.all(np.isfinite(pixel))


def test_resizing_multiplies() -> None:
    camera = Camera.pinhole(100, 80, fx=90.0, fy=88.0, cx=51.0, cy=40.0).scaled(50, 20)
    assert (camera.width, camera.height) == (50, 20)
    assert camera.params == (45.0, 22.0, 25.5, 10.0)


def test_cropping_subtracts() -> None:
    camera = Camera.pinhole(100, 80, fx=90.0, fy=88.0, cx=51.0, cy=40.0).cropped(10, 4, 60, 50)
    assert (camera.width, camera.height) == (60, 50)
    assert camera.params == (90.0, 88.0, 41.0, 36.0)


def test_opencv_counts_pixel_centres_from_zero() -> None:
    camera = Camera.from_opencv(640, 480, [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
    assert camera.params == (500.0, 510.0, 320.0, 240.0)
    matrix, _ = camera.to_opencv()
    assert matrix.tolist() == [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]]


def test_field_of_view_gives_the_focal_length() -> None:
    camera = Camera.from_fov(320, 256, np.pi / 2)
    np.testing.assert_allclose(camera.params, (160.0, 160.0, 160.0, 128.0))  # tan 45 deg = 1


def test_rays_invert_projection(camera: Camera) -> None:
    pixels, seen = camera.project(POINTS)
    assert seen.mean() > 0.9
    rays = camera.rays(pixels[seen])
    expected = POINTS[seen] / np.linalg.norm(POINTS[seen], axis=1, keepdims=True)
    np.testing.assert_allclose(rays, expected, atol=1e-9)


def test_the_jacobian_at_the_image_centre_is_the_focal_length() -> None:
    camera = Camera.pinhole(320, 256, fx=100.0, fy=200.0, cx=160.0, cy=128.0)
    assert camera.jacobian([160.0, 128.0]).tolist() == [[100.0, 0.0, 0.0], [0.0, 200.0, 0.0]]
    # 45 degrees to the right the ray is (1, 0, 1) / sqrt 2: u = cx + 100 x / z moves by 100 / z = 141.42 with x and by
    # -100 x / z^2 = -141.42 with z, v by 200 / z = 282.84 with y.
    expected = [[141.4213562, 0.0, -141.4213562], [0.0, 282.8427125, 0.0]]
    np.testing.assert_allclose(camera.jacobian([260.0, 128.0]), expected, atol=1e-6)


def test_the_jacobian_is_the_slope_of_the_projection(camera: Camera) -> None:
    pixels = camera.project(POINTS)[0]
    rays, jacobian, h = camera.rays(pixels), camera.jacobian(pixels), 1e-6
    assert np.abs(np.einsum("nij,nj->ni", jacobian, rays)).max() < 1e-6
    slopes = [(camera.project(rays + h * e)[0] - camera.project(rays - h * e)[0]) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(jacobian, np.stack(slopes, -1), rtol=1e-4, atol=1e-2)


def test_resizing_and_cropping_keep_the_rays(camera: Camera) -> None:
    pixels = np.array([[100.0, 90.0], [200.0, 150.0], [161.3, 127.7]])
    rays = camera.rays(pixels)
    small = camera.scaled(camera.width // 2, camera.height // 2)
    np.testing.assert_allclose(small.rays(pixels / 2), rays, atol=1e-9)
    part = camera.cropped(30, 20, 220, 180)
    np.testing.assert_allclose(part.rays(pixels - [30, 20]), rays, atol=1e-9)


def test_brown_projects_as_opencv() -> None:
    camera = CAMERAS["brown"]
    matrix, distortion = camera.to_opencv()
    expected, _ = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), matrix, distortion)
    pixels, _ = camera.project(POINTS)
    np.testing.assert_allclose(pixels - 0.5, expected.reshape(-1, 2), atol=1e-9)


def test_brown_rays_are_opencvs_undistorted_points() -> None:
    camera = CAMERAS["brown"]
    matrix, distortion = camera.to_opencv()
    pixels = np.array([[20.5, 30.5], [320.0, 256.0], [600.0, 480.0]])
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-13)
    expected = cv2.undistortPoints((pixels - 0.5).reshape(-1, 1, 2), matrix, distortion, criteria=criteria)
    rays = camera.rays(pixels)
    np.testing.assert_allclose(rays[:, :2] / rays[:, 2:], expected.reshape(-1, 2), atol=1e-7)


def test_fisheye_projects_as_opencv() -> None:
    camera = CAMERAS["fisheye"]
    matrix, distortion = camera.to_opencv()
    expected, _ = cv2.fisheye.projectPoints(POINTS.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), matrix, distortion)
    pixels, _ = camera.project(POINTS)
    np.testing.assert_allclose(pixels - 0.5, expected.reshape(-1, 2), atol=1e-9)


def test_fisheye_has_no_rays_past_the_turn_of_its_polynomial() -> None:
    # theta_d = theta - 0.1 theta^3 has its maximum, 1.217, at theta = sqrt(1 / 0.3) = 1.826
    camera = Camera("fisheye", 400, 400, (100.0, 100.0, 200.0, 200.0, -0.1, 0.0, 0.0, 0.0))
    assert np.all(np.isfinite(camera.rays([200 + 121.0, 200.0])))
    assert np.all(np.isnan(camera.rays([200 + 123.0, 200.0])))


def test_omnidirectional_without_bending_is_a_pinhole() -> None:
    camera = Camera("omnidirectional", 400, 300, (200.0, 150.0, 100.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0))
    np.testing.assert_allclose(camera.rays([300.0, 150.0]), [np.sqrt(0.5), 0, np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(camera.project([1.0, 0.5, 2.0])[0], [250.0, 175.0], atol=1e-9)


def test_omnidirectional_sees_beside_itself() -> None:
    # r = 100 where a0 + a2 r^2 = 100 - 0.01 * 10000 = 0: the ray at 90 degrees
    camera = Camera("omnidirectional", 400, 400, (200.0, 200.0, 100.0, -0.01, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0))
    np.testing.assert_allclose(camera.rays([300.0, 200.0]), [1, 0, 0], atol=1e-12)
    pixel, seen = camera.project([5.0, 0.0, 0.0])
    np.testing.assert_allclose(pixel, [300.0, 200.0], atol=1e-6)
    assert seen


def test_dictionary_and_back(camera: Camera) -> None:
    assert Camera.from_dict(camera.to_dict()) == camera
    assert set(camera.to_dict()) == {"model", "width", "height", *PARAMETERS[camera.model]}


def test_scaling_the_focal_length_moves_points_from_the_centre(camera: Camera) -> None:
    point = np.array([0.02, 0.01, 1.0])
    before, after = camera.project(point)[0], camera.with_focal_scale(2.0).project(point)[0]
    np.testing.assert_allclose(after - camera.centre_px, 2 * (before - camera.centre_px), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Camera("kinect", 4, 4, (1.0,)), "camera model 'kinect' is not known"),
        (lambda: Camera("pinhole", 4, 4, (1.0, 1.0)), "has 4 parameters"),
        (lambda: Camera.pinhole(0, 4, 1.0, 1.0, 1.0, 1.0), "size must be positive"),
        (lambda: Camera.pinhole(4, 4, -1.0, 1.0, 1.0, 1.0), "focal length must be positive"),
        (lambda: Camera.pinhole(4, 4, float("nan"), 1.0, 1.0, 1.0), "must be finite"),
        (lambda: Camera.from_dict({"model": "pinhole", "width": 4, "height": 4, "fx": 1}), "needs fy, cx, cy"),
        (lambda: Camera.from_opencv(4, 4, np.eye(3), [0.1] * 8), "4 or 5 distortion values"),
    ],
)
def test_impossible_cameras_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
