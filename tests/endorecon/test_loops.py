"""Loops: a phantom colon that the camera goes into and comes back through, and the parts that close its path."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from endorecon.tracking.appearance import describe, match
from endorecon.tracking.closing import Closed, close_loops
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.features import feature_image
from endorecon.tracking.map import Map, Sight
from endorecon.tracking.pose_graph import Relations, Similarities, cost, optimise, residuals
from endorecon.tracking.refine import FocalPrior, refine
from endorecon.tracking.tracker import Tracker
from rendering.phantom.clip import prepare
from video_io.camera import Camera
from video_io.frame import Frame
from video_io.masks import with_masks
from video_io.trajectory import Similarity, align

CAMERA = Camera.from_fov(160, 128, np.radians(90))
OUT, BACK, BLACK = 36, 18, 8
Seen = tuple[Frame, NetworkDepth]


@dataclass(frozen=True)
class Tour:
    """Frames with what a depth network could say of them (the true depth, wrong by up to 15 %), and the truth."""

    seen: list[Seen]
    poses: NDArray[np.float64]
    median_depth: list[float]


def tour(scene: str, seed: int, out: int, back: int) -> Tour:
    """`out` frames on the scene's usual path, then `back` along it at twice the pace, 2 mm aside and turned by 20
    degrees about the axis."""
    clip = prepare(scene, seed, out, CAMERA, fps=6.0)
    aside = np.eye(4)
    aside[:3, :3], aside[:3, 3] = Rotation.from_euler("z", 20, degrees=True).as_matrix(), [2.0, 0, 0]
    clip = replace(clip, poses=np.concatenate([clip.poses, clip.poses[::-2][:back] @ aside]))
    bend = np.exp(0.1 * np.sin(np.arange(160) / 30)).astype(np.float32)
    seen, depths = [], []
    for index, frame in enumerate(clip.frames()):
        picture = with_masks(replace(Frame.of(frame.rgb, index, index * 166_666_667), camera=CAMERA))
        depth = np.where(frame.depth > 0, frame.depth, 1.0) * 0.05 * bend
        seen.append((picture, NetworkDepth.of(depth, np.full_like(depth, 0.1), CAMERA)))
        depths.append(float(np.median(frame.depth[frame.depth > 0])))
    return Tour(seen, clip.poses, depths)


@pytest.fixture(scope="module")
def colon() -> Tour:
    return tour("colon", 31, OUT, BACK)


@pytest.fixture(scope="module")
def there_and_back(colon: Tour) -> Tracker:
    tracker = Tracker(CAMERA)
    for frame, net in colon.seen:
        tracker.place(frame, net)
    return tracker


def black(index: int) -> Seen:
    frame = Frame.of(np.zeros((128, 160, 3), np.uint8), index, index * 166_666_667, CAMERA)
    return frame, NetworkDepth(np.ones((128, 160), np.float32), np.ones((128, 160), np.float32))


def ends_apart(scene: Map, numbers: list[int], tour: Tour, indices: list[int]) -> NDArray[np.float64]:
    """How far each frame is from the truth after the first ten were laid over it, as a share of the median depth."""
    found, truth = scene.centre[numbers], tour.poses[indices, :3, 3]
    laid = align(found[:10], truth[:10], with_scale=True)
    return np.linalg.norm(laid.apply(found) - truth, axis=1) / np.array(tour.median_depth)[indices]


def test_the_way_back_is_known_again_and_no_loop_is_false(colon: Tour, there_and_back: Tracker) -> None:
    assert [len(scene) for scene in there_and_back.segments] == [OUT + BACK]
    tracker = copy.deepcopy(there_and_back)
    scale = align(tracker.segments[0].centre, colon.poses[:, :3, 3], with_scale=True).scale
    closed = close_loops(tracker, lambda index: colon.seen[index])
    assert len(closed.loops) >= 2 and not closed.notes
    for loop in closed.loops:
        truth = np.linalg.inv(colon.poses[loop.first]) @ colon.poses[loop.second]
        turn = Rotation.from_matrix(truth[:3, :3].T @ loop.first_from_second[:3, :3]).magnitude()
        off = np.linalg.norm(scale * loop.first_from_second[:3, 3] - truth[:3, 3]) / colon.median_depth[loop.first]
        assert np.degrees(turn) < 2 and off < 0.08
        assert loop.matches >= 30 and not loop.joins
        assert loop.first < OUT <= loop.second


def test_an_estimated_focal_length_is_found_while_the_clip_is_tracked(colon: Tour) -> None:
    begun = CAMERA.with_focal_scale(1.1)
    tracker = Tracker(begun, focal=FocalPrior(begun.focal_px, 0.19))
    for frame, net in colon.seen:
        tracker.place(frame, net)
    assert [len(scene) for scene in tracker.segments] == [OUT + BACK]
    assert tracker.camera == tracker.segments[0].camera
    assert tracker.camera.focal_px == pytest.approx(CAMERA.focal_px, rel=0.03)


def test_drift_is_taken_out(colon: Tour, there_and_back: Tracker) -> None:
    """Half-way the rest of the path is made 20 % smaller and turned by 8 degrees about the key frame there."""
    tracker = copy.deepcopy(there_and_back)
    scene = tracker.segments[0]
    turn, key = Rotation.from_euler("y", 8, degrees=True).as_matrix(), scene.keyframes[12]
    centre = scene.centre[key].copy()
    scene.transform(Similarity(0.8, turn, centre - 0.8 * turn @ centre), key, len(scene))
    numbers = list(range(len(scene)))
    before = ends_apart(scene, numbers, colon, numbers)[-1]
    closed = close_loops(tracker, lambda index: colon.seen[index])
    after = ends_apart(scene, numbers, colon, numbers)[-1]
    scene.centre = refine(scene).world_from_cam[:, :3, 3]
    assert len(closed.loops) >= 2
    # Of the distance to the wall; .31, .021 and .012 here.
    assert before > 0.2
    assert after < 0.06
    assert ends_apart(scene, numbers, colon, numbers)[-1] < 0.04


def test_segments_are_joined_by_a_loop(colon: Tour) -> None:
    """The camera goes in, the image is black for a while, and it comes back."""
    tracker = Tracker(CAMERA)
    seen = [*colon.seen[:OUT], *map(black, range(OUT, OUT + BLACK))]
    seen += [(replace(frame, index=frame.index + BLACK), net) for frame, net in colon.seen[OUT + 2 :]]
    by_index = {frame.index: (frame, net) for frame, net in seen}
    for frame, net in seen:
        tracker.place(frame, net)
    assert [len(scene) for scene in tracker.segments] == [OUT, BACK - 2]
    closed = close_loops(tracker, lambda index: by_index[index])
    assert [len(scene) for scene in tracker.segments] == [OUT + BACK - 2]
    assert closed.segments == (0, 0) and closed.number(1) == 0
    first, last = OUT + BLACK + 2, OUT + BLACK + BACK - 1
    assert len(closed.notes) == 1 and closed.notes[0].startswith(f"frames {first} to {last} are joined to the rest by")
    assert all(loop.joins for loop in closed.loops)
    refine(tracker.segments[0])
    numbers = [tracker.placed[index][1] for index in sorted(tracker.placed)]
    indices = [index if index < OUT else index - BLACK for index in sorted(tracker.placed)]
    assert numbers == list(range(OUT + BACK - 2))
    assert ends_apart(tracker.segments[0], numbers, colon, indices)[OUT:].max() < 0.08


def test_without_loops_nothing_changes(colon: Tour) -> None:
    """One way, and then another organ: no place is seen twice."""
    other = tour("passage", 32, 10, 0)
    tracker = Tracker(CAMERA)
    seen = [*colon.seen[:OUT], *map(black, range(OUT, OUT + BLACK))]
    seen += [(replace(frame, index=frame.index + OUT + BLACK), net) for frame, net in other.seen]
    by_index = {frame.index: (frame, net) for frame, net in seen}
    for frame, net in seen:
        tracker.place(frame, net)
    assert len(tracker.segments) == 2
    before = copy.deepcopy(tracker)
    assert close_loops(tracker, lambda index: by_index[index]) == Closed()
    assert tracker.placed == before.placed
    for now, then in zip(tracker.segments, before.segments, strict=True):
        assert np.array_equal(now.centre, then.centre) and np.array_equal(now.log_d, then.log_d)
        assert [len(s.landmark) for s in now.sights] == [len(s.landmark) for s in then.sights]


def picture(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 1, (128, 160)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.repeat(np.clip(120 + 60 * smooth / smooth.std(), 30, 220).astype(np.uint8)[..., None], 3, 2)


def test_features_are_known_again_after_a_turn_and_not_in_another_picture() -> None:
    flat = np.zeros((128, 160), np.float32)
    turned = cv2.warpAffine(picture(0), cv2.getRotationMatrix2D((79.5, 63.5), 30, 1.0), (160, 128))
    first, second, other = (describe(feature_image(Frame.of(p)), flat, 200) for p in (picture(0), turned, picture(1)))
    a, b = match(first, second)
    # About (80, 64), which is OpenCV's (79.5, 63.5); positive angles turn against the clock while y points down.
    turn = Rotation.from_euler("z", -30, degrees=True).as_matrix()[:2, :2]
    off = np.linalg.norm(second.pixels[b] - ((first.pixels[a] - [80, 64]) @ turn.T + [80, 64]), axis=1)
    assert len(a) > 40 and (off < 1.5).mean() > 0.9
    assert len(match(first, other)[0]) < 10


def test_a_segment_joins_another_with_its_landmarks() -> None:
    """Two maps of one frame and two landmarks each; the second is brought in at twice its size, turned by 90 degrees
    about z and moved by (10, 0, 0): its point (0, 0, 5) lies at (10, 0, 10), its camera at (10, 0, 0)."""
    maps = []
    for _ in range(2):
        scene = Map(CAMERA)
        empty = Sight(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
        scene.add_frame(np.eye(4), empty, 0.0, keyframe=True)
        pixels = np.array([[80.0, 64.0], [120.0, 64.0]], np.float32)
        scene.add_landmarks(0, pixels, np.full(2, np.log(5.0), np.float32))
        maps.append(scene)
    first, second = maps
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    first.extend(second, Similarity(2.0, turn, np.array([10.0, 0, 0])))
    assert np.allclose(first.points(np.array([0, 2])), [[0, 0, 5], [10, 0, 10]], atol=1e-6)
    assert np.allclose(first.centre, [[0, 0, 0], [10, 0, 0]])
    assert first.sights[1].landmark.tolist() == [2, 3] and first.host.tolist() == [0, 0, 1, 1]
    assert np.allclose(first.alpha, [0, np.log(2)])


def test_of_hundreds_of_revisits_some_take_part_evenly_spread() -> None:
    scene = Map(CAMERA, revisits=[(1, 10 * k) for k in range(1, 31)] + [(500, 600)])
    assert scene.revisited([0, 1, 2], 100) == [10 * k for k in range(1, 31)]
    assert scene.revisited([0, 1, 2], 3) == [10, 150, 300]  # the middle index, 14.5, rounds to the even one
    assert scene.revisited([2, 3], 3) == []


def test_a_frame_of_another_time_takes_part_though_it_hosts_nothing() -> None:
    """Frames 0 and 3 are refined, 3 hosts a landmark that frame 2 has seen again; frame 2 hosts none of its own that
    they see. The sighting is frame 2's, which stays where it is."""
    scene = Map(CAMERA)
    nothing = Sight(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    pixels = np.array([[80.0, 64.0]], np.float32)
    for number in range(4):
        pose = np.eye(4)
        pose[0, 3] = number
        scene.add_frame(pose, nothing, 0.0, keyframe=True)
    scene.add_landmarks(3, pixels, np.full(1, np.log(5.0), np.float32))
    scene.sights[2] = Sight(np.array([0]), pixels + [40.0, 0], np.full(1, np.log(5.0), np.float32))
    problem, members, numbers = scene.problem([0, 3], 1, beside=[2])
    assert members.tolist() == [0, 2, 3] and numbers.tolist() == [0]
    assert members[problem.frame].tolist() == [2] and members[problem.host].tolist() == [3]
    assert problem.fixed.tolist() == [True, True, False]


def drifting(keys: int = 6, seed: int = 0) -> tuple[Similarities, Relations]:
    """A chain of measured steps, and two loops over it; the start follows the chain."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.1, (keys, 3)), 0)).as_matrix()
    centre = np.cumsum(rng.normal(0, 1, (keys, 3)), 0)
    first = np.append(np.arange(keys - 1), [0, 2])
    second = np.append(np.arange(1, keys), [keys - 1, keys - 3])
    count = len(first)
    back = rotation[first].transpose(0, 2, 1)
    relations = Relations(
        first, second,
        back @ rotation[second] @ Rotation.from_rotvec(rng.normal(0, 0.02, (count, 3))).as_matrix(),
        np.einsum("eij,ej->ei", back, centre[second] - centre[first]) + rng.normal(0, 0.05, (count, 3)),
        rng.normal(0, 0.02, count), np.tile([0.02, 0.05, 0.02], (count, 1)), np.arange(count) >= keys - 1,
    )  # fmt: skip
    start = Similarities(np.tile(np.eye(3), (keys, 1, 1)), np.zeros((keys, 3)), np.zeros(keys))
    for k in range(keys - 1):
        start.rotation[k + 1] = start.rotation[k] @ relations.rotation[k]
        start.log_scale[k + 1] = start.log_scale[k] + relations.log_scale[k]
        step = start.rotation[k] @ relations.translation[k]
        start.centre[k + 1] = start.centre[k] + np.exp(start.log_scale[k]) * step
    return start, relations


def test_the_pose_graph_agrees_with_a_slow_reference() -> None:
    start, relations = drifting()
    found = optimise(start, relations)

    def lengths(x: NDArray[np.float64]) -> NDArray[np.float64]:
        squared = (residuals(found.stepped(np.append(np.zeros(7), x).reshape(-1, 7)), relations) ** 2).sum(1)
        return np.where(relations.doubtful, 3 * np.sqrt(np.log1p(squared / 9)), np.sqrt(squared))

    size = 7 * (len(found.centre) - 1)
    reference = least_squares(lengths, np.zeros(size), xtol=1e-12, ftol=1e-12)
    assert cost(found, relations) == pytest.approx(2 * reference.cost, rel=1e-5)
    assert np.array_equal(found.centre[0], start.centre[0]) and np.array_equal(found.rotation[0], start.rotation[0])


def test_a_false_loop_loses_its_say() -> None:
    start, relations = drifting()
    wrong = relations.translation.copy()
    wrong[-1] += 5.0  # a hundred standard deviations
    found = optimise(start, replace(relations, translation=wrong))
    true = optimise(start, relations[np.arange(len(relations)) < len(relations) - 1])
    assert np.abs(found.centre - true.centre).max() < 0.1
    missed = np.linalg.norm(residuals(found, replace(relations, translation=wrong)), axis=1)
    assert missed[-1] > 50 and missed[:-1].max() < 5
