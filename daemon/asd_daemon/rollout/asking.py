"""Asks the server now and then, by chance a little sooner or later, after failures less and less often, and hears what was fetched."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from asd_daemon.rollout.box import RolloutRules
from asd_daemon.rollout.candidate import Candidate
from asd_daemon.rollout.fetcher import Fetcher
from asd_daemon.rollout.ledger import Ledger
from asd_daemon.rollout.rollout_state import Named, Phase, Untried
from asd_daemon.wording import times_words

_LOG = logging.getLogger(__name__)
_FIRST_S = 600.0  # 200 boxes that have power again do not ask at once
_SOONEST_S = 60.0
_UNTRIED_S = 300.0


class Asking:
    """Of one box; from the rollout's thread.

    Args:
        ledger: what is known.
        candidate: what was fetched.
        clock_s: seconds that never go back.
        chance: from 0 to below 1.
        now: UTC time.
    """

    def __init__(
        self,
        ledger: Ledger,
        candidate: Candidate,
        clock_s: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger, self._candidate, self._clock_s, self._chance = ledger, candidate, clock_s, chance
        self._now = now
        self._fetcher = Fetcher()
        self._next_s: float | None = None
        self.failures = 0
        """Questions in a row that were not answered."""
        self.progress: float | None = None
        """Share of a bundle that is here; None while nothing of one comes."""
        self._offering: Named | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a process fetches."""
        return self._fetcher.is_busy

    def close(self) -> None:
        """End what runs; it goes on at the next start."""
        self._fetcher.close()

    def ask(self, rules: RolloutRules) -> None:
        """Ask when it is time."""
        if self._next_s is None:
            first_s = self._chance() * min(rules.check_s, _FIRST_S)
            self._next_s = self._clock_s() + max(first_s, self._pause_left_s(rules))
        if self._fetcher.is_busy or self._clock_s() < self._next_s:
            return
        state = self._ledger.state
        skip = (*state.refused, *([state.candidate.id] if state.candidate else []))
        self.progress = None
        self._fetcher.start(rules.job.model_copy(update={"skip": skip, "highest": state.serial}), self._hear)

    def _pause_left_s(self, rules: RolloutRules) -> float:
        """Of a pause that was begun before the daemon started; none where the clock was set back since."""
        untried = self._ledger.state.untried
        left_s = 0.0 if untried is None else (untried.until - self._now()).total_seconds()
        return left_s if left_s <= 1.5 * rules.check_s else 0.0

    def _hear(self, words: dict[str, Any]) -> None:
        """What the process says while it is at it, from another thread."""
        if "progress" in words:
            self.progress = words["progress"]["here_bytes"] / max(1, words["progress"]["bytes"])
        if "offered" in words:
            self._offering = Named.model_validate(words["offered"])

    def hear(self, rules: RolloutRules) -> None:
        """Take up what was fetched, if a process has ended."""
        state = self._ledger.state
        result = self._fetcher.result()
        if result is None:
            offering = self._offering
            if offering is None or offering.id in state.refused:  # it may have been given up while the process runs
                return
            if self.progress is not None and self._fetcher.is_busy and state.candidate is None:
                state.offered = offering
                self._ledger.tell(Phase.FETCHING)
            return
        self.progress = None
        if result["state"] == "failed":
            self.failures += 1
            pause_s = min(rules.check_s, min(_SOONEST_S, rules.check_s) * 2.0 ** min(self.failures - 1, 20))
            self._next_s = self._clock_s() + pause_s * (0.5 + self._chance())
            _LOG.warning("rollout: %s", result["reason"])
            if state.phase in (Phase.IDLE, Phase.FETCHING):
                self._ledger.tell(Phase.IDLE, result["reason"])
            return
        self.failures = 0
        self._next_s = self._clock_s() + rules.check_s * (0.8 + 0.4 * self._chance())
        state.serial, state.checked_at = max(state.serial, result["serial"]), self._now()
        named = Named(id=result["id"], name=result["name"], version=result["version"])
        if state.candidate is not None and state.candidate.id == named.id:
            self._ledger.save()
            return
        if state.candidate is not None:  # something else is offered by now
            self._candidate.drop(keeps_files=result["state"] in ("ready", "untried"))
        self._take_up(rules, result, named)

    def _take_up(self, rules: RolloutRules, result: dict[str, Any], named: Named) -> None:
        state = self._ledger.state
        found = "skipped" if named.id in state.refused else result["state"]  # it was given up while the process ran
        was_offered = state.offered is not None and state.offered.id == named.id
        state.offered = named
        if found == "untried":
            self._put_off(rules, result["reason"], named)
            return
        state.untried = None
        if found == "ready":
            state.candidate, state.is_tried, state.trial = named, rules.trial_s == 0, None
            fetched, reused = (result[key] / 1e6 for key in ("fetched_bytes", "reused_bytes"))
            _LOG.info("rollout: %s is fetched, %.1f MB; %.1f MB were here", named.words, fetched, reused)
        elif found == "refused":
            self._candidate.refuse(named, result["reason"])
        elif found == "current":
            self._ledger.tell(Phase.INSTALLED if state.switch else Phase.IDLE)
        elif found == "waits":
            self._ledger.tell(Phase.IDLE, result["reason"])
        elif not was_offered or state.phase is Phase.FETCHING:
            self._ledger.tell(Phase.REFUSED, state.refused.get(named.id))
        self._ledger.save()

    def _put_off(self, rules: RolloutRules, why: str, named: Named) -> None:
        """What was fetched could not be tested: try again, less and less often."""
        state = self._ledger.state
        times = state.untried.times + 1 if state.untried is not None and state.untried.id == named.id else 1
        pause_s = min(rules.check_s, _UNTRIED_S * 2.0 ** min(times - 1, 20)) * (0.5 + self._chance())
        self._next_s = self._clock_s() + pause_s
        state.untried = Untried(id=named.id, times=times, until=self._now() + timedelta(seconds=pause_s))
        reason = f"{why}; tried {times_words(times)}, again after {state.untried.until:%Y-%m-%dT%H:%M:%SZ}"
        self._ledger.tell(Phase.UNTRIED, reason, level=logging.WARNING)
        self._ledger.save()
