"""Good clips made into what people bring: each damage takes a clip in our own layout and writes a damaged input, for
which it is known what is wrong with it and what the good one has that a repair should give back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io.camera import Camera
from video_io.camera_files import read_camera
from video_io.trajectory import Trajectory

Image = NDArray[np.uint8]
Float = NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """A clip in memory. Depth is as stored, at `scale` steps a mm; masks are 0 and 255, white what can be used."""

    images: list[Image]
    depths: list[NDArray[np.generic]]
    masks: list[Image]
    times_s: Float
    poses: Float
    camera: Camera
    scale: float


@dataclass(frozen=True)
class Damaged:
    """A damaged input.

    Attributes:
        path: of the input.
        kind: of the finding that tells of it.
        kept: numbers of the good clip's frames that a repair gives back, in order; None where it can't.
        psnr_db: the least that pictures have, compared with the good ones.
        depth_mm: by how much the depth may be off at most, median over the pixels.
    """

    path: Path
    kind: str
    kept: list[int] | None
    psnr_db: float = 99.0
    depth_mm: float = 0.01
    extra: dict[str, object] = field(default_factory=dict)


def load(folder: Path) -> Material:
    """The clip in a folder that `simulate` has written."""
    images = [_rgb(p) for p in sorted((folder / "rgb").iterdir())]
    depths = [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((folder / "depth").glob("*.png"))]
    trajectory = Trajectory.read_tum(folder / "poses.txt")
    told = json.loads((folder / "intrinsics.json").read_text())
    camera = read_camera(folder / "intrinsics.json")
    masks = [np.where(d > 0, 255, 0).astype(np.uint8) for d in depths]
    return Material(
        images, depths, masks, trajectory.times_ns / 1e9, trajectory.world_from_cam, camera, told["depth_scale"]
    )


def write(
    clip: Material, out: Path, depth: bool = True, masks: bool = False, poses: bool = True,
    numbers: list[int] | None = None,
) -> Path:  # fmt: skip
    """Write a folder in our own layout, the pictures lossless."""
    numbers = list(range(len(clip.images))) if numbers is None else numbers
    for name in ("rgb", *(["depth"] if depth else []), *(["masks"] if masks else [])):
        (out / name).mkdir(parents=True)
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    for number, image in zip(numbers, clip.images, strict=True):
        cv2.imwrite(str(out / f"rgb/{number:04d}.png"), image[..., ::-1], fast)
    for number, stored in enumerate(clip.depths if depth else []):
        cv2.imwrite(str(out / f"depth/{number:04d}.png"), stored, fast)
    for number, mask in enumerate(clip.masks if masks else []):
        cv2.imwrite(str(out / f"masks/{number:04d}.png"), mask, fast)
    if poses:
        write_poses(out / "poses.txt", clip.times_s, clip.poses)
    (out / "intrinsics.json").write_text(json.dumps({**clip.camera.to_dict(), "depth_scale": clip.scale}) + "\n")
    return out


def write_poses(path: Path, times_s: Float, poses: Float) -> None:
    """TUM lines of whatever matrices with a rotation."""
    from scipy.spatial.transform import Rotation

    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    rows = np.c_[times_s, poses[:, :3, 3], quaternions]
    path.write_text("".join(" ".join(f"{v:.9f}" for v in row) + "\n" for row in rows))


def write_video(
    path: Path, images: list[Image], times_s: Float | None = None, fps: float = 30.0, crf: int = 16,
    metadata: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """H.264 with the given times (by default at an even rate)."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        height, width = images[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "threads": "1"}
        stream.codec_context.time_base = Fraction(1, 90000)
        container.metadata.update(metadata or {})
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            seconds = number / fps if times_s is None else float(times_s[number])
            frame.pts, frame.time_base = round(seconds * 90000), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# -- depth, poses, masks ------------------------------------------------------------------------------------------


def _posed(change: Callable[[Float], Float], kind: str, depth: bool = True) -> Callable[..., Damaged]:
    def damage(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
        poses = np.array([change(pose) for pose in clip.poses])
        return Damaged(write(replace(clip, poses=poses), out, depth), kind, list(range(len(clip.images))))

    return damage


def _transposed(pose: Float) -> Float:
    out = pose.copy()
    out[:3, :3] = pose[:3, :3].T
    return out


def _scaled(factor: float) -> Callable[[Float], Float]:
    def change(pose: Float) -> Float:
        out = pose.copy()
        out[:3, 3] *= factor
        return out

    return change


def poses_by_rows(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """pose.txt with 16 values a line, by rows."""
    write(clip, out, poses=False)
    rows = clip.poses.reshape(-1, 16)
    (out / "pose.txt").write_text("".join(" ".join(f"{v:.8f}" for v in row) + "\n" for row in rows))
    return Damaged(out, "poses_transposed", list(range(len(clip.images))))


def depth_in_metres(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """depth_scale counts stored steps a metre."""
    return Damaged(write(replace(clip, scale=1000 * clip.scale), out), "depth_unit", list(range(len(clip.images))))


def depth_stored_as_mm(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """Stored at 10 steps a mm, and depth_scale says 10 000."""
    stored = [np.round(d / clip.scale * 10).astype(np.uint16) for d in clip.depths]
    kept = list(range(len(clip.images)))
    return Damaged(write(replace(clip, depths=stored, scale=10000.0), out), "depth_unit", kept, depth_mm=0.06)


def depth_high_byte(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """Saved through a writer of 8 bits: the high byte is left."""
    stored = [(d >> 8).astype(np.uint8) for d in clip.depths]  # type: ignore[operator]
    step = 256 / clip.scale
    kept = list(range(len(clip.images)))
    return Damaged(write(replace(clip, depths=stored), out), "depth_8bit", kept, depth_mm=0.6 * step)


def depth_normalised(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """Stretched to 0 to 255 over the whole clip, as pictures are."""
    most = max(int(d.max()) for d in clip.depths)
    stored = [np.round(d / most * 255).astype(np.uint8) for d in clip.depths]
    kept = list(range(len(clip.images)))
    # The scale is found from the pictures, to some per cent of the depth.
    usual = float(np.median(np.concatenate([d[d > 0][::50] for d in clip.depths]))) / clip.scale
    tolerance = 0.5 * most / 255 / clip.scale + 0.05 * usual
    return Damaged(write(replace(clip, depths=stored), out), "depth_8bit", kept, depth_mm=tolerance)


def _ray_length(poses: bool) -> Callable[..., Damaged]:
    def damage(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
        cosine = np.maximum(np.nan_to_num(clip.camera.ray_map()[..., 2], nan=1.0), 0.05)
        longest = max(float((d / cosine).max()) for d in clip.depths)
        scale = clip.scale if longest < 65535 else clip.scale / 4
        stored = [np.round(d / cosine * (scale / clip.scale)).astype(np.uint16) for d in clip.depths]
        path = write(replace(clip, depths=stored, scale=scale), out, poses=poses)
        return Damaged(path, "depth_ray_length", list(range(len(clip.images))), depth_mm=0.05)

    return damage


def masks_inverted(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """Masks of the field of view (or, where it fills the picture, of a tool), black what can be used."""
    if min(mask.mean() for mask in clip.masks) > 250:
        clip = with_tool(clip, rng)
    inverted = [np.uint8(255) - mask for mask in clip.masks]
    path = write(replace(clip, masks=inverted), out, masks=True)
    return Damaged(path, "mask_polarity", list(range(len(clip.images))), extra={"clip": clip})


def with_tool(clip: Material, rng: np.random.Generator) -> Material:
    """The clip with a steel rod that comes in from the side, and masks that leave it out."""
    height, width = clip.images[0].shape[:2]
    images, masks = [], []
    angle = rng.uniform(0.2, 0.8)
    for number, (image, mask) in enumerate(zip(clip.images, clip.masks, strict=True)):
        rod = np.zeros((height, width), np.uint8)
        reach = 0.5 + 0.05 * np.sin(0.2 * number)
        tip = (int(width * reach), int(height * (0.3 + 0.4 * angle)))
        # It turns about the port outside of the picture.
        side = int(height * (angle + 0.12 * np.sin(0.13 * number)))
        cv2.line(rod, (-20, side), tip, 255, max(8, width // 12))
        level = (120 + 60 * np.sin(np.linspace(0, 40, width))).astype(np.uint8)
        steel = np.broadcast_to(level[None, :, None], image.shape)
        images.append(np.where(rod[..., None] > 0, steel, image))
        masks.append(np.where(rod > 0, 0, mask).astype(np.uint8))
    return replace(clip, images=images, masks=masks)


# -- frames -------------------------------------------------------------------------------------------------------


def images_missing(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """Some images were not copied; depth and poses are whole."""
    gone = set(rng.choice(np.arange(3, len(clip.images) - 3), 4, replace=False).tolist())
    kept = [n for n in range(len(clip.images)) if n not in gone]
    thinned = replace(clip, images=[clip.images[n] for n in kept])
    return Damaged(write(thinned, out, numbers=kept), "missing_frames", kept)


def video_gap(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """A recorder that dropped frames: their time stamps are missing."""
    first = int(rng.integers(10, len(clip.images) - 20))
    kept = [n for n in range(len(clip.images)) if not first <= n < first + 6 and n != first + 12]
    path = write_video(out / "clip.mp4", [clip.images[n] for n in kept], np.array(kept) / 30)
    return Damaged(path, "missing_frames", kept, 30.0)


def images_doubled(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """Single frames twice in the folder, with their depth and pose."""
    twice = set(rng.choice(np.arange(2, len(clip.images) - 2), 5, replace=False).tolist())
    order = [n for n in range(len(clip.images)) for _ in range(2 if n in twice else 1)]
    longer = replace(
        clip, images=[clip.images[n] for n in order], depths=[clip.depths[n] for n in order], poses=clip.poses[order],
        times_s=np.arange(len(order)) / 30,
    )  # fmt: skip
    return Damaged(write(longer, out), "doubled_frames", list(range(len(clip.images))))


def video_doubled(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """24 frames a second made 30 by repeating each fourth one."""
    order = [n for n in range(len(clip.images)) for _ in range(2 if n % 4 == 3 else 1)]
    path = write_video(out / "clip.mp4", [clip.images[n] for n in order])
    return Damaged(path, "doubled_frames", list(range(len(clip.images))), 30.0)


def _interlaced(video: bool) -> Callable[..., Damaged]:
    def damage(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
        later_by = _moved(clip.images)
        woven = []
        for image, later in zip(clip.images, clip.images[later_by:], strict=False):
            both = image.copy()
            both[1::2] = later[1::2]
            woven.append(both)
        kept = list(range(len(woven)))
        if video:
            return Damaged(write_video(out / "clip.mp4", woven, crf=10), "interlaced", kept, 26.0)
        count = len(woven)
        shorter = replace(
            clip, images=woven, depths=clip.depths[:count], poses=clip.poses[:count], times_s=clip.times_s[:count]
        )
        return Damaged(write(shorter, out), "interlaced", kept, 26.0)

    return damage


def _moved(images: list[Image], least: float = 2.0) -> int:
    """After how many frames the picture has changed by grey levels that are seen as a comb."""
    middle = len(images) // 2
    grey = [cv2.GaussianBlur(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (5, 5), 0) for i in images[middle : middle + 7]]
    changes = [float(cv2.absdiff(grey[0], g).mean()) for g in grey[1:]]
    return next((k for k, c in enumerate(changes, 1) if c > least), len(changes))


def _stacked(axis: int) -> Callable[..., Damaged]:
    def damage(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
        usual = float(np.median(np.concatenate([d[d > 0][::50] for d in clip.depths]))) / clip.scale
        pairs = [
            np.concatenate([image, other_eye(image, d / clip.scale, clip.camera, 0.05 * usual)], axis)
            for image, d in zip(clip.images, clip.depths, strict=True)
        ]
        path = write_video(out / "clip.mp4", pairs)
        return Damaged(path, "stacked_stereo", list(range(len(pairs))), 30.0)

    return damage


def other_eye(image: Image, depth_mm: Float, camera: Camera, baseline_mm: float) -> Image:
    """What an eye to the right would see, about: pixels shifted by their disparity."""
    shift = camera.params[0] * baseline_mm / np.maximum(depth_mm, 1.0)
    shift = cv2.GaussianBlur(shift.astype(np.float32), (0, 0), 3)
    column, row = np.meshgrid(np.arange(image.shape[1], dtype=np.float32), np.arange(image.shape[0], dtype=np.float32))
    return cv2.remap(image, column + shift, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def black(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """The light is off for a while."""
    first = int(rng.integers(8, len(clip.images) - 24))
    gone = range(first, first + 12)
    noise = [rng.integers(0, 4, clip.images[0].shape, dtype=np.uint8) for _ in gone]
    images = [noise[n - first] if n in gone else image for n, image in enumerate(clip.images)]
    kept = [n for n in range(len(images)) if n not in gone]
    return Damaged(write_video(out / "clip.mp4", images), "black", kept, 30.0)


def still(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """The picture is frozen for a while, the camera goes on."""
    first = int(rng.integers(8, len(clip.images) - 30))
    gone = range(first, first + 14)
    images = [clip.images[first - 1] if n in gone else image for n, image in enumerate(clip.images)]
    kept = [n for n in range(len(images)) if n not in gone]
    return Damaged(write_video(out / "clip.mp4", images), "still", kept, 30.0)


def out_of_body(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """The clip begins in the operating room."""
    count = int(rng.integers(10, 18))
    seed = int(rng.integers(1 << 30))
    room = [operating_room(clip.images[0].shape[:2], n, seed) for n in range(count)]
    images = [*room, *clip.images[count:]]
    return Damaged(write_video(out / "clip.mp4", images), "out_of_body", list(range(count, len(images))), 30.0)


def operating_room(shape: tuple[int, ...], number: int, seed: int) -> Image:
    """Drapes, gowns, lamps and steel that pass by: frame `number` of the room with this seed."""
    rng = np.random.default_rng(seed)
    colours = [(40, 90, 140), (50, 120, 110), (210, 215, 220), (120, 125, 130), (30, 60, 90), (190, 200, 205)]
    image = np.full((*shape[:2], 3), (70, 110, 130), np.uint8)
    for _ in range(40):
        (x, y), (w, h) = rng.integers(-100, 400, 2).tolist(), rng.integers(40, 160, 2).tolist()
        colour = colours[int(rng.integers(6))]
        at = x + 4 * number, y + 2 * number
        cv2.rectangle(image, at, (at[0] + w, at[1] + h), colour, -1)
        cv2.line(image, at, (at[0] + w, at[1] + h), [c // 2 for c in colour], 2)
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def variable_rate(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """A recorder that keeps its own time: intervals between 15 and 80 ms."""
    times = np.cumsum(rng.choice([0.015, 0.03, 0.035, 0.05, 0.08], len(clip.images)))
    path = write_video(out / "clip.mp4", clip.images, times - times[0])
    return Damaged(path, "variable_rate", list(range(len(times))), 30.0, extra={"times_s": times - times[0]})


def _written(place: str, text: str) -> Callable[..., Damaged]:
    def damage(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
        height, width = clip.images[0].shape[:2]
        size = height / 256 * 0.55
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        x, y = {"corner": (6, h + 6), "middle": ((width - w) // 2, int(0.7 * height))}[place]
        images = [
            cv2.putText(i.copy(), text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (240, 240, 240), 1, cv2.LINE_AA)
            for i in clip.images
        ]
        path = write_video(out / "clip.mp4", images)
        return Damaged(path, "overlay_text", list(range(len(images))), 30.0, extra={"box": (x, y - h, w, h)})

    return damage


def logo(clip: Material, out: Path, rng: np.random.Generator) -> Damaged:
    """A maker's sign and a scale bar over the picture."""
    height, width = clip.images[0].shape[:2]
    images = []
    for image in clip.images:
        shown = image.copy()
        at = (int(0.72 * width), int(0.68 * height))
        cv2.rectangle(shown, at, (at[0] + width // 8, at[1] + height // 10), (235, 235, 240), 2)
        cv2.line(shown, (at[0], at[1] + height // 7), (at[0] + width // 8, at[1] + height // 7), (250, 250, 60), 2)
        images.append(shown)
    return Damaged(write_video(out / "clip.mp4", images), "overlay", list(range(len(images))), 20.0)


def cut(clip: Material, out: Path, rng: np.random.Generator, other: Material | None = None) -> Damaged:
    """Another scene is edited in at the end."""
    assert other is not None
    count = int(rng.integers(len(clip.images) // 2 + 4, len(clip.images) - 12))
    size = clip.images[0].shape[1::-1]
    rest = [cv2.resize(i, size) for i in other.images[: len(clip.images) - count]]
    path = write_video(out / "clip.mp4", [*clip.images[:count], *rest])
    return Damaged(path, "cut", list(range(count)), 30.0)


_GL = np.diag([1.0, -1.0, -1.0, 1.0])
DAMAGES: dict[str, Callable[..., Damaged]] = {
    "poses inverted": _posed(np.linalg.inv, "poses_inverted"),
    "poses inverted, no depth": _posed(np.linalg.inv, "poses_inverted", depth=False),
    "rotations transposed": _posed(_transposed, "poses_transposed"),
    "rotations transposed, no depth": _posed(_transposed, "poses_transposed", depth=False),
    "matrices by rows": poses_by_rows,
    "OpenGL axes": _posed(lambda pose: pose @ _GL, "poses_other_axes"),
    "poses in metres": _posed(_scaled(0.001), "pose_unit"),
    "poses in metres, no depth": _posed(_scaled(0.001), "pose_unit", depth=False),
    "poses in centimetres": _posed(_scaled(0.1), "pose_unit"),
    "depth in metres": depth_in_metres,
    "depth scale wrong": depth_stored_as_mm,
    "depth 8 bit, high byte": depth_high_byte,
    "depth 8 bit, stretched": depth_normalised,
    "depth along the ray": _ray_length(True),
    "depth along the ray, no poses": _ray_length(False),
    "masks inverted": masks_inverted,
    "images missing": images_missing,
    "gap in the time stamps": video_gap,
    "images doubled": images_doubled,
    "rate converted": video_doubled,
    "interlaced video": _interlaced(True),
    "interlaced images": _interlaced(False),
    "stereo side by side": _stacked(1),
    "stereo one above the other": _stacked(0),
    "black": black,
    "frozen": still,
    "out of the body": out_of_body,
    "variable rate": variable_rate,
    "text in a corner": _written("corner", "DOE JOHN 12345"),
    "text over tissue": _written("middle", "ID 98-7654"),
    "logo": logo,
    "cut": cut,
}


def _rgb(path: Path) -> Image:
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
