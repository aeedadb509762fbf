"""Batches made while the step before is trained on, so that the model does not wait for them.

Owns one worker thread. What a batch holds follows from its step alone, so it makes no difference who makes it, and when.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor, nn

from asd_trainer.training.loop import Task


class PrefetchedTask:
    """A task whose next batch is made ahead; everything else is the task's own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._made: dict[tuple[int, int, int], Future[dict[str, Tensor]]] = {}

    @property
    def model(self) -> nn.Module:
        """The task's."""
        return self._task.model

    @property
    def name(self) -> str:
        """The task's."""
        return self._task.name

    @property
    def steps(self) -> int:
        """The task's."""
        return self._task.steps

    @property
    def seed(self) -> int:
        """The task's."""
        return self._task.seed

    @property
    def fingerprint(self) -> str:
        """The task's."""
        return self._task.fingerprint

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The task's batch of a step; that of the step after it is begun. Raises what making this one raised."""
        wanted, following = (step, rank, world), (step + 1, rank, world)
        made = self._made.pop(wanted, None)
        self._made = {} if step + 1 >= self.steps else {following: self._worker.submit(self._task.batch, *following)}
        return self._task.batch(*wanted) if made is None else made.result()
