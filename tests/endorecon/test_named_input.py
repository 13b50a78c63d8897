"""A run's default name, whatever the input is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from endorecon.commands.base import named_input


@pytest.mark.parametrize(
    ("given", "name"),
    [("a/clip.mp4", "clip"), ("...mp4", "mp4"), ("..mp4", "mp4"), ("a/.hidden", ".hidden"), ("x/../..", None)],
)
def test_a_run_is_never_named_after_the_folder_above(given: str, name: str | None) -> None:
    found = named_input(Path(given))[1]
    assert found.strip(".") and "/" not in found
    assert name is None or found == name
