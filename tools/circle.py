"""Does the circle close: python tools/circle.py [--data FOLDER --clips ...] [--rows ...] [--seeds 1].

A clip with truth is parted: the first 60 % of its frames are all that anything here learns from (images and intrinsics
alone), the last 40 % are the test. The first part is reconstructed, its light and material are estimated, and new clips
with truth are filmed in that scene (`endorecon simulate --from`). Then an adapter learns

    self    from the recording alone, without truth
    sim     from the filmed clips alone, with supervision
    sim-lit the same, with another lamp and exposure on each path
    both    from the recording and the filmed clips

and AbsRel of the network alone on the test, one scale a frame, is compared with that of the network without an adapter.
What is finished is kept in --work, and the same command goes on from there.

    endorecon simulate --scene colon --seed 902 --frames 60 --out phantoms/colon_902
    python tools/circle.py --data phantoms --clips colon_902 --minutes 3 --paths 3 --frames 40
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

# Threads that wait must sleep: spinning ones starve the others when the machine is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from adapt_bench import TRAINED_SHARE, recorded, test_error

from endorecon.job import reconstruct_video
from endorecon.lighting import FOLDER, is_lighting
from endorecon.record import record_truth
from endorecon.resimulate import resimulate
from endorecon.run import holds_run, read_run
from foundation_adapters.adaptation import Config, adapt
from foundation_adapters.learner import Learner, load_base
from foundation_adapters.recordings import Recording, split
from video_io.clip import Clip
from video_io.datasets import clip_folders, open_truth
from video_io.errors import InputError
from video_io.sources import open_source

ROWS = ("none", "self", "sim", "sim-lit", "both")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--clips", nargs="*", default=["traced_colon"])
    parser.add_argument("--rows", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, of each row and clip")
    parser.add_argument("--steps", type=int, help="of training, in place of the minutes")
    parser.add_argument("--paths", type=int, default=6)
    parser.add_argument("--frames", type=int, default=60, help="of each path")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("circle"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    rows = [row for clip in args.clips for row in measured(args, clip)]
    print(table(rows, args.clips, [name for name in ROWS if name in args.rows]))
    return 0


def measured(args: argparse.Namespace, clip: str) -> list[dict[str, str]]:
    """The figures of one clip, a dictionary a row and seed."""
    folder, work = args.data / clip, args.work / clip
    work.mkdir(parents=True, exist_ok=True)
    truth = open_truth(folder)
    total = sum(1 for _ in Clip.of(open_source(folder / "video.mp4"), truth.camera).frames())
    count = int(TRAINED_SHARE * total)
    found = []
    for name in [n for n in ROWS if n in args.rows]:
        for seed in range(args.seeds if name != "none" else 1):
            key = {"clip": clip, "row": name, "seed": str(seed)}
            row = _held(args.work / "circle.csv", key)
            if row is None:
                begun = time.monotonic()
                row = key | one(args, folder, work, count, name, seed)
                row["seconds"] = f"{time.monotonic() - begun:.0f}"
                _keep(args.work / "circle.csv", row)
            print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
            found.append(row)
    return found


def one(args: argparse.Namespace, folder: Path, work: Path, count: int, name: str, seed: int) -> dict[str, str]:
    """Adapt as the row says, and test."""
    if name == "none":
        return {"test": f"{test_error(Learner(load_base('tiny'), 'lora', 1), folder, count):.5f}"}
    known = filmed(args, folder, work, count, name == "sim-lit") if name != "self" else []
    recordings = recorded(folder, count, work)[0] if name in ("self", "both") else []
    learn, check = split(recordings or known)
    learn += known if recordings else []
    config = Config(seed=seed, minutes=args.minutes, steps=args.steps)
    scratch = work / f"adapting_{name}_{seed}"
    scratch.mkdir(exist_ok=True)
    adapted = adapt(load_base("tiny"), learn, check, scratch, config)
    error = test_error(adapted.learner, folder, count)
    shutil.rmtree(scratch)
    return {
        "test": f"{error:.5f}", "held_out_before": f"{adapted.before:.5f}", "held_out_after": f"{adapted.after:.5f}",
        "steps": str(adapted.steps), "best_step": str(adapted.best_step),
        "recorded": str(sum(map(len, recordings))), "filmed": str(sum(map(len, known))),
    }  # fmt: skip


def filmed(args: argparse.Namespace, folder: Path, work: Path, count: int, vary: bool) -> list[Recording]:
    """Clips of the reconstruction of the first `count` frames, along new paths."""
    path = work / "run"
    if not holds_run(path) or read_run(path).status != "finished":
        reconstruct_video(
            folder / "video.mp4", path, camera=folder / "intrinsics.json", max_frames=count, overwrite=holds_run(path)
        )
    run = read_run(path)
    if not is_lighting(run.path / FOLDER):
        from endorecon.light.estimate import estimate_lighting

        estimate_lighting(run).save(run.path / FOLDER)
    sims = work / ("filmed_lit" if vary else "filmed")
    if not sims.is_dir():
        begun, partial = time.monotonic(), sims.with_name(f".{sims.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        made = resimulate(run, partial, args.paths, args.frames, vary_light=vary)
        partial.rename(sims)
        rate = args.paths * args.frames / (time.monotonic() - begun)
        print(f"filmed {args.paths} paths: {rate:.1f} frames a second, known {min(made.seen):.2f} at least", flush=True)
    return [replace(record_truth(clip), name=f"{n}:{clip.name}") for n, clip in enumerate(clip_folders(sims))]


def _held(path: Path, key: dict[str, str]) -> dict[str, str] | None:
    if not path.exists():
        return None
    with path.open() as file:
        return next((row for row in csv.DictReader(file) if all(row[k] == v for k, v in key.items())), None)


_COLUMNS = (
    "clip", "row", "seed", "test", "held_out_before", "held_out_after", "steps", "best_step", "recorded", "filmed",
    "seconds",
)  # fmt: skip


def _keep(path: Path, row: dict[str, str]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: list[dict[str, str]], clips: list[str], names: list[str]) -> str:
    """Mean over the seeds, a row each, in Markdown."""
    lines = ["| AbsRel, last 40 % | " + " | ".join(clips) + " |", "|---" * (len(clips) + 1) + "|"]
    for name in names:
        cells = []
        for clip in clips:
            own = np.array([float(r["test"]) for r in rows if r["row"] == name and r["clip"] == clip])
            none = [float(r["test"]) for r in rows if r["row"] == "none" and r["clip"] == clip]
            change = f" ({100 * (own.mean() / none[0] - 1):+.0f} %)" if none and name != "none" and len(own) else ""
            cells.append(f"{own.mean():.4f}{change}" if len(own) else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except InputError as error:
        raise SystemExit(f"circle: {error}") from error
