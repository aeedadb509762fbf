"""A running daemon takes a setting that somebody has chosen: checked, taken on without a window lost, kept, and answered in words."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asd_daemon.errors import AsdError, SettingsError, UsageError
from asd_daemon.run.reloading import Reloading
from asd_daemon.settings.chosen import Chosen, only_writer, read_chosen, write_chosen
from asd_daemon.settings.chosen_keys import MOST_ADDED, SOURCE, Choice, check_key, checked_choice, path_of
from asd_daemon.settings.plan import CommandLineOptions, Plan, make_plan
from asd_daemon.settings.value_words import value_at, value_text
from asd_daemon.tell.commands import Answer, Command, CommandKind

_LOG = logging.getLogger(__name__)


class Choosing:
    """Of one process; from the service's thread.

    Args:
        reloading: takes on another plan.
        options: the command line.
        folder: the state folder.
        release: lets go of microphones that somebody tries, before a machine is heard by one.
    """

    def __init__(
        self,
        reloading: Reloading,
        options: CommandLineOptions,
        folder: Path,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._reloading, self._options, self._folder, self._release = reloading, options, folder, release

    def choose(self, machine: str | None, command: Command) -> Answer:
        """Do what a command `set` or `unset` asks for; what was done, or why not."""
        key, before = command.key or "", self._reloading.plan
        path = path_of(machine, key)
        try:
            with only_writer(self._folder):
                kept = read_chosen(self._folder)
                after, plan = changed_choices(
                    kept, machine, command, lambda chosen: self._plan(before, chosen, machine, key)
                )
                if key == SOURCE:
                    self._release()
                self._reloading.change_to(plan, f"{path} was chosen")
                self._keep(kept, after, before, path)
        except AsdError as e:
            _LOG.warning("not chosen: %s", e)
            return Answer(False, str(e))
        except OSError as e:
            _LOG.error("%s: can't be written: %s", self._folder, e)
            return Answer(False, f"{self._folder}: can't be written, so nothing is changed: {e.strerror or e}")
        return Answer(True, done_words(machine, key, plan))

    def _keep(self, kept: Chosen, after: Chosen, before: Plan, path: str) -> None:
        """Write it down; what can't be kept does not hold either.

        Raises:
            OSError: it can't.
        """
        try:
            write_chosen(kept, after)
        except OSError:
            self._reloading.change_to(before, f"{path} can't be kept")
            raise

    def _plan(self, before: Plan, chosen: Chosen, machine: str | None, key: str) -> Plan:
        """What would run; the configuration is the one that is known, for an edited one waits for its reload.

        Raises:
            AsdError: it can't be.
        """
        plan = make_plan(self._options, configured=before.configured, chosen=chosen)
        may_add = key == SOURCE and not self._options.machines
        if machine is not None and not may_add and machine not in before.machines and machine not in plan.machines:
            heard = ", ".join(before.machines) or "none"
            alone = " and was started for these alone (--machine)" if self._options.machines else ""
            raise UsageError(f"{path_of(machine, key)}: this daemon does not hear {machine}; it hears {heard}{alone}")
        return plan


def changed_choices(
    kept: Chosen, machine: str | None, command: Command, plan_of: Callable[[Chosen], Plan]
) -> tuple[Chosen, Plan]:
    """The choices after a command, and the plan with them.

    Args:
        kept: the choices before.
        machine: whose setting; None: of all.
        command: `set` or `unset`.
        plan_of: makes the plan.

    Raises:
        AsdError: it may not be, or does not fit; names key and value.
    """
    key = command.key or ""
    if command.command is CommandKind.UNSET:
        if kept.find(machine, key) is None:
            check_key(machine, key)
            raise UsageError(f"{path_of(machine, key)}: nothing was chosen for it")
        after = kept.without(machine, key)
        return after, plan_of(after)
    choice = checked_choice(machine, key, _plain(command.value))
    after = kept.with_choice(choice)
    added = sum(one.key == SOURCE for one in after.choices)
    if choice.key == SOURCE and added > MOST_ADDED:
        raise UsageError(f"{choice.path}: {MOST_ADDED} machines are added already; configure further ones")
    plan = plan_of(after)
    if choice not in plan.laid.held:
        raise SettingsError(_why_not(choice, plan))
    return after, plan


def done_words(machine: str | None, key: str, plan: Plan) -> str:
    """What holds now, for people."""
    path = path_of(machine, key)
    if key == SOURCE and machine is not None:
        if machine not in plan.machines:
            return f"{machine} is heard no more; what was learned and kept of it stays"
        return f"{machine} is added, heard by {plan.sources[machine]}"
    choice, configured = plan.chosen.find(machine, key), value_at(plan.configured, machine, key)
    if choice is None:
        return f"{path} is {value_text(configured)} again, as configured"
    return f"{path} is {value_text(choice.value)} now; the configuration says {value_text(configured)}"


def _plain(value: Any) -> Any:
    """A value as the file will have it; JSON's numbers and YAML's are the same."""
    return json.loads(json.dumps(value))


def _why_not(choice: Choice, plan: Plan) -> str:
    """Why a choice does not hold."""
    said = (*plan.laid.troubles, *plan.laid.notes)
    places = [choice.path, *([] if choice.machine is None else [f"machines.{choice.machine}: "])]
    why = next((line for place in places for line in said if place in line), f"{choice.path}: can't be used")
    return why.removesuffix("; it is ignored").removeprefix(f"{plan.chosen.file}: ")
