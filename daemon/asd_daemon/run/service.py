"""The running daemon: what is started before what, what it waits for, and what is stopped first.

start   health reporters → stores → publisher (connects in the background) → monitors (sound first, the judge opens while the first
        window fills) → READY
reload  what is new in the configuration; monitors that stay are not touched (`reloading.py`)
stop    STOPPING → sources → judges → state `stopped` → health reporters → publisher → stores; within 5 s, whatever hangs
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from asd_daemon.errors import AsdError
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.running_monitors import MakeMonitors, RunningMonitors
from asd_daemon.run.status_line import status_line
from asd_daemon.run.stop_signals import StopSignals
from asd_daemon.run.stores import Stores
from asd_daemon.run.thread_failures import ThreadFailures
from asd_daemon.tell.commands import AskedCommand
from asd_daemon.tell.publisher import Publisher
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.report import HealthReporter, MachineReport
from asd_daemon.watch.systemd import SystemdNotifier
from asd_daemon.wording import counted

_LOG = logging.getLogger(__name__)
_PUBLISHER_STOP_S, _STORES_STOP_S = 2.0, 0.5  # the monitors have had 2.2
_ALIVE_EVERY_S = 5.0
_SIGNAL_POLL_S = 0.5  # a signal that the kernel gives to another thread does not wake the main one


@dataclass(frozen=True)
class _Ended:
    machine: str


@dataclass(frozen=True)
class _Stop:
    why: str


@dataclass(frozen=True)
class _Work:
    work: Callable[[], None]


class Service:
    """Runs monitors until they end, a signal comes, or something can't go on.

    Args:
        publisher: who tells people.
        notifier: tells systemd.
        make_monitors: makes the monitors, given whom they tell how it goes.
        health_reporters: who reports on the daemon itself.
        stores: what is kept.
        abandon: called when the service stops: nobody waits any more for what takes long.
    """

    def __init__(
        self,
        publisher: Publisher,
        notifier: SystemdNotifier,
        make_monitors: MakeMonitors,
        health_reporters: Sequence[HealthReporter] = (),
        stores: Stores | None = None,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._abandon = abandon
        self._is_ready = self._is_stopping = self._was_exchanged = False
        # put() of a SimpleQueue may be called from a signal handler, the set() of an Event may not
        self._events: queue.SimpleQueue[_Ended | _Stop | _Work | Exception] = queue.SimpleQueue()
        self._publisher, self._notifier, self._reporters, self._stores = publisher, notifier, health_reporters, stores
        self.on_tick: Callable[[], None] = lambda: None
        """Called by `run` again and again, some times a second."""
        self.on_reload: Callable[[], None] = lambda: _LOG.warning("there is no configuration to be read anew")
        """Called, from `run`'s thread, when the configuration shall be read anew."""
        callbacks = MonitorCallbacks(
            self._on_running,
            self._on_progress,
            lambda m: self._events.put(_Ended(m)),
            self._on_failure,
            self._on_unjudged,
            self._on_change,
        )
        self._unjudged: dict[str, Exception] = {}
        self._shown_s = float("-inf")
        self._running: set[str] = set()
        self._monitors = RunningMonitors(make_monitors, callbacks)
        self._left = {monitor.machine for monitor in self.monitors}  # who has more to play
        self._started_reporters: list[HealthReporter] = []
        self._is_publishing = False

    @property
    def monitors(self) -> list[MachineMonitor]:
        """Those that there are now."""
        return self._monitors.all

    @property
    def counts(self) -> Counts:
        """What all monitors have counted, those that are gone too."""
        return self._monitors.counts

    def command(self, machine: str, asked: AskedCommand) -> None:
        """Pass on what people ask of a machine; from any thread."""
        for monitor in self.monitors:
            if monitor.machine == machine:
                monitor.command(asked)

    def reports(self) -> dict[str, MachineReport]:
        """How each machine and the way to it are now; from any thread."""
        return {
            m.machine: MachineReport(m.state, m.counters.now, m.source_health, m.above, m.learning)
            for m in self.monitors
        }

    def stop(self, why: str = "asked to") -> None:
        """End `run` soon; from any thread."""
        self._events.put(_Stop(why))

    def reload(self) -> None:
        """Have the configuration read anew soon; from any thread, or a signal handler."""
        self._events.put(_Work(self._reload))

    def do(self, work: Callable[[], None]) -> None:
        """Have something done soon by `run`'s thread, between whatever else it does; from any thread."""
        self._events.put(_Work(work))

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
        self.exchange_reporters((), self._reporters)
        if self._stores is not None:
            self._stores.start()
        self._publisher.start(self.fail)
        self._is_publishing = True
        for monitor in self.monitors:
            self._notifier.expect(monitor.machine)
        self._monitors.start()
        if not self.monitors:
            self._is_ready = True
            self._notifier.ready(self._status())
            _LOG.info("no machine is configured; learn one at the page (`asd-daemon web`), or configure it")

    def _show_life(self) -> None:
        """Without a machine there is no progress by which the watchdog, or `status`, sees that the daemon lives."""
        if time.monotonic() - self._shown_s >= _ALIVE_EVERY_S:
            self._shown_s = time.monotonic()
            self._on_progress("")

    def exchange_monitors(self, gone: Collection[str], coming: Collection[str], make_monitors: MakeMonitors) -> None:
        """Stop some monitors and start others; those that stay are not touched. From `run`'s thread.

        Args:
            gone: machines whose monitors stop.
            coming: machines whose monitors are made.
            make_monitors: makes them, after the others have stopped.
        """
        self._was_exchanged = True
        for machine in gone:
            self._running.discard(machine)
            self._unjudged.pop(machine, None)
        for machine in set(gone) - set(coming):
            self._notifier.forget(machine)
        for machine in coming:
            self._notifier.expect(machine)
        self._left = (self._left - set(gone)) | set(coming)
        self._monitors.exchange(gone, make_monitors)

    def exchange_reporters(self, gone: Sequence[HealthReporter], coming: Sequence[HealthReporter]) -> None:
        """Close some health reporters and start others. From `run`'s thread.

        Raises:
            CannotStartError: one of them can't do what it was asked for.
        """
        for reporter in gone:
            self._started_reporters.remove(reporter)
            reporter.close()
        for reporter in coming:
            reporter.start(self.reports)
            self._started_reporters.append(reporter)

    def _wait(self) -> None:
        """Wait for the end of all monitors, a request to stop, or a failure, which is raised."""
        while self._left or not self.monitors:  # without a machine it waits for one
            self.on_tick()
            if not self.monitors:
                self._show_life()
            try:
                item = self._events.get(timeout=_SIGNAL_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, _Stop):
                _LOG.info("stopping: %s", item.why)
                return
            if isinstance(item, Exception):
                raise item
            if isinstance(item, _Work):
                item.work()
                continue
            if item.machine in self._monitors.ended:  # else another one has taken its place meanwhile
                self._left.discard(item.machine)
                self._notifier.forget(item.machine)
        _LOG.info("all sound is played and judged")

    def _reload(self) -> None:
        if not self._is_ready:  # systemd waits for the start still
            self.on_reload()
            return
        self._notifier.reloading()
        try:
            self.on_reload()
        finally:
            self._notifier.ready(self._status())

    def _stop_all(self) -> None:
        """Stop what was started; where the start failed on the way, that is not all."""
        self._is_stopping = True
        self._abandon()
        self._notifier.stopping()
        self._monitors.stop()
        for reporter in self._started_reporters:
            reporter.close()
        if self._is_publishing:
            self._publisher.close(_PUBLISHER_STOP_S)
        if self._stores is not None:
            self._stores.close(_STORES_STOP_S)

    def _sum_up(self) -> None:
        counts = self.counts
        _LOG.info(
            "stopped: %s heard, %d scored, %d unusable, %d dropped, %s, %s of sound",
            *(counted(counts.heard, "window"), counts.scored, counts.unusable, counts.dropped),
            *(counted(counts.opened, "alert"), counted(counts.losses, "loss", "losses")),
        )

    def _on_running(self, machine: str) -> None:
        self._running.add(machine)
        if self._can_judge_nothing:  # which ends the daemon
            return
        if len(self._running) == len(self.monitors):
            self._is_ready = True
            self._notifier.ready(self._status())
            _LOG.info("listening to %s", ", ".join(monitor.machine for monitor in self.monitors))

    def _on_progress(self, machine: str) -> None:
        self._on_change(machine)
        self._notifier.progressed(machine)

    def _on_change(self, _machine: str) -> None:
        self._notifier.status(self._status())
        for reporter in tuple(self._started_reporters):
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
        if self._can_judge_nothing:
            self._events.put(error)
        else:
            _LOG.error("%s: can't be judged: %s", machine, error)

    @property
    def _can_judge_nothing(self) -> bool:
        """Whether no machine can be judged; what another configuration has led to is told, and ends nothing."""
        return not self._was_exchanged and len(self._unjudged) == len(self.monitors)

    def _status(self) -> str:
        return status_line(self.monitors, self.counts)
