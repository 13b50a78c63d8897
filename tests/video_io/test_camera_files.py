"""Calibration files of every kind, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from video_io.camera import Camera
from video_io.camera_files import read_camera, write_camera
from video_io.errors import InputError

COLMAP = "# Camera list\n# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"


@pytest.mark.parametrize(
    "camera",
    [
        Camera.pinhole(320, 256, 146.61298784278776, 146.6, 160.0, 128.0),
        Camera("brown", 640, 512, (569.0, 570.0, 321.0, 250.0, -0.25, 0.08, 0.001, -0.002, 0.01)),
        Camera("fisheye", 1350, 1080, (767.4, 767.5, 679.5, 544.1, -0.189, -0.0039, 0.0305, -0.0128)),
        Camera("omnidirectional", 1350, 1080, (679.5, 543.9, 769.2, -5.6e-4, 2e-7, -1.4e-10, 0.9999, 3e-5, 3e-5, 1.0)),
    ],
)
def test_written_cameras_come_back_exactly(tmp_path: Path, camera: Camera) -> None:
    write_camera(tmp_path / "camera.json", camera)
    assert read_camera(tmp_path / "camera.json") == camera


def test_a_runs_camera_file_gives_the_cameras_source_entry(tmp_path: Path) -> None:
    source = Camera.pinhole(640, 512, 570.0, 570.0, 320.0, 256.0)
    entry = {"working": source.scaled(320, 256).to_dict(), "source": source.to_dict(), "how": "given"}
    (tmp_path / "camera.json").write_text(json.dumps(entry))
    assert read_camera(tmp_path / "camera.json") == source


def test_plain_intrinsics_are_in_our_convention(tmp_path: Path) -> None:
    path = tmp_path / "intrinsics.json"
    path.write_text(
        '{"fx": 146.6, "fy": 146.5, "cx": 160.0, "cy": 128.0, "width": 320, "height": 256, "depth_scale": 400}'
    )
    assert read_camera(path) == Camera.pinhole(320, 256, 146.6, 146.5, 160.0, 128.0)


def test_c3vds_fisheye_gets_half_a_pixel(tmp_path: Path) -> None:
    values = {"model": "FISHEYE_OPENCV", "fx": 767.4, "fy": 767.5, "cx": 679.05, "cy": 543.65, "w": 1350, "h": 1080}
    (tmp_path / "i.json").write_text(json.dumps({**values, "k1": -0.19, "k2": -0.004, "k3": 0.03, "k4": -0.01}))
    camera = read_camera(tmp_path / "i.json")
    assert (camera.model, camera.width, camera.height) == ("fisheye", 1350, 1080)
    np.testing.assert_allclose(camera.params, (767.4, 767.5, 679.55, 544.15, -0.19, -0.004, 0.03, -0.01))


@pytest.mark.parametrize("suffix", ["yml", "xml"])
def test_opencv_storage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"calibration.{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", np.array([[500.0, 0, 319.5], [0, 510.0, 239.5], [0, 0, 1]]))
    storage.write("distortion_coefficients", np.array([[-0.3, 0.1, 0.001, -0.002, 0.05]]))
    storage.release()
    camera = read_camera(path)
    assert camera == Camera("brown", 640, 480, (500.0, 510.0, 320.0, 240.0, -0.3, 0.1, 0.001, -0.002, 0.05))


def test_opencv_storage_of_a_fisheye(tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("fisheye_model", 1)
    storage.write("camera_matrix", np.array([[300.0, 0, 319.5], [0, 300.0, 239.5], [0, 0, 1]]))
    storage.write("distortion_coefficients", np.array([[0.1, 0.01, 0.0, -0.001]]))
    storage.release()
    assert read_camera(path) == Camera("fisheye", 640, 480, (300.0, 300.0, 320.0, 240.0, 0.1, 0.01, 0.0, -0.001))


def test_ros_yaml_without_opencvs_tags(tmp_path: Path) -> None:
    path = tmp_path / "ros.yaml"
    path.write_text(
        "image_width: 640\nimage_height: 480\ndistortion_model: plumb_bob\n"
        "camera_matrix:\n  rows: 3\n  cols: 3\n  data: [500., 0., 319.5, 0., 510., 239.5, 0., 0., 1.]\n"
        "distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [0., 0., 0., 0., 0.]\n"
    )
    assert read_camera(path) == Camera.pinhole(640, 480, 500.0, 510.0, 320.0, 240.0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 SIMPLE_PINHOLE 640 480 500 320 240", Camera.pinhole(640, 480, 500, 500, 320, 240)),
        ("1 PINHOLE 640 480 500 510 320 240", Camera.pinhole(640, 480, 500, 510, 320, 240)),
        ("1 SIMPLE_RADIAL 640 480 500 320 240 -.1", Camera("brown", 640, 480, (500, 500, 320, 240, -0.1, 0, 0, 0, 0))),
        ("1 RADIAL 640 480 500 320 240 -.1 .02", Camera("brown", 640, 480, (500, 500, 320, 240, -0.1, 0.02, 0, 0, 0))),
        (
            "3 OPENCV 640 480 500 510 320 240 -.1 .02 .001 .002",
            Camera("brown", 640, 480, (500, 510, 320, 240, -0.1, 0.02, 0.001, 0.002, 0)),
        ),
        (
            "1 OPENCV_FISHEYE 640 480 500 510 320 240 .1 .02 .003 .004",
            Camera("fisheye", 640, 480, (500, 510, 320, 240, 0.1, 0.02, 0.003, 0.004)),
        ),
    ],
)
def test_colmap(tmp_path: Path, line: str, expected: Camera) -> None:
    (tmp_path / "cameras.txt").write_text(COLMAP + line + "\n")
    assert read_camera(tmp_path / "cameras.txt") == expected


def test_colmaps_pixel_convention_is_ours(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    params = [500.0, 510.0, 321.0, 239.0, -0.1, 0.02, 0.001, 0.002]
    theirs = pycolmap.Camera(model="OPENCV", width=640, height=480, params=params)
    (tmp_path / "cameras.txt").write_text(COLMAP + "1 OPENCV 640 480 " + " ".join(map(str, params)))
    points = np.array([[0.1, -0.2, 1.0], [-0.3, 0.25, 1.2]])
    pixels, _ = read_camera(tmp_path / "cameras.txt").project(points)
    np.testing.assert_allclose(pixels, theirs.img_from_cam(points), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"fx": 1', "can't be used"),
        ("c.json", '{"fx": 100, "fy": 100, "cx": 5, "cy": 5}', "does not say the image's width and height"),
        ("c.json", '{"fx": 100, "width": 10, "height": 10}', "needs fy, cx, cy"),
        ("c.json", '{"fx": "wide", "fy": 1, "cx": 5, "cy": 5, "width": 10, "height": 10}', "could not convert"),
        ("c.json", '{"fx": 0, "fy": 0, "cx": 5, "cy": 5, "width": 10, "height": 10}', "focal length must be positive"),
        ("c.yml", "%YAML:1.0\n---\nimage_width: 640\n", "no 3 x 3 camera matrix"),
        ("c.yml", "%YAML:1.0\n---\n{{{", "can't be used"),
        ("cameras.txt", COLMAP + "1 PINHOLE 640 480 1 1 1 1\n2 PINHOLE 640 480 1 1 1 1\n", "holds 2 cameras"),
        ("cameras.txt", COLMAP + "1 PINHOLE 640 480 1 1 1\n", "has 4 parameters, found 3"),
        ("cameras.txt", COLMAP + "1 THIN_PRISM_FISHEYE 640 480 1 1 1\n", "THIN_PRISM_FISHEYE is not supported"),
        ("notes.txt", "the camera is a good one\n", "of no known kind"),
        ("empty.json", "", "of no known kind"),
    ],
)
def test_bad_camera_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_camera(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "COLMAP's cameras.txt" in str(caught.value), "it says what would do"


def test_missing_and_binary_camera_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_camera(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="can't be read as text"):
        read_camera(tmp_path / "b.json")


def test_sample_cameras(sample_data: Path) -> None:
    assert read_camera(sample_data / "traced_lap" / "intrinsics.json").model == "pinhole"
    assert read_camera(sample_data / "c3vd_trans_t1_a" / "intrinsics.json").model == "fisheye"
