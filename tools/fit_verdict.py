"""Fit and check what a run expects of its own error: python tools/fit_verdict.py FOLDER [--seed 700000] [--count 16].

Renders phantom clips of all scenes, damages each in a few ways (`video_io.corruptions`, the faults of
`rendering.phantom.faults`, tissue that moves), tracks and refines every version with its intrinsics or without, and
keeps what came of it in FOLDER, one file a run; what is there is not done again. Then

    --fit       fits log(true path error) to the clues (endorecon/tracking/clues.py) and prints the constants of
                endorecon/tracking/verdict.py; the spread is that of clips left out one by one
    (always)    says how the program as it stands does on these runs: rank correlation of the expected and the true
                error, and how often the stated 90 % interval holds the truth, for clean clips, damaged ones, and all

The constants come from one seed; take another one to check them. Light between surfaces is left out of the pictures,
which takes most of the rendering's time.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.clock import Clock
from endorecon.evaluate.corruptions import write_video
from endorecon.evaluate.trajectory import trajectory_errors
from endorecon.job import find_intrinsics, make_estimator
from endorecon.reconstruct import figures_of, settle_all, track
from endorecon.tracking.clues import terms
from endorecon.tracking.map import Map
from endorecon.tracking.refine import Refined
from endorecon.tracking.tracker import Tracker
from endorecon.tracking.verdict import Verdict, judge
from endorecon.views.base import Views
from endorecon.work import Work
from rendering.phantom.clip import prepare
from rendering.phantom.faults import FAULTS
from rendering.phantom.pull import pulled
from video_io.camera import Camera
from video_io.camera_files import write_camera
from video_io.clip import Clip
from video_io.corruptions import corrupt_clip
from video_io.errors import InputError
from video_io.sources import open_source
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from foundation_adapters.estimator import Estimator

SCENES = ("colon", "passage", "abdomen", "tissue")
CONSTANTS = Path(__file__).resolve().parents[1] / "endorecon/tracking/fitted.py"
# Weights of clean clips, found on 64 runs of an earlier program; and how many runs they count for.
START, STIFF = {"halves_percent": 0.971, "residual_px": 0.211}, 3.0
FPS, SIZE = 30.0, (192, 160)
NOT_TAKEN = ("still_share",)  # a share that is next to none in most runs: its weight would be large, and rest on few
# What is done to a clip besides leaving it clean, in turn: names of corruptions and their severities, faults, and
# tissue that moves by so many pixels.
DAMAGES = (
    "smoke 3", "pulled 4", "fog 3", "fault blur", "mucus 3", "smoke 2", "blood 3", "fault fluid", "fog 4",
    "h264_blocks 3", "pulled 8", "underexposure 3", "fault exposure", "smoke 4", "droplets 3", "motion_blur 3", "fog 2",
    "fault wall", "highlights 3", "pulled 2", "defocus 3", "interlacing 3", "fault tool", "bubbles 3", "rolling_band 3",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A run: its longest segment, that refined, its frames' figures, and its true path error in per cent."""

    clip: str
    damage: str
    given: bool
    scene: Map
    refined: Refined
    figures: list[dict[str, float]]
    true_percent: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--seed", type=int, default=700_000)
    parser.add_argument("--only-there", action="store_true", help="make no further runs")
    parser.add_argument("--write", action="store_true", help="with --fit: into the program; the next call uses them")
    parser.add_argument("--fit", action="store_true", help="print the constants that fit best")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if not args.only_there:
        make(args.folder, args.seed, args.count, args.frames)
    seeds = range(args.seed, args.seed + args.count)
    runs = [Measured(**pickle.loads(path.read_bytes())) for path in sorted(args.folder.glob("*.pickle"))]
    runs = [run for run in runs if int(run.clip.rsplit("_", 1)[1]) in seeds]
    verdicts = [judge(run.scene, run.refined, run.figures, run.given) for run in runs]
    known = [n for n, run in enumerate(runs) if np.isfinite(run.true_percent) and verdicts[n].clues is not None]
    if args.fit:
        text = fit([runs[n] for n in known], [verdicts[n] for n in known], f"--seed {args.seed} --count {args.count}")
        print(text)
        if args.write:
            CONSTANTS.write_text(text)
    say([runs[n] for n in known], [verdicts[n] for n in known])
    return 0


def make(folder: Path, seed: int, count: int, frames: int) -> None:
    """Render, damage and track what is not there."""
    estimator = make_estimator("tiny", None, False)
    for number in range(count):
        name = f"{SCENES[number % len(SCENES)]}_{seed + number}"
        own = [DAMAGES[(2 * number + k) % len(DAMAGES)] for k in (0, 1)]
        given = [number // len(SCENES) % 2 == k for k in (0, 1)]
        jobs = [("clean", given[0]), (own[0], given[1]), (own[1], given[0])]
        jobs = [job for job in jobs if not (folder / _name(name, *job)).is_file()]
        if not jobs:
            continue
        pictures, truth, camera = rendered(folder, name, frames)
        for damage, given in jobs:
            run = measure(name, damage, given, damaged(pictures, damage, seed + number), truth, camera, estimator)
            (folder / _name(name, damage, given)).write_bytes(pickle.dumps(vars(run)))
            print(f"{name} {damage} {'given' if given else 'estimated'}: {run.true_percent:.3f} %", flush=True)


def _name(clip: str, damage: str, given: bool) -> str:
    return f"{clip}-{damage.replace(' ', '_')}-{'given' if given else 'estimated'}.pickle"


def rendered(folder: Path, name: str, frames: int) -> tuple[list[np.ndarray], Trajectory, Camera]:
    """The pictures of a clip without light between surfaces, kept in the folder; the true path, and the camera."""
    scene, seed = name.rsplit("_", 1)
    camera = Camera.from_fov(*SIZE, np.radians(65 if scene in ("abdomen", "tissue") else 95))
    clip, kept = prepare(scene, int(seed), frames, camera), folder / f"{name}.npy"
    if not kept.is_file():
        bare = replace(clip, look=replace(clip.look, interreflection=0.0))
        np.save(kept, np.stack([frame.rgb for frame in bare.frames()]))
    times = np.round(np.arange(frames) * 1e9 / FPS).astype(np.int64)
    return list(np.load(kept)), Trajectory(times, clip.poses), clip.camera


def damaged(pictures: list[np.ndarray], damage: str, seed: int) -> list[tuple[int, np.ndarray]]:
    """(number, picture) of the frames that are shown."""
    kind, _, much = damage.partition(" ")
    if kind == "clean":
        return list(enumerate(pictures))
    if kind == "pulled":
        return list(enumerate(pulled(pictures, float(much), FPS, np.random.default_rng(seed))))
    if kind == "fault":
        first, end = len(pictures) // 3, 2 * len(pictures) // 3
        return list(enumerate(FAULTS[much](pictures, first, end, np.random.default_rng(seed))))
    return list(corrupt_clip(pictures, kind, int(much), seed, FPS))


def measure(
    name: str, damage: str, given: bool, shown: list[tuple[int, np.ndarray]], truth: Trajectory, camera: Camera,
    estimator: Estimator,
) -> Measured:  # fmt: skip
    """Track and refine one version of a clip, as `endorecon reconstruct` does before it fuses."""
    with tempfile.TemporaryDirectory() as place:
        video, calibration = Path(place) / "clip.mp4", Path(place) / "camera.json"
        write_video(video, shown, FPS)
        write_camera(calibration, camera)
        source, clock = open_source(video, 1, None, FPS), Clock()
        clip = Clip.of(source, camera if given else None)
        with Work(Path(place) / "run", {}, overwrite=True) as work:
            intrinsics = find_intrinsics(clip, estimator, calibration if given else None)
            clip = clip.with_camera(intrinsics.camera)
            tracker = Tracker(intrinsics.camera, focal=intrinsics.prior)
            result = track(clip, estimator, tracker, Views(), work, clock, lambda *_: None)
            if not tracker.segments:
                return Measured(name, damage, given, Map(camera), None, [], float("nan"))  # type: ignore[arg-type]
            settle_all(tracker, result, work, clock, intrinsics.prior)
    scene, refined = tracker.segments[result.main], result.segments[result.main]
    own = [row for row in result.rows if tracker.placed.get(row.index, (-1, 0))[0] == result.main]
    figures = [dict(row) for row in figures_of(tracker, result.rows)[result.main]]
    path = Trajectory(np.array([row.time_ns for row in own]), refined.world_from_cam)
    try:
        error = trajectory_errors(path, truth).ate_sim3_percent
    except InputError:
        error = float("nan")
    return Measured(name, damage, given, scene, refined, figures, error)


def fit(runs: list[Measured], verdicts: list[Verdict], options: str) -> str:
    """The constants that suit the runs best, as the text of endorecon/tracking/fitted.py.

    Ridge regression towards the weights in START, as runs are few and clues are alike; terms are taken in one by one as
    long as clips that are left out gain by it.
    """
    truth = np.log([run.true_percent for run in runs])
    clips = np.array([run.clip for run in runs])
    table = [terms(verdict.clues) for verdict in verdicts if verdict.clues is not None]
    names, best = list(START), np.inf
    while True:
        further = [name for name in table[0] if name not in names and name not in NOT_TAKEN]
        trials = [names, *([*names, name] for name in further)] if best < np.inf else [names]
        off = {tuple(trial): left_out(table, truth, clips, trial) for trial in trials}
        found = min(off, key=lambda trial: float((off[trial] ** 2).mean()))
        error = float((off[found] ** 2).mean())
        if not error < 0.98 * best:
            break
        names, best = list(found), error
    off_left_out = left_out(table, truth, clips, names)
    # So that the interval holds nine in ten, whatever the tails are like; it is wider where something is doubted.
    doubted = np.array([bool(verdict.doubts) for verdict in verdicts])
    spreads = [max(float(np.quantile(np.abs(off_left_out[own]), 0.9)) / 1.645, 0.1) for own in (~doubted, doubted)]
    offset, weights = ridge(table, truth, names)
    lines = "".join(f'    "{name}": {weight:.4f},\n' for name, weight in zip(names, weights, strict=True))
    return (
        '"""Constants of the verdict, as `python tools/fit_verdict.py FOLDER --fit --write` has left them '
        f'(docs/verdict.md).\n\n{len(runs)} runs of {len(set(clips.tolist()))} phantom clips: {options}.\n"""\n\n'
        "from __future__ import annotations\n\n"
        "# log(true path error in per cent) = OFFSET + the sum of WEIGHTS times the terms of "
        "`endorecon.tracking.clues`, with\n# the standard deviation SPREAD, or DOUBTED_SPREAD where there are doubts.\n"
        f"OFFSET = {offset:.4f}\nWEIGHTS: dict[str, float] = {{\n{lines}}}\n"
        f"SPREAD, DOUBTED_SPREAD = {spreads[0]:.3f}, {spreads[1]:.3f}\n"
    )


def ridge(table: list[dict[str, float]], truth: np.ndarray, names: list[str]) -> tuple[float, np.ndarray]:
    """Offset and weights."""
    rows = np.array([[row[name] for name in names] for row in table])
    mean, spread = rows.mean(0), rows.std(0) + 1e-6
    start = np.array([START.get(name, 0.0) for name in names])
    scaled, left = (rows - mean) / spread, truth - rows @ start
    moved = np.linalg.solve(scaled.T @ scaled + STIFF * np.eye(len(names)), scaled.T @ (left - left.mean()))
    weights = start + moved / spread
    return float(truth.mean() - mean @ weights), weights


def left_out(table: list[dict[str, float]], truth: np.ndarray, clips: np.ndarray, names: list[str]) -> np.ndarray:
    """By how much the log error of each run is missed by what the other clips' runs tell."""
    off = np.empty(len(truth))
    for clip in np.unique(clips):
        others = [row for row, other in zip(table, clips, strict=True) if other != clip]
        offset, weights = ridge(others, truth[clips != clip], names)
        for n in np.flatnonzero(clips == clip):
            off[n] = truth[n] - offset - sum(w * table[n][name] for w, name in zip(weights, names, strict=True))
    return off


def say(runs: list[Measured], verdicts: list[Verdict]) -> None:
    """How the program as it stands states its error."""
    from scipy.stats import spearmanr

    truth = np.array([run.true_percent for run in runs])
    stated = np.array([v.path_percent for v in verdicts])
    low, high = np.array([v.interval_percent for v in verdicts]).T
    clean = np.array([run.damage == "clean" for run in runs])
    for run, verdict in zip(runs, verdicts, strict=True):
        inside = verdict.interval_percent[0] <= run.true_percent <= verdict.interval_percent[1]
        print(
            f"{run.clip:16} {run.damage:16} {'given' if run.given else 'estimated':9} true {run.true_percent:7.3f} "
            f"expected {verdict.path_percent:7.3f} {verdict.grade:5} {'' if inside else 'OUTSIDE'}"
        )
    for words, own in (("clean", clean), ("damaged", ~clean), ("all", clean | True)):
        if own.sum() > 2:
            held = 100 * ((low <= truth) & (truth <= high))[own].mean()
            rank = spearmanr(stated[own], truth[own]).statistic
            misled = ((truth > 3) & (stated <= 1))[own].sum()
            print(f"{words}: {own.sum()} runs, rank correlation {rank:.2f}, held in {held:.0f} %, "
                  f"green though off by more than 3 %: {misled}")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
