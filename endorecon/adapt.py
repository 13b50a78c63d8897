"""A better depth model for a new endoscope, from nothing but its videos; or from clips with truth; or from both.

    record      each video is reconstructed with the present model: camera, poses, and depth that many views agree on;
                of a clip with truth, which a renderer has made, all that is known
    split       clips (of a single clip: its last fifth) are held out
    adapt       an adapter learns from the rest; the held-out part chooses the checkpoint
    save        the adapter's folder, for `endorecon reconstruct --adapter`

What is finished waits in a hidden folder beside the output, so that the same command goes on after it was stopped.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endorecon.reconstruct import Progress
from endorecon.record import Recorded, record, record_truth
from foundation_adapters import curves
from foundation_adapters.recordings import Recording, split
from video_io.errors import InputError

if TYPE_CHECKING:
    from foundation_adapters.adaptation import Adapted, Config
    from foundation_adapters.estimator import Estimator

# Of the time, what tracking may take, and the frames a second that it is counted with; the rest is for training.
TRACKING_SHARE, TRACKING_FPS, LEAST_TRAINING_SHARE = 0.4, 6.0, 0.4
LEAST_FRAMES_READ = 60
_TABLE, _PLAN = "recorded.json", "settings.json"
_CURVES = "tensorboard"


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        folder: of the adapter.
        notes: sentences for the person.
        figures: of the training; see `Adapted.figures`.
    """

    folder: Path
    notes: list[str]
    figures: dict[str, float]


def adapt_videos(
    inputs: Sequence[Path],
    out: Path,
    camera: Path | None = None,
    model: str = "tiny",
    accept_licence: bool = False,
    method: str = "gdvlora",
    rank: int = 4,
    minutes: float = 15.0,
    every: int = 1,
    max_frames: int | None = None,
    fps: float = 30.0,
    seed: int = 0,
    overwrite: bool = False,
    tensorboard: bool = False,
    progress: Progress = lambda *_: None,
    config: Config | None = None,
    truth: Sequence[Path] = (),
) -> Outcome:
    """Make an adapter of `model` for the endoscope of these recordings.

    Args:
        inputs: videos or folders of images, all of one endoscope.
        out: the adapter's folder, new or empty.
        camera: calibration of the inputs' whole image; without it the intrinsics of each are estimated.
        model, accept_licence: what to adapt, as `load_estimator` takes it.
        method, rank: of the adapter; see `adapters.METHODS`.
        minutes: of wall-clock time for all of it.
        every, max_frames, fps: which frames of each input; without `max_frames` as many as there is time for.
        seed: every draw of the training follows from it.
        overwrite: replace the adapter that `out` holds.
        tensorboard: write the training's figures for TensorBoard too, as they come; see `curves`.
        progress: called with a stage's name, frames or steps done, and how many there are.
        config: of the training, in place of the usual one; method, rank, minutes and seed are put into it.
        truth: folders of clips with truth, such as `endorecon simulate --from` writes, whose depth is learnt from with
            supervision. Beside recordings they never choose the checkpoint: the recordings' held-out part does.

    Raises:
        InputError: inputs that nothing can be learnt from, an output that can't be written, or an adapter that is no
            better than the model alone.
    """
    if minutes <= 0:
        raise InputError(f"{minutes:g} minutes: give a positive time")
    if not inputs and not truth:
        raise InputError("no recordings: give videos or folders of images, or clips with truth with --truth")
    out = out.expanduser()
    _check_free(out, overwrite)
    share = TRACKING_SHARE / max(len(inputs), 1)
    limit = max_frames or max(LEAST_FRAMES_READ, int(share * minutes * 60 * TRACKING_FPS))
    reading = {
        "inputs": [_identity(path.expanduser()) for path in inputs], "camera": str(camera), "model": model,
        "every": every, "max_frames": limit, "fps": fps, "truth": [_identity(path) for path in truth],
    }  # fmt: skip
    if tensorboard:
        curves.check()
    estimator = _estimator(model, accept_licence)
    work = _work_folder(out, reading)
    recordings, notes, seconds = _record_all(inputs, work, estimator, camera, every, limit, fps, progress)
    known = [_told_apart(record_truth(path, every, max_frames), f"t{n}") for n, path in enumerate(truth)]
    learn, check = split(recordings or known)
    learn += known if recordings else []
    from foundation_adapters.adaptation import Config, adapt
    from foundation_adapters.learner import load_base

    left = max(LEAST_TRAINING_SHARE * minutes, minutes - seconds / 60)
    config = replace(config or Config(), method=method, rank=rank, minutes=left, seed=seed)
    _same_training(work, asdict(config))
    log = curves.TensorBoard(work / _CURVES) if tensorboard else None
    try:
        adapted = adapt(load_base(model), learn, check, work, config, progress, log or (lambda _: None))
    finally:
        if log is not None:
            log.close()
    if adapted.best_step == 0:
        raise InputError(
            f"no adapter was written: after {adapted.steps} steps none was better on the held-out frames than "
            f"{model} alone (error {adapted.before:.3f}); give more or longer recordings, or keep {model}"
        )
    _save(out, adapted, estimator.licence, model, config, learn, check)
    with suppress(OSError):
        _keep_log(work / "log.csv", out)
        if tensorboard:
            shutil.copytree(work / _CURVES, out / _CURVES)
    shutil.rmtree(work, ignore_errors=True)
    return Outcome(out, notes, adapted.figures())


def _keep_log(log: Path, out: Path) -> None:
    """The training's figures beside the adapter: as a table, and as curves for the viewer."""
    from endorecon.views.rerun import write_curves

    shutil.copy(log, out / "training_log.csv")
    with log.open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    write_curves(rows, out / "training.rrd")


# -- recordings -------------------------------------------------------------------------------------------------------


def _record_all(
    inputs: Sequence[Path], work: Path, estimator: Estimator, camera: Path | None, every: int, limit: int, fps: float,
    progress: Progress,
) -> tuple[list[Recording], list[str], float]:  # fmt: skip
    """Recordings of all inputs, notes on them, and the seconds that they took; what is there already is read."""
    table = _read_json(work / _TABLE)
    failed: list[str] = []
    for number, path in enumerate(inputs):
        key = str(number)
        if key not in table:
            try:
                done = record(
                    path, estimator, work, camera, every, limit, fps, progress=_named(progress, number, inputs)
                )
                table[key] = _keep(done, work, number)
            except InputError as error:
                if len(inputs) == 1:
                    raise
                table[key] = {"files": [], "notes": [], "failed": str(error), "seconds": 0.0}
            _write_json(work / _TABLE, table)
        if table[key].get("failed"):
            failed.append(f"{path.name} is left out: {table[key]['failed']}")
    rows = [table[str(number)] for number in range(len(inputs))]
    recordings = [Recording.load(work / name) for row in rows for name in row["files"]]
    if inputs and not recordings:
        raise InputError(f"nothing can be learnt from any of the {len(inputs)} recordings; the first: {failed[0]}")
    notes = [note for row in rows for note in row["notes"]] + failed
    return recordings, notes, sum(row["seconds"] for row in rows)


def _keep(done: Recorded, work: Path, number: int) -> dict[str, Any]:
    names = []
    for part, recording in enumerate(done.recordings):
        names.append(f"recording_{number:03d}_{part}.npz")
        try:
            _told_apart(recording, number).save(work / names[-1])
        except OSError as error:
            raise _unwritable(work, error) from error
    return {"files": names, "notes": done.notes, "seconds": done.seconds}


def _told_apart(recording: Recording, number: object) -> Recording:
    """Two inputs may have one name, and their clips must be told apart."""
    return replace(recording, name=f"{number}:{recording.name}")


def _named(progress: Progress, number: int, inputs: Sequence[Path]) -> Progress:
    """Stages named after the input, where there are several."""
    if len(inputs) == 1:
        return progress
    return lambda stage, done, total: progress(f"{stage} {number + 1}/{len(inputs)}", done, total)


def _estimator(model: str, accept_licence: bool) -> Estimator:
    """What reconstructs the recordings; an encoder without depth of its own learns from the shipped network's runs."""
    from foundation_adapters.backbones import check_licence, modules
    from foundation_adapters.estimator import load_estimator

    module = next((m for m in modules().values() if m.accepts(model)), None)
    if getattr(module, "MULTI_VIEW", False):
        from foundation_adapters.learner import cannot_adapt

        raise cannot_adapt(model)
    if not getattr(module, "NEEDS_ADAPTER", False):
        return load_estimator(model, None, accept_licence)
    check_licence(model, module.licence(model), accept_licence)
    return load_estimator("tiny")


# -- the folders ------------------------------------------------------------------------------------------------------


def _check_free(out: Path, overwrite: bool) -> None:
    held = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if out.exists() and not out.is_dir():
        raise InputError(f"'{out}' is a file: give a new folder for the adapter with --out")
    if held and not (overwrite and "adapter_config.json" in held):
        what = (
            "an adapter: add --overwrite to replace it" if "adapter_config.json" in held else f"{', '.join(held[:4])}"
        )
        raise InputError(f"'{out}' holds {what}, or give a new folder with --out")


def _work_folder(out: Path, reading: dict[str, Any]) -> Path:
    """The hidden folder beside the output; what it holds of other inputs goes."""
    work = out.parent / f".{out.name}.adapting"
    try:
        if _read_json(work / _PLAN).get("reading") != reading:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        plan = _read_json(work / _PLAN)
        _write_json(work / _PLAN, {**plan, "reading": reading})
    except OSError as error:
        raise _unwritable(work, error) from error
    return work


def _same_training(work: Path, training: dict[str, Any]) -> None:
    """Begin the training anew where another one was begun here."""
    plan, training = _read_json(work / _PLAN), json.loads(json.dumps(training))
    if plan.get("training") != training:
        for name in ("checkpoint.pt", "log.csv"):
            (work / name).unlink(missing_ok=True)
        shutil.rmtree(work / _CURVES, ignore_errors=True)
        _write_json(work / _PLAN, {**plan, "training": training})


def _identity(path: Path) -> list[Any]:
    """What tells whether an input is still the same."""
    try:
        told = path.stat()
    except OSError:
        return [str(path), 0, 0]  # which `open_source` will say
    return [str(path.resolve()), told.st_size, told.st_mtime_ns]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    try:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(values, indent=1))
        part.replace(path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder} can't be written ({error.strerror or error}): free some space or choose another place with --out; "
        "the same command then goes on where it stopped"
    )


def _save(
    out: Path,
    adapted: Adapted,
    licence: str,
    model: str,
    config: Config,
    learn: list[Recording],
    check: list[Recording],
) -> None:
    from endorecon import __version__
    from foundation_adapters.adapter_files import save_adapter
    from foundation_adapters.learner import NAME

    fall = 100 * (1 - adapted.after / adapted.before)
    what = [
        f"{len(names)} {kind}"
        for known, kind in ((False, "recordings without truth"), (True, "rendered clips with it"))
        if (names := {r.name for r in learn + check if r.known is known})
    ]
    about = (
        f"Adapted to {' and '.join(what)} ({sum(map(len, learn))} frames); on {sum(map(len, check))} held-out frames "
        f"its depth is {fall:.0f} % nearer to {'the truth' if check[0].known else 'their reconstructions'} "
        f"({adapted.before:.3f} to {adapted.after:.3f})"
    )
    training = {
        "recordings": sorted({r.name.split(":", 1)[-1] for r in learn}),
        "held_out": sorted({r.name.split(":", 1)[-1] for r in check}),
        "frames": sum(map(len, learn)), "held_out_frames": sum(map(len, check)),
        "figures": adapted.figures(), "config": json.loads(json.dumps(asdict(config))), "endorecon": __version__,
    }  # fmt: skip
    save_adapter(
        adapted.learner.model, out, model, f"yours, within that of the model ({licence})", NAME, ("depth",), about,
        training,
    )  # fmt: skip
