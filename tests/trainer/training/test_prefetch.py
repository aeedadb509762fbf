"""Batches made ahead are those that would have been made in time."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from asd_daemon.errors import SettingsError
from asd_trainer.training.prefetch import PrefetchedTask
from rig.waiting import PATIENT_S

pytestmark = pytest.mark.torch


class Numbered:
    """A task whose batch is the number of its step; notes who asked for which."""

    name, steps, seed, fingerprint = "numbered", 6, 3, "data"

    def __init__(self, fails_at: int | None = None) -> None:
        self.model: nn.Module = nn.Identity()
        self.made: list[tuple[int, int, int]] = []
        self.threads: set[str] = set()
        self.came = threading.Event()
        self._fails_at = fails_at

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        self.made.append((step, rank, world))
        self.threads.add(threading.current_thread().name)
        self.came.set()
        if step == self._fails_at:
            raise SettingsError(f"no batch at step {step}")
        return {"step": torch.tensor(step)}


def test_batches_are_the_tasks_own_each_made_once_and_ahead_by_a_worker() -> None:
    task = Numbered()
    ahead = PrefetchedTask(task)
    assert (ahead.model, ahead.name, ahead.steps, ahead.seed, ahead.fingerprint) == (
        task.model,
        "numbered",
        6,
        3,
        "data",
    )
    given = [int(ahead.batch(step, 0, 1)["step"]) for step in range(6)]
    assert given == [0, 1, 2, 3, 4, 5]
    assert sorted(task.made) == [(step, 0, 1) for step in range(6)]  # nothing beyond the last step
    assert len(task.threads) == 2


def test_next_batch_is_begun_before_it_is_asked_for() -> None:
    task = Numbered()
    PrefetchedTask(task).batch(2, 1, 2)
    task.came.clear()
    assert {(2, 1, 2)} <= set(task.made)
    assert (3, 1, 2) in task.made or task.came.wait(PATIENT_S)


def test_going_on_elsewhere_makes_that_batch_and_not_the_one_that_was_made_ahead() -> None:
    ahead = PrefetchedTask(Numbered())
    ahead.batch(0, 0, 1)
    assert int(ahead.batch(4, 0, 1)["step"]) == 4
    assert int(ahead.batch(5, 0, 1)["step"]) == 5


def test_failure_is_raised_at_its_own_step_and_not_before() -> None:
    ahead = PrefetchedTask(Numbered(fails_at=2))
    assert int(ahead.batch(1, 0, 1)["step"]) == 1
    with pytest.raises(SettingsError, match="no batch at step 2"):
        ahead.batch(2, 0, 1)
