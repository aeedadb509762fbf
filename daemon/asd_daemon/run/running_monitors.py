"""The monitors of a running daemon: started and stopped together, and exchanged while the others go on.

Owns which monitors there are and whose word still counts. What follows from their words is the service's business; all but the words
come from one thread, the service's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence

from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.watch.counters import Counts

_LOG = logging.getLogger(__name__)
STOP_S = 2.2

MakeMonitors = Callable[[MonitorCallbacks], Sequence[MachineMonitor]]


class RunningMonitors:
    """All monitors of a process.

    Args:
        make: makes the first ones.
        callbacks: whom those that are there tell how it goes; one that was replaced has no say any more.
    """

    def __init__(self, make: MakeMonitors, callbacks: MonitorCallbacks) -> None:
        self._callbacks = callbacks
        self._generation = 0
        self.ended: set[str] = set()
        """Machines of which all is played and judged."""
        self._current: dict[str, int] = {}
        self._started: list[MachineMonitor] = []
        self._gone_counts = Counts()
        self.all = self._made(make)

    @property
    def counts(self) -> Counts:
        """What all have counted, those that are gone too."""
        return sum((monitor.counters.now for monitor in self.all), self._gone_counts)

    def start(self, monitors: Sequence[MachineMonitor] | None = None) -> None:
        """Start some, or all: each opens its judge at once, and listens when all of them are started."""
        monitors = self.all if monitors is None else monitors
        for monitor in monitors:
            monitor.start()
            self._started.append(monitor)
        for monitor in monitors:
            monitor.listen()

    def exchange(self, gone: Collection[str], make: MakeMonitors) -> None:
        """Stop some, then make and start others; those that stay are not touched.

        Args:
            gone: machines whose monitors stop.
            make: makes the others, after these have stopped.
        """
        stopping = [monitor for monitor in self.all if monitor.machine in gone]
        for machine in gone:
            self._current.pop(machine, None)
        self.all = [monitor for monitor in self.all if monitor not in stopping]
        self._stop(stopping)
        self._gone_counts = sum((monitor.counters.now for monitor in stopping), self._gone_counts)
        self._started = [monitor for monitor in self._started if monitor not in stopping]
        coming = self._made(make)
        self.all = [*self.all, *coming]
        self.start(coming)

    def stop(self) -> None:
        """Stop those that were started, within `STOP_S`; whatever hangs is left behind."""
        self._stop(self._started)

    def _stop(self, monitors: Sequence[MachineMonitor]) -> None:
        deadline_s = time.monotonic() + STOP_S
        for monitor in monitors:
            monitor.stop()
        for monitor in monitors:
            if not monitor.join(max(0.0, deadline_s - time.monotonic())):
                _LOG.warning("%s: %s; not waited for", monitor.machine, monitor.what_keeps_it)
            with contextlib.suppress(
                BrokenPipeError
            ):  # nobody reads what is printed; the rest stops in order all the same
                monitor.publish_stopped()

    def _made(self, make: MakeMonitors) -> list[MachineMonitor]:
        self._generation += 1
        number, told = self._generation, self._callbacks

        def if_current(heed: Callable[..., None]) -> Callable[..., None]:
            return lambda machine, *more: heed(machine, *more) if self._current.get(machine) == number else None

        def note_end(machine: str) -> None:
            self.ended.add(machine)
            told.ended(machine)

        heeded: list[Callable[..., None]] = [told.running, told.progressed, note_end, told.failed]
        heeded += [told.unjudged, told.changed]
        made = list(make(MonitorCallbacks(*map(if_current, heeded))))
        self._current |= {monitor.machine: number for monitor in made}
        self.ended -= self._current.keys() & {monitor.machine for monitor in made}
        return made
