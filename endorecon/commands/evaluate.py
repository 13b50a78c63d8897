"""`endorecon evaluate`: predictions against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from endorecon.commands.base import OK, Bars, File, Folder

Audit = Annotated[Literal["light"] | None, arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Evaluate:
    """Compare runs, or any program's predictions, with the truth: camera path, depth, surface and renderings.

    Example: endorecon evaluate runs/video --truth ../data/traced_colon

    Several runs, measured together: endorecon evaluate runs/a runs/b --truth data/a data/b

    As papers print it: endorecon evaluate runs/a --truth data/a --protocol af snippet5

    Another program's depth maps: endorecon evaluate maps/ --truth data/a --protocol af --disparity

    How much of a model's depth follows light and not shape: endorecon evaluate --audit light --model tiny
    """

    run: Positional[tuple[Path, ...]] = ()
    """Run folders; or folders of depth maps (.npy, .npz, 16-bit .png), of depth/, images/, trajectory.tum and mesh.ply,
    or a file of poses or a mesh."""
    truth: tuple[Path, ...] = ()
    """Folders with the truth, in any layout that is known (docs/datasets.md): one for all runs, or one for each."""
    ct: File = None
    """A CT's surface instead, mm: the error budget, as `endorecon budget` tells it (which has more options)."""
    protocol: tuple[str, ...] = ()
    """Protocols of published papers, printed beside the corrected figures; `list` tells which there are."""
    depth: Folder = None
    """Depth maps of another program; 0 is no depth."""
    path: File = None
    """Camera-to-world poses of another program, as a TUM file."""
    mesh: File = None
    """A surface of another program, in the world of --path (without one: in the truth's)."""
    images: Folder = None
    """Rendered images, one for each frame or with its number in the name."""
    masks: Folder = None
    """Masks for --images, white where a pixel does not count."""
    disparity: bool = False
    """The depth maps hold inverse depth."""
    depth_scale: float = 1.0
    """What a stored value of the depth maps is multiplied with."""
    crop: tuple[int, int, int, int] | None = None
    """x y width height of the part of the truth's images that the depth maps show."""
    ignore: File = None
    """Faces of the true mesh that do not count: .npy of bools, or a text file of numbers."""
    context: str = ""
    """How many frames the model was given, in words, for the tables; a run knows it."""
    truth_version: str = ""
    """Which truth this is, in words, for the tables."""
    json: bool = False
    """Print JSON instead of tables."""
    csv: File = None
    """Write the figures as CSV."""
    latex: File = None
    """Write the tables as LaTeX."""
    html: File = None
    """Write a page with plots that needs nothing else."""
    audit: Audit = None
    """`light`: show a depth model phantom scenes, or the scene of one RUN that has a lighting, under other light, other
    paint and other exposure (docs/light_audit.md)."""
    model: str = "tiny"
    """Depth model for --audit, as `reconstruct --model` takes it."""
    adapter: Folder = None
    """Folder of an adapter for that model."""
    accept_licence: bool = False
    """Use weights whose licence forbids commercial use."""
    places: int = 4
    """Places that --audit looks at in each scene."""
    picture: File = None
    """Write what --audit has seen as a picture, .png or .jpg; by default light_audit_MODEL.png."""


def run(command: Evaluate) -> int:
    """Run the command; returns the exit code."""
    if command.ct is not None:
        return _budget(command)
    if command.audit is not None:
        return _audit(command)
    from endorecon.evaluate.open import open_cases
    from endorecon.evaluate.predictions import Files
    from endorecon.evaluate.protocols import listing
    from endorecon.evaluate.study import study
    from endorecon.evaluate.tables import as_csv, as_latex, text

    if "list" in command.protocol:
        print(listing())
        return OK
    files = Files(
        command.depth, command.path, command.mesh, command.images, command.masks, command.disparity,
        command.depth_scale, command.crop,
    )  # fmt: skip
    cases = open_cases(command.run, command.truth, files, command.ignore, command.context, command.truth_version)
    result = study(cases, command.protocol)
    for path, write in ((command.csv, as_csv), (command.latex, as_latex)):
        if path is not None:
            _write(path, write(result))
    if command.html is not None:
        from endorecon.evaluate.page import page

        _write(command.html, page(result))
    if command.json:
        import json

        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    else:
        print(text(result))
    return OK


def _budget(command: Evaluate) -> int:
    from endorecon.commands.budget import Budget, run
    from video_io.errors import InputError

    if len(command.run) != 1 or len(command.truth) > 1 or command.ct is None:
        raise InputError(f"--ct was given with {len(command.run)} runs; expected one run and at most one --truth")
    return run(Budget(command.run[0], command.ct, truth=next(iter(command.truth), None), json=command.json))


def _audit(command: Evaluate) -> int:
    from endorecon.evaluate.light_audit import audit
    from endorecon.evaluate.light_conditions import SCENES, phantom_places
    from endorecon.evaluate.light_sheet import Sheet, write_sheet
    from endorecon.run import read_run
    from foundation_adapters.estimator import load_estimator
    from video_io.errors import InputError

    if len(command.run) > 1 or command.truth:
        raise InputError(
            f"--audit was given with {len(command.run)} runs and {len(command.truth)} truths; expected no run, for "
            "phantom scenes, or one"
        )
    if command.run:
        from endorecon.evaluate.light_run import run_places

        places, total = run_places(read_run(command.run[0]), command.places), command.places
    else:
        places, total = phantom_places(places=command.places), len(SCENES) * command.places
    estimator, sheet = load_estimator(command.model, command.adapter, command.accept_licence), Sheet()
    with Bars() as bars:
        found = audit(places, estimator, progress=bars, total=total, watch=sheet.add)
    picture = command.picture or Path(f"light_audit_{Path(command.model).name}.png")
    write_sheet(picture, sheet.picture())
    if command.csv is not None:
        _write(command.csv, found.csv())
    if command.json:
        import json

        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        print(found.text() + f"\npicture {picture}")
    return OK


def _write(path: Path, content: str) -> None:
    from video_io.errors import InputError

    path = path.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't write '{path}' ({error.strerror}); choose another place") from error
