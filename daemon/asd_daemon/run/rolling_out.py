"""The running daemon as a rollout of bundles knows it: what judges, what is busy, and how another bundle is taken on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from asd_daemon.errors import AsdError, EnrolmentError
from asd_daemon.judge.scoring.installed_bundles import CURRENT
from asd_daemon.rollout.box import RolloutRules
from asd_daemon.rollout.fetching import FetchJob
from asd_daemon.rollout.installing import depends, learned_anew, objection_to
from asd_daemon.rollout.returning import JudgedMachine, PastAlert, past_alerts
from asd_daemon.rollout.rollout import Rollout
from asd_daemon.rollout.trial import Trial
from asd_daemon.run.judge_tap import JudgeTap
from asd_daemon.run.machine_rules import MachineRules
from asd_daemon.run.monitor_assembly import MonitorAssembly
from asd_daemon.run.rules import alarm_rule
from asd_daemon.run.service import Service
from asd_daemon.run.shared_bundle import SharedBundle, enrolled_folder
from asd_daemon.run.stores import history_file
from asd_daemon.run.trial_judging import MODULE, job_of
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.plan import CommandLineOptions, Plan
from asd_daemon.tell.notifications.quiet_hours import QuietHours, parse_quiet_time

if TYPE_CHECKING:
    from asd_daemon.judge.bundle.bundle import Bundle
    from asd_daemon.judge.scoring.scorer import Scorer


def make_rollout(
    plan: Callable[[], Plan],
    options: CommandLineOptions,
    service: Service,
    assembly: MonitorAssembly,
    shared_bundle: SharedBundle,
    tap: JudgeTap,
) -> Rollout:
    """What looks after the bundles of the box, where the configuration asks for it.

    Args:
        plan: what runs.
        options: the command line; a bundle that is given there stays.
        service: runs the monitors.
        assembly: makes judges.
        shared_bundle: what all machines are judged with.
        tap: hears what is judged.
    """
    root = state_folder() / "bundles"
    trial = Trial(MODULE, lambda *asked: job_of(plan(), *asked), lambda name: alarm_rule(plan().machines[name].alarm))
    tap.hear = trial.hear
    box = DaemonBox(root, plan, service, assembly, shared_bundle, tap)
    return Rollout(root, lambda: None if options.bundle is not None else rules_of(plan(), root), box, trial)


def rules_of(plan: Plan, root: Path) -> RolloutRules | None:
    """What the configuration says; None where it names no server."""
    wanted, key = plan.settings.bundle, plan.settings.bundle_key
    if wanted.url is None or key is None:
        return None
    times = () if wanted.window is None else (parse_quiet_time(wanted.window),)
    zone = None if wanted.timezone is None else ZoneInfo(wanted.timezone)
    job = FetchJob(
        url=wanted.url,
        channel=wanted.channel,
        ring=wanted.ring,
        node=plan.settings.node,
        key=key,
        root=root,
        ca_file=wanted.ca_file,
        insecure=wanted.insecure,
    )
    return RolloutRules(job, wanted.check_s, wanted.trial_s, wanted.trial, QuietHours(times, zone), wanted.window)


class DaemonBox:
    """As `make_rollout`; asked from the rollout's thread."""

    def __init__(
        self,
        root: Path,
        plan: Callable[[], Plan],
        service: Service,
        assembly: MonitorAssembly,
        shared_bundle: SharedBundle,
        tap: JudgeTap,
    ) -> None:
        self._root, self._plan, self._service = root, plan, service
        self._assembly, self._shared, self._tap = assembly, shared_bundle, tap

    def loaded(self) -> Path | None:
        """The folder of the bundle that judges."""
        return self._shared.folder

    def words(self) -> str | None:
        """Its name and version."""
        return self._shared.words

    def take_on(self) -> None:
        """Judge with the current bundle from the next window on.

        Raises:
            AsdError: it can't be used; the present one judges on.
        """
        from asd_daemon.judge.bundle.own_bundle import default_bundle

        link, plan = self._root / CURRENT, self._plan()
        names = [name for name in plan.machines if self._depends(plan, name)]
        self._shared.exchange(link if link.exists() else default_bundle(), lambda: self._scorers(plan, names))
        self._tap.failures.clear()
        self._service.do(lambda: self._reopen(names))

    def _scorers(self, plan: Plan, names: list[str]) -> list[Scorer]:
        """What will judge these machines, opened before it is needed; who must be learned anew does so by itself."""
        found = []
        for name in names:
            machine = plan.machines[name]
            try:
                scoring = plan.scoring_of(name)
                found.append(self._shared.scorer(plan.model_of(name), machine.alarm, machine.hop_s, scoring))
            except EnrolmentError:
                continue
        return found

    def _reopen(self, names: list[str]) -> None:
        """Have machines judged by what is loaded now; in the service's thread."""
        self._service.exchange_monitors((), (), lambda _: [])  # from now on no failing judge ends the daemon
        plan = self._plan()
        for monitor in self._service.monitors:
            if monitor.machine in names and monitor.machine in plan.machines:
                opens = self._assembly.judge_opener(plan, monitor.machine, monitor.callbacks)
                monitor.change_rules(MachineRules(open_judge=opens))

    def objection(self, new: Bundle) -> str | None:
        """Why a bundle can't take the present one's place."""
        plan = self._plan()
        models = {plan.model_of(name): plan.scoring_of(name) for name in plan.machines}
        try:
            return objection_to(new, self._shared.bundle(), enrolled_folder(), models)
        except AsdError as e:
            return str(e)

    def _depends(self, plan: Plan, name: str) -> bool:
        return depends(self._shared.bundle(), enrolled_folder(), plan.model_of(name), plan.scoring_of(name))

    def judged(self, new: Bundle | None = None) -> list[JudgedMachine]:
        """The machines that the present bundle judges; those alone that a new one could judge without learning them anew."""
        plan = self._plan()
        return [
            JudgedMachine(name, machine.alarm.false_alarms_per_week, machine.hop_s)
            for name, machine in plan.machines.items()
            if self._depends(plan, name)
            and (new is None or not learned_anew(new, enrolled_folder(), plan.model_of(name), plan.scoring_of(name)))
        ]

    def busy(self) -> str | None:
        """Why no bundle may be exchanged just now."""
        for machine, report in self._service.reports().items():
            if report.state.event_id is not None:
                return f"for the end of an alert of {machine}"
            if report.learning is not None and report.learning.is_learning:
                return f"until {machine} is learned"
        return None

    def failing(self) -> str | None:
        """What is wrong with judging by the present bundle."""
        return "; ".join(self._tap.failures.values()) or None

    def alerts(self, since: datetime) -> list[PastAlert]:
        """Alerts that were open at or after a UTC time."""
        return past_alerts(history_file(state_folder()), since)
