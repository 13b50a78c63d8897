"""Places each frame of a video: follow landmarks, solve the pose, keep key frames, refine a window, or say why not."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.adjust import adjust
from endorecon.tracking.appearance import describe
from endorecon.tracking.attached import Attached
from endorecon.tracking.densify import Correction, NetworkDepth
from endorecon.tracking.features import FeatureImage, detect, feature_image, follow, sample, shine
from endorecon.tracking.given import SCALE_STD, GivenPoses, measure
from endorecon.tracking.map import Map, Sight
from endorecon.tracking.observation import Observation, Posed, Refused
from endorecon.tracking.patches import LEAST_KEPT, Patches, align, cut, plane_warp, textured
from endorecon.tracking.pose import ROBUST_PX, Pose, solve
from endorecon.tracking.refine import FocalPrior, refocus
from video_io.camera import Camera
from video_io.curate import assess
from video_io.faults import Watch
from video_io.frame import Frame

Float = NDArray[np.float64]

# A focal length that is only estimated is found anew when a segment has so many frames, and each time that it has twice
# as many, until its log is known to this deviation.
REFOCUS_FRAMES, REFOCUSED_STD = 24, 0.025


@dataclass(frozen=True)
class TrackerSettings:
    """What the tracker asks of a frame; lengths in working pixels of an image 320 wide.

    Attributes:
        landmarks: how many to follow.
        spacing_px: least distance between two of them.
        least_inliers, least_share: a pose that fewer landmarks, or a smaller share of them, agree on is refused.
        most_residual_px: and so is one whose inliers' median residual is larger.
        key_share: a key frame is made when a smaller share of the last key frame's landmarks is still followed,
        key_motion: or when the camera has moved this share of the scene's median distance,
        key_turn_rad: or turned this far.
        urgency: a frame of which the network was not asked becomes a key frame, and the network is asked, once the
            share has fallen this many times as far, or the camera has moved this many times as much.
        window: key frames in the sliding refinement; window_frames: frames that take part in it.
        patience: refused frames in a row after which a new segment starts.
        look: features by which a key frame is known again when loops are sought; 0: none are.
    """

    landmarks: int = 500
    spacing_px: float = 8.0
    least_inliers: int = 20
    least_share: float = 0.35
    most_residual_px: float = 2.0
    key_share: float = 0.75
    key_motion: float = 0.12
    key_turn_rad: float = 0.15
    urgency: float = 2.0
    window: int = 7
    window_frames: int = 16
    patience: int = 8
    look: int = 200


@dataclass(frozen=True)
class _Last:
    """The last placed frame, as the next one needs it."""

    image: FeatureImage
    landmark: NDArray[np.int64]
    pixels: NDArray[np.float32]
    patches: Patches
    number: int


class Tracker:
    """Tracks one video; the caller feeds it frames in order and owns it.

    With given poses the landmarks are followed all the same, but none moves a pose. The poses share a world, so there
    is one segment, which goes on with new landmarks wherever the old ones are lost.

    Attributes:
        camera: the working camera, as far as it is known by now.
        segments: a `Map` for each stretch of the video whose poses share a world.
        placed: (segment, number in its map) by source index, in order.
    """

    def __init__(
        self,
        camera: Camera,
        settings: TrackerSettings = TrackerSettings(),
        given: GivenPoses | None = None,
        focal: FocalPrior | None = None,
    ) -> None:
        self.camera = camera
        self.settings = settings
        self.given = given
        self.focal = focal  # where the camera's focal length may move, what was known of it beforehand
        self.segments: list[Map] = []
        self.placed: MutableMapping[int, tuple[int, int]] = {}
        self._last: _Last | None = None
        self._watch = Watch()
        self._attached = Attached()
        self._refusals = 0
        self._refocus_at = REFOCUS_FRAMES

    def state(self) -> dict[str, Any]:
        """All that the frames so far have left; `restore` gives it to a tracker made for the same clip."""
        return {name: value for name, value in vars(self).items() if name not in ("settings", "given", "focal")}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another tracker was."""
        vars(self).update(state)

    def place_of(self, index: int) -> tuple[Camera, Float, Correction]:
        """The camera, the pose as it is now, and the depth's scale of the placed frame with this source index."""
        segment, number = self.placed[index]
        scene = self.segments[segment]
        return self.camera, scene.pose(number), Correction.constant(float(scene.alpha[number]))

    def forget_unseen(self, segment: int) -> None:
        """Let go of the landmarks of a segment that nothing needs, as no frame sees them any more."""
        last = self._last if segment == len(self.segments) - 1 else None
        number = self.segments[segment].forget_unseen(np.zeros(0, np.int64) if last is None else last.landmark)
        if last is not None:
            self._last = replace(last, landmark=number[last.landmark])

    # -- placing --------------------------------------------------------------------------------------------------

    def place(
        self,
        frame: Frame,
        net: NetworkDepth | None,
        guess: Float | None = None,
        ask: Callable[[], NetworkDepth] | None = None,
    ) -> Observation | Posed | Refused:
        """Place the next frame.

        Args:
            frame: at the working size, with its masks.
            net: what the network says of its depth; None: it was not asked, and then `ask` is needed.
            guess: the network's relative pose (4, 4), previous_from_cam in the unit of its depth; NaN or None: none.
            ask: asks the network, where the frame needs its depth to become a key frame.
        """
        quality = assess(frame)
        if quality.verdict:
            return self._refuse(frame, f"the frame is {quality.verdict}", quality.figures())
        fault = self._watch.see(frame)
        if fault is not None and fault.kind == "cut":
            # What was followed is gone; the next good frame starts a segment.
            self._last, self._refusals = None, 0
        if fault is not None and fault.hopeless:
            return self._refuse(frame, fault.words, quality.figures())
        known = None if self.given is None else self.given.at(frame.index, frame.time_ns)
        if self.given is not None and known is None:
            return self._refuse(frame, self.given.missing, quality.figures())
        placed = self._place(frame, net, np.full((4, 4), np.nan) if guess is None else guess, known, ask)
        if fault is not None:
            placed = replace(placed, reason="; ".join(filter(None, (fault.words, placed.reason))))
        look = self._watch.look
        looks = {"veil": look.veil, "contrast": look.coarse} if look else {}
        return replace(placed, figures={**placed.figures, **quality.figures(), **looks})

    def _refuse(self, frame: Frame, reason: str, figures: dict[str, float] | None = None) -> Refused:
        self._refusals += 1
        if self._refusals >= self.settings.patience:
            self._last, self._refusals = None, 0
        return Refused(frame.index, frame.time_ns, reason, max(len(self.segments) - 1, 0), figures or {})

    def _place(
        self,
        frame: Frame,
        net: NetworkDepth | None,
        guess: Float,
        known: Float | None,
        ask: Callable[[], NetworkDepth] | None,
    ) -> Observation | Posed | Refused:
        image = self._without_attached(feature_image(frame))
        if self._last is None:
            return self._begin(frame, image, net or _asked(ask), known)
        scene = self.segments[-1]
        pixels, kept, pose = self._pose(image, guess, known)
        if known is not None and self._is_lost(pose, kept):
            return self._begin(frame, image, net or _asked(ask), known)
        reason = self._objection(pose, kept)
        if reason or pose is None:
            return self._refuse(frame, reason)
        self._refusals = 0
        good = np.flatnonzero(kept)[pose.inliers]
        self._vote(self._last.landmark[kept], pixels[kept], pose.world_from_cam)
        if (tissue := self._is_tissue(pixels[good])).sum() >= self.settings.least_inliers:
            good = good[tissue]
        landmark, pixels, patches = self._last.landmark[good], pixels[good], self._last.patches[good]
        pose, pixels, found = self._sharpen(image, pose, landmark, pixels, patches)
        if known is not None and not found.any():
            return self._begin(frame, image, net or _asked(ask), known)
        landmark, pixels, patches = landmark[found], pixels[found], patches[found]
        far = np.linalg.norm(scene.points(landmark) - pose.world_from_cam[:3, 3], axis=1)
        sight, alpha = self._scaled(net, landmark, pixels, far)
        number = scene.add_frame(pose.world_from_cam, sight, alpha, keyframe=False)
        self.placed[frame.index] = (len(self.segments) - 1, number)
        key = self._is_key(scene, number, float(np.median(far)), 1.0 if net is not None else self.settings.urgency)
        if key and net is None:
            net = _asked(ask)
            scene.sights[number], scene.alpha[number] = self._scaled(net, landmark, pixels, far)
        figures = {
            "landmarks": float(len(landmark)),
            "inlier_share": float(pose.inliers.mean()),
            "residual_px": float(np.median(pose.residual_px[pose.inliers])),
            "depth_scale": float(np.exp(scene.alpha[number])),
            "shine": shine(frame, pixels),
        }
        if key and net is not None:
            before, log_net = len(pixels), np.log(net.distance)
            landmark, pixels = self._make_key(scene, number, image, log_net)
            patches = patches.joined(cut(image.grey, log_net, pixels[before:]))
            self._refine_window(scene)
            self._refocus(scene)
        self._last = _Last(image, landmark, pixels, patches, number)
        if net is None:
            return Posed(frame, scene.pose(number), len(self.segments) - 1, figures)
        flat = Correction.constant(float(scene.alpha[number]))
        return net.observe(frame, self.camera, scene.pose(number), flat, len(self.segments) - 1, key, figures)

    # -- what moves with the camera -------------------------------------------------------------------------------

    def _without_attached(self, image: FeatureImage) -> FeatureImage:
        """The image, without what moves with the camera."""
        mask = self._attached.mask(self.camera.width, self.camera.height)
        return image if mask is None else replace(image, usable=np.where(mask, 0, image.usable).astype(np.uint8))

    def _vote(self, landmark: NDArray[np.int64], pixels: NDArray[np.float32], pose: Float) -> None:
        """Tell what landmarks have done since they were first seen, and what tissue would have, by the network."""
        scene = self.segments[-1]
        host = scene.host[landmark]
        far = np.exp(scene.prior[landmark] + scene.alpha[host])
        local = self.camera.rays(scene.pixel[landmark]) * far[:, None]
        points = np.einsum("nij,nj->ni", scene.rotation[host], local) + scene.centre[host]
        expected, ahead = self.camera.project((points - pose[:3, 3]) @ pose[:3, :3])
        expected = np.where(ahead[:, None], expected, np.nan)
        self._attached.see(scene.pixel[landmark], pixels, expected, self.camera.width, self.camera.height)

    def _is_tissue(self, pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
        mask = self._attached.mask(self.camera.width, self.camera.height)
        if mask is None:
            return np.ones(len(pixels), bool)
        column = np.clip(pixels[:, 0].astype(int), 0, self.camera.width - 1)
        row = np.clip(pixels[:, 1].astype(int), 0, self.camera.height - 1)
        return ~mask[row, column]

    def _scaled(
        self, net: NetworkDepth | None, landmark: NDArray[np.int64], pixels: NDArray[np.float32], far: Float
    ) -> tuple[Sight, float]:
        """What a frame sees, and the log scale of its network depth, read off the landmarks at distances `far` (N,).
        Where the network was not asked, it is taken to say what the landmarks do, on the scale of the last frame."""
        log_far = np.log(far)
        if net is None:
            alpha = float(self.segments[-1].alpha[-1])
            return Sight(landmark, pixels, (log_far - alpha).astype(np.float32)), alpha
        sight = Sight(landmark, pixels, sample(np.log(net.distance), pixels))
        return sight, float(np.median(log_far - sight.log_net))

    def _begin(
        self, frame: Frame, image: FeatureImage, net: NetworkDepth, known: Float | None
    ) -> Observation | Refused:
        """Start a segment: its world is this frame's camera, its unit the network's. With a known pose, start or go on
        in the world and the unit of the given poses."""
        log_net = np.log(net.distance)
        pixels = self._detect(image, np.zeros((0, 2), np.float32))
        if known is None and len(pixels) < self.settings.least_inliers:
            return self._refuse(frame, f"only {len(pixels)} points can be followed here")
        if self.given is None:
            self.segments.append(Map(self.camera))
        elif not self.segments:
            self.segments.append(Map(self.camera, True, SCALE_STD if self.given.rigid else Map.anchor_std))
        scene, pose = self.segments[-1], np.eye(4) if known is None else known
        # Where the frames before have told a scale, it goes on.
        alpha = float(scene.alpha[-1]) if len(scene) else 0.0 if self.given is None else self.given.log_scale
        empty = Sight(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
        number = scene.add_frame(pose, empty, alpha, keyframe=True)
        scene.add_landmarks(number, pixels, sample(log_net, pixels))
        self._remember(scene, number, image, log_net)
        self._refusals = 0
        self.placed[frame.index] = (len(self.segments) - 1, number)
        self._last = _Last(image, scene.sights[number].landmark, pixels, cut(image.grey, log_net, pixels), number)
        figures = {"landmarks": float(len(pixels))}
        flat = Correction.constant(alpha)
        return net.observe(frame, self.camera, pose, flat, len(self.segments) - 1, True, figures)

    @property
    def _spacing(self) -> float:
        return self.settings.spacing_px * self.camera.width / 320

    def _pose(
        self, image: FeatureImage, guess: Float, known: Float | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], Pose | None]:
        """Follow the last frame's landmarks into this one and solve for its pose, unless it is known."""
        scene, last = self.segments[-1], self._last
        assert last is not None
        points = scene.points(last.landmark)
        here = scene.pose(last.number)
        guesses = [here] if known is None else [known]
        if known is None and last.number > 0:
            guesses.insert(0, here @ np.linalg.inv(scene.pose(last.number - 1)) @ here)
        if known is None and np.isfinite(guess).all():
            scaled = guess.copy()
            scaled[:3, 3] *= np.exp(scene.alpha[last.number])
            guesses.append(here @ scaled)
        moved, kept = follow(last.image, image, last.pixels, self._predict(points, guesses[0], here, last.pixels))
        if kept.sum() < self.settings.least_inliers:
            # The prediction may have been the fault: a camera that stops, a cut.
            moved, kept = follow(last.image, image, last.pixels)
        if kept.sum() < 6:
            return moved, kept, None
        return moved, kept, self._solve(last.landmark[kept], moved[kept], guesses, ROBUST_PX)

    def _solve(
        self, landmark: NDArray[np.int64], pixels: NDArray[np.float32], guesses: list[Float], robust_px: float
    ) -> Pose:
        """The pose from which landmarks are seen; where poses are given, how well the one guess fits."""
        scene = self.segments[-1]
        if self.given is not None:
            return measure(scene, landmark, pixels, guesses[0], self.given.fit_px)
        return solve(scene.points(landmark), self.camera, pixels, guesses, robust_px)

    def _sharpen(
        self,
        image: FeatureImage,
        pose: Pose,
        landmark: NDArray[np.int64],
        pixels: NDArray[np.float32],
        patches: Patches,
    ) -> tuple[Pose, NDArray[np.float32], NDArray[np.bool_]]:
        """Align each landmark's first patch with this image, and solve for the pose again."""
        moved, found = align(image.grey, patches, self._warp(pose.world_from_cam, landmark, patches), pixels)
        if found.sum() < self.settings.least_inliers:
            return pose, pixels, np.ones(len(pixels), bool)
        sharp = self._solve(landmark[found], moved[found], [pose.world_from_cam], 1.0)
        found[found] &= sharp.inliers
        return sharp, moved, found

    def _warp(self, pose: Float, landmark: NDArray[np.int64], patches: Patches) -> Float:
        """How the plane around each landmark maps from its host image to this one: (N, 2, 2), pixels per pixel."""
        scene = self.segments[-1]
        host = scene.host[landmark]
        return plane_warp(
            self.camera, scene.pixel[landmark], scene.log_d[landmark], patches.slope,
            scene.rotation[host], scene.centre[host], pose,
        )  # fmt: skip

    def _predict(self, points: Float, pose: Float, here: Float, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where the landmarks should be: their last positions, moved as the predicted pose moves their projections."""
        before, _ = self.camera.project((points - here[:3, 3]) @ here[:3, :3])
        after, _ = self.camera.project((points - pose[:3, 3]) @ pose[:3, :3])
        shift = np.clip(after - before, -40, 40)
        return (pixels + np.where(np.isfinite(shift), shift, 0)).astype(np.float32)

    def _is_lost(self, pose: Pose | None, kept: NDArray[np.bool_]) -> bool:
        """Whether too few landmarks are left to hold against a given pose. On tissue that moves, those that agree are
        the ones that rest."""
        given, least = self.given, self.settings.least_inliers
        left = kept.sum() if given is None or given.rigid or pose is None else pose.inliers.sum()
        return pose is None or bool(left < least)

    def _objection(self, pose: Pose | None, kept: NDArray[np.bool_]) -> str:
        """Why a pose can't be believed; empty if it can."""
        s = self.settings
        if pose is None or kept.sum() < s.least_inliers:
            return f"only {int(kept.sum())} of {len(kept)} landmarks were found again, fewer than {s.least_inliers}"
        if self.given is not None and not self.given.rigid:
            return ""
        inliers = int(pose.inliers.sum())
        if inliers < s.least_inliers or inliers < s.least_share * kept.sum():
            what = "on a pose" if self.given is None else "with the given pose"
            return f"only {inliers} of {int(kept.sum())} landmarks agree {what}"
        residual = float(np.median(pose.residual_px[pose.inliers]))
        if self.given is None and residual > s.most_residual_px:
            return f"landmarks miss the pose by {residual:.1f} px"
        return ""

    # -- key frames and refinement --------------------------------------------------------------------------------

    def _is_key(self, scene: Map, number: int, distance: float, urgency: float) -> bool:
        key = scene.key_before(number)
        share = np.isin(scene.sights[number].landmark, scene.sights[key].landmark).sum() / max(
            len(scene.sights[key].landmark), 1
        )
        motion = np.linalg.norm(scene.centre[number] - scene.centre[key]) / distance
        turn = np.linalg.norm(cv2.Rodrigues(scene.rotation[key].T @ scene.rotation[number])[0])
        s = self.settings
        least = 1 - urgency * (1 - s.key_share)
        return bool(share < least or motion > urgency * s.key_motion or turn > urgency * s.key_turn_rad)

    def _make_key(
        self, scene: Map, number: int, image: FeatureImage, log_net: Float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        scene.keyframe[number] = True
        pixels = scene.sights[number].pixels
        fresh = self._detect(image, pixels)
        scene.add_landmarks(number, fresh, sample(log_net, fresh))
        self._remember(scene, number, image, log_net)
        sight = scene.sights[number]
        return sight.landmark, sight.pixels

    def _detect(self, image: FeatureImage, existing: NDArray[np.float32]) -> NDArray[np.float32]:
        """New points beside the existing ones (N, 2): those that show more than noise."""
        found = detect(image, existing, self.settings.landmarks - len(existing), self._spacing)
        return found[textured(image.grey, found, LEAST_KEPT - len(existing))]

    def _remember(self, scene: Map, number: int, image: FeatureImage, log_net: Float) -> None:
        """Keep what a key frame looks like, but not of two frames in a row; given poses need no loops."""
        if self.settings.look and self.given is None and number - 1 not in scene.looks:
            scene.looks[number] = describe(image, log_net, self.settings.look)

    def _refine_window(self, scene: Map) -> None:
        """Refine the last key frames, and frames between them; the frames left out move with the one before them."""
        keys, last = scene.last_keyframes(self.settings.window), len(scene) - 1
        first = keys[0]
        between = np.linspace(first, last, min(self.settings.window_frames, last - first + 1)).astype(int)
        # A live run lets go of what some frames saw.
        frames = sorted({*keys, *(number for number in between.tolist() if len(scene.sights[number].landmark))})
        problem, members, numbers = scene.problem(frames, fixed=1 if first == 0 else 2)
        if not len(numbers):
            return
        before = {f: scene.pose(f) for f in frames}
        scene.take(adjust(problem, iterations=4), members, numbers)
        for member, following in pairwise(frames):
            moved = scene.pose(member) @ np.linalg.inv(before[member])
            scene.move(moved, member + 1, following)

    def _refocus(self, scene: Map) -> None:
        """Find an estimated focal length anew, now that the segment tells more of it."""
        if self.focal is None or self.given is not None or len(scene) < self._refocus_at:
            return
        spread = refocus(scene, self.focal)
        self.camera = scene.camera
        self._refocus_at = 2 * len(scene) if spread > REFOCUSED_STD else np.iinfo(np.int64).max


def _asked(ask: Callable[[], NetworkDepth] | None) -> NetworkDepth:
    if ask is None:
        raise ValueError("a frame without the network's depth needs a way to ask for it")
    return ask()
