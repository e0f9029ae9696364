"""Calls ahead of their consumer: in order, and in threads that give way while that costs nothing."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from tiler.flow import LOWEST, PATIENCE, prefetch

USUAL = os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0


def priority(_: int) -> int:
    """Of the thread that calls it, against the usual one."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) - USUAL


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own here")
def test_calls_give_way_while_a_result_is_in_stock():
    """Where the consumer would wait, they do not."""
    found = []
    for value in prefetch(priority, range(12), depth=2, give_way=True):
        found.append(value)
        time.sleep(0.1)  # so that the next is there
    assert found[0] == 0
    assert LOWEST - USUAL in found
    assert set(prefetch(priority, range(9), depth=2)) == {0}


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own here")
def test_calls_that_come_late_stop_giving_way():
    """Other programs may leave the lowest priority nothing."""

    def late(number: int) -> int:
        found = priority(number)
        time.sleep(0.05 if found == LOWEST - USUAL else 0)
        return found

    found = []
    for value in prefetch(late, range(60), depth=1, give_way=True):
        found.append(value)
        time.sleep(0.01)
    assert found.count(LOWEST - USUAL) == PATIENCE
    assert set(found[-9:]) == {0}


@pytest.mark.parametrize("give_way", [False, True])
def test_order_failures_and_ends_are_the_same_either_way(give_way):
    def fails(number: int) -> int:
        if number == 5:
            raise KeyError(number)
        return number

    found = []
    with pytest.raises(KeyError):
        found.extend(prefetch(fails, range(9), 2, 2, give_way=give_way))
    calls = prefetch(fails, range(5), 2, 2, give_way=give_way)
    found.append(next(calls))
    calls.close()
    assert found == [0, 1, 2, 3, 4, 0]
    assert not [t for t in threading.enumerate() if t.name.startswith("tiler")]
