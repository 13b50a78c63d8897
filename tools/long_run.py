"""A long recording by the whole program: python tools/long_run.py CLIPS [--frames 3000] [--kills 3] [--size W H].

Takes the phantom colonoscopy of `tools/loops.py` (advance, withdrawal, return), reconstructs it with its intrinsics,
and says, stage by stage, what a frame costs in the second tenth and in the last, in processor time of all threads (the
wall clock tells other programs' time as well), how memory grows, and how far the end has drifted. Then the same run is
begun again, killed by SIGKILL at random places, and resumed: trajectory, frames, mesh and depth have to be the same,
byte by byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.loops import clip_arguments, clip_of

SAME = ("trajectory.tum", "frames.csv", "camera.json", "scene/mesh.ply")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    clip_arguments(parser)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--draw", type=int, default=0, help="of the places where it is killed")
    args = parser.parse_args()
    clip = clip_of(args)
    whole, broken = args.clips / f"{clip.name}_whole", args.clips / f"{clip.name}_killed"
    for folder in (whole, broken):
        shutil.rmtree(folder, ignore_errors=True)
    record = args.clips / f"{clip.name}_record.jsonl"
    begun = time.perf_counter()
    child(clip, whole, record, 0, check=True)
    told = [json.loads(line) for line in record.read_text().splitlines()]
    count, seconds = max(row[1] for row in told if row[0] == "tracking"), time.perf_counter() - begun
    print(f"whole run: {count} frames in {seconds:.0f} s by the wall clock", flush=True)
    costs(told)
    drift(whole, clip)
    if args.kills:
        killed(clip, whole, broken, len(told), args.kills, args.draw)
    return 0


def child(clip: Path, out: Path, record: Path, die_at: int, check: bool = False) -> int:
    """Reconstruct in a process of its own, which kills itself at call number `die_at` of its progress, if that is not
    0; its exit code."""
    command = [sys.executable, __file__, "--child", str(clip), str(out), str(record), str(die_at)]
    return subprocess.run(command, check=check).returncode


def reconstruct(clip: Path, out: Path, record: Path, die_at: int) -> None:
    from endorecon.job import reconstruct_video

    called = 0
    with open(record, "w", buffering=1) as file:

        def progress(stage: str, done: int, total: int | None) -> None:
            nonlocal called
            called += 1
            if called == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            print(json.dumps([stage, done, time.process_time(), memory_mb()]), file=file)

        reconstruct_video(clip / "video.mp4", out, camera=clip / "intrinsics.json", progress=progress)


def memory_mb() -> float:
    """Memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def costs(told: list[list]) -> None:  # type: ignore[type-arg]
    """Print what each stage takes a frame at the start and at the end, and the memory there."""
    for stage in dict.fromkeys(row[0] for row in told):
        rows = [row for row in told if row[0] == stage]
        count = len(rows) // 10
        if count < 5:
            continue
        at, memory = np.array([row[2] for row in rows]), np.array([row[3] for row in rows])
        start, end = (1e3 * (at[b] - at[a]) / count for a, b in ((count, 2 * count), (-count - 1, -1)))
        print(f"{stage:10} {start:7.1f} ms a frame in the second tenth, {end:7.1f} in the last: {end / start:.2f} "
              f"times; memory {memory[count : 2 * count].max():.0f} and {memory[-count:].max():.0f} MB")  # fmt: skip
    tracked = max(n for n, row in enumerate(told) if row[0] == "tracking")
    if tracked + 1 < len(told):
        between = told[tracked + 1][2] - told[tracked][2]
        print(f"loops, refinement and verdict: {between:.1f} s, {1e3 * between / told[tracked][1]:.1f} ms a frame")


def drift(out: Path, clip: Path) -> None:
    """Print the path's error, and that of its end after the best similarity of its first quarter."""
    from endorecon.evaluate.trajectory import matched
    from endorecon.run import read_run
    from video_io.datasets import open_truth
    from video_io.trajectory import align

    run, truth = read_run(out), open_truth(clip)
    ours, theirs = matched(run.trajectory, truth.trajectory)
    found, true = ours.centres, theirs.centres
    length = np.linalg.norm(np.diff(true, axis=0), axis=1).sum()
    ate = np.sqrt(((align(found, true, True).apply(found) - true) ** 2).sum(1).mean())
    quarter = max(len(found) // 4, 3)
    off = np.linalg.norm(align(found[:quarter], true[:quarter], True).apply(found) - true, axis=1)
    last = np.sqrt((off[-quarter // 2 :] ** 2).mean())
    print(f"{len(found)} frames in the path, {len(run.info['loops'])} loops; ATE {ate:.3f} mm = "
          f"{100 * ate / length:.3f} % of {length:.0f} mm; first quarter laid over: end {last:.3f} mm = "
          f"{100 * last / length:.3f} %, most {off.max():.3f} mm", flush=True)  # fmt: skip


def killed(clip: Path, whole: Path, out: Path, calls: int, kills: int, draw: int) -> None:
    """Kill and resume; print where, and whether the result is the same."""
    rng, record = random.Random(draw), out.with_suffix(".jsonl")
    left, places = calls, []
    for number in range(kills):
        # Each of the remaining stretches is as long as the others, give or take a half.
        at = max(int(left / (kills + 1 - number) * rng.uniform(0.5, 1.5)), 1)
        if child(clip, out, record, at) != -signal.SIGKILL:
            break
        stage, done, *_ = json.loads(record.read_text().splitlines()[-1]) if record.stat().st_size else ("start", 0)
        places.append(f"{stage} {done}")
        left -= at
    child(clip, out, record, 0, check=True)
    names = [*SAME, *sorted(str(p.relative_to(whole)) for p in (whole / "depth").iterdir())[::97]]
    other = [name for name in names if (whole / name).read_bytes() != (out / name).read_bytes()]
    same = "the same, byte by byte" if not other else f"OTHERWISE: {', '.join(other)}"
    print(f"killed {len(places)} times (after {', '.join(places)}) and resumed: {same}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        reconstruct(*map(Path, sys.argv[2:5]), int(sys.argv[5]))
        raise SystemExit(0)
    raise SystemExit(main())
