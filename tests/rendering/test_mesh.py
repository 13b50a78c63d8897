"""Meshes: files, views, samples and distances."""

from __future__ import annotations

import numpy as np
import pytest

from rendering.mesh import (
    Caster,
    Mesh,
    cast,
    distances_to,
    read_mesh,
    read_ply,
    without_small_parts,
    write_ply,
)
from video_io.camera import Camera
from video_io.errors import InputError


def square(z: float = 10.0, half: float = 8.0) -> Mesh:
    """A square across the view, facing a camera at the origin."""
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    return Mesh(corners, np.array([[0, 2, 1], [0, 3, 2]]), colors, np.array([1.0, 2.0, 3.0, 4.5], np.float32))


def test_ply_brings_back_all_that_was_written(tmp_path):
    write_ply(square(), tmp_path / "square.ply")
    read = read_ply(tmp_path / "square.ply")
    for name in ("vertices", "faces", "colors", "weight"):
        np.testing.assert_array_equal(getattr(read, name), getattr(square(), name))


def test_ply_is_laid_out_as_other_programs_expect(tmp_path):
    write_ply(Mesh(square().vertices, square().faces), tmp_path / "square.ply")
    data = (tmp_path / "square.ply").read_bytes()
    assert data.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\n")
    # 4 vertices of 6 floats (position, normal), then 2 faces of a count byte and 3 ints
    assert len(data) - data.index(b"end_header\n") - 11 == 4 * 24 + 2 * 13
    assert read_mesh(tmp_path / "square.ply").colors is None


def test_text_ply_is_read(tmp_path):
    text = (
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 2 0.5\n3 0 1 2\n"
    )
    (tmp_path / "t.ply").write_text(text)
    mesh = read_ply(tmp_path / "t.ply")
    np.testing.assert_array_equal(mesh.vertices, [[0, 0, 0], [1, 0, 0], [0, 2, 0.5]])
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2]])


def test_obj_is_read(tmp_path):
    (tmp_path / "t.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 2 0\nf 1 2 3\n")
    assert read_mesh(tmp_path / "t.obj").face_areas.tolist() == [1.0]


@pytest.mark.parametrize("content", [b"", b"solid cube", b"ply\nformat binary_little_endian 1.0\nelement vertex"])
def test_what_is_no_ply_is_named(tmp_path, content):
    (tmp_path / "x.ply").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.ply"):
        read_ply(tmp_path / "x.ply")


def test_a_truncated_ply_is_named(tmp_path):
    write_ply(square(), tmp_path / "x.ply")
    (tmp_path / "x.ply").write_bytes((tmp_path / "x.ply").read_bytes()[:-5])
    with pytest.raises(InputError, match="complete PLY"):
        read_ply(tmp_path / "x.ply")
    with pytest.raises(InputError, match="can't be opened"):
        read_ply(tmp_path / "none.ply")


def test_a_face_of_a_missing_vertex_is_refused():
    with pytest.raises(ValueError, match="vertex 3"):
        Mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))


def test_normals_and_areas():
    # the square is wound so that it faces the origin, along -z; 16 x 16 in two triangles
    np.testing.assert_allclose(square().vertex_normals, np.tile([0, 0, -1.0], (4, 1)))
    np.testing.assert_allclose(square().face_areas, [128, 128])


def test_a_view_gives_depth_normals_and_faces():
    # f = 20, so the square of half width 8 at z = 10 covers 20 * 8 / 10 = 16 pixels to each side of the centre
    camera = Camera.pinhole(64, 64, 20, 20, 32, 32)
    hits = cast(square(), camera, np.eye(4))
    assert (hits.depth > 0).sum() == 32 * 32
    np.testing.assert_allclose(hits.depth[16:48, 16:48], 10, rtol=1e-6)
    np.testing.assert_allclose(hits.normals[20, 20], [0, 0, -1], atol=1e-6)
    assert hits.faces[0, 0] == -1 and set(np.unique(hits.faces)) == {-1, 0, 1}


def test_a_view_from_a_pose():
    # from x = 20 looking along -x at a square in the plane x = 0, 20 mm away
    turned = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1.0]])
    mesh = square(z=0).transformed(turned)
    pose = np.array([[0, 0, -1, 20], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    hits = Caster(mesh).cast(Camera.pinhole(9, 9, 20, 20, 4.5, 4.5), pose)
    np.testing.assert_allclose(hits.depth, 20, rtol=1e-6)
    np.testing.assert_allclose(hits.normals[4, 4], [0, 0, -1], atol=1e-6)


def test_an_empty_mesh_shows_nothing():
    hits = cast(Mesh(np.zeros((0, 3)), np.zeros((0, 3))), Camera.from_fov(8, 6, 1.0), np.eye(4))
    assert not hits.depth.any() and (hits.faces == -1).all()


def test_samples_are_spread_by_area():
    # a triangle of area 0.5 beside one of area 1.5: a quarter and three quarters of the points
    mesh = Mesh(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -3, 0]]), np.array([[0, 1, 2], [0, 3, 1]]))
    points, face = mesh.sample(4000)
    assert abs((face == 0).mean() - 0.25) < 0.001
    assert np.all(points[:, 2] == 0) and points[face == 0].min() >= 0
    np.testing.assert_allclose(points[face == 0].mean(0), [1 / 3, 1 / 3, 0], atol=0.02)


def test_distances_are_to_the_surface_not_to_its_corners():
    # above the inside; beside an edge: 3-4-5; beyond a corner: sqrt(1 + 4 + 4) = 3
    points = [[0, 0, 7], [12, 0, 13], [9, 10, 12], [1.234, 5, 10]]
    np.testing.assert_allclose(distances_to(square(), points), [3, 5, 3, 0], atol=1e-6)


def test_small_parts_are_left_out():
    far = square(z=50)
    both = Mesh(np.vstack([square().vertices, far.vertices[:3]]), np.vstack([square().faces, [[4, 6, 5]]]))
    kept = without_small_parts(both, 2)
    assert len(kept.faces) == 2 and len(kept.vertices) == 4 and kept.vertices[:, 2].max() == 10
    assert len(without_small_parts(both, 1).faces) == 3
    assert len(without_small_parts(both, 3).vertices) == 0


def test_transformed_scales_before_it_turns():
    moved = square().transformed(np.array([[0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), scale=0.5)
    # (-8, -8, 10) halved is (-4, -4, 5); turned a quarter (4, -4, 5); moved (9, -4, 5)
    np.testing.assert_allclose(moved.vertices[0], [9, -4, 5])


def test_a_face_is_cut_in_four_and_its_surface_stays():
    square = Mesh(
        np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 2]], np.float32), np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    )
    cut, ends = square.split(np.array([True, False]))
    assert ends.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert cut.vertices[4:].tolist() == [[1, 0, 0], [1, 1, 0], [2, 1, 0]]
    assert cut.faces[0].tolist() == [0, 2, 3]
    assert cut.face_areas[1:] == pytest.approx([0.5] * 4)
    assert cut.face_normals[1:] == pytest.approx(np.tile(square.face_normals[:1], (4, 1)))
    all_cut, _ = square.split(np.ones(2, bool))
    assert (len(all_cut.faces), len(all_cut.vertices)) == (8, 9)  # the edge between the two has one middle
