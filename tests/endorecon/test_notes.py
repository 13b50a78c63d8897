"""What a run says of its frames: consecutive frames with one reason become one sentence."""

from __future__ import annotations

from endorecon.notes import faults, stretches
from endorecon.reconstruct import spoiled
from endorecon.run import FrameRow
from video_io.faults import FROZEN


def rows(*parts: tuple[int, str, str]) -> list[FrameRow]:
    """(count, status, reason) of consecutive frames; every second frame of the source was used."""
    lines = [(status, reason) for count, status, reason in parts for _ in range(count)]
    return [FrameRow(2 * n, n, status, reason) for n, (status, reason) in enumerate(lines)]


def test_frames_with_one_reason_are_one_stretch():
    found = faults(rows((3, "tracked", ""), (10, "refused", "black"), (5, "tracked", ""), (1, "tracked", "a cut")))
    assert found == ["frames 6-24: black", "frame 36: a cut"]


def test_figures_do_not_part_a_stretch():
    found = stretches(rows((1, "refused", "only 12 of 300 found"), (1, "refused", "only 9.5 of 301 found")))
    assert [(s.first, s.last, s.reason) for s in found] == [(0, 2, "only 12 of 300 found")]


def test_what_follows_from_a_fault_does_not_part_it():
    found = stretches(rows((8, "tracked", "blurred"), (6, "refused", "blurred; only 3 landmarks"), (2, "tracked", "")))
    assert [(s.first, s.last, s.reason) for s in found] == [(0, 26, "blurred")]


def test_a_few_good_frames_do_not_part_it_either():
    found = stretches(rows((8, "refused", "fluid"), (4, "tracked", ""), (8, "refused", "fluid")))
    assert [(s.first, s.last) for s in found] == [(0, 38)]
    found = stretches(rows((8, "refused", "fluid"), (9, "tracked", ""), (8, "refused", "fluid")))
    assert len(found) == 2


def test_the_beginning_of_a_fault_belongs_to_it_whatever_it_looks_like():
    parts = (2, "tracked", "fluid"), (20, "refused", "wall"), (1, "tracked", "blurred"), (5, "tracked", "")
    found = stretches(rows(*parts))
    assert [(s.first, s.last, s.reason) for s in found] == [(0, 44, "wall")]


def test_the_longest_stretches_are_named_in_order():
    parts = [part for n in range(6) for part in ((n + 1, "refused", "xy"[n % 2]), (20, "tracked", ""))]
    found = faults(rows(*parts), most=2)
    assert found[:2] == ["frames 180-188: x", "frames 230-240: y"]
    assert found[2] == "... and 4 more stretches of doubtful frames (frames.csv)"


def test_repeated_frames_are_no_frozen_picture():
    once = (1, "tracked", ""), (1, "refused", f"{FROZEN} (as frame 7)")
    doubled = rows(*once * 9)
    assert faults(doubled) == ["9 frames repeat the one before them, as when a rate is converted; they were left out"]
    assert faults(rows((3, "refused", f"{FROZEN} (as frame 7)"))) == ["frames 0-4: the picture is frozen (as frame 7)"]


def test_frames_beside_a_covered_lens_are_not_judged():
    """Five frames on either side."""
    parts = rows((10, "tracked", ""), (2, "refused", "the lens is against the wall (no texture)"), (10, "tracked", ""))
    assert spoiled(parts) == set(range(5, 17))
    assert not spoiled(rows((4, "refused", f"{FROZEN} (as frame 7)")))
