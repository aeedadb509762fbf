"""The running daemon: its stations, whoever tells people, systemd and signals; the order of starting and of stopping.

start   teller (connects in the background) → stations (sound first, the judge opens while the first window fills) → READY
stop    STOPPING → sources → judges → state `stopped` → teller → stores; within 5 s, whatever hangs
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import FrameType, TracebackType

from asd_daemon.errors import AsdError
from asd_daemon.run.station import Station, StationCallbacks
from asd_daemon.run.stores import Stores
from asd_daemon.tell.commands import Command
from asd_daemon.tell.publisher import Publisher
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.report import MachineReport, Observer
from asd_daemon.watch.systemd import SystemdNotifier

_LOG = logging.getLogger(__name__)
_STATIONS_STOP_S, _TELLER_STOP_S, _STORES_STOP_S = 2.2, 2.0, 0.5
_SIGNAL_POLL_S = 0.5  # a signal that the kernel gives to another thread does not wake the main one


@dataclass(frozen=True)
class _Ended:
    machine: str


@dataclass(frozen=True)
class _Stop:
    why: str


class Service:
    """Runs stations until they end, a signal comes, or something can't go on."""

    def __init__(
        self,
        publisher: Publisher,
        notifier: SystemdNotifier,
        make_stations: Callable[[StationCallbacks], Sequence[Station]],
        observers: Sequence[Observer] = (),
        stores: Stores | None = None,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._abandon, self._is_stopping = abandon, False
        # put() of a SimpleQueue may be called from a signal handler, the set() of an Event may not
        self._news: queue.SimpleQueue[_Ended | _Stop | Exception] = queue.SimpleQueue()
        self._publisher, self._notifier, self._attendants, self._stores = publisher, notifier, observers, stores
        news = StationCallbacks(
            self._on_running,
            self._on_progress,
            lambda m: self._news.put(_Ended(m)),
            self._on_failure,
            self._on_unjudged,
        )
        self._unjudged: dict[str, Exception] = {}
        self.stations = list(make_stations(news))
        self._running: set[str] = set()

    @property
    def counts(self) -> Counts:
        """What all stations have counted."""
        return sum((station.counters.now for station in self.stations), Counts())

    def command(self, machine: str, command: Command) -> None:
        """Pass on what people ask a machine's alarm for; from any thread."""
        for station in self.stations:
            if station.machine == machine:
                station.command(command)

    def reports(self) -> dict[str, MachineReport]:
        """How each machine and the way to it are now; from any thread."""
        return {s.machine: MachineReport(s.state, s.counters.now, s.source_health) for s in self.stations}

    def stop(self, why: str = "asked to") -> None:
        """End `run` soon; from any thread."""
        self._news.put(_Stop(why))

    def fail(self, error: Exception) -> None:
        """End `run` with an error; from any thread."""
        self._news.put(error)

    def run(self) -> None:
        """Listen until the end; in the main thread SIGTERM and SIGINT end it too.

        Raises:
            AsdError: something can't start or go on.
        """
        with _Signals(self.stop), _Deaths(self.fail):
            for attendant in self._attendants:
                attendant.start(self.reports)
            if self._stores is not None:
                self._stores.start()
            self._publisher.start(self.fail)
            for station in self.stations:
                self._notifier.expect(station.machine)
                station.start()
            try:
                self._wait()
            finally:
                self._stop_all()
            self._sum_up()

    def _wait(self) -> None:
        """Wait for the end of all stations, a wish to stop, or a failure, which is raised."""
        left = {station.machine for station in self.stations}
        while left:
            try:
                item = self._news.get(timeout=_SIGNAL_POLL_S)
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
        self._is_stopping = True
        self._abandon()
        self._notifier.stopping()
        deadline_s = time.monotonic() + _STATIONS_STOP_S
        for station in self.stations:
            station.stop()
        for station in self.stations:
            if not station.join(max(0.0, deadline_s - time.monotonic())):
                _LOG.error("%s: does not stop in %g s; left behind", station.machine, _STATIONS_STOP_S)
            station.say_stopped()
        for attendant in self._attendants:
            attendant.close()
        self._publisher.close(_TELLER_STOP_S)
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
        if len(self._unjudged) == len(self.stations):  # which ends the daemon
            return
        if len(self._running) == len(self.stations):
            self._notifier.ready(self._status())
            _LOG.info("listening to %s", ", ".join(station.machine for station in self.stations))

    def _on_progress(self, machine: str) -> None:
        self._notifier.status(self._status())
        self._notifier.progressed(machine)
        for attendant in self._attendants:
            attendant.progressed()

    def _on_failure(self, machine: str, error: Exception) -> None:
        if not isinstance(error, AsdError | BrokenPipeError):
            _LOG.error("%s: a thread failed", machine, exc_info=error)
        self._news.put(error)

    def _on_unjudged(self, machine: str, error: Exception | None) -> None:
        """One machine that can't be judged is told; the daemon ends only where none can be."""
        if self._is_stopping:
            return
        if error is None:
            self._unjudged.pop(machine, None)
            return
        self._unjudged[machine] = error
        if len(self._unjudged) == len(self.stations):
            self._news.put(error)
        else:
            _LOG.error("%s: can't be judged: %s", machine, error)

    def _status(self) -> str:
        """One line: each machine with its state and score."""
        parts = []
        for station in self.stations:
            state = station.state
            score = "" if state.score is None else f" (score {state.score:.4g} of {state.threshold:.4g})"
            reason = "" if state.reason is None else f": {state.reason}"
            parts.append(f"{station.machine} {state.condition.value}{reason}{score}")
        return f"{'; '.join(parts)}; {self.counts.heard} windows heard"


class _Deaths(AbstractContextManager["_Deaths"]):
    """A thread that dies of an error nobody caught ends the daemon with it, as long as the context lasts.

    A connection, say, whose thread is gone would look alive for ever. What is started again is well; alerts wait on disk.
    """

    def __init__(self, fail: Callable[[Exception], None]) -> None:
        self._fail, self._before = fail, threading.excepthook

    def __enter__(self) -> _Deaths:
        threading.excepthook = self._handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._before

    def _handle(self, death: threading.ExceptHookArgs) -> None:
        if isinstance(death.exc_value, Exception):
            name = death.thread.name if death.thread else "unknown"
            _LOG.error("thread %s died", name, exc_info=death.exc_value)
            self._fail(death.exc_value)


class _Signals(AbstractContextManager["_Signals"]):
    """SIGTERM and SIGINT ask to stop, as long as the context lasts; what was there before is put back."""

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop = stop
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> _Signals:
        is_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
        for number in (signal.SIGTERM, signal.SIGINT) if is_main else ():
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave back

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._stop(signal.Signals(number).name)
