"""What the command line names, opened: runs, plain predictions, truths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.case import Case
from endorecon.evaluate.predictions import Files, by_frame, find_files, listed_images, open_predictions
from endorecon.evaluate.protocol import Reconstruction, RunRecord
from endorecon.run import holds_run, read_run
from rendering.mesh import read_mesh
from video_io.datasets import Truth, open_truth
from video_io.errors import InputError


def open_cases(
    places: Sequence[Path],
    truths: Sequence[Path],
    files: Files,
    ignore: Path | None = None,
    context: str = "",
    version: str = "",
) -> list[Case]:
    """The sequences to be evaluated.

    Args:
        places: run folders, or folders and files of plain predictions; none where `files` names them.
        truths: one for all places, or one for each.
        files: explicit places, for a single sequence.
        ignore: faces of the true mesh that do not count, a file.
        context: how many frames the model was given, in words; empty: what a run knows.
        version: of the truth, in words.

    Raises:
        InputError: something is missing, can't be read or does not belong together.
    """
    explicit = any((files.depth, files.path, files.mesh, files.images))
    if not places and not explicit:
        raise InputError("nothing to evaluate was named; give a run folder, or --depth, --path, --mesh or --images")
    if explicit and len(places) > 1:
        raise InputError(f"--depth, --path, --mesh and --images are for one sequence, found {len(places)} runs")
    count = max(len(places), 1)
    if len(truths) not in (1, count):
        raise InputError(f"{count} runs and {len(truths)} truths; expected one truth, or one for each run (--truth)")
    opened = [open_truth(folder) for folder in truths]
    if len(opened) == 1:
        opened *= count
    cases = []
    for place, truth in zip(list(places) or [None], opened, strict=True):
        cases.append(_case(place, truth, files, ignore, context, version))
    return cases


def _case(place: Path | None, truth: Truth, files: Files, ignore: Path | None, context: str, version: str) -> Case:
    place = place.expanduser() if place is not None else None
    if place is not None and holds_run(place):
        if files.depth or files.path or files.mesh:
            raise InputError(f"'{place}' is a run with its own depth, path and mesh; leave --depth, --path, --mesh out")
        run: Reconstruction = RunRecord(read_run(place))
        found = files
    else:
        found = find_files(place, files) if place is not None else files
        name = place.name if place is not None else _name(files)
        run = open_predictions(name, found, truth)
    notes: list[str] = getattr(run, "notes", [])
    images = by_frame(listed_images(found.images), truth, notes) if found.images else {}
    masks = by_frame(listed_images(found.masks), truth, []) if found.masks else {}
    said = context or getattr(run, "context", "not stated (--context)")
    case = Case(run, truth, images, masks, context=said, version=version)
    return replace(case, ignore=_ignored(ignore, truth)) if ignore is not None else case


def _name(files: Files) -> str:
    place = files.depth or files.path or files.mesh or files.images
    assert place is not None
    resolved = place.expanduser().resolve()
    return f"{resolved.parent.name}/{resolved.name}"


def _ignored(path: Path, truth: Truth) -> NDArray[np.bool_]:
    """(F,) True for the faces that do not count."""
    if truth.mesh_path is None:
        raise InputError(f"--ignore names faces of the true mesh, but the truth {truth.name} has none; leave it out")
    count = len(read_mesh(truth.mesh_path).faces)
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
            if values.dtype == bool and values.shape == (count,):
                return values
        else:
            values = np.loadtxt(path, dtype=np.int64, ndmin=1)
        numbers = values.astype(np.int64).reshape(-1)
        if values.dtype == bool or (len(numbers) and (numbers.min() < 0 or numbers.max() >= count)):
            raise ValueError(f"it does not fit the {count} faces of the true mesh")
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' can't be used as a set of faces to ignore ({error}); expected .npy of {count} bools, or face "
            "numbers as text"
        ) from error
    ignored = np.zeros(count, bool)
    ignored[numbers] = True
    return ignored
