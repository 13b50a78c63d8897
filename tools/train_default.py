"""Train the shipped default network: python tools/train_default.py DATA VALIDATION OUT [--minutes 75] [--resume].

DATA and VALIDATION are folders of scenes from tools/make_training_data.py. The result is OUT/heads/tiny.safetensors;
copy it to foundation_adapters/weights/tiny.safetensors.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from dataclasses import fields, replace
from pathlib import Path

# Threads that wait must sleep: spinning ones starve the others when the machine is shared (three times slower here).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from foundation_adapters.train import Config, describe, train
from foundation_adapters.train_heads import HeadsConfig, train_heads
from video_io.errors import InputError


def keep_memory() -> None:
    """Have glibc keep freed memory: giving activations of 100 MB back to the system and faulting them in again costs a
    fifth of a step."""
    if sys.platform.startswith("linux"):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_max = -1, -4
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--start-from", type=Path, help="weights (.safetensors) to begin with instead of ImageNet's")
    simple = [f for f in fields(Config) if f.type in ("int", "float")]
    for field in simple:
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=eval_type(field.type), default=field.default)
    parser.add_argument("--heads-minutes", type=float, default=HeadsConfig().minutes, help="of the second stage")
    args = parser.parse_args()
    keep_memory()
    config = replace(Config(), **{f.name: getattr(args, f.name) for f in simple})
    print(describe(config), flush=True)
    try:
        path = train(
            args.data, args.validation, args.out, config, resume=args.resume, start_from=args.start_from, say=say
        )
        if args.heads_minutes > 0:
            heads = HeadsConfig(minutes=args.heads_minutes, threads=args.threads)
            path = train_heads(path, args.data, args.validation, args.out / "heads", heads, say=say)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"weights: {path}")
    return 0


def eval_type(name: str) -> type:
    return {"int": int, "float": float}[name]


if __name__ == "__main__":
    raise SystemExit(main())
