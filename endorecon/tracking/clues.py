"""What a refined segment shows of its own errors, without any truth.

Some clues tell how much noise is left: the disagreement of two halves of the landmarks. Others tell of errors that all
landmarks share, which no part of them can tell from another: how much the path hangs on the network's depth, how far
that depth contradicts the landmarks, residuals that neighbours have in common (tissue that moves, highlights that move
with the lamp, something before the lens), points that stay in the picture while the others move, and a veil over the
picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.map import Map, Sight
from endorecon.tracking.refine import FocalPrior, Refined, adjust_keyframes, place_frame
from video_io.trajectory import align

Float = NDArray[np.float64]

VEIL, VEILED_CONTRAST = 0.55, 0.035
# A given focal length is doubted where its log is off by more, and by so many standard deviations, and where another
# one leaves at most this share of the residual.
FOCAL_OFF, FOCAL_STDS, FOCAL_GAIN = 0.12, 3.0, 0.9
_FRAMES = 40  # that are looked at, spread over the segment
# Of an image 320 wide: neighbours whose residuals are compared are so far apart that their windows share nothing.
_NEIGHBOURS_PX = (20.0, 50.0)
_MOST_PX = 3.0
_FOCAL_SCALES = (0.6, 1.7)  # for which a lens must have rays, if its focal length is to be doubted
_FOCAL_STD = 0.4  # of the log focal length, when the given one is doubted
_STILL_GAP, _STILL_MOTION_PX, _STILL_SHARE = 8, 3.0, 0.15


@dataclass(frozen=True)
class Clues:
    """Figures of one segment.

    Attributes:
        halves_percent: half of the disagreement of the paths by either half of the landmarks, per cent of the path.
        residual_px: median residual of the landmarks.
        network_percent: how far the path moves when the network tells no more than one distance a frame, per cent.
        shared_px: residual that landmarks have in common with their neighbours.
        depth_spread: robust deviation of log(landmark's / network's distance) within a frame.
        unit_drift: deviation of the frames' log scales, which would be equal for a network that is always right.
        still_share: of the landmarks, those that stay in the picture while most of them move.
        track_frames: mean number of frames in which a landmark is seen.
        landmarks: median number in a frame.
        inlier_share: of the landmarks that were followed, those that agree on the pose; median over the frames.
        focal_off, focal_std: log of the focal length that suits the landmarks best over the given one, and how well
            that is known; 0 and infinite where the focal length was not given.
        focal_gain: share of the residual that is left with that one.
        veil, contrast: medians over the frames (`video_io.faults.Look`).
        shine: share of the landmarks that lie on bright spots of the lamp's colour; median over the frames.
    """

    halves_percent: float
    residual_px: float
    network_percent: float
    shared_px: float
    depth_spread: float
    unit_drift: float
    still_share: float
    track_frames: float
    landmarks: float
    inlier_share: float
    focal_off: float
    focal_std: float
    focal_gain: float
    veil: float
    contrast: float
    shine: float

    @property
    def is_misfocused(self) -> bool:
        """Whether the given focal length contradicts the motion, and another one does not."""
        return abs(self.focal_off) > max(FOCAL_OFF, FOCAL_STDS * self.focal_std) and self.focal_gain < FOCAL_GAIN

    @property
    def is_veiled(self) -> bool:
        """Whether smoke or fog lies over most of the frames: bright where it should be dark, and without contrast."""
        return self.veil > VEIL and self.contrast < VEILED_CONTRAST

    def to_dict(self) -> dict[str, float]:
        """Plain values by name."""
        return {f.name: round(float(getattr(self, f.name)), 4) for f in fields(self)}


# Terms that the expected error is a sum of: the clue, and the range in which it is believed; its log is taken, or it
# itself.
_LOGS = {
    "halves_percent": (0.02, 30.0), "residual_px": (0.05, 2.0), "network_percent": (0.02, 30.0),
    "shared_px": (0.1, 2.0), "depth_spread": (0.02, 0.6), "unit_drift": (0.01, 0.6), "track_frames": (3.0, 60.0),
    "landmarks": (30.0, 500.0), "contrast": (0.005, 0.3),
}  # fmt: skip
_PLAIN = {"still_share": (0.0, 0.6), "inlier_share": (0.5, 1.0), "veil": (0.0, 1.0), "shine": (0.0, 1.0)}


def terms(clues: Clues) -> dict[str, float]:
    """What the log of the expected error is a weighted sum of, by name of the clue."""
    logs = {name: float(np.log(np.clip(getattr(clues, name), *ends))) for name, ends in _LOGS.items()}
    return logs | {name: float(np.clip(getattr(clues, name), *ends)) for name, ends in _PLAIN.items()}


def gather(
    scene: Map, refined: Refined, figures: Sequence[Mapping[str, float]], camera_given: bool
) -> tuple[Clues, Float]:
    """The clues of a refined segment, whose path has a length, and (F,) how far each frame's centre differs by half of
    what the two halves say, in the unit of the path.

    Args:
        scene: its map, which stays as it is.
        figures: of its frames, in order, as tracking gave them; those that are missing count as usual.
        camera_given: whether the focal length was given, and may be wrong.
    """
    centres = refined.world_from_cam[:, :3, 3]
    length = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
    first, second = (_retold(_half(scene, parity), refined) for parity in (0, 1))
    apart = np.linalg.norm(align(second, first, with_scale=True).apply(second) - first, axis=1) / 2
    flat = _retold(replace(scene, prior=_flattened(scene)), refined)
    pulled = np.linalg.norm(align(flat, centres, with_scale=True).apply(flat) - centres, axis=1)

    def usual(name: str, otherwise: float) -> float:
        values = [row[name] for row in figures if np.isfinite(row.get(name, np.nan))]
        return float(np.median(values)) if values else otherwise

    spread, drift = _against_network(scene, refined)
    focal_off, focal_std, focal_gain = _refocused(scene, refined) if camera_given else (0.0, np.inf, 1.0)
    seen = np.concatenate([sight.landmark for sight in scene.sights])
    return Clues(
        halves_percent=100 * _rms(apart) / length,
        residual_px=float(np.nanmedian(refined.residual_px)),
        network_percent=100 * _rms(pulled) / length,
        shared_px=_shared(scene, refined),
        depth_spread=spread,
        unit_drift=drift,
        still_share=_still(scene),
        track_frames=len(seen) / max(len(np.unique(seen)), 1),
        landmarks=float(np.median([len(sight.landmark) for sight in scene.sights])),
        inlier_share=usual("inlier_share", 1.0),
        focal_off=focal_off,
        focal_std=focal_std,
        focal_gain=focal_gain,
        veil=usual("veil", 0.3),
        contrast=usual("contrast", 0.05),
        shine=usual("shine", 0.05),
    ), apart


# -- other tellings -----------------------------------------------------------------------------------------------


def _half(scene: Map, parity: int) -> Map:
    sights = []
    for sight in scene.sights:
        own = sight.landmark % 2 == parity
        sights.append(Sight(sight.landmark[own], sight.pixels[own], sight.log_net[own]))
    return replace(scene, sights=sights)


def _flattened(scene: Map) -> Float:
    """(M,) of the landmarks' log distances by the network, the mean over those that one frame hosts."""
    count = np.bincount(scene.host, minlength=len(scene))
    return (np.bincount(scene.host, scene.prior, len(scene)) / np.maximum(count, 1))[scene.host]


def _copied(scene: Map) -> Map:
    names = ("rotation", "centre", "alpha", "beta", "log_d", "information")
    return replace(scene, sights=list(scene.sights), **{name: getattr(scene, name).copy() for name in names})


def _refocused(scene: Map, refined: Refined) -> tuple[float, float, float]:
    """Log of the focal length that suits the landmarks best over the map's, its standard deviation, and the share of
    the residual that is left with it; 0, infinity and 1 where another focal length leaves pixels without a ray, as
    those of wide fisheyes do."""
    pixels = np.concatenate([sight.pixels for sight in scene.sights])
    scaled = (scene.camera.with_focal_scale(scale) for scale in _FOCAL_SCALES)
    if not all(np.isfinite(camera.rays(pixels)).all() for camera in scaled):
        return 0.0, np.inf, 1.0
    own = _copied(scene)
    prior = FocalPrior(scene.camera.focal_px, _FOCAL_STD)
    spread = min(adjust_keyframes(own, prior) for _ in range(2))
    before = list(refined.world_from_cam)
    left = np.nanmedian([place_frame(own, number, before)[1] for number in range(len(own))])
    off = float(np.log(own.camera.focal_px / scene.camera.focal_px))
    return off, spread, float(left / np.nanmedian(refined.residual_px))


def _retold(scene: Map, refined: Refined) -> Float:
    """The camera's centres (F, 3) after a refinement of this map, which stays as it is."""
    own = _copied(scene)
    adjust_keyframes(own, None)
    before = list(refined.world_from_cam)
    return np.stack([place_frame(own, number, before)[0][:3, 3] for number in range(len(own))])


# -- what the landmarks show --------------------------------------------------------------------------------------


def _looked_at(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(_FRAMES, count)).astype(int)).tolist()


def _shared(scene: Map, refined: Refined) -> float:
    """Root of the mean product of a landmark's residual and that of its neighbours, pixels."""
    from scipy.spatial import cKDTree

    unit, products = scene.camera.width / 320, []
    for number in _looked_at(len(scene)):
        sight, pose = scene.sights[number], refined.world_from_cam[number]
        foreign = scene.host[sight.landmark] != number
        if foreign.sum() < 12:
            continue
        points, pixels = scene.points(sight.landmark[foreign]), sight.pixels[foreign].astype(float)
        expected, seen = scene.camera.project((points - pose[:3, 3]) @ pose[:3, :3])
        off = np.where(seen[:, None], expected - pixels, 0.0)
        off *= np.minimum(1, _MOST_PX * unit / np.maximum(np.linalg.norm(off, axis=1), 1e-9))[:, None]
        near, far = _NEIGHBOURS_PX
        pairs = cKDTree(pixels).query_pairs(far * unit, output_type="ndarray")
        pairs = pairs[np.linalg.norm(pixels[pairs[:, 0]] - pixels[pairs[:, 1]], axis=1) > near * unit]
        if len(pairs):
            products.append(float((off[pairs[:, 0]] * off[pairs[:, 1]]).sum(1).mean()))
    return float(np.sqrt(max(np.mean(products), 0.0))) / unit if products else 0.0


def _against_network(scene: Map, refined: Refined) -> tuple[float, float]:
    """How the landmarks' distances and the network's differ: within a frame, and from frame to frame (log)."""
    spreads, scales = [], []
    for number in _looked_at(len(scene)):
        sight, pose = scene.sights[number], refined.world_from_cam[number]
        if len(sight.landmark) < 12:
            continue
        far = np.linalg.norm(scene.points(sight.landmark) - pose[:3, 3], axis=1)
        off = np.log(np.maximum(far, 1e-9)) - sight.log_net
        scales.append(float(np.median(off)))
        spreads.append(1.4826 * float(np.median(np.abs(off - scales[-1]))))
    if not scales:
        return 1.0, 1.0
    return float(np.median(spreads)), float(np.std(scales))


def _still(scene: Map) -> float:
    """Share of the landmarks that stay in the picture while most of them move; 0 where most of them stay."""
    unit, shares = scene.camera.width / 320, []
    for number in _looked_at(len(scene) - _STILL_GAP) if len(scene) > _STILL_GAP else []:
        a, b = scene.sights[number], scene.sights[number + _STILL_GAP]
        _, at_a, at_b = np.intersect1d(a.landmark, b.landmark, assume_unique=True, return_indices=True)
        if len(at_a) < 20:
            continue
        moved = np.linalg.norm(b.pixels[at_b] - a.pixels[at_a], axis=1)
        usual = float(np.median(moved))
        if usual > _STILL_MOTION_PX * unit:
            shares.append(float((moved < _STILL_SHARE * usual).mean()))
    return float(np.median(shares)) if shares else 0.0


def _rms(values: Float) -> float:
    return float(np.sqrt((values**2).mean()))
