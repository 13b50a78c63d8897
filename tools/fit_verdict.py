"""Fit and check what a run expects of its own error: python tools/fit_verdict.py CLIPS [--count 40] [--frames 60].

Renders `count` phantom clips into the folder CLIPS (those that are there are kept), reconstructs each with its
intrinsics and without, and fits log(true path error) to the disagreement of the two halves of the landmarks and to the
residual (endorecon/tracking/verdict.py). The spread is that of clips left out one by one. Then it says how the program
as it stands does on these runs: rank correlation, and how often the stated 90 % interval holds the truth. The shipped
constants come from --seed 700000; to check them, take another seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.trajectory import trajectory_errors
from endorecon.job import reconstruct_video
from endorecon.run import read_run
from rendering.phantom.clip import simulate
from video_io.datasets import open_truth

SCENES = ("colon", "passage", "abdomen", "tissue")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--seed", type=int, default=700_000)
    args = parser.parse_args()
    rows = []
    for number in range(args.count):
        scene = SCENES[number % len(SCENES)]
        clip = args.clips / f"{scene}_{args.seed + number}"
        if not (clip / "video.mp4").is_file():
            simulate(scene, args.seed + number, args.frames, None, 30.0, clip, extras=False)
        for given in (True, False):
            if row := measure(clip, given):
                rows.append((clip.name, *row))
                print(f"{clip.name} {'given' if given else 'estimated'}: true {row[0]:.3f} %, {row[1]}", flush=True)
    fit(rows)
    return 0


def measure(clip: Path, given: bool) -> tuple[float, dict[str, float]] | None:
    """The true path error in per cent and the verdict of one run; None where nothing could be tracked."""
    out = clip / ("run_given" if given else "run_estimated")
    reconstruct_video(clip / "video.mp4", out, camera=clip / "intrinsics.json" if given else None, overwrite=True)
    run = read_run(out)
    verdict = run.info["verdict"]
    if not np.isfinite(verdict["path_error_percent"]):
        return None
    return trajectory_errors(run.trajectory, open_truth(clip).trajectory).ate_sim3_percent, verdict


def fit(rows: list[tuple[str, float, dict[str, float]]]) -> None:
    """Print the constants that fit the runs best, and how well the program states its error now."""
    from scipy.stats import spearmanr

    clips = np.array([row[0] for row in rows])
    truth = np.log([row[1] for row in rows])
    halves, residual = (np.log([row[2][name] for row in rows]) for name in ("halves_percent", "residual_px"))
    design = np.stack([np.ones(len(rows)), halves, residual], 1)
    best = np.linalg.lstsq(design, truth, rcond=None)[0]
    left_out = np.empty(len(rows))
    for clip in np.unique(clips):
        own = clips == clip
        left_out[own] = truth[own] - design[own] @ np.linalg.lstsq(design[~own], truth[~own], rcond=None)[0]
    names = ("OFFSET", "BY_HALVES", "BY_RESIDUAL", "SPREAD")
    print(json.dumps(dict(zip(names, [*np.round(best, 3).tolist(), round(float(left_out.std()), 3)], strict=True))))
    stated = np.array([row[2]["path_error_interval_percent"] for row in rows])
    inside = (np.exp(truth) >= stated[:, 0]) & (np.exp(truth) <= stated[:, 1])
    rank = spearmanr([row[2]["path_error_percent"] for row in rows], truth).statistic
    held = 100 * inside.mean()
    print(f"as the program states it now, {len(rows)} runs: rank correlation {rank:.2f}, held in {held:.0f} %")


if __name__ == "__main__":
    raise SystemExit(main())
