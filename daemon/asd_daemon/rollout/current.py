"""The bundle that is current: taken on by the daemon whoever made it so, watched in its first hours, given up for the one before."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from asd_daemon.errors import AsdError, BundleError, UntriedBundleError
from asd_daemon.judge.bundle.own_bundle import default_bundle
from asd_daemon.judge.scoring.installed_bundles import CURRENT, roll_back
from asd_daemon.rollout.box import Box, RolloutRules
from asd_daemon.rollout.ledger import Ledger
from asd_daemon.rollout.pauses import Pauses
from asd_daemon.rollout.returning import WATCHED_S, jump
from asd_daemon.rollout.rollout_state import Phase, Switch
from asd_daemon.wording import times_words

_LOG = logging.getLogger(__name__)
_MOST_STEP_S = 60.0


def current_folder(root: Path) -> Path:
    """Where the bundle lies that is current; the program's own where none was installed."""
    link = root / CURRENT
    return link.resolve() if link.exists() else default_bundle().resolve()


def version_folder(root: Path) -> str | None:
    """The name of its version folder; None for the program's own."""
    return current_folder(root).name if (root / CURRENT).exists() else None


class Current:
    """Of one box; from the rollout's thread.

    Args:
        root: where the box keeps its bundles.
        ledger: what is known.
        box: the daemon.
        clock_s: seconds that never go back.
    """

    def __init__(self, root: Path, ledger: Ledger, box: Box, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._take_on_again, self._return_again = Pauses(clock_s), Pauses(clock_s)
        self._root, self._ledger, self._box = root, ledger, box
        self._awaited: Path | None = None
        self._said: str | None = None

    def settle(self) -> None:
        """After a kill: did the switch happen? After somebody's hand: is it current still?"""
        switch = self._ledger.state.switch
        if switch is None:
            return
        folder = current_folder(self._root)
        if switch.folder is None:  # the daemon was killed while it installed
            self._settle_unfinished(switch, folder)
        elif folder.name != switch.folder and switch.returns is not None:  # killed while it went back
            self._ledger.state.switch = None
            self._ledger.refuse(switch.named, Phase.RETURNED, switch.returns)
        elif folder.name != switch.folder:
            self._ledger.state.switch = None
            how = "it was made current by hand, or after a start at which the new one could not be used"
            what = "the program's own bundle" if folder == default_bundle().resolve() else folder.name
            self._ledger.refuse(switch.named, Phase.RETURNED, f"{what} is current: {how}")

    def _settle_unfinished(self, switch: Switch, folder: Path) -> None:
        state = self._ledger.state
        is_done = folder.name.endswith(f"-{switch.named.id[:12]}")
        state.switch = switch.model_copy(update={"folder": folder.name}) if is_done else None
        if is_done:
            state.candidate, state.is_tried = None, False
            self._ledger.tell(Phase.INSTALLED)
        self._ledger.save()

    def take_on(self, rules: RolloutRules | None) -> None:
        """Judge with what is current.

        Args:
            rules: what the configuration says; None: another daemon looks after the bundles.
        """
        loaded = self._box.loaded()
        folder = current_folder(self._root)
        if folder != self._awaited:
            self._awaited = folder
            self._take_on_again.reset()
        if loaded is None or loaded.resolve() == folder or not self._take_on_again.is_over:
            return
        is_new = rules is not None and self._ledger.state.switch is not None
        try:
            self._box.take_on()
        except UntriedBundleError as e:
            self._take_on_again.later()
            words = f"the one before it judges still: {e}; tried {times_words(self._take_on_again.times)}"
            if is_new:
                self._ledger.tell(Phase.INSTALLED, words, level=logging.WARNING)
            else:
                _LOG.warning("the current bundle is not taken on yet, %s", words)
        except AsdError as e:
            if rules is not None and self._ledger.state.switch is not None:
                self._return(rules, f"it can't be used: {e}")
            elif self._said != str(e):
                self._said = str(e)
                _LOG.error("the current bundle can't be taken on, the one before it judges: %s", e)
        else:
            if is_new and self._ledger.state.phase is Phase.INSTALLED:
                self._ledger.tell(Phase.INSTALLED)

    def watch(self, rules: RolloutRules, passed_s: float) -> None:
        """In the first hours after a switch: does it judge, and are there not too many alerts?

        Args:
            rules: what the configuration says.
            passed_s: seconds since the last time.
        """
        switch = self._ledger.state.switch
        if switch is not None and switch.returns is not None:
            self._go_back(rules, switch, switch.returns)
            return
        loaded = self._box.loaded()
        if switch is None or not switch.is_watched or loaded is None or loaded.name != switch.folder:
            return
        switch.seconds += min(passed_s, _MOST_STEP_S)
        failing = self._box.failing()
        if failing is not None:
            self._return(rules, f"judging fails: {failing}")
            return
        opened: dict[str, int] = {}
        for alert in self._box.alerts(switch.at):
            if alert.opened >= switch.at and not alert.is_normal:
                opened[alert.machine] = opened.get(alert.machine, 0) + 1
        why = jump(opened, self._box.judged(), switch.seconds / 3600)
        if why is not None:
            self._return(rules, why)
        elif switch.seconds >= WATCHED_S:
            switch.is_watched = False
            self._ledger.save()
            _LOG.info("rollout: %s has judged for %.0f h without trouble", switch.named.words, WATCHED_S / 3600)
        else:
            self._ledger.save_now_and_then()

    def _return(self, rules: RolloutRules, why: str) -> None:
        """Go back to the bundle before, and want this one no more."""
        switch = self._ledger.state.switch
        if switch is None:
            return
        switch.returns = why
        self._ledger.state.refuse(switch.named.id, why)
        self._ledger.save()
        self._go_back(rules, switch, why)

    def _go_back(self, rules: RolloutRules, switch: Switch, why: str) -> None:
        """Make the bundle before current; again and again, where the box is too busy to test it."""
        if not self._return_again.is_over:
            return
        try:
            roll_back(self._root, rules.job.key, trusts_own=True)
        except UntriedBundleError as e:
            self._return_again.later()
            tried = f"tried {times_words(self._return_again.times)}"
            self._ledger.tell(
                Phase.INSTALLED, f"it will be given up, {why}; the one before it, {e}; {tried}", level=logging.ERROR
            )
            return
        except BundleError as e:
            why = f"{why}; the bundle before it can't be used either: {e}"
        self._return_again.reset()
        self._ledger.state.switch = None
        self._ledger.refuse(switch.named, Phase.RETURNED, why)
        self.take_on(rules)
