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
from asd_daemon.run.rules import alarm_rule, fitness_limits, threshold_rule
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
    from asd_daemon.tell.publisher import Publisher


def judge_opener(
    plan: Plan, name: str, shared_bundle: SharedBundle, callbacks: MonitorCallbacks, *, is_taught: bool = False
) -> Callable[[], Judge]:
    """What opens the scorer of a machine, or learns it anew from what was kept, or tries again.

    Args:
        plan: what shall run.
        name: the machine's.
        shared_bundle: the bundle.
        callbacks: who is told of a machine that can't be judged.
        is_taught: whether the machine can be learned while it is listened to: then there is hope as long as the daemon runs.
    """
    from asd_daemon.learn.recovering_judge import RecoveringJudge

    machine, model = plan.machines[name], plan.model_of(name)
    judge = RecoveringJudge(
        name,
        lambda: shared_bundle.scorer(model, machine.alarm, machine.hop_s),
        lambda told: shared_bundle.relearn(model, told),
        (lambda _: None) if is_taught else (lambda error: callbacks.unjudged(name, error)),
        waits_for_lesson=is_taught,
    )
    return judge.open


def make_learning_judge(
    plan: Plan, name: str, shared_bundle: SharedBundle, source: Source, callbacks: MonitorCallbacks
) -> LearningJudge:
    """A machine's judge that can learn it while it listens."""
    from asd_daemon.learn.online_enrolment import EnrolmentTarget, LearningJudge

    target = EnrolmentTarget(
        plan.model_of(name),
        str(plan.sources[name]),
        enrolled_folder(),
        round(plan.machines[name].hop_s * SAMPLE_RATE_HZ),
        keeps_sound=plan.settings.keep.keeps_enrolment_sound,
    )
    known = judge_opener(plan, name, shared_bundle, callbacks, is_taught=True)
    return LearningJudge(target, known, shared_bundle.bundle, lambda: source.source_health)


def _monitors(
    plan: Plan,
    shared_bundle: SharedBundle,
    publisher: Publisher,
    stores: Stores,
    callbacks: MonitorCallbacks,
    *,
    waits: bool,
) -> list[MachineMonitor]:
    """A monitor for each machine, with its source and its judge."""
    memories = {name: source_memory_of(name, plan.sources[name]) for name in plan.machines}
    learns = plan.settings.mqtt is not None and plan.settings.mqtt.enrolment
    device_checks = {name: memory.check_device for name, memory in memories.items() if memory is not None}
    specs = {name: plan.sources[name] for name in plan.machines}
    sources = open_sources(specs, wait=waits, device_checks=device_checks)
    learners = {
        name: make_learning_judge(plan, name, shared_bundle, sources[name], callbacks)
        for name in plan.machines
        if learns
    }
    turns = JudgingTurns()
    return [
        MachineMonitor(
            name,
            sources[name],
            learners[name].open if learns else judge_opener(plan, name, shared_bundle, callbacks),
            publisher,
            callbacks,
            learner=learners.get(name),
            rule=alarm_rule(machine.alarm),
            threshold=threshold_rule(machine),
            records=stores.records(name),
            resumes=plan.goes_on_with(name),
            fitness=WindowFitness(fitness_limits(machine.quality), memories[name]),
            hop_samples=round(machine.hop_s * SAMPLE_RATE_HZ),
            turns=turns,
        )
        for name, machine in plan.machines.items()
    ]


def make_service(plan: Plan, *, wait_for_device: bool) -> Service:
    """The daemon, ready to run.

    Args:
        plan: what shall run.
        wait_for_device: keep trying where a microphone or command isn't there at the start, or the broker refuses us, rather than fail.

    Raises:
        AsdError: something of it can't be made.
    """
    keeps_sound = plan.settings.keep.keeps_enrolment_sound
    shared_bundle = SharedBundle(plan.bundle, plan.settings.bundle_key, keeps_sound=keeps_sound)
    stores = Stores(state_folder(), plan.settings.keep, list(plan.machines))
    stores.lock()
    publisher = make_publisher(plan, stores, wait_for_broker=wait_for_device)

    def make_monitors(callbacks: MonitorCallbacks) -> list[MachineMonitor]:
        return _monitors(plan, shared_bundle, publisher, stores, callbacks, waits=wait_for_device)

    def delivery_report() -> DeliveryReport:
        return DeliveryReport(publisher.broker_status, stores.store_report)

    service = Service(
        publisher,
        SystemdNotifier(),
        make_monitors,
        make_health_reporters(plan, delivery_report),
        stores,
        shared_bundle.abandon,
    )
    publisher.on_command = service.command
    return service
