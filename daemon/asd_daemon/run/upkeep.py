"""A running daemon deletes what it knows of a machine, takes over what another has learned, returns to the bundle before, says its log.

What people at the page may ask for and MQTT may not. Each is done in the service's thread, answered in words, and costs the other machines
no window.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

from asd_daemon.errors import AsdError, UsageError
from asd_daemon.judge.scoring.installed_bundles import CURRENT, roll_back
from asd_daemon.run.choosing import Choosing
from asd_daemon.run.machine_rules import MachineRules
from asd_daemon.run.monitor_assembly import MonitorAssembly
from asd_daemon.run.reloading import Reloading
from asd_daemon.run.service import Service
from asd_daemon.run.shared_bundle import enrolled_folder
from asd_daemon.run.stores import Stores
from asd_daemon.settings.chosen import change_choices
from asd_daemon.settings.chosen_keys import SOURCE
from asd_daemon.settings.plan import Plan
from asd_daemon.settings.text_formats import checked_name
from asd_daemon.tell.commands import Answer, Command, CommandKind
from asd_daemon.tell.storage.machine_locks import is_heard
from asd_daemon.watch.log import recent_log

_LOG = logging.getLogger(__name__)


class Upkeep:
    """Of one process; from the service's thread.

    Args:
        folder: the state folder.
        service: runs the monitors.
        reloading: knows what runs.
        choosing: takes away a machine that was added.
        assembly: makes judges.
        stores: what is kept.
    """

    def __init__(
        self,
        folder: Path,
        service: Service,
        reloading: Reloading,
        choosing: Choosing,
        assembly: MonitorAssembly,
        stores: Stores,
    ) -> None:
        self._folder, self._service, self._reloading, self._choosing = folder, service, reloading, choosing
        self._assembly, self._stores = assembly, stores

    def do(self, machine: str | None, command: Command, file: BinaryIO | None) -> Answer:
        """Do what is asked for; what was done, or why not.

        Args:
            machine: whose; None for the daemon's.
            command: an upkeep.
            file: what was handed over with it.
        """
        try:
            if command.command is CommandKind.LOG:
                return Answer(True, recent_log())
            if command.command is CommandKind.ROLLBACK:
                text = self._roll_back()
            elif machine is None:
                raise UsageError(f"{command.command.value}: say of which machine")
            elif command.command is CommandKind.RESTORE:
                text = self._restore(machine, file)
            else:
                text = self._forget(machine)
        except (AsdError, ValueError) as e:
            _LOG.warning("%s refused: %s", command.command.value, e)
            return Answer(False, str(e))
        except OSError as e:
            return Answer(False, f"{self._folder}: can't be written: {e.strerror or e}")
        _LOG.info("%s", text)
        return Answer(True, text)

    def _forget(self, machine: str) -> str:
        plan = self._plan
        if machine in plan.machines:
            if machine in plan.configured.machines or plan.chosen.find(machine, SOURCE) is None:
                where = plan.file or "the command line"
                raise UsageError(f"{machine} is configured: delete it in {where} and reload first")
            answer = self._choosing.choose(machine, Command(command=CommandKind.UNSET, key=SOURCE))
            if not answer.ok:
                raise UsageError(answer.text)
        elif is_heard(self._folder, machine):
            raise UsageError(f"{machine}: another daemon hears it at this moment; stop it first")
        self._stores.scores.flush()  # else what waits to be written would be there again
        from asd_daemon.learn.machine_names import remove_machine

        remove_machine(self._folder, machine)
        change_choices(self._folder, machine, lambda chosen: chosen.without_machine(machine))
        return f"{machine} is forgotten: what was learned, its scores, alerts and sound are deleted"

    def _restore(self, machine: str, file: BinaryIO | None) -> str:
        checked_name(machine)
        if file is None:
            raise UsageError("restore: no file was handed over")
        plan = self._plan
        if machine not in plan.machines and is_heard(self._folder, machine):
            raise UsageError(f"{machine}: another daemon hears it at this moment; give it the file")
        from asd_daemon.learn.machine_archive import import_machine

        record = import_machine(enrolled_folder(), Path("the file"), machine, replaces=True, opened=file)
        for monitor in self._service.monitors:
            if monitor.machine == machine:
                opens = self._assembly.judge_opener(plan, machine, monitor.callbacks)
                monitor.change_rules(MachineRules(open_judge=opens))
        heard = "judged so from its next window on" if machine in plan.machines else "known, and heard by nobody yet"
        return f"{machine}: learned on {record.created[:10]} from {record.windows} windows, {heard}"

    def _roll_back(self) -> str:
        plan = self._plan
        root = plan.bundle.parent if plan.bundle.name == CURRENT else self._folder / "bundles"
        done = roll_back(root, plan.settings.bundle_key, trusts_own=plan.trusts_own)
        restart = "it is used from the next start on: sudo systemctl restart 'asd-daemon*'"
        if plan.trusts_own:
            restart = "it is taken on within seconds"  # by the rollout, which sees it
        return f"{done.bundle.name} {done.bundle.version} is current again; {restart}"

    @property
    def _plan(self) -> Plan:
        return self._reloading.plan
