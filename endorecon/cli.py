"""The command line. Everything heavy is imported inside the command that needs it, so that --help is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from video_io.errors import InputError

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
DEMO = "demo"

Out = Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER", help_behavior_hint="")]
File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")]
Count = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
FieldOfView = Literal["none", "circle", "octagon", "rounded"]


@dataclass(frozen=True)
class Reconstruct:
    """Turn an endoscopic video into camera path, depth and a mesh: a run folder that `endorecon view` shows.

    Example: endorecon reconstruct colonoscopy.mp4
    """

    input: Positional[Path]
    """A video file, or a folder of images in the order of their names; demo is a clip that comes along."""
    out: Out = None
    """Where to write; by default runs/NAME, after the input."""
    camera: File = None
    """Calibration: a run's camera.json, an intrinsics.json, OpenCV YAML or XML, COLMAP's cameras.txt."""
    model: str = "tiny"
    """Depth model: a name that `endorecon models` lists, a hub id, or a local folder with a checkpoint."""
    adapter: Folder = None
    """Folder of an adapter for the model."""
    accept_licence: bool = False
    """Use weights whose licence forbids commercial use."""
    poses: Annotated[str, arg(metavar="auto|fixed|colmap|FILE")] = "auto"
    """Camera poses: tracked (auto), of a still camera before moving tissue (fixed), by COLMAP, or in a file: a TUM
    trajectory, C3VD's pose.txt, COLMAP's images.txt."""
    poses_unit: Annotated[Literal["mm", "cm", "m"] | None, arg(metavar="mm|cm|m", help_behavior_hint="")] = None
    """Unit of the lengths in a file of poses."""
    every: int = 1
    """Use every n-th frame."""
    max_frames: Count = None
    """Stop after this many used frames."""
    fps: float = 30.0
    """Frames a second of a folder of images; a video has its own times."""
    live: bool = False
    """Open the viewer and watch while it works."""
    overwrite: bool = False
    """Replace the run that the output folder holds."""


@dataclass(frozen=True)
class View:
    """Look at a run in the viewer: image, depth, camera path, mesh and figures. It listens on this machine only."""

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    report: bool = False
    """Open the run's report in the browser instead."""


@dataclass(frozen=True)
class Evaluate:
    """Compare a run with the truth: camera path, depth and surface.

    Example: endorecon evaluate runs/video --truth ../data/traced_colon
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    truth: Path
    """A folder with poses, depth and mesh: what `endorecon simulate` writes, a C3VD sequence, or SimCol3D."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Simulate:
    """Make a phantom clip with its exact depth, poses, camera and mesh.

    Example: endorecon simulate --scene passage --frames 120 --out passage
    """

    scene: str = "colon"
    """Kind of anatomy: colon, passage, abdomen, tissue or plaster."""
    out: Out = None
    """A new folder; by default phantoms/SCENE_SEED."""
    frames: int = 90
    """Length of the clip."""
    seed: int = 0
    """Everything random follows from it."""
    fps: float = 30.0
    """Frames a second."""
    camera: File = None
    """Camera to film with, in any form that `reconstruct --camera` takes; by default a pinhole of 320 x 256 pixels."""
    field_of_view: FieldOfView = "none"
    """The part of the image that the optics fill."""
    extras: bool = False
    """Also write normals and albedo."""


@dataclass(frozen=True)
class Scale:
    """Bring a run to millimetres by something known, and list what was known with its disagreement.

    Example: endorecon scale runs/video --length-mm 5 --frame 120 --points 300 210 352 214
    """

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made. Without anything else the estimates so far are listed."""
    length_mm: Annotated[float | None, arg(metavar="MM", help_behavior_hint="")] = None
    """A known length, such as the diameter of an instrument, between two points of an image."""
    frame: Count = None
    """The frame in which the points were picked."""
    points: Annotated[tuple[float, float, float, float] | None, arg(metavar="X Y X Y", help_behavior_hint="")] = None
    """The two points, in pixels of the source's image."""
    poses: File = None
    """The path of a tracker or a robot, in a TUM file with the times of the clip."""
    poses_unit: Literal["mm", "cm", "m"] = "mm"
    """Unit of its lengths."""


@dataclass(frozen=True)
class Models:
    """List the depth models, their size, licence and where they come from."""

    adapter: Folder = None
    """Tell what this adapter is for instead."""


@dataclass(frozen=True)
class Adapt:
    """Adapt a depth model to an endoscope, from nothing but its recordings.

    Example: endorecon adapt recordings/*.mp4 -o adapters/my_scope
    """

    recordings: Positional[tuple[Path, ...]]
    """Videos, or folders of images, of one endoscope: the camera moves past tissue that is mostly at rest."""
    out: Out = None
    """Where to write the adapter, for `reconstruct --adapter`; by default adapters/NAME, after the first recording."""
    camera: File = None
    """Calibration of all recordings, in any form that `reconstruct --camera` takes."""
    model: str = "tiny"
    """Depth model to adapt, as `reconstruct --model` takes it."""
    accept_licence: bool = False
    """Use weights whose licence forbids commercial use."""
    method: Literal["gdvlora", "dvlora", "lora", "dora"] = "gdvlora"
    """Kind of adapter."""
    rank: int = 4
    """Its rank."""
    minutes: float = 15.0
    """Time for all of it: reconstructions, then training."""
    every: int = 1
    """Use every n-th frame."""
    max_frames: Count = None
    """Stop after this many used frames of each recording; by default after as many as there is time for."""
    fps: float = 30.0
    """Frames a second of a folder of images; a video has its own times."""
    seed: int = 0
    """Every draw of the training follows from it."""
    overwrite: bool = False
    """Replace the adapter that the output folder holds."""


Command = Reconstruct | Adapt | View | Evaluate | Scale | Simulate | Models


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for input that can't be used, 130 when interrupted."""
    names = {
        "reconstruct": Reconstruct, "adapt": Adapt, "view": View, "evaluate": Evaluate, "scale": Scale,
        "simulate": Simulate, "models": Models,
    }  # fmt: skip
    command: Command = tyro.extras.subcommand_cli_from_dict(
        names,
        prog="endorecon",
        description="From an endoscopic video to a 3D scene: camera path, depth with confidence, and a mesh.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        return _RUNNERS[type(command)](command)
    except InputError as error:
        print(f"endorecon: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("endorecon: stopped", file=sys.stderr)
        return INTERRUPTED


def _reconstruct(command: Reconstruct) -> int:
    source, name = _input(command.input)
    out = command.out or Path("runs") / name
    from endorecon.job import reconstruct_video
    from endorecon.run import read_run

    with _Bars() as bars:
        path = reconstruct_video(
            source,
            out,
            camera=command.camera,
            model=command.model,
            adapter=command.adapter,
            accept_licence=command.accept_licence,
            poses=command.poses,
            poses_unit=command.poses_unit,
            every=command.every,
            max_frames=command.max_frames,
            live=command.live,
            fps=command.fps,
            overwrite=command.overwrite,
            progress=bars,
            say=lambda sentence: print(f"endorecon: {sentence}", file=sys.stderr),
        )
    run = read_run(path)
    frames, timings = run.info["frames"], run.info["timings_s"]
    seconds = timings.get("total", sum(timings.values()))
    parts = f"{frames['segments']} segment{'' if frames['segments'] == 1 else 's'}"
    speed = frames["read"] / max(seconds, 1e-9)
    print(f"{frames['tracked']} of {frames['read']} frames tracked in {parts}, {speed:.1f} frames a second")
    print(f"scale: {run.info['scale']}")
    for warning in run.info["warnings"]:
        print(f"note: {warning}")
    print(f"\nresult     {path}\nlook at it endorecon view {path}\nreport     {path / 'report.html'}")
    if run.status == "interrupted":
        print("endorecon: stopped early; what there was is saved", file=sys.stderr)
        return INTERRUPTED
    return OK


def _adapt(command: Adapt) -> int:
    if not command.recordings:
        raise InputError("no recordings: give one or more videos or folders of images")
    given = [_input(path) for path in command.recordings]
    out = command.out or Path("adapters") / given[0][1]
    from endorecon.adapt import adapt_videos

    try:
        with _Bars() as bars:
            made = adapt_videos(
                [path for path, _ in given],
                out,
                camera=command.camera,
                model=command.model,
                accept_licence=command.accept_licence,
                method=command.method,
                rank=command.rank,
                minutes=command.minutes,
                every=command.every,
                max_frames=command.max_frames,
                fps=command.fps,
                seed=command.seed,
                overwrite=command.overwrite,
                progress=bars,
            )
    except KeyboardInterrupt:
        print("endorecon: stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    for note in made.notes:
        print(f"note: {note}")
    before, after = made.figures["before"], made.figures["after"]
    print(
        f"held-out frames: depth differs from their reconstruction by {100 * after:.1f} % with the adapter, "
        f"{100 * before:.1f} % without"
    )
    other = "" if command.model == "tiny" else f" --model {command.model}"
    print(f"\nadapter  {made.folder}\nuse it   endorecon reconstruct VIDEO{other} --adapter {made.folder}")
    return OK


def _view(command: View) -> int:
    from endorecon.run import read_run

    run = read_run(command.run)
    if command.report:
        if run.report_path is None:
            raise InputError(f"the run in '{run.path}' has no report (status: {run.status}); reconstruct again")
        import webbrowser

        print(run.report_path)
        webbrowser.open(run.report_path.resolve().as_uri())
        return OK
    if run.recording_path is None:
        raise InputError(f"the run in '{run.path}' has no recording (status: {run.status}); reconstruct again")
    from endorecon.views.rerun import open_recording

    return open_recording(run.recording_path)


def _evaluate(command: Evaluate) -> int:
    from endorecon.evaluate.protocol import evaluate_run, table

    result = evaluate_run(command.run, command.truth)
    if command.json:
        import json

        print(json.dumps(result.to_dict(), indent=2))
    else:
        print(table(result))
    return OK


def _scale(command: Scale) -> int:
    from endorecon.run import read_run
    from endorecon.scales import add_estimate, estimates, length, poses

    run, picked = read_run(command.run), (command.length_mm, command.frame, command.points)
    if any(value is not None for value in picked):
        if command.length_mm is None or command.frame is None or command.points is None:
            raise InputError("a known length needs all of --length-mm MM, --frame N and --points X Y X Y")
        first, second = command.points[:2], command.points[2:]
        run = add_estimate(run, length.measure(run, command.length_mm, command.frame, first, second))
    if command.poses is not None:
        path = poses.read_path(command.poses)
        run = add_estimate(run, poses.measure(run, path, command.poses_unit, str(command.poses)))
    print(f"scale: {run.info.get('scale', 'up to scale')}")
    listed = estimates(run)
    for e in listed:
        off = 100 * (e.mm_per_unit / listed[0].mm_per_unit - 1)
        print(f"  {e.mm_per_unit:10.5g} mm a unit, give or take {100 * e.log_std:4.2g} %, {off:+6.2f} %  {e.source}")
    return OK


def _simulate(command: Simulate) -> int:
    from rendering.phantom.clip import simulate
    from video_io.camera_files import read_camera

    camera = read_camera(command.camera) if command.camera else None
    out = command.out or Path("phantoms") / f"{command.scene}_{command.seed}"
    with _Bars() as bars:
        path = simulate(
            command.scene,
            command.seed,
            command.frames,
            camera,
            command.fps,
            out,
            command.field_of_view,
            command.extras,
            progress=lambda done: bars("rendering", done, command.frames),
        )
    run = f"runs/{path.name}"
    print(f"result      {path}")
    print(f"reconstruct endorecon reconstruct {path / 'video.mp4'} --camera {path / 'intrinsics.json'} --out {run}")
    print(f"compare     endorecon evaluate {run} --truth {path}")
    return OK


def _models(command: Models) -> int:
    if command.adapter is not None:
        return _about_adapter(command.adapter)
    from foundation_adapters.backbones import available

    for model in available():
        size = "" if model.size_mb is None else f", {model.size_mb:g} MB"
        print(f"{model.name}{size}\n    {model.about}\n    weights: {model.source}\n    licence: {model.licence}")
    return OK


def _about_adapter(folder: Path) -> int:
    from foundation_adapters.adapter_files import adapter_sets, read_card

    for path in adapter_sets(folder).values():
        card = read_card(path)
        print(f"{path}: {card.method} for {' and '.join(card.tasks)}")
        print(f"    {card.about or 'no description'}\n    model: {card.base} (weights {card.fingerprint})")
        print(f"    licence: {card.licence}")
    return OK


_RUNNERS: dict[type, Callable[..., int]] = {
    Reconstruct: _reconstruct,
    Adapt: _adapt,
    View: _view,
    Evaluate: _evaluate,
    Scale: _scale,
    Simulate: _simulate,
    Models: _models,
}


def _input(given: Path) -> tuple[Path, str]:
    """The input and the name of its run; the word `demo` is the clip that comes with the program."""
    if str(given) == DEMO and not given.exists():
        return Path(__file__).parent / "demo" / "colon.mp4", DEMO
    path = given.expanduser()
    return path, (path.name if path.is_dir() else path.stem) or path.resolve().name


class _Bars:
    """Progress bars on stderr, one a stage: `bars(stage, done, total)`, where `total` may be None."""

    def __enter__(self) -> _Bars:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, int] = {}
        return self

    def __exit__(self, *_: object) -> None:
        if self._tasks:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        self._progress.start()  # when there is something to show; further calls change nothing
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
