"""The running daemon: what is started before what, what it waits for, and what is stopped first.

start   health reporters → stores → publisher (connects in the background) → monitors (sound first, the judge opens while the first
        window fills) → READY
stop    STOPPING → sources → judges → state `stopped` → health reporters → publisher → stores; within 5 s, whatever hangs
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asd_daemon.errors import AsdError
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.status_line import status_line
from asd_daemon.run.stop_signals import StopSignals
from asd_daemon.run.stores import Stores
from asd_daemon.run.thread_failures import ThreadFailures
from asd_daemon.tell.commands import Command
from asd_daemon.tell.publisher import Publisher
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.report import HealthReporter, MachineReport
from asd_daemon.watch.systemd import SystemdNotifier

_LOG = logging.getLogger(__name__)
_MONITORS_STOP_S, _PUBLISHER_STOP_S, _STORES_STOP_S = 2.2, 2.0, 0.5
_SIGNAL_POLL_S = 0.5  # a signal that the kernel gives to another thread does not wake the main one


@dataclass(frozen=True)
class _Ended:
    machine: str


@dataclass(frozen=True)
class _Stop:
    why: str


class Service:
    """Runs monitors until they end, a signal comes, or something can't go on."""

    def __init__(
        self,
        publisher: Publisher,
        notifier: SystemdNotifier,
        make_monitors: Callable[[MonitorCallbacks], Sequence[MachineMonitor]],
        health_reporters: Sequence[HealthReporter] = (),
        stores: Stores | None = None,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._abandon, self._is_stopping = abandon, False
        # put() of a SimpleQueue may be called from a signal handler, the set() of an Event may not
        self._events: queue.SimpleQueue[_Ended | _Stop | Exception] = queue.SimpleQueue()
        self._publisher, self._notifier, self._reporters, self._stores = publisher, notifier, health_reporters, stores
        callbacks = MonitorCallbacks(
            self._on_running,
            self._on_progress,
            lambda m: self._events.put(_Ended(m)),
            self._on_failure,
            self._on_unjudged,
        )
        self._unjudged: dict[str, Exception] = {}
        self.monitors = list(make_monitors(callbacks))
        self._running: set[str] = set()
        self._started_monitors: list[MachineMonitor] = []
        self._started_reporters: list[HealthReporter] = []
        self._is_publishing = False

    @property
    def counts(self) -> Counts:
        """What all monitors have counted."""
        return sum((monitor.counters.now for monitor in self.monitors), Counts())

    def command(self, machine: str, command: Command) -> None:
        """Pass on what people ask a machine's alarm for; from any thread."""
        for monitor in self.monitors:
            if monitor.machine == machine:
                monitor.command(command)

    def reports(self) -> dict[str, MachineReport]:
        """How each machine and the way to it are now; from any thread."""
        return {s.machine: MachineReport(s.state, s.counters.now, s.source_health) for s in self.monitors}

    def stop(self, why: str = "asked to") -> None:
        """End `run` soon; from any thread."""
        self._events.put(_Stop(why))

    def fail(self, error: Exception) -> None:
        """End `run` with an error; from any thread."""
        self._events.put(error)

    def run(self) -> None:
        """Listen until the end; in the main thread SIGTERM and SIGINT end it too.

        Raises:
            AsdError: something can't start or go on.
        """
        with StopSignals(self.stop), ThreadFailures(self.fail):
            try:
                self._start_all()
                self._wait()
            finally:
                self._stop_all()
            self._sum_up()

    def _start_all(self) -> None:
        for reporter in self._reporters:
            reporter.start(self.reports)
            self._started_reporters.append(reporter)
        if self._stores is not None:
            self._stores.start()
        self._publisher.start(self.fail)
        self._is_publishing = True
        for monitor in self.monitors:
            self._notifier.expect(monitor.machine)
            monitor.start()
            self._started_monitors.append(monitor)
        for monitor in self.monitors:
            monitor.listen()

    def _wait(self) -> None:
        """Wait for the end of all monitors, a request to stop, or a failure, which is raised."""
        left = {monitor.machine for monitor in self.monitors}
        while left:
            try:
                item = self._events.get(timeout=_SIGNAL_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, _Stop):
                _LOG.info("stopping: %s", item.why)
                return
            if isinstance(item, Exception):
                raise item
            left.discard(item.machine)
            self._notifier.forget(item.machine)
        _LOG.info("all sound is played and judged")

    def _stop_all(self) -> None:
        """Stop what was started; where the start failed on the way, that is not all."""
        self._is_stopping = True
        self._abandon()
        self._notifier.stopping()
        deadline_s = time.monotonic() + _MONITORS_STOP_S
        for monitor in self._started_monitors:
            monitor.stop()
        for monitor in self._started_monitors:
            if not monitor.join(max(0.0, deadline_s - time.monotonic())):
                _LOG.error("%s: does not stop in %g s; left behind", monitor.machine, _MONITORS_STOP_S)
            monitor.publish_stopped()
        for reporter in self._started_reporters:
            reporter.close()
        if self._is_publishing:
            self._publisher.close(_PUBLISHER_STOP_S)
        if self._stores is not None:
            self._stores.close(_STORES_STOP_S)

    def _sum_up(self) -> None:
        counts = self.counts
        _LOG.info(
            "stopped: %d windows heard, %d scored, %d unusable, %d dropped, %d alerts, %d losses of sound",
            *(counts.heard, counts.scored, counts.unusable, counts.dropped, counts.opened, counts.losses),
        )

    def _on_running(self, machine: str) -> None:
        self._running.add(machine)
        if len(self._unjudged) == len(self.monitors):  # which ends the daemon
            return
        if len(self._running) == len(self.monitors):
            self._notifier.ready(self._status())
            _LOG.info("listening to %s", ", ".join(monitor.machine for monitor in self.monitors))

    def _on_progress(self, machine: str) -> None:
        self._notifier.status(self._status())
        self._notifier.progressed(machine)
        for reporter in self._reporters:
            reporter.progressed()

    def _on_failure(self, machine: str, error: Exception) -> None:
        if not isinstance(error, AsdError | BrokenPipeError):
            _LOG.error("%s: a thread failed", machine, exc_info=error)
        self._events.put(error)

    def _on_unjudged(self, machine: str, error: Exception | None) -> None:
        """One machine that can't be judged is told; the daemon ends only where none can be."""
        if self._is_stopping:
            return
        if error is None:
            self._unjudged.pop(machine, None)
            return
        self._unjudged[machine] = error
        if len(self._unjudged) == len(self.monitors):
            self._events.put(error)
        else:
            _LOG.error("%s: can't be judged: %s", machine, error)

    def _status(self) -> str:
        return status_line(self.monitors, self.counts)
