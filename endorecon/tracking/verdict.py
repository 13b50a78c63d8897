"""How far a trajectory can be trusted, told without any truth.

The landmarks are parted into two halves, and each half refines the segment on its own. Where the two trajectories
disagree, the images do not fix the camera; half of the disagreement is the error that independent noise leaves in the
whole. What both halves share shows elsewhere (endorecon/tracking/clues.py). How the true error follows from all of this
was fitted on phantom runs, clean ones and damaged ones (tools/fit_verdict.py, docs/verdict.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from endorecon.tracking.clues import Clues, gather, terms
from endorecon.tracking.fitted import DOUBTED_SPREAD, OFFSET, SPREAD, WEIGHTS
from endorecon.tracking.map import Map
from endorecon.tracking.refine import Refined

Float = NDArray[np.float64]

GRADES = ("green", "amber", "red")
# Path errors (of the path's length, and of its extent), and positions' errors as a share of the depth, up to which a
# run or a frame is green, or amber. Shaking lengthens the path of a camera that stands: its length alone flatters it.
PATH_PERCENT, EXTENT_PERCENT = (1.0, 3.0), (5.0, 25.0)
FRAME_PERCENT = (2.0, 6.0)
# From here on a clue tells of more than noise: share of landmarks on highlights, shared residual.
SHINE, SHARED_PX = 0.6, 0.25
# Landmarks that last for fewer frames chain the path from one to the next: all 8 such phantom runs of 129 were off by
# more than 2 %, whatever the halves of their landmarks said.
LEAST_TRACK = 4.0
_NINETY = 1.645  # standard normal quantile of 95 %
_NEIGHBOURS = 17
_LEAST_FRAMES = 8


@dataclass(frozen=True)
class Verdict:
    """What is expected of a segment's poses.

    Attributes:
        grade: "green", "amber" or "red"; empty, and errors NaN, where the poses were given and not judged.
        path_percent: expected error of the path (RMSE after the best similarity), per cent of its length.
        interval_percent: where it lies with 90 % probability.
        doubts: sentences on what all landmarks share, of which the expected error may not know enough; neither such a
            segment nor its frames are graded green.
        extent_percent: the expected error in per cent of the path's extent (root mean square distance from its middle).
        clues: what that rests on; None where the segment is too short, or its poses were given.
        frame_percent: (F,) expected error of each frame's position, per cent of its median depth; infinite where it
            can't be told.
    """

    grade: str
    path_percent: float
    interval_percent: tuple[float, float]
    clues: Clues | None
    frame_percent: Float
    doubts: tuple[str, ...] = ()
    extent_percent: float = float("nan")

    def frame_grade(self, number: int) -> str:
        """The grade of one of its frames; empty where the poses were not judged."""
        if not self.grade:
            return ""
        own = frame_grade(float(self.frame_percent[number]))
        return "amber" if own == "green" and self.doubts else own

    def to_dict(self) -> dict[str, object]:
        """Plain values for run.yaml."""
        return {
            "grade": self.grade,
            "path_error_percent": round(self.path_percent, 3),
            "path_error_interval_percent": [round(v, 3) for v in self.interval_percent],
            "path_error_percent_of_extent": round(self.extent_percent, 3),
            "clues": self.clues.to_dict() if self.clues else {},
        }


def judge(
    scene: Map, refined: Refined, figures: Sequence[Mapping[str, float]] = (), camera_given: bool = False
) -> Verdict:
    """The verdict on a refined segment.

    Args:
        scene: its map, which stays as it is.
        figures: of its frames, in order, as tracking gave them.
        camera_given: whether the focal length was given; it is then held against the motion.
    """
    frames = len(scene)
    residual = float(np.nanmedian(refined.residual_px)) if np.isfinite(refined.residual_px).any() else np.nan
    centres = refined.world_from_cam[:, :3, 3]
    if scene.poses_stay:
        # The images did not find the poses, so that what they say of themselves tells nothing of their error.
        return Verdict("", np.nan, (np.nan, np.nan), None, np.full(frames, np.nan))
    still = not np.linalg.norm(np.diff(centres, axis=0), axis=1).sum() > 0
    if frames < _LEAST_FRAMES or len(scene.keyframes) < 2 or still or not residual > 0:
        return Verdict("red", np.inf, (0.0, np.inf), None, np.full(frames, np.inf))
    clues, apart = gather(scene, refined, figures, camera_given)
    known = terms(clues)
    log_error = OFFSET + sum(weight * known[name] for name, weight in WEIGHTS.items())
    found = doubts(clues)
    spread = DOUBTED_SPREAD if found else SPREAD
    low, middle, high = (float(np.exp(log_error + k * spread)) for k in (-_NINETY, 0.0, _NINETY))
    # One frame's disagreement is a single draw: its neighbours and the whole segment tell how large it usually is.
    near = uniform_filter1d(apart**2, _NEIGHBOURS, mode="nearest")
    usual = np.sqrt((near + (apart**2).mean()) / 2) * middle / max(clues.halves_percent, 1e-3)
    length = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
    extent = middle * length / float(np.sqrt(((centres - centres.mean(0)) ** 2).sum(1).mean()))
    if not extent <= EXTENT_PERCENT[1]:
        found += (
            f"the path is hardly wider than its own error, which is {extent:.0f} % of its extent: it may be no more "
            "than shaking, and depth and shape rest on the depth model",
        )
    grades = (_grade(middle, PATH_PERCENT), _grade(extent, EXTENT_PERCENT), "amber" if found else "green")
    grade = max(grades, key=GRADES.index)
    return Verdict(grade, middle, (low, high), clues, 100 * usual / _median_depth(scene, refined), found, extent)


def doubts(clues: Clues) -> tuple[str, ...]:
    """What can bend a whole path without a disagreement between landmarks, in words."""
    found = []
    if clues.is_veiled:
        found.append(
            "smoke or fog veils most frames: what drifts before the tissue, or stays on the lens, can bend the path"
        )
    if clues.shine > SHINE:
        found.append(
            f"{100 * clues.shine:.0f} % of the landmarks lie on highlights, which move with the lamp: they mark no "
            "place, and the path may follow them"
        )
    if clues.track_frames < LEAST_TRACK:
        found.append(
            f"landmarks last for {clues.track_frames:.1f} frames only: the path is chained from frame to frame, its "
            "errors add up, and its scale rests on the depth model"
        )
    if clues.is_misfocused and not clues.is_veiled:
        factor, spread = np.exp(clues.focal_off), 100 * clues.focal_std
        found.append(
            f"the calibration does not fit the motion in the images, which suits a focal length {factor:.2f} times "
            f"the given one (give or take {spread:.1g} %): is it of this endoscope, at this zoom and image size? "
            "Correct it, or leave out --camera"
        )
    elif clues.shared_px > SHARED_PX and not clues.is_veiled:
        found.append(
            f"neighbouring landmarks miss their places alike, by {clues.shared_px:.1f} px of an image 320 wide: "
            "something moves by itself, the tissue, smoke, or what is on the lens; for tissue that moves before a "
            "still camera, try --poses fixed"
        )
    return tuple(found)


def _median_depth(scene: Map, refined: Refined) -> Float:
    """(F,) median distance of the landmarks that each frame sees; infinite (no error) where it sees none."""
    found = []
    for sight, pose in zip(scene.sights, refined.world_from_cam, strict=True):
        far = np.linalg.norm(scene.points(sight.landmark) - pose[:3, 3], axis=1)
        found.append(float(np.median(far)) if len(far) else np.nan)
    usual = np.nanmedian(found)
    return np.where(np.isfinite(found), found, usual)


def frame_grade(percent: float) -> str:
    """The grade of a frame whose position is expected to be off by this share of its depth."""
    return _grade(percent, FRAME_PERCENT)


def _grade(percent: float, limits: tuple[float, float]) -> str:
    if not percent <= limits[1]:
        return "red"
    return "green" if percent <= limits[0] else "amber"


# -- words --------------------------------------------------------------------------------------------------------


def explain(rows: Sequence[tuple[int, str, Mapping[str, float]]]) -> list[str]:
    """Sentences on the stretches of frames that are not green.

    Args:
        rows: (index, grade, figures) of each placed frame, in order.
    """
    found = []
    for grade, group in groupby(rows, key=lambda row: row[1]):
        stretch = list(group)
        if grade == "green":
            continue
        first, last = stretch[0][0], stretch[-1][0]
        where = f"frame {first}" if first == last else f"frames {first} to {last}"
        worst = max(row[2].get("expected_error_percent", np.inf) for row in stretch)
        how = f"{worst:.2g} % of the depth" if np.isfinite(worst) else "unknown"
        found.append(f"{where} ({grade}): the expected error of the position is {how}; {_cause(stretch)}")
    return found


def _cause(stretch: Sequence[tuple[int, str, Mapping[str, float]]]) -> str:
    """What stands out in a stretch of frames."""

    def usual(name: str) -> float:
        values = [row[2][name] for row in stretch if np.isfinite(row[2].get(name, np.nan))]
        return float(np.median(values)) if values else np.nan

    if usual("landmarks") < 80:
        return f"only {usual('landmarks'):.0f} points can be followed"
    if usual("specular") > 0.12:
        return f"highlights cover {100 * usual('specular'):.0f} % of the image"
    if usual("inlier_share") < 0.7:
        return f"only {100 * usual('inlier_share'):.0f} % of the landmarks agree on a pose"
    if usual("refined_residual_px") > 0.8:
        off = usual("refined_residual_px")
        return f"landmarks miss their places by {off:.1f} px: little texture, highlights, or tissue that moves"
    if usual("dark") > 0.3:
        return f"{100 * usual('dark'):.0f} % of the image is dark"
    return "the two halves of the landmarks disagree: the motion or the texture is too small"
