"""Poses and depth against the pictures: inverted or transposed poses, other axes, units, 8-bit depth, z or ray length.

Points are followed in the pictures; a reading of the files is right where depth, poses and camera send the points to
where they are seen. Without depth the epipolar planes tell of the poses, and triangulated depth of their unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_io.agreement import (
    READINGS,
    Observation,
    Tracks,
    best_scale,
    consistency,
    epipolar_px,
    follow,
    motion_px,
    observe,
    relative,
    reprojection_px,
    resected,
)
from video_io.camera import Camera
from video_io.case import Case, read_raw
from video_io.doctor.base import Finding

QUICK = False

_STILL_PX = 1.0  # median motion below which pictures tell nothing of poses
_BETTER = 0.5  # another reading must miss by this share of what the files as they are miss by
_FITS_PX, _FITS_SHARE = 2.5, 0.25  # a reading fits if it misses by less than either (the latter: of the motion)
_OTHER_SCALE = 1.25  # and its inverse: nearer to 1 the scale is right
_NEAR_MM, _FAR_MM = 1.0, 400.0  # median depth of an endoscope's view
_METRES = 0.6  # a median depth below this is in metres: nearer than .6 mm no lens is sharp
_RAY_BETTER, _RAY_AGREES = 0.5, 0.03  # disagreement of depth maps, as a share of the other reading's, and at most
_SPARSE = 0.05  # share of pixels with depth
_DENSE_LEVELS = 256
_ASSUMED_FOV_RAD = np.radians(75.0)
Float = NDArray[np.float64]


@dataclass(frozen=True)
class _Seen:
    """What all parts of the check work on."""

    case: Case
    camera: Camera
    assumed: bool
    tracks: list[Tracks]
    observed: list[Observation]
    dense: bool
    depth_mm: float

    @property
    def motion(self) -> float:
        return motion_px(self.tracks, self.camera)


def check(case: Case) -> list[Finding]:
    """See `Finding`."""
    found = []
    bits = _bits(case)
    if case.poses is not None and case.poses.form == "rows":
        found.append(_by_rows(case))
    if case.poses is None and not case.has_depth:
        return found
    seen = _look(case)
    if seen.motion < _STILL_PX or not seen.observed:
        return [*found, *([_bits_finding(bits, None)] if bits else [])]
    posed = [o for o in seen.observed if o.first is not None and o.second is not None]
    reading, scale, factor = "as it is", 1.0, 1.0
    if posed and seen.dense:
        more, reading, scale = _with_depth(seen, bits)
        found += more
    elif posed:
        found += _without_depth(seen)
    if bits:
        factor = 1 / scale if posed and seen.dense else 1.0
        found.append(_bits_finding(bits, factor if posed and seen.dense else None))
    if seen.dense:
        found += _ray_length(seen, reading if posed else None, scale)
    if seen.dense and not posed and seen.depth_mm < _METRES and not bits:
        found.append(_depth_unit(seen, 1000.0, 0.8))
    return found


def _look(case: Case) -> _Seen:
    camera = case.camera
    fits = camera is not None and (camera.width, camera.height) == (case.source.width, case.source.height)
    size = case.source.width, case.source.height
    used = camera if fits and camera is not None else Camera.from_fov(*size, _ASSUMED_FOV_RAD)
    total = case.source.frame_count or 0
    tracks = follow(case.source.frames(), total)
    first = case.depth(0) if case.has_depth else None
    dense = first is not None and float((first > 0).mean()) > _SPARSE
    depths = {pair.first: case.depth(pair.first) for pair in tracks} if dense else {}

    def pose(index: int) -> Float | None:
        row = case.pose_row(index)
        return None if row is None or case.poses is None else case.poses.matrices[row]

    observed = observe(tracks, used, depths.get if dense else lambda _: None, pose)
    values = np.concatenate([o.depth for o in observed if o.depth is not None] or [np.zeros(0)])
    return _Seen(case, used, not fits, tracks, observed, dense, float(np.median(values)) if len(values) else np.nan)


# -- poses and units ----------------------------------------------------------------------------------------------


def _with_depth(seen: _Seen, bits: dict[str, Any] | None) -> tuple[list[Finding], str, float]:
    """Findings, and the reading and the scale of the poses that fit best."""
    fitted = {name: best_scale(seen.observed, seen.camera, name, False) for name in READINGS}
    as_is = fitted["as it is"]
    best = min(fitted, key=lambda name: fitted[name][1])
    if fitted[best][1] > _BETTER * as_is[1]:
        best = "as it is"
    scale, miss = fitted[best]
    evidence: dict[str, float | int | str] = {
        "miss_px": round(miss, 2), "miss_as_it_is_px": round(as_is[1], 2), "motion_px": round(seen.motion, 1),
        "points": sum(len(o.b) for o in seen.observed), "scale": float(f"{scale:.4g}"),
        "median_depth_mm": float(f"{seen.depth_mm:.3g}"),
    }  # fmt: skip
    if miss > max(_FITS_PX, _FITS_SHARE * seen.motion):
        return [_unfit(seen, evidence)], "as it is", 1.0
    found = [] if best == "as it is" else [_reading(seen, best, evidence)]
    unscaled = reprojection_px(seen.observed, seen.camera, best, 1.0, False)
    wrong = max(scale, 1 / scale) > _OTHER_SCALE and miss < 0.7 * unscaled
    if not wrong:
        scale = 1.0
    evidence = {**evidence, "miss_unscaled_px": round(unscaled, 2)}
    if wrong and not bits and seen.case.poses_unit == "mm":
        found.append(_units(seen, _snapped(scale), evidence))
    elif not wrong and not bits and seen.depth_mm < _METRES and seen.case.poses_unit == "mm":
        found += [_depth_unit(seen, 1000.0, 0.9), _pose_unit(seen, 1000.0, evidence, 0.9)]
    return found, best, _snapped(scale) if not bits else scale


def _without_depth(seen: _Seen) -> list[Finding]:
    fitted = {name: epipolar_px(seen.observed, seen.camera, name) for name in READINGS}
    as_is = fitted["as it is"]
    best = min(fitted, key=lambda name: fitted[name][0])
    if not np.isfinite(fitted[best][0]):
        return []
    if fitted[best][0] > _BETTER * as_is[0] or as_is[0] - fitted[best][0] < 0.5:
        best = "as it is"
    miss, depth = fitted[best]
    evidence: dict[str, float | int | str] = {
        "epipolar_miss_px": round(miss, 2), "as_it_is_px": round(as_is[0], 2), "motion_px": round(seen.motion, 1),
        "points": sum(len(o.b) for o in seen.observed), "triangulated_depth": float(f"{depth:.3g}"),
    }  # fmt: skip
    if miss > max(_FITS_PX, _FITS_SHARE * seen.motion):
        return [_unfit(seen, evidence)]
    found = [] if best == "as it is" else [_reading(seen, best, evidence)]
    if depth < _METRES and seen.case.poses_unit == "mm":
        found.append(_pose_unit(seen, 1000.0, evidence, 0.8))
    return found


def _reading(seen: _Seen, reading: str, evidence: dict[str, float | int | str]) -> Finding:
    kind = {
        "inverted": "poses_inverted", "transposed": "poses_transposed", "inverted and transposed": "poses_transposed",
        "other axes": "poses_other_axes", "inverted, other axes": "poses_other_axes",
    }[reading]  # fmt: skip
    words = {
        "inverted": "the poses are world-to-camera, and camera-to-world is expected",
        "transposed": "the rotations of the poses are transposed",
        "inverted and transposed": "the poses are world-to-camera, with their rotations transposed",
        "other axes": "the poses' camera has y up and looks along -z (OpenGL); y down and z forward are expected",
        "inverted, other axes": "the poses are world-to-camera, of a camera with y up that looks along -z (OpenGL)",
    }[reading]
    miss = evidence.get("miss_px", evidence.get("epipolar_miss_px"))
    other = evidence.get("miss_as_it_is_px", evidence.get("as_it_is_px"))
    return Finding(
        kind,
        f"{words}: read so, points are missed by {miss} px, and as they are by {other} px",
        evidence,
        (0.8 if seen.assumed else 0.95) if float(other or 0) > 3 * float(miss or 1) else 0.7,
        "--fix writes them camera-to-world (or invert or transpose the matrices where they are exported)",
        repair={"pose_reading": reading},
    )


def _unfit(seen: _Seen, evidence: dict[str, float | int | str]) -> Finding:
    return Finding(
        "poses_unfit",
        "the poses fit the pictures in no known reading: are they those of another clip, or is the camera wrong?",
        evidence,
        0.3 if seen.assumed else 0.6,
        "leave the poses out: reconstruct tracks the camera itself (--poses auto)",
    )


def _units(seen: _Seen, scale: float, evidence: dict[str, float | int | str]) -> Finding:
    """Depth and poses are in different units; the one that no endoscope sees is wrong."""
    if _NEAR_MM <= seen.depth_mm <= _FAR_MM:
        return _pose_unit(seen, scale, evidence, 0.9)
    return _depth_unit(seen, 1 / scale, 0.9, evidence)


def _pose_unit(seen: _Seen, scale: float, evidence: dict[str, float | int | str], sure: float) -> Finding:
    unit = {10.0: "centimetres", 1000.0: "metres", 0.001: "micrometres"}.get(scale)
    what = f"the poses are in {unit}" if unit else f"the poses' lengths are {1 / scale:.4g} times what the depth says"
    option = {10.0: "--poses-unit cm", 1000.0: "--poses-unit m"}.get(scale, "--fix")
    return Finding(
        "pose_unit",
        f"{what}, and millimetres are expected",
        evidence,
        sure,
        f"{option}; --fix writes them in mm",
        repair={"pose_scale": scale},
    )


def _depth_unit(
    seen: _Seen, factor: float, sure: float, evidence: dict[str, float | int | str] | None = None
) -> Finding:
    unit = {10.0: "centimetres", 1000.0: "metres", 0.001: "micrometres"}.get(factor)
    what = f"the depth is in {unit}" if unit else f"depth_scale is wrong: the depth is {1 / factor:.4g} times too large"
    return Finding(
        "depth_unit",
        f"{what}, and millimetres are expected: its median is {seen.depth_mm:.3g}",
        evidence or {"median_depth_mm": float(f"{seen.depth_mm:.3g}")},
        sure,
        f"divide depth_scale in intrinsics.json by {factor:.6g}; --fix writes it in mm",
        repair={"depth_factor": factor},
    )


def _by_rows(case: Case) -> Finding:
    assert case.poses is not None
    return Finding(
        "poses_transposed",
        f"the matrices in {case.poses.path.name} are stored by rows (transposed); 16 values a line are expected by "
        "columns, as C3VD has them",
        {"last_row": "0 0 0 1", "matrices": len(case.poses.matrices)},
        0.95,
        "--fix writes them as a TUM trajectory (or transpose each matrix)",
        repair={"pose_reading": "as it is"},
    )


def _snapped(scale: float) -> float:
    """The power of ten that is meant, if it is one."""
    power = 10.0 ** round(float(np.log10(scale)))
    return power if abs(np.log(scale / power)) < np.log(1.12) else scale


# -- depth --------------------------------------------------------------------------------------------------------


def _bits(case: Case) -> dict[str, Any] | None:
    """What is stored, where it is no more than 8 bits a pixel; None for finer depth."""
    if not case.depths:
        return None
    some = [read_raw(case.depths[i]) for i in sorted({0, len(case.depths) // 2, len(case.depths) - 1})]
    stored = [image for image in some if image is not None]
    if not stored:
        return None
    if stored[0].dtype == np.uint8:
        return {"stored": "8 bit", "levels": int(max(len(np.unique(s)) for s in stored)), "lift": 256.0}
    if stored[0].dtype != np.uint16:
        return None
    values = np.unique(np.concatenate([np.unique(s) for s in stored]))
    values = values[(values > 0) & (values < 65535)]
    if not len(values) or max(len(np.unique(s)) for s in stored) > _DENSE_LEVELS:
        return None
    step = int(np.gcd.reduce(values.astype(np.int64)))
    # Few levels alone may be a flat scene; but a common step of 256 or 257, or nothing above 255, is 8 bits.
    if step not in (256, 257) and int(values.max()) > 255:
        return None
    return {"stored": "16 bit", "levels": len(values), "lift": 256.0 if step == 1 else 1.0}


def _bits_finding(bits: dict[str, Any], factor: float | None) -> Finding:
    """`factor`: what the depth has to be multiplied by for the poses to fit, None if that is not known."""
    known = factor is not None
    used = factor if factor is not None else float(bits["lift"])
    for whole in (1.0, 256.0, 257.0):
        if known and abs(used / whole - 1) < 0.03:
            used = whole if whole != 257.0 else used
    how = f"the poses fit if it is multiplied by {used:.4g}" if known else "nothing tells its true scale"
    return Finding(
        "depth_8bit",
        f"the depth has 8 bits a pixel (stored as {bits['stored']}, {bits['levels']} levels); 16 are expected; {how}",
        {**{k: v for k, v in bits.items() if k != "lift"}, "factor": float(f"{used:.5g}")},
        0.95,
        "export the depth anew with 16 bits; --fix writes 16 bits at the scale that fits, as coarse as before",
        repair={"depth_factor": used},
    )


def _ray_length(seen: _Seen, reading: str | None, scale: float) -> list[Finding]:
    """Whether depth maps agree better once read as length along the ray. Without poses the motion comes from depth."""
    figures = {}
    for ray_length in (False, True):
        pairs = []
        for pair, move in _moves(seen, reading, scale, ray_length):
            first, second = seen.case.depth(pair.first), seen.case.depth(pair.second)
            if first is not None and second is not None:
                pairs.append((first, second, move))
        figures[ray_length] = consistency(pairs, seen.camera, ray_length)
    as_z, as_ray = figures[False], figures[True]
    if not (as_ray < _RAY_BETTER * as_z and as_ray < _RAY_AGREES):
        return []
    return [
        Finding(
            "depth_ray_length",
            f"the depth is the length along the ray, and z is expected: depth maps agree to {100 * as_ray:.2g} % so, "
            f"and to {100 * as_z:.2g} % as z",
            {"disagreement_as_ray_percent": round(100 * as_ray, 3), "as_z_percent": round(100 * as_z, 3)},
            0.6 if seen.assumed else 0.95 if reading else 0.85,
            "--fix multiplies it by the cosine of each pixel's ray",
            repair={"depth_ray": True},
        )
    ]


def _moves(seen: _Seen, reading: str | None, scale: float, ray_length: bool) -> list[tuple[Tracks, Float]]:
    by_first = {pair.first: pair for pair in seen.tracks}
    if reading is None:
        found = resected(seen.observed, seen.camera, ray_length)
        return [(by_first[o.number], move) for o, move in found if o.number in by_first]
    out = []
    for o in seen.observed:
        if o.first is not None and o.second is not None and o.number in by_first:
            move = relative(o, reading)
            move[:3, 3] *= scale
            out.append((by_first[o.number], move))
    return out
