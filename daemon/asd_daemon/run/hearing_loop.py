"""One machine's hearing thread: its source → windows → the queue of the judging thread.

It never waits for a slow judge when the sound is live: the oldest window is dropped and counted.
"""

from __future__ import annotations

import logging
import threading

from asd_daemon.errors import SourceError
from asd_daemon.hear.source import (
    Block,
    DeadMicrophone,
    SoundReturned,
    Source,
    SourceLost,
    UnreadableRecording,
)
from asd_daemon.hear.windows.dead_microphone import with_dead_microphone_events
from asd_daemon.hear.windows.window import Window, WindowCutter
from asd_daemon.run.judging_queue import JudgingQueue
from asd_daemon.watch.counters import Counters
from asd_daemon.watch.live_sound import LiveSound

_LOG = logging.getLogger(__name__)


class HearingLoop:
    """Listens to one source until it ends."""

    def __init__(
        self,
        machine: str,
        source: Source,
        cutter: WindowCutter,
        queue: JudgingQueue,
        counters: Counters,
        live_sound: LiveSound | None = None,
    ) -> None:
        self._live_sound = live_sound
        self._machine, self._source, self._cutter, self._queue, self._counters = (
            machine,
            source,
            cutter,
            queue,
            counters,
        )
        self._first_event = threading.Event()  # the source has spoken, or never will
        self._has_spoken = False
        self._is_lost = False

    def wait_for_first_event(self) -> bool:
        """Wait until the source has said anything, be it that there is no sound; False where it ended without a word."""
        self._first_event.wait()
        return self._has_spoken

    def run(self) -> None:
        """The thread.

        Raises:
            SourceError: the source can't start; names the machine.
        """
        try:
            events = self._source.events()
            for event in with_dead_microphone_events(events) if self._source.live else events:
                gap = getattr(event, "gap_samples", 0)
                if gap:
                    self._counters.add(gaps=1, gap_samples=gap)
                if isinstance(event, SourceLost) and not self._is_lost:
                    self._counters.add(losses=1)
                if self._is_lost and isinstance(event, Block):
                    self._pass_on(SoundReturned())
                self._is_lost = isinstance(event, SourceLost)
                if isinstance(event, Block) and self._live_sound is not None:
                    self._live_sound.hear(self._machine, event.samples, event.far)
                self._has_spoken = True
                self._first_event.set()
                for item in self._cutter.feed(event):
                    self._pass_on(item)
                    del item  # a window of 0.6 MB, which would be held until the next one
        except SourceError as e:
            raise SourceError(f"{self._machine}: {e}") from e
        finally:
            self._first_event.set()
            self._queue.end()

    def _pass_on(self, item: Window | SourceLost | SoundReturned | UnreadableRecording | DeadMicrophone) -> None:
        if isinstance(item, Window):
            self._counters.add(heard=1)
        dropped = self._queue.put(item, may_wait=not self._source.live)
        if dropped:
            self._counters.add(dropped=dropped)
            _LOG.warning("%s: judging can't keep up, a window is dropped", self._machine)
