"""Fuzzes all readers of outside data (tools/fuzzing.py), in processes with limits of time and memory.

python tools/fuzz.py [--minutes 30] [--targets NAME ...] [--log findings.jsonl]
python tools/fuzz.py --case TARGET NUMBER      one case again, in this process
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.fuzzing import Outcome, Sandbox, targets

CPU_S, WALL_S = 20.0, 90.0  # of one case
MEMORY_MB = 3000  # that a case may take on top of what the libraries have
ROUND_S = 25.0


def main() -> int:
    """Fuzz for some minutes; returns 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--targets", nargs="+", help="names or parts of names; all by default")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--log", type=Path, default=Path("findings.jsonl"))
    parser.add_argument("--case", nargs=2, metavar=("TARGET", "NUMBER"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return _work(args.worker[0], int(args.worker[1]), Path(args.worker[2]))
    if args.case:
        with tempfile.TemporaryDirectory() as root:
            print(Sandbox(Path(root)).run(args.case[0], targets()[args.case[0]], int(args.case[1])))
            os.chdir("/")
        return 0
    return _campaign(args)


def _campaign(args: argparse.Namespace) -> int:
    names = [n for n in targets() if not args.targets or any(t in n for t in args.targets)]
    counts: dict[str, Counter[str]] = {n: Counter() for n in names}
    following, seen = dict.fromkeys(names, args.first), Counter()
    log, end = args.log.resolve(), time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as root:
        while time.monotonic() < end:
            for name in names:
                if time.monotonic() >= end:
                    break
                for number, outcome in _round(name, following[name], Path(root) / name):
                    following[name] = number + 1
                    counts[name][outcome.kind] += 1
                    if outcome.kind in ("value", "refused"):
                        continue
                    # the same place in the same file counts once
                    place = name, re.sub(r"[\d']+", "#", outcome.said.split(": ", 1)[-1])[:200]
                    seen[place] += 1
                    if seen[place] == 1:
                        told = {"target": name, "case": number, "kind": outcome.kind, "said": outcome.said}
                        with open(log, "a") as file:
                            file.write(json.dumps(told) + "\n")
                        print(f"{name} {number}: {outcome.kind}: {outcome.said[:300]}", flush=True)
    total = sum((c for c in counts.values()), Counter())
    print(f"\n{'target':<26}{'cases':>9}{'values':>9}{'refused':>9}{'findings':>10}")
    for name, c in [*counts.items(), ("all", total)]:
        bad = c.total() - c["value"] - c["refused"]
        print(f"{name:<26}{c.total():9d}{c['value']:9d}{c['refused']:9d}{bad:10d}")
    print(f"{len(seen)} different findings in {args.minutes:g} minutes")
    return int(bool(seen))


def _round(name: str, first: int, root: Path):  # type: ignore[no-untyped-def]
    """Cases of one target for some seconds, in a process of their own; a hang or a crash ends it and is a finding."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--worker", name, str(first), str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    descriptor, buffer, current = process.stdout.fileno(), b"", None
    cpu, begun = 0.0, time.monotonic()
    try:
        while True:
            ready, _, _ = select.select([descriptor], [], [], 1.0)
            if ready:
                data = os.read(descriptor, 65536)
                if not data:
                    process.wait()
                    if current is not None:
                        yield current, Outcome("crash", f"the process ended with {process.returncode}")
                    return
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    if "kind" in told:
                        yield current, Outcome(told["kind"], told["said"])
                        current = None
                    else:
                        current, cpu, begun = told["case"], _cpu_s(process.pid), time.monotonic()
            elif current is not None:
                used, waited = _cpu_s(process.pid) - cpu, time.monotonic() - begun
                # waiting alone is no hang where other programs want the processor as well
                if used > CPU_S or (waited > WALL_S and used < 0.02 * waited):
                    yield current, Outcome("hang", f"stopped after {used:.0f} s of work, {waited:.0f} s")
                    return
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(root / "input", ignore_errors=True)  # a case may be as large as the largest file that is read


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def _work(name: str, first: int, root: Path) -> int:
    """Run cases and tell of them on what was standard output; what libraries print goes nowhere."""
    out = os.fdopen(os.dup(1), "wb", 0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    sandbox, target = Sandbox(root), targets()[name]
    target.read(sandbox.seeded(name, target))  # imports and caches are no part of a case
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = size + MEMORY_MB * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    number, end = first, time.monotonic() + ROUND_S
    while time.monotonic() < end:
        out.write(json.dumps({"case": number}).encode() + b"\n")
        outcome = sandbox.run(name, target, number)
        out.write(json.dumps({"kind": outcome.kind, "said": outcome.said}).encode() + b"\n")
        number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
