"""What waits for a machine's judging thread: windows up to a limit, with events of the source and commands in their order.

A live source never waits: the oldest window is dropped for the newest, and whoever puts it in is told to count it. Nothing else is ever
dropped.
"""

from __future__ import annotations

import threading
from collections import deque

from asd_daemon.hear.source import DeadMicrophone, SoundReturned, SourceLost, UnreadableRecording
from asd_daemon.hear.windows.window import Window
from asd_daemon.run.machine_rules import MachineRules
from asd_daemon.tell.commands import AskedCommand

QueueItem = Window | SourceLost | SoundReturned | UnreadableRecording | DeadMicrophone | AskedCommand | MachineRules


class JudgingQueue:
    """What waits to be handled, in order; put in by the hearing thread, taken by the judging one."""

    def __init__(self, limit: int = 6) -> None:
        self._limit = limit
        self._items: deque[QueueItem] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more shall be judged."""
        return self._stopped

    def put(self, item: QueueItem, *, may_wait: bool) -> int:
        """Add an item; how many windows were dropped for it. Waits for room where it may."""
        with self._changed:
            if may_wait:
                self._changed.wait_for(lambda: self._stopped or self._windows() < self._limit)
            if self._stopped:
                return int(isinstance(item, Window))
            dropped = 0
            if isinstance(item, Window) and self._windows() >= self._limit:
                self._items.remove(next(i for i in self._items if isinstance(i, Window)))
                dropped = 1
            if isinstance(item, SourceLost) and self._items and isinstance(self._items[-1], SourceLost):
                self._items.pop()
            self._items.append(item)
            self._changed.notify_all()
        return dropped

    def get(self) -> QueueItem | None:
        """The oldest item, waiting for one; None after the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._stopped)
            if self._stopped or not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Nothing more comes; what is there is still taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> int:
        """Nothing more is taken; how many windows were left."""
        with self._changed:
            self._stopped = True
            left = self._windows()
            self._items.clear()
            self._changed.notify_all()
        return left

    def _windows(self) -> int:
        return sum(isinstance(item, Window) for item in self._items)
