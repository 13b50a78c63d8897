"""What the frames show of a surface: the same points in many frames, from different distances and sides.

The light moves with the camera, so a point's brightness changes from frame to frame by light and response alone: its
albedo stays. Whole images are looked up at the projections of points, so no texture is averaged over a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rendering.mesh import Caster, Mesh
from video_io.camera import Camera
from video_io.frame import Frame

if TYPE_CHECKING:
    from endorecon.lighting import Lamp

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Facts = tuple[int, int, int]

POINTS = 2000
BLUR_PX = 1.0  # so that a pixel's error in the pose does not turn texture into light
LEAST_COSINE = 0.25  # seen at a flatter angle, a point's place and footprint are too uncertain
FIT_COSINE = 0.5  # the same for light and response: on a flat view the shading bends within the blur of a pixel
EDGE_STEP, EDGE_REACH = 0.06, 5  # relative jump of depth that is an edge, and how near to one nothing is used
SEAM, SEAM_EDGE = 15, 1  # how far from an edge shadows are looked for, and from where on, pixels of half the size
SAME_DEPTH = 0.01  # a point is seen if nothing is nearer by more than this share of its distance
RIM_PX = 7  # what blur carries from a clipped pixel
WHITE, BLACK = 250 / 255, 12 / 255


@dataclass(frozen=True)
class Sight:
    """A frame with its pose.

    Attributes:
        frame: working frame with masks and camera.
        world_from_cam: (4, 4).
    """

    frame: Frame
    world_from_cam: Float


@dataclass(frozen=True)
class Evidence:
    """K observations of M points in F frames.

    Attributes:
        frames: (F,) indices in the source.
        poses: (F, 4, 4) world_from_cam.
        points, normals: (M, 3), world; normals to the side that was filmed.
        corners, share: (M, 3) the mesh's vertices about each point, and its shares of them.
        point, frame: (K,) numbers of the observed point and of the frame.
        value: (K, 3) float32, displayed, in [0, 1].
        uv: (K, 2) float32 places in the image, -1 to 1.
        highlight: (K,) bool, where the image has a highlight.
        slope: (K, 3) float32, how much the displayed value changes over a pixel there.
        rim: (K, 3) bool, where clipped pixels are near, but not all around.
        clipped, black: shares of the frames' usable pixels that are clipped or black.
    """

    frames: NDArray[np.int64]
    poses: Float
    points: Float
    normals: Float
    corners: NDArray[np.int32]
    share: Float
    point: NDArray[np.int64]
    frame: NDArray[np.int64]
    value: Float32
    uv: Float32
    highlight: NDArray[np.bool_]
    slope: Float32
    rim: NDArray[np.bool_]
    clipped: float
    black: float

    @cached_property
    def in_camera(self) -> tuple[Float32, Float32]:
        """Points and normals (K, 3) in the camera of their observation."""
        rotation, centre = self.poses[self.frame, :3, :3], self.poses[self.frame, :3, 3]
        points = np.einsum("kij,ki->kj", rotation, self.points[self.point] - centre)
        normals = np.einsum("kij,ki->kj", rotation, self.normals[self.point])
        return points.astype(np.float32), normals.astype(np.float32)

    @cached_property
    def distance(self) -> Float32:
        """(K,) from the lens to the point."""
        return np.linalg.norm(self.in_camera[0], axis=1)

    def kept(self, keep: NDArray[np.bool_]) -> Evidence:
        """The observations where `keep` (K,) is True."""
        from dataclasses import replace

        return replace(
            self, point=self.point[keep], frame=self.frame[keep], value=self.value[keep], uv=self.uv[keep],
            highlight=self.highlight[keep], slope=self.slope[keep], rim=self.rim[keep],
        )  # fmt: skip


def gather(
    mesh: Mesh, normals: Float, sights: Sequence[Sight], count: int = POINTS, seed: int = 0, seams: bool = False
) -> Evidence:
    """Choose points that the frames see, and look them up in every frame that sees them.

    Args:
        mesh: the surface. normals: (V, 3) of its vertices, smooth.
        sights: the frames, all of one camera.
        count: points to choose, as the frames see them: more where the camera was near.
        seed: of the choice.
        seams: points are chosen beside jumps of depth, where the lamp's shadows lie, and used close to these.
    """
    from endorecon.lighting import barycentric

    rng, caster = np.random.default_rng(seed), Caster(mesh)
    camera = sights[0].frame.camera
    assert camera is not None
    faces, points = _chosen(caster, camera, sights, count, rng, seams)
    corners = mesh.faces[faces]
    share = barycentric(mesh.vertices[corners].astype(np.float64), points)
    facing = np.einsum("mi,mij->mj", share, normals[corners])
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    rows = [_looked_up(caster, camera, sight, points, facing, SEAM_EDGE if seams else EDGE_REACH) for sight in sights]
    frame = np.repeat(np.arange(len(sights)), [len(r[0]) for r in rows])
    point, value, uv, highlight, slope, rim = (
        np.concatenate(part) for part in zip(*(r[:6] for r in rows), strict=True)
    )
    used = np.array([r[6] for r in rows])
    return Evidence(
        np.array([s.frame.index for s in sights]), np.array([s.world_from_cam for s in sights]), points, facing,
        corners, share, point, frame, value, uv, highlight, slope, rim,
        *(used[:, :2].sum(0) / max(used[:, 2].sum(), 1)),
    )  # fmt: skip


def in_the_light(caster: Caster, evidence: Evidence, lamp: Lamp) -> NDArray[np.bool_]:
    """(K,): whether all of the lamp's sources reach the observed point, nothing being in their way."""
    from endorecon.lighting import unshadowed

    found = np.ones(len(evidence.point), bool)
    begins = np.searchsorted(evidence.frame, np.arange(len(evidence.frames) + 1))
    for f, pose in enumerate(evidence.poses):
        rows = slice(begins[f], begins[f + 1])
        found[rows] = unshadowed(caster, evidence.points[evidence.point[rows]], pose, lamp).all(1)
    return found


def _chosen(
    caster: Caster, camera: Camera, sights: Sequence[Sight], count: int, rng: np.random.Generator, seams: bool
) -> tuple[NDArray[np.int32], Float]:
    """Faces (M,) and points (M, 3) under random pixels of all frames, or of their seams, where they are seen steeply
    enough."""
    rays = camera.ray_map().reshape(-1, 3).astype(np.float64)
    each, faces, points = -(-count // len(sights)), [], []
    for sight in sights:
        pose = sight.world_from_cam
        usable = sight.frame.use_mask
        if seams:
            usable = usable & _edges(caster, camera, pose, SEAM) & ~_edges(caster, camera, pose, SEAM_EDGE)
        at = np.flatnonzero(usable.ravel() & np.isfinite(rays[:, 0]))
        if not len(at):
            continue
        way = rays[rng.choice(at, min(2 * each, len(at)), replace=False)] @ pose[:3, :3].T
        distance, face = caster.along(pose[:3, 3], way)
        steep = np.zeros(len(way), bool)
        met = face >= 0
        steep[met] = np.abs((caster.mesh.face_normals[face[met]] * way[met]).sum(1)) > FIT_COSINE
        keep = np.flatnonzero(steep)[:each]
        faces.append(face[keep])
        points.append(pose[:3, 3] + distance[keep, None] * way[keep])
    if not faces:
        return np.zeros(0, np.int32), np.zeros((0, 3))
    return np.concatenate(faces), np.concatenate(points)


def _looked_up(
    caster: Caster, camera: Camera, sight: Sight, points: Float, normals: Float, edge_reach: int
) -> tuple[NDArray[np.int64], Float32, Float32, NDArray[np.bool_], Float32, NDArray[np.bool_], Facts]:
    """Of one frame: which points it sees, and `Evidence`'s value, uv, highlight, slope and rim of them; its clipped,
    black and all pixels."""
    pose, frame = sight.world_from_cam, sight.frame
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    distance = np.linalg.norm(local, axis=1)
    pixel, seen = camera.project(local)
    whole = np.nan_to_num(pixel).astype(int)
    column, row = (np.clip(whole[:, i], 0, n - 1) for i, n in enumerate((camera.width, camera.height)))
    usable = frame.use_mask & ~_edges(caster, camera, pose, edge_reach)
    cosine = -((normals @ pose[:3, :3]) * local).sum(1) / np.maximum(distance, 1e-9)
    at = np.flatnonzero(seen & usable[row, column] & (cosine > FIT_COSINE))
    way = (points[at] - pose[:3, 3]) / distance[at, None]
    first, _ = caster.along(pose[:3, 3], way)
    at = at[first > distance[at] * (1 - SAME_DEPTH)]
    image = frame.rgb.astype(np.float32) / 255
    # Whole pixels count from the middle of the first one.
    x, y = (pixel[at, i].astype(np.float32)[:, None] - 0.5 for i in (0, 1))
    soft = cv2.GaussianBlur(image, (0, 0), BLUR_PX)
    slope = np.hypot(cv2.Sobel(soft, -1, 1, 0, scale=1 / 8), cv2.Sobel(soft, -1, 0, 1, scale=1 / 8))
    value, slope = (cv2.remap(v, x, y, cv2.INTER_LINEAR)[:, 0] if len(at) else v[:0, 0] for v in (soft, slope))
    clipped, near = (image >= WHITE).astype(np.uint8), np.ones((RIM_PX, RIM_PX), np.uint8)
    rim = (cv2.dilate(clipped, near) > cv2.erode(clipped, near))[row[at], column[at]]
    uv = (pixel[at] / [camera.width, camera.height] * 2 - 1).astype(np.float32)
    level = frame.rgb[frame.use_mask].max(-1, initial=0)
    facts = int((level >= 255 * WHITE).sum()), int((level <= 255 * BLACK).sum()), len(level)
    return at, value, uv, frame.specular_mask[row[at], column[at]], slope, rim, facts


def _edges(caster: Caster, camera: Camera, pose: Float, reach: int) -> NDArray[np.bool_]:
    """(H, W): near a jump of depth, where a small error of the pose shows another surface."""
    half = camera.scaled(max(camera.width // 2, 1), max(camera.height // 2, 1))
    depth = caster.cast(half, pose).depth
    log = np.log(np.maximum(depth, 1e-6))
    kernel = np.ones((3, 3), np.uint8)
    jump = ((cv2.dilate(log, kernel) - cv2.erode(log, kernel)) > 2 * EDGE_STEP).astype(np.uint8)
    jump = cv2.dilate(jump, np.ones((reach // 2 * 2 + 1,) * 2, np.uint8))
    return cv2.resize(jump, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST) > 0
