"""Two microphones on two devices: the machine's is heard, and what the far one heard meanwhile is given beside it.

The near device alone says when there is sound; it is held back for two blocks, a second, so that the far one's can come. A far one that
is lost, late or not in step yet costs nothing but itself.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from asd_daemon.errors import AsdError
from asd_daemon.hear.source import Block, Source, SourceEvent, SourceHealth, SourceLost, begin_early
from asd_daemon.hear.sources.far_alignment import FarAlignment

_LOG = logging.getLogger(__name__)
_MOST_WAITING = 60  # half a minute
_HELD_BACK = 2  # blocks of half a second


class TwoDevices:
    """A source of two.

    Args:
        name: of the machine, for the log.
        near: the machine's microphone.
        far: the other one.
    """

    live = True

    def __init__(self, name: str, near: Source, far: Source) -> None:
        self._name, self._near, self._far = name, near, far
        self._waiting: queue.Queue[SourceEvent] = queue.Queue()
        self._alignment = FarAlignment(name)
        self._held: deque[tuple[int, Block]] = deque()  # near blocks, each with the number of its first sample
        self._thread = threading.Thread(target=self._listen, name=f"far-{name}", daemon=True)

    @property
    def source_health(self) -> SourceHealth:
        """How the near device has done: the machine is heard by it."""
        return self._near.source_health

    def begin(self) -> None:
        """Have both record before anybody listens."""
        begin_early(self._near)
        begin_early(self._far)

    def events(self) -> Iterator[SourceEvent]:
        """What the near device says, with the far one's sound in its blocks.

        Raises:
            SourceError: the near device can't start, and nobody told it to wait.
        """
        self._thread.start()
        try:
            for event in self._near.events():
                self._take_far()
                if isinstance(event, Block):
                    self._held.append((self._alignment.hear_near(event.samples, event.gap_samples), event))
                    yield from self._given(_HELD_BACK)
                else:
                    yield from self._given(0)
                    yield event
            yield from self._given(0)
        finally:
            self._far.close()

    def _given(self, left: int) -> Iterator[Block]:
        """Blocks that were held back, but for so many."""
        while len(self._held) > left:
            first, block = self._held.popleft()
            yield replace(block, far=self._alignment.meanwhile(first, block.samples.shape[0]))

    def close(self) -> None:
        """Listen no more."""
        self._near.close()
        self._far.close()

    def _take_far(self) -> None:
        """Take in what the far device has said until now."""
        while True:
            try:
                event = self._waiting.get_nowait()
            except queue.Empty:
                return
            if isinstance(event, Block):
                self._alignment.hear_far(event.samples, event.gap_samples)
            elif isinstance(event, SourceLost):
                self._alignment.lose_far()

    def _listen(self) -> None:
        """The far device's thread."""
        try:
            for event in self._far.events():
                if self._waiting.qsize() < _MOST_WAITING:
                    self._waiting.put(event)
                if isinstance(event, SourceLost):
                    _LOG.warning("%s: the far microphone is lost: %s", self._name, event.reason)
        except AsdError as e:
            _LOG.warning("%s: the far microphone can't be heard: %s", self._name, e)
            self._waiting.put(SourceLost(str(e), 0.0))
