"""`endorecon benchmark`: how well it holds up."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from endorecon.commands.base import INTERRUPTED, OK, Bars, File, Folder, Out
from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.evaluate.corruptions import Plan

Names = Annotated[tuple[str, ...], arg(metavar="NAME...", help_behavior_hint="")]
Paths = Annotated[tuple[Path, ...], arg(metavar="FOLDER...", help_behavior_hint="")]


@dataclass(frozen=True)
class Benchmark:
    """Measure what smoke, blood, a fogged lens, lost frames and the like do to depth, camera path and surface.

    Example: endorecon benchmark --corruptions --depth-only
    """

    corruptions: bool = False
    """Every corruption at every severity, relative to the same clips clean."""
    only: Names = ()
    """These corruptions; by default all: blood, bubbles, defocus, droplets, dropped, fog, frozen, h264_blocks,
    highlights, interlacing, motion_blur, mucus, overexposure, overlay_text, rolling_band, smoke, underexposure,
    white_balance."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """These severities."""
    depth_only: bool = False
    """Only the network's depth, which is quick: no reconstructions."""
    clips: Paths = ()
    """Folders of clips with truth; by default three phantom clips, rendered into the output folder."""
    frames: int = 60
    """Length of the clips."""
    seed: int = 0
    """Every corruption follows from it."""
    model: str = "tiny"
    """Depth model, as `reconstruct --model` takes it."""
    adapter: Folder = None
    """Folder of an adapter for the model."""
    accept_licence: bool = False
    """Use weights whose licence forbids commercial use."""
    out: Out = None
    """Where results go; by default benchmarks/corruptions. What is there already is not measured again."""
    overwrite: bool = False
    """Measure everything again."""
    json: bool = False
    """Print JSON instead of tables."""
    csv: File = None
    """Also write every figure to this file."""


def run(command: Benchmark) -> int:
    """Run the command; returns the exit code."""
    if not command.corruptions:
        raise InputError("nothing to measure: give --corruptions")
    from video_io import corruptions

    for name in command.only:
        corruptions.check(name)
    for severity in command.severities:
        corruptions.check(corruptions.names()[0], severity)
    if command.frames < 10:
        raise InputError(f"clips of {command.frames} frames are too short to reconstruct; give --frames 10 or more")
    from endorecon.evaluate import corruption_plot, corruption_results
    from endorecon.evaluate import corruptions as bench

    parts = (bench.DEPTH,) if command.depth_only else (bench.DEPTH, bench.RUN)
    for clip in command.clips:
        bench.check_clip(clip, parts)
    from endorecon.work import identity, program
    from foundation_adapters.estimator import load_estimator

    out = command.out or Path("benchmarks") / "corruptions"
    estimator = load_estimator(command.model, command.adapter, command.accept_licence)
    facts = {
        "model": command.model, "adapter": str(command.adapter or ""), "frames": command.frames, "seed": command.seed,
        "program": program(),
    }  # fmt: skip
    try:
        with Bars() as bars:
            clips = command.clips or bench.phantom_clips(out / "clips", command.frames, bars)
            plan = bench.Plan(
                clips=tuple(clips),
                corruptions=tuple(dict.fromkeys(command.only)) or corruptions.names(),
                severities=tuple(sorted({*command.severities})),
                parts=parts,
                seed=command.seed,
                max_frames=command.frames,
            )
            named = {name: identity(clip) for name, clip in zip(plan.clip_names, plan.clips, strict=True)}
            results = corruption_results.Results.open(out, facts, named, command.overwrite)
            _say(bench.outlook(plan, results))
            bench.run(plan, results, estimator, _reconstructor(command), bars, _say)
    except KeyboardInterrupt:
        print("endorecon: stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    (out / "corruptions.svg").write_text(corruption_plot.svg(results, plan))
    if command.csv is not None:
        _write(command.csv, corruption_results.to_csv(results))
    _print(command, results, plan, out)
    return OK


def _say(sentence: str) -> None:
    print(f"endorecon: {sentence}", file=sys.stderr)


def _reconstructor(command: Benchmark):  # type: ignore[no-untyped-def]
    from endorecon.job import reconstruct_video

    def reconstruct(video: Path, out: Path, camera: Path) -> Path:
        return reconstruct_video(
            video,
            out,
            camera=camera,
            model=command.model,
            adapter=command.adapter,
            accept_licence=command.accept_licence,
            overwrite=True,
        )

    return reconstruct


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(f"'{path}' can't be written ({error.strerror}); choose another file for --csv") from error


def _print(command: Benchmark, results, plan: Plan, out: Path) -> None:  # type: ignore[no-untyped-def]
    from endorecon.evaluate import corruption_results

    if command.json:
        import json

        print(json.dumps(corruption_results.to_dict(results, plan), indent=2))
        return
    print(corruption_results.table(results, plan))
    print(f"\nresults {results.path}\nplot    {out / 'corruptions.svg'}")
