"""The phantom: shapes, views with exact truth, clips."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rendering.phantom import anatomy as anatomies
from rendering.phantom.clip import Clip, prepare, simulate
from rendering.phantom.paths import look
from rendering.phantom.render import Renderer
from rendering.phantom.surfaces import ellipsoid, random_curve, tube, vertex_normals
from rendering.phantom.vary import field_mask, random_camera, random_look
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.trajectory import Trajectory

CAMERA = Camera.from_fov(160, 128, 1.4)


@pytest.fixture(scope="module", params=["colon", "passage", "abdomen"])
def clip(request: pytest.FixtureRequest) -> Clip:
    return prepare(request.param, seed=3, frames=8, camera=CAMERA)


def test_listing_the_anatomies_is_cheap() -> None:
    code = (
        "import sys; from rendering.phantom import anatomy; print(anatomy.names());"
        "assert not {'numba', 'numpy', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_there_are_these_anatomies() -> None:
    assert anatomies.names() == ("abdomen", "colon", "passage", "plaster", "tissue")
    with pytest.raises(ValueError, match="anatomy 'nose' is not known; there are abdomen, colon"):
        anatomies.build("nose", np.random.default_rng(0))


@pytest.mark.parametrize("name", anatomies.names())
def test_every_ray_meets_a_surface(name: str) -> None:
    """Anatomies are closed: a fisheye of 170 degrees has a distance at every pixel, from many places."""
    rng = np.random.default_rng(5)
    renderer = Renderer(anatomies.build(name, rng))
    half = np.radians(85)
    camera = Camera("fisheye", 96, 96, (48 / half, 48 / half, 48, 48, 0, 0, 0, 0))
    seen = 0
    for _ in range(60):
        distance, inside_out = renderer.distances(camera, renderer.anatomy.path.viewpoint(rng))
        if inside_out < 0.004:
            seen += 1
            assert np.all(distance > 0)
    assert seen >= 10


def test_a_tube_is_closed_and_faces_its_axis() -> None:
    import trimesh

    points, frames = random_curve(np.random.default_rng(0), 100.0, 200, 0.02, 10.0)
    part = tube(points, frames, np.full((200, 64), 10.0), ("plaster",))
    mesh = trimesh.Trimesh(part.vertices, part.faces, process=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    assert mesh.is_watertight
    # A cylinder of radius 10 and length 80 with two hemispheroid ends: pi 100 (80 + 2 * 2/3 * 10) = 29,300; air inside.
    assert mesh.volume == pytest.approx(-29300, rel=0.02)
    normals = vertex_normals(part.vertices, part.faces).reshape(200, 64, 3)
    inward = points[100] - part.vertices.reshape(200, 64, 3)[100]
    assert np.all(np.einsum("ti,ti->t", normals[100], inward) > 9.5)
    outside = tube(points, frames, np.full((200, 64), 10.0), ("plaster",), inside=False)
    assert trimesh.Trimesh(outside.vertices, outside.faces).volume > 29000


def test_an_ellipsoid_faces_outward_unless_inside() -> None:
    import trimesh

    rng = np.random.default_rng(0)
    for inside, sign in ((False, 1), (True, -1)):
        part = ellipsoid((1, 2, 3), np.diag([3.0, 2.0, 1.0]), ("fat",), rng, rough=0.0, inside=inside)
        # 4/3 pi 3 2 1
        assert trimesh.Trimesh(part.vertices, part.faces).volume == pytest.approx(sign * 25.13, rel=0.01)


def test_a_curve_bends_no_more_than_asked() -> None:
    points, frames = random_curve(np.random.default_rng(1), 200.0, 800, 0.03, 20.0)
    step = np.diff(points, axis=0)
    assert np.linalg.norm(step, axis=1) == pytest.approx(np.full(799, 200 / 799), rel=1e-6)
    tangent = step / np.linalg.norm(step, axis=1, keepdims=True)
    turn = np.arccos(np.clip(np.einsum("ni,ni->n", tangent[1:], tangent[:-1]), -1, 1)) / (200 / 799)
    assert turn.max() <= 0.0301
    assert frames.transpose(0, 2, 1) @ frames == pytest.approx(np.tile(np.eye(3), (800, 1, 1)), abs=1e-9)


def test_look_puts_the_target_on_the_axis() -> None:
    pose = look(np.array([1.0, 2, 3]), np.array([1.0, 2, 13]), np.array([0, -1.0, 0]))
    assert pose[:3, 2] == pytest.approx([0, 0, 1])
    # Up in the world is towards smaller rows.
    assert pose[:3, 1] == pytest.approx([0, 1, 0])
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_the_camera_stays_in_the_air(clip: Clip) -> None:
    for pose in clip.poses:
        distance, inside_out = clip.renderer.distances(CAMERA, pose)
        assert inside_out < 0.01
        assert distance.min() > 0.8 * clip.renderer.anatomy.nearest_mm


def test_depth_agrees_with_the_poses(clip: Clip) -> None:
    """Points of one frame lie on the surface that the next frame sees, to 0.1 mm."""
    first, second = clip.renderer, clip.poses[[0, 4]]
    z = [first.distances(CAMERA, pose)[0] * CAMERA.ray_map()[..., 2] for pose in second]
    points = CAMERA.ray_map() / CAMERA.ray_map()[..., 2:] * z[0][..., None]
    b_from_a = np.linalg.inv(second[1]) @ second[0]
    moved = points.reshape(-1, 3) @ b_from_a[:3, :3].T + b_from_a[:3, 3]
    uv, seen = CAMERA.project(moved)
    seen &= np.all((uv > 1) & (uv < [159, 127]), axis=1)
    # OpenCV counts from the centre of the top-left pixel.
    at = (uv - 0.5).astype(np.float32)
    there = cv2.remap(z[1], at[:, :1], at[:, 1:], cv2.INTER_LINEAR)[:, 0]
    error = np.abs(there - moved[:, 2])[seen]
    assert seen.mean() > 0.4
    # Behind an edge the other frame sees something else; interpolation between pixels costs what is left.
    assert np.median(error) < 0.05
    assert np.mean(error < 0.1) > 0.7


def test_hits_lie_exactly_on_the_mesh_from_any_pose(clip: Clip) -> None:
    """A point found by one camera is found at the same place by a camera that looks straight at it."""
    distance, _ = clip.renderer.distances(CAMERA, clip.poses[0])
    ray = CAMERA.ray_map()[64, 80]
    point = clip.poses[0][:3, :3] @ ray * distance[64, 80] + clip.poses[0][:3, 3]
    pose = look(clip.poses[1][:3, 3], point, np.array([0.1, 0.9, 0.2]))
    one = Camera.pinhole(1, 1, 100, 100, 0.5, 0.5)
    found = clip.renderer.distances(one, pose)[0][0, 0]
    expected = np.linalg.norm(point - pose[:3, 3])
    assert found == pytest.approx(expected, abs=0.01)


def test_normals_agree_with_depth(clip: Clip) -> None:
    frame = next(clip.frames())
    points = CAMERA.ray_map() / CAMERA.ray_map()[..., 2:] * frame.depth[..., None]
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    from_depth = np.cross(down, across)
    from_depth /= np.linalg.norm(from_depth, axis=-1, keepdims=True)
    cosine = np.einsum("hwi,hwi->hw", from_depth, frame.normals[1:-1, 1:-1])
    assert np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))) < 4
    assert np.linalg.norm(frame.normals, axis=-1) == pytest.approx(np.ones(frame.depth.shape), abs=1e-5)
    assert np.all(np.einsum("hwi,hwi->hw", frame.normals, CAMERA.ray_map()) < 0)


def test_a_frame_is_neither_black_nor_clipped(clip: Clip) -> None:
    frame = next(clip.frames())
    assert 40 < frame.rgb.mean() < 190
    assert np.mean(frame.rgb.min(-1) > 250) < 0.15
    assert frame.rgb.std() > 8
    assert frame.albedo.min() >= 0 and frame.albedo.max() <= 1


def test_a_seed_gives_the_same_clip_again() -> None:
    first, again, other = (prepare("passage", seed, 2, CAMERA) for seed in (1, 1, 2))
    a, b, c = (list(clip.frames()) for clip in (first, again, other))
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x.rgb, y.rgb) and np.array_equal(x.depth, y.depth)
        assert np.array_equal(x.world_from_cam, y.world_from_cam)
    assert not np.array_equal(a[0].rgb, c[0].rgb)


def test_a_clip_moves_smoothly() -> None:
    clip = prepare("colon", seed=5, frames=40, camera=CAMERA)
    step = np.linalg.norm(np.diff(clip.poses[:, :3, 3], axis=0), axis=1)
    turn = np.einsum("nij,nij->n", clip.poses[1:, :3, :3], clip.poses[:-1, :3, :3])
    degrees = np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1)))
    assert 0 < step.max() < 2.0
    assert degrees.max() < 6
    assert step.sum() > 2


def test_shadows_and_bounces_only_take_and_only_add_light() -> None:
    rng = np.random.default_rng(2)
    renderer = Renderer(anatomies.build("plaster", rng))
    pose = renderer.anatomy.path.poses(rng, 1, 30.0, 0.0)[0]
    base = random_look(rng, renderer.anatomy)
    plain, shaded, bounced = (
        renderer.render(CAMERA, pose, type(base)(base.materials, base.lights, 1, bounce, 0.0, shadows)).linear_rgb
        for bounce, shadows in ((0.0, False), (0.0, True), (1.0, False))
    )
    assert np.all(shaded <= plain + 1e-9) and 0.5 < shaded.sum() / plain.sum() <= 1
    assert np.all(bounced >= plain - 1e-9) and bounced.sum() > 1.02 * plain.sum()


def test_random_cameras_have_a_ray_at_every_pixel() -> None:
    rng = np.random.default_rng(0)
    models = set()
    for _ in range(40):
        camera = random_camera(rng, 320, 256)
        models.add(camera.model)
        assert np.isfinite(camera.ray_map()).all()
    assert models == {"pinhole", "fisheye"}


@pytest.mark.parametrize(("kind", "share"), [("none", 1.0), ("circle", 0.590), ("octagon", 0.80), ("rounded", 0.94)])
def test_field_masks(kind: str, share: float) -> None:
    # circle: pi (0.98 * 128)^2 / (320 * 256)
    mask = field_mask(kind, Camera.from_fov(320, 256, 1.0))
    assert mask.mean() == pytest.approx(share, abs=0.03)
    assert mask[128, 160]


def test_simulate_writes_what_it_says(tmp_path: Path) -> None:
    import av

    from video_io.datasets.phantom import open as open_phantom

    half = np.radians(70)
    camera = Camera("fisheye", 96, 64, (48 / half, 48 / half, 48, 32, 0, 0, 0, 0))
    done: list[int] = []
    out = simulate("passage", 4, 3, camera, 25.0, tmp_path / "clip", field_of_view="circle", progress=done.append)
    assert done == [1, 2, 3]
    truth = open_phantom(out)
    assert truth.camera == camera and truth.frame_count == 3
    assert truth.trajectory is not None and truth.trajectory.times_ns.tolist() == [0, 40_000_000, 80_000_000]
    clip = prepare("passage", 4, 3, camera, 25.0, "circle")
    scale = json.loads((out / "intrinsics.json").read_text())["depth_scale"]
    for i, frame in enumerate(clip.frames()):
        stored = truth.depth(i)
        assert stored == pytest.approx(frame.depth, abs=0.51 / scale)
        shown = cv2.imread(str(out / f"rgb/{i:04d}.jpg"))[..., ::-1].astype(float)
        assert np.abs(shown - frame.rgb).mean() < 6
        assert np.all(stored[~clip.mask] == 0) and np.all(stored[clip.mask] > 0)
    assert Trajectory.read_tum(out / "poses.txt").world_from_cam == pytest.approx(clip.poses, abs=1e-6)
    with av.open(str(out / "video.mp4")) as container:
        frames = list(container.decode(video=0))
    # I, P, P; a B-frame would be 3.
    assert [int(f.pict_type) for f in frames] == [1, 2, 2]
    assert {p.name for p in out.iterdir()} == {
        "rgb", "depth", "normals", "albedo", "poses.txt", "intrinsics.json", "phantom.json", "mesh.ply",
        "video.mp4", "terms.txt"
    }  # fmt: skip


def test_simulate_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scene 'stomach' is not known; give one of abdomen, colon"):
        simulate("stomach", 0, 2, None, 30, tmp_path / "a")
    with pytest.raises(InputError, match="at least 1 frame"):
        simulate("colon", 0, 0, None, 30, tmp_path / "a")
    with pytest.raises(InputError, match="must be even, found 33 x 32"):
        simulate("colon", 0, 2, Camera.from_fov(33, 32, 1.0), 30, tmp_path / "a")
    with pytest.raises(InputError, match="field of view 'star' is not known"):
        simulate("colon", 0, 2, None, 30, tmp_path / "a", field_of_view="star")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already; give a folder that is empty"):
        simulate("plaster", 0, 1, CAMERA, 30, tmp_path / "full")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_training_scenes_follow_from_seed_and_number(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "tools" / "make_training_data.py"
    spec = importlib.util.spec_from_file_location("make_training_data", path)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert tool.make_scene(4, tmp_path / folder, seed=9, frames=2) == 2
    for suffix in ("rgb.npy", "distance.npy", "json"):
        name = f"scene_00004.{suffix}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    about = json.loads((tmp_path / "a" / "scene_00004.json").read_text())
    distance = np.load(tmp_path / "a" / "scene_00004.distance.npy")
    assert distance.shape == (2, 256, 320) and distance.dtype == np.float16 and np.all(distance > 0)
    assert about["pairs"] == [[0, 1]] and len(about["world_from_cam"][1]) == 16
    assert Camera.from_dict(about["camera"]).width == 320
    assert not list((tmp_path / "a").glob("*.part"))
