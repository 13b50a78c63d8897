"""The pictures of a run, read again from the input that it was made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from endorecon.run import Run
from video_io.clip import PROBES, Clip
from video_io.errors import InputError
from video_io.files import parse_json, read_text
from video_io.frame import Frame
from video_io.masks import overlay, with_masks
from video_io.sources import open_source
from video_io.view import View


def run_clip(run: Run, input: Path | None = None) -> Clip:
    """The clip that a run was made from, with the run's crop, working size and camera.

    Args:
        run: a finished run.
        input: where its video or folder is now; None: where it was.

    Raises:
        InputError: the input is gone, or is another one.
    """
    if run.camera is None:
        raise InputError(f"the run in '{run.path}' ended before its camera was known; reconstruct again")
    asked = run.info.get("config", {})
    path = Path(str(input or asked.get("input", ""))).expanduser()
    if not path.exists():
        raise InputError(
            f"the input of the run in '{run.path}' is not at '{path}' any more; say with --input where its pictures are"
        )
    source = open_source(path, int(asked.get("every", 1)), asked.get("max_frames"), float(asked.get("fps", 30.0)))
    view = _view(run)
    probes = source.sample(PROBES)
    if probes and (probes[0].width, probes[0].height) != (view.source_width, view.source_height):
        raise InputError(
            f"'{path}' has pictures of {probes[0].width} x {probes[0].height}, the run in '{run.path}' was made from "
            f"{view.source_width} x {view.source_height}; give the input that it was made from"
        )
    return Clip(source, view, overlay([view.apply(f) for f in probes]), run.camera)


def run_frames(clip: Clip, indices: Collection[int]) -> Iterator[Frame]:
    """The working frames with these indices, masks filled in, in order."""
    wanted, last = set(indices), max(indices, default=-1)
    for frame in clip.source.frames():
        if frame.index in wanted:
            yield with_masks(replace(clip.view.apply(frame), camera=clip.camera), clip.overlay_mask)
        if frame.index >= last:
            return


def _view(run: Run) -> View:
    try:
        cut = parse_json(read_text(run.path / "camera.json"))["view"]
        x, y, w, h = (int(v) for v in cut["crop"])
        sizes = (int(cut[n]) for n in ("source_width", "source_height"))
        return View(*sizes, (x, y, w, h), int(cut["width"]), int(cut["height"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the run in '{run.path}' has no readable camera.json ({error}); reconstruct again") from error
