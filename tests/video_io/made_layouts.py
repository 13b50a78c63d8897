"""Small folders in the layouts of the data sets, written from a phantom clip whose truth is known.

Each writer turns our conventions into those that the data set publishes, and knows nothing of the loaders.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from rendering.phantom.clip import Clip, Video, prepare
from video_io.camera import Camera

WIDTH, HEIGHT = 160, 128
FRAMES = 3
BASELINE_MM = 4.0
CAMERAS = {
    "pinhole": Camera.pinhole(WIDTH, HEIGHT, 78.0, 76.0, 82.3, 61.4),
    "brown": Camera("brown", WIDTH, HEIGHT, (88.0, 87.0, 78.6, 66.2, -0.2, 0.03, 0.002, -0.003, 0.0)),
    "fisheye": Camera("fisheye", WIDTH, HEIGHT, (90.0, 91.0, 81.0, 63.0, -0.05, 0.01, 0.0, 0.0)),
    # C3VD's colonoscope, reduced.
    "omnidirectional": Camera(
        "omnidirectional", 1350, 1080,
        (679.04, 543.48, 769.2436, -8.12770624e-4, 6.25674244e-7, -1.19662182e-9, 0.99998688, 0.00288, -0.00296, 1.0),
    ).scaled(WIDTH, HEIGHT),
    # EndoGSLAM's pinhole, whose centre counts from the first pixel's, reduced.
    "endogslam": Camera.pinhole(1350, 1080, 802.319, 801.885, 668.786, 548.233).scaled(WIDTH, HEIGHT),
    "stereo": Camera.pinhole(320, 256, 260.0, 260.0, 158.0, 131.0),
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A clip with its truth, and the same moments seen from `BASELINE_MM` to the right."""

    camera: Camera
    rgb: list[np.ndarray]
    depth: list[np.ndarray]
    poses: np.ndarray
    right_rgb: list[np.ndarray]
    right_depth: list[np.ndarray]

    @property
    def shift(self) -> np.ndarray:
        """right_from_left."""
        shift = np.eye(4)
        shift[0, 3] = -BASELINE_MM
        return shift


@lru_cache(maxsize=4)
def _prepared(scene: str) -> Clip:
    return prepare(scene, 3, FRAMES, fps=6.0)


@lru_cache(maxsize=16)
def made(model: str = "pinhole", scene: str = "colon", right: bool = False) -> Made:
    """Some frames far enough apart to show a wrong convention."""
    camera = CAMERAS[model]
    clip = replace(_prepared(scene), camera=camera, mask=np.ones((camera.height, camera.width), bool))
    frames, other = list(clip.frames()), []
    if right:
        shift = np.eye(4)
        shift[0, 3] = BASELINE_MM
        # One light for both eyes.
        lights = tuple(
            replace(v, position_mm=tuple(np.subtract(v.position_mm, shift[:3, 3]))) for v in clip.look.lights
        )
        other = list(replace(clip, poses=clip.poses @ shift, look=replace(clip.look, lights=lights)).frames())
    return Made(
        clip.camera, [f.rgb for f in frames], [f.depth for f in frames], np.array(clip.poses),
        [f.rgb for f in other], [f.depth for f in other],
    )  # fmt: skip


# -- pieces -------------------------------------------------------------------------------------------------------


def image(path: Path, rgb: np.ndarray) -> None:
    """Write a colour image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1])


def values(path: Path, stored: np.ndarray) -> None:
    """Write numbers as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), stored)


def steps(depth: np.ndarray, per_mm: float, top: int = 65535) -> np.ndarray:
    """Depth in 16-bit steps; 0 where there is none or it is too far."""
    stored = np.round(depth * per_mm)
    return np.where(stored < top, stored, 0).astype(np.uint16)


def text(path: Path, lines: Sequence[str]) -> None:
    """Write lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def opencv(camera: Camera) -> tuple[list[list[float]], list[float]]:
    """Matrix and distortion with the centre of the first pixel at 0."""
    fx, fy, cx, cy, *d = camera.params
    return [[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]], d


def unity(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position and quaternion x y z w of a pose in axes whose y points up, in the world and in the camera."""
    flip = np.diag([1.0, -1.0, 1.0])
    return flip @ pose[:3, 3], Rotation.from_matrix(flip @ pose[:3, :3] @ flip).as_quat()


def numbers(row: Sequence[float]) -> str:
    """Numbers with blanks."""
    return " ".join(f"{v:.9g}" for v in row)


def stacked(path: Path, clip: Made) -> None:
    """A video with the left pictures above the right ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Video(path, clip.camera.width, 2 * clip.camera.height, 25.0, crf=12) as video:
        for left, right in zip(clip.rgb, clip.right_rgb, strict=True):
            video.write(np.ascontiguousarray(np.concatenate([left, right])))


# -- layouts ------------------------------------------------------------------------------------------------------


def c3vd(folder: Path, clip: Made, first: int = 0, pad: int = 4, by_rows: bool = False) -> Path:
    """C3VD; names may be unpadded."""
    rows = [np.eye(4)] * first + list(clip.poses)
    text(folder / "pose.txt", [",".join(f"{v:.6f}" for v in (p if by_rows else p.T).ravel()) for p in rows])
    for i, (rgb, depth) in enumerate(zip(clip.rgb, clip.depth, strict=True), first):
        image(folder / f"{i:0{pad}d}_color.png", rgb)
        values(folder / f"{i:0{pad}d}_depth.tiff", steps(depth, 65535 / 100))
    (matrix, d), c = opencv(clip.camera), clip.camera
    told = {"model": "FISHEYE_OPENCV", "fx": matrix[0][0], "fy": matrix[1][1], "cx": matrix[0][2], "cy": matrix[1][2]}
    told |= {"k1": d[0], "k2": d[1], "k3": d[2], "k4": d[3], "w": c.width, "h": c.height}
    (folder / "intrinsics.json").write_text(json.dumps(told))
    return folder


def endogslam(folder: Path, clip: Made) -> Path:
    """C3VD as EndoGSLAM prepares it; its camera is in no file."""
    text(folder / "pose.txt", [",".join(f"{v:.6f}" for v in p.T.ravel()) for p in clip.poses])
    for i, (rgb, depth) in enumerate(zip(clip.rgb, clip.depth, strict=True)):
        image(folder / "color" / f"{i:04d}_color.png", rgb)
        values(folder / "depth" / f"{i:04d}_depth.tiff", np.round(np.minimum(depth, 100) * 2.55).astype(np.uint8))
    return folder


def c3vdv2(folder: Path, clip: Made) -> Path:
    """C3VDv2 with Scaramuzza's camera."""
    text(folder / "pose.txt", [",".join(f"{v:.6f}" for v in p.T.ravel()) for p in clip.poses])
    for i, (rgb, depth) in enumerate(zip(clip.rgb, clip.depth, strict=True)):
        image(folder / "rgb" / f"{i:04d}.png", rgb)
        values(folder / "depth" / f"{i:04d}_depth.tiff", steps(depth, 65535 / 100))
        image(folder / "diffuse" / f"{i:04d}_diffuse.png", rgb)
    cx, cy, a0, a2, a3, a4, c, d, e, f = clip.camera.params
    # The reduced camera has an f that is not 1; the same camera has one after r -> r f.
    polynomial = {"a0": a0 * f, "a1": 0.0, "a2": a2 / f, "a3": a3 / f**2, "a4": a4 / f**3}
    told = {"width": WIDTH, "height": HEIGHT, "cx": cx - 0.5, "cy": cy - 0.5, **polynomial, "c": c / f, "d": d / f}
    text(folder / "camera_intrinsics.txt", [f"{n} = {v:.12g}" for n, v in {**told, "e": e / f}.items()])
    return folder


def simcol(folder: Path, clip: Made, channels: int = 1) -> Path:
    """SimCol3D's SyntheticColon_I with one sequence; returns the sequence's folder."""
    frames = folder / "SyntheticColon_I" / "Frames_S5"
    positions, turns = zip(*map(unity, clip.poses), strict=True)
    text(frames.parent / "SavedPosition_S5.txt", [numbers(p / 10) for p in positions])
    text(frames.parent / "SavedRotationQuaternion_S5.txt", [numbers(q) for q in turns])
    fx, fy, cx, cy = clip.camera.params
    text(frames.parent / "cam.txt", [f"{fx} 0 {cx} 0 {fy} {cy} 0 0 1"])
    for i, (rgb, depth) in enumerate(zip(clip.rgb, clip.depth, strict=True)):
        image(frames / f"FrameBuffer_{i:04d}.png", rgb)
        stored = steps(depth / 10, 255 * 256 / 20)
        values(frames / f"Depth_{i:04d}.png", stored if channels == 1 else np.repeat(stored[..., None], channels, -1))
    return frames


def scared_facts(clip: Made, index: int, size: tuple[int, int]) -> bytes:
    """A frame's json; the camera is told for images of `size`."""
    matrix, d = opencv(clip.camera.scaled(*size))
    camera = {"KL": matrix, "KR": matrix, "DL": [d or [0.0] * 5], "DR": [d or [0.0] * 5]}
    camera |= {"R": np.eye(3).tolist(), "T": [[-BASELINE_MM], [0.0], [0.0]]}
    pose = np.linalg.inv(clip.poses[index]).tolist()
    return json.dumps({"camera-calibration": camera, "camera-pose": pose, "timestamp": index}).encode()


def points(clip: Made, index: int, twice: bool = True) -> np.ndarray:
    """x, y, z of each pixel, z last in the file; the right image's below."""
    rays = clip.camera.ray_map()
    xyz = (rays / rays[..., 2:] * clip.depth[index][..., None]).astype(np.float32)
    xyz[clip.depth[index] == 0] = np.nan
    return np.concatenate([xyz, np.full_like(xyz, np.nan)])[..., ::-1] if twice else xyz[..., ::-1]


def packed(path: Path, members: dict[str, bytes]) -> None:
    """A tar.gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def tiff(array: np.ndarray) -> bytes:
    """A TIFF of an array."""
    return bytes(cv2.imencode(".tiff", np.ascontiguousarray(array))[1])


def scared(folder: Path, clip: Made) -> Path:
    """A key frame of SCARED as released."""
    size = clip.camera.width, clip.camera.height
    packed(folder / "data/frame_data.tar.gz",
           {f"./frame_data{i:06d}.json": scared_facts(clip, i, size) for i in range(FRAMES)})  # fmt: skip
    packed(folder / "data/scene_points.tar.gz",
           {f"./scene_points{i:06d}.tiff": tiff(points(clip, i)) for i in range(FRAMES)})  # fmt: skip
    stacked(folder / "data/rgb.mp4", clip)
    return keyframe(folder, clip)


def keyframe(folder: Path, clip: Made) -> Path:
    """What is measured of SCARED: one pair."""
    image(folder / "Left_Image.png", clip.rgb[0])
    image(folder / "Right_Image.png", clip.right_rgb[0])
    values(folder / "left_depth_map.tiff", np.ascontiguousarray(points(clip, 0, twice=False)))
    matrix, d = opencv(clip.camera)
    storage = cv2.FileStorage(str(folder / "endoscope_calibration.yaml"), cv2.FILE_STORAGE_WRITE)
    named = {"M1": matrix, "D1": [d or [0.0] * 5], "M2": matrix, "D2": [d or [0.0] * 5], "R": np.eye(3)}
    for name, value in {**named, "T": [[-BASELINE_MM], [0.0], [0.0]]}.items():
        storage.write(name, np.array(value, float))
    storage.release()
    return folder


def scared_endodac(folder: Path, clip: Made) -> Path:
    """SCARED in EndoDAC's tree: images and depth by the number of the frame, the camera for 1280 x 1024."""
    for i, rgb in enumerate(clip.rgb):
        image(folder / f"data/left/frame_data{i:06d}.png", rgb)
        values(folder / f"data/scene_points/scene_points{i:06d}.tiff", np.ascontiguousarray(points(clip, i)))
        (folder / "data/frame_data").mkdir(exist_ok=True)
        (folder / f"data/frame_data/frame_data{i:06d}.json").write_bytes(scared_facts(clip, i, (1280, 1024)))
    return folder


def scared_af(folder: Path, clip: Made) -> Path:
    """SCARED in AF-SfMLearner's tree: images count from 1, depth from 0; there are no poses."""
    for i, rgb in enumerate(clip.rgb):
        image(folder / f"image_02/data/{i + 1:010d}.png", rgb)
        place = folder / "image_02/data/groundtruth"
        values(place / f"scene_points{i:06d}.tiff", np.ascontiguousarray(points(clip, i)))
    return folder


def endonerf(folder: Path, clip: Made, deform3dgs: bool = False) -> Path:
    """EndoNeRF, or as Deform3DGS's script writes it: tissue white, [cy, cx, f], other names."""
    camera = clip.camera
    focal, rows = camera.params[0], []
    for i, (rgb, depth, pose) in enumerate(zip(clip.rgb, clip.depth, clip.poses, strict=True)):
        rgb, tool = with_tool(rgb)
        names = [f"frame-{i:06d}.{kind}.png" if deform3dgs else f"{i:06d}.png" for kind in ("color", "depth", "mask")]
        image(folder / "images" / names[0], rgb)
        values(folder / "depth" / names[1], steps(depth, 100.0))
        values(folder / "masks" / names[2], np.where(tool != deform3dgs, 255, 0).astype(np.uint8))
        right, down, ahead, centre = pose[:3].T
        last = [camera.params[3] - 0.5, camera.params[2] - 0.5] if deform3dgs else [camera.height, camera.width]
        llff = np.stack([down, right, -ahead, centre * 100, [*last, focal]], -1)
        rows.append([*llff.ravel(), 0.03, 250.0])
    np.save(folder / "poses_bounds.npy", np.array(rows))
    return folder


def with_tool(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image with a grey tool that comes in from the right, and where it is."""
    tool = np.zeros(rgb.shape[:2], bool)
    tool[50:90, 90:] = True
    out = rgb.copy()
    out[tool] = 150
    return out, tool


def hamlyn(folder: Path, clip: Made, depth: bool = True) -> Path:
    """Hamlyn's rectified pairs with the calibration beside them; returns rectified04."""
    place = folder / "rectified04"
    for i in range(FRAMES):
        image(place / "image01" / f"{i:010d}.jpg", clip.rgb[i])
        image(place / "image02" / f"{i:010d}.jpg", clip.right_rgb[i])
        if depth:
            values(place / "depth01" / f"{i:010d}.png", steps(clip.depth[i], 1.0))
    text(folder / "calibration/04/intrinsics.txt", [numbers([*r, 0.0]) for r in opencv(clip.camera)[0]])
    text(folder / "calibration/04/extrinsics.txt", [numbers(r) for r in clip.shift[:3]])
    return place


def servct(folder: Path, clip: Made, reference: str = "Reference_CT") -> Path:
    """An experiment of SERV-CT."""
    matrix = np.array(opencv(clip.camera)[0])
    p1 = np.column_stack([matrix, np.zeros(3)])
    p2 = np.column_stack([matrix, [-BASELINE_MM * matrix[0, 0], 0, 0]])
    for i in range(FRAMES):
        name = f"{i + 1:03d}"
        image(folder / "Left_rectified" / f"{name}.png", clip.rgb[i])
        image(folder / "Right_rectified" / f"{name}.png", clip.right_rgb[i])
        values(folder / reference / "DepthL" / f"{name}.png", steps(clip.depth[i], 256))
        values(folder / reference / "DepthR" / f"{name}.png", steps(clip.right_depth[i], 256))
        path = folder / "Rectified_calibration" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"P1": p1.tolist(), "P2": {"rows": 3, "cols": 4, "data": p2.ravel().tolist()}}))
    return folder


def stereomis(folder: Path, clip: Made, video: bool = True) -> Path:
    """A sequence of StereoMIS, as a stacked video or as images."""
    (fx, _, cx), (_, fy, cy), _ = opencv(clip.camera)[0]
    lines = []
    for name, shift in (("StereoLeft", np.eye(4)), ("StereoRight", clip.shift)):
        lines += [f"[{name}]", f"res_x = {clip.camera.width}", f"res_y = {clip.camera.height}", f"fc_x = {fx}"]
        lines += [f"fc_y = {fy}", f"cc_x = {cx}", f"cc_y = {cy}"] + [f"kc_{i} = 0.0" for i in range(8)]
        lines += [f"R_{i} = {v}" for i, v in enumerate(shift[:3, :3].ravel())]
        lines += [f"T_{i} = {v}" for i, v in enumerate(shift[:3, 3])]
    text(folder / "StereoCalibration.ini", lines)
    text(folder / "groundtruth.txt",
         [f"{i} {numbers([*p[:3, 3] / 1000, *Rotation.from_matrix(p[:3, :3]).as_quat()])}"
          for i, p in enumerate(clip.poses)])  # fmt: skip
    for i in range(FRAMES):
        tissue = np.full((clip.camera.height, clip.camera.width), 255, np.uint8)
        tissue[:, 250:] = 0
        values(folder / "masks" / f"{i:06d}l.png", tissue)
        if not video:
            image(folder / "video_frames" / f"{i:06d}l.png", clip.rgb[i])
            image(folder / "video_frames" / f"{i:06d}r.png", clip.right_rgb[i])
    if video:
        stacked(folder / "IFBS_ENDOSCOPE-part0001.mp4", clip)
    text(folder / "test_split.csv", ["start,end", "1,2"])
    return folder


def calibu(camera: Camera) -> str:
    """The text of an EndoMapper calibration of a fisheye."""
    params = "; ".join(f"{v:.10g}" for v in (*camera.params[:2], *(c - 0.5 for c in camera.params[2:4]),
                                             *camera.params[4:]))  # fmt: skip
    return f"""<rig><camera>
    <camera_model name="" index="0" serialno="0" type="calibu_fu_fv_u0_v0_kb4" version="8">
        <width> {camera.width} </width>
        <height> {camera.height} </height>
        <right> [ 1; 0; 0 ] </right>
        <params> [ {params} ] </params>
    </camera_model>
</camera></rig>
"""


def endomapper(folder: Path, clip: Made) -> Path:
    """A procedure of EndoMapper: a video, and the calibration of its endoscope; returns the sequence's folder."""
    place = folder / "Sequences/Seq_016"
    place.mkdir(parents=True)
    with Video(place / "Seq_016.mov", clip.camera.width, clip.camera.height, 25.0) as video:
        for rgb in clip.rgb:
            video.write(rgb)
    text(folder / "Calibrations/Endoscope_01/Endoscope_01_geometrical.xml", [calibu(clip.camera)])
    return place


def endomapper_simulated(folder: Path, clip: Made) -> Path:
    """A simulated sequence of EndoMapper, lengths in decimetres."""
    import OpenEXR

    near, far = 0.01, 4.0
    lines = ["tX;tY;tZ;rX;rY;rZ;rW;time"]
    (folder / "depth").mkdir(parents=True)
    for i, (rgb, depth, pose) in enumerate(zip(clip.rgb, clip.depth, clip.poses, strict=True)):
        image(folder / "rgb" / f"image_{i:04d}.png", rgb)
        z = np.where(depth > 0, depth / 100, far)
        buffer = (near * far / z - near) / (far - near)  # Unity's, reversed: 1 at the near plane, 0 at the far one
        buffer = np.where(depth > 0, buffer, 0).astype(np.float32)
        channels = {name: OpenEXR.Channel(name, buffer) for name in "RGB"}
        OpenEXR.File({"type": OpenEXR.scanlineimage}, channels).write(str(folder / f"depth/aov_image_{i:04d}.exr"))
        position, turn = unity(pose)
        lines.append(";".join(f"{v:.9g}" for v in (*position / 100, *turn, i / 30)))
    text(folder / "trajectory.csv", lines)
    text(folder / "Sim_geometrical.xml", [calibu(clip.camera)])
    return folder


def endoslam(folder: Path, clip: Made) -> Path:
    """EndoSLAM's UnityCam with one organ; returns the organ's folder."""
    place = folder / "UnityCam/Colon"
    lines = ["tX,tY,tZ,rX,rY,rZ,rW,time(s)"]
    for i, (rgb, depth, pose) in enumerate(zip(clip.rgb, clip.depth, clip.poses, strict=True)):
        image(place / "Frames" / f"image_{i:04d}.png", rgb)
        coarse = np.round(depth / 10).astype(np.uint8)
        stored = np.dstack([coarse * 0, coarse * 0, coarse, coarse])  # OpenCV has red third
        values(place / "Pixelwise Depths" / f"aov_image_{i:04d}.png", stored)
        position, turn = unity(pose)
        lines.append(",".join(f"{v:.9g}" for v in (*position / 1000, *turn, i / 30)))
    text(place / "Poses/colon_position_rotation.csv", lines)
    text(folder / "UnityCam/Calibration/cam.txt", [",".join(str(v) for r in opencv(clip.camera)[0] for v in r)])
    return place


def tum(folder: Path, clip: Made, start: float = 1305031452.79) -> Path:
    """TUM RGB-D; depth is taken 5 ms after colour, and poses at times of their own."""
    seconds = [start + i / 10 for i in range(FRAMES)]
    rgb_lines, depth_lines = ["# color images", "# file: 'x.bag'"], ["# depth maps"]
    for i, s in enumerate(seconds):
        image(folder / "rgb" / f"{s:.6f}.png", clip.rgb[i])
        values(folder / "depth" / f"{s + 0.005:.6f}.png", steps(clip.depth[i], 5.0))
        rgb_lines.append(f"{s:.6f} rgb/{s:.6f}.png")
        depth_lines.append(f"{s + 0.005:.6f} depth/{s + 0.005:.6f}.png")
    text(folder / "rgb.txt", rgb_lines)
    text(folder / "depth.txt", depth_lines)
    rows = ["# timestamp tx ty tz qx qy qz qw"]
    for s, pose in zip(seconds, clip.poses, strict=True):
        rows.append(f"{s:.6f} {numbers([*pose[:3, 3] / 1000, *Rotation.from_matrix(pose[:3, :3]).as_quat()])}")
    text(folder / "groundtruth.txt", rows)
    (folder / "camera.json").write_text(json.dumps(clip.camera.to_dict()))
    return folder


def colmap(folder: Path, clip: Made, binary: bool = True, per_frame: int = 60) -> Path:
    """A model that pycolmap writes: points of the first frame, seen by all frames that have them in view."""
    import pycolmap

    model = pycolmap.Reconstruction()
    names = {"pinhole": "PINHOLE", "fisheye": "OPENCV_FISHEYE", "brown": "OPENCV"}
    c = clip.camera
    params = list(c.params[:8])
    camera = pycolmap.Camera(camera_id=1, model=names[c.model], width=c.width, height=c.height, params=params)
    model.add_camera_with_trivial_rig(camera)
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(5, c.height - 5, per_frame), rng.integers(5, c.width - 5, per_frame)
    depth = clip.depth[0][rows, columns]
    rows, columns, depth = rows[depth > 0], columns[depth > 0], depth[depth > 0]
    rays = c.ray_map()[rows, columns].astype(float)
    world = (rays / rays[:, 2:] * depth[:, None]) @ clip.poses[0][:3, :3].T + clip.poses[0][:3, 3]
    ids = [model.add_point3D(xyz, pycolmap.Track(), np.zeros(3, np.uint8)) for xyz in world]
    for i, pose in enumerate(clip.poses):
        cam_from_world = np.linalg.inv(pose)
        at, seen = c.project(world @ cam_from_world[:3, :3].T + cam_from_world[:3, 3])
        seen_ids = np.flatnonzero(seen)
        image_ = pycolmap.Image(
            image_id=i + 1, name=f"frame_{i:05d}.png", camera_id=1,
            points2D=pycolmap.Point2DList([pycolmap.Point2D(p) for p in at[seen_ids]]),
        )  # fmt: skip
        model.add_image_with_trivial_frame(image_, pycolmap.Rigid3d(cam_from_world[:3]))
        for k, point in enumerate(seen_ids.tolist()):
            model.add_observation(ids[point], pycolmap.TrackElement(i + 1, k))
        image(folder / "images" / f"frame_{i:05d}.png", clip.rgb[i])
    (folder / "sparse/0").mkdir(parents=True)
    (model.write if binary else model.write_text)(folder / "sparse/0")
    return folder


def nerfstudio(folder: Path, clip: Made) -> Path:
    """nerfstudio with depth in steps of 10 micrometres."""
    fx, fy, cx, cy, *d = clip.camera.params
    frames = []
    for i, pose in enumerate(clip.poses):
        image(folder / f"images/frame_{i + 1:05d}.png", clip.rgb[i])
        values(folder / f"depth/frame_{i + 1:05d}.png", steps(clip.depth[i], 100.0))
        gl = pose @ np.diag([1.0, -1.0, -1.0, 1.0])
        gl[:3, 3] /= 1000
        named = {"file_path": f"images/frame_{i + 1:05d}.png", "depth_file_path": f"depth/frame_{i + 1:05d}.png"}
        frames.append({**named, "transform_matrix": gl.tolist()})
    told = {"camera_model": "OPENCV_FISHEYE" if clip.camera.model == "fisheye" else "OPENCV", "fl_x": fx, "fl_y": fy}
    told |= {"cx": cx, "cy": cy, "w": clip.camera.width, "h": clip.camera.height, "depth_unit_scale_factor": 1e-5}
    if clip.camera.model == "fisheye":
        told |= dict(zip(("k1", "k2", "k3", "k4"), d, strict=True))
    elif d:
        told |= dict(zip(("k1", "k2", "p1", "p2", "k3"), d, strict=True))
    (folder / "transforms.json").write_text(json.dumps({**told, "frames": frames}))
    return folder
