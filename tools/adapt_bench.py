"""What an adapter is worth: python tools/adapt_bench.py [--data FOLDER --clips ...] [--rows ...] [--seeds 3].

Each clip with truth is parted: the first 60 % of its frames are the recording that is adapted to (images and
intrinsics alone), the last 40 % are the test, which nothing here is chosen on. AbsRel of the network alone, one scale a
frame (the ratio of medians), over all pixels with truth, on the program's own working images. The recording is
reconstructed once a clip; its time counts in every row.

Choices (learning rate, losses, sizes) are made on phantom clips of other seeds, by the same protocol:

    endorecon simulate --scene colon --seed 301 --frames 60 --out phantoms/colon_301
    python tools/adapt_bench.py --data phantoms --clips colon_301 passage_302 abdomen_303 --set learning_rate=0.002
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

# Threads that wait must sleep: spinning ones starve the others when the machine is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from endorecon.record import record
from foundation_adapters.adaptation import Config, adapt
from foundation_adapters.estimator import load_estimator
from foundation_adapters.learner import FULL, Learner, load_base
from foundation_adapters.material import ask
from foundation_adapters.recordings import Recording, split
from foundation_adapters.self_supervision import Weights, relative_error
from video_io.clip import Clip
from video_io.datasets import open_truth
from video_io.sources import open_source

CLIPS = ("traced_colon", "traced_sinus", "traced_lap")
TRAINED_SHARE = 0.6


@dataclass(frozen=True)
class Row:
    """One line of the table: the method, and the losses that are turned off."""

    name: str
    method: str
    off: tuple[str, ...] = ()


ROWS = {
    row.name: row
    for row in (
        Row("gdvlora", "gdvlora"),
        Row("dvlora", "dvlora"),
        Row("lora", "lora"),
        Row("dora", "dora"),
        Row("full", FULL),
        Row("no-light", "gdvlora", ("light",)),
        Row("no-photometric", "gdvlora", ("photometric",)),
        Row("no-geometric", "gdvlora", ("geometric",)),
        Row("no-distill", "gdvlora", ("distill", "gradient", "spread")),
        Row("only-distill", "gdvlora", ("photometric", "light", "geometric", "scale", "smooth")),
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--clips", nargs="*", default=CLIPS)
    parser.add_argument("--rows", nargs="*", default=["gdvlora", "dvlora", "lora", "full", "no-light"], choices=ROWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15.0, help="of each row and clip, the reconstruction included")
    parser.add_argument(
        "--steps", type=int, help="of each training, in place of --minutes: a busy machine does not change the figures"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recordings", type=Path, help="a folder where the clips' reconstructions wait between calls")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="NAME=VALUE", help="of the Config or of its weights"
    )
    parser.add_argument("--csv", type=Path, help="append every figure to this file, and skip those that it holds")
    parser.add_argument("--one", nargs=4, metavar=("CLIP", "ROW", "SEED", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps is not None:
        args.set.append(f"steps={args.steps}")
    torch.set_num_threads(args.threads)
    if args.one:
        clip, row, seed, folder = args.one
        one(args.data / clip, ROWS[row], int(seed), Path(folder), changed(args.set), args.minutes)
        return 0
    with tempfile.TemporaryDirectory() as passing:
        folder = args.recordings or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        # The first seed of everything first: a table that is cut short is a table.
        rows = [
            row
            for seed in range(args.seeds)
            for name in args.rows
            for clip in args.clips
            if (row := measured(args, clip, name, seed, folder))
        ]
    print(table(rows, args.clips, args.rows))
    return 0


def changed(settings: list[str]) -> Config:
    """The usual configuration with what --set changes."""
    config, weights = Config(), Weights()
    own = {f.name for f in fields(Config)}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in own:
            config = replace(config, **{name: ast.literal_eval(value)})
        else:
            weights = replace(weights, **{name: float(value)})
    return replace(config, weights=weights)


def measured(args: argparse.Namespace, clip: str, row: str, seed: int, folder: Path) -> dict[str, str]:
    """One figure, in a process of its own, so that memory is that of the row alone."""
    key = {"clip": clip, "row": row, "seed": str(seed), "set": " ".join(args.set)}
    if args.csv and args.csv.exists():
        with args.csv.open() as file:
            for held in csv.DictReader(file):
                if all(held[k] == v for k, v in key.items()):
                    return held
    command = [sys.executable, __file__, "--data", str(args.data), "--minutes", str(args.minutes)]
    command += ["--threads", str(args.threads), "--set", *args.set, "--one", clip, row, str(seed), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{clip}, {row}, seed {seed}: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return {}
    told = dict(item.split("=") for item in done.stdout.strip().splitlines()[-1].split())
    found = key | told
    print(" ".join(f"{k}={v}" for k, v in found.items() if v), flush=True)
    if args.csv:
        new = not args.csv.exists()
        with args.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(found))
            if new:
                writer.writeheader()
            writer.writerow(found)
    return found


def one(folder: Path, row: Row, seed: int, held: Path, config: Config, minutes: float) -> None:
    """Adapt to the first part of a clip, test on the rest, and print the figures on one line."""
    begun = time.monotonic()
    truth = open_truth(folder)
    total = sum(1 for _ in Clip.of(open_source(folder / "video.mp4"), truth.camera).frames())
    count = int(TRAINED_SHARE * total)
    recordings, seconds = recorded(folder, count, held)
    learn, check = split(recordings)
    config = replace(
        config, method=row.method, seed=seed, minutes=minutes - seconds / 60, weights=config.weights.without(*row.off)
    )
    before = test_error(Learner(load_base("tiny"), "lora", 1), folder, count)
    work = Path(tempfile.mkdtemp(dir=held))
    adapted = adapt(load_base("tiny"), learn, check, work, config)
    spent = seconds + time.monotonic() - begun
    after = test_error(adapted.learner, folder, count)
    shutil.rmtree(work)
    figures = {
        "before": before, "after": after, "change": after / before - 1, "held_out_before": adapted.before,
        "held_out_after": adapted.after, "steps": adapted.steps, "best_step": adapted.best_step,
        "trainable": adapted.trainable, "step_s": adapted.step_s, "peak_mb": adapted.peak_mb, "minutes": spent / 60,
    }  # fmt: skip
    print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in figures.items()))


def recorded(folder: Path, count: int, held: Path) -> tuple[list[Recording], float]:
    """The reconstruction of the first `count` frames, once a clip; and the seconds that it took."""
    paths = sorted(held.glob(f"{folder.name}_*.npz"))
    took = held / f"{folder.name}.seconds"
    if not paths:
        begun = time.monotonic()
        estimator = load_estimator()
        done = record(folder / "video.mp4", estimator, held, folder / "intrinsics.json", max_frames=count)
        for number, recording in enumerate(done.recordings):
            recording.save(held / f"{folder.name}_{number:03d}.npz")
        took.write_text(str(time.monotonic() - begun))
        paths = sorted(held.glob(f"{folder.name}_*.npz"))
    return [Recording.load(path) for path in paths], float(took.read_text())


def test_error(learner: Learner, folder: Path, first: int) -> float:
    """AbsRel of the network alone on the frames from `first` on, one scale a frame."""
    truth = open_truth(folder)
    clip = Clip.of(open_source(folder / "video.mp4"), truth.camera)
    found = []
    for number, frame in enumerate(clip.frames()):
        depth = truth.depth(number) if number >= first else None
        if depth is None:
            continue
        rays = frame.camera.ray_map()[..., 2]
        if depth.shape != rays.shape:
            raise SystemExit(f"{folder}: truth of {depth.shape} for images of {rays.shape}; use clips at working size")
        distance = torch.from_numpy(np.where(depth > 0, depth / rays, 0).astype(np.float32))[None]
        rgb = torch.from_numpy(frame.rgb).permute(2, 0, 1)[None].float().div(255)
        with torch.no_grad():
            said, _ = ask(learner, rgb, frame.camera, 1.0, tuple(rays.shape), (False, False))
        found += relative_error(said, distance, torch.ones_like(distance))
    return float(np.mean(found))


def table(rows: list[dict[str, str]], clips: list[str], names: list[str]) -> str:
    """Mean and spread over the seeds, a row each, in Markdown."""
    lines = [
        "| | " + " | ".join(clips) + " | trainable | memory MB | s a step | minutes |",
        "|---" * (len(clips) + 5) + "|",
    ]
    first = {row["clip"]: float(row["before"]) for row in rows}
    lines.append("| none | " + " | ".join(f"{first.get(c, np.nan):.4f}" for c in clips) + " | 0 | | | |")
    for name in names:
        own = [row for row in rows if row["row"] == name]
        if not own:
            continue
        cells = []
        for clip in clips:
            after = np.array([float(row["after"]) for row in own if row["clip"] == clip])
            if not len(after):
                cells.append("")
                continue
            change = 100 * (after.mean() / first[clip] - 1)
            cells.append(f"{after.mean():.4f} ± {after.std():.4f} ({change:+.0f} %)")
        usual = [f"{np.median([float(r[k]) for r in own]):.3g}" for k in ("step_s", "minutes")]
        trainable, memory = own[0]["trainable"], max(float(row["peak_mb"]) for row in own)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {trainable} | {memory:.0f} | {usual[0]} | {usual[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
