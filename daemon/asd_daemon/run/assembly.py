"""From a plan to a daemon that can run: which machines, which bundle, which source, whom to tell.

Owns how the parts are put together. Nothing is opened here that the service does not own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Source
from asd_daemon.hear.windows.fitness import WindowFitness
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.health_reporting import make_health_reporters
from asd_daemon.run.judging_turns import JudgingTurns
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.publishing import make_publisher
from asd_daemon.run.rules import alarm_rule, fitness_limits
from asd_daemon.run.service import Service
from asd_daemon.run.shared_bundle import SharedBundle, enrolled_folder
from asd_daemon.run.source_memories import source_memory_of
from asd_daemon.run.stores import Stores
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.plan import Plan
from asd_daemon.watch.report import DeliveryReport
from asd_daemon.watch.systemd import SystemdNotifier
from asd_daemon.waveform import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from asd_daemon.learn.online_enrolment import LearningJudge


def judge_opener(plan: Plan, name: str, shared_bundle: SharedBundle) -> Callable[[], Judge]:
    """What opens the scorer of a machine."""
    machine = plan.machines[name]
    return lambda: shared_bundle.scorer(plan.model_of(name), machine.alarm, machine.hop_s)


def make_learning_judge(plan: Plan, name: str, shared_bundle: SharedBundle, source: Source) -> LearningJudge:
    """A machine's judge that can learn it while it listens."""
    from asd_daemon.learn.online_enrolment import EnrolmentTarget, LearningJudge

    hop_samples = round(plan.machines[name].hop_s * SAMPLE_RATE_HZ)
    target = EnrolmentTarget(plan.model_of(name), str(plan.sources[name]), enrolled_folder(), hop_samples)
    return LearningJudge(
        target, judge_opener(plan, name, shared_bundle), shared_bundle.bundle, lambda: source.source_health
    )


def make_service(plan: Plan, *, wait_for_device: bool) -> Service:
    """The daemon, ready to run.

    Args:
        plan: what shall run.
        wait_for_device: keep trying where a microphone or command isn't there at the start, or the broker refuses us, rather than fail.

    Raises:
        AsdError: something of it can't be made.
    """
    shared_bundle = SharedBundle(plan.bundle, plan.settings.bundle_key)
    stores = Stores(state_folder(), plan.settings.keep, list(plan.machines))
    publisher = make_publisher(plan, stores, wait_for_broker=wait_for_device)

    memories = {name: source_memory_of(name, plan.sources[name]) for name in plan.machines}
    learns = plan.settings.mqtt is not None and plan.settings.mqtt.enrolment

    def make_monitors(callbacks: MonitorCallbacks) -> list[MachineMonitor]:
        device_checks = {name: memory.check_device for name, memory in memories.items() if memory is not None}
        sources = open_sources(
            {name: plan.sources[name] for name in plan.machines}, wait=wait_for_device, device_checks=device_checks
        )
        learners = {
            name: make_learning_judge(plan, name, shared_bundle, sources[name]) for name in plan.machines if learns
        }
        turns = JudgingTurns()
        return [
            MachineMonitor(
                name,
                sources[name],
                learners[name].open if learns else judge_opener(plan, name, shared_bundle),
                publisher,
                callbacks,
                learner=learners.get(name),
                rule=alarm_rule(machine.alarm),
                records=stores.records(name),
                resumes=plan.sources[name].kind not in ("file", "folder"),
                fitness=WindowFitness(fitness_limits(machine.quality), memories[name]),
                hop_samples=round(machine.hop_s * SAMPLE_RATE_HZ),
                turns=turns,
            )
            for name, machine in plan.machines.items()
        ]

    def delivery_report() -> DeliveryReport:
        return DeliveryReport(publisher.broker_status, stores.store_report)

    service = Service(publisher, SystemdNotifier(), make_monitors, make_health_reporters(plan, delivery_report), stores)
    publisher.on_command = service.command
    return service
