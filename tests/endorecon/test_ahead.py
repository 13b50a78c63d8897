"""A stage that runs ahead gives the same items, the same errors, and stops when it is told."""

import threading
import time

import pytest

from endorecon.ahead import ahead


def test_items_come_in_order():
    assert list(ahead(iter(range(20)), 3)) == list(range(20))


def test_none_is_an_item_too():
    assert list(ahead([None, 1, None])) == [None, 1, None]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_closing_stops_the_maker():
    made = []

    def items():
        for k in range(1000):
            made.append(k)
            yield k

    found = ahead(items(), 2)
    assert next(found) == 0
    found.close()
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count <= 5
    assert not [t for t in threading.enumerate() if t.name == "ahead"]
