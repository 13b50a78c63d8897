"""What the commands share: exit codes, kinds of argument, the named input, progress bars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
DEMO = "demo"

Out = Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER", help_behavior_hint="")]
File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")]
Count = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]


def named_input(given: Path) -> tuple[Path, str]:
    """The input and the name of its run; the word `demo` is the clip that comes with the program."""
    if str(given) == DEMO and not given.exists():
        return Path(__file__).parents[1] / "demo" / "colon.mp4", DEMO
    path = given.expanduser()
    name = path.name if path.is_dir() else path.stem
    # '...mp4' would name the folder above the runs
    return path, name if name.strip(".") else path.resolve().name.strip(".") or "input"


class Bars:
    """Progress bars on stderr, one a stage: `bars(stage, done, total)`, where `total` may be None."""

    def __enter__(self) -> Bars:
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
