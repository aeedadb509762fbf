"""From a plan to the monitors of its machines: which source, which judge, which rules.

Owns how the parts of a monitor are put together. Nothing is heard yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from asd_daemon.errors import SettingsError
from asd_daemon.hear.source import Source
from asd_daemon.hear.windows.fitness import WindowFitness
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.alert_teaching import AlertTeaching
from asd_daemon.run.judge_tap import JudgeTap
from asd_daemon.run.judging_turns import JudgingTurns
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.opened_sources import OpenedSource
from asd_daemon.run.rules import alarm_rule, fitness_limits, threshold_rule
from asd_daemon.run.shared_bundle import SharedBundle, enrolled_folder
from asd_daemon.run.stores import Stores
from asd_daemon.settings.chosen_keys import SOURCE
from asd_daemon.settings.plan import Plan
from asd_daemon.watch.live_sound import LiveSound
from asd_daemon.waveform import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from asd_daemon.learn.online_enrolment import LearningJudge
    from asd_daemon.tell.publisher import Publisher


def judge_opener(
    plan: Plan,
    name: str,
    shared_bundle: SharedBundle,
    callbacks: MonitorCallbacks,
    teaching: AlertTeaching,
    *,
    is_taught: bool = False,
    tap: JudgeTap | None = None,
) -> Callable[[], Judge]:
    """What opens the scorer of a machine, or learns it anew from what was kept, or tries again.

    Args:
        plan: what shall run.
        name: the machine's.
        shared_bundle: the bundle.
        callbacks: who is told of a machine that can't be judged.
        teaching: what people have said of its alerts.
        is_taught: whether the machine can be learned while it is listened to: then there is hope as long as the daemon runs.
        tap: hears what is judged; None: nobody does.
    """
    from asd_daemon.learn.recovering_judge import RecoveringJudge
    from asd_daemon.run.taught_judge import TaughtJudge

    machine, model, scoring = plan.machines[name], plan.model_of(name), plan.scoring_of(name)

    def unjudged(error: Exception | None) -> None:
        if not is_taught or error is None or isinstance(error, SettingsError):
            callbacks.unjudged(name, error)

    def open_judge() -> Judge:
        scorer = shared_bundle.scorer(model, machine.alarm, machine.hop_s, scoring)
        return TaughtJudge(name, scorer, teaching)

    judge = RecoveringJudge(
        name,
        open_judge if tap is None else tap.beside(name, open_judge),
        lambda told: shared_bundle.relearn(model, told, scoring),
        unjudged,
        waits_for_lesson=is_taught,
    )
    return judge.open


def make_learning_judge(
    plan: Plan,
    name: str,
    shared_bundle: SharedBundle,
    source: Source,
    known: Callable[[], Judge],
) -> LearningJudge:
    """A machine's judge that can learn it while it listens.

    Args:
        plan: what shall run.
        name: the machine's.
        shared_bundle: the bundle.
        source: its sound.
        known: opens what is known of it.
    """
    from asd_daemon.learn.online_enrolment import EnrolmentTarget, LearningJudge

    target = EnrolmentTarget(
        plan.model_of(name),
        str(plan.sources[name]),
        enrolled_folder(),
        round(plan.machines[name].hop_s * SAMPLE_RATE_HZ),
        keeps_sound=plan.settings.keep.keeps_enrolment_sound,
        off_below_dbfs=plan.machines[name].quality.off_below_dbfs,
        scoring=plan.scoring_of(name),
    )
    return LearningJudge(target, known, shared_bundle.bundle, lambda: source.source_health)


class MonitorAssembly:
    """Makes monitors of what all machines of the process share.

    Args:
        shared_bundle: the bundle.
        publisher: who publishes.
        stores: what is kept.
        troubles: what is wrong with the daemon as a whole, in words.
        live_sound: where sound is left for who looks at a machine just now.
        tap: hears what is judged.
    """

    def __init__(
        self,
        shared_bundle: SharedBundle,
        publisher: Publisher,
        stores: Stores,
        troubles: Callable[[], tuple[str, ...]],
        live_sound: LiveSound | None = None,
        tap: JudgeTap | None = None,
    ) -> None:
        self._live_sound, self._tap = live_sound, tap
        self._shared_bundle, self._publisher, self._stores, self._troubles = shared_bundle, publisher, stores, troubles
        self._turns = JudgingTurns()
        self._teaching: dict[str, AlertTeaching] = {}

    def monitors(
        self, plan: Plan, sources: Mapping[str, OpenedSource], callbacks: MonitorCallbacks
    ) -> list[MachineMonitor]:
        """A monitor for each source."""
        return [self._monitor(plan, name, opened, callbacks) for name, opened in sources.items()]

    def judge_opener(self, plan: Plan, name: str, callbacks: MonitorCallbacks) -> Callable[[], Judge]:
        """What opens a machine's judge; one that can be taught waits for its lesson."""
        teaching = self._teaching[name]
        is_taught = _waits(plan, name)
        return judge_opener(plan, name, self._shared_bundle, callbacks, teaching, is_taught=is_taught, tap=self._tap)

    def _monitor(self, plan: Plan, name: str, opened: OpenedSource, callbacks: MonitorCallbacks) -> MachineMonitor:
        machine, learner = plan.machines[name], None
        teaching = AlertTeaching(name, self._stores.archive(name) if plan.goes_on_with(name) else None)
        self._teaching[name] = teaching
        known = self.judge_opener(plan, name, callbacks)
        if plan.goes_on_with(name) or _waits(plan, name):
            learner = make_learning_judge(plan, name, self._shared_bundle, opened.source, known)
        return MachineMonitor(
            name,
            opened.source,
            learner.open if learner is not None else known,
            self._publisher,
            callbacks,
            learner=learner,
            teaching=teaching,
            rule=alarm_rule(machine.alarm),
            threshold=threshold_rule(machine),
            records=self._stores.records(name),
            resumes=plan.goes_on_with(name),
            fitness=WindowFitness(fitness_limits(machine.quality), opened.memory),
            hop_samples=round(machine.hop_s * SAMPLE_RATE_HZ),
            troubles=self._troubles,
            turns=self._turns,
            live_sound=self._live_sound,
        )


def _waits(plan: Plan, name: str) -> bool:
    """Whether a machine that is not known waits to be learned: somebody may teach it by MQTT, or has added it to be learned."""
    by_mqtt = plan.settings.mqtt is not None and plan.settings.mqtt.enrolment
    return by_mqtt or (name not in plan.configured.machines and plan.chosen.find(name, SOURCE) is not None)
