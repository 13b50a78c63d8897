"""The command line: finds the commands, runs one, and turns what goes wrong into one sentence and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from endorecon import commands
from endorecon.commands.base import BAD_INPUT, INTERRUPTED
from video_io.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for input that can't be used, 130 when interrupted."""
    known = {name: commands.arguments(name) for name in commands.names()}
    command = tyro.extras.subcommand_cli_from_dict(
        known,
        prog="endorecon",
        description="From an endoscopic video to a 3D scene: camera path, depth with confidence, and a mesh.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    name = next(name for name, kind in known.items() if kind is type(command))
    try:
        return commands.runner(name)(command)
    except InputError as error:
        print(f"endorecon: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("endorecon: stopped", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
