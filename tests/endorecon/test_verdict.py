"""The verdict without truth: what it says of good and of bad tracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from endorecon.tracking.map import Map, Sight
from endorecon.tracking.refine import refine
from endorecon.tracking.verdict import Verdict, doubts, explain, frame_grade, judge
from video_io.camera import Camera

CAMERA = Camera.pinhole(320, 256, 160.0, 160.0, 160.0, 128.0)
FRAMES, LANDMARKS = 12, 160


def tracked(noise_px: float, step: float = 1.0) -> Map:
    """A camera that moves `step` units a frame past points 30 to 50 units away, followed with this much noise."""
    rng = np.random.default_rng(5)
    centres = step * np.arange(FRAMES)[:, None] * [1.0, 0.0, 0.2]
    world = np.concatenate([rng.uniform(-15, 25, (LANDMARKS, 2)), rng.uniform(30, 50, (LANDMARKS, 1))], 1)
    scene = Map(CAMERA)
    for number, centre in enumerate(centres):
        pixels, seen = CAMERA.project(world - centre)
        far = np.linalg.norm(world - centre, axis=1)
        pose = np.eye(4)
        pose[:3, 3] = centre
        if number == 0:
            own = np.flatnonzero(seen)
            empty = Sight(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
            scene.add_frame(pose, empty, 0.0, keyframe=True)
            scene.add_landmarks(0, pixels[own].astype(np.float32), np.log(far[own]).astype(np.float32))
            world = world[own]
            continue
        noisy = (pixels + rng.normal(0, noise_px, pixels.shape)).astype(np.float32)
        sight = Sight(np.flatnonzero(seen), noisy[seen], np.log(far[seen]).astype(np.float32))
        scene.add_frame(pose, sight, 0.0, keyframe=number % 3 == 0)
    return scene


def test_noise_in_the_tracks_raises_the_expected_error() -> None:
    quiet, noisy = (judge(scene, refine(scene)) for scene in (tracked(0.1), tracked(1.5)))
    assert quiet.grade == "green"
    assert noisy.path_percent > 5 * quiet.path_percent
    assert quiet.clues is not None and noisy.clues is not None
    assert noisy.clues.halves_percent > 5 * quiet.clues.halves_percent
    low, high = quiet.interval_percent
    assert low < quiet.path_percent < high


def bent(scene: Map, most_px: float) -> Map:
    """The same tracks, with all that lies near the middle of the picture carried along by tissue that moves."""
    sights = []
    for number, sight in enumerate(scene.sights):
        near = np.exp(-(((sight.pixels - [160, 128]) / 60) ** 2).sum(1))[:, None]
        swing = most_px * np.sin(2 * np.pi * number / FRAMES) * np.array([0.3, 1.0])
        sights.append(replace(sight, pixels=(sight.pixels + near * swing).astype(np.float32)))
    return replace(scene, sights=sights)


def test_noise_is_not_shared_between_neighbours_and_tissue_that_moves_is() -> None:
    scenes = tracked(0.5), bent(tracked(0.1), 4.0)
    noise, moves = (judge(scene, refine(scene)) for scene in scenes)
    assert noise.clues is not None and moves.clues is not None
    assert noise.clues.shared_px < 0.1
    assert moves.clues.shared_px > 0.3
    assert not noise.doubts and "something moves by itself" in moves.doubts[0]


def test_a_network_that_is_not_needed_does_not_pull() -> None:
    """True depths or one distance for all: 0.2 px of noise leave the path to the images."""
    scene = tracked(0.2)
    verdict = judge(scene, refine(scene))
    assert verdict.clues is not None
    assert verdict.clues.network_percent < 1.0
    assert verdict.clues.depth_spread < 0.05


def test_highlights_and_veils_leave_no_green() -> None:
    scene = tracked(0.1)
    refined = refine(scene)
    rows = [{"shine": 0.9, "veil": 0.3}] * len(scene)
    assert judge(scene, refined).grade == "green"
    verdict = judge(scene, refined, rows)
    assert verdict.grade == "amber"
    hazy = judge(scene, refined, [{"shine": 0.1, "veil": 0.7, "contrast": 0.02}] * len(scene))
    assert hazy.grade == "amber" and "smoke or fog" in hazy.doubts[0]
    assert [words[:46] for words in verdict.doubts] == ["90 % of the landmarks lie on highlights, which"]


def test_the_map_stays_as_it_is() -> None:
    scene = tracked(0.5)
    refined = refine(scene)
    before = scene.centre.copy(), scene.log_d.copy(), [len(s.landmark) for s in scene.sights]
    judge(scene, refined)
    assert np.array_equal(scene.centre, before[0]) and np.array_equal(scene.log_d, before[1])
    assert [len(s.landmark) for s in scene.sights] == before[2]


def test_a_few_frames_cannot_be_judged() -> None:
    scene = tracked(0.2)
    short = Map(CAMERA)
    short.add_frame(np.eye(4), replace(scene.sights[0]), 0.0, keyframe=True)
    short.host, short.pixel, short.log_d = scene.host, scene.pixel, scene.log_d
    short.prior, short.information = scene.prior, scene.information
    verdict = judge(short, refine(short))
    assert verdict.grade == "red"
    assert verdict.path_percent == np.inf and np.isinf(verdict.frame_percent).all()


@pytest.mark.parametrize(
    ("percent", "grade"),
    [(0.5, "green"), (2.0, "green"), (2.1, "amber"), (6.1, "red"), (np.inf, "red"), (np.nan, "red")],
)
def test_grades_of_frames(percent: float, grade: str) -> None:
    assert frame_grade(percent) == grade


def test_stretches_are_named_with_their_cause() -> None:
    good = {"expected_error_percent": 0.4, "landmarks": 400.0, "refined_residual_px": 0.3}
    few = {"expected_error_percent": 7.25, "landmarks": 31.0, "refined_residual_px": 0.3}
    rows = [(0, "green", good), (1, "red", few), (2, "red", few), (3, "green", good)]
    assert explain(rows) == [
        "frames 1 to 2 (red): the expected error of the position is 7.2 % of the depth; only 31 points can be followed"
    ]


def test_a_doubt_of_all_landmarks_is_one_of_each_frame() -> None:
    verdict = Verdict("amber", 0.5, (0.2, 1.0), None, np.array([0.5, 3.0, np.inf]), ("smoke",))
    assert [verdict.frame_grade(n) for n in range(3)] == ["amber", "amber", "red"]
    assert replace(verdict, doubts=()).frame_grade(0) == "green"
    assert replace(verdict, grade="").frame_grade(0) == ""  # given poses are not judged


def test_shaking_about_one_place_is_no_path() -> None:
    """Noise of half a pixel makes the path of a camera that stands as long as its frames are many. By its length it is
    off by 8 %, by its extent by 109; one that moves, by 1.0 and 3.2 %."""
    moves, stands = (judge(scene, refine(scene)) for scene in (tracked(0.5), tracked(0.5, 0.0)))
    assert moves.extent_percent < 5.0
    assert stands.extent_percent > 25.0 and stands.grade == "red"
    assert "no more than shaking" in stands.doubts[-1]


def test_landmarks_that_do_not_last_leave_no_green() -> None:
    scene = tracked(0.1)
    whole = judge(scene, refine(scene))
    assert whole.clues is not None and whole.clues.track_frames > 8 and not whole.doubts
    found = doubts(replace(whole.clues, track_frames=1.7))
    assert [words[:37] for words in found] == ["landmarks last for 1.7 frames only: t"]
