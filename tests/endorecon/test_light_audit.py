"""The brightness audit: models whose answer is known by formula, and the shipped one."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from endorecon import cli
from endorecon.evaluate.light_audit import Audit, Row, audit
from endorecon.evaluate.light_conditions import (
    CONDITIONS,
    LUMINANCE,
    STANDARD,
    Condition,
    PhantomPlace,
    develop,
    phantom_places,
)
from endorecon.evaluate.light_sheet import Sheet, diverging, write_sheet
from rendering.shade import Response
from video_io.camera import Camera
from video_io.errors import InputError

CAMERA = Camera.from_fov(96, 64, np.radians(80))
PLAIN = Response(gamma=2.2, shoulder=0.0, vignette=0.0, read_noise=0.0, shot_noise=0.0, blur_px=0.0)


@dataclass
class Said:
    depth: np.ndarray


class ByFormula:
    """A model that says `depth(rgb)` of a picture (H, W, 3) in [0, 1]."""

    def __init__(self, depth) -> None:
        self.name, self._depth = "by formula", depth

    def estimate(self, frames) -> Said:
        return Said(np.stack([self._depth(frame.rgb / 255.0) for frame in frames]).astype(np.float32))


@pytest.fixture(scope="module")
def place() -> PhantomPlace:
    """A place in a phantom, recorded without noise."""
    (found,) = phantom_places((("tissue", 5),), 1, CAMERA)
    return PhantomPlace(found.scene, replace(found.clip, response=PLAIN), found.pose)


def by_group(found: Audit) -> dict[str, Row]:
    return {row.condition: row for row in found.rows}


def test_the_truth_follows_no_light(place: PhantomPlace) -> None:
    found = audit([place], ByFormula(lambda rgb: 3 * place.depth))
    for row in found.rows:
        assert row.abs_rel == pytest.approx(0, abs=1e-6)
        assert row.change == row.scale == 0
        assert np.isnan(row.slope) == (row.light < 0.1)
    assert found.figures()["light"]["slope"] == 0


def test_the_inverse_square_law_has_a_slope_of_minus_one_half(place: PhantomPlace) -> None:
    """Depth that is light^-1/2: a change of log light changes log depth by minus half of it, whatever its reason."""

    def by_light(rgb: np.ndarray) -> np.ndarray:
        return np.maximum((rgb**2.2) @ LUMINANCE, 1e-4) ** -0.5

    found = by_group(audit([place], ByFormula(by_light)))
    for name in ("far bright", "fall-off 0", "fall-off 1", "fall-off 3", "beam turned"):
        # Not exactly: a picture has 256 levels and ends at white.
        assert found[name].slope == pytest.approx(-0.5, abs=0.06), name
        assert found[name].share > 0.9, name
    # Twice the exposure: half the log of two nearer, everywhere but where it is white.
    assert found["1 stop up"].scale == pytest.approx(0.5 * np.log(2), abs=0.02)
    assert found["far bright"].abs_rel > 1.3 * found[STANDARD].abs_rel


def test_another_fall_off_is_a_gain_by_distance() -> None:
    """Distances 1, 2, 4, median 2: with the exponent lowered by 2 the light is times 1/4, 1, 4."""
    distance = np.tile(np.repeat(np.array([1, 2, 4], np.float32), 4), (4, 1))  # exposure looks at each fourth pixel
    linear = np.full((4, 12, 3), 0.1, np.float32)
    shown = develop(linear, distance, Condition("even", "", falloff=-2.0), PLAIN, 0)
    np.testing.assert_allclose(shown.light[0, ::4], [0.025, 0.1, 0.4], rtol=1e-5)
    # Automatic exposure brings the median to 0.45 of white: the same level of grey as before.
    assert shown.rgb[0, 4, 0] == develop(linear, distance, CONDITIONS[0], PLAIN, 0).rgb[0, 4, 0] == round(255 * 0.45)
    up = develop(linear, distance, Condition("up", "", stops=1.0), PLAIN, 0).rgb[0, 0, 0]
    assert up == round(255 * 0.45 * 2 ** (1 / 2.2))  # 157


def test_conditions_change_what_they_say_and_nothing_else(place: PhantomPlace) -> None:
    shown = {c.name: place.show(c) for c in CONDITIONS}
    usual = shown[STANDARD]
    for condition in CONDITIONS[1:]:
        same_light = np.allclose(shown[condition.name].light, usual.light)
        assert same_light == (condition.group == "camera"), condition.name
        assert np.abs(shown[condition.name].rgb.astype(int) - usual.rgb).mean() > 2, condition.name
    again = place.show(CONDITIONS[5])
    assert np.array_equal(again.rgb, shown[CONDITIONS[5].name].rgb)
    # The lamp on the right lights the right side more.
    right = shown["lamp right"].light / usual.light
    assert np.median(right[:, 64:]) > np.median(right[:, :32])


def test_the_shipped_model_and_its_picture(place: PhantomPlace, tmp_path: Path) -> None:
    from foundation_adapters.estimator import load_estimator

    sheet, chosen = Sheet(), [CONDITIONS[0], CONDITIONS[1], CONDITIONS[9]]
    found = audit([place], load_estimator(), chosen, watch=sheet.add)
    assert found.model == "tiny" and found.scenes == ("tissue 5",) and found.places == 1
    assert 0 < found.rows[0].abs_rel < 0.5
    assert found.rows[0].change == 0 < found.rows[1].change < 1
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["rows"][0]["slope"] is None and set(told["groups"]) == {"light", "tissue"}
    assert [line["condition"] for line in csv.DictReader(io.StringIO(found.csv()))] == [c.name for c in chosen]
    assert "far bright" in found.text() and max(map(len, found.text().splitlines())) < 121
    picture = sheet.picture()
    write_sheet(tmp_path / "deep" / "sheet.png", picture)
    assert (tmp_path / "deep" / "sheet.png").stat().st_size > 10_000
    # 3 rows of 117 px and gaps of 4 below a head of 42
    assert picture.shape[0] == 42 + 3 * (117 + 4)
    with pytest.raises(InputError, match="give a place that can be written to"):
        write_sheet(tmp_path / "sheet.txt", picture)


def test_colours_of_change() -> None:
    painted = diverging(np.array([[0.0, 0.4, -0.8]]))
    assert painted[0].tolist() == [[255, 255, 255], [178, 24, 43], [33, 102, 172]]


def test_what_can_not_be_audited_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "a", "b", "--audit", "light"]) == 2
    assert "given with 2 runs and 0 truths; expected no run" in capsys.readouterr().err
    assert cli.main(["evaluate", "--audit", "light", "--places", "0"]) == 2
    assert "0 places a scene; expected 1 or more" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs a place"):
        audit([], ByFormula(lambda rgb: rgb[..., 0]))
    with pytest.raises(ValueError, match="first condition"):
        audit([], ByFormula(lambda rgb: rgb[..., 0]), CONDITIONS[1:])
