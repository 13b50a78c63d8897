"""`endorecon view`: the recording or the report of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from endorecon.commands.base import OK
from video_io.errors import InputError


@dataclass(frozen=True)
class View:
    """Look at a run in the viewer: image, depth, camera path, mesh and figures. It listens on this machine only."""

    run: Positional[Path]
    """A folder that `endorecon reconstruct` has made."""
    report: bool = False
    """Open the run's report in the browser instead."""


def run(command: View) -> int:
    """Run the command; returns the exit code."""
    if (address := str(command.run)).startswith("rerun+http:/"):  # as a path it has lost a slash
        from endorecon.views.viewer import open_address

        return open_address("rerun+http://" + address.removeprefix("rerun+http:/").lstrip("/"))
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
    from endorecon.views.viewer import open_recording

    return open_recording(run.recording_path)
