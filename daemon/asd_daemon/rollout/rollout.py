"""The rollout of one box: asks now and then, has fetched what is new, tries it, installs it in its window, watches it, goes back.

    idle → fetching → trial → waiting → installed → …         refused: it stays out       returned: the bundle before judges again

One thread that looks once a second; what takes long is done by processes (`fetcher`, `trial`), and nothing of it is in the way of a
window. Where several daemons share a state folder one of them does it, the others take on what is current. What is known is written
before it is acted by, so that a kill at any moment costs a step at most. Owns the order of things.
"""

from __future__ import annotations

import fcntl
import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from asd_daemon.rollout.account import Account
from asd_daemon.rollout.asking import Asking
from asd_daemon.rollout.box import Box, RolloutRules
from asd_daemon.rollout.candidate import Candidate
from asd_daemon.rollout.current import Current
from asd_daemon.rollout.fetching import FOLDER
from asd_daemon.rollout.ledger import Ledger
from asd_daemon.rollout.rollout_state import read_state, report_of, state_file
from asd_daemon.rollout.trial import Trial

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S, _IDLE_EVERY_S, _AFTER_DEFECT_S = 1.0, 5.0, 60.0


class Rollout:
    """Of one box; a reporter of the daemon.

    Args:
        root: where it keeps its bundles.
        rules: what the configuration says now; None: nothing is asked for.
        box: the daemon.
        trial: has new bundles judge beside the present one.
        clock_s: seconds that never go back.
        now: UTC time.
        chance: from 0 to below 1.
    """

    def __init__(
        self,
        root: Path,
        rules: Callable[[], RolloutRules | None],
        box: Box,
        trial: Trial,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._root, self._rules, self._box, self._clock_s = root, rules, box, clock_s
        self._ledger = Ledger(state_file(root), clock_s)
        self._candidate = Candidate(root, self._ledger, box, trial, now, clock_s)
        self._asking = Asking(self._ledger, self._candidate, clock_s, chance, now)
        self._current = Current(root, self._ledger, box, clock_s)
        self._account = Account(box, clock_s)
        self._looked_s = clock_s()
        self._lock: TextIO | None = None
        self._condition, self._is_closed = threading.Condition(), False
        self._thread: threading.Thread | None = None

    def start(self, reports: object = None) -> None:
        """Begin, where the configuration asks for it."""
        del reports  # it asks the daemon itself
        self.progressed()

    def progressed(self) -> None:
        """A window went by; the configuration may ask for it by now."""
        with self._condition:
            if self._thread is None and not self._is_closed and self._rules() is not None:
                self._thread = threading.Thread(target=self._run, name="rollout", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End within a second or so; what runs goes on at the next start."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._asking.close()
        self._candidate.close()
        if self._thread is not None:
            self._thread.join(1.0)

    def report(self) -> dict[str, Any] | None:
        """What is told of it; None where nothing is asked for."""
        if self._rules() is None:
            return None
        state = self._ledger.state if self._lock is not None else read_state(self._ledger.file)
        return report_of(state, self._box.words())

    def account(self) -> dict[str, Any] | None:
        """How it stands, for the page; None where nothing is asked for."""
        return None if self._rules() is None else self._account.facts

    def _run(self) -> None:
        while not self._is_closed:
            try:
                pause_s = self.look()
            except OSError as e:
                _LOG.error("rollout: %s can't be written: %s", self._ledger.file.parent, e.strerror or e)
                pause_s = _AFTER_DEFECT_S
            except Exception:  # noqa: BLE001  # the top of a thread: no defect here may end the daemon
                _LOG.exception("the rollout of bundles could not go on")
                pause_s = _AFTER_DEFECT_S
            with self._condition:
                if not self._is_closed:
                    self._condition.wait(pause_s)

    def look(self) -> float:
        """Do what is to be done now; seconds until there may be more. Called by its thread, and by tests."""
        rules = self._rules()
        now_s = self._clock_s()
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        if rules is None or self._box.loaded() is None:
            return _IDLE_EVERY_S
        if not self._owns():
            self._current.take_on(None)
            self._account.update(rules, read_state(self._ledger.file), None)
            return _IDLE_EVERY_S
        self._current.settle()
        self._current.take_on(rules)
        self._current.watch(rules, passed_s)
        self._asking.hear(rules)
        if not self._asking.is_busy and self._candidate.go_on(rules, passed_s):
            self._current.take_on(rules)
        self._asking.ask(rules)
        self._account.update(rules, self._ledger.state, self._asking)
        return _LOOK_EVERY_S

    def _owns(self) -> bool:
        """Whether this daemon looks after the bundles of the box; it keeps that until it ends."""
        if self._lock is None:
            (self._root / FOLDER).mkdir(parents=True, exist_ok=True)
            lock = (self._root / FOLDER / ".owner").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._ledger.read()
            self._lock = lock
        return True
