"""From a plan to a daemon that can run: which machines, which bundle, which source, whom to tell.

Owns how the parts are put together. Nothing is opened here that the service does not own.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from asd_daemon.errors import SettingsError
from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Source
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.source_memory import SourceMemory
from asd_daemon.hear.windows.fitness import Fitness, FitnessLimits
from asd_daemon.judge.alarm.alarm import AlarmRule
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.service import Service
from asd_daemon.run.station import Station, StationCallbacks
from asd_daemon.run.stores import Stores
from asd_daemon.settings.file import read_password, state_folder
from asd_daemon.settings.keys import AlarmSettings, QualitySettings, Settings
from asd_daemon.settings.plan import Plan
from asd_daemon.watch.report import DeliveryReport, DeliveryReports, Observer
from asd_daemon.watch.status import StatusFile, status_file, status_folder
from asd_daemon.watch.systemd import SystemdNotifier
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S

if TYPE_CHECKING:
    from asd_daemon.judge.bundle.bundle import Bundle
    from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession
    from asd_daemon.judge.scoring.scorer import Scorer
    from asd_daemon.learn.online_enrolment import LearningJudge
    from asd_daemon.tell.mqtt.connection import BrokerAddress
    from asd_daemon.tell.mqtt.publisher import MqttPublisher
    from asd_daemon.tell.publisher import JsonLinesPublisher


_LOG = logging.getLogger(__name__)


def alarm_rule(alarm: AlarmSettings) -> AlarmRule:
    """The alarm that the settings describe."""
    return AlarmRule(
        alarm.open_after,
        alarm.of,
        alarm.close_after,
        alarm.update_every_s,
        alarm.hysteresis,
        alarm.cool_down_s,
        alarm.relapse_s,
    )


def fitness_limits(quality: QualitySettings) -> FitnessLimits:
    """Where usable ends, as the settings say."""
    return FitnessLimits(quality.below_db, quality.above_db, deaf_after_s=quality.deaf_after_s)


def make_observers(plan: Plan, telling: DeliveryReports) -> list[Observer]:
    """Those who look on and tell: the status file always, metrics and the dead-man ping where they are configured."""
    health = plan.settings.health
    file = status_file(status_folder(state_folder()), plan.machines)
    version = metadata.version("asd-edge")
    observers: list[Observer] = [StatusFile(file, node=plan.settings.node, version=version, telling=telling)]
    if health.metrics_port is not None:
        from asd_daemon.watch.metrics import MetricsServer

        observers.append(MetricsServer(health.metrics_host, health.metrics_port, telling))
    if health.ping_url is not None:
        from asd_daemon.watch.dead_man_ping import DeadManPing

        observers.append(DeadManPing(health.ping_url, health.ping_every_s))
    return observers


def memory_of(machine: str, spec: SourceSpec) -> SourceMemory | None:
    """What is remembered of a machine's microphone or command; nothing of recordings and simulations, which may be of anything."""
    if spec.kind not in ("device", "command"):
        return None
    return SourceMemory(state_folder() / "machines" / machine / "source.json")


class SharedBundle:
    """The bundle, loaded and verified once, and its embedder, shared by all machines; asked from several threads."""

    def __init__(self, path: Path, key: Path | None = None, *, keeps_sound: bool = True) -> None:
        self._path, self._key, self._keeps_sound = path, key, keeps_sound
        self._lock = threading.Lock()
        self._one_learns = threading.Lock()
        self._is_over = threading.Event()
        self._bundle: Bundle | None = None
        self._embedder: EmbedderSession | None = None
        self._separator: SeparatorSession | None = None

    def bundle(self) -> Bundle:
        """The verified and tested bundle; where the installed one can't be used, the one before it.

        Raises:
            BundleError: it can't be used.
        """
        from asd_daemon.judge.scoring.installed_bundles import load_or_roll_back

        with self._lock:
            if self._bundle is None:
                self._bundle, reason = load_or_roll_back(self._path, self._key, self._is_over.is_set)
                if reason is not None:
                    _LOG.error("the installed bundle can't be used, back to the one before it: %s", reason)
            return self._bundle

    def abandon(self) -> None:
        """Nobody waits for the bundle any more; from any thread."""
        self._is_over.set()

    def scorer(self, model: str, alarm: AlarmSettings, hop_s: float = WINDOW_S) -> Scorer:
        """A machine's scorer with the threshold that its alarm needs.

        Raises:
            BundleError: it can't be used.
            UnknownMachineError: it does not know the machine.
        """
        from asd_daemon.judge.scoring.scorer import Scorer
        from asd_daemon.judge.thresholds.calibration import window_exceedance

        exceedance = window_exceedance(
            false_alarms_per_week=alarm.false_alarms_per_week, open_after=alarm.open_after, of=alarm.of, hop_s=hop_s
        )
        from asd_daemon.learn.enrolled_machines import with_enrolled

        bundle = with_enrolled(self.bundle(), enrolled_folder(), model)
        with self._lock:
            scorer = Scorer(bundle, model, exceedance=exceedance, session=self._embedder, separator=self._separator)
            self._embedder, self._separator = scorer.models
        return scorer

    def relearn(self, model: str, told: Callable[[str], None]) -> None:
        """Learn a machine anew from what was kept of its enrolment; one machine at a time.

        Raises:
            AsdError: it can't be done.
        """
        from asd_daemon.learn.relearning import relearn_from_kept

        told("waits for its turn")
        with self._one_learns:
            record = relearn_from_kept(self.bundle(), enrolled_folder(), model, told, keeps_sound=self._keeps_sound)
        _LOG.info("%s: learned anew from %d kept windows: %s", model, record.windows, record.relearned)


def enrolled_folder() -> Path:
    """Where the machines lie that were learned on this box."""
    return state_folder() / "enrolled"


def broker_address(settings: Settings, machines: Sequence[str]) -> BrokerAddress:
    """The broker, as the connection needs it.

    Raises:
        SettingsError: the password file can't be read, or there is no broker.
    """
    from asd_daemon.tell.mqtt.connection import BrokerAddress

    mqtt = settings.mqtt
    if mqtt is None:
        raise SettingsError("mqtt: no broker is configured")
    return BrokerAddress(
        host=mqtt.host,
        port=mqtt.effective_port,
        client_id="-".join(["asd", settings.node, *machines])[:128],
        tls=mqtt.tls,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        username=mqtt.username,
        password=read_password(mqtt),
        keepalive_s=mqtt.keepalive_s,
    )


def make_publisher(plan: Plan, stores: Stores, *, patient: bool = False) -> MqttPublisher | JsonLinesPublisher:
    """Whoever tells people: the broker, or lines on standard output where none is configured.

    Args:
        plan: what shall run.
        stores: where alerts wait.
        patient: whether a broker that refuses us at the start is waited for.

    Raises:
        SettingsError, BrokerError: password or certificate files that can't be used.
    """
    mqtt, machines = plan.settings.mqtt, list(plan.machines)
    if mqtt is None:
        from asd_daemon.tell.publisher import JsonLinesPublisher

        return JsonLinesPublisher(sys.stdout, plan.settings.node, stores.outbox)
    from asd_daemon.tell.mqtt.publisher import MqttPublisher
    from asd_daemon.tell.mqtt.topics import Topics

    topics = Topics(
        node=plan.settings.node,
        machines=machines,
        prefix=mqtt.prefix,
        owns_node=set(machines) >= set(plan.settings.machines),
        discovery_prefix=mqtt.discovery_prefix,
        takes_commands=mqtt.commands,
    )
    return MqttPublisher(broker_address(plan.settings, machines), topics, waiting=stores.outbox, patient=patient)


def judge_of(
    plan: Plan, name: str, shelf: SharedBundle, news: StationCallbacks, *, is_taught: bool = False
) -> Callable[[], Judge]:
    """What opens the scorer of a machine, or learns it anew from what was kept, or tries again.

    Args:
        plan: what shall run.
        name: the machine's.
        shelf: the bundle.
        news: who is told of a machine that can't be judged.
        is_taught: whether the machine can be learned while it is listened to: then there is hope as long as the daemon runs.
    """
    from asd_daemon.learn.recovering_judge import RecoveringJudge

    machine, model = plan.machines[name], plan.model_of(name)
    judge = RecoveringJudge(
        name,
        lambda: shelf.scorer(model, machine.alarm, machine.hop_s),
        lambda told: shelf.relearn(model, told),
        (lambda _: None) if is_taught else (lambda error: news.unjudged(name, error)),
        waits_for_lesson=is_taught,
    )
    return judge.open


def make_learning_judge(
    plan: Plan, name: str, shelf: SharedBundle, source: Source, news: StationCallbacks
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
    known = judge_of(plan, name, shelf, news, is_taught=True)
    return LearningJudge(target, known, shelf.bundle, lambda: source.source_health)


def make_service(plan: Plan, *, wait_for_device: bool) -> Service:
    """The daemon, ready to run.

    Args:
        plan: what shall run.
        wait_for_device: keep trying where a microphone or command isn't there at the start, or the broker refuses us, rather than fail.

    Raises:
        AsdError: something of it can't be made.
    """
    keeps_sound = plan.settings.keep.keeps_enrolment_sound
    shelf = SharedBundle(plan.bundle, plan.settings.bundle_key, keeps_sound=keeps_sound)
    stores = Stores(state_folder(), plan.settings.keep, list(plan.machines))
    publisher = make_publisher(plan, stores, patient=wait_for_device)

    memories = {name: memory_of(name, plan.sources[name]) for name in plan.machines}
    learns = plan.settings.mqtt is not None and plan.settings.mqtt.enrolment

    def make_stations(news: StationCallbacks) -> list[Station]:
        objections = {name: memory.objection for name, memory in memories.items() if memory is not None}
        sources = open_sources(
            {name: plan.sources[name] for name in plan.machines}, wait=wait_for_device, objections=objections
        )
        pupils = {name: make_learning_judge(plan, name, shelf, sources[name], news) for name in plan.machines if learns}
        return [
            Station(
                name,
                sources[name],
                pupils[name].open if learns else judge_of(plan, name, shelf, news),
                publisher,
                news,
                learner=pupils.get(name),
                rule=alarm_rule(machine.alarm),
                records=stores.records(name),
                resumes=plan.sources[name].kind not in ("file", "folder"),
                fitness=Fitness(fitness_limits(machine.quality), memories[name]),
                hop_samples=round(machine.hop_s * SAMPLE_RATE_HZ),
            )
            for name, machine in plan.machines.items()
        ]

    def telling() -> DeliveryReport:
        return DeliveryReport(publisher.broker_status, stores.store_report)

    service = Service(publisher, SystemdNotifier(), make_stations, make_observers(plan, telling), stores, shelf.abandon)
    publisher.commanded = service.command
    return service
