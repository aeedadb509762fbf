"""Simulated machines take turns at computing: one at a time, who is farthest behind first."""

from __future__ import annotations

import threading

from asd_daemon.hear.sources.computing_turns import ComputingTurns
from rig.waiting import PATIENT_S, wait_until


def test_who_is_farthest_behind_goes_first_and_none_beside_another() -> None:
    turns, order, inside = ComputingTurns(), [], []

    def compute(name: str, computed: int) -> None:
        with turns.turn(computed):
            inside.append(name)
            order.append((name, len(inside)))
            inside.remove(name)

    asked = [("far", 9), ("second", 1), ("first", 0), ("third", 1)]
    threads = [threading.Thread(target=compute, args=one) for one in asked]
    with turns.turn(0):
        for count, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda count=count: len(turns._waiting) == count, "it waits")  # type: ignore[misc]
    for thread in threads:
        thread.join(PATIENT_S)
    assert order == [("first", 1), ("second", 1), ("third", 1), ("far", 1)]


def test_turn_is_given_back_by_who_fails() -> None:
    turns = ComputingTurns()
    for _ in range(2):
        try:
            with turns.turn(0):
                raise ValueError("the simulator broke")
        except ValueError:
            continue
    with turns.turn(0):
        assert turns._is_taken
    assert not turns._is_taken
