"""A bundle that was fetched: tried beside the present one, installed when the window and the machines allow it, or refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from asd_daemon.errors import BundleError, UntriedBundleError
from asd_daemon.judge.scoring.installed_bundles import install_bundle
from asd_daemon.rollout.box import Box, RolloutRules
from asd_daemon.rollout.current import version_folder
from asd_daemon.rollout.fetching import CANDIDATE, FOLDER, candidate_bundle, drop_candidate
from asd_daemon.rollout.ledger import Ledger
from asd_daemon.rollout.pauses import Pauses
from asd_daemon.rollout.returning import LEAST_WINDOWS, trial_verdict
from asd_daemon.rollout.rollout_state import Named, Phase, Switch, TrialRecord
from asd_daemon.rollout.trial import Trial
from asd_daemon.wording import times_words

_LOG = logging.getLogger(__name__)
_MOST_FAILURES = 3
_MOST_STEP_S = 60.0  # between two looks; more is a machine that slept


class Candidate:
    """Of one box; from the rollout's thread.

    Args:
        root: where the box keeps its bundles.
        ledger: what is known.
        box: the daemon.
        trial: has it judge beside the present one.
        now: UTC time.
        clock_s: seconds that never go back.
    """

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        box: Box,
        trial: Trial,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._again = Pauses(clock_s)
        self._root, self._ledger, self._box, self._trial, self._now = root, ledger, box, trial, now

    def close(self) -> None:
        """End what runs; it goes on at the next start."""
        self._trial.stop()

    def drop(self, *, keeps_files: bool = False) -> None:
        """Want it no more.

        Args:
            keeps_files: whether another has taken its place on the disk already.
        """
        self._trial.stop()
        self._again.reset()
        state = self._ledger.state
        state.candidate = state.trial = None
        state.is_tried = False
        self._ledger.save()
        if not keeps_files:
            drop_candidate(self._root)

    def refuse(self, named: Named, why: str) -> None:
        """Want it no more, and say why."""
        self._ledger.refuse(named, Phase.REFUSED, why)
        self.drop()

    def go_on(self, rules: RolloutRules, passed_s: float) -> bool:
        """Do what is next with it; whether it was installed.

        Args:
            rules: what the configuration says.
            passed_s: seconds since the last time.
        """
        candidate = self._ledger.state.candidate
        if candidate is None or not self._again.is_over:
            return False
        try:
            if self._ledger.state.is_tried or rules.trial_s == 0:
                self._trial.stop()
                return self._install(rules, candidate)
            self._try(rules, candidate, min(passed_s, _MOST_STEP_S))
        except UntriedBundleError as e:
            self._again.later()
            self._ledger.tell(
                Phase.WAITING, f"for a box that is less busy: {e}; tried {times_words(self._again.times)}"
            )
        except BundleError as e:
            if (self._root / FOLDER / CANDIDATE / candidate.id).is_dir():
                self.refuse(candidate, str(e))
            else:  # swept by a fetch that came to nothing
                self.drop()
                self._ledger.tell(Phase.IDLE, "it is fetched again")
        return False

    def _try(self, rules: RolloutRules, candidate: Named, passed_s: float) -> None:
        """Have it judge beside the present one, and decide when that is over."""
        state = self._ledger.state
        if (state.trial is None or not self._trial.is_running) and not self._begin(rules, candidate):
            return
        record = state.trial
        if record is None:
            return
        self._ledger.tell(Phase.TRIAL, f"beside the present one for {rules.trial_words}")
        record.seconds += passed_s
        opened, kills = record.opened, record.kills
        self._trial.collect(record)
        if record.opened > opened:  # what decides is on the disk at once; of the rest a kill costs half a minute
            self._ledger.save()
        if record.kills > kills:
            self._again.later()
            self._ledger.tell(Phase.TRIAL, f"{self._trial.trouble}; it goes on when the box is less busy")
            return
        if record.failures >= _MOST_FAILURES:
            self.refuse(candidate, f"judging beside the present one failed: {self._trial.trouble}")
        elif record.seconds >= rules.trial_s and record.windows >= LEAST_WINDOWS:
            verdict = trial_verdict(record, self._box.judged(), self._box.alerts(record.began_at))
            if verdict.is_worse:
                self.refuse(candidate, f"worse than the present one: {verdict.words}")
                return
            self._trial.stop()
            _LOG.info("rollout: %s has passed its trial: %s", candidate.words, verdict.words)
            state.is_tried, state.trial = True, None
            self._ledger.save()
        else:
            self._ledger.save_now_and_then()

    def _begin(self, rules: RolloutRules, candidate: Named) -> bool:
        """Begin the trial, or go on with it; whether there is something to try."""
        state = self._ledger.state
        bundle = candidate_bundle(self._root, candidate.id, rules.job.key)
        objection = self._box.objection(bundle)
        if objection is not None:
            self.refuse(candidate, objection)
            return False
        machines = self._box.judged(bundle)
        if not machines:
            _LOG.info(
                "rollout: no machine here is judged by the bundle, or each is learned anew with it: there is nothing to try"
            )
            state.is_tried = True
            self._ledger.save()
            return False
        if state.trial is None:
            state.trial = TrialRecord(id=candidate.id, began_at=self._now())
        self._trial.start(bundle.path, rules.job.key, machines)
        return True

    def _install(self, rules: RolloutRules, candidate: Named) -> bool:
        """Make it current, when the window and the machines allow it; whether it is."""
        if rules.window.times and not rules.window.cover(self._now()):
            self._ledger.tell(Phase.WAITING, f"for the window {rules.window_words}")
            return False
        busy = self._box.busy()
        if busy is not None:
            self._ledger.tell(Phase.WAITING, busy)
            return False
        bundle = candidate_bundle(self._root, candidate.id, rules.job.key)
        objection = self._box.objection(bundle)
        if objection is not None:
            self.refuse(candidate, objection)
            return False
        state = self._ledger.state
        earlier = state.switch
        state.switch = Switch(named=candidate, before=version_folder(self._root), at=self._now())
        self._ledger.save()
        try:
            done = install_bundle(bundle.path, self._root, rules.job.key)
        except BundleError:
            state.switch = earlier
            self._ledger.save()
            raise
        self._again.reset()
        state.switch = state.switch.model_copy(update={"folder": done.bundle.path.name})
        state.candidate, state.is_tried = None, False
        self._ledger.tell(Phase.INSTALLED)
        self._ledger.save()
        drop_candidate(self._root)
        return True
