"""`asd-daemon check`: is everything there that the daemon needs? One finding for each thing, good or bad.

It opens what the daemon would open, for a moment, and leaves nothing behind.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from asd_daemon.errors import AsdError, BrokerError, SettingsError, SourceError
from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Block, SourceLost, UnreadableRecording
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.windows.quality import QualityLimits, unfit_reason
from asd_daemon.redaction import redact
from asd_daemon.rollout.looking import offered_words
from asd_daemon.run.machine_threshold import MachineThreshold
from asd_daemon.run.publishing import broker_address, topics_of
from asd_daemon.run.rolling_out import rules_of
from asd_daemon.run.rules import threshold_rule
from asd_daemon.run.shared_bundle import SharedBundle, listened_models, needs_models
from asd_daemon.run.source_memories import source_memory_of
from asd_daemon.run.stores import outbox_file
from asd_daemon.run.telling_people import telling_of
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.keys import MachineSettings
from asd_daemon.settings.plan import Plan
from asd_daemon.settings.value_words import chosen_lines
from asd_daemon.tell.storage.alert_rows import read_kept_memory
from asd_daemon.tell.storage.machine_locks import is_heard
from asd_daemon.tell.storage.machine_memory import parse_memory
from asd_daemon.waveform import SAMPLE_RATE_HZ, rms_level_dbfs
from asd_daemon.wording import counted, score_text

if TYPE_CHECKING:
    from asd_daemon.tell.mqtt.connection import BrokerAddress

_MEASURE_S, _BURST_S = 5.0, 1.0  # a program's buffers hold up to a second; stereo or 24 bit is 2.5 s too much in five
_MOST_S = 600.0  # of sound: nothing live sends that much in seconds


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    well: bool
    detail: str


def inspect_plan(plan: Plan, listen_s: float) -> Iterator[Finding]:
    """Look at everything a plan needs, in the order of starting; each finding comes when it is known."""
    names = ", ".join(plan.machines)
    yield Finding("configuration", True, f"{plan.file or 'none, defaults only'}: machines {names or 'none yet'}")
    for line in chosen_lines(plan):
        yield Finding("chosen", True, line)
    for trouble in plan.laid.troubles:
        yield Finding("chosen", False, trouble)
    key, own = plan.settings.bundle_key, plan.trusts_own
    shared_bundle = SharedBundle(
        plan.bundle, key, uses_models=needs_models(plan), listened=listened_models(plan), trusts_own=own
    )
    yield _finding("bundle", lambda: _bundle(shared_bundle))
    yield _finding("state folder", _state_folder)
    rules = rules_of(plan, state_folder() / "bundles")
    if rules is not None:
        yield _finding("rollout", lambda: offered_words(rules.job, datetime.now(UTC)))
    for name, machine in plan.machines.items():
        yield _finding(
            f"{name}: model",
            lambda n=name, m=machine: _model(shared_bundle, n, plan.model_of(n), m),  # type: ignore[misc]
        )
        yield _finding(f"{name}: source", lambda n=name: _listen(n, plan.sources[n], listen_s))  # type: ignore[misc]
    yield _finding("broker", lambda: _broker(plan))
    if plan.settings.notify is not None:
        yield _finding("people", lambda: _people(plan))


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, redact(look()))
    except AsdError as e:
        return Finding(what, False, redact(" ".join(str(e).split())))


def _bundle(shared_bundle: SharedBundle) -> str:
    from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test

    bundle = shared_bundle.bundle()
    compared = bounded_self_test(bundle)
    tested = f", {counted(compared, 'reference score')} reached" if compared else ""
    return f"{bundle.name} {bundle.version} with {', '.join(bundle.machines)}{tested}"


def _model(shared_bundle: SharedBundle, name: str, model: str, machine: MachineSettings) -> str:
    """The threshold that holds, or will when the daemon starts."""
    scoring = machine.scoring or "auto"
    scorer = shared_bundle.scorer(model, machine.alarm, machine.hop_s, scoring)
    memory = parse_memory(read_kept_memory(outbox_file(state_folder()), name), name)
    rule = threshold_rule(machine)
    threshold = MachineThreshold(name, rule, memory.tail, memory.other_tail).take_up(scorer.threshold, scorer.enrolled)
    others = f"; enrolled {score_text(scorer.threshold)}" if threshold.value != scorer.threshold else ""
    stays = "; alarm.threshold_learning is off" if rule.learning is None and rule.fixed is None else ""
    by = "; judged by the paper's back end" if scoring == "paper" else ""
    return f"threshold {score_text(threshold.value)}, {threshold.words}{others}{stays}{by}"


def _state_folder() -> str:
    folder = state_folder()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(existing, os.W_OK):
        raise SourceError(f"{folder}: can't be written; set ASD_STATE_DIR or give this user the right")
    return str(folder)


def _listen(machine: str, spec: SourceSpec, listen_s: float) -> str:
    """Hear a moment of a source; its level in words.

    Raises:
        SourceError: no sound, none that is fit to judge, or that of another device than the one remembered.
    """
    memory = source_memory_of(machine, spec)
    # Without an identity the first one would be remembered, and a look leaves nothing behind
    device_checks = {machine: memory.check_device} if memory is not None and memory.identity else {}
    source = open_sources({machine: spec}, wait=False, device_checks=device_checks)[machine]
    parts, missing = [], 0
    pace = _Pace(spec, listen_s)
    try:
        for heard in source.events():
            if isinstance(heard, SourceLost | UnreadableRecording):
                raise SourceError(heard.reason)
            if isinstance(heard, Block):
                parts.append(heard.samples)
                missing += heard.gap_samples
            heard_s = sum(len(part) for part in parts) / SAMPLE_RATE_HZ
            if pace.is_over(heard_s):
                break
    finally:
        source.close()
    samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
    reason = unfit_reason(samples, missing, QualityLimits(least_s=0.0))
    pace.check(samples.shape[0] / SAMPLE_RATE_HZ)
    if reason is not None:
        raise SourceError(f"{spec}: {samples.shape[0] / SAMPLE_RATE_HZ:.1f} s heard, not fit to judge: {reason.value}")
    usual = "" if memory is None or memory.level_dbfs is None else f", usually {memory.level_dbfs:.0f}"
    device = f", {source.source_health.identity}" if source.source_health.identity else ""
    return (
        f"{spec}: {samples.shape[0] / SAMPLE_RATE_HZ:.1f} s heard at {rms_level_dbfs(samples):.0f} dBFS{usual}{device}"
    )


class _Pace:
    """Seconds of sound against seconds of clock, for a command's samples say nothing of their rate."""

    def __init__(self, spec: SourceSpec, listen_s: float) -> None:
        self._spec = spec
        self._is_measured = spec.kind == "command" and not math.isinf(spec.speed(1.0))
        self._listen_s = max(listen_s, _MEASURE_S) if self._is_measured else listen_s
        self._begun: tuple[float, float] | None = None

    def is_over(self, heard_s: float) -> bool:
        """Whether enough was heard; called after each block."""
        if not self._is_measured:
            return heard_s >= self._listen_s
        self._begun = self._begun or (time.monotonic(), heard_s)  # what came at once had been waiting
        return time.monotonic() - self._begun[0] >= self._listen_s or heard_s > _MOST_S

    def check(self, heard_s: float) -> None:
        """Compare the two.

        Raises:
            SourceError: much more or less sound than time.
        """
        if self._begun is None:
            return
        clock_s, sound_s = time.monotonic() - self._begun[0], (heard_s - self._begun[1]) / self._spec.speed(1.0)
        if abs(sound_s - clock_s) > _BURST_S + 0.2 * clock_s:
            raise SourceError(
                f"{self._spec}: {sound_s:.1f} s of sound came in {clock_s:.1f} s, if it is raw s16le mono at 16 kHz: it is something"
                " else, or not live; tell the program to write that (ffmpeg: -ac 1 -ar 16000 -f s16le -)"
            )


def _people(plan: Plan) -> str:
    """Whether every address is understood; nothing is sent.

    Raises:
        SettingsError: the file can't be used, or an address is not understood; names the line.
    """
    from asd_daemon.tell.notifications.sender import Sender

    telling = telling_of(plan)
    recipients = telling.recipients if telling is not None else ()
    if wrong := Sender().read(recipients):
        told = [f"{recipient.name}: {wrong[recipient.key]}" for recipient in recipients if recipient.key in wrong]
        raise SettingsError("; ".join(told))
    return f"{', '.join(r.name for r in recipients)}; `asd-daemon notify test` sends each a message"


def _broker(plan: Plan) -> str:
    if plan.settings.mqtt is None:
        return "none: events are printed as JSON lines"
    from asd_daemon.tell.mqtt.trial import try_broker

    # by a name that no daemon has, so that none is thrown out
    address = broker_address(plan.settings, list(plan.machines), f"check-{os.getpid()}")
    version = try_broker(address)
    return f"{address} accepts us by MQTT {version}{' over TLS' if address.tls else ''}; {_rights(plan, address)}"


def _rights(plan: Plan, address: BrokerAddress) -> str:
    """Publish one message of each kind; what became of them in words.

    Raises:
        BrokerError: some are not taken.
    """
    from asd_daemon.tell.mqtt.trial import Outcome, try_topics

    is_running = any(is_heard(state_folder(), machine) for machine in plan.machines)
    trials = try_topics(address, topics_of(plan), is_heard=is_running)
    refused = [trial for trial in trials if trial.outcome is Outcome.REFUSED]
    if refused:
        told = "; ".join(f"{trial.kind} on {trial.topic}: {trial.why}" for trial in refused[:3])
        more = f"; and {len(refused) - 3} more topics" if len(refused) > 3 else ""
        raise BrokerError(f"broker {address} accepts us, but does not take {told}{more}")
    parts = []
    for outcome, words in (
        (Outcome.TAKEN, "we may publish {}"),
        (Outcome.UNKNOWN, "whether we may publish {} can't be known: it speaks MQTT 3.1.1, and nothing came back"),
        (Outcome.UNTRIED, "{} not tried, since a daemon is running; see asd-daemon status"),
    ):
        kinds = dict.fromkeys(trial.kind for trial in trials if trial.outcome is outcome)
        if kinds:
            parts.append(words.format(", ".join(kinds)))
    return "; ".join(parts)
