"""Triangle meshes: files, normals, ray casting, sampling and distances."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from video_io.camera import Camera
from video_io.errors import InputError
from video_io.files import read_bytes

Float = NDArray[np.float64]
_FACES_AT_ONCE = 50_000
_MOST_MB = 1000  # of a mesh's file


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float32 positions.
        faces: (F, 3) int32 vertex numbers, counter-clockwise as seen from the side that the normals point to.
        colors: (V, 3) uint8, or None.
        weight: (V,) float32, how much was seen of each vertex, or None.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colors: NDArray[np.uint8] | None = None
    weight: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        vertices = np.ascontiguousarray(self.vertices, np.float32).reshape(-1, 3)
        faces = np.ascontiguousarray(self.faces, np.int32).reshape(-1, 3)
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)
        if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise ValueError(f"a face names vertex {faces.max()} (or below 0), the mesh has {len(vertices)}")
        for name in ("colors", "weight"):
            values = getattr(self, name)
            if values is not None and len(values) != len(vertices):
                raise ValueError(f"the mesh has {len(vertices)} vertices and {len(values)} {name}")

    @cached_property
    def face_areas(self) -> Float:
        """(F,) areas."""
        return 0.5 * np.linalg.norm(self._crosses(), axis=1)

    @cached_property
    def face_normals(self) -> Float:
        """(F, 3) unit normals; zero on a degenerate face."""
        return _unit(self._crosses())

    @cached_property
    def vertex_normals(self) -> Float:
        """(V, 3) unit normals, the mean of the adjacent faces by area; zero on a vertex without a face."""
        sums = np.zeros((len(self.vertices), 3))
        # In parts, so that a large mesh needs no more memory than itself.
        for begin in range(0, len(self.faces), _FACES_AT_ONCE):
            faces = self.faces[begin : begin + _FACES_AT_ONCE]
            a, b, c = (self.vertices[faces[:, i]].astype(np.float64) for i in range(3))
            crosses = np.cross(b - a, c - a)
            for corner in range(3):
                np.add.at(sums, faces[:, corner], crosses)
        return _unit(sums)

    @cached_property
    def _nearest_tree(self) -> tuple[np.ndarray, ...]:
        """The triangles (F, 3, 3) and their tree, for `nearest_on`; kept, as paths ask it again and again."""
        from rendering._nearest import build

        triangles = self.vertices.astype(np.float64)[self.faces]
        return triangles, *build(triangles)

    def _crosses(self) -> Float:
        a, b, c = (self.vertices[self.faces[:, i]].astype(np.float64) for i in range(3))
        return np.cross(b - a, c - a)

    def transformed(self, new_from_world: ArrayLike, scale: float = 1.0) -> Mesh:
        """The mesh after x -> scale * R x + t, with R and t from the rigid `new_from_world`; as `Trajectory`'s."""
        m = np.asarray(new_from_world, float)
        vertices = scale * self.vertices.astype(np.float64) @ m[:3, :3].T + m[:3, 3]
        return replace(self, vertices=vertices.astype(np.float32))

    def with_faces(self, keep: NDArray[np.bool_]) -> Mesh:
        """The mesh of the faces where `keep` (F,) is True, without vertices that no face uses."""
        faces = self.faces[keep]
        used = np.zeros(len(self.vertices), bool)
        used[faces] = True
        number = np.cumsum(used) - 1
        return Mesh(
            self.vertices[used],
            number[faces],
            None if self.colors is None else self.colors[used],
            None if self.weight is None else self.weight[used],
        )

    def split(self, large: NDArray[np.bool_]) -> tuple[Mesh, NDArray[np.int64]]:
        """The same surface with each face where `large` (F,) is True cut in four at the middles of its edges.

        Also the two vertices (N, 2) between which each of the N new ones lies; these come after the old ones. A face
        beside one that was cut stays whole: the new vertex lies on its edge.
        """
        cut = self.faces[large]
        edges = np.sort(np.concatenate([cut[:, [0, 1]], cut[:, [1, 2]], cut[:, [2, 0]]]).astype(np.int64), 1)
        both, number = np.unique(edges[:, 0] * len(self.vertices) + edges[:, 1], return_inverse=True)
        ends = np.stack(np.divmod(both, max(len(self.vertices), 1)), 1)
        ab, bc, ca = (len(self.vertices) + number).reshape(3, -1)
        a, b, c = cut.T
        small = np.concatenate([np.stack(v, 1) for v in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])

        def with_middles(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else np.concatenate([values, values[ends].mean(1).astype(values.dtype)])

        vertices, colors, weight = (with_middles(v) for v in (self.vertices, self.colors, self.weight))
        assert vertices is not None
        faces = np.concatenate([self.faces[~large], small.astype(self.faces.dtype)])
        return Mesh(vertices, faces, colors, weight), ends

    def sample(self, count: int, seed: int = 0) -> tuple[Float, NDArray[np.int64]]:
        """`count` points spread evenly over the surface, (count, 3), and the face of each, (count,)."""
        if len(self.faces) == 0 or not self.face_areas.sum() > 0:
            raise ValueError("points can't be sampled from a mesh without area")
        rng = np.random.default_rng(seed)
        reach = np.cumsum(self.face_areas)
        # one point a stratum: more even than independent draws
        at = (np.arange(count) + rng.random(count)) / count * reach[-1]
        face = np.minimum(np.searchsorted(reach, at, side="right"), len(self.faces) - 1)
        u, v = np.sqrt(rng.random(count)), rng.random(count)
        share = np.stack([1 - u, u * (1 - v), u * v], -1)
        corners = self.vertices[self.faces[face]].astype(np.float64)
        return (share[:, :, None] * corners).sum(1), face


def without_small_parts(mesh: Mesh, min_faces: int) -> Mesh:
    """The mesh without connected parts of fewer than `min_faces` faces, and without unused vertices."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(mesh.faces) == 0:
        return mesh.with_faces(np.zeros(0, bool))
    n = len(mesh.vertices)
    a, b = mesh.faces[:, [0, 1]].ravel(), mesh.faces[:, [1, 2]].ravel()
    _, part = connected_components(coo_matrix((np.ones(len(a), np.int8), (a, b)), (n, n)), directed=False)
    part_of_face = part[mesh.faces[:, 0]]
    return mesh.with_faces(np.bincount(part_of_face)[part_of_face] >= min_faces)


# -- files --------------------------------------------------------------------------------------------------------

_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def write_ply(mesh: Mesh, path: Path) -> None:
    """Write a binary PLY: positions, normals, colours and `weight` where the mesh has them."""
    columns = [(n, "<f4", v) for n, v in zip("xyz", mesh.vertices.T, strict=True)]
    columns += [(n, "<f4", v) for n, v in zip(("nx", "ny", "nz"), mesh.vertex_normals.T, strict=True)]
    if mesh.colors is not None:
        columns += [(n, "u1", v) for n, v in zip(("red", "green", "blue"), mesh.colors.T, strict=True)]
    if mesh.weight is not None:
        columns.append(("weight", "<f4", mesh.weight))
    vertices = np.empty(len(mesh.vertices), [(n, t) for n, t, _ in columns])
    for name, _, values in columns:
        vertices[name] = values
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {'uchar' if t == 'u1' else 'float'} {n}" for n, t, _ in columns]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    with open(path, "wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(vertices.tobytes())
        file.write(faces.tobytes())


def read_ply(path: Path) -> Mesh:
    """Read a triangle mesh from a PLY file, binary or text.

    Raises:
        InputError: no PLY file, a truncated one, or faces that are not triangles.
    """
    data = _read_bytes(path)
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise InputError(f"{path} is no PLY file: it does not start with a PLY header; give a mesh as .ply")
    header = data[:end].decode("ascii", "replace").split("\n")
    elements: list[tuple[str, int, list[list[str]]]] = []
    try:
        body = data[data.index(b"\n", end) + 1 :]
        form = next((line.split()[1] for line in header if line.startswith("format")), "")
        for line in header:
            words = line.split()
            if words[:1] == ["element"]:
                elements.append((words[1], int(words[2]), []))
            elif words[:1] == ["property"]:
                elements[-1][2].append(words[1:])
        tables = _read_elements(elements, form, body)
        vertex, face = tables["vertex"], tables.get("face")
        corners = np.empty((0, 3), np.int32) if face is None else face["corners"].astype(np.int32)
        return _from_columns(vertex, corners)
    except (KeyError, ValueError, IndexError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path} can't be read as a triangle mesh ({error}); expected a complete PLY file whose faces are triangles"
        ) from error


def read_mesh(path: Path) -> Mesh:
    """Read a triangle mesh: PLY, or what trimesh knows (OBJ, STL, OFF, GLB).

    Raises:
        InputError: a file that is missing or no mesh.
    """
    path = Path(path)
    if path.suffix.lower() == ".ply":
        return read_ply(path)
    data = _read_bytes(path)
    import io

    import trimesh

    try:
        # from memory: a file can't make the reader open others
        kind = path.suffix.lower().lstrip(".")
        loaded = trimesh.load(io.BytesIO(data), file_type=kind, force="mesh", process=False)
        return Mesh(np.asarray(loaded.vertices), np.asarray(loaded.faces))
    except Exception as error:  # trimesh raises whatever its readers raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} can't be read as a mesh ({reason}); give an .stl, .ply or .obj file") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, _MOST_MB)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the mesh {path} can't be opened ({reason}); check the path") from error


def _read_elements(elements: list[tuple[str, int, list[list[str]]]], form: str, body: bytes) -> dict[str, np.ndarray]:
    """Each element's table; the list of a face becomes the columns `count` and `corners`."""
    order = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "<"}[form]
    tables, at = {}, 0
    words = body.split() if form == "ascii" else []
    for name, count, properties in elements:
        fields: list[tuple] = []
        for p in properties:
            if p[0] == "list":
                fields += [("count", order + _PLY_TYPES[p[1]]), ("corners", order + _PLY_TYPES[p[2]], 3)]
            else:
                fields.append((p[1], order + _PLY_TYPES[p[0]]))
        dtype = np.dtype(fields)
        if form == "ascii":
            width = sum(3 if len(f) == 3 else 1 for f in fields)
            rows = np.array(words[at : at + count * width], float).reshape(count, width)
            table, column = np.empty(count, dtype), 0
            for f in fields:
                table[f[0]] = rows[:, column : column + 3] if len(f) == 3 else rows[:, column]
                column += 3 if len(f) == 3 else 1
            at += count * width
        else:
            table = np.frombuffer(body, dtype, count, at)
            at += count * dtype.itemsize
        if "count" in (dtype.names or ()) and not np.all(table["count"] == 3):
            raise ValueError(f"a {name} has other than 3 corners")
        tables[name] = table
    return tables


def _from_columns(vertex: np.ndarray, corners: NDArray[np.int32]) -> Mesh:
    names = vertex.dtype.names or ()
    points = np.stack([vertex[n] for n in "xyz"], -1)
    colors = np.stack([vertex[n] for n in ("red", "green", "blue")], -1).astype(np.uint8) if "red" in names else None
    return Mesh(points, corners, colors, vertex["weight"].astype(np.float32) if "weight" in names else None)


# -- rays ---------------------------------------------------------------------------------------------------------


class Hits(NamedTuple):
    """What the pixels of a camera see of a mesh."""

    depth: NDArray[np.float32]  # (H, W) z, 0 where there is nothing
    normals: NDArray[np.float32]  # (H, W, 3) in the camera frame, towards the camera; 0 where there is nothing
    faces: NDArray[np.int32]  # (H, W), -1 where there is nothing


class Caster:
    """A mesh prepared for many views (Embree)."""

    def __init__(self, mesh: Mesh) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self.mesh = mesh
        # Embree works in float32: about the mesh's own centre little is lost to rounding
        self._origin = mesh.vertices.mean(0).astype(np.float64) if len(mesh.vertices) else np.zeros(3)
        self._scene = rtcore_scene.EmbreeScene()
        self._empty = len(mesh.faces) == 0
        if not self._empty:
            TriangleMesh(self._scene, (mesh.vertices - self._origin).astype(np.float32), mesh.faces)

    def along(self, origins: ArrayLike, directions: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Distances to the first hit along unit rays, (N,), inf where there is none, and the faces hit, (N,), or -1."""
        origins = np.broadcast_to(np.asarray(origins, float) - self._origin, np.shape(directions))
        if self._empty:
            return np.full(len(origins), np.inf, np.float32), np.full(len(origins), -1, np.int32)
        hit = self._scene.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32), output=True
        )
        faces = np.asarray(hit["primID"], np.int32)
        return np.where(faces >= 0, hit["tfar"], np.inf).astype(np.float32), faces

    def cast(self, camera: Camera, world_from_cam: ArrayLike) -> Hits:
        """Depth, normals and faces as `camera` sees them from a pose."""
        pose = np.asarray(world_from_cam, float)
        rays = camera.ray_map().reshape(-1, 3).astype(np.float64)
        known = np.isfinite(rays[:, 0])
        distance, faces = np.full(len(rays), np.inf), np.full(len(rays), -1, np.int32)
        distance[known], faces[known] = self.along(pose[:3, 3], rays[known] @ pose[:3, :3].T)
        hit = faces >= 0
        depth = np.zeros(len(rays), np.float32)
        depth[hit] = distance[hit] * rays[hit, 2]
        normals = np.zeros((len(rays), 3), np.float32)
        towards = self.mesh.face_normals[faces[hit]] @ pose[:3, :3]
        away = (towards * rays[hit]).sum(1) > 0
        normals[hit] = np.where(away[:, None], -towards, towards)
        shape = (camera.height, camera.width)
        return Hits(depth.reshape(shape), normals.reshape(*shape, 3), faces.reshape(shape))


def cast(mesh: Mesh, camera: Camera, world_from_cam: ArrayLike) -> Hits:
    """What one view sees of a mesh; for many views keep a `Caster`."""
    return Caster(mesh).cast(camera, world_from_cam)


# -- distances ----------------------------------------------------------------------------------------------------


class Nearest(NamedTuple):
    """The nearest point of a surface to each of N points."""

    distance: Float  # (N,)
    face: NDArray[np.int64]  # (N,)
    point: Float  # (N, 3)


def nearest_on(mesh: Mesh, points: ArrayLike) -> Nearest:
    """The nearest point of the surface to each point (N, 3), exactly.

    Raises:
        ValueError: a mesh without faces, or values that are not finite.
    """
    from rendering._nearest import query

    points = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
    if len(mesh.faces) == 0:
        raise ValueError("distances to a mesh without faces are not defined")
    if not (np.isfinite(mesh.vertices[mesh.faces]).all() and np.isfinite(points).all()):
        raise ValueError("distances need finite vertices and points")
    face, foot = query(points, *mesh._nearest_tree)
    return Nearest(np.linalg.norm(points - foot, axis=1), face, foot)


def distances_to(mesh: Mesh, points: ArrayLike) -> Float:
    """Distance of each point (N, 3) to the surface, (N,), exactly; errors as of `nearest_on`."""
    return nearest_on(mesh, points).distance


def _unit(v: Float) -> Float:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-30)
