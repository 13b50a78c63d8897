"""A few damaged inputs for each reader, always the same; `tools/fuzz.py` goes on from there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.fuzzing import Sandbox, damage, targets
from video_io.camera_files import read_camera
from video_io.errors import InputError
from video_io.files import parse_json, parse_yaml
from video_io.trajectory import Trajectory

CASES = 10
SLOW = ("adapter", "data_simcol")  # peft takes seconds to import; images of a quarter of a megapixel


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    before = os.getcwd(), os.environ.get("TMPDIR")
    yield Sandbox(tmp_path_factory.mktemp("fuzz"))
    os.chdir(before[0])
    os.environ.pop("TMPDIR") if before[1] is None else os.environ.update(TMPDIR=before[1])


def names() -> list[object]:
    slow = {n for n in targets() if n in SLOW or n.endswith("_made")}
    return [pytest.param(n, marks=[pytest.mark.slow] if n in slow else []) for n in targets()]


@pytest.mark.parametrize("name", names())
@pytest.mark.filterwarnings("ignore")
def test_a_reader_gives_a_value_or_one_sentence(sandbox: Sandbox, name: str) -> None:
    target = targets()[name]
    target.read(sandbox.seeded(name, target))
    assert sandbox.run(name, target, 0).kind == "value"
    found = [(n, sandbox.run(name, target, n)) for n in range(1, CASES + 1)]
    assert not [(n, o.said) for n, o in found if o.kind == "bug"]


def test_the_same_case_is_the_same_damage(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "x.json").write_text('{"fx": 40.0, "fy": 41.0}')
        damage(folder, random.Random("x/3"))
        found.append({p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()})
    assert found[0] == found[1]


def test_a_reader_that_writes_is_found(sandbox: Sandbox) -> None:
    """The watch itself: a file outside, one in the current folder, one in the input."""
    target = targets()["trajectory"]
    for path in (sandbox.root / "outside" / "x", Path("x"), sandbox.root / "input" / "case" / "x"):

        def read(folder: Path, path: Path = path) -> None:
            path.write_text("1")

        outcome = sandbox.run("trajectory", type(target)(target.seed, read), 0)
        assert outcome.kind == "bug" and "wrote" in outcome.said
        path.unlink()


_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_LEAF = st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
_VALUE = st.recursive(_LEAF, lambda v: st.lists(v, max_size=3) | st.dictionaries(_TEXT, v, max_size=3), max_leaves=6)
_NAMES = ("model", "width", "height", "fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "source", "w", "h")
_QUIET = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)


@_QUIET
@given(
    st.dictionaries(st.sampled_from(_NAMES), _VALUE | st.sampled_from(["fisheye", 64, 40.0]), max_size=12)
)
def test_cameras_of_any_shape(tmp_path: Path, told: dict) -> None:
    import json

    (tmp_path / "c.json").write_text(json.dumps(told))
    try:
        read_camera(tmp_path / "c.json")
    except InputError as error:
        assert len(str(error)) < 1200


@_QUIET
@given(st.lists(st.lists(st.floats() | _TEXT, min_size=7, max_size=9), max_size=4))
def test_trajectories_of_any_shape(tmp_path: Path, rows: list) -> None:
    (tmp_path / "t").write_text("\n".join(" ".join(map(str, row)) for row in rows), encoding="utf-8")
    with suppress(ValueError):  # which is what it says that it raises
        Trajectory.read_tum(tmp_path / "t")


@_QUIET
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_texts_of_any_kind(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        with suppress(ValueError):
            parse(text)
